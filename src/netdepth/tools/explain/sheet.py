"""What `explain` shows: contact sheets of pictures beside their maps, the check's curves, and both in words."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from netdepth.report.style import (
    DPI,
    INK,
    MUTED,
    PAPER,
    add_text,
    colour,
    dash,
    figure_of,
    save_png,
    shortened,
    tidy,
)  # fmt: skip
from netdepth.stats.intervals import Estimate
from netdepth.text import capitalised, count, fixed, interval, percent, printable, thousands
from netdepth.tools.explain.examine import ACTS, Act, Check, Examination, Order, heat, spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Cell", "Sheet", "answer_words", "class_sheet", "draw_check", "draw_sheet", "mean_sheet", "picture_sheet"]

METHODS = {
    "cam": "class activation maps (Zhou et al. 2016)",
    "grad-cam": "Grad-CAM (Selvaraju et al. 2017)",
    "saliency": "input gradients (Simonyan et al. 2014)",
}
ENOUGH = 10
"""Pictures from which a conclusion is drawn."""
FIFTH = 0.2

MAX_ROWS = 10
"""Classes that are shown if the user names none."""
RIGHT_CELLS, WRONG_CELLS, GRID_COLUMNS, MEAN_COLUMNS = 4, 2, 4, 5
MAX_GRID = 40
"""Pictures on the sheet of files that the user names."""

SMALL = 64
"""Pixels of a side up to which each is drawn as a square."""
COLOURMAP = "inferno"  # perceptually uniform, and as bright as the map is high
RIGHT, WRONG = "#00714f", "#b34700"  # the green and the vermillion of the other figures, darker to be read as text


# --- in words ---


def answer_words(found: Examination) -> str:
    """What was found, as a paragraph."""
    pictures = found.pictures
    method, n, right = found.evidence.method, len(pictures.inputs), int(found.right.sum())
    sentences = [f"{capitalised(METHODS[method])}, {thousands(n)} {pictures.kind}."]
    if method == "saliency":
        sentences.append(
            "The network has no feature maps. Its gradients show where its prediction is sensitive, which is not the "
            "same as where the evidence lies."
        )
    if bool((pictures.labels >= 0).all()):
        sentences.append(f"{thousands(right)} of {thousands(n)} are classified correctly ({percent(right / n, 1)}).")
    return " ".join([*sentences, *_check_words(found.check, pictures.kind)])


def _check_words(check: Check, kind: str) -> list[str]:
    """What the check found, a sentence each; ``kind`` is what the pictures are ("validation images")."""
    at = check.fractions.index(FIFTH)

    def after(act: Act, order: Order) -> str:
        return fixed(check.curves[act][order][at])

    deletion, insertion = (check.differences[act]["moved"] for act in ACTS)
    sentences = [
        f"If the fifth of the pixels with the most evidence is deleted, the probability of the predicted class falls "
        f"from {fixed(check.curves['deletion']['map'][0])} to {after('deletion', 'map')}. It falls to "
        f"{after('deletion', 'moved')} if the same map is moved to another place, and to "
        f"{after('deletion', 'scattered')} if a random fifth of the pixels is deleted (n = {check.n} {kind}, "
        f"{check.repeats} random maps of each kind per picture).",
        f"If that fifth is inserted into the blurred picture, the probability rises from "
        f"{fixed(check.curves['insertion']['map'][0])} to {after('insertion', 'map')}; with the moved map to "
        f"{after('insertion', 'moved')}, with random pixels to {after('insertion', 'scattered')}.",
        _conclusion(deletion, insertion),
    ]
    areas = check.areas["deletion"]
    if check.n >= ENOUGH and (areas["scattered"].value or 0.0) < (areas["map"].value or 0.0):
        sentences.append(
            "Random pixels do more damage than the map's: they damage the whole picture at once, which says nothing "
            "about where the evidence lies."
        )
    return sentences


def _conclusion(deletion: Estimate, insertion: Estimate) -> str:
    """In words, whether the map's areas differ from those of the moved map; the deletion decides."""
    areas = f"{_difference(deletion)} under the deletion curve and {_difference(insertion)} under the insertion curve"
    against = f"compared with the moved map, the area is {areas}"
    if deletion.n < ENOUGH or deletion.low is None or deletion.high is None:
        few = "one picture is" if deletion.n == 1 else f"{count(deletion.n, 'picture')} are"
        return f"{capitalised(few)} too few to say whether the maps matter ({against})."
    if deletion.high < 0:
        answer = "The maps mark pixels that matter"
    elif deletion.low > 0:
        answer = "The maps mark pixels that matter less than others: do not trust them"
    else:
        answer = "The check does not show that the maps mark pixels that matter"
    return f"{answer}: {against} (95 % interval over pictures)."


def _difference(one: Estimate) -> str:
    """``−0.123 [−0.150, −0.096]``; few pictures have no interval: it would be wider than the possible range."""

    def signed(value: float | None) -> str:
        return "-" if value is None else fixed(value, 3, sign=True)

    ends = interval(one.low, one.high, signed) if one.n >= ENOUGH else ""
    return f"{signed(one.value)} {ends}".rstrip()


