"""From a StudySpec to finished run folders: plan, tuning, every missing run, in plain order."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from netdepth.config import Runtime
from netdepth.errors import Locked, RunFailed
from netdepth.files.atomic import storage
from netdepth.progress import StudyProgress
from netdepth.runs.folder import RunDir, runs_root
from netdepth.studies.folder import StudyDir
from netdepth.studies.parent import described, make_source
from netdepth.studies.plan import Group, Plan
from netdepth.studies.pool import execute, execute_here
from netdepth.studies.resolve import Key, Place, key_of, places, planned
from netdepth.studies.tuning import RULE, choose_values, chosen_values, grid_of, tuned_nuisance
from netdepth.studies.worker import Report, job_of, outcome_of
from netdepth.studyspec import StudySpec
from netdepth.training.parallel import only_alone

__all__ = ["Conducted", "Phase", "conduct", "default_workers", "look_up"]

Executor = Callable[[Sequence[Mapping[str, Any]], Report, Path], None]
"""Executes jobs, calls back with their events, and may keep logs in a folder."""

GPU_WORKERS = 2
"""Processes that share a GPU unless ``--workers`` says otherwise: each takes its memory for itself."""


@dataclass
class Conducted:
    """A study and the outcome of each of its runs, of those made now and of those that were there."""

    study: StudyDir
    outcomes: list[dict[str, Any]] = field(default_factory=list)
    made: int = 0
    """How many runs were not finished before."""

    @property
    def failed(self) -> list[dict[str, Any]]:
        return [outcome for outcome in self.outcomes if outcome["error"] is not None]


@dataclass(frozen=True)
class Phase:
    """Runs that are made together, as planned: the tuning, or the study itself."""

    plan: Plan
    runs: list[dict[str, Any]]
    places: Mapping[Key, Place]

    def folders(self, group: Group) -> list[str]:
        """The run folders of ``group``, one per seed."""
        key = (group.condition, group.depth, group.value)
        by_seed = {item["seed"]: item["folder"] for item in self.runs if key_of(item) == key}
        return [by_seed[seed] for seed in group.seeds]

    def unfinished(self, study: Path) -> set[str]:
        """The run folders that hold no result."""
        return {name for name in {item["folder"] for item in self.runs} if _finished(study / name) is None}

    def holding(self, folders: Collection[str]) -> list[Group]:
        """The groups that hold one of ``folders`` or more: what is to be made when those are unfinished."""
        return [group for group in self.plan.groups if any(name in folders for name in self.folders(group))]

    def job(self, group: Group, study: Path, runtime: Runtime) -> dict[str, Any]:
        """``group`` as a worker takes it."""
        place = self.places[group.condition, group.depth, group.value]
        configs = [place.config.with_seed(seed) for seed in group.seeds]
        return job_of(group.group, group.kind, place.name, study, configs, self.folders(group), runtime)


def look_up(spec: StudySpec, runtime: Runtime) -> tuple[StudyDir, StudySpec, list[str]]:
    """The folder of ``spec``, the study with the seeds it will have there, and what is to be said of them.

    Nothing is written. Seeds that are new make one look more; seeds that are planned stay.

    Raises:
        BadInput: seeds that neither extend the plan nor lie within it.
    """
    study = StudyDir.locate(runs_root(runtime.runs_root), spec)
    if study.fingerprint is None or runtime.fresh:
        return study, spec, []
    there = study.spec
    if set(spec.seeds) <= set(there.seeds):
        fewer = len(spec.seeds) < len(there.seeds)
        said = f"{study.path} has {len(there.seeds)} seeds planned; a plan is not shortened, all of them are used"
        return study, there, [said] if fewer else []
    dropped = not set(there.seeds) <= set(spec.seeds)  # refused by what follows, in its own words
    new = tuple(seed for seed in spec.seeds if seed not in there.seeds)
    more = there.extended(spec.seeds if dropped else (*there.seeds, *new))
    said = f"{len(new)} more seeds than planned make look {more.looks}: p-values are multiplied by {more.looks}"
    return study, more, [said]


def conduct(
    spec: StudySpec,
    runtime: Runtime,
    *,
    workers: int | None = None,
    ray: str | None = None,
    progress: bool = True,
) -> Conducted:
    """Make every run of ``spec`` that is missing; what was planned before is continued as it was planned.

    Args:
        spec: the study; its seeds may extend those of its folder (`look_up`).
        runtime: device, folders, imports; a worker has one thread whatever ``threads`` says.
        workers: processes at once, the cores there are if None; 0 makes everything in this process.
        ray: the address of a Ray cluster (``"auto"`` for the one at hand) that is to make the runs.
        progress: whether to show any, on stderr.

    Raises:
        BadInput: before anything runs, under torchrun among others. What befalls a run later stands in its outcome.
        Locked: another process conducts this study.
        RunFailed: a tuning run failed, so the study itself cannot begin.
        Interrupted: a signal came; everything is saved.
    """
    only_alone("a study")
    execute_jobs = _executor(runtime, workers, ray)
    where, spec, _ = look_up(spec, runtime)
    nuisance = tuned_nuisance(spec)
    source = make_source(spec, runtime, progress)
    if nuisance is None:
        found = places(spec, runtime, source=source)
    else:
        found = places(spec, runtime, nuisance.path, grid_of(spec, nuisance), tuning=True, source=source)
    with where.lock():
        study, spec, _ = look_up(spec, runtime)
        if study.path != where.path:
            raise Locked(f"{where.path} became another study's meanwhile; run the command again")
        maker = _Maker(study, runtime, execute_jobs, progress)
        document = study.read() or {}
        if runtime.fresh:
            _clear(study, document)
            document = {}
        tuning = document.get("tuning")
        if nuisance is not None:
            tuning = maker.tune(spec, found, document)
            found = places(spec, runtime, nuisance.path, chosen_values(tuning["chosen"]), source=source)
        plan, runs = planned(found, spec.seeds, maker.cores, document.get("plan"), document.get("runs", ()))
        study.write(spec, plan.as_json(), runs, tuning, described(source, spec, runtime.runs_root))
        phase = Phase(plan, runs, {place.key: place for place in found})
        return maker.make(phase, runtime, spec.name)


@dataclass
class _Maker:
    study: StudyDir
    runtime: Runtime
    execute: Executor
    progress: bool

    @property
    def cores(self) -> int:
        from netdepth.training.process import available_cores

        return available_cores()

    def tune(self, spec: StudySpec, found: Sequence[Place], document: Mapping[str, Any]) -> dict[str, Any]:
        """The tuning part of ``study.json``, with a value chosen for every cell."""
        nuisance = tuned_nuisance(spec)
        assert nuisance is not None
        before = document.get("tuning") or {}
        plan, runs = planned(found, nuisance.seeds, self.cores, before.get("plan"), before.get("runs", ()))
        tuning = {
            "path": nuisance.path,
            "values": list(nuisance.values),
            "seeds": list(nuisance.seeds),
            "rule": RULE,
            "chosen": before.get("chosen"),
            "plan": plan.as_json(),
            "runs": runs,
        }
        if tuning["chosen"] is not None:
            return tuning
        self.study.write(spec, document.get("plan"), document.get("runs"), tuning)
        phase = Phase(plan, runs, {place.key: place for place in found})
        done = self.make(phase, dataclasses.replace(self.runtime, sealed=True), f"{spec.name}: tuning {nuisance.path}")
        if done.failed:
            what = f"{len(done.failed)} of {len(done.outcomes)} tuning runs failed"
            raise RunFailed(f"{what} ({done.failed[0]['error']}); the same command tries them again")
        tuning["chosen"] = choose_values(self.study.path, runs)
        self.study.write(spec, document.get("plan"), document.get("runs"), tuning)
        return tuning

    def make(self, phase: Phase, runtime: Runtime, title: str) -> Conducted:
        """Make what is missing of ``phase``."""
        path = self.study.path
        unfinished = phase.unfinished(path)
        missing = phase.holding(unfinished)
        there = ((item, path / item["folder"]) for item in phase.runs)
        outcomes = {folder.name: outcome_of(item["seed"], folder, _finished(folder)) for item, folder in there}
        own = dataclasses.replace(runtime, threads=1, trackers=(), fresh=False)
        jobs = [phase.job(group, path, own) for group in missing]
        with StudyProgress(title, phase.plan.groups, missing, shown=self.progress) as shown:

            def on_event(event: Mapping[str, Any]) -> None:
                for outcome in event.get("outcomes", ()):
                    outcomes[Path(outcome["path"]).name] = dict(outcome)
                shown.event(event)

            if jobs:
                self.execute(jobs, on_event, path / "workers")
        return Conducted(self.study, list(outcomes.values()), len(unfinished))


def _executor(runtime: Runtime, workers: int | None, ray: str | None) -> Executor:
    """How jobs are executed, chosen before anything is written."""
    if ray is not None:
        from netdepth.studies.ray import execute as over_ray

        return lambda jobs, on_event, logs: over_ray(jobs, workers, on_event, address=ray)
    if workers == 0:
        return lambda jobs, on_event, logs: execute_here(jobs, on_event)
    most = default_workers(runtime) if workers is None else workers
    return lambda jobs, on_event, logs: execute(jobs, most, on_event, logs=logs)


def default_workers(runtime: Runtime) -> int:
    """As many processes as there are cores; few where they share a GPU.

    Raises:
        BadInput: a device that is not here.
    """
    from netdepth.training.process import available_cores, find_device

    return available_cores() if find_device(runtime.device).type == "cpu" else GPU_WORKERS


def _finished(folder: Path) -> str | None:
    """The status of a finished run, else None."""
    result = RunDir(folder).result()
    return None if result is None else str(result["status"])


def _clear(study: StudyDir, document: Mapping[str, Any]) -> None:
    """Remove the run folders that ``document`` names (``--fresh``)."""
    for item in [*document.get("runs", ()), *(document.get("tuning") or {}).get("runs", ())]:
        run = RunDir(study.path / item["folder"]) if item["folder"] else None
        if run is not None and run.path.is_dir():
            with run.lock():
                run.clear()
            with storage(run.path):
                shutil.rmtree(run.path)
