"""What a study would cost, before anything of it is written: counted where it can be, else timed for two seconds."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netdepth.config import Runtime
from netdepth.errors import Interrupted, RunFailed
from netdepth.studies.parent import anchored, existing_source
from netdepth.studies.plan import Group
from netdepth.studies.resolve import Place, places, planned
from netdepth.studies.run import Phase, default_workers, look_up
from netdepth.studies.tuning import chosen_values, grid_of, tuned_nuisance
from netdepth.studies.worker import work
from netdepth.studyspec import StudySpec

__all__ = ["Forecast", "forecast", "makespan"]

CALIBRATION_SECONDS = 2.0
START_SECONDS = 3.0
"""A worker's imports and its first look at the data."""

ENOUGH = 0
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
    """Plan ``spec`` as `conduct` would and estimate the time of what is missing; the runs folder is left alone.

    Raises:
        BadInput: what `conduct` would refuse.
    """
    from netdepth.training.process import available_cores

    most = default_workers(runtime) if workers is None else max(workers, 1)
    study, spec, _ = look_up(spec, runtime)
    document = {} if runtime.fresh else study.read() or {}
    nuisance, cores = tuned_nuisance(spec), available_cores()
    source = existing_source(spec, runtime)
    phases: dict[str, Phase] = {}
    values = None
    if nuisance is not None:
        before = document.get("tuning") or {}
        grid = grid_of(spec, nuisance)
        tried = places(spec, runtime, nuisance.path, grid, tuning=True, source=source)
        phases["tuning"] = _phase(tried, nuisance.seeds, cores, before)
        # Which value a cell will have is not known yet; what it costs does not depend on it.
        values = chosen_values(before["chosen"]) if before.get("chosen") else {k: v[:1] for k, v in grid.items()}
    found = places(spec, runtime, None if nuisance is None else nuisance.path, values, source=source)
    unknown = nuisance is not None and not (document.get("tuning") or {}).get("chosen")
    phases["study"] = _phase(found, spec.seeds, cores, {} if unknown else document)
    unfinished = {
        name: {item["folder"] for item in phase.runs} if runtime.fresh else phase.unfinished(study.path)
        for name, phase in phases.items()
    }
    missing = {name: phase.holding(unfinished[name]) for name, phase in phases.items()}
    seconds = None
    if calibrate and any(missing.values()):
        estimates = [
            estimate for name, groups in missing.items() for estimate in _seconds(phases[name], groups, runtime)
        ]
        seconds = START_SECONDS + makespan(estimates, most)
    return Forecast(study.path, spec, phases, unfinished, missing, most, seconds)


def makespan(seconds: Sequence[float], workers: int) -> float:
    """When the last of groups of these durations ends, if every worker takes the next one when it is free."""
    free = [0.0] * workers
    for duration in seconds:
        first = free.index(min(free))
        free[first] += duration
    return max(free)


def _phase(found: Sequence[Place], seeds: Sequence[int], cores: int, stored: Mapping[str, Any]) -> Phase:
    plan, runs = planned(found, seeds, cores, stored.get("plan"), stored.get("runs", ()))
    return Phase(plan, runs, {place.key: place for place in found})


def _seconds(phase: Phase, groups: Sequence[Group], runtime: Runtime) -> list[float]:
    """An estimate per group: linear in its multiply-adds per step, through two groups that are timed, per kind."""
    kinds = sorted({group.kind for group in groups})
    line: dict[str, tuple[float, float]] = {}
    for kind in kinds:
        by_size = sorted((group for group in groups if group.kind == kind), key=_per_step)
        timed = list({_per_step(group): group for group in (by_size[0], by_size[-1])}.values())
        points = [
            (_per_step(g), _time_steps(phase, g, runtime, CALIBRATION_SECONDS / len(kinds) / len(timed))) for g in timed
        ]
        (x0, y0), (x1, y1) = points[0], points[-1]
        slope = max(0.0, (y1 - y0) / (x1 - x0)) if x1 > x0 else y0 / x0
        line[kind] = max(0.0, y0 - slope * x0), slope
    estimates = []
    for group in groups:
        start, slope = line[group.kind]
        place = phase.places[group.condition, group.depth, group.value]
        estimates.append((place.worth(place.steps) + place.ending) * (start + slope * _per_step(group)))
    return estimates


def _per_step(group: Group) -> int:
    """Multiply-adds of one step of the whole stack."""
    return group.multiply_adds * len(group.seeds)


def _time_steps(phase: Phase, group: Group, runtime: Runtime, seconds: float) -> float:
    """Seconds per training step of ``group``, made as it will be but in a temporary folder, in about ``seconds``."""
    place = phase.places[group.condition, group.depth, group.value]
    place = dataclasses.replace(place, config=anchored(place.config, runtime.runs_root))
    phase = dataclasses.replace(phase, places={**phase.places, place.key: place})
    seen: list[tuple[float, float]] = []  # when, and how many steps were done

    def report(event: Mapping[str, Any]) -> None:
        if event["event"] == "progress":
            seen.append((time.perf_counter(), place.worth(event["step"])))
            if len(seen) > 1 and seen[-1][0] - seen[0][0] >= seconds / 2:
                raise Interrupted("calibrated", ENOUGH)

    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="netdepth-") as folder:
        own = dataclasses.replace(runtime, threads=1, trackers=(), fresh=False, sealed=True)
        try:
            outcomes = work(phase.job(group, Path(folder) / "calibration", own), report)
        except Interrupted as stop:
            if stop.exit_code != 128 + ENOUGH:
                raise
        else:
            if outcomes[0]["error"]:
                raise RunFailed(f"the calibration failed: {outcomes[0]['error']}")
            seen.append((time.perf_counter(), place.worth(place.steps) + place.ending))
    if len(seen) < 2:
        seen.insert(0, (started, 0.0))
    (t0, n0), (t1, n1) = seen[0], seen[-1]
    return (t1 - t0) / max(n1 - n0, 1e-9)
