"""Groups of runs over a Ray cluster: one task per group, where `netdepth.studies.pool` has a worker process.

What is asked of Ray (here and in `netdepth.studies.cluster`, nowhere else) is little: tasks that run somewhere, an
actor that gathers their progress, and the news that a task's process or machine is gone. What a lost task had done
lies in its run folders, so it is begun again elsewhere and continues from its checkpoints; its locks died with it.
"""

from __future__ import annotations

import os
import socket
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from netdepth.errors import BadInput, Interrupted, RunFailed
from netdepth.studies.cluster import check, connected, last_line, look, look_around, marker, usable_nodes
from netdepth.studies.pool import SAVING_SECONDS, give_up, interrupted
from netdepth.studies.worker import Report, work
from netdepth.training.signals import signals_as_errors, signals_ignored

__all__ = ["ATTEMPTS", "check", "execute"]

ATTEMPTS = 4
"""How often a group is begun that loses its process or its node: more often than on one machine, as
machines that are lent for a while are taken away again."""

POLL_SECONDS = 0.5

GPU_SHARE = 0.5
"""Of a GPU per group, where ``--device cuda`` asks for one."""

Job = Mapping[str, Any]


def execute(jobs: Sequence[Job], workers: int | None, on_event: Report, *, address: str) -> None:
    """Make ``jobs`` on the Ray at ``address``, at most ``workers`` at once, else as many as it has CPUs.

    ``address`` is ``auto`` (that of ``$RAY_ADDRESS``, else of ``ray start`` on this machine, else a Ray of our own
    for the time of the call), ``HOST:PORT`` or ``ray://HOST:PORT``. Events are those of
    `netdepth.studies.pool.execute`.

    Raises:
        BadInput: no Ray here, no cluster there, or one that cannot make these runs.
        Interrupted: a signal came; the groups at work have saved.
        RunFailed: the cluster itself is gone.
        StorageError: the runs folder cannot be written.
    """
    if workers == 0:
        raise BadInput("--workers 0 makes the runs in this process and --ray on a cluster; give one of them")
    address = check(address)
    from ray.exceptions import RayError

    runtime = jobs[0]["runtime"]
    gpus = GPU_SHARE if str(runtime["device"]).startswith("cuda") else 0.0
    with connected(address, workers), marker(Path(runtime["runs_root"])) as mark:
        look_around(usable_nodes(address, {"CPU": 1.0, **({"GPU": gpus} if gpus else {})}), mark)
        tasks = _Tasks([_found_anywhere(job) for job in jobs], on_event, mark, gpus)
        try:
            with signals_as_errors():
                tasks.serve(workers or len(jobs))
        except (KeyboardInterrupt, Interrupted) as error:
            with signals_ignored():
                tasks.cancel()
            raise interrupted(error) from None
        except RayError as error:  # of a task it would have been told as that group's
            raise RunFailed(f"the Ray at {address} is lost: {last_line(error)}; the same command continues") from None


def _found_anywhere(job: Job) -> dict[str, Any]:
    """``job`` with its paths as they are called from any working folder."""
    runtime = dict(job["runtime"])
    data = runtime["data_dir"] or os.environ.get("NETDEPTH_DATA")
    runtime["data_dir"] = None if data is None else str(Path(data).absolute())
    runtime["imports"] = [str(Path(text).absolute()) if text.endswith(".py") else text for text in runtime["imports"]]
    return {**job, "runtime": runtime}


class _Leaving(Exception):
    """On a node: the task was told to leave and has saved. Ray carries it back; it needs no arguments."""


def _make(job: Job, mailbox: Any, mark: tuple[str, str]) -> list[dict[str, Any]] | str:
    """On a node: the outcomes of ``job``, or what is wrong with the node."""
    fault = look(*mark)
    if isinstance(fault, str):
        return f"{socket.gethostname()}: {fault}"
    try:
        return work(job, lambda event: mailbox.put.remote(dict(event)))
    except Interrupted as error:
        raise _Leaving(str(error)) from None


class _Mailbox:
    """An actor beside the driver: what the tasks have told since it was last asked."""

    def __init__(self) -> None:
        self._events: list[dict[str, Any]] = []

    def put(self, event: dict[str, Any]) -> None:
        self._events.append(event)

    def take(self) -> list[dict[str, Any]]:
        events, self._events = self._events, []
        return events


class _Tasks:
    """The jobs as tasks: begun, watched, begun again when they are lost."""

    def __init__(self, jobs: Sequence[Job], on_event: Report, mark: tuple[str, str], gpus: float) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self._waiting = deque(jobs)
        self._begun: Counter[int] = Counter()
        self._at_work: dict[Any, Job] = {}
        self._on_event = on_event
        self._mark = mark
        # What is lost is begun again here and not by Ray, so that it is told and counted.
        self._task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=0)(_make)
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Mailbox)
        self._mailbox = actor.options(scheduling_strategy=here).remote()

    def serve(self, at_once: int) -> None:
        import ray

        while self._waiting or self._at_work:
            while self._waiting and len(self._at_work) < at_once:
                job = self._waiting.popleft()
                self._begun[job["group"]] += 1
                self._at_work[self._task.remote(job, self._mailbox, self._mark)] = job
            ended, _ = ray.wait(list(self._at_work), timeout=POLL_SECONDS)
            groups = {job["group"] for job in self._at_work.values()}
            for event in ray.get(self._mailbox.take.remote()):
                if event["group"] in groups:  # a late word of a group that is done would show it again
                    self._on_event(event)
            for task in ended:
                self._finish(task, self._at_work.pop(task))

    def _finish(self, task: Any, job: Job) -> None:
        import ray

        group = job["group"]
        try:
            made = ray.get(task)
        except ray.exceptions.RayError as error:
            reason = f"a Ray task was lost: {last_line(error)}"
            if self._begun[group] < ATTEMPTS:
                self._waiting.appendleft(job)
                self._on_event({"event": "retry", "group": group, "error": reason})
                return
            made = give_up(job, f"{reason} ({ATTEMPTS} times)")
        if isinstance(made, str):
            made = give_up(job, f"Ray node {made}")
        self._on_event({"event": "outcome", "group": group, "outcomes": made})

    def cancel(self) -> None:
        """Interrupt every task and wait until it has saved."""
        import ray

        tasks = list(self._at_work)
        for task in tasks:
            ray.cancel(task, force=False)
        if tasks:
            ray.wait(tasks, num_returns=len(tasks), timeout=SAVING_SECONDS)
