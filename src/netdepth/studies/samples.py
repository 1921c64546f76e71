"""The numbers of a comparison: which runs it takes, paired or not, and the combination of their means it is about."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from netdepth.stats.exact import ExactTest, permutation_test, sign_flip_test, smallest_p, trend_test
from netdepth.stats.family import shares, spending
from netdepth.stats.intervals import Estimate, combination_interval, combination_p, equivalence_p
from netdepth.studies.cells import CellRun, CellRuns
from netdepth.studyspec import Primary, StudySpec

__all__ = ["LEVEL", "Design", "Samples", "Side", "Value", "design_of", "first_level", "samples_of", "sides_of"]

LEVEL = 0.05
"""Of everything that a study claims together."""

Design = Literal["paired", "unpaired", "paired within conditions"]

Value = Callable[[CellRun], "float | None"]
"""What is compared, of a run; None where the run has none."""


@dataclass(frozen=True)
class Side:
    """A cell and the ``weight`` of its mean in the comparison."""

    cell: CellRuns
    weight: float


@dataclass(frozen=True)
class Samples:
    """The ``values`` of each side and the weights of their means. Paired: one sample, of the weighted sums per seed.

    ``runs`` are the runs of each side; ``left_out`` the seeds of pairs without a partner.
    """

    design: Design
    runs: tuple[tuple[CellRun, ...], ...]
    values: tuple[tuple[float, ...], ...]
    side_weights: tuple[float, ...]
    left_out: tuple[int, ...]
    scores: tuple[float, ...] | None = None

    def combined(
        self, values: Sequence[Sequence[float]], weights: Sequence[float]
    ) -> tuple[list[list[float]], list[float]]:
        """The samples and weights of `stats.intervals.combination_interval` for the ``values`` of the sides."""
        if self.design == "unpaired":
            return [list(side) for side in values], list(weights)

        def by_seed(chosen: slice) -> list[float]:
            return [
                math.fsum(w * v for w, v in zip(weights[chosen], seed, strict=True))
                for seed in zip(*values[chosen], strict=True)
            ]

        if self.design == "paired":
            return [by_seed(slice(None))], [1.0]
        half = len(values) // 2
        return [by_seed(slice(half)), [-v for v in by_seed(slice(half, None))]], [1.0, -1.0]

    @property
    def n(self) -> int:
        """The smallest number of independent values."""
        return min(map(len, self.combined(self.values, self.side_weights)[0]), default=0)

    def interval(self, level: float = 0.95) -> Estimate:
        """The difference (or other combination) with its interval."""
        return combination_interval(*self.combined(self.values, self.side_weights), level)

    def exact(self) -> ExactTest | None:
        """The exact test of "it is 0"; None without values."""
        samples, _ = self.combined(self.values, self.side_weights)
        if not all(samples):
            return None
        if self.scores is not None:
            return trend_test(samples, self.scores)
        if len(samples) == 1:
            return sign_flip_test(samples[0])
        return permutation_test(*samples)

    def t_test(self, failed: bool = False) -> tuple[float, str]:
        """The p-value of the t test that allows unequal variances: the larger of that of the values and, where all are
        above 0, that of their logarithms; of these alone if a run ``failed``, because then a few values at the cap
        scatter so widely that the test of the values finds nothing.

        Differences of differences are compared as they are: on logarithms they would ask another question.
        """
        name = ("Student's" if self.design == "paired" else "Welch's") + " t test"
        p = combination_p(*self.combined(self.values, self.side_weights))
        interaction = len(self.values) == 4 and self.scores is None
        if interaction or min((v for side in self.values for v in side), default=0) <= 0:
            return p, name
        logarithms = [[math.log(v) for v in side] for side in self.values]
        logarithmic = combination_p(*self.combined(logarithms, self.side_weights))
        return (
            (logarithmic, f"{name} of logarithms") if failed else (max(p, logarithmic), f"{name}, also of logarithms")
        )

    def equivalence(self, margin: float, relative: bool) -> float:
        """The p-value of "it lies within ± ``margin``"; ``relative``: a share of the last side's mean."""
        if not relative:
            return equivalence_p(*self.combined(self.values, self.side_weights), margin)
        return max(self._beyond(margin, 1), self._beyond(-margin, -1))

    def not_worse(self, margin: float, relative: bool) -> float:
        """The one-sided p-value of "the difference is below ``margin``" (non-inferiority)."""
        if not relative:
            return combination_p(*self.combined(self.values, self.side_weights), beyond=margin)
        return self._beyond(margin, 1)

    def _beyond(self, share: float, sign: int) -> float:
        """One-sided: ``sign`` × (difference - ``share`` of the size of the last side's mean) is below 0 (Fieller 1954).

        A metric where more is better is tested by its negative, so the means may be below 0.
        """
        times = 1 + share if math.fsum(self.values[-1]) >= 0 else 1 - share
        return combination_p(*self.combined(self.values, [sign, -sign * times]), beyond=0.0)


