"""The cells of a study as work to be done: resolved configs, fingerprints, what they cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from netdepth.config import Component, Duration, RunConfig, Runtime, canonical_json
from netdepth.errors import BadInput
from netdepth.overrides import apply_overrides
from netdepth.runs.folder import slug
from netdepth.studies.parent import bound, needs_source, without_source
from netdepth.studies.plan import Plan, Work, plan
from netdepth.studyspec import Cell, StudySpec

if TYPE_CHECKING:
    from netdepth.data import DatasetSpec

__all__ = ["Key", "Place", "key_of", "places", "planned"]

Key = tuple[str, int, float | None]
"""Condition, depth and the value of the setting that is tuned (None: nothing is)."""


@dataclass(frozen=True)
class Place:
    """A cell, or a cell at one value of the setting that is tuned, with its ``config`` resolved.

    ``multiply_adds`` of one training step of one seed, forward and backward: three times the forward pass.
    ``period`` is the steps between evaluations; one of those costs as much as ``evaluation`` training
    steps, the end of a run as much as ``ending``.
    """

    cell: Cell
    value: float | None
    config: RunConfig
    fingerprint: str
    parameters: int
    multiply_adds: int
    steps: int
    period: int
    evaluation: float
    ending: float
    stackable: bool

    def worth(self, step: int) -> float:
        """The first ``step`` steps with their evaluations, as a number of training steps."""
        return step + step // self.period * self.evaluation

    @property
    def key(self) -> Key:
        return self.cell.condition, self.cell.depth, self.value

    @property
    def name(self) -> str:
        """What its runs are called."""
        kind = "" if self.value is None else "tuning "
        return f"{kind}{self.cell.condition} depth {self.cell.depth}".replace("  ", " ").strip()

    def folder(self, seed: int) -> str:
        """The name of the run folder of ``seed``."""
        return f"{slug(f'{self.name}-{self.config.dataset.name}')}-s{seed}-{self.fingerprint}"

    def work(self, seeds: Iterable[int]) -> Work:
        return Work(
            condition=self.cell.condition,
            depth=self.cell.depth,
            seeds=tuple(seeds),
            stackable=self.stackable,
            multiply_adds=self.multiply_adds,
            steps=self.steps,
            value=self.value,
        )


def key_of(item: Mapping[str, Any]) -> Key:
    """The key of a run as ``study.json`` lists it."""
    return item["condition"], item["depth"], item.get("value")


def places(
    spec: StudySpec,
    runtime: Runtime,
    path: str | None = None,
    values: Mapping[tuple[str, int], Sequence[float]] | None = None,
    *,
    tuning: bool = False,
    source: str | None = None,
) -> list[Place]:
    """Every cell of ``spec`` resolved and measured; with ``path`` a setting takes ``values`` of each cell in turn.

    ``source`` is the run that stands for the study's own; where there is none yet (a forecast), a cell that needs it
    is measured as if it did not, and its fingerprint stands for nothing. The data sets are loaded for their digests
    and sizes; nothing is written.

    Raises:
        BadInput: a setting that a component refuses; a network of another depth than its level says.
    """
    from netdepth import data, models
    from netdepth.training.cohort import stackable
    from netdepth.training.run import resolve

    specs: dict[bytes, data.DatasetSpec] = {}

    def dataset(component: Component) -> data.DatasetSpec:
        mark = canonical_json(component)
        if mark not in specs:
            specs[mark] = data.load(component, data_dir=runtime.data_dir).spec
        return specs[mark]

    made = []
    for cell in spec.cells:
        for value in (values or {}).get((cell.condition, cell.depth), (None,)):
            config = cell.config
            if path is not None and value is not None:
                config, _ = apply_overrides(config, [f"{path}={value!r}"])
            config = config if source is None else bound(config, source)
            asked = config
            config = resolve(without_source(config), runtime.device, runtime.runs_root)
            known = dataset(config.dataset)
            if tuning and known.sizes["val"] == 0:
                raise BadInput(f"tuning {path} needs validation images; set dataset.val_size to 1 or more")
            model = models.build(config.model, known.input_shape, len(known.classes))
            cost = models.describe(model)
            if cost.depth != cell.depth:
                raise BadInput(
                    f"study {spec.name!r}: level {cell.depth} of axis depth makes a network of depth {cost.depth}; "
                    "name the level by the network's depth"
                )
            batch, sizes = config.train.batch_size, known.sizes
            per_epoch = -(-sizes["train"] // batch)
            steps = Duration.parse(config.train.budget).steps(per_epoch)
            made.append(
                Place(
                    cell=cell,
                    value=value if tuning else None,
                    config=config,
                    fingerprint=_mark(asked, config, known),
                    parameters=cost.parameters,
                    multiply_adds=3 * batch * cost.multiply_adds,
                    steps=steps,
                    period=Duration.parse(config.train.eval_every).steps(per_epoch),
                    evaluation=sizes["val"] / batch / 3,  # forward only
                    ending=2 * sum(sizes.values()) / batch / 3,  # of the best and of the last weights
                    stackable=stackable(config),
                )
            )
    return made


def _mark(asked: RunConfig, config: RunConfig, known: DatasetSpec) -> str:
    """The fingerprint of a resolved ``config``; of one whose source is not made yet, one that no run has."""
    from netdepth.training.run import COMPONENTS, fingerprint

    if needs_source(asked):
        objective = COMPONENTS["objective"].resolve(asked.objective)
        config = dataclasses.replace(config, start_from=asked.start_from, objective=objective)
    return fingerprint(config, known)


def planned(
    found: Sequence[Place],
    seeds: Sequence[int],
    cores: int,
    stored: Mapping[str, Any] | None,
    stored_runs: Sequence[Mapping[str, Any]],
) -> tuple[Plan, list[dict[str, Any]]]:
    """The plan of ``found`` at ``seeds`` and its runs, as ``study.json`` holds them.

    A plan that is there (``stored``) stays as it is and gets groups for the new seeds behind it.
    Cells with the same fingerprint are one computation: they share their runs.

    Raises:
        BadInput: a run has another fingerprint now than when it was planned.
    """
    first: dict[str, Place] = {}
    for place in found:
        first.setdefault(place.fingerprint, place)
    before = {(key_of(item), item["seed"]): item for item in stored_runs if item["folder"] is not None}
    runs = []
    for place in found:
        for seed in seeds:
            known = before.get((place.key, seed))
            if known is not None and known["fingerprint"] != place.fingerprint:
                raise BadInput(
                    f"{place.name} was planned as {known['fingerprint']} and is {place.fingerprint} now: its data or "
                    "the code of a component changed; use --fresh to start again, or another --runs"
                )
            folder = known["folder"] if known is not None else first[place.fingerprint].folder(seed)
            runs.append(
                {
                    "condition": place.cell.condition,
                    "depth": place.cell.depth,
                    **({} if place.value is None else {"value": place.value}),
                    "levels": dict(place.cell.levels),
                    "seed": seed,
                    "folder": folder,
                    "fingerprint": place.fingerprint,
                }
            )
    if stored is None:
        return plan([place.work(seeds) for place in first.values()], cores), runs
    new = [place.work(s for s in seeds if (place.key, s) not in before) for place in first.values()]
    return Plan.from_json(stored).extended(new, cores), runs
