"""A worker trains groups of runs, one group at a time, and reports its progress as events.

``python -m netdepth.studies.worker`` reads one `Job` per line on stdin and writes one `Event` per line on
stdout, both as JSON; all other output goes to stderr. A closed stdin means that the parent
process has ended: the worker saves its runs and ends.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from netdepth.config import Component, RunConfig, Runtime, from_json, to_json
from netdepth.errors import BadInput, Interrupted, Locked, NetdepthError
from netdepth.files.usercode import import_user
from netdepth.progress import ShownRecord
from netdepth.runs.folder import RunDir, runs_root
from netdepth.training.launch import Outcome

if TYPE_CHECKING:
    from netdepth.data import Splits

__all__ = [
    "Done", "Event", "Job", "Progress", "Report", "Retry", "Started", "Waiting", "failed_outcomes", "main",
    "read_event", "work", "write_event",
]  # fmt: skip

LOCK_SECONDS = 15.0
"""How long a group waits for a folder: a worker of a killed study may still be saving in it."""

REPORT_SECONDS = 0.5


@dataclass(frozen=True)
class Job:
    """One group of a plan: a config as it was resolved, with its fingerprint; its seeds, each with its run folder.

    ``name`` is the recipe that the runs record, ``study`` the folder below ``runtime.runs_root`` that holds them.
    """

    group: int
    name: str
    study: str
    config: RunConfig
    fingerprint: str
    seeds: tuple[int, ...]
    folders: tuple[str, ...]
    runtime: Runtime


@dataclass(frozen=True)
class Started:
    """The work on a group begins."""

    group: int


@dataclass(frozen=True)
class Waiting:
    """Another process still holds a folder of the group."""

    group: int
    reason: str


@dataclass(frozen=True)
class Progress:
    """Optimizer steps done so far; ``train_loss`` is that of the newest evaluation, if it is finite."""

    group: int
    step: int
    total_steps: int
    steps_per_epoch: int
    train_loss: float | None


@dataclass(frozen=True)
class Retry:
    """The worker died and the group is started again."""

    group: int
    error: str


@dataclass(frozen=True)
class Done:
    """The group has ended, with the outcome of each of its runs."""

    group: int
    outcomes: tuple[Outcome, ...]


Event = Started | Waiting | Progress | Retry | Done
EVENTS: dict[str, type[Any]] = {kind.__name__: kind for kind in (Started, Waiting, Progress, Done)}
"""Events that a worker process writes; a `Retry` comes from the process that lost its worker."""

Report = Callable[[Event], None]


def write_event(event: Event, out: IO[str]) -> None:
    """Write ``event`` as a line of JSON."""
    out.write(json.dumps({"event": type(event).__name__, **to_json(event)}, allow_nan=False) + "\n")
    out.flush()


def read_event(line: bytes) -> Event:
    """The event that `write_event` wrote."""
    fields = json.loads(line)
    kind = EVENTS[fields.pop("event")]
    if kind is Done:
        fields["outcomes"] = tuple(Outcome(**{**item, "path": Path(item["path"])}) for item in fields["outcomes"])
    event: Event = kind(**fields)
    return event


# --- the work -----------------------------------------------------------------------------------


def work(job: Job, report: Report) -> tuple[Outcome, ...]:
    """Train one group in this process; every seed has an outcome, also if it fails.

    ``report`` gets `Started`, `Waiting` and `Progress` (at most twice a second); the caller reports `Done`.

    Raises:
        Interrupted: a signal came, or ``report`` raised it; everything is saved.
    """
    report(Started(job.group))
    wait_until = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            return _make(job, report)
        except Interrupted:
            raise
        except Locked as error:
            if time.monotonic() > wait_until:
                return failed_outcomes(job, str(error), error.exit_code)
            report(Waiting(job.group, str(error)))
            time.sleep(0.25)
        except NetdepthError as error:
            return failed_outcomes(job, str(error), error.exit_code)
        except Exception as error:
            traceback.print_exc()
            return failed_outcomes(job, f"internal error: {type(error).__name__}: {' '.join(str(error).split())}", 1)


def _make(job: Job, report: Report) -> tuple[Outcome, ...]:
    from netdepth.training.resolve import ResolvedConfig, fingerprint
    from netdepth.training.run import run_stack

    for module in job.runtime.imports:
        import_user(module)

    def watch(title: str, total_steps: int, steps_per_epoch: int) -> contextlib.nullcontext[_Watcher]:
        return contextlib.nullcontext(_Watcher(Progress(job.group, 0, total_steps, steps_per_epoch, None), report))

    splits = _splits(json.dumps(to_json(job.config.dataset)), job.runtime.data_dir)
    mark = fingerprint(job.config, splits.spec)
    if mark != job.fingerprint:
        raise BadInput(f"planned as {job.fingerprint}, it is {mark} here: its data or the code of a component differ")
    resolved = ResolvedConfig(job.config, splits, mark)
    finished = run_stack(resolved, job.seeds, job.runtime, name=job.name, study=job.study, watch=watch)
    return tuple(
        Outcome(done.run.path, seed, done.result["status"], notes=[] if done.cached else done.notes)
        for seed, done in zip(job.seeds, finished, strict=True)
    )


@functools.lru_cache(maxsize=1)
def _splits(dataset: str, data_dir: Path | None) -> Splits:
    """The data set of a group; the next group usually has the same one."""
    from netdepth import data

    return data.load(from_json(Component, json.loads(dataset)), data_dir=data_dir)


def failed_outcomes(job: Job, error: str, exit_code: int) -> tuple[Outcome, ...]:
    """The outcomes of a group that failed; a seed that had finished before stays finished."""
    outcomes = []
    for seed, folder in zip(job.seeds, job.folders, strict=True):
        run = RunDir(runs_root(job.runtime.runs_root) / job.study / folder)
        result = None
        with contextlib.suppress(NetdepthError):
            result = run.result()
        if result is not None:
            outcomes.append(Outcome(run.path, seed, result["status"]))
        else:
            outcomes.append(Outcome(run.path, seed, "failed", error, exit_code))
    return tuple(outcomes)


class _Watcher:
    """Forwards the progress of the training loop as events, at most one every `REPORT_SECONDS`."""

    def __init__(self, start: Progress, report: Report) -> None:
        self._progress, self._report = start, report
        self._sent = -math.inf

    def advance(self, step: int) -> None:
        """``step`` optimizer steps are done, counted from the start of the run."""
        self._progress = dataclasses.replace(self._progress, step=step)
        if time.monotonic() - self._sent >= REPORT_SECONDS:
            self._report(self._progress)
            self._sent = time.monotonic()

    def evaluated(self, record: ShownRecord) -> None:
        """Take one record of ``metrics.jsonl``."""
        loss = record["train_loss"]
        finite = loss is not None and math.isfinite(loss)
        self._progress = dataclasses.replace(self._progress, train_loss=loss if finite else None)
        self.advance(record["step"])


# --- the process --------------------------------------------------------------------------------


def main() -> int:
    """Serve jobs from stdin until it closes."""
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a user's code prints is no event

    def report(event: Event) -> None:
        # Between a job and its outcome the parent says nothing: a readable stdin is a closed one.
        try:
            alone = bool(select.select([sys.stdin], [], [], 0)[0])
            write_event(event, out)
        except OSError:
            alone = True
        if alone:
            raise Interrupted("the study that started this worker has ended", signal.SIGTERM)

    for line in sys.stdin:
        job: Job = from_json(Job, json.loads(line), "job")
        try:
            report(Done(job.group, work(job, report)))
        except Interrupted as stop:
            return stop.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
