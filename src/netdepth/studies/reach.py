"""How many seeds a study needs: what the planned ones cannot show, and how many more an undecided comparison takes."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from netdepth.stats.exact import Design, seeds_to_reach, smallest_p
from netdepth.stats.intervals import seeds_needed
from netdepth.studies.comparison import Contrast
from netdepth.studies.samples import LEVEL, design_of, first_level
from netdepth.studyspec import StudySpec
from netdepth.text import count, p_value

__all__ = ["POWER", "more_seeds", "out_of_reach"]

POWER = 0.8
"""The probability with which the seeds that an undecided comparison asks for would decide it."""


def out_of_reach(spec: StudySpec) -> list[str]:
    """What the planned seeds cannot show, for any results, known before the first run."""
    level, _ = first_level(spec)
    short: dict[tuple[int, Design], int] = {}
    for item in spec.primary:
        if item.family == "trend" or item.aim == "not worse":
            continue
        n = min(len(spec.seeds_for(name)) for name in (item.condition, item.against or item.condition))
        design: Design = "paired" if design_of(item, spec) == "paired" else "unpaired"
        if smallest_p(n, design) > level:
            short[n, design] = short.get((n, design), 0) + 1
    total = len(spec.primary)
    beyond = sum(short.values())
    return [
        f"{count(n, 'seed')} "
        f"{_cannot(smallest_p(n, design) <= level * total / beyond, _some(many, total))}: the smallest "
        f"corrected p of {n} against {n} runs is {p_value(min(1.0, smallest_p(n, design) / level * LEVEL))}, "
        f"above {LEVEL}; {seeds_to_reach(level, design)} seeds can"
        for (n, design), many in short.items()
    ]


def _cannot(later: bool, comparisons: str) -> str:
    """Each claim of another comparison makes the next step of the correction easier."""
    return f"can decide {comparisons} only after a claim of others" if later else f"cannot decide {comparisons}"


def _some(many: int, total: int) -> str:
    if total == 1:
        return "the comparison"
    return f"any of the {total} comparisons" if many == total else f"{many} of the {total} comparisons"


def more_seeds(contrast: Contrast, spec: StudySpec) -> tuple[int | None, bool]:
    """How many seeds more an undecided comparison needs (None if a thousand would not do), and whether this study may
    still get them: if not, the number is of a new study's seeds in all.

    Either enough seeds to find the difference as measured, in the first step of the correction and the next analysis;
    or enough for the interval to lie inside ± smallest_effect, or below the margin of "not worse"; whichever is fewer.
    It is an estimate: difference and scatter are themselves estimated.
    """
    again = spec.max_looks is None or spec.looks < spec.max_looks
    level, same = first_level(spec, spec.looks + 1 if again else 1)
    samples, weights = contrast.samples.combined(contrast.samples.values, contrast.samples.side_weights)
    now = min(map(len, samples), default=0)
    reach = min(seeds_to_reach(level, "paired"), seeds_to_reach(level, "unpaired"))
    spent = now if again else 0
    if now < 2:
        return max(reach - spent, 1), again
    variances = [w**2 * statistics.variance(sample) for w, sample in zip(weights, samples, strict=True)]
    needed = _needed(contrast, variances, level, same, reach, spec)
    return (max(min(needed) - spent, 1) if needed else None), again


def _needed(
    contrast: Contrast, variances: Sequence[float], level: float, same: float, reach: int, spec: StudySpec
) -> list[int]:
    """The seeds that would find the difference, and those that would show that it is small."""
    difference, failures = contrast.difference.value or 0.0, contrast.failures
    margin = spec.smallest_effect if contrast.item.margin is None else contrast.item.margin
    margin *= abs(contrast.means[1] or 0.0) if spec.effect == "relative" else 1.0
    needed = []
    # One-sided tests at a level are an interval of twice the level, seen from one end.
    if contrast.item.aim == "not worse":
        if difference < margin and not failures.failed:
            needed.append(seeds_needed(margin - difference, variances, min(1.0, 2 * level), POWER))
        return [n for n in needed if n is not None]
    if difference != 0:
        find = seeds_needed(abs(difference), variances, level, POWER)
        needed.append(find if find is None else max(find, reach))
    failed = failures.failed or failures.against_failed
    if abs(difference) < margin and contrast.equivalence_p is not None and not failed:
        needed.append(seeds_needed(margin - abs(difference), variances, min(1.0, 2 * same), POWER))
    return [n for n in needed if n is not None]
