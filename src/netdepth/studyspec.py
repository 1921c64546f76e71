"""What a study asks, written down before its first run. Standard library only.

A study is a grid: depth × the other scientific axes × seeds. The comparisons that may claim
something are named here, before there is data (`Primary`); all others are exploratory.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from netdepth.config import MAX_SEED, RunConfig, Settings, digest, require, to_json
from netdepth.errors import BadInput, choose
from netdepth.overrides import apply_overrides

__all__ = ["FAMILIES", "PAPERS", "SOURCE", "Axis", "Cell", "Family", "Nuisance", "Primary", "Reproduced", "StudySpec"]

Family = Literal["depth", "shortcut", "condition"]
FAMILIES: tuple[Family, ...] = ("depth", "shortcut", "condition")
"""``depth``: a depth against the grid's shallowest. ``shortcut``: residual against plain at equal depth.
``condition``: a way of training against another at equal depth, by validation error; a study has it alone."""

SOURCE = "source"
"""What ``start_from.run`` or ``objective.teacher`` says where it means the study's own `StudySpec.source`."""

Reproduced = Literal["he2016"]
PAPERS: tuple[Reproduced, ...] = ("he2016",)
"""Papers whose numbers a report can show beside a study's (`netdepth.studies.paper`)."""

LABELS: Mapping[str, str] = {
    "plain he": "plain, He init",
    "plain default": "plain, default init",
    "residual he": "residual, He init",
    "residual he scaled": "residual, He init, scaled branches",
    "residual default": "residual, default init",
    "simple": "simple CNN",
    "bf16": "bfloat16",
}
"""Labels for people of levels whose names are short keys; any other level is shown by its own name."""

DEPTH = "depth"
RESERVED = ("run", "folder", "status", "seed")
"""Columns of the table of runs that no axis may be called."""


@dataclass(frozen=True)
class Axis:
    """One thing the study varies: ``levels`` maps the name of a level to its settings.

    Settings are paths and values as ``--set`` takes them, e.g. ``{"plain": {"model.shortcut":
    "none"}}``. The levels of the axis called ``depth`` are named by their depth.
    """

    name: str
    levels: Mapping[str, Settings]

    @classmethod
    def of_depths(cls, depths: Iterable[int], path: str = "model.depth") -> Axis:
        """The depth axis: the setting ``path`` takes each depth in turn."""
        return cls(DEPTH, {str(depth): {path: depth} for depth in depths})


@dataclass(frozen=True)
class Nuisance:
    """A setting that matters but is not the question, e.g. the learning rate ``optimizer.lr``.

    ``fixed``: one value for the whole study, and the report says so. ``tuned``: the best of
    ``values`` by validation loss, per cell of the grid, on ``seeds`` that the study does not use.
    """

    path: str
    how: Literal["fixed", "tuned"] = "fixed"
    values: tuple[int | float, ...] = ()
    seeds: tuple[int, ...] = ()


@dataclass(frozen=True)
class Primary:
    """A planned comparison, named before there are data: ``condition`` at ``depth`` against its reference.

    In the family ``depth`` that is the same condition at the grid's shallowest depth and
    ``against`` is None; in the families ``shortcut`` (its plain twin) and ``condition`` it is the
    condition ``against`` at the same depth.
    """

    family: Family
    depth: int
    condition: str
    against: str | None = None


@dataclass(frozen=True)
class Cell:
    """One cell of the grid. ``levels`` names the level of each axis; ``config`` has the base's seed."""

    depth: int
    condition: str
    levels: Mapping[str, str]
    config: RunConfig


