"""A worker makes groups of runs, one group at a time, and tells what happens as plain JSON.

``python -m netdepth.studies.worker`` reads one job per line on stdin and writes one event per line on
stdout; whatever else would print there goes to stderr. Its stdin closed means that the parent is
gone: the runs are saved and the worker leaves.

A **job** is one group of a plan::

    {"group": 3, "kind": "cohort" | "alone", "name": "plain he depth 8", "study": "depth-mlp",
     "configs": [RunConfig as JSON, one per seed], "folders": [the run folder's name, one per seed],
     "runtime": {Runtime as JSON, runs_root and data_dir as text}}

**Events**, all with "group"::

    {"event": "started"}
    {"event": "waiting", "for": message}                            another process still holds the folders
    {"event": "progress", "step", "of", "per_epoch", "record": {...} | null}      at most twice a second
    {"event": "outcome", "outcomes": [{"seed", "path", "status", "error", "exit_code", "notes"}, ...]}
    {"event": "interrupted", "exit_code", "message"}                saved; the worker ends

`work` reports all but the outcome and returns the outcomes; who calls it reports them.
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from netdepth.config import Component, RunConfig, Runtime, from_json, to_json
from netdepth.errors import Interrupted, Locked, NetdepthError
from netdepth.files.usercode import import_user
from netdepth.runs.folder import RunDir, runs_root

if TYPE_CHECKING:
    from netdepth.data import Splits

__all__ = ["Report", "failed_outcomes", "job_of", "main", "outcome_of", "runtime_from_json", "work"]

Report = Callable[[Mapping[str, Any]], None]

LOCK_SECONDS = 15.0
"""How long a group waits for a folder: a killed study's worker may still be saving in it."""

REPORT_SECONDS = 0.5
SHOWN = ("seed", "step", "epoch", "train_loss", "val_loss", "train_accuracy", "val_accuracy", "best", "diverged")
"""What of an evaluation's record a progress event carries."""


def job_of(
    group: int, kind: str, name: str, folder: Path, configs: Sequence[RunConfig], folders: Sequence[str], run: Runtime
) -> dict[str, Any]:
    """The job that makes ``configs`` (equal but for the seed) in the study folder ``folder``."""
    where = dataclasses.replace(run, runs_root=folder.parent.absolute())
    runtime = {key: str(value) if isinstance(value, Path) else value for key, value in to_json(where).items()}
    return {
        "group": group,
        "kind": kind,
        "name": name,
        "study": folder.name,
        "configs": [to_json(config) for config in configs],
        "folders": list(folders),
        "runtime": runtime,
    }


def runtime_from_json(data: Mapping[str, Any]) -> Runtime:
    """The Runtime of a job."""
    paths = {key: None if data[key] is None else Path(data[key]) for key in ("runs_root", "data_dir")}
    lists = {key: tuple(data[key]) for key in ("trackers", "imports")}
    return Runtime(**{**data, **paths, **lists})


def work(job: Mapping[str, Any], report: Report) -> list[dict[str, Any]]:
    """Make one group in this process; an outcome per seed, whatever happens to them.

    Raises:
        Interrupted: a signal came, or ``report`` raised it; everything is saved.
    """
    group = job["group"]
    report({"event": "started", "group": group})
    patience = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            return _make(job, report)
        except Interrupted:
            raise
        except Locked as error:
            if time.monotonic() > patience:
                return failed_outcomes(job, str(error), error.exit_code)
            report({"event": "waiting", "group": group, "for": str(error)})
            time.sleep(0.25)
        except NetdepthError as error:
            return failed_outcomes(job, str(error), error.exit_code)
        except Exception as error:
            traceback.print_exc()
            return failed_outcomes(job, f"internal error: {type(error).__name__}: {' '.join(str(error).split())}", 1)


def _make(job: Mapping[str, Any], report: Report) -> list[dict[str, Any]]:
    from netdepth.training.cohort import run_cohort
    from netdepth.training.run import run

    runtime = runtime_from_json(job["runtime"])
    for module in runtime.imports:
        import_user(module)
    configs = [from_json(RunConfig, data) for data in job["configs"]]
    place: dict[str, Any] = {"name": job["name"], "study": job["study"], "watch": _watch(job["group"], report)}
    place["splits"] = _splits(json.dumps(to_json(configs[0].dataset), sort_keys=True), runtime.data_dir)
    if job["kind"] == "cohort":
        made = run_cohort(configs, runtime, **place)
    else:
        made = [run(config, runtime, **place) for config in configs]
    return [
        outcome_of(config.seed, done.run.path, done.result["status"], notes=[] if done.cached else done.notes)
        for config, done in zip(configs, made, strict=True)
    ]


