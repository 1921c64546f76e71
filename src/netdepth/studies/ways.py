"""What a study of ways of training says, in plain words: who wins by validation error."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from netdepth.studies.cells import CellRuns, Scale
from netdepth.studies.contrasts import Contrast
from netdepth.studies.phrases import (
    WAYS,
    Sentence,
    fields_used,
    folders_of,
    more_seeds,
    number,
    p_value,
    percent,
    points,
    versus,
)

if TYPE_CHECKING:
    from netdepth.studies.verdict import CellVerdict

__all__ = ["of_way", "of_ways"]


def of_way(contrast: Contrast, smallest_effect: float, looks: int) -> str:
    """The outcome of one way of training against another, by validation error."""
    left, right = contrast.runs
    if not left or not right:
        return f"{versus(contrast)}: {WAYS[contrast.label]}; there are no runs to compare."
    difference, pairs = contrast.difference, len(left)
    text = (
        f"{versus(contrast)}: {WAYS[contrast.label]}. Mean validation error {percent(contrast.means[0])} against "
        f"{percent(contrast.means[1])}, difference {points(difference.value)} percentage points"
    )
    if difference.low is not None and difference.high is not None:
        text += f" [{points(difference.low)}, {points(difference.high)}] (95 % interval)"
    text += f", n = {pairs} pair{'s' * (pairs > 1)} of runs by seed; "
    if contrast.corrected_p is None:
        text += f"p {p_value(contrast.p)}, not corrected ({contrast.test}): exploratory, it claims nothing."
    else:
        times = f" and for {looks} looks" if looks > 1 else ""
        text += f"p {p_value(contrast.corrected_p)}, corrected by Holm's method{times} ({contrast.test})."
    if contrast.label == "no_evidence":
        effect = points(smallest_effect).lstrip("+")
        text += f" The interval lies inside ± {effect} percentage points, the smallest effect of interest."
    if contrast.label == "undecided":
        text += f" {more_seeds(contrast)}."
    if contrast.left_out:
        text += f" Left out, for want of a partner: seed {', '.join(map(str, contrast.left_out))}."
    return text


def of_ways(cells: Iterable[CellVerdict], scale: Scale, fields: Mapping[str, str]) -> list[Sentence]:
    """What each way of training reached, also against guessing all classes alike: a sentence per condition."""
    conditions: dict[str, list[CellRuns]] = {}
    for item in cells:
        conditions.setdefault(item.cell.condition, []).append(item.cell)
    made = []
    for name, found in conditions.items():
        parts = []
        for cell in found:
            error, n = cell.val_error, len(cell.runs)
            interval = (
                "" if error.low is None or error.high is None else f" [{percent(error.low)}, {percent(error.high)}]"
            )
            place = f" at depth {cell.depth}" if len(found) > 1 else ""
            above = "unknown" if error.value is None else f"{100 * (1 - 1 / scale.classes - error.value):.1f}"
            reached = (
                f"validation error {percent(error.value)}{interval}, {above} percentage points below that of guessing, "
                f"training loss {number(cell.loss.value)} nats"
            )
            parts.append(f"{reached}, {n} run{'s' * (n != 1)}{place}" if n else f"no finished run{place}")
        made.append(Sentence(f"{name}: {'; '.join(parts)}.", folders_of(found), fields_used(fields)))
    return made
