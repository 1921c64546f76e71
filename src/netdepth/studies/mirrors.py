"""A study's runs in TensorBoard and W&B: mirrored while the study goes on, each once it has ended."""

from __future__ import annotations

import queue
import shlex
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from netdepth.config import Runtime
from netdepth.runs.folder import RunDir
from netdepth.studies.folder import PlannedRun, StudyDir, planned_run
from netdepth.studyspec import DEPTH
from netdepth.text import count, printable
from netdepth.trackers.mirror import FAILURES, Fault, Labels, Target, rebuild

__all__ = ["StudyMirrors", "begun_runs", "labels_of_run", "told"]

PATIENCE_SECONDS = 30.0
"""How long one mirror may take before its tracker is given up: the study waits no longer without progress."""


class StudyMirrors:
    """The mirrors of a study's runs, made in the background: a thread per tracker, which starts the processes.

    A run is mirrored once it has ended, many by one process, because a process per run would take longer than the
    short runs of a study. A tracker that fails or hangs costs a note.
    """

    def __init__(self, study: Path, runtime: Runtime) -> None:
        self._study, self._runtime = study, runtime
        self._faults: list[Fault] = []
        self._cancelled = threading.Event()
        self._left = dict.fromkeys(runtime.trackers, 0)
        self._queues: dict[str, queue.SimpleQueue[Target | None]] = {name: queue.SimpleQueue() for name in self._left}
        self._threads = [
            threading.Thread(target=self._serve, args=(name,), name=f"mirrors {name}", daemon=True)
            for name in self._queues
        ]
        for thread in self._threads:
            thread.start()

    def add(self, runs: Iterable[PlannedRun]) -> None:
        """Mirror ``runs``, which have ended: well, or with a reason in their folders."""
        for target in _targets(self._study, runs):
            for name, waiting in self._queues.items():
                self._left[name] += 1
                waiting.put(target)

    def finish(self, progress: bool = False) -> list[str]:
        """Wait until every run is mirrored or its tracker is given up; returns a line per tracker that is not done.

        With ``progress`` a long wait is told on stderr.
        """
        for waiting in self._queues.values():
            waiting.put(None)
        told_at = time.monotonic()
        while any(thread.is_alive() for thread in self._threads):
            for thread in self._threads:
                thread.join(0.1)
            left = {name: number for name, number in self._left.items() if number > 0}
            if progress and left and time.monotonic() - told_at >= 2.0:
                what = ", ".join(f"{count(number, 'run')} ({name})" for name, number in left.items())
                print(printable(f"still to mirror: {what}"), file=sys.stderr)
                told_at = time.monotonic() + 8.0
        return told(self._faults, self._study)

    def cancel(self) -> None:
        """End what is at work; the mirrors that are missing can be rebuilt."""
        self._cancelled.set()
        for waiting in self._queues.values():
            waiting.put(None)
        for thread in self._threads:
            thread.join(2.0)

    def _serve(self, name: str) -> None:
        waiting, last, in_a_row = self._queues[name], False, 0
        while not last:
            batch = [waiting.get()]
            while not waiting.empty():
                batch.append(waiting.get())
            last = None in batch
            targets = [target for target in batch if target is not None]
            if in_a_row >= FAILURES:
                self._faults += [Fault(name, target.run.path, "not tried") for target in targets]
                self._left[name] = 0
            elif targets and not self._cancelled.is_set():
                found = self._mirror(name, targets)
                self._faults += found
                self._left[name] -= len(found)
                in_a_row = in_a_row + len(found) if len(found) == len(targets) else 0

    def _mirror(self, name: str, targets: list[Target]) -> list[Fault]:
        def done() -> None:
            self._left[name] -= 1

        try:
            return rebuild(
                targets,
                name,
                wandb_online=self._runtime.wandb_online,
                imports=self._runtime.imports,
                patience=PATIENCE_SECONDS,
                lock=False,
                stopped=self._cancelled.is_set,
                done=done,
            )
        except Exception as error:  # nothing of a tracker may reach the study
            return [Fault(name, target.run.path, f"{type(error).__name__}: {error}") for target in targets]


def told(faults: Iterable[Fault], study: Path) -> list[str]:
    """One line per tracker that is not done: how many runs, why the first, and how to rebuild them."""
    by_tracker: dict[str, list[Fault]] = {}
    for fault in faults:
        by_tracker.setdefault(fault.tracker, []).append(fault)
    return [
        f"tracker {name}: no mirror of {count(len(found), 'run')} ({found[0].run.name}: {found[0].what}); "
        f"rebuild it with: netdepth sync {shlex.quote(str(study))} --to {name}"
        for name, found in by_tracker.items()
    ]


def begun_runs(study: StudyDir) -> list[Target]:
    """Every run of ``study`` that has begun, also those that tuned a setting."""
    return _targets(study.path, study.document.all_runs)


def labels_of_run(run: RunDir) -> Labels:
    """What its study calls ``run``; nothing if it belongs to none that can be read."""
    _, planned = planned_run(run) or (None, None)
    return {} if planned is None else _labels(run.path.resolve().parent, planned)


def _targets(study: Path, runs: Iterable[PlannedRun]) -> list[Target]:
    """The begun ones of ``runs``; cells that are the same computation share a run, which the first one names."""
    first: dict[str, PlannedRun] = {}
    for run in runs:
        if run.folder is not None and (study / run.folder / "config.json").is_file():
            first.setdefault(run.folder, run)
    return [Target(RunDir(study / folder), _labels(study, run)) for folder, run in first.items()]


def _labels(study: Path, run: PlannedRun) -> Mapping[str, str | int]:
    phase = {} if run.value is None else {"phase": "tuning"}
    levels = {axis: int(level) if axis == DEPTH else level for axis, level in run.levels.items() if axis != "condition"}
    return {"study": study.resolve().name, "condition": run.condition, **levels, **phase}
