"""What a study is made of: its axes and their levels, settings that are no question, planned comparisons, cells.

Standard library only. `netdepth.studyspec` puts them together; import them from there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from netdepth.config import MAX_SEED, Json, RunConfig, Settings, require
from netdepth.errors import BadInput, choose

__all__ = [
    "AGAINST_REFERENCE", "AIMS", "DEPTH", "FAMILIES", "LABELS", "Aim", "Axis", "Cell", "Family", "Nuisance", "Primary",
    "as_number", "check_seeds", "level_json", "number_of_level",
]  # fmt: skip

Family = Literal["depth", "shortcut", "condition", "cells", "trend", "interaction"]
FAMILIES: tuple[Family, ...] = ("depth", "shortcut", "condition", "cells", "trend", "interaction")
"""What a comparison asks; a level is one of the study's factor, whatever that is.

``depth``: a level against the reference level. ``shortcut``: a condition against another, such as its plain twin, at
the same level. ``condition``: a way of training against another at the same level, by validation error; a study has
it alone. ``cells``: any cell against any other. ``trend``: all levels in one condition. ``interaction``: what a level
changes against the reference level in one condition, minus the same in another."""

Aim = Literal["difference", "not worse"]
AIMS: tuple[Aim, ...] = ("difference", "not worse")
"""``not worse``: the condition is worse than ``against`` by less than a margin, or not at all."""

AGAINST_REFERENCE: tuple[Family, ...] = ("depth", "interaction")
"""The families that compare a level with the reference level."""

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
        return cls.of_values(DEPTH, path, depths)

    @classmethod
    def of_values(cls, name: str, path: str, values: Iterable[float | str]) -> Axis:
        """An axis whose setting ``path`` takes each of ``values`` in turn; they name the levels."""
        return cls(name, {str(value): {path: value} for value in values})

    @property
    def numeric(self) -> bool:
        """Whether all its levels are called by numbers; then they have an order and a scale."""
        return all(number_of_level(level) is not None for level in self.levels)

    @property
    def order(self) -> tuple[str, ...]:
        """Its levels: numbers ascending, names as given."""
        return tuple(sorted(self.levels, key=float)) if self.numeric else tuple(self.levels)

    @property
    def paths(self) -> tuple[str, ...]:
        """The settings that its levels give."""
        return tuple(dict.fromkeys(path for settings in self.levels.values() for path in settings))

    def level(self, value: object, what: str) -> str:
        """The level that ``value`` is the name or the number of; ``what`` names it in an error.

        Raises:
            BadInput: no level is called so.
        """
        text = str(value)
        number = number_of_level(text)
        if text not in self.levels and number is not None:
            text = next((level for level in self.levels if number_of_level(level) == number), text)
        return choose(text, self.order, what)


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

    def check(self, axes: Iterable[Axis], seeds: Collection[int]) -> None:
        """Refuse it in a study that varies ``axes`` on ``seeds``.

        Raises:
            BadInput: what is tuned or fixed is varied, or tuned on a seed of the study.
        """
        tuned = self.how == "tuned"
        if tuned != bool(self.values) or tuned != bool(self.seeds):
            raise BadInput(f"nuisance {self.path!r} is {self.how}; tuned takes values and seeds, fixed neither")
        for axis in axes:
            if self.path in axis.paths:
                raise BadInput(f"nuisance {self.path!r} is varied by axis {axis.name!r}; what is asked is no nuisance")
            part = self.path.partition(".")[0]
            if part in axis.paths and not tuned:
                different = f"is not the same for all, as axis {axis.name!r} replaces {part}"
                raise BadInput(f"nuisance {self.path!r} {different}; tune it or do not name it")
        check_seeds(self.seeds, f"nuisance {self.path!r}: seeds", at_least=0)
        shared = sorted({*self.seeds} & {*seeds})
        if shared:
            raise BadInput(f"nuisance {self.path!r} is tuned on seed {shared[0]} of the study; take other seeds")


@dataclass(frozen=True, init=False)
class Primary:
    """A planned comparison, named before there are data: ``condition`` at ``level`` against something; see `FAMILIES`.

    ``level`` is text, given as that or as a number; "" is all levels (a ``trend``), or the one of a study
    without a factor. ``against`` is the other condition, None where the comparison is within one. ``against_level`` is
    the level of the other side in the family ``cells`` (None: the same one). ``margin``: how much worse is still
    ``not worse``, in the unit of `StudySpec.smallest_effect` (None: that).
    """

    family: Family
    level: str = field(metadata={"was": DEPTH})
    condition: str
    against: str | None = None
    against_level: str | None = None
    aim: Aim = "difference"
    margin: float | None = None

    def __init__(
        self,
        family: Family,
        level: float | str | None,
        condition: str,
        against: str | None = None,
        against_level: float | str | None = None,
        aim: Aim = "difference",
        margin: float | None = None,
    ) -> None:
        other = None if against_level is None else str(against_level)
        given = (family, "" if level is None else str(level), condition, against, other, aim, margin)
        for item, value in zip(dataclasses.fields(self), given, strict=True):
            object.__setattr__(self, item.name, value)

    def checked(self, factor: Axis, reference: str, conditions: Sequence[str]) -> Primary:
        """It, with its levels as ``factor`` (called "" where there is none) names them.

        Raises:
            BadInput: it names what the study does not have, or asks nothing.
        """
        what = "study.primary: condition"
        choose(self.family, FAMILIES, "study.primary: family")
        choose(self.condition, conditions, what)
        if not factor.name and self.family in (*AGAINST_REFERENCE, "trend"):
            raise BadInput(f"study.primary: the family {self.family!r} is about a factor, and the study has none")
        level, other, against = self.level, self.against_level, self.against
        if self.family == "trend":
            require(level == "", "study.primary: level of a trend", level, "null, as it is about all levels")
        else:
            level = factor.level(level, f"study.primary: {factor.name or 'level'}")
        if self.family in ("shortcut", "condition", "interaction"):
            choose(against, [name for name in conditions if name != self.condition], f"{what} against")
        if self.family in AGAINST_REFERENCE and level == reference:
            shallowest = factor.name == DEPTH and reference == factor.order[0]
            kind = "the shallowest" if shallowest else "the reference"
            raise BadInput(f"study.primary: {factor.name} {level} is {kind}; it cannot be compared with itself")
        if self.family in (DEPTH, "trend") and against is not None:
            kind = "a depth is compared with the shallowest" if factor.name == DEPTH else "it is about one condition"
            raise BadInput(f"study.primary: against = {against!r}; {kind}: null")
        if self.family == "cells":
            against = choose(self.condition if against is None else against, conditions, f"{what} against")
            other = factor.level(level if other is None else other, "study.primary: against_level")
            if (self.condition, level) == (against, other):
                raise BadInput(f"study.primary: {self.condition!r} at {level!r} is compared with itself")
        elif other is not None:
            only = "only the family 'cells' has another level on its other side: null"
            raise BadInput(f"study.primary: against_level = {other!r}; {only}")
        choose(self.aim, AIMS, "study.primary: aim")
        if self.aim == "not worse" and self.family in ("trend", "interaction"):
            raise BadInput(f"study.primary: aim = 'not worse' is about two cells, not a {self.family}: difference")
        if self.margin is not None:
            good = math.isfinite(self.margin) and self.margin > 0 and self.aim == "not worse"
            require(good, "study.primary: margin", self.margin, "a number above 0, with the aim 'not worse'")
        return dataclasses.replace(self, level=level, against=against, against_level=other)


@dataclass(frozen=True)
class Cell:
    """One cell of the grid: ``level`` is that of the factor, ``levels`` has those of all axes (the factor first);
    ``config`` has the base's seed."""

    level: str
    condition: str
    levels: Mapping[str, str]
    config: RunConfig


def as_number(level: float | str) -> float | str:
    """A level of a numeric axis as a setting takes it."""
    if not isinstance(level, str):
        return level
    number = number_of_level(level)
    if number is None:
        raise BadInput(f"level {level!r} is not acceptable; the levels of this study are numbers")
    return int(number) if number.is_integer() and "." not in level else number


def number_of_level(level: str) -> float | None:
    """The number that a level is called by; None for a name."""
    with contextlib.suppress(ValueError):
        number = float(level)
        return number if math.isfinite(number) else None
    return None


def level_json(part: Mapping[str, Json], factor: str | None) -> dict[str, Json]:
    """``part`` of a document as it is written: in a study of depth the ``level`` is the number ``depth``."""
    if factor != DEPTH:
        return dict(part)
    return {DEPTH if key == "level" else key: int(item) if key == "level" else item for key, item in part.items()}  # type: ignore[arg-type]


def check_seeds(seeds: Sequence[int], path: str, at_least: int) -> None:
    """Refuse seeds that are too few, not unique or no seeds."""
    good = len(seeds) >= at_least and len(set(seeds)) == len(seeds) and all(0 <= s <= MAX_SEED for s in seeds)
    require(good, path, list(seeds), f"{at_least} or more, each once, from 0")
