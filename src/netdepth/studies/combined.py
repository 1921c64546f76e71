"""Several data sets judged together: the runs with one seed on all of them count as one run, which has their means."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from netdepth.studies.cells import CellRun, CellRuns, Kind
from netdepth.studyspec import StudySpec

__all__ = ["combined_cells"]


def combined_cells(cells: Mapping[tuple[str, str], CellRuns], spec: StudySpec) -> dict[tuple[str, str], CellRuns]:
    """The cells of the combined conditions of ``spec`` (`StudySpec.combined`); none where nothing is combined."""
    found = {}
    for name, parts in spec.combined.items():
        for level in spec.levels:
            by_part = [{run.seed: run for run in cells[part, level].runs} for part in parts]
            shared = sorted(set.intersection(*map(set, by_part)))
            means = tuple(_mean_run([runs[seed] for runs in by_part]) for seed in shared)
            names = name, spec.label_of(name), level, spec.place(level), spec.where(level)
            found[name, level] = CellRuns(*names, cells[parts[0], level].scale, means, ())
    return found


def _mean_run(parts: Sequence[CellRun]) -> CellRun:
    """The runs with one seed on several data sets as one: the means of their values; it failed if one of them did."""

    def mean(values: Iterable[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return math.fsum(known) / len(known) if len(known) == len(parts) else None

    kinds: tuple[Kind, ...] = ("exploded", "vanished", "at chance")
    return CellRun(
        run=" + ".join(part.run for part in parts),
        folder=" + ".join(part.folder for part in parts),
        seed=parts[0].seed,
        status=next((part.status for part in parts if part.status != "completed"), "completed"),
        loss=math.fsum(part.loss for part in parts) / len(parts),
        capped=math.fsum(part.capped for part in parts) / len(parts),
        val_error=mean(part.val_error for part in parts),
        val_loss=mean(part.val_loss for part in parts),
        gradient_ratio=None,
        kind=next((kind for kind in kinds if any(part.kind == kind for part in parts)), "trained"),
        metric=mean(part.metric for part in parts),
        parts=tuple(parts),
    )
