"""From a StudySpec to finished run folders: the parent run, tuning, the plan and every missing run, in order."""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from netdepth.config import Runtime
from netdepth.errors import BadInput, Locked, RunFailed
from netdepth.files.atomic import storage
from netdepth.progress import StudyProgress
from netdepth.runs.folder import RunDir, runs_root
from netdepth.studies.folder import (
    ChosenValue,
    PlannedRun,
    StudyDir,
    StudyDocument,
    TriedValue,
    Tuning,
    unplanned_runs,
)
from netdepth.studies.plan import Group, Plan
from netdepth.studies.pool import execute, execute_here
from netdepth.studies.resolve import ResolvedCell, make_parent_run, parent_run, plan_runs, resolve_cells
from netdepth.studies.worker import Done, Event, Job, Progress, Report, Retry, Started, Waiting
from netdepth.studyspec import Nuisance, StudySpec
from netdepth.training.launch import Outcome
from netdepth.training.parallel import only_alone

__all__ = [
    "Phase", "StudyOutcome", "choose_values", "default_workers", "locate_study", "run_study", "tuned_nuisance",
    "values_per_cell",
]  # fmt: skip

Executor = Callable[[Sequence[Job], Report, Path], None]
"""Executes jobs, calls back with their events, and may keep logs in a folder."""

GPU_WORKERS = 2
"""Processes that share a GPU unless ``--workers`` says otherwise: each needs memory of its own."""

TUNING_RULE = (
    "per cell the value with the smallest mean of the last validation loss over the tuning seeds; a diverged run "
    "counts as infinite; among equals the smallest value; the test part stays sealed"
)


@dataclass
class StudyOutcome:
    """A study and the outcome of each of its runs, old and new; ``made`` is how many were not finished before."""

    study: StudyDir
    outcomes: Sequence[Outcome] = ()
    made: int = 0

    @property
    def failed(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.error is not None]


@dataclass(frozen=True)
class Phase:
    """Runs that are made together, as planned: the tuning, or the study itself."""

    plan: Plan
    runs: Sequence[PlannedRun]
    cells: Mapping[tuple[str, int, float | None], ResolvedCell]

    @classmethod
    def planned(cls, cells: Sequence[ResolvedCell], seeds: Sequence[int], stored: StudyDocument | Tuning) -> Phase:
        """``cells`` at ``seeds``, which continue the plan that is ``stored``."""
        from netdepth.training.process import available_cores

        plan, runs = plan_runs(cells, seeds, available_cores(), stored.plan, stored.runs)
        return cls(plan, runs, {cell.key: cell for cell in cells})

    def cell(self, group: Group) -> ResolvedCell:
        """The cell that the runs of ``group`` belong to."""
        return self.cells[group.condition, group.depth, group.value]

    def folders(self, group: Group) -> tuple[str, ...]:
        """The run folders of ``group``, one per seed."""
        key = self.cell(group).key
        by_seed = {run.seed: str(run.folder) for run in self.runs if run.cell == key}
        return tuple(by_seed[seed] for seed in group.seeds)

    def unfinished(self, study: Path) -> set[str]:
        """The run folders that hold no result."""
        return {name for name in {str(run.folder) for run in self.runs} if RunDir(study / name).result() is None}

    def containing(self, folders: Collection[str]) -> list[Group]:
        """The groups that have one of the ``folders`` or more: those to make when the folders are unfinished."""
        return [group for group in self.plan.groups if any(name in folders for name in self.folders(group))]

    def job(self, group: Group, study: Path, runtime: Runtime) -> Job:
        """``group`` as a worker takes it: one thread, no trackers, nothing removed."""
        cell = self.cell(group)
        root = study.parent.absolute()
        own = dataclasses.replace(runtime, runs_root=root, threads=1, trackers=(), fresh=False)
        configs = tuple(cell.resolved.config.with_seed(seed) for seed in group.seeds)
        return Job(group.group, group.kind, cell.name, study.name, configs, self.folders(group), own)


def locate_study(spec: StudySpec, runtime: Runtime) -> tuple[StudyDir, StudySpec, list[str]]:
    """The folder of ``spec``, the study with the seeds that it will have there, and notes about these.

    Nothing is written. New seeds make one more interim analysis; planned seeds stay.

    Raises:
        BadInput: seeds that neither extend the plan nor lie within it.
    """
    study = StudyDir.locate(runs_root(runtime.runs_root), spec)
    document = None if runtime.fresh else study.read()
    if document is None:
        return study, spec, []
    there = document.spec
    if set(spec.seeds) <= set(there.seeds):
        note = f"{study.path} has {len(there.seeds)} seeds planned; a plan is not shortened, all of them are used"
        return study, there, [note] if len(spec.seeds) < len(there.seeds) else []
    dropped = not set(there.seeds) <= set(spec.seeds)  # refused by `extended`, in its own words
    new = tuple(seed for seed in spec.seeds if seed not in there.seeds)
    more = there.extended(spec.seeds if dropped else (*there.seeds, *new))
    note = f"{len(new)} more seeds than planned make interim analysis {more.looks}"
    return study, more, [f"{note}: p-values are multiplied by {more.looks}"]


