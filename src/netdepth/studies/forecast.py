"""What a study would cost, before any of it is written: its runs are counted, their time is measured in two seconds."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from netdepth.config import Runtime
from netdepth.errors import Interrupted, RunFailed
from netdepth.studies.folder import Tuning
from netdepth.studies.plan import Group
from netdepth.studies.resolve import (
    Phase,
    chosen_cells,
    find_parent_run,
    resolve_cells,
    tuned_nuisance,
    with_absolute_runs,
)
from netdepth.studies.run import default_workers, locate_study
from netdepth.studies.worker import Event, Progress, work
from netdepth.studyspec import StudySpec

__all__ = ["Forecast", "forecast", "makespan"]

CALIBRATION_SECONDS = 2.0
START_SECONDS = 3.0
"""A worker's imports and its first loading of the data."""

CALIBRATED = 0
"""The "signal" that ends a calibration."""


@dataclass(frozen=True)
class Forecast:
    """``phases`` by name ("tuning" first, where there is one); of each the ``unfinished`` folders, ``missing`` groups.

    ``seconds`` is an estimate for ``workers`` processes, None where nothing is missing.
    """

    path: Path
    spec: StudySpec
    phases: Mapping[str, Phase]
    unfinished: Mapping[str, Collection[str]]
    missing: Mapping[str, Sequence[Group]]
    workers: int
    seconds: float | None

    @property
    def operations(self) -> int:
        """Multiply-adds of all that is missing."""
        return sum(group.operations for groups in self.missing.values() for group in groups)


def forecast(spec: StudySpec, runtime: Runtime, *, workers: int | None = None, calibrate: bool = True) -> Forecast:
    """Plan ``spec`` as `run_study` would and estimate the time of the missing runs; the runs folder stays as it is.

    Raises:
        BadInput: in the same cases as `run_study`.
    """
    most = default_workers(runtime) if workers is None else max(workers, 1)
    study, document, _ = locate_study(spec, runtime)
    spec = document.spec
    nuisance = tuned_nuisance(spec)
    cells = resolve_cells(spec, runtime, find_parent_run(spec, runtime))
    phases: dict[str, Phase] = {}
    if nuisance is not None:
        tuning = document.tuning or Tuning(nuisance.path, nuisance.values, nuisance.seeds)
        tuned_on = nuisance.seeds
        phases["tuning"] = Phase.planned(cells, lambda _: tuned_on, tuning)
    # Where the value of a cell is not chosen yet, the first stands for it: it does not change the cost.
    phases["study"] = Phase.planned(chosen_cells(cells, document.tuning), spec.seeds_for, document)
    unfinished = {
        name: {str(run.folder) for run in phase.runs} if runtime.fresh else phase.unfinished(study.path)
        for name, phase in phases.items()
    }
    missing = {name: phase.containing(unfinished[name]) for name, phase in phases.items()}
    seconds = None
    if calibrate and any(missing.values()):
        estimates = [second for name, groups in missing.items() for second in _seconds(phases[name], groups, runtime)]
        seconds = START_SECONDS + makespan(estimates, most)
    return Forecast(study.path, spec, phases, unfinished, missing, most, seconds)


def makespan(seconds: Sequence[float], workers: int) -> float:
    """When the last of groups of these durations ends, if every worker takes the next one when it is free."""
    free = [0.0] * workers
    for duration in seconds:
        first = free.index(min(free))
        free[first] += duration
    return max(free)


def _seconds(phase: Phase, groups: Sequence[Group], runtime: Runtime) -> list[float]:
    """An estimate per group: linear in its multiply-adds per step, through two groups that are timed, per kind."""
    kinds = sorted({group.kind for group in groups})
    line: dict[str, tuple[float, float]] = {}
    for kind in kinds:
        by_size = sorted((group for group in groups if group.kind == kind), key=_per_step)
        timed = list({_per_step(group): group for group in (by_size[0], by_size[-1])}.values())
        budget = CALIBRATION_SECONDS / len(kinds) / len(timed)
        points = [(_per_step(group), _seconds_per_step(phase, group, runtime, budget)) for group in timed]
        (x0, y0), (x1, y1) = points[0], points[-1]
        slope = max(0.0, (y1 - y0) / (x1 - x0)) if x1 > x0 else y0 / x0
        line[kind] = max(0.0, y0 - slope * x0), slope
    estimates = []
    for group in groups:
        start, slope = line[group.kind]
        estimates.append(phase.cell(group).total_cost * (start + slope * _per_step(group)))
    return estimates


def _per_step(group: Group) -> int:
    """Multiply-adds of one step of the whole stack."""
    return group.multiply_adds * len(group.seeds)


def _seconds_per_step(phase: Phase, group: Group, runtime: Runtime, seconds: float) -> float:
    """Seconds per training step of ``group``, made as it will be but in a temporary folder, in about ``seconds``."""
    from netdepth.training.resolve import fingerprint

    cell = phase.cell(group)
    started = time.perf_counter()
    seen: list[tuple[float, float]] = []  # the time, and the cost of the steps done until then

    def report(event: Event) -> None:
        if isinstance(event, Progress):
            seen.append((time.perf_counter(), cell.step_cost(event.step)))
            if len(seen) > 1 and seen[-1][0] - seen[0][0] >= seconds / 2:
                raise Interrupted("calibrated", CALIBRATED)

    with tempfile.TemporaryDirectory(prefix="netdepth-") as folder:
        job = phase.job(group, Path(folder) / "calibration", dataclasses.replace(runtime, sealed=True))
        config = with_absolute_runs(job.config, runtime.runs_root)
        job = dataclasses.replace(job, config=config, fingerprint=fingerprint(config, cell.resolved.splits.spec))
        try:
            outcomes = work(job, report)
        except Interrupted as stop:
            if stop.exit_code != 128 + CALIBRATED:
                raise
        else:
            if outcomes[0].error:
                raise RunFailed(f"the calibration failed: {outcomes[0].error}")
            seen.append((time.perf_counter(), cell.total_cost))
    if len(seen) < 2:
        seen.insert(0, (started, 0.0))
    (t0, n0), (t1, n1) = seen[0], seen[-1]
    if n1 <= n0:  # the only reports came after the last step
        (t0, n0) = started, 0.0
    return (t1 - t0) / max(n1 - n0, 1.0)