# --- the check as a picture ---

ORDER_NAMES: dict[Order, str] = {
    "map": "pixels in the map's order", "moved": "the map in another place", "scattered": "random pixels",
}  # fmt: skip
PANELS: dict[Act, tuple[str, str]] = {
    "deletion": ("pixels deleted (%)", "deletion: lower is better"),
    "insertion": ("pixels inserted (%)", "insertion: higher is better"),
}


def draw_check(title: str, check: Check, path: Path) -> tuple[int, int]:
    """Draw the curves of ``check`` as PNG; returns width and height in pixels.

    Raises:
        StorageError: the file cannot be written.
    """
    width, height = 8.4, 3.6  # inches
    figure, panels = figure_of(width, height, 1, 2, left=0.075, right=0.975, top=0.76, bottom=0.16, wspace=0.16)
    with_band = " with its 95 % interval" if check.n >= ENOUGH else ""
    shares = [100 * fraction for fraction in check.fractions]
    highest = max(max(curve) for curves in check.curves.values() for curve in curves.values())
    for (act, (below, heading)), axes in zip(PANELS.items(), panels, strict=True):
        tidy(axes, heading, below)
        for index, order in enumerate(ORDER_NAMES):
            if check.n >= ENOUGH:
                band = check.bands[act][order]
                axes.fill_between(shares, band["low"], band["high"], color=colour(index), alpha=0.14, linewidth=0)
            axes.plot(shares, check.curves[act][order], color=colour(index), linestyle=dash(index), linewidth=2)
        axes.set_xlim(0, 100)
        axes.set_ylim(0, max(0.05, 1.04 * highest))
    panels[0].set_ylabel("probability of the prediction", fontsize=9.5, color=MUTED)
    figure.legend(panels[0].get_lines(), list(ORDER_NAMES.values()), loc="upper left", bbox_to_anchor=(0.065, 0.915),
                  ncols=3, frameon=False, fontsize=9.5, labelcolor=INK, handlelength=2.6)  # fmt: skip
    figure.text(0.975, 0.945, f"n = {check.n}, mean{with_band}", fontsize=9, color=MUTED, ha="right")
    add_text(figure, 0.075, 0.945, title, size=10.5, color=INK)
    save_png(figure, path)
    return round(width * DPI), round(height * DPI)


# --- contact sheets ---


@dataclass(frozen=True)
class Cell:
    """A ``picture`` uint8 ``[C, H, W]`` (one channel or three), its ``heat`` ``[H, W]`` in 0..1, and a ``caption``.

    ``right``: the prediction is the true class; None where that is unknown.
    """

    picture: Tensor
    heat: Tensor
    caption: str
    right: bool | None = None


@dataclass(frozen=True)
class Sheet:
    """Rows of cells, of which some may be empty, with a name before each row and headings by column.

    ``scale`` says what the colours mean, for the bar below.
    """

    title: str
    subtitle: str
    scale: str
    rows: Sequence[Sequence[Cell | None]]
    names: Sequence[str] = ()
    headings: Mapping[int, str] = field(default_factory=dict)


def class_sheet(found: Examination, names: Sequence[str], shown: Sequence[int], title: str) -> tuple[Sheet, list[int]]:
    """A row per class: correct and wrong predictions, evenly drawn, not selected. Also the pictures' indices."""
    labels, right = found.pictures.labels, found.right
    chosen, row_names = [], []
    for label in shown:
        same = labels == label
        parts = [(same & kind).nonzero()[:, 0].tolist() for kind in (right, ~right)]
        chosen.append([spread(part, most) for part, most in zip(parts, (RIGHT_CELLS, WRONG_CELLS), strict=True)])
        row_names.append(f"{printable(shortened(names[label], 13))}\n{len(parts[0])} of {int(same.sum())} correct")
    indices = [index for parts in chosen for part in parts for index in part]
    cells = dict(zip(indices, _cells(found, names, indices, in_row=True), strict=True))
    width = max(1, *(len(parts[0]) for parts in chosen))
    rows = [
        [*map(cells.get, parts[0]), *[None] * (width - len(parts[0])), *map(cells.get, parts[1] or [-1])]
        for parts in chosen
    ]
    headings = {0: "correct", width: "wrong, and the probability\nof the true class"}
    return _sheet(found, title, rows, row_names, headings), indices


def picture_sheet(found: Examination, names: Sequence[str], title: str) -> tuple[Sheet, list[int]]:
    """Pictures in the order in which the user named them, at most `MAX_GRID`; also their indices."""
    indices = list(range(min(len(found.answers), MAX_GRID)))
    return _sheet(found, title, _grid(_cells(found, names, indices, in_row=False), GRID_COLUMNS)), indices


def mean_sheet(found: Examination, names: Sequence[str], shown: Sequence[int], title: str) -> Sheet | None:
    """Per predicted class the mean picture and the mean map; None if none of ``shown`` was predicted."""
    means = {names[label]: found.means[label] for label in shown if label in found.means}
    cells = [Cell(one.picture.round().byte(), one.map, f"{name}, n = {one.count}") for name, one in means.items()]
    if not cells:
        return None
    subtitle = "per predicted class: the mean picture, and the mean of the maps over it"
    scale = "0 to 1: the mean share of the most evidence in a picture"
    return Sheet(title, subtitle, scale, _grid(cells, MEAN_COLUMNS))