@dataclass(frozen=True)
class StudySpec:
    """A study. A ``condition`` is one combination of the levels of all axes but depth.

    ``smallest_effect`` is the smallest difference that would matter, of training losses (nats) or, in a study
    judged by validation error (`by_validation`), of those (fraction): an interval inside ± ``smallest_effect`` is
    evidence that nothing of interest is there.
    ``looks`` counts the analyses: adding seeds makes those before interim analyses and adds one (`extended`).
    ``paper``: the published numbers that the report shows beside the study's. ``source``: the parent run or teacher of
    the cells, trained before them; their settings name it `SOURCE`.
    """

    name: str
    question: str
    base: RunConfig
    scientific: tuple[Axis, ...]
    seeds: tuple[int, ...]
    primary: tuple[Primary, ...]
    smallest_effect: float
    nuisance: tuple[Nuisance, ...] = ()
    looks: int = 1
    paper: Reproduced | None = None
    source: RunConfig | None = None

    def __post_init__(self) -> None:
        for name in ("name", "question"):
            require(bool(getattr(self, name).strip()), f"study.{name}", getattr(self, name), "words")
        self._check_axes()
        self._check_seeds(self.seeds, "study.seeds", at_least=1)
        for item in self.nuisance:
            self._check_nuisance(item)
        effect = self.smallest_effect
        require(math.isfinite(effect) and effect > 0, "study.smallest_effect", effect, "a number above 0")
        require(self.looks >= 1, "study.looks", self.looks, "1 or more")
        if self.paper is not None:
            choose(self.paper, PAPERS, "study.paper")
        for comparison in self.primary:
            self._check_primary(comparison)
        if len(set(self.primary)) < len(self.primary):
            raise BadInput(f"study.primary of {self.name!r} names a comparison twice; each counts once")
        _ = self.cells  # a setting that the base cannot take is refused here, not at the first run

    # --- the grid ---

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """Every cell of the grid, conditions in the order given, each from shallow to deep."""
        axes = [axis for axis in self.scientific if axis.name != DEPTH]
        levels = next(axis for axis in self.scientific if axis.name == DEPTH).levels
        cells = []
        for names in itertools.product(*(axis.levels for axis in axes)):
            chosen = dict(zip((axis.name for axis in axes), names, strict=True))
            for depth in sorted(levels, key=int):
                settings = [levels[depth], *(axis.levels[chosen[axis.name]] for axis in axes)]
                texts = [f"{path}={json.dumps(value)}" for part in settings for path, value in part.items()]
                config, _ = apply_overrides(self.base, texts)
                cells.append(Cell(int(depth), self.condition_of(chosen), {DEPTH: depth, **chosen}, config))
        return tuple(cells)

    def condition_of(self, row: Mapping[str, object]) -> str:
        """The name of the condition that ``row`` (a value per axis) belongs to."""
        return ", ".join(str(row[axis.name]) for axis in self.scientific if axis.name != DEPTH)

    @property
    def depths(self) -> tuple[int, ...]:
        """The depths of the grid, ascending; the first is what depth is compared with."""
        return tuple(sorted({cell.depth for cell in self.cells}))

    @property
    def conditions(self) -> tuple[str, ...]:
        """The conditions in the order given."""
        return tuple(dict.fromkeys(cell.condition for cell in self.cells))

    def label_of(self, condition: str) -> str:
        """How a page or a picture names ``condition``: "residual, He init, scaled branches" for "residual he scaled".

        Files keep the condition itself, which is a key.
        """
        levels = next((c.levels for c in self.cells if c.condition == condition), {DEPTH: "", "condition": condition})
        return ", ".join(LABELS.get(level, level) for axis, level in levels.items() if axis != DEPTH)

    @property
    def early_stopping(self) -> bool:
        """Whether any run may stop before its budget; then depths are not compared."""
        trains = [cell.config.train for cell in self.cells]
        return any(t.early_stopping is not None or (t.overfitting and t.overfitting.action == "stop") for t in trains)

    @property
    def by_validation(self) -> bool:
        """Whether its comparisons are of the family ``condition`` and so judged by the validation error."""
        return any(item.family == "condition" for item in self.primary)

    # --- identity ---

    def fingerprint(self) -> str:
        """Ten hex digits over all but seeds and looks: only adding seeds leaves a study the same study."""
        data = to_json(self)
        base = data["base"]
        del data["seeds"], data["looks"], base["seed"]
        if not self.base.augmented:
            del base["augmentation"]
        for part, added_later in ((data, "paper"), (data, "source"), (base, "start_from")):
            if part[added_later] is None:  # studies without it keep their fingerprint
                del part[added_later]
        return digest(data)[:10]

    def extended(self, seeds: Iterable[int]) -> StudySpec:
        """The same study with more ``seeds``: one more analysis, so the factor of its p-values grows by one.

        Raises:
            BadInput: a seed of the plan is missing among ``seeds``, or none is new.
        """
        new = tuple(seeds)
        lost = sorted(set(self.seeds) - set(new))
        if lost or len(new) == len(self.seeds):
            what = f"drops seed {lost[0]}" if lost else "adds no seed"
            raise BadInput(f"extending study {self.name!r} {what}; name all planned seeds and some new ones")
        return dataclasses.replace(self, seeds=new, looks=self.looks + 1)

    def with_source(self, run: str) -> StudySpec:
        """The same study with the finished ``run`` as its parent run or teacher.

        Raises:
            BadInput: no run of the study starts from or learns from another.
        """
        if self.source is None:
            raise BadInput(f"study {self.name!r} has no parent run and no teacher, so --source {run!r} is of no use")
        paths = ("start_from.run", "objective.teacher")

        def named(settings: Settings) -> Settings:
            return {path: run if path in paths and value == SOURCE else value for path, value in settings.items()}

        axes = tuple(Axis(a.name, {level: named(given) for level, given in a.levels.items()}) for a in self.scientific)
        return dataclasses.replace(self, scientific=axes, source=None)

    def with_depths(self, depths: Iterable[int]) -> tuple[StudySpec, tuple[Primary, ...]]:
        """The same study at other ``depths``, and the primary comparisons that it can no longer make.

        Raises:
            BadInput: a depth whose settings are neither given nor follow from those of the others.
        """
        axis = next(axis for axis in self.scientific if axis.name == DEPTH)
        wanted = sorted(set(depths))
        paths = {path for level, settings in axis.levels.items() for path, value in settings.items()}
        plain = all(list(settings.values()) == [int(level)] for level, settings in axis.levels.items())
        if plain and len(paths) == 1:
            other = Axis.of_depths(wanted, paths.pop())
        else:
            levels = {choose(str(depth), axis.levels, "depth of the study:"): depth for depth in wanted}
            other = Axis(DEPTH, {level: axis.levels[level] for level in levels})
        kept = tuple(
            item for item in self.primary if item.depth in wanted and (item.family != DEPTH or item.depth != wanted[0])
        )
        axes = tuple(other if item is axis else item for item in self.scientific)
        lost = tuple(item for item in self.primary if item not in kept)
        return dataclasses.replace(self, scientific=axes, primary=kept), lost

    # --- checks ---

    def _check_axes(self) -> None:
        names = [axis.name for axis in self.scientific]
        good = "axes of different names, one of them 'depth'"
        require(len(set(names)) == len(names) and DEPTH in names, "study.scientific", names, good)
        for axis in self.scientific:
            require(axis.name not in ("", *RESERVED), "axis name", axis.name, f"other names than {', '.join(RESERVED)}")
            require(bool(axis.levels), f"axis {axis.name!r}", axis.levels, "one or more levels")
            for level, settings in axis.levels.items():
                what = f"level {level!r} of axis {axis.name!r}"
                require(isinstance(settings, Mapping), what, settings, "paths and values")
                number = re.fullmatch("0|[1-9][0-9]*", level)
                require(axis.name != DEPTH or number is not None, "level of axis 'depth'", level, "a depth, such as 8")

    @staticmethod
    def _check_seeds(seeds: tuple[int, ...], path: str, at_least: int) -> None:
        good = len(seeds) >= at_least and len(set(seeds)) == len(seeds) and all(0 <= s <= MAX_SEED for s in seeds)
        require(good, path, list(seeds), f"{at_least} or more, each once, from 0")

    def _check_nuisance(self, item: Nuisance) -> None:
        tuned = item.how == "tuned"
        if tuned != bool(item.values) or tuned != bool(item.seeds):
            raise BadInput(f"nuisance {item.path!r} is {item.how}; tuned takes values and seeds, fixed neither")
        self._check_seeds(item.seeds, f"nuisance {item.path!r}: seeds", at_least=0)
        shared = sorted(set(item.seeds) & set(self.seeds))
        if shared:
            raise BadInput(f"nuisance {item.path!r} is tuned on seed {shared[0]} of the study; take other seeds")

    def _check_primary(self, item: Primary) -> None:
        what = "study.primary: condition"
        choose(item.family, FAMILIES, "study.primary: family")
        choose(item.condition, self.conditions, what)
        choose(str(item.depth), map(str, self.depths), "study.primary: depth")
        if self.by_validation and item.family != "condition":
            raise BadInput(f"study.primary mixes the family 'condition' with {item.family!r}; make it two studies")
        if item.family != DEPTH:
            choose(item.against, [name for name in self.conditions if name != item.condition], f"{what} against")
        elif item.against is not None:
            raise BadInput(f"study.primary: against = {item.against!r}; a depth is compared with the shallowest: null")
        elif item.depth == self.depths[0]:
            raise BadInput(f"study.primary: depth {item.depth} is the shallowest; it cannot be compared with itself")
