"""A cell against another: the exact test, the interval, and the label that follows from both.

A level, such as a depth, is compared with the reference level, unpaired; the best of the others may not be
tested, because the same data chose it. Residual and plain at the same level share their seeds, and
are compared pair by pair. So are two training conditions (the family ``condition``), by their validation error.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from netdepth.errors import BadInput
from netdepth.stats.exact import Design, holm, permutation_test, seeds_to_reach, sign_flip_test, smallest_p
from netdepth.stats.intervals import Estimate, difference_interval, mean_interval, seeds_needed
from netdepth.studies.cells import CellRun, CellRuns, val_errors
from netdepth.studyspec import Family, Primary, StudySpec
from netdepth.text import p_value

__all__ = [
    "DESIGNS", "LABELS", "LEVEL", "POWER", "Cause", "CellVerdict", "Contrast", "Harm", "Label", "by_condition",
    "contrasts_of", "judge_cell", "out_of_reach", "pairs",
]  # fmt: skip

LEVEL = 0.025
"""Of each of the two families; together 0.05."""

POWER = 0.8
"""The probability with which the seeds that an undecided comparison asks for would decide it."""

DESIGNS: dict[Family, Design] = {"depth": "unpaired", "shortcut": "paired", "condition": "paired"}

Label = Literal[
    "exploded", "vanished", "degraded", "helps", "no_evidence", "undecided", "exploratory", "reference", "not judged"
]
LABELS: tuple[Label, ...] = get_args(Label)
"""``reference``: the level that the others are compared with. ``exploratory``: not named
beforehand, claims nothing. ``not judged``: the study may stop its runs early, so their budgets differ."""

Cause = Literal["explosion", "vanishing", "stuck", "mixed", "optimisation", "overfitting"]
"""Why a net is worse. ``stuck``: at chance, and no vanishing gradient was measured. ``mixed``: some of its
runs, less than half, exploded or stayed at chance. ``optimisation``: none of these, it fits its own training
data worse (degradation, He et al. 2016). ``overfitting``: only its validation error is worse."""

Harm = Literal["training", "validation only"]


@dataclass(frozen=True)
class Contrast:
    """``cell`` against ``against``: ``difference`` is its mean capped training loss minus the other's, in nats; in the
    family ``condition`` ``means``, ``difference``, ``ratio`` and ``p`` are of the validation error (fractions).

    A negative difference is in favour of ``cell``. ``runs`` are the tested runs of the two cells,
    pair by pair where the design is paired; ``left_out`` are the seeds of pairs without a partner.
    ``p`` is of the exact test of the difference, ``corrected_p`` Holm's (None: exploratory). The same
    of the validation error (fractions) under ``val_…``, corrected apart: a second question.
    """

    family: Family
    primary: bool
    cell: CellRuns
    against: CellRuns
    runs: tuple[tuple[CellRun, ...], tuple[CellRun, ...]]
    left_out: tuple[int, ...]
    means: tuple[float | None, float | None]
    difference: Estimate
    ratio: Estimate
    p: float
    test: str
    val_means: tuple[float | None, float | None]
    val_difference: Estimate
    val_p: float | None
    corrected_p: float | None = None
    val_corrected_p: float | None = None
    label: Label = "exploratory"
    cause: Cause | None = None
    harm: Harm | None = None
    more_seeds: int | None = None
    """What an undecided comparison needs, with probability 0.8 if differences and scatter are as measured."""

    @property
    def worse(self) -> CellRuns:
        """The cell with the higher mean."""
        return self.against if (self.difference.value or 0) < 0 else self.cell


@dataclass(frozen=True)
class CellVerdict:
    """What became of one condition at one level, and the comparison that judged it (None: nothing to compare with)."""

    cell: CellRuns
    label: Label
    cause: Cause | None = None
    harm: Harm | None = None
    contrast: Contrast | None = None


def contrasts_of(cells: Mapping[tuple[str, str], CellRuns], spec: StudySpec) -> list[Contrast]:
    """Every comparison: per family the primary ones, then the same questions at the other places of the grid."""
    unknown = next((item.family for item in spec.primary if item.family not in DESIGNS), None)
    if unknown is not None:
        raise BadInput(f"comparisons of the family {unknown!r} are not judged yet")
    found = []
    for family in DESIGNS:
        primary = [item for item in spec.primary if item.family == family]
        tested = [_contrast(item, cells, spec, primary=True) for item in primary]
        corrected = holm([contrast.p for contrast in tested], spec.looks)
        validation = holm([contrast.val_p for contrast in tested if contrast.val_p is not None], spec.looks)
        for contrast, p, val_p in zip(tested, corrected, validation, strict=True):
            found.append(
                _judge(dataclasses.replace(contrast, corrected_p=p, val_corrected_p=val_p), len(primary), spec)
            )
        if family == "depth":
            asked = [Primary(family, level, name) for name in spec.conditions for level in spec.other_levels]
        else:
            twins = dict.fromkeys((item.condition, item.against) for item in primary)
            asked = [Primary(family, level, name, against) for name, against in twins for level in spec.levels]
        found += [_contrast(item, cells, spec, primary=False) for item in asked if item not in primary]
    return found


def judge_cell(cell: CellRuns, contrast: Contrast | None, spec: StudySpec) -> CellVerdict:
    """Exploded and vanished are seen in the runs; degraded and helps need the test of ``contrast``."""
    if spec.early_stopping:
        return CellVerdict(cell, "not judged")
    if cell.fate == "exploded":
        return CellVerdict(cell, "exploded", "explosion", "training")
    if cell.fate == "vanished":
        return CellVerdict(cell, "vanished", "vanishing", "training")
    if contrast is None:
        return CellVerdict(cell, "reference")
    return CellVerdict(cell, contrast.label, contrast.cause, contrast.harm, contrast)


def by_condition(cells: Iterable[CellVerdict]) -> dict[str, list[CellVerdict]]:
    """The cells of each condition, by the order of the levels."""
    found: dict[str, list[CellVerdict]] = {}
    for item in cells:
        found.setdefault(item.cell.condition, []).append(item)
    return found


def pairs(contrasts: Iterable[Contrast], spec: StudySpec) -> list[tuple[Contrast, ...]]:
    """The comparisons named before the runs of each two conditions, by the order of the levels."""
    found: dict[tuple[str, str], list[Contrast]] = {}
    for contrast in contrasts:
        if contrast.family != "depth" and contrast.primary:
            found.setdefault((contrast.cell.condition, contrast.against.condition), []).append(contrast)
    order = {level: index for index, level in enumerate(spec.levels)}
    return [tuple(sorted(pair, key=lambda contrast: order[contrast.cell.level])) for pair in found.values()]


def out_of_reach(spec: StudySpec) -> list[str]:
    """What the planned seeds cannot show, for any results: a line per family, known before the first run."""
    lines = []
    for family in DESIGNS:
        count = sum(item.family == family for item in spec.primary)
        design, n = DESIGNS[family], len(spec.seeds)
        best = smallest_p(n, design) * count * spec.looks
        if best > LEVEL:
            lines.append(
                f"{n} seeds cannot decide the {count} {design} comparison{'s' * (count > 1)} of the family {family!r}: "
                f"the smallest corrected p they can give is {p_value(min(1.0, best))}, above {LEVEL}; "
                f"{seeds_to_reach(LEVEL, count, design, spec.looks)} seeds can"
            )
    return lines


def _contrast(item: Primary, cells: Mapping[tuple[str, str], CellRuns], spec: StudySpec, primary: bool) -> Contrast:
    cell = cells[item.condition, item.level]
    within = item.against is None
    against = cells[item.condition, spec.reference_level] if within else cells[item.against or "", item.level]
    left, right = cell.runs, against.runs
    left_out: tuple[int, ...] = ()
    paired = DESIGNS[item.family] == "paired"
    if paired:
        shared = {run.seed for run in left} & {run.seed for run in right}
        left_out = tuple(sorted({run.seed for run in (*left, *right)} - shared))
        left, right = (tuple(run for run in runs if run.seed in shared) for runs in (left, right))
    (a, b), (val_a, val_b) = _judged(item.family, left, right), (val_errors(left), val_errors(right))
    p, test = _test(a, b, paired)
    return Contrast(
        family=item.family,
        primary=primary,
        cell=cell,
        against=against,
        runs=(left, right),
        left_out=left_out,
        means=(mean_interval(a).value, mean_interval(b).value),
        difference=_difference(a, b, paired),
        ratio=_ratio(a, b, paired),
        p=p,
        test=test,
        val_means=(mean_interval(val_a).value, mean_interval(val_b).value),
        val_difference=_difference(val_a, val_b, paired),
        val_p=_test(val_a, val_b, paired)[0] if primary else None,
    )


def _judged(family: Family, left: Sequence[CellRun], right: Sequence[CellRun]) -> tuple[list[float], list[float]]:
    """What a comparison is decided by, per run of either side."""
    if family == "condition":
        return val_errors(left), val_errors(right)
    return [run.capped for run in left], [run.capped for run in right]


def _test(a: Sequence[float], b: Sequence[float], paired: bool) -> tuple[float, str]:
    """The exact p-value and the name of the test; without values there is no evidence, so p = 1."""
    if not a or not b:
        return 1.0, "none: no value"
    found = sign_flip_test([x - y for x, y in zip(a, b, strict=True)]) if paired else permutation_test(a, b)
    return found.p, found.method


def _difference(a: Sequence[float], b: Sequence[float], paired: bool) -> Estimate:
    if not paired:
        return difference_interval(a, b)
    found = mean_interval([x - y for x, y in zip(a, b, strict=True)])
    return dataclasses.replace(found, statistic="mean of paired differences")


def _ratio(a: Sequence[float], b: Sequence[float], paired: bool) -> Estimate:
    """The ratio of the geometric means; a loss of exactly 0 has none."""
    name = "ratio of geometric means"
    if min((*a, *b), default=1.0) <= 0:
        return Estimate(name, None, None, None, 0.95, min(len(a), len(b)), "none: a loss of 0")
    if not paired:
        return difference_interval(a, b, scale="log")
    return dataclasses.replace(mean_interval([x / y for x, y in zip(a, b, strict=True)], scale="log"), statistic=name)


def _judge(contrast: Contrast, comparisons: int, spec: StudySpec) -> Contrast:
    """A primary contrast with its label, cause and harm; ``comparisons`` share its family."""
    found = contrast.difference
    label: Label = "undecided"
    if contrast.corrected_p is not None and contrast.corrected_p <= LEVEL:
        label = "helps" if (found.value or 0) < 0 else "degraded"
    elif found.low is not None and found.high is not None and max(-found.low, found.high) <= spec.smallest_effect:
        label = "no_evidence"
    more = _more_seeds(contrast, comparisons, spec) if label == "undecided" else None
    if contrast.family == "condition":
        return dataclasses.replace(contrast, label=label, more_seeds=more)
    cause: Cause | None = None
    if label in ("helps", "degraded"):
        cause = _cause(contrast.worse)
        if cause == "optimisation" and contrast.family == "depth" and label == "helps":
            cause = None  # a shallow net that fits less than a deep one is small, not badly trained
    harm: Harm | None = "training" if label == "degraded" else None
    val_worse = (contrast.val_difference.value or 0) > 0 and (contrast.val_corrected_p or 0) <= LEVEL
    if val_worse and label in ("helps", "no_evidence"):
        harm, cause = "validation only", cause or "overfitting"
    return dataclasses.replace(contrast, label=label, cause=cause, harm=harm, more_seeds=more)


def _cause(cell: CellRuns) -> Cause:
    """Why a cell that trains worse does."""
    causes: dict[str | None, Cause] = {"exploded": "explosion", "vanished": "vanishing", "at chance": "stuck"}
    if cell.fate is None and any(run.kind != "trained" for run in cell.runs):
        return "mixed"
    return causes.get(cell.fate, "optimisation")


def _more_seeds(contrast: Contrast, comparisons: int, spec: StudySpec) -> int | None:
    """How many more seeds an undecided comparison needs; None if a thousand would not do.

    Either enough seeds to find the difference as measured, in Holm's strictest step and with one more interim
    analysis; or enough for the interval to lie inside ± smallest_effect; whichever is fewer. It is an estimate:
    difference and scatter are themselves estimated.
    """
    design, looks = DESIGNS[contrast.family], spec.looks + 1
    reach = seeds_to_reach(LEVEL, comparisons, design, looks)
    a, b = _judged(contrast.family, *contrast.runs)
    now = min(len(a), len(b))
    if now < 2:
        return max(reach - now, 1)
    samples = [[x - y for x, y in zip(a, b, strict=True)]] if design == "paired" else [a, b]
    variances = [statistics.variance(sample) for sample in samples]
    size = abs(contrast.difference.value or 0.0)
    needed = []
    if size > 0:
        find = seeds_needed(size, variances, LEVEL / comparisons / looks, POWER)
        needed += [max(find, reach)] if find is not None else []
    if size < spec.smallest_effect:
        narrow = seeds_needed(spec.smallest_effect - size, variances, 0.05, POWER)
        needed += [narrow] if narrow is not None else []
    return max(min(needed) - now, 1) if needed else None
