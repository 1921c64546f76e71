"""From a StudySpec to finished run folders: the parent run, tuning, the plan and every missing run, in order."""

from __future__ import annotations

import dataclasses
import math
import shlex
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from netdepth.config import Runtime
from netdepth.errors import BadInput, Locked, RunFailed
from netdepth.files.atomic import storage
from netdepth.runs.folder import RunDir, runs_root
from netdepth.stats.family import spending
from netdepth.studies.folder import ChosenValue, PlannedRun, StudyDir, StudyDocument, TriedValue, Tuning
from netdepth.studies.ledger import record_begun, record_finished, record_fresh
from netdepth.studies.mirrors import StudyMirrors
from netdepth.studies.pool import execute, execute_here
from netdepth.studies.progress import StudyProgress
from netdepth.studies.resolve import Phase, ResolvedCell, chosen_cells, make_parent_run, resolve_cells, tuned_nuisance
from netdepth.studies.worker import Done, Event, Job, Progress, Report, Retry, Started, Waiting
from netdepth.studyspec import Nuisance, StudySpec
from netdepth.text import count
from netdepth.trackers import TRACKERS
from netdepth.training.launch import Outcome
from netdepth.training.parallel import only_alone

__all__ = ["Executor", "StudyOutcome", "choose_values", "default_workers", "executor_of", "locate_study", "run_study"]

Executor = Callable[[Sequence[Job], Report, Path], None]
"""Executes jobs, calls back with their events, and may keep logs in a folder."""

GPU_WORKERS = 2
"""Processes that share a GPU unless ``--workers`` says otherwise; each needs its own memory."""


@dataclass
class StudyOutcome:
    """A study and the outcome of each of its runs, old and new; ``made`` counts those that were trained now."""

    study: StudyDir
    outcomes: Sequence[Outcome] = ()
    made: int = 0
    notes: Sequence[str] = ()
    """What its trackers could not do."""

    @property
    def failed(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.error is not None]


def locate_study(spec: StudySpec, runtime: Runtime) -> tuple[StudyDir, StudyDocument, list[str]]:
    """The folder of ``spec``, its document with the seeds that it will have, and notes about these.

    Nothing is written. New seeds add one interim analysis; planned seeds stay.

    Raises:
        BadInput: seeds that neither extend the plan nor lie within it.
    """
    study = StudyDir.locate(runs_root(runtime.runs_root), spec)
    document = None if runtime.fresh else study.read()
    if document is None:
        return study, StudyDocument.unplanned(spec), []
    there = document.spec
    asked, planned = ({(c, s) for c in one.conditions for s in one.seeds_for(c)} for one in (spec, there))
    if asked <= planned:
        note = f"{study.path} has {len(there.seeds)} seeds planned; a plan is not shortened, all of them are used"
        return study, document, [note] * (asked < planned) + _kept_plan(spec, there)
    merged = {
        name: (*there.seeds_for(name), *(seed for seed in spec.seeds_for(name) if seed not in there.seeds_for(name)))
        for name in ("", *there.conditions)
    }
    dropped = not planned <= asked  # refused by `extended`, in its own words
    unequal = {name: seeds for name, seeds in merged.items() if name in {*spec.seeds_of, *there.seeds_of}}
    more = there.extended(*(spec.seeds, spec.seeds_of) if dropped else (merged[""], unequal))
    new = max(len(more.seeds_for(name)) - len(there.seeds_for(name)) for name in there.conditions)
    note = f"{new} more seeds than planned make interim analysis {more.looks}"
    notes = [f"{note}: p-values are multiplied by {spending(more.looks, more.max_looks)}"]
    return study, dataclasses.replace(document, spec=more), notes + _kept_plan(spec, there)


