"""Groups of runs on a Ray cluster: one task per group, where `netdepth.studies.pool` has a worker process.

The cluster is connected to or started here, and every node is checked before the first run. A Ray that is started
here (``auto`` where none runs) listens on loopback only, without a dashboard and without usage statistics. Any other
must see the runs folder under the same path from every node and have the same netdepth and torch.

Ray runs tasks somewhere, an actor gathers their progress, and Ray says when a task's process or machine is gone.
A lost task is started again on another node and continues from the checkpoints in its run folders.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from netdepth.errors import BadInput, Interrupted, RunFailed
from netdepth.files.atomic import write_atomic
from netdepth.studies.pool import SAVING_SECONDS, JobQueue, saved_on_signals
from netdepth.studies.worker import Done, Event, Job, Report, work
from netdepth.text import plain
from netdepth.training.launch import Outcome

__all__ = ["ATTEMPTS", "check_address", "execute"]

ATTEMPTS = 4
"""How often a group is started if it loses its process or its node: more often than on one machine, as
machines that are rented for a while are taken away again."""

POLL_SECONDS = 0.5

GPU_SHARE = 0.5
"""Of a GPU per group, where ``--device cuda`` asks for one."""

ANSWER_SECONDS = 10.0
"""How long a cluster's address may take to accept a connection."""

NODE_SECONDS = 120.0
"""How long all nodes together may take to start a first process and read the runs folder."""

SEEN_SECONDS = 5.0
"""How long a shared file system may take to show a new file on another node."""


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
    address = check_address(address)
    from ray.exceptions import RayError

    runtime = jobs[0].runtime
    gpus = GPU_SHARE if runtime.device.startswith("cuda") else 0.0
    needed = {"CPU": 1.0, **({"GPU": gpus} if gpus else {})}
    with _connected(address, workers), _marker(Path(runtime.runs_root or ".")) as marker:
        _check_nodes(address, needed, marker)
        queue = JobQueue([_with_absolute_paths(job) for job in jobs], ATTEMPTS, on_event)
        tasks = _Tasks(queue, on_event, marker, gpus)
        try:
            with saved_on_signals(tasks.cancel):
                tasks.serve(workers or len(jobs))
        except RayError as error:  # the loss of a single task is handled in `_finish`
            raise RunFailed(f"the Ray at {address} is lost: {last_line(error)}; the same command continues") from None


def _with_absolute_paths(job: Job) -> Job:
    """``job`` with paths that hold in any working folder."""
    runtime = job.runtime
    data = runtime.data_dir or os.environ.get("NETDEPTH_DATA")
    imports = (str(Path(text).absolute()) if text.endswith(".py") else text for text in runtime.imports)
    data_dir = None if data is None else Path(data).absolute()
    return dataclasses.replace(job, runtime=dataclasses.replace(runtime, data_dir=data_dir, imports=tuple(imports)))


# --- the tasks ----------------------------------------------------------------------------------


class _Interrupted(Exception):
    """On a node: the task was interrupted and has saved. Ray can send it back, as it needs no arguments."""


def _make(job: Job, mailbox: Any, marker: tuple[str, str]) -> tuple[Outcome, ...] | str:
    """On a node: the outcomes of ``job``, or what is wrong with the node."""
    fault = examine_node(*marker)
    if isinstance(fault, str):
        return f"{socket.gethostname()}: {fault}"
    try:
        return work(job, lambda event: mailbox.put.remote(event))
    except Interrupted as error:
        raise _Interrupted(str(error)) from None


class _Mailbox:
    """An actor beside the driver: the events that the tasks reported since the last `take`."""

    def __init__(self) -> None:
        self._events: list[Event] = []

    def put(self, event: Event) -> None:
        self._events.append(event)

    def take(self) -> list[Event]:
        events, self._events = self._events, []
        return events


class _Tasks:
    """The jobs as tasks: started, watched, started again when they are lost."""

    def __init__(self, queue: JobQueue, on_event: Report, marker: tuple[str, str], gpus: float) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self._queue = queue
        self._running: dict[Any, Job] = {}
        self._on_event = on_event
        self._marker = marker
        # A lost task is started again here and not by Ray, so that it is reported and counted.
        self._task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=0)(_make)
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Mailbox)
        self._mailbox = actor.options(scheduling_strategy=here).remote()

    def serve(self, at_once: int) -> None:
        import ray

        while self._queue or self._running:
            while self._queue and len(self._running) < at_once:
                job = self._queue.take()
                self._running[self._task.remote(job, self._mailbox, self._marker)] = job
            ended, _ = ray.wait(list(self._running), timeout=POLL_SECONDS)
            groups = {job.group for job in self._running.values()}
            for event in ray.get(self._mailbox.take.remote()):
                if event.group in groups:  # a late event of a group that is done would show it again
                    self._on_event(event)
            for task in ended:
                self._finish(task, self._running.pop(task))

    def _finish(self, task: Any, job: Job) -> None:
        import ray

        try:
            made = ray.get(task)
        except ray.exceptions.RayError as error:
            self._queue.lost(job, f"a Ray task was lost: {last_line(error)}")
            return
        if isinstance(made, str):
            self._queue.give_up(job, f"Ray node {made}")
        else:
            self._on_event(Done(job.group, made))

    def cancel(self) -> None:
        """Interrupt every task and wait until it has saved."""
        import ray

        tasks = list(self._running)
        for task in tasks:
            ray.cancel(task, force=False)
        if tasks:
            ray.wait(tasks, num_returns=len(tasks), timeout=SAVING_SECONDS)