def sides_of(item: Primary, cells: Mapping[tuple[str, str], CellRuns], spec: StudySpec) -> list[Side]:
    """The cells that a comparison is about, with their weights."""
    if item.family == "trend":
        levels = spec.levels
        middle = (len(levels) - 1) / 2
        total = math.fsum((i - middle) ** 2 for i in range(len(levels)))
        return [Side(cells[item.condition, level], (i - middle) / total) for i, level in enumerate(levels)]
    cell = cells[item.condition, item.level]
    if item.family == "depth":
        return [Side(cell, 1), Side(cells[item.condition, spec.reference_level], -1)]
    assert item.against is not None, "the specification was checked"
    other = cells[item.against, item.against_level or item.level]
    if item.family == "interaction":
        reference = spec.reference_level
        mine, theirs = cells[item.condition, reference], cells[item.against, reference]
        return [Side(cell, 1), Side(mine, -1), Side(other, -1), Side(theirs, 1)]
    return [Side(cell, 1), Side(other, -1)]


def first_level(spec: StudySpec, looks: int | None = None) -> tuple[float, float]:
    """What the smallest p-value of a difference, and of an equivalence, is held against at analysis ``looks``."""
    comparisons = max(len(spec.primary), 1)
    asked = sum(asks_equivalence(item, spec) for item in spec.primary)
    difference, equivalence = shares(comparisons, asked)
    level = LEVEL / spending(spec.looks if looks is None else looks, spec.max_looks)
    return level * difference / comparisons, level * equivalence / max(1, min(asked, comparisons - 1))


def asks_equivalence(item: Primary, spec: StudySpec) -> bool:
    """Whether a comparison may be told to be equivalent. A mean over data sets may not: a gain on one hides a loss on
    another."""
    together = item.condition in spec.combined
    return item.family not in ("trend", "interaction") and item.aim == "difference" and not together


def design_of(item: Primary, spec: StudySpec) -> Design:
    """Paired by seed, if all sides share their seeds and the exact test of so many pairs can reach the first step.

    The rule needs the plan alone. Runs of the same seed share their initial draws and the order of their
    images, so pairing removes what they have in common; but n pairs have 2^n arrangements, and n against n
    runs have C(2n, n). A trend is tested unpaired.
    """
    if item.family == "trend":
        return "unpaired"
    conditions = {item.condition, item.against or item.condition}
    seeds = {frozenset(spec.seeds_for(name)) for name in conditions}
    level = first_level(spec)[0]
    pairs = len(next(iter(seeds))) if len(seeds) == 1 else 0
    if pairs and smallest_p(pairs, "paired") <= level:
        return "paired"
    return "paired within conditions" if item.family == "interaction" else "unpaired"


def samples_of(item: Primary, sides: Sequence[Side], value: Value, spec: StudySpec) -> Samples:
    """The numbers of a comparison; runs without a value are left out."""
    design = design_of(item, spec)
    runs = [tuple(run for run in side.cell.runs if value(run) is not None) for side in sides]
    left_out: set[int] = set()
    groups = {"paired": [range(len(sides))], "paired within conditions": [range(2), range(2, 4)]}.get(design, [])
    for group in groups:
        shared = set.intersection(*({run.seed for run in runs[i]} for i in group))
        left_out |= {run.seed for i in group for run in runs[i]} - shared
        for i in group:
            runs[i] = tuple(run for run in runs[i] if run.seed in shared)
    values = tuple(tuple(v for run in side if (v := value(run)) is not None) for side in runs)
    scores = tuple(float(i) for i in range(len(sides))) if item.family == "trend" else None
    return Samples(design, tuple(runs), values, tuple(s.weight for s in sides), tuple(sorted(left_out)), scores)
