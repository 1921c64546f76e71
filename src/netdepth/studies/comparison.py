"""What is known of a comparison: its numbers, tests and label, and what its claim is consistent with."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from netdepth.stats.family import Corrected, Question
from netdepth.stats.intervals import Estimate, failure_rate_not_excluded
from netdepth.studies.cells import CellRun, CellRuns
from netdepth.studies.samples import LEVEL, Design, Samples
from netdepth.studyspec import Family, Primary

__all__ = [
    "CLAIMS", "LABELS", "WORSE", "Cause", "CellVerdict", "Contrast", "Explanation", "Failures", "Harm", "Isolated",
    "Label", "Others", "Tests",
]  # fmt: skip

Label = Literal[
    "exploded", "vanished", "at chance", "degraded", "helps", "equivalent", "not worse", "undecided", "exploratory",
    "reference", "not judged",
]  # fmt: skip
LABELS: tuple[Label, ...] = get_args(Label)
"""``exploded``, ``vanished``, ``at chance``: worse, and more of its runs fail, mostly in this way. ``degraded``: worse.
``helps``: better. ``equivalent``: the difference is inside ± the smallest effect. ``not worse``: at most by its margin.
``reference``: what the others are compared with. ``exploratory``: not named beforehand, claims nothing.
``not judged``: the study may stop its runs early, so their budgets differ."""

CLAIMS: tuple[Label, ...] = ("exploded", "vanished", "at chance", "degraded", "helps", "equivalent", "not worse")
"""The labels that say something; of each study at most one in twenty says anything false."""

WORSE: tuple[Label, ...] = ("exploded", "vanished", "at chance", "degraded")

Harm = Literal["training", "validation only"]

Cause = Literal["explosion", "vanishing", "stuck", "instability", "optimisation", "overfitting"]
"""What a worse network is consistent with. ``stuck``: at chance, no vanishing gradient was measured. ``instability``:
some of its runs fail, too few to say that more of them do. ``optimisation``: none fails, it fits its own training
data worse (degradation, He et al. 2016). ``overfitting``: only its validation error is worse."""


@dataclass(frozen=True)
class Others:
    """The comparison without the runs that failed: the ``n`` runs of the cell that trained, their mean loss and that of
    the other side (nats), and the p-value, uncorrected because this was not planned."""

    n: int
    mean: float | None
    against_mean: float | None
    p: float


@dataclass(frozen=True)
class Isolated:
    """A planned comparison of two cells that differ in ``setting`` alone found the one with ``value`` better than that
    with ``other``, at the corrected ``p``."""

    setting: str
    value: str
    other: str
    p: float


@dataclass(frozen=True)
class Explanation:
    """What a claim is consistent with (`netdepth.studies.causes`)."""

    cause: Cause
    others: Others | None = None
    isolated: Isolated | None = None


@dataclass(frozen=True)
class Tests:
    """The exact test and the t test of a difference. ``p`` is the larger p-value: a claim needs both."""

    exact_p: float
    exact: str
    t_p: float
    t: str

    @property
    def p(self) -> float:
        """What is corrected."""
        return max(self.exact_p, self.t_p)


@dataclass(frozen=True)
class Failures:
    """How many runs of ``cell`` and of ``against`` exploded or stayed at chance, of how many, and Fisher's p-value."""

    failed: int
    runs: int
    against_failed: int
    against_runs: int
    p: float

    @property
    def excess(self) -> float:
        """The failure rate of ``cell`` minus the other's."""
        return self.failed / max(self.runs, 1) - self.against_failed / max(self.against_runs, 1)


