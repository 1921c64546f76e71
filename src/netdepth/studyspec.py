"""What a study asks, written down before its first run. Standard library only.

A study is a grid: the levels of one axis, its factor (most often depth) × the other scientific axes × seeds. The
comparisons that may claim something are named here, before there is data (`Primary`); all others are exploratory.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from netdepth.config import RunConfig, Settings, canonical_json, digest, require, to_json
from netdepth.errors import BadInput, choose
from netdepth.overrides import apply_overrides
from netdepth.studyparts import (
    AGAINST_REFERENCE,
    AIMS,
    DEPTH,
    FAMILIES,
    LABELS,
    Aim,
    Axis,
    Cell,
    Family,
    Nuisance,
    Primary,
    as_number,
    check_seeds,
    level_json,
    number_of_level,
)  # fmt: skip
from netdepth.text import SETTINGS, listed

__all__ = [
    "AIMS", "DEPTH", "FAMILIES", "PAPERS", "SOURCE", "Aim", "Axis", "Cell", "Family", "Nuisance", "Primary",
    "Reproduced", "StudySpec", "level_json",
]  # fmt: skip

SOURCE = "source"
"""What ``start_from.run`` or ``objective.teacher`` says where it means the study's own `StudySpec.source`."""

Reproduced = Literal["he2016"]
PAPERS: tuple[Reproduced, ...] = ("he2016",)
"""Papers whose numbers a report can show beside a study's (`netdepth.studies.paper`)."""

Better = Literal["lower", "higher"]
BETTER: tuple[Better, ...] = ("lower", "higher")
Effect = Literal["absolute", "relative"]
EFFECTS: tuple[Effect, ...] = ("absolute", "relative")

ADDED = ("factor", "reference", "max_looks", "metric", "better", "effect", "seeds_of", "combine")
"""Fields of a study that were added later: out of its file and its fingerprint while they have their defaults."""

RESERVED = ("run", "folder", "status", "seed", "classes", "label_entropy", "constant_loss", "gradient_ratio", "error")
"""Columns of the table of runs that no axis may be called."""


