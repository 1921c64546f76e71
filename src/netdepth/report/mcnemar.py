"""Two ways of training on the same test images: McNemar's exact test of every pair of runs, in a sentence."""

from __future__ import annotations

from dataclasses import dataclass

from netdepth.errors import BadInput
from netdepth.report.data import StudyData
from netdepth.runs.compare import mcnemar_of_runs
from netdepth.runs.folder import RunDir
from netdepth.stats.exact import McNemar
from netdepth.studies.contrasts import Contrast

__all__ = ["Compared", "answers_compared"]

LEVEL = 0.05


@dataclass(frozen=True)
class Compared:
    """A sentence and the numbers of the runs it rests on."""

    text: str
    runs: tuple[int, ...]


def answers_compared(data: StudyData) -> list[Compared]:
    """A sentence per comparison of ways of training that was named beforehand, from the runs' ``predictions.npz``."""
    if data.verdict is None:
        return []
    named = [c for c in data.verdict.contrasts if c.primary and c.family == "condition" and all(c.runs)]
    return [said for contrast in named if (said := _compared(data, contrast)) is not None]


def _compared(data: StudyData, contrast: Contrast) -> Compared | None:
    left, right = contrast.runs
    found: list[McNemar] = []
    for a, b in zip(left, right, strict=True):
        try:
            found.append(mcnemar_of_runs(RunDir(data.study.path / a.folder), RunDir(data.study.path / b.folder)))
        except BadInput:  # a run that diverged has none, a published folder keeps none
            continue
    if not found:
        return None
    better = [item for item in found if item.first > item.second]
    clear = [sum(item.p <= LEVEL for item in some) for some in (better, [i for i in found if i.second > i.first])]
    smallest, largest = min(item.p for item in found), max(item.p for item in found)
    text = (
        f"On the same {found[0].n:,} images, {contrast.cell.condition} is right more often than "
        f"{contrast.against.condition} in {len(better)} of {len(found)} pairs of runs; by McNemar's exact test clearly "
        f"(p <= {LEVEL}) in {clear[0]}, clearly less often in {clear[1]}. Its p-values go from {smallest:.2g} to "
        f"{largest:.2g}."
    )
    return Compared(text, data.numbers(run for runs in contrast.runs for run in runs))