@dataclass(frozen=True)
class Contrast:
    """``cell`` against ``against``: ``difference`` is the mean of what is judged (see `unit`) minus the other's.

    Less is better: of a metric where more is better, the tested values are its negative. A negative difference is
    in favour of ``cell``. In the family ``trend`` it is the slope per level, in ``interaction`` the difference of two
    differences; there ``means`` has one value per side, as ``runs`` has.

    ``tests`` are of the difference, ``equivalence_p`` and ``overfitting_p`` of those questions (None: not asked),
    ``failures`` the counts of failed runs and of all, with Fisher's p-value. ``corrected`` has the corrected p-value of
    each question (empty: exploratory), ``difference_corrected`` the interval at the level of its test.
    """

    item: Primary
    primary: bool
    cell: CellRuns
    against: CellRuns
    samples: Samples
    means: tuple[float | None, ...]
    difference: Estimate
    tests: Tests
    failures: Failures
    equivalence_p: float | None
    overfitting_p: float | None
    val_means: tuple[float | None, float | None]
    val_difference: Estimate
    gap_difference: Estimate
    corrected: Mapping[Question, Corrected] = dataclasses.field(default_factory=dict)
    difference_corrected: Estimate | None = None
    label: Label = "exploratory"
    harm: Harm | None = None
    explanation: Explanation | None = None
    higher: bool = False
    """Whether more is better of what is judged; see `own`."""
    by_data_set: tuple[tuple[str, Estimate], ...] = ()
    """Of several data sets together the difference in each, in the unit of the mean."""

    @property
    def family(self) -> Family:
        """What is compared."""
        return self.item.family

    @property
    def design(self) -> Design:
        """Whether the runs are paired by seed."""
        return self.samples.design

    @property
    def runs(self) -> tuple[tuple[CellRun, ...], ...]:
        """The tested runs of each side."""
        return self.samples.runs

    @property
    def left_out(self) -> tuple[int, ...]:
        """The seeds of pairs without a partner."""
        return self.samples.left_out

    @property
    def corrected_p(self) -> float | None:
        """Of the difference."""
        return self.p_of("difference")

    @property
    def failure_rate_not_excluded(self) -> float:
        """The largest failure rate that runs without a failure do not exclude, of the smaller cell."""
        return failure_rate_not_excluded(min(map(len, self.runs)))

    @property
    def cause(self) -> Cause | None:
        """What its claim is consistent with."""
        return None if self.explanation is None else self.explanation.cause

    @property
    def worse(self) -> CellRuns:
        """The cell with the higher mean."""
        return self.against if (self.difference.value or 0) < 0 else self.cell

    @property
    def explained_cell(self) -> CellRuns:
        """The cell that the explanation is about: the one that overfits, else the one with the higher mean."""
        return self.cell if self.harm == "validation only" else self.worse

    @property
    def own_means(self) -> tuple[float | None, ...]:
        """The means of the sides, in the metric's own direction."""
        return tuple(None if mean is None else -mean if self.higher else mean for mean in self.means)

    @property
    def agreeing(self) -> tuple[str, ...]:
        """The data sets whose difference has the direction of their mean."""
        mean = self.difference.value or 0.0
        return tuple(name for name, estimate in self.by_data_set if (estimate.value or 0.0) * mean > 0)

    @property
    def apart(self) -> tuple[str, str] | None:
        """The data sets with the smallest and the largest difference, if their 95 % intervals do not overlap."""
        known = [(e.low, e.high, name) for name, e in self.by_data_set if e.low is not None and e.high is not None]
        if not known:
            return None
        (_, end, smallest), (start, _, largest) = min(known, key=lambda it: it[1]), max(known, key=lambda it: it[0])
        return (smallest, largest) if end < start else None

    @property
    def contradictory(self) -> bool:
        """Whether the 95 % interval of one data set lies below 0 and that of another above."""
        estimates = [estimate for _, estimate in self.by_data_set]
        below = any(estimate.high is not None and estimate.high < 0 for estimate in estimates)
        return below and any(estimate.low is not None and estimate.low > 0 for estimate in estimates)

    def own(self, estimate: Estimate) -> Estimate:
        """An estimate of what was tested, in the metric's own direction."""
        if not self.higher:
            return estimate
        value, low, high = (None if end is None else -end for end in (estimate.value, estimate.high, estimate.low))
        return dataclasses.replace(estimate, value=value, low=low, high=high)

    def p_of(self, question: Question) -> float | None:
        """The corrected p-value of a question; None where it was not tested."""
        found = self.corrected.get(question)
        return None if found is None else found.p

    def claims(self, question: Question) -> bool:
        """Whether the study claims it."""
        p = self.p_of(question)
        return p is not None and p <= LEVEL


@dataclass(frozen=True)
class CellVerdict:
    """What became of one condition at one level, and the comparison that judged it (None: nothing to compare with)."""

    cell: CellRuns
    label: Label
    harm: Harm | None = None
    contrast: Contrast | None = None

    @property
    def cause(self) -> Cause | None:
        """What a claim about this cell is consistent with."""
        return None if self.contrast is None else self.contrast.cause
