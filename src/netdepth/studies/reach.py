"""How many seeds a study needs: what the planned ones cannot show, and how many more an undecided comparison takes."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from netdepth.stats.exact import Design, seeds_to_reach, smallest_p
from netdepth.stats.intervals import seeds_needed
from netdepth.studies.contrasts import Contrast
from netdepth.studies.samples import LEVEL, design_of, first_level
from netdepth.studyspec import StudySpec
from netdepth.text import p_value

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
    return [
        f"{n} seeds cannot decide {_some(many, total)}: the smallest "
        f"corrected p of {n} against {n} runs is {p_value(min(1.0, smallest_p(n, design) / level * LEVEL))}, "
        f"above {LEVEL}; {seeds_to_reach(level, design)} seeds can"
        for (n, design), many in short.items()
    ]


def _some(many: int, total: int) -> str:
    if total == 1:
        return "the comparison"
    return f"any of the {total} comparisons" if many == total else f"{many} of the {total} comparisons"


def more_seeds(contrast: Contrast, spec: StudySpec) -> tuple[int | None, bool]:
    """How many seeds more an undecided comparison needs (None if a thousand would not do), and whether this study may
    still get them: if not, the number is of a new study's seeds in all.

    Either enough seeds to find the difference as measured, in the first step of the correction and the next analysis;
    or enough for the interval to lie inside ± smallest_effect; whichever is fewer. It is an estimate:
    difference and scatter are themselves estimated.
    """
    again = spec.max_looks is None or spec.looks < spec.max_looks
    level, same = first_level(spec, spec.looks + 1 if again else 1)
    samples, _ = contrast.samples.combined(contrast.samples.values, contrast.samples.side_weights)
    now = min(map(len, samples), default=0)
    reach = min(seeds_to_reach(level, "paired"), seeds_to_reach(level, "unpaired"))
    spent = now if again else 0
    if now < 2:
        return max(reach - spent, 1), again
    needed = _needed(contrast, samples, level, same, reach, spec)
    return (max(min(needed) - spent, 1) if needed else None), again


def _needed(
    contrast: Contrast, samples: Sequence[Sequence[float]], level: float, same: float, reach: int, spec: StudySpec
) -> list[int]:
    """The seeds that would find the difference, and those that would show that it is small."""
    variances = [statistics.variance(sample) for sample in samples]
    size = abs(contrast.difference.value or 0.0)
    margin = spec.smallest_effect * (abs(contrast.means[1] or 0.0) if spec.effect == "relative" else 1.0)
    needed = []
    if size > 0:
        find = seeds_needed(size, variances, level, POWER)
        needed += [max(find, reach)] if find is not None else []
    if size < margin and contrast.equivalence_p is not None:
        # Two one-sided tests at this level are an interval of twice the level, seen from each end.
        narrow = seeds_needed(margin - size, variances, min(1.0, 2 * same), POWER)
        needed += [narrow] if narrow is not None else []
    return needed