def run_study(
    spec: StudySpec,
    runtime: Runtime,
    *,
    workers: int | None = None,
    ray: str | None = None,
    progress: bool = True,
) -> StudyOutcome:
    """Make every run of ``spec`` that is missing; an earlier plan is continued as it was planned.

    Args:
        spec: the study; its seeds may extend those of its folder (`locate_study`).
        runtime: device, folders, imports; a worker has one thread whatever ``threads`` says.
        workers: processes at once, as many as there are cores if None; 0 makes everything in this process.
        ray: the address of a Ray cluster (``"auto"``: one that runs, or a new one) that makes the runs.
        progress: whether to show any, on stderr.

    Raises:
        BadInput: before anything runs, under torchrun among others. A later error of a run stands in its outcome.
        Locked: another process runs this study.
        RunFailed: a tuning run failed, so the study itself cannot begin.
        Interrupted: a signal came; everything is saved.
    """
    only_alone("a study")
    execute_jobs = _executor(runtime, workers, ray)
    where, spec, _ = locate_study(spec, runtime)
    nuisance = tuned_nuisance(spec)
    parent = make_parent_run(spec, runtime, progress)
    if nuisance is None:
        cells = resolve_cells(spec, runtime, parent=parent)
    else:
        grid = values_per_cell(spec, nuisance, None)
        cells = resolve_cells(spec, runtime, nuisance.path, grid, tuning=True, parent=parent)
    with where.lock():
        study, spec, _ = locate_study(spec, runtime)
        if study.path != where.path:
            raise Locked(f"{where.path} became another study's meanwhile; run the command again")
        document = study.read()
        if document is not None and runtime.fresh:
            _clear(study, document)
            document = None
        document = dataclasses.replace(
            document or StudyDocument(fingerprint=spec.fingerprint(), spec=spec, runs=unplanned_runs(spec)), spec=spec
        )
        runner = _Runner(study, runtime, execute_jobs, progress)
        if nuisance is not None:
            document = runner.tune(document, nuisance, cells)
            chosen = values_per_cell(spec, nuisance, document.tuning)
            cells = resolve_cells(spec, runtime, nuisance.path, chosen, parent=parent)
        phase = Phase.planned(cells, spec.seeds, document)
        source = parent_run(parent, spec, runtime.runs_root)
        study.write(dataclasses.replace(document, plan=phase.plan, runs=tuple(phase.runs), source=source))
        return runner.make(phase, runtime, spec.name)


@dataclass
class _Runner:
    study: StudyDir
    runtime: Runtime
    execute: Executor
    progress: bool

    def tune(self, document: StudyDocument, nuisance: Nuisance, cells: Sequence[ResolvedCell]) -> StudyDocument:
        """``document`` with a value of the tuned setting chosen for every cell."""
        before = document.tuning or Tuning(nuisance.path, nuisance.values, nuisance.seeds, TUNING_RULE)
        phase = Phase.planned(cells, nuisance.seeds, before)
        tuning = dataclasses.replace(before, rule=TUNING_RULE, plan=phase.plan, runs=tuple(phase.runs))
        document = dataclasses.replace(document, tuning=tuning)
        if tuning.chosen is not None:
            return document
        self.study.write(document)
        sealed = dataclasses.replace(self.runtime, sealed=True)
        done = self.make(phase, sealed, f"{document.spec.name}: tuning {nuisance.path}")
        if done.failed:
            what = f"{len(done.failed)} of {len(done.outcomes)} tuning runs failed"
            raise RunFailed(f"{what} ({done.failed[0].error}); the same command tries them again")
        chosen = choose_values(self.study.path, tuning.runs)
        document = dataclasses.replace(document, tuning=dataclasses.replace(tuning, chosen=chosen))
        self.study.write(document)
        return document

    def make(self, phase: Phase, runtime: Runtime, title: str) -> StudyOutcome:
        """Make the missing runs of ``phase``."""
        path = self.study.path
        unfinished = phase.unfinished(path)
        missing = phase.containing(unfinished)
        outcomes: dict[str, Outcome] = {}
        for run in phase.runs:
            folder = RunDir(path / str(run.folder))
            outcomes[folder.path.name] = Outcome(folder.path, run.seed, folder.status())
        with StudyProgress(title, phase.plan.groups, missing, shown=self.progress) as shown:

            def on_event(event: Event) -> None:
                match event:
                    case Started():
                        shown.started(event.group)
                    case Progress():
                        shown.advanced(
                            event.group, event.step, event.total_steps, event.steps_per_epoch, event.record or {}
                        )
                    case Waiting():
                        shown.trouble(event.group, f"waiting: {event.reason}")
                    case Retry():
                        shown.trouble(event.group, f"started again: {event.error}")
                    case Done():
                        outcomes.update({Path(str(outcome.path)).name: outcome for outcome in event.outcomes})
                        shown.ended(event.group, [(outcome.status, outcome.error) for outcome in event.outcomes])

            if missing:
                self.execute([phase.job(group, path, runtime) for group in missing], on_event, path / "workers")
        return StudyOutcome(self.study, list(outcomes.values()), len(unfinished))