def _kept_plan(spec: StudySpec, there: StudySpec) -> list[str]:
    """A note if another number of analyses is asked for than was declared when the study began."""
    if spec.max_looks == there.max_looks:
        return []
    declared = "any number of analyses" if there.max_looks is None else count(there.max_looks, "analysis", "analyses")
    return [f"this study declared {declared} when it began (max_looks); that stays"]


def run_study(
    spec: StudySpec,
    runtime: Runtime,
    *,
    workers: int | None = None,
    ray: str | None = None,
    progress: bool = True,
) -> StudyOutcome:
    """Train every missing run of ``spec``; a study that has a plan continues it.

    Args:
        spec: the study; its seeds may extend those of its folder (`locate_study`).
        runtime: device, folders, imports; a worker has one thread whatever ``threads`` says. Its trackers mirror the
            runs that are trained now, each once it has ended, and the study waits for them (`StudyMirrors`).
        workers: number of processes; None: one per core; 0: everything in this process.
        ray: the address of a Ray cluster (``"auto"``: one that runs, or a new one) that trains the runs.
        progress: whether to show progress, on stderr.

    Raises:
        BadInput: before anything runs, for example under torchrun. A later error of a run is in its outcome.
        Locked: another process runs this study.
        RunFailed: a tuning run failed, so the study itself cannot begin.
        Interrupted: a signal came; everything is saved.
    """
    only_alone("a study")
    for name in runtime.trackers:
        TRACKERS.entry(name)  # refuses an unknown one
    execute_jobs = executor_of(runtime, workers, ray)
    where, document, _ = locate_study(spec, runtime)
    nuisance = tuned_nuisance(spec)
    source = make_parent_run(document.spec, runtime, progress)
    parent = None if source is None else source.run
    cells = resolve_cells(document.spec, runtime, parent)
    with where.lock():
        study, document, _ = locate_study(spec, runtime)  # read again: now no other process writes
        if study.path != where.path:
            raise Locked(f"another study took {where.path} in the meantime; run the command again")
        if runtime.fresh:
            _clear(study)
        mirrors = StudyMirrors(study.path, runtime)
        try:
            runner = _Runner(study, runtime, execute_jobs, progress, document.spec, mirrors)
            if nuisance is not None:
                document = runner.tune(document, nuisance, cells)
            phase = Phase.planned(chosen_cells(cells, document.tuning), document.spec.seeds_for, document)
            study.write(dataclasses.replace(document, plan=phase.plan, runs=phase.runs, source=source))
            done = runner.make(phase, runtime, spec.name)
            return dataclasses.replace(done, notes=[*_not_mirrored(done, runtime), *mirrors.finish(progress)])
        finally:
            mirrors.cancel()


def _not_mirrored(done: StudyOutcome, runtime: Runtime) -> list[str]:
    """A note of the runs that a tracker does not get, because they were finished before."""
    before = len(done.outcomes) - done.made
    if not before or not runtime.trackers:
        return []
    again = " and ".join(f"netdepth sync {shlex.quote(str(done.study.path))} --to {name}" for name in runtime.trackers)
    return [f"{count(before, 'run')} finished before and not mirrored now; to mirror all: {again}"]


