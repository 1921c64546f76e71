"""Several data sets judged together: the runs with one seed on all of them count as one run, which has their means.

A loss is divided by that of guessing on its data set first; a fraction, such as an accuracy, stays as it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from netdepth.studies.cells import CellRun, CellRuns, Kind, Scale
from netdepth.studyspec import StudySpec

__all__ = ["combined_cells"]


def combined_cells(cells: Mapping[tuple[str, str], CellRuns], spec: StudySpec) -> dict[tuple[str, str], CellRuns]:
    """The cells of the combined conditions of ``spec`` (`StudySpec.combined`); none where nothing is combined."""
    found = {}
    for name, parts in spec.combined.items():
        for level in spec.levels:
            own = [cells[part, level] for part in parts]
            by_part = [{run.seed: run for run in cell.runs} for cell in own]
            shared = sorted(set.intersection(*map(set, by_part)))
            chances = [cell.scale.chance for cell in own]
            means = tuple(_mean_run([runs[seed] for runs in by_part], chances, spec.metric) for seed in shared)
            names = name, spec.label_of(name), level, spec.place(level), spec.where(level)
            named = tuple(zip(spec.data_sets, own, strict=True))
            found[name, level] = CellRuns(*names, Scale(0, 1.0, 1.0, shared=True), means, (), named)
    return found


def _mean_run(parts: Sequence[CellRun], chances: Sequence[float], metric: str | None) -> CellRun:
    """The runs with one seed on several data sets (``chances``: the loss of guessing on each) as one."""

    def mean(values: Iterable[float | None], units: Sequence[float]) -> float | None:
        known = [value / unit for value, unit in zip(values, units, strict=True) if value is not None]
        return math.fsum(known) / len(known) if len(known) == len(parts) else None

    ones = [1.0] * len(parts)
    kinds: tuple[Kind, ...] = ("exploded", "vanished", "at chance")
    return CellRun(
        run=" + ".join(part.run for part in parts),
        folder=" + ".join(part.folder for part in parts),
        seed=parts[0].seed,
        status=next((part.status for part in parts if part.status != "completed"), "completed"),
        loss=math.fsum(part.loss / chance for part, chance in zip(parts, chances, strict=True)) / len(parts),
        capped=math.fsum(part.capped / chance for part, chance in zip(parts, chances, strict=True)) / len(parts),
        val_error=mean((part.val_error for part in parts), ones),
        val_loss=mean((part.val_loss for part in parts), chances),
        gradient_ratio=None,
        kind=next((kind for kind in kinds if any(part.kind == kind for part in parts)), "trained"),
        metric=mean((part.metric for part in parts), chances if (metric or "").endswith("_loss") else ones),
        parts=tuple(parts),
    )