def _executor(runtime: Runtime, workers: int | None, ray: str | None) -> Executor:
    """How jobs are executed, chosen before anything is written."""
    if ray is not None:
        from netdepth.studies.ray import execute as execute_on_ray

        return lambda jobs, on_event, logs: execute_on_ray(jobs, workers, on_event, address=ray)
    if workers == 0:
        return lambda jobs, on_event, logs: execute_here(jobs, on_event)
    most = default_workers(runtime) if workers is None else workers
    return lambda jobs, on_event, logs: execute(jobs, most, on_event, logs=logs)


def default_workers(runtime: Runtime) -> int:
    """As many processes as there are cores; few where they share a GPU.

    Raises:
        BadInput: this machine has no such device.
    """
    from netdepth.training.process import available_cores, find_device

    return available_cores() if find_device(runtime.device).type == "cpu" else GPU_WORKERS


def _clear(study: StudyDir, document: StudyDocument) -> None:
    """Remove the run folders that ``document`` names (``--fresh``)."""
    for planned in [*document.runs, *(document.tuning.runs if document.tuning else ())]:
        run = RunDir(study.path / planned.folder) if planned.folder else None
        if run is not None and run.path.is_dir():
            with run.lock():
                run.clear()
            with storage(run.path):
                shutil.rmtree(run.path)


# --- tuning a nuisance setting, on validation and on seeds that the study does not use ----------


def tuned_nuisance(spec: StudySpec) -> Nuisance | None:
    """The setting of ``spec`` that is tuned, if one is.

    Raises:
        BadInput: more than one is.
    """
    tuned = [item for item in spec.nuisance if item.how == "tuned"]
    if len(tuned) > 1:
        names = ", ".join(item.path for item in tuned)
        raise BadInput(f"study {spec.name!r} tunes {names}; one setting can be tuned, state the others as fixed")
    return tuned[0] if tuned else None


def values_per_cell(
    spec: StudySpec, nuisance: Nuisance, tuning: Tuning | None
) -> dict[tuple[str, int], tuple[float, ...]]:
    """The value that ``tuning`` chose for every cell; all values to try where it has chosen none."""
    if tuning is not None and tuning.chosen is not None:
        return {(item.condition, item.depth): (item.value,) for item in tuning.chosen}
    return {(cell.condition, cell.depth): nuisance.values for cell in spec.cells}


def choose_values(study: Path, runs: Sequence[PlannedRun]) -> tuple[ChosenValue, ...]:
    """The value of every cell by `TUNING_RULE`, from the tuning ``runs`` in the folder ``study``.

    Raises:
        RunFailed: a run is not finished.
        BadInput: a run has no validation loss, because its data have no validation images.
    """
    losses: dict[tuple[str, int], dict[float, list[float]]] = {}
    for run in runs:
        assert run.value is not None
        loss = _last_loss(study / str(run.folder))
        losses.setdefault((run.condition, run.depth), {}).setdefault(run.value, []).append(loss)
    chosen = []
    for (condition, depth), by_value in losses.items():
        means = {value: math.fsum(found) / len(found) for value, found in sorted(by_value.items())}
        best = min(means, key=lambda value: (means[value], value))
        tried = tuple(TriedValue(value, mean if math.isfinite(mean) else None) for value, mean in means.items())
        chosen.append(ChosenValue(condition, depth, best, tried))
    return tuple(chosen)


def _last_loss(folder: Path) -> float:
    result = RunDir(folder).result()
    if result is None:
        raise RunFailed(f"tuning run {folder} is not finished, so no value can be chosen; the same command retries it")
    if result["status"] == "diverged":
        return math.inf
    last = (result["val"] or {}).get("last") or {}
    if "loss" not in last:
        raise BadInput(f"tuning run {folder} has no validation loss to choose by; give the data set validation images")
    return math.inf if last["loss"] is None else float(last["loss"])
