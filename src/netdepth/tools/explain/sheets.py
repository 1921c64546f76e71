"""What stands on the contact sheets: which pictures, in which rows, under which words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from netdepth.tools.explain.check_picture import METHODS
from netdepth.tools.explain.examine import Examined, heat
from netdepth.tools.explain.sheet import Cell, Sheet, SheetRow, shortened
from netdepth.tools.explain.subjects import spread

__all__ = ["MAX_ROWS", "class_sheet", "mean_sheet", "picture_sheet"]

MAX_ROWS = 10
"""Classes that are shown where none are named."""
RIGHT_CELLS, WRONG_CELLS, GRID_COLUMNS, MEAN_COLUMNS = 4, 2, 4, 5
MAX_GRID = 40
"""Pictures on the sheet of those that a person names."""


def class_sheet(examined: Examined, names: Sequence[str], shown: Sequence[int], title: str) -> tuple[Sheet, list[int]]:
    """A row per class: right answers and wrong ones, evenly drawn, not picked. Also the pictures' places, in order."""
    labels, right = examined.subjects.labels, examined.right
    groups = []
    for label in shown:
        same = labels == label
        found = [(same & kind).nonzero()[:, 0].tolist() for kind in (right, ~right)]
        cells = [spread(one, most) for one, most in zip(found, (RIGHT_CELLS, WRONG_CELLS), strict=True)]
        groups.append((label, cells, int((same & right).sum()), int(same.sum())))
    places = [place for _, cells, _, _ in groups for one in cells for place in one]
    made = dict(zip(places, _cells(examined, names, places, in_row=True), strict=True))
    rows = [
        SheetRow(names[label], f"{good} of {all_} right", [[made[place] for place in one] for one in cells])
        for label, cells, good, all_ in groups
    ]
    headings = ("right answers", "wrong answers, and the true class's share")
    columns = [max(1, *(len(row.groups[group]) for row in rows)) for group in (0, 1)]
    return _sheet(examined, title, columns, headings, rows), places


def picture_sheet(examined: Examined, names: Sequence[str], title: str) -> tuple[Sheet, list[int]]:
    """Pictures in the order in which they were named, at most `MAX_GRID`."""
    places = list(range(min(len(examined.answers), MAX_GRID)))
    cells = _cells(examined, names, places, in_row=False)
    return _sheet(examined, title, (min(GRID_COLUMNS, len(cells)),), ("",), _grid(cells, GRID_COLUMNS)), places


def mean_sheet(examined: Examined, names: Sequence[str], shown: Sequence[int], title: str) -> Sheet | None:
    """Per class the mean picture and the mean map of what was answered with it; None where nothing was."""
    cells = []
    for label in shown:
        if label in examined.means:
            count, picture, mean = examined.means[label]
            cells.append(Cell(picture.round().byte().numpy(), mean.numpy(), f"{names[label]}, n = {count}"))
    if not cells:
        return None
    words = "mean picture, and the mean of the maps over it, of the pictures answered with each class"
    columns = min(MEAN_COLUMNS, len(cells))
    scale = "0 to 1: the mean share of the most evidence in a picture"
    return Sheet(title, words, (columns,), ("",), _grid(cells, MEAN_COLUMNS), scale)


def _sheet(
    examined: Examined, title: str, columns: Sequence[int], headings: Sequence[str], rows: Sequence[SheetRow]
) -> Sheet:
    saliency = examined.evidence.method == "saliency"
    drawn = "; right and wrong answers evenly drawn" if len(headings) > 1 else ""
    scale = "how far the answer hangs on a pixel" if saliency else "evidence for the answer given"
    return Sheet(
        title=title,
        subtitle=f"{METHODS[examined.evidence.method]}, {len(examined.answers):,} {examined.subjects.kind}{drawn}",
        columns=columns,
        headings=headings,
        rows=rows,
        scale=f"{scale}: from none to the most in its picture",
    )


def _grid(cells: Sequence[Cell], columns: int) -> list[SheetRow]:
    return [SheetRow("", "", [cells[start : start + columns]]) for start in range(0, len(cells), columns)]


def _cells(examined: Examined, names: Sequence[str], places: Sequence[int], *, in_row: bool) -> list[Cell]:
    """A cell for each of ``places``; ``in_row``: the row names the true class."""
    if not places:
        return []
    heats = heat(examined.maps(places))
    subjects = examined.subjects
    made = []
    for place, one in zip(places, heats, strict=True):
        answer, label = int(examined.answers[place]), int(subjects.labels[place])
        shares = examined.probabilities[place]
        words = f"{names[answer]} {_percent(shares[answer])}"
        right = None if label < 0 else answer == label
        if right is False:  # in a row of its class the true one need not be named
            words += f", {'true' if in_row else names[label]} {_percent(shares[label])}"
        if not in_row:
            words = f"{shortened(Path(subjects.names[place]).stem, 14)}: {words}"
        made.append(Cell(subjects.inputs[place].numpy(), one.numpy(), words, right))
    return made


def _percent(share: torch.Tensor) -> str:
    return f"{100 * float(share):.0f} %"
