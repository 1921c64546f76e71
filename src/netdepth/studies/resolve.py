"""The cells of a study as work to be done: resolved configs, fingerprints, cost, and the study's parent run.

The parent run (``StudySpec.source``) is the one that cells start from or learn from. It is made before them and
held by the digest of its weights; configs name it `SOURCE` until then.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from netdepth.config import Component, Duration, RunConfig, Runtime, canonical_json
from netdepth.errors import BadInput, RunFailed
from netdepth.overrides import apply_overrides
from netdepth.runs.folder import RunDir, runs_root, slug
from netdepth.studies.folder import ParentRun, PlannedRun
from netdepth.studies.plan import Plan, Work, plan
from netdepth.studyspec import SOURCE, Cell, StudySpec

if TYPE_CHECKING:
    from netdepth.training.resolve import ResolvedConfig

__all__ = [
    "ResolvedCell", "find_parent_run", "make_parent_run", "parent_run", "plan_runs", "resolve_cells",
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
    value: float | None
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
    def key(self) -> tuple[str, int, float | None]:
        """As `PlannedRun.cell`."""
        return self.cell.condition, self.cell.depth, self.value

    @property
    def name(self) -> str:
        """The name of its runs."""
        tuning = "" if self.value is None else "tuning"
        return " ".join([tuning, self.cell.condition, f"depth {self.cell.depth}"]).strip().replace("  ", " ")

    def run(self, seed: int, folder: str) -> PlannedRun:
        """Its run with ``seed``, in ``folder``."""
        return PlannedRun(
            condition=self.cell.condition,
            depth=self.cell.depth,
            value=self.value,
            levels=self.cell.levels,
            seed=seed,
            folder=folder,
            fingerprint=self.resolved.fingerprint,
        )

    def work(self, seeds: Iterable[int]) -> Work:
        """Its runs with ``seeds``, to be planned."""
        condition, depth, value = self.key
        return Work(condition, depth, tuple(seeds), self.resolved.stackable, self.multiply_adds, self.steps, value)


def resolve_cells(
    spec: StudySpec,
    runtime: Runtime,
    path: str | None = None,
    values: Mapping[tuple[str, int], Sequence[float]] | None = None,
    *,
    tuning: bool = False,
    parent: str | None = None,
) -> list[ResolvedCell]:
    """Every cell of ``spec`` resolved and measured; the setting ``path`` takes each of the ``values`` of a cell.

    ``parent`` is the name of the study's parent run. Where it does not exist yet (a forecast), a cell that needs it
    is measured as if it did not, and gets a fingerprint that no run has. The data sets are loaded for their digests
    and sizes; nothing is written.

    Raises:
        BadInput: a setting that a component refuses; a network of another depth than its level says.
    """
    from netdepth import data, models
    from netdepth.training.resolve import COMPONENTS, fingerprint, resolve

    loaded: dict[bytes, data.Splits] = {}
    cells = []
    for cell in spec.cells:
        for value in (values or {}).get((cell.condition, cell.depth), (None,)):
            asked = cell.config
            if path is not None and value is not None:
                asked, _ = apply_overrides(asked, [f"{path}={value!r}"])
            asked = asked if parent is None else _rename_runs(asked, {SOURCE: parent})
            dataset_key = canonical_json(asked.dataset)
            resolved = resolve(without_parent_run(asked), runtime, loaded.get(dataset_key))
            loaded[dataset_key] = resolved.splits
            config, dataset = resolved.config, resolved.splits.spec
            if tuning and dataset.sizes["val"] == 0:
                raise BadInput(f"tuning {path} needs validation images; set dataset.val_size to 1 or more")
            network = models.describe(models.build(config.model, dataset.input_shape, len(dataset.classes)))
            if network.depth != cell.depth:
                raise BadInput(
                    f"study {spec.name!r}: level {cell.depth} of axis depth makes a network of depth {network.depth}; "
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
                    value=value if tuning else None,
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


def plan_runs(
    cells: Sequence[ResolvedCell],
    seeds: Sequence[int],
    cores: int,
    planned: Plan | None,
    planned_runs: Sequence[PlannedRun],
) -> tuple[Plan, tuple[PlannedRun, ...]]:
    """The plan of ``cells`` at ``seeds``, and its runs.

    An existing plan (``planned``) stays as it is and gets groups for the new seeds at its end.
    Cells with the same fingerprint are one computation: they share their runs.

    Raises:
        BadInput: a run has another fingerprint now than when it was planned.
    """
    first_of: dict[str, ResolvedCell] = {}
    for cell in cells:
        first_of.setdefault(cell.resolved.fingerprint, cell)
    before = {(run.cell, run.seed): run for run in planned_runs if run.folder is not None}
    runs = []
    for cell in cells:
        fingerprint = cell.resolved.fingerprint
        name = slug(f"{first_of[fingerprint].name}-{cell.resolved.config.dataset.name}")
        for seed in seeds:
            known = before.get((cell.key, seed))
            if known is None or known.folder is None:
                runs.append(cell.run(seed, f"{name}-s{seed}-{fingerprint}"))
            elif known.fingerprint == fingerprint:
                runs.append(cell.run(seed, known.folder))
            else:
                raise BadInput(
                    f"{cell.name} was planned as {known.fingerprint} and is {fingerprint} now: its data or "
                    "the code of a component changed; use --fresh to start again, or another --runs"
                )
    if planned is None:
        return plan([cell.work(seeds) for cell in first_of.values()], cores), tuple(runs)
    new = [cell.work(s for s in seeds if (cell.key, s) not in before) for cell in first_of.values()]
    return planned.extended(new, cores), tuple(runs)


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
    return _rename_runs(config, {name: str(base / name) for name in names if name is not None})


def _rename_runs(config: RunConfig, names: Mapping[str, str]) -> RunConfig:
    start, objective = config.start_from, config.objective
    if start is not None and start.run in names:
        start = dataclasses.replace(start, run=names[start.run])
    if objective.args.get("teacher") in names:
        objective = dataclasses.replace(objective, args={**objective.args, "teacher": names[objective.args["teacher"]]})
    return dataclasses.replace(config, start_from=start, objective=objective)


def find_parent_run(spec: StudySpec, runtime: Runtime) -> str | None:
    """How configs name the finished parent run of ``spec``; None where it does not exist, or the study has none."""
    from netdepth.training.resolve import resolve

    if spec.source is None:
        return None
    fingerprint = resolve(spec.source, runtime).fingerprint
    root = runs_root(runtime.runs_root)
    found = sorted((root / "single").glob(f"*-s{spec.source.seed}-{fingerprint}"))
    return str(found[0].relative_to(root)) if found and RunDir(found[0]).result() is not None else None


def make_parent_run(spec: StudySpec, runtime: Runtime, progress: bool) -> str | None:
    """Make the parent run of ``spec`` in ``runs/single`` unless it exists; how configs name it (None: it has none).

    Raises:
        RunFailed: it diverged, so that nothing can start from it; and what any run may raise.
    """
    from netdepth.training.run import run

    name = find_parent_run(spec, runtime)
    if name is not None or spec.source is None:
        return name
    own = dataclasses.replace(runtime, trackers=(), fresh=False, sealed=False)
    done = run(spec.source, own, name=f"{spec.name}-source", quiet=not progress)
    if done.result["status"] == "diverged":
        raise RunFailed(f"the parent run {done.run.path} diverged, so nothing can start from it")
    return str(done.run.path.relative_to(runs_root(runtime.runs_root)))


def parent_run(name: str | None, spec: StudySpec, root: Path | None) -> ParentRun | None:
    """What ``study.json`` keeps of the parent run called ``name``."""
    if name is None or spec.source is None:
        return None
    run = RunDir(runs_root(root) / name)
    result = run.result()
    if result is None:
        raise BadInput(f"the parent run {run.path} is {run.status()}")
    which = result["reported"]
    return ParentRun(
        run=name,
        weights=which,
        weights_sha256=result["weights_sha256"],
        num_params=result["num_params"],
        dataset=spec.source.dataset.name,
        val_error=1 - result["val"][which]["accuracy"],
        test_error=None if result["test"] is None else 1 - result["test"][which]["accuracy"],
    )