def _sheet(
    found: Examination,
    title: str,
    rows: Sequence[Sequence[Cell | None]],
    row_names: Sequence[str] = (),
    headings: Mapping[int, str] | None = None,
) -> Sheet:
    saliency = found.evidence.method == "saliency"
    drawn = "; correct and wrong predictions evenly drawn" if headings else ""
    subtitle = f"{METHODS[found.evidence.method]}, {thousands(len(found.answers))} {found.pictures.kind}{drawn}"
    scale = "how much the prediction depends on a pixel" if saliency else "evidence for the predicted class"
    return Sheet(title, subtitle, f"{scale}: from none to the most in its picture", rows, row_names, headings or {})


def _grid(cells: Sequence[Cell], columns: int) -> list[Sequence[Cell]]:
    return [cells[start : start + columns] for start in range(0, len(cells), columns)]


def _cells(found: Examination, names: Sequence[str], indices: Sequence[int], *, in_row: bool) -> list[Cell]:
    """A cell for each of ``indices``; ``in_row``: the row names the true class."""
    if not indices:
        return []

    def share(probability: Tensor) -> str:
        return percent(float(probability), 0)

    cells = []
    for index, one in zip(indices, heat(found.maps(indices)), strict=True):
        answer, label = int(found.answers[index]), int(found.pictures.labels[index])
        probabilities = found.probabilities[index]
        caption = f"{names[answer]} {share(probabilities[answer])}"
        right = None if label < 0 else answer == label
        if right is False:
            caption += f", {'true' if in_row else names[label]} {share(probabilities[label])}"
        if not in_row:
            caption = f"{shortened(Path(found.pictures.names[index]).stem, 14)}: {caption}"
        cells.append(Cell(found.pictures.inputs[index], one, caption, right))
    return cells


def draw_sheet(sheet: Sheet, path: Path) -> tuple[int, int]:
    """Write ``sheet`` as PNG to ``path``; returns its width and height in pixels.

    Raises:
        StorageError: the file cannot be written.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

    first = next(cell for row in sheet.rows for cell in row if cell is not None)
    high, wide = first.heat.shape
    inch = (0.8 if max(high, wide) <= SMALL else 1.2) / max(high, wide)
    rows, columns = len(sheet.rows), max(map(len, sheet.rows))
    width = max(columns * (2.05 * wide * inch + 0.15) + (1.2 if sheet.names else 0.2), 4.8)
    height = rows * (high * inch + 0.22) + (1.5 if sheet.headings else 1.15)
    figure = Figure((width, height), DPI, facecolor=PAPER, layout="constrained")
    title = f"{printable(sheet.title)}\n{textwrap.fill(printable(sheet.subtitle), round(14 * width))}"
    figure.suptitle(title, x=0.01, ha="left", fontsize=9, color=INK, parse_math=False)
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes in panels.flat:
        axes.set(xticks=[], yticks=[], frame_on=False)
    for row, line in zip(sheet.rows, panels, strict=True):
        for cell, axes in zip(row, line, strict=False):
            if cell is not None:
                _draw_cell(axes, cell)
    for column, heading in sheet.headings.items():
        panels[0, column].set_title(heading, loc="left", fontsize=8.5, color=INK)
    for axes, name in zip(panels[:, 0], sheet.names, strict=False):
        axes.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=7.5, color=INK, parse_math=False)
    bar = figure.colorbar(
        ScalarMappable(cmap=COLOURMAP), ax=panels, location="bottom", ticks=[], aspect=40, shrink=0.5, pad=0.02
    )
    bar.set_label(sheet.scale, fontsize=7.5, color=MUTED)
    save_png(figure, path, photographs=True)
    return figure.canvas.get_width_height()


def _draw_cell(axes: Axes, cell: Cell) -> None:
    """The picture, and right of it the map over the picture in grey."""
    high, wide = cell.heat.shape
    small = max(high, wide) <= SMALL
    grain: Any = {"interpolation": "nearest" if small else "antialiased"}
    left, right = (0, wide, high, 0), (1.05 * wide, 2.05 * wide, high, 0)
    grey = cell.picture.float().mean(0).numpy()
    axes.imshow(cell.picture.expand(3, -1, -1).permute(1, 2, 0).numpy(), extent=left, **grain)
    axes.imshow(grey, extent=right, cmap="gray", vmin=0, vmax=255, **grain)
    axes.imshow(cell.heat.numpy(), extent=right, cmap=COLOURMAP, vmin=0, vmax=1, alpha=0.6, **grain)
    axes.set(xlim=(0, 2.05 * wide), ylim=(high, 0))
    shade = MUTED if cell.right is None else RIGHT if cell.right else WRONG
    caption = printable(shortened(cell.caption, 28 if small else 42))
    axes.set_xlabel(caption, loc="left", fontsize=7, labelpad=2, color=shade, parse_math=False)
