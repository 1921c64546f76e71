"""The cells of a study as work: resolved configs, fingerprints, cost, planned runs, the parent run.

The parent run (``StudySpec.source``) is the one that cells start from or learn from. It is trained first, and
fixed by the digest of its weights; until then configs call it `SOURCE`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from netdepth.config import Component, Duration, RunConfig, Runtime, canonical_json
from netdepth.errors import BadInput, RunFailed, choose
from netdepth.overrides import apply_overrides
from netdepth.progress import TrainProgress
from netdepth.runs.folder import RunDir, runs_root, slug
from netdepth.runs.table import SCORES
from netdepth.studies.folder import ParentRun, PlannedRun, StudyDocument, Tuning
from netdepth.studies.plan import Group, Plan, Work, plan
from netdepth.studies.worker import Job
from netdepth.studyspec import DEPTH, SOURCE, Cell, Nuisance, StudySpec

if TYPE_CHECKING:
    from netdepth.training.resolve import ResolvedConfig

__all__ = [
    "Phase", "ResolvedCell", "chosen_cells", "find_parent_run", "make_parent_run", "resolve_cells", "tuned_nuisance",
    "with_absolute_runs", "without_parent_run",
]  # fmt: skip


@dataclass(frozen=True)
class ResolvedCell:
    """A cell, or a cell at one ``value`` of the tuned setting, with its config resolved.

    ``multiply_adds`` of one training step of one seed, forward and backward: three times the forward pass.
    ``eval_every`` is in steps. ``eval_cost`` (one evaluation) and ``final_eval_cost`` (the end of a run) are
    in training steps that would take as long.
    """

    cell: Cell
    value: int | float | None
    resolved: ResolvedConfig
    parameters: int
    multiply_adds: int
    steps: int
    eval_every: int
    eval_cost: float
    final_eval_cost: float

    def step_cost(self, step: int) -> float:
        """The cost of the first ``step`` steps with their evaluations, in training steps."""
        return step + step // self.eval_every * self.eval_cost

    @property
    def total_cost(self) -> float:
        """The cost of a whole run, in training steps."""
        return self.step_cost(self.steps) + self.final_eval_cost

    @property
    def key(self) -> tuple[str, str, int | float | None]:
        """As `PlannedRun.cell`."""
        return self.cell.condition, self.cell.level, self.value

    @property
    def name(self) -> str:
        """The name of its runs."""
        tuning = "" if self.value is None else "tuning"
        factor = next(iter(self.cell.levels)) if self.cell.level else ""
        return " ".join(filter(None, [tuning, self.cell.condition, factor, self.cell.level]))

    def run(self, seed: int, name: str) -> PlannedRun:
        """Its run with ``seed``, in a folder that is called ``name``, with data set, seed and fingerprint."""
        mark = self.resolved.fingerprint
        return PlannedRun(
            condition=self.cell.condition,
            level=self.cell.level,
            value=self.value,
            levels=self.cell.levels,
            seed=seed,
            folder=f"{slug(f'{name}-{self.resolved.config.dataset.name}')}-s{seed}-{mark}",
            fingerprint=mark,
        )

    def work(self, seeds: Iterable[int]) -> Work:
        """Its runs with ``seeds``, to be planned."""
        condition, level, value = self.key
        return Work(condition, level, tuple(seeds), self.resolved.stackable, self.multiply_adds, self.steps, value)


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


def chosen_cells(cells: Sequence[ResolvedCell], tuning: Tuning | None) -> list[ResolvedCell]:
    """Of each cell the one with the value that ``tuning`` chose for it, or the first as long as none is chosen."""
    chosen = {(item.condition, item.level): item.value for item in (tuning and tuning.chosen) or ()}
    kept: dict[tuple[str, str], ResolvedCell] = {}
    for cell in cells:
        key = cell.cell.condition, cell.cell.level
        if cell.value == chosen.get(key, cell.value):
            kept.setdefault(key, dataclasses.replace(cell, value=None))
    return list(kept.values())


def resolve_cells(spec: StudySpec, runtime: Runtime, parent: str | None) -> list[ResolvedCell]:
    """Every cell of ``spec`` resolved and measured, once for each value of a tuned setting.

    ``parent`` is the name of the study's parent run. Where it does not exist yet (a forecast), a cell that needs it
    is measured as if it did not, and gets a fingerprint that no run has. The data sets are loaded for their digests
    and sizes; nothing is written.

    Raises:
        BadInput: a setting that a component refuses; a network of another depth than its level says.
    """
    from netdepth import data, models
    from netdepth.training.resolve import COMPONENTS, fingerprint, resolve

    nuisance = tuned_nuisance(spec)
    loaded: dict[bytes, data.Splits] = {}
    cells = []
    for cell in spec.cells:
        for value in (None,) if nuisance is None else nuisance.values:
            asked = cell.config
            if nuisance is not None:
                asked, _ = apply_overrides(asked, [f"{nuisance.path}={value!r}"])
            asked = asked if parent is None else _rename_runs(asked, {SOURCE: parent})
            dataset_key = canonical_json(asked.dataset)
            resolved = resolve(without_parent_run(asked), runtime, loaded.get(dataset_key))
            loaded[dataset_key] = resolved.splits
            config, dataset = resolved.config, resolved.splits.spec
            if nuisance is not None and dataset.sizes["val"] == 0:
                raise BadInput(f"tuning {nuisance.path} needs validation images; set dataset.val_size to 1 or more")
            if dataset.targets:
                _refuse_errors(spec)
            elif spec.metric is not None:
                choose(spec.metric, [name for name in SCORES if not name.startswith("test_")], "study.metric")
            network = models.describe(models.build(config.model, dataset.input_shape, dataset.outputs))
            depth = cell.levels.get(DEPTH)
            if depth is not None and network.depth != int(depth):
                raise BadInput(
                    f"study {spec.name!r}: level {depth} of axis depth makes a network of depth {network.depth}; "
                    "name the level by the network's depth"
                )
            if _needs_parent_run(asked):
                objective = COMPONENTS["objective"].resolve(asked.objective)
                hashed = dataclasses.replace(config, start_from=asked.start_from, objective=objective)
                resolved = dataclasses.replace(resolved, fingerprint=fingerprint(hashed, dataset))
            batch, sizes = config.train.batch_size, dataset.sizes
            per_epoch = -(-sizes["train"] // batch)
            cells.append(
                ResolvedCell(
                    cell=cell,
                    value=value,
                    resolved=resolved,
                    parameters=network.parameters,
                    multiply_adds=3 * batch * network.multiply_adds,
                    steps=Duration.parse(config.train.budget).steps(per_epoch),
                    eval_every=Duration.parse(config.train.eval_every).steps(per_epoch),
                    eval_cost=sizes["val"] / batch / 3,  # forward only
                    final_eval_cost=2 * sum(sizes.values()) / batch / 3,  # of the best and of the last weights
                )
            )
    return cells


def _refuse_errors(spec: StudySpec) -> None:
    """Refuse what a study of runs that learn values cannot be judged by."""
    good = "a loss, such as val_last_loss, or R² (val_last_r2 with study.better=higher)"
    if spec.metric is None and any(item.family == "condition" for item in spec.primary):
        raise BadInput(
            f"study {spec.name!r} compares conditions by validation error, which values do not have; "
            f"study.metric takes {good}"
        )
    if spec.metric is not None and not spec.metric.endswith(("_loss", "_r2")):
        raise BadInput(f"study.metric = {spec.metric!r} is not acceptable where values are learned; it takes {good}")


@dataclass(frozen=True)
class Phase:
    """Runs that are made together, as planned: the tuning, or the study itself."""

    plan: Plan
    runs: tuple[PlannedRun, ...]
    cells: Mapping[tuple[str, str, int | float | None], ResolvedCell]

    @classmethod
    def planned(
        cls, cells: Sequence[ResolvedCell], seeds_for: Callable[[str], Sequence[int]], stored: StudyDocument | Tuning
    ) -> Phase:
        """``cells`` at the seeds of their conditions. A plan that is ``stored`` stays as it is and gets groups for new
        seeds at its end.

        Cells with the same fingerprint are one computation: they share their runs.

        Raises:
            BadInput: a run has another fingerprint now than when it was planned.
        """
        from netdepth.training.process import available_cores

        first_of: dict[str, ResolvedCell] = {}
        before = {(run.cell, run.seed): run for run in stored.runs if run.folder is not None}
        runs = []
        for cell in cells:
            fingerprint = cell.resolved.fingerprint
            name = first_of.setdefault(fingerprint, cell).name
            for seed in seeds_for(cell.cell.condition):
                run = before.get((cell.key, seed))
                if run is not None and run.fingerprint != fingerprint:
                    raise BadInput(
                        f"{cell.name} was planned as {run.fingerprint} and is {fingerprint} now: its data or "
                        "the code of a component changed; start it again in another --runs folder"
                    )
                runs.append(run or cell.run(seed, name))
        new = [
            cell.work(seed for seed in seeds_for(cell.cell.condition) if (cell.key, seed) not in before)
            for cell in first_of.values()
        ]
        cores = available_cores()
        made = plan(new, cores) if stored.plan is None else stored.plan.extended(new, cores)
        return cls(made, tuple(runs), {cell.key: cell for cell in cells})

    def cell(self, group: Group) -> ResolvedCell:
        """The cell that the runs of ``group`` belong to."""
        return self.cells[group.condition, group.level, group.value]

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
        cell, resolved = self.cell(group), self.cell(group).resolved
        root = study.parent.absolute()
        own = dataclasses.replace(runtime, runs_root=root, threads=1, trackers=(), fresh=False)
        config, folders = resolved.config, self.folders(group)
        return Job(group.group, cell.name, study.name, config, resolved.fingerprint, group.seeds, folders, own)


# --- the parent run -----------------------------------------------------------------------------


def _needs_parent_run(config: RunConfig) -> bool:
    """Whether ``config`` names the parent run of its study."""
    start = config.start_from
    return (start is not None and start.run == SOURCE) or config.objective.args.get("teacher") == SOURCE


def without_parent_run(config: RunConfig) -> RunConfig:
    """``config``, without the parent run of its study, which may not exist yet."""
    if not _needs_parent_run(config):
        return config
    return dataclasses.replace(config, start_from=None, objective=Component("cross-entropy"))


def with_absolute_runs(config: RunConfig, root: Path | None) -> RunConfig:
    """``config`` for another runs folder: the runs of ``root`` that it names have absolute paths."""
    base = runs_root(root).absolute()
    names = [config.start_from.run if config.start_from else None, config.objective.args.get("teacher")]
    return _rename_runs(config, {name: str(base / name) for name in names if isinstance(name, str)})


def _rename_runs(config: RunConfig, names: Mapping[str, str]) -> RunConfig:
    start, objective = config.start_from, config.objective
    if start is not None and start.run in names:
        start = dataclasses.replace(start, run=names[start.run])
    teacher = objective.args.get("teacher")
    if isinstance(teacher, str) and teacher in names:
        objective = dataclasses.replace(objective, args={**objective.args, "teacher": names[teacher]})
    return dataclasses.replace(config, start_from=start, objective=objective)


def find_parent_run(spec: StudySpec, runtime: Runtime) -> str | None:
    """The name that configs have for the finished parent run of ``spec``; None if there is no such run."""
    return None if spec.source is None else _resolve_parent_run(spec.source, runtime)[1]


def _resolve_parent_run(config: RunConfig, runtime: Runtime) -> tuple[ResolvedConfig, str | None]:
    """The ``config`` of a parent run resolved, and the name of its run if that is finished."""
    from netdepth.training.resolve import resolve

    resolved, root = resolve(config, runtime), runs_root(runtime.runs_root)
    found = sorted((root / "single").glob(f"*-s{config.seed}-{resolved.fingerprint}"))
    finished = bool(found) and RunDir(found[0]).result() is not None
    return resolved, str(found[0].relative_to(root)) if finished else None


def make_parent_run(spec: StudySpec, runtime: Runtime, progress: bool) -> ParentRun | None:
    """The parent run of ``spec``, trained in ``runs/single`` unless it exists; None if the study has none.

    Raises:
        RunFailed: it diverged, so nothing can start from it; and the errors of any run.
        BadInput: it has no validation error, which the study compares with.
    """
    from netdepth.training.run import run_stack

    if spec.source is None:
        return None
    root, (resolved, name) = runs_root(runtime.runs_root), _resolve_parent_run(spec.source, runtime)
    if name is None:
        own = dataclasses.replace(runtime, trackers=(), fresh=False, sealed=False)
        watch = functools.partial(TrainProgress, shown=progress)
        named = f"{spec.name}-source"
        (made,) = run_stack(resolved, [spec.source.seed], own, name=named, study="single", watch=watch)
        name = str(made.run.path.relative_to(root))
    result = RunDir(root / name).result()
    assert result is not None
    which, sha256 = result["reported"], result["weights_sha256"]
    if result["status"] == "diverged" or sha256 is None:
        raise RunFailed(f"the parent run {root / name} diverged, so nothing can start from it")
    if "accuracy" not in result["train"][which]:
        raise BadInput(f"the parent run {root / name} learns values; a study's parent run learns classes")
    val, test = (None if scores is None else scores[which]["accuracy"] for scores in (result["val"], result["test"]))
    if val is None:
        raise BadInput(f"the parent run {root / name} has no validation error; give its data set validation images")
    return ParentRun(
        run=name,
        weights=which,
        weights_sha256=sha256,
        num_params=result["num_params"],
        dataset=spec.source.dataset.name,
        val_error=1 - val,
        test_error=None if test is None else 1 - test,
    )