@dataclass
class _Runner:
    study: StudyDir
    runtime: Runtime
    execute: Executor
    progress: bool
    spec: StudySpec
    mirrors: StudyMirrors

    def tune(self, document: StudyDocument, nuisance: Nuisance, cells: Sequence[ResolvedCell]) -> StudyDocument:
        """``document`` with a value of the tuned setting chosen for every cell."""
        before = document.tuning or Tuning(nuisance.path, nuisance.values, nuisance.seeds)
        phase = Phase.planned(cells, lambda _: nuisance.seeds, before)
        tuning = dataclasses.replace(before, plan=phase.plan, runs=phase.runs)
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
        """Train the missing runs of ``phase``."""
        path = self.study.path
        unfinished = phase.unfinished(path)
        missing = phase.containing(unfinished)
        outcomes: dict[str, Outcome] = {}
        folders = [str(run.folder) for run in phase.runs]
        record_begun(path, folders)
        record_finished(path, folders, self.spec)  # those that ended after a kill of the study
        for run in phase.runs:
            folder = RunDir(path / str(run.folder))
            outcomes[folder.path.name] = Outcome(folder.path, run.seed, folder.status())
        groups = phase.plan.groups
        with StudyProgress(title, groups, missing, name_of=self.spec.name_of, shown=self.progress) as shown:

            def on_event(event: Event) -> None:
                match event:
                    case Started():
                        shown.started(event.group)
                    case Progress():
                        shown.advanced(
                            event.group, event.step, event.total_steps, event.steps_per_epoch, event.train_loss
                        )
                    case Waiting():
                        shown.trouble(event.group, f"waiting: {event.reason}")
                    case Retry():
                        shown.trouble(event.group, f"started again: {event.error}")
                    case Done():
                        outcomes.update({Path(str(outcome.path)).name: outcome for outcome in event.outcomes})
                        shown.ended(event.group, [(outcome.status, outcome.error) for outcome in event.outcomes])
                        ended = {Path(str(outcome.path)).name for outcome in event.outcomes}
                        record_finished(path, ended, self.spec)
                        self.mirrors.add(run for run in phase.runs if run.folder in ended)

            if missing:
                self.execute([phase.job(group, path, runtime) for group in missing], on_event, path / "workers")
        return StudyOutcome(self.study, list(outcomes.values()), len(unfinished))


def executor_of(runtime: Runtime, workers: int | None, ray: str | None) -> Executor:
    """How jobs are executed, chosen before anything is written."""
    if ray is not None:
        from netdepth.studies.ray import execute as execute_on_ray

        return lambda jobs, on_event, logs: execute_on_ray(jobs, workers, on_event, address=ray)
    if workers == 0:
        return lambda jobs, on_event, logs: execute_here(jobs, on_event)
    most = default_workers(runtime) if workers is None else workers
    return lambda jobs, on_event, logs: execute(jobs, most, on_event, logs=logs)


def default_workers(runtime: Runtime) -> int:
    """As many processes as cores; few if they share a GPU.

    Raises:
        BadInput: this machine has no such device.
    """
    from netdepth.training.process import available_cores, find_device

    return available_cores() if find_device(runtime.device).type == "cpu" else GPU_WORKERS


def _clear(study: StudyDir) -> None:
    """Remove the run folders that ``study.json`` names (``--fresh``)."""
    document = study.read()
    if document is None:
        return
    record_fresh(study.path)
    for planned in [*document.runs, *(document.tuning.runs if document.tuning else ())]:
        run = RunDir(study.path / planned.folder) if planned.folder else None
        if run is not None and run.path.is_dir():
            with run.lock():
                run.clear()
            with storage(run.path):
                shutil.rmtree(run.path)


# --- tuning a nuisance setting, on validation and on seeds that the study does not use ----------


def choose_values(study: Path, runs: Sequence[PlannedRun]) -> tuple[ChosenValue, ...]:
    """The value of every cell, chosen by the rule of `Tuning` from the tuning ``runs`` in the folder ``study``.

    Raises:
        RunFailed: a run is not finished.
        BadInput: a run has no validation loss, because its data have no validation images.
    """
    losses: dict[tuple[str, str], dict[int | float, list[float]]] = {}
    for run in runs:
        assert run.value is not None
        loss = _last_loss(study / str(run.folder))
        losses.setdefault((run.condition, run.level), {}).setdefault(run.value, []).append(loss)
    chosen = []
    for (condition, level), by_value in losses.items():
        means = {value: math.fsum(found) / len(found) for value, found in sorted(by_value.items())}
        best = min(means, key=lambda value: (means[value], value))
        tried = tuple(TriedValue(value, mean if math.isfinite(mean) else None) for value, mean in means.items())
        chosen.append(ChosenValue(condition, level, best, tried))
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