@dataclass(frozen=True)
class StudySpec:
    """A study: levels of the ``factor`` are compared; a ``condition`` is a combination of levels of all other axes.

    ``factor``: the axis ``depth`` unless another is named; None if there is no such axis: then all cells are at one
    level, called "". ``reference``: the level that the others are compared with (None: the first, see `levels`).

    ``smallest_effect`` is the smallest difference that would matter, of training losses (nats) or, in a study
    judged by validation error (`by_validation`), of those (fraction): an interval inside ± ``smallest_effect`` is
    evidence that nothing of interest is there. With ``effect`` "relative" it is a share of the reference's mean.
    ``metric``: the column of the table that is compared instead, such as ``val_last_accuracy``, and which values are
    ``better`` (None: by its name).

    ``looks`` counts the analyses: adding seeds makes those before interim analyses and adds one (`extended`), up to
    ``max_looks``, if a number was declared. ``seeds_of``: other seeds for some conditions. ``combine``: an axis whose
    levels are data sets; a primary comparison can also be of all of them together, see `combined`.
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
    factor: str | None = None
    reference: str | None = None
    max_looks: int | None = None
    metric: str | None = None
    better: Better | None = None
    effect: Effect = "absolute"
    seeds_of: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    combine: str | None = None

    def __post_init__(self) -> None:
        for name in ("name", "question"):
            require(bool(getattr(self, name).strip()), f"study.{name}", getattr(self, name), "words")
        self._check_axes()
        check_seeds(self.seeds, "study.seeds", at_least=1)
        self._check_seeds_of()
        seeds = {*self.seeds, *itertools.chain(*self.seeds_of.values())}
        for item in self.nuisance:
            item.check(self.scientific, seeds)
        effect = self.smallest_effect
        require(math.isfinite(effect) and effect > 0, "study.smallest_effect", effect, "a number above 0")
        require(self.looks >= 1, "study.looks", self.looks, "1 or more")
        if self.max_looks is not None:
            require(self.max_looks >= self.looks, "study.max_looks", self.max_looks, f"{self.looks} or more, or null")
        if self.paper is not None:
            choose(self.paper, PAPERS, "study.paper")
        self._check_metric()
        grid = self.factor_axis, self.reference_level, (*self.conditions, *self.combined)
        object.__setattr__(self, "primary", tuple(item.checked(*grid) for item in self.primary))
        if self.combine is not None:
            self._check_combine(self.combine)
        if self.by_validation and any(item.family != "condition" for item in self.primary):
            raise BadInput("study.primary mixes the family 'condition' with others; make it two studies")
        if len(set(self.primary)) < len(self.primary):
            raise BadInput(f"study.primary of {self.name!r} names a comparison twice; each counts once")
        _ = self.cells  # a setting that the base cannot take is refused here, not at the first run

    # --- the grid ---

    @cached_property
    def factor_axis(self) -> Axis:
        """The axis of the factor; without a factor one of a single level, called "", that sets nothing."""
        return next((axis for axis in self.scientific if axis.name == self.factor), Axis("", {"": {}}))

    @property
    def levels(self) -> tuple[str, ...]:
        """The levels of the factor: numbers ascending, names as given; "" alone without a factor."""
        return self.factor_axis.order

    @property
    def reference_level(self) -> str:
        """The level that the others are compared with."""
        return self.levels[0] if self.reference is None else self.reference

    @property
    def other_levels(self) -> tuple[str, ...]:
        """The levels that are compared with `reference_level`."""
        return tuple(level for level in self.levels if level != self.reference_level)

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """Every cell of the grid, conditions in the order given, each by the order of the levels."""
        axes = [axis for axis in self.scientific if axis.name != self.factor]
        factor, cells = self.factor_axis, []
        parts = {path.partition(".")[0] for path in factor.paths} - set(factor.paths)
        for names in itertools.product(*(axis.levels for axis in axes)):
            chosen = dict(zip((axis.name for axis in axes), names, strict=True))
            others = [axis.levels[chosen[axis.name]] for axis in axes]
            for level in self.levels:
                own = factor.levels[level]
                # A level is a setting of the model that a condition puts in place of the base's. If there is a single
                # level, that model is as it should be, say of this depth by the widths of its layers.
                swapped = len(factor.levels) > 1 and any(part in settings for settings in others for part in parts)
                settings = [*others, own] if swapped else [own, *others]
                texts = [f"{path}={json.dumps(value)}" for part in settings for path, value in part.items()]
                config, _ = apply_overrides(self.base, texts)
                place = {} if self.factor is None else {self.factor: level}
                cells.append(Cell(level, self.condition_of(chosen), {**place, **chosen}, config))
        return tuple(cells)

    def condition_of(self, row: Mapping[str, object]) -> str:
        """The name of the condition that ``row`` (a value per axis) belongs to.

        Raises:
            BadInput: a value that is no level of its axis.
        """
        axes = [axis for axis in self.scientific if axis.name != self.factor]
        return ", ".join(axis.level(row[axis.name], f"{axis.name}:") for axis in axes)

    @property
    def conditions(self) -> tuple[str, ...]:
        """The conditions in the order given."""
        return tuple(dict.fromkeys(cell.condition for cell in self.cells))

    @property
    def data_sets(self) -> tuple[str, ...]:
        """The levels of the axis ``combine``; none without one."""
        return next((tuple(axis.levels) for axis in self.scientific if axis.name == self.combine), ())

    @cached_property
    def combined(self) -> Mapping[str, tuple[str, ...]]:
        """The conditions that differ in the axis ``combine`` alone, by the name of what they are together: "plain, all
        data" of "plain, mnist" and "plain, cifar10" if that axis is called data."""
        found: dict[str, list[str]] = {}
        for cell in self.cells if self.combine is not None else ():
            if cell.level == self.levels[0]:
                parts = {axis: level for axis, level in cell.levels.items() if axis != self.factor}
                name = ", ".join({**parts, str(self.combine): f"all {self.combine}"}.values())
                found.setdefault(name, []).append(cell.condition)
        return {name: tuple(conditions) for name, conditions in found.items()}

    def seeds_for(self, condition: str) -> tuple[int, ...]:
        """The seeds of ``condition``; of a combined one those that all of its conditions have."""
        parts = self.combined.get(condition, (condition,))
        first, *others = (self.seeds_of.get(part, self.seeds) for part in parts)
        return tuple(seed for seed in first if all(seed in seeds for seeds in others))

    # --- words ---

    def label_of(self, condition: str) -> str:
        """How a page or a picture names ``condition``: "residual, He init, scaled branches" for "residual he scaled".

        Files keep the condition itself, which is a key. A combined one is called as without its data sets.
        """
        one = self.combined.get(condition, (condition,))[0]
        levels = next((c.levels for c in self.cells if c.condition == one), {"condition": condition})
        left_out = (self.factor, self.combine if condition in self.combined else None)
        shown = {axis: LABELS.get(level, level) for axis, level in levels.items() if axis not in left_out}
        return ", ".join(f"{axis} {label}" if axis == DEPTH else label for axis, label in shown.items())

    @property
    def factor_name(self) -> str:
        """What people call the factor: depth, width, learning rate; "" where there is none."""
        axis = self.factor_axis
        return SETTINGS.get(axis.paths[0], axis.name) if len(axis.paths) == 1 else axis.name

    def place(self, level: str) -> str:
        """A level for people: "depth 8", "optimizer adam"; "" without a factor."""
        return "" if self.factor is None else f"{self.factor_name} {LABELS.get(level, level)}"

    def name_of(self, condition: str, level: str) -> str:
        """A cell for people: "residual, He init, depth 8"."""
        return ", ".join(filter(None, [self.label_of(condition), self.place(level)]))

    def where(self, *levels: str) -> str:
        """Some levels in a sentence: "at depth 8", "at depths 8 and 32", "from depth 16 on" (at all levels from there),
        "for optimizer adam"; "" without a factor."""
        if self.factor is None:
            return ""
        numeric = self.factor_axis.numeric
        preposition = "at" if numeric else "for"
        if len(levels) == 1:
            return f"{preposition} {self.place(levels[0])}"
        if numeric and levels == self.levels[-len(levels) :]:
            return f"from {self.place(levels[0])} on"
        return f"{preposition} {self.factor_name}s {listed([LABELS.get(level, level) for level in levels])}"

    # --- what is judged ---

    @property
    def early_stopping(self) -> bool:
        """Whether any run may stop before its budget; then depths are not compared."""
        trains = [cell.config.train for cell in self.cells]
        return any(t.early_stopping is not None or (t.overfitting and t.overfitting.action == "stop") for t in trains)

    @property
    def by_validation(self) -> bool:
        """Whether its comparisons are of the family ``condition`` and so judged by the validation error."""
        return any(item.family == "condition" for item in self.primary)

    @property
    def by_loss(self) -> bool:
        """Whether its comparisons are judged by a loss."""
        return not self.by_validation if self.metric is None else self.metric.endswith("_loss")

    # --- identity ---

    def fingerprint(self) -> str:
        """Ten hex digits over all but seeds and looks: only adding seeds leaves a study the same study."""
        data = self.as_json()
        base = data["base"]
        for name in ("seeds", "looks", "max_looks", "seeds_of"):
            data.pop(name, None)
        del base["seed"]
        if not self.base.augmented:
            del base["augmentation"]
        for part, added_later in ((data, "paper"), (data, "source"), (base, "start_from")):
            if part[added_later] is None:  # studies without it keep their fingerprint
                del part[added_later]
        return digest(data)[:10]

    def as_json(self) -> dict[str, Any]:
        """The study as ``study.json`` has it: what was added later is left out where it says nothing."""
        data: dict[str, Any] = to_json(self)
        usual = {item.name: item.default for item in dataclasses.fields(self)}
        usual |= {"factor": DEPTH if any(axis.name == DEPTH for axis in self.scientific) else None, "seeds_of": {}}
        for name in ADDED:
            if data[name] == usual[name] or (name == "reference" and self.reference == self.levels[0]):
                del data[name]
        usual_primary = {item.name: item.default for item in dataclasses.fields(Primary)}
        data["primary"] = [
            {
                name: value
                for name, value in level_json(to_json(item), self.factor if item.level else None).items()
                if name in ("against", DEPTH) or value != usual_primary.get(name, dataclasses.MISSING)
            }
            for item in self.primary
        ]
        return data

    def extended(self, seeds: Iterable[int], seeds_of: Mapping[str, tuple[int, ...]] | None = None) -> StudySpec:
        """The same study with more ``seeds``: one more analysis, so the factor of its p-values grows.

        Raises:
            BadInput: a seed of the plan is missing, or none is new; no further analysis was declared.
        """
        other = self.seeds_of if seeds_of is None else seeds_of
        more = dataclasses.replace(self, seeds=tuple(seeds), seeds_of=other)
        before, after = ({(c, s) for c in self.conditions for s in spec.seeds_for(c)} for spec in (self, more))
        lost = sorted({seed for _, seed in before - after})
        if lost or after == before:
            what = f"drops seed {lost[0]}" if lost else "adds no seed"
            raise BadInput(f"extending study {self.name!r} {what}; name all planned seeds and some new ones")
        if self.max_looks is not None and self.looks >= self.max_looks:
            planned = "one analysis" if self.max_looks == 1 else f"{self.max_looks} analyses"
            raise BadInput(
                f"study {self.name!r} declared {planned} before its runs (max_looks = {self.max_looks}), so no seeds "
                "can be added now; a study that is meant to grow begins with --max-looks 2 or more, or with open"
            )
        return dataclasses.replace(more, looks=self.looks + 1)

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

    def with_levels(self, levels: Iterable[float | str]) -> tuple[StudySpec, tuple[Primary, ...]]:
        """The same study at other ``levels`` of its factor, and the primary comparisons that it can no longer make.

        Raises:
            BadInput: no factor; a level whose settings are neither given nor follow from those of the others.
        """
        if self.factor is None:
            raise BadInput(f"study {self.name!r} has no factor, so it has no levels to choose")
        axis, wanted = self.factor_axis, list(dict.fromkeys(levels))
        plain = all([*map(str, settings.values())] == [level] for level, settings in axis.levels.items())
        if plain and len(axis.paths) == 1 and axis.numeric:
            other = Axis.of_values(axis.name, axis.paths[0], map(as_number, wanted))
        else:
            kept_levels = [axis.level(level, f"{self.factor_name} of the study:") for level in wanted]
            other = Axis(axis.name, {level: axis.levels[level] for level in axis.levels if level in kept_levels})
        reference = self.reference if self.reference in other.levels else None
        first = reference or other.order[0]
        kept = tuple(
            item
            for item in self.primary
            if {item.level, item.against_level or item.level} <= {"", *other.levels}
            and (item.family not in AGAINST_REFERENCE or item.level != first)
        )
        axes = tuple(other if item is axis else item for item in self.scientific)
        lost = tuple(item for item in self.primary if item not in kept)
        return dataclasses.replace(self, scientific=axes, primary=kept, reference=reference), lost

    # --- checks ---

    def _check_axes(self) -> None:
        names = [axis.name for axis in self.scientific]
        require(len(set(names)) == len(names) and bool(names), "study.scientific", names, "axes of different names")
        if self.factor is None and DEPTH in names:
            object.__setattr__(self, "factor", DEPTH)
        if self.factor is not None:
            choose(self.factor, names, "study.factor")
        for axis in self.scientific:
            require(axis.name not in ("", *RESERVED), "axis name", axis.name, f"other names than {', '.join(RESERVED)}")
            require(bool(axis.levels), f"axis {axis.name!r}", axis.levels, "one or more levels")
            for level, settings in axis.levels.items():
                what = f"level {level!r} of axis {axis.name!r}"
                require(isinstance(settings, Mapping), what, settings, "paths and values")
                require(bool(level.strip()), f"level of axis {axis.name!r}", level, "a name or a number")
                number = re.fullmatch("0|[1-9][0-9]*", level)
                require(axis.name != DEPTH or number is not None, "level of axis 'depth'", level, "a depth, such as 8")
            numbers = [number_of_level(level) for level in axis.levels]
            if axis.numeric and len(set(numbers)) < len(numbers):
                raise BadInput(
                    f"axis {axis.name!r} has a number twice: {', '.join(axis.levels)}; each level counts once"
                )
        if self.factor is not None and self.reference is not None:
            level = self.factor_axis.level(self.reference, "study.reference:")
            object.__setattr__(self, "reference", level)
        elif self.reference is not None:
            raise BadInput(f"study.reference = {self.reference!r}: the study has no factor, so it has no levels")
        for axis in self.scientific:
            both = [path for path in axis.paths if path in self.factor_axis.paths and axis.name != self.factor]
            if both:
                raise BadInput(f"axes {self.factor!r} and {axis.name!r} both set {both[0]}; a setting has one axis")
        if self.combine is not None:
            choose(self.combine, [name for name in names if name != self.factor], "study.combine")

    def _check_combine(self, name: str) -> None:
        for item in self.primary:
            both = [condition for condition in (item.condition, item.against) if condition is not None]
            together = [condition for condition in both if condition in self.combined]
            if len(together) not in (0, len(both)):
                raise BadInput(f"study.primary compares {both[0]!r} with {both[1]!r}, which has it in it")
            if together and item.aim == "not worse":
                raise BadInput(
                    f"study.primary: {both[0]!r} 'not worse' is a claim about each data set, which their mean cannot "
                    "make; name it for each of them"
                )
            for condition in together:
                if not self.seeds_for(condition):
                    raise BadInput(f"study.primary: the data sets of {condition!r} have no seed in common")
        for conditions in self.combined.values():
            for level in self.levels:
                own = [c.config.dataset for c in self.cells if c.condition in conditions and c.level == level]
                if len({canonical_json(dataset) for dataset in own}) < max(len(own), 2):
                    raise BadInput(
                        f"study.combine = {name!r}: its levels are not different data sets; it takes an axis of two or "
                        "more levels that each set another dataset"
                    )
        if self.metric is not None and not re.search("_loss$|accuracy|precision|recall|f1|r2$", self.metric):
            raise BadInput(
                f"study.combine: data sets have no scale of {self.metric!r} in common; combine a loss, which is "
                "divided by that of guessing, or a fraction such as val_last_accuracy"
            )

    def _check_metric(self) -> None:
        choose(self.effect, EFFECTS, "study.effect")
        if self.metric is None:
            require(self.better is None, "study.better", self.better, "null, as no metric is named")
            return
        good = "a column of the table about training or validation data, such as val_last_accuracy"
        require(re.fullmatch("(train|val)_[a-z0-9_]+", self.metric) is not None, "study.metric", self.metric, good)
        if self.better is not None:
            choose(self.better, BETTER, "study.better")
            by_name = "higher" if self.metric.endswith("_accuracy") else "lower"
            if self.metric.endswith(("_loss", "_error", "_accuracy")) and self.better != by_name:
                raise BadInput(f"study.better = {self.better!r} contradicts study.metric = {self.metric!r}; {by_name}")
        elif not self.metric.endswith(("_loss", "_error", "_accuracy")):
            raise BadInput(
                f"study.better is null, and study.metric = {self.metric!r} does not say it; lower or higher?"
            )

    @property
    def higher_is_better(self) -> bool:
        """Whether larger values of the study's metric are better."""
        return self.better == "higher" or (self.better is None and (self.metric or "").endswith("_accuracy"))

    def _check_seeds_of(self) -> None:
        for name, seeds in self.seeds_of.items():
            choose(name, self.conditions, "study.seeds_of")
            whole = isinstance(seeds, Sequence) and all(type(seed) is int for seed in seeds)
            require(whole, f"study.seeds_of {name!r}", seeds, "a list of seeds")
            check_seeds(tuple(seeds), f"study.seeds_of {name!r}", at_least=1)
        given = {name: tuple(seeds) for name, seeds in self.seeds_of.items()}
        object.__setattr__(self, "seeds_of", given)