# --- the connection -----------------------------------------------------------------------------


def check_address(address: str) -> str:
    """The address to connect to for ``--ray address``; "local" means a Ray of our own.

    Raises:
        BadInput: Ray is not installed, or nothing answers at ``address``.
    """
    try:
        import ray  # noqa: F401
    except ImportError:
        raise BadInput("--ray needs Ray, which is not installed; get it with: pip install netdepth[ray]") from None
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS") or "auto"
    if address in ("auto", "local"):
        return _started_here() or "local"
    if re.fullmatch(r"(ray://)?[^\s/]+:\d{1,5}", address) is None:
        raise BadInput(f"--ray {address!r} is no address; it takes auto, HOST:PORT or ray://HOST:PORT")
    try:
        _knock(address)
    except (OSError, OverflowError) as error:
        raise _unreachable(address, getattr(error, "strerror", None) or str(error)) from None
    return address


def _started_here() -> str | None:
    """The address of the cluster that ``ray start`` began on this machine, if it still answers.

    Any other Ray of this machine belongs to another program and ends with it.
    """
    from ray._private.services import find_bootstrap_address

    address: str | None = find_bootstrap_address(None)
    with contextlib.suppress(OSError):  # it has ended, but its files are still there
        if address:
            _knock(address)
            return address
    return None


def _knock(address: str) -> None:
    """Raise OSError unless something accepts a connection: Ray itself would try for many minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS).close()


@contextlib.contextmanager
def _connected(address: str, workers: int | None) -> Iterator[None]:
    """Connect this process to ``address`` (of `check_address`); an older connection is used and kept."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if ray.is_initialized():
        yield
        return
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)  # Ray puts a handler of its own in its place
    with contextlib.redirect_stdout(sys.stderr):  # Ray reports the death of a node on stdout
        try:
            _init(address, workers)
            if main:
                signal.signal(signal.SIGTERM, before)
            yield
        finally:
            ray.shutdown()
            if main:
                signal.signal(signal.SIGTERM, before)


def _init(address: str, workers: int | None) -> None:
    import ray
    from ray._private import ray_constants

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address != "local":
        try:
            ray.init(address=address, **quiet)
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:  # no Ray, or another version
            raise _unreachable(address, last_line(error)) from None
        return
    # `init` takes no address for a new Ray to listen on: it is loopback where clusters are off.
    clusters, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    try:
        ray.init(address="local", num_cpus=workers, include_dashboard=False, object_store_memory=100 << 20, **quiet)
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = clusters


def _unreachable(address: str, reason: str) -> BadInput:
    return BadInput(f"no Ray cluster answers at {address} ({reason}); start one with: ray start --head")


def last_line(error: BaseException) -> str:
    """The last line of an error of Ray that is not empty, without the traceback above it."""
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", str(error)).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__


# --- the nodes, before the first run ------------------------------------------------------------


@contextlib.contextmanager
def _marker(folder: Path) -> Iterator[tuple[str, str]]:
    """A new file in ``folder`` and its content: a node that reads the same content sees the same folder."""
    token = uuid.uuid4().hex
    path = folder / f".shared-{token[:8]}"
    write_atomic(path, token.encode())
    try:
        yield str(path), token
    finally:
        path.unlink(missing_ok=True)


def _check_nodes(address: str, needed: Mapping[str, float], marker: tuple[str, str]) -> None:
    """Ask every node with the ``needed`` resources whether it sees the runs folder and has the same versions.

    Raises:
        BadInput: there is no such node, or one does not.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    alive = [node for node in ray.nodes() if node["Alive"]]
    nodes = [node for node in alive if all(node["Resources"].get(key, 0.0) >= least for key, least in needed.items())]
    if not nodes:
        raise BadInput(f"the Ray cluster at {address} has no node with a {' and a '.join(needed)} to give")
    task = ray.remote(num_cpus=0, max_retries=0)(examine_node)
    on_node = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
    answers = [task.options(scheduling_strategy=strategy).remote(*marker) for strategy in on_node]
    ray.wait(answers, num_returns=len(answers), timeout=NODE_SECONDS)
    here = _versions()
    for answer, node in zip(answers, nodes, strict=True):
        name = node["NodeManagerAddress"]
        try:
            found = ray.get(answer, timeout=0)
        except ray.exceptions.GetTimeoutError:
            raise BadInput(f"Ray node {name} started no process within {plain(NODE_SECONDS)} s") from None
        except ray.exceptions.RayError as error:
            raise BadInput(f"Ray node {name} cannot run netdepth: {last_line(error)}") from None
        if isinstance(found, str):
            raise BadInput(f"Ray node {name}: {found}")
        differing = [what for what in here if found[what] != here[what]]
        if differing:
            there, wanted = (", ".join(f"{what} {of[what]}" for what in differing) for of in (found, here))
            raise BadInput(f"Ray node {name} has {there}; this study is made with {wanted}")


def examine_node(path: str, token: str) -> str | dict[str, str]:
    """On a node: what is wrong with the runs folder, else the versions of what decides a run's numbers."""
    until = time.monotonic() + SEEN_SECONDS
    while True:
        with contextlib.suppress(OSError):
            if Path(path).read_text() == token:
                return _versions()
        if time.monotonic() > until:
            folder = Path(path).parent
            return f"it does not see the runs folder {folder}; give --runs a folder on a file system all nodes share"
        time.sleep(0.1)


def _versions() -> dict[str, str]:
    return {"netdepth": version("netdepth"), "torch": version("torch")}