@functools.lru_cache(maxsize=1)
def _splits(dataset: str, data_dir: Path | None) -> Splits:
    """The data set of a group; the next one's is mostly the same."""
    from netdepth import data

    return data.load(from_json(Component, json.loads(dataset)), data_dir=data_dir)


def outcome_of(
    seed: int, path: Path, status: str | None, error: str | None = None, exit_code: int = 0, notes: Sequence[str] = ()
) -> dict[str, Any]:
    """What became of one run, as JSON."""
    fields = {"seed": seed, "path": str(path), "status": status, "error": error, "exit_code": exit_code}
    return {**fields, "notes": list(notes)}


def failed_outcomes(job: Mapping[str, Any], error: str, exit_code: int) -> list[dict[str, Any]]:
    """Outcomes of a group that could not be made; a seed that had finished before is not lost."""
    study = runs_root(runtime_from_json(job["runtime"]).runs_root) / job["study"]
    outcomes = []
    for config, folder in zip(job["configs"], job["folders"], strict=True):
        path = study / folder
        result = None
        with contextlib.suppress(NetdepthError):
            result = RunDir(path).result()
        if result is not None:
            outcomes.append(outcome_of(config["seed"], path, result["status"]))
        else:
            outcomes.append(outcome_of(config["seed"], path, "failed", error, exit_code))
    return outcomes


class _Watch:
    """What the engine shows its progress to: forwards it as events, at most twice a second."""

    def __init__(self, group: int, report: Report, total_steps: int, steps_per_epoch: int) -> None:
        self._group, self._report = group, report
        self._of, self._per_epoch = total_steps, steps_per_epoch
        self._step = 0
        self._record: dict[str, Any] | None = None
        self._sent = -math.inf

    def advance(self, step: int) -> None:
        """``step`` optimizer steps are done, counted from the start of the run."""
        self._step = step
        if time.monotonic() - self._sent >= REPORT_SECONDS:
            self._send()

    def evaluated(self, record: Mapping[str, Any]) -> None:
        """One record of ``metrics.jsonl``."""
        self._record = {key: _finite(record[key]) for key in SHOWN if key in record}
        self.advance(int(record["step"]))

    def _send(self) -> None:
        event = {"event": "progress", "group": self._group, "step": self._step, "of": self._of}
        self._report({**event, "per_epoch": self._per_epoch, "record": self._record})
        self._sent, self._record = time.monotonic(), None


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _watch(group: int, report: Report) -> Callable[[str, int, int], contextlib.AbstractContextManager[_Watch]]:
    @contextlib.contextmanager
    def watch(title: str, total_steps: int, steps_per_epoch: int) -> Iterator[_Watch]:
        yield _Watch(group, report, total_steps, steps_per_epoch)

    return watch


# --- the process ------------------------------------------------------------------------------


def main() -> int:
    """Serve jobs from stdin until it closes."""
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a user's code prints is no event
    for line in sys.stdin:
        job = json.loads(line)
        report = _reporter(out)
        try:
            outcomes = work(job, report)
            report({"event": "outcome", "group": job["group"], "outcomes": outcomes})
        except (Interrupted, KeyboardInterrupt) as stop:
            code = stop.exit_code if isinstance(stop, Interrupted) else 128 + signal.SIGINT
            event = {"event": "interrupted", "group": job["group"], "exit_code": code, "message": str(stop)}
            with contextlib.suppress(OSError):  # nobody is left to be told
                _write(out, event)
            return code
    return 0


def _reporter(out: IO[str]) -> Report:
    def report(event: Mapping[str, Any]) -> None:
        # Between a job and its outcome the parent says nothing: a readable stdin is a closed one.
        try:
            alone = bool(select.select([sys.stdin], [], [], 0)[0])
            _write(out, event)
        except OSError:
            alone = True
        if alone:
            raise Interrupted("the study that asked for this is gone", signal.SIGTERM)

    return report


def _write(out: IO[str], event: Mapping[str, Any]) -> None:
    out.write(json.dumps(event, allow_nan=False) + "\n")
    out.flush()


if __name__ == "__main__":
    sys.exit(main())
