"""What `explain` shows: contact sheets of pictures beside their maps, the check's curves, and both in words.

The pictures of a sheet are put together as one array and laid into the figure unscaled, so that every pixel of a small
picture is a square of equal size; Matplotlib adds the words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
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
from netdepth.text import capitalised, count, interval, percent
from netdepth.tools.explain.examine import ACTS, Act, Check, Examination, Order, heat, spread

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Cell", "Sheet", "SheetRow", "answer_words", "class_sheet", "draw_check", "draw_sheet", "mean_sheet",
           "picture_sheet"]  # fmt: skip

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

TILE = 96
"""About how many pixels the side of a picture has on the sheet."""
MAP_SHARE = 0.6
"""Share of the map's colour in a pixel under the map; the rest is the picture in grey."""
COLOURMAP = "inferno"  # perceptually uniform, and as bright as the map is high
RIGHT, WRONG = "#00714f", "#b34700"  # the green and the vermillion of the other figures, darker to be read as text
EDGE, HEAD, FOOT, CAPTION, GAP, GROUP = 22, 96, 62, 24, 14, 26
"""Pixels: around the sheet, above and below the pictures, under each, between them, between right and wrong."""
TITLE_SIZE, TEXT_SIZE, SMALL_SIZE = 12.0, 8.5, 7.5


# --- in words ---


def answer_words(found: Examination) -> str:
    """What was found, as a paragraph."""
    pictures = found.pictures
    method, n, right = found.evidence.method, len(pictures.inputs), int(found.right.sum())
    sentences = [f"{capitalised(METHODS[method])}, {n:,} {pictures.kind}."]
    if method == "saliency":
        sentences.append(
            "The network has no feature maps. Its gradients show where its prediction is sensitive, which is not the "
            "same as where the evidence lies."
        )
    if bool((pictures.labels >= 0).all()):
        sentences.append(f"{right:,} of {n:,} are classified correctly ({percent(right / n, 1)}).")
    return " ".join([*sentences, *_check_words(found.check, pictures.kind)])


def _check_words(check: Check, kind: str) -> list[str]:
    """What the check found, a sentence each; ``kind`` is what the pictures are ("validation images")."""
    at = check.fractions.index(FIFTH)

    def after(act: Act, order: Order) -> str:
        return f"{check.curves[act][order][at]:.2f}"

    deletion, insertion = (check.differences[act]["moved"] for act in ACTS)
    sentences = [
        f"If the fifth of the pixels with the most evidence is deleted, the probability of the predicted class falls "
        f"from {check.curves['deletion']['map'][0]:.2f} to {after('deletion', 'map')}. It falls to "
        f"{after('deletion', 'moved')} if the same map is moved to another place, and to "
        f"{after('deletion', 'scattered')} if a random fifth of the pixels is deleted (n = {check.n} {kind}, "
        f"{check.repeats} random maps of each kind per picture).",
        f"If that fifth is inserted into the blurred picture, the probability rises from "
        f"{check.curves['insertion']['map'][0]:.2f} to {after('insertion', 'map')}; with the moved map to "
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
        return "-" if value is None else f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")

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


# --- what stands on a contact sheet ---


@dataclass(frozen=True)
class Cell:
    """A ``picture`` uint8 ``[C, H, W]`` (one channel or three), its ``heat`` ``[H, W]`` in 0..1, and a ``caption``.

    ``right``: the prediction is the true class; None where that is unknown.
    """

    picture: np.ndarray
    heat: np.ndarray
    caption: str
    right: bool | None = None


@dataclass(frozen=True)
class SheetRow:
    """A class and its cells, in groups; ``note`` stands small under its name."""

    name: str
    note: str
    groups: Sequence[Sequence[Cell]]


@dataclass(frozen=True)
class Sheet:
    """Rows of cells. ``columns`` is how many cells each group may have, ``headings`` what stands above each.

    ``scale`` says what the colours mean, for the bar below.
    """

    title: str
    subtitle: str
    columns: Sequence[int]
    headings: Sequence[str]
    rows: Sequence[SheetRow]
    scale: str


def class_sheet(found: Examination, names: Sequence[str], shown: Sequence[int], title: str) -> tuple[Sheet, list[int]]:
    """A row per class: correct and wrong predictions, evenly drawn, not selected. Also the pictures' indices."""
    labels, right = found.pictures.labels, found.right
    groups = []
    for label in shown:
        same = labels == label
        parts = [(same & kind).nonzero()[:, 0].tolist() for kind in (right, ~right)]
        chosen = [spread(part, most) for part, most in zip(parts, (RIGHT_CELLS, WRONG_CELLS), strict=True)]
        groups.append((label, chosen, f"{int((same & right).sum())} of {int(same.sum())} correct"))
    indices = [index for _, chosen, _ in groups for part in chosen for index in part]
    cells = dict(zip(indices, _cells(found, names, indices, in_row=True), strict=True))
    rows = [
        SheetRow(names[label], note, [[cells[index] for index in part] for part in chosen])
        for label, chosen, note in groups
    ]
    headings = ("correct", "wrong, and the probability of the true class")
    columns = [max(1, *(len(row.groups[group]) for row in rows)) for group in (0, 1)]
    return _sheet(found, title, columns, headings, rows), indices


def picture_sheet(found: Examination, names: Sequence[str], title: str) -> tuple[Sheet, list[int]]:
    """Pictures in the order in which the user named them, at most `MAX_GRID`; also their indices."""
    indices = list(range(min(len(found.answers), MAX_GRID)))
    cells = _cells(found, names, indices, in_row=False)
    return _sheet(found, title, (min(GRID_COLUMNS, len(cells)),), ("",), _grid(cells, GRID_COLUMNS)), indices


def mean_sheet(found: Examination, names: Sequence[str], shown: Sequence[int], title: str) -> Sheet | None:
    """Per predicted class the mean picture and the mean map; None if none of ``shown`` was predicted."""
    cells = []
    for label in shown:
        if label in found.means:
            mean = found.means[label]
            picture = mean.picture.round().byte().numpy()
            cells.append(Cell(picture, mean.map.numpy(), f"{names[label]}, n = {mean.count}"))
    if not cells:
        return None
    subtitle = "per predicted class: the mean picture, and the mean of the maps over it"
    columns = min(MEAN_COLUMNS, len(cells))
    scale = "0 to 1: the mean share of the most evidence in a picture"
    return Sheet(title, subtitle, (columns,), ("",), _grid(cells, MEAN_COLUMNS), scale)


def _sheet(
    found: Examination, title: str, columns: Sequence[int], headings: Sequence[str], rows: Sequence[SheetRow]
) -> Sheet:
    saliency = found.evidence.method == "saliency"
    drawn = "; correct and wrong predictions evenly drawn" if len(headings) > 1 else ""
    subtitle = f"{METHODS[found.evidence.method]}, {len(found.answers):,} {found.pictures.kind}{drawn}"
    scale = "how much the prediction depends on a pixel" if saliency else "evidence for the predicted class"
    return Sheet(title, subtitle, columns, headings, rows, f"{scale}: from none to the most in its picture")


def _grid(cells: Sequence[Cell], columns: int) -> list[SheetRow]:
    return [SheetRow("", "", [cells[start : start + columns]]) for start in range(0, len(cells), columns)]


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
        cells.append(Cell(found.pictures.inputs[index].numpy(), one.numpy(), caption, right))
    return cells


# --- a contact sheet as a picture ---


def draw_sheet(sheet: Sheet, path: Path) -> tuple[int, int]:
    """Write ``sheet`` as PNG to ``path``; returns its width and height in pixels.

    Raises:
        StorageError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    layout = _Layout(sheet)
    background = [int(PAPER[i : i + 2], 16) for i in (1, 3, 5)]
    canvas = np.full((layout.height, layout.width, 3), background, np.uint8)
    figure = Figure(figsize=(layout.width / DPI, layout.height / DPI), dpi=DPI, facecolor=PAPER)
    for number, row in enumerate(sheet.rows):
        for group, cells in enumerate(row.groups):
            for column, cell in enumerate(cells):
                left, top = layout.cell(number, group, column)
                _put(canvas, cell, left, top, (layout.tile_height, layout.tile_width))
    _put_colour_bar(canvas, layout)
    figure.figimage(canvas)
    _write_texts(figure, sheet, layout)
    save_png(figure, path, photographs=True)
    return layout.width, layout.height


class _Layout:
    """Positions on a sheet, in pixels from its upper left corner."""

    def __init__(self, sheet: Sheet) -> None:
        first = next(cell for row in sheet.rows for group in row.groups for cell in group)
        self.tile_height, self.tile_width = _tile(first.picture.shape[1:])
        self.head = HEAD + (22 if any(sheet.headings) else 0)
        self.pair = 2 * self.tile_width + 2
        self.row_height = self.tile_height + CAPTION + 8
        self.starts = []
        left = EDGE + (132 if any(row.name for row in sheet.rows) else 0)
        for cells in sheet.columns:
            self.starts.append(left)
            left += cells * (self.pair + GAP) - GAP + GROUP
        self.width = max(left - GROUP + EDGE, 560)
        self.height = self.head + len(sheet.rows) * self.row_height + FOOT

    def cell(self, row: int, group: int, column: int) -> tuple[int, int]:
        return self.starts[group] + column * (self.pair + GAP), self.head + row * self.row_height


def _tile(shape: Sequence[int]) -> tuple[int, int]:
    """Height and width on the sheet: a whole multiple of a small picture, a large one made smaller."""
    height, width = shape
    longest = max(height, width)
    if longest <= 1.5 * TILE:
        times = max(1, round(TILE / longest))
        return times * height, times * width
    share = 1.5 * TILE / longest
    return max(1, round(share * height)), max(1, round(share * width))


def _put(canvas: np.ndarray, cell: Cell, left: int, top: int, tile: tuple[int, int]) -> None:
    """The picture, and right of it the map over the picture in grey."""
    from matplotlib import colormaps
    from PIL import Image

    height, width = tile
    pixels = cell.picture.transpose(1, 2, 0)
    pixels = np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else np.ascontiguousarray(pixels[:, :, :3])
    grey = np.asarray(Image.fromarray(pixels).convert("L"), dtype=np.float32)[:, :, None]
    colours = 255 * colormaps[COLOURMAP](cell.heat.clip(0, 1))[:, :, :3]
    over = (MAP_SHARE * colours + (1 - MAP_SHARE) * grey).round().astype(np.uint8)
    kind = Image.Resampling.NEAREST if height >= len(pixels) else Image.Resampling.LANCZOS
    for start, shown in ((left, pixels), (left + width + 2, over)):
        resized = Image.fromarray(shown).resize((width, height), kind)
        canvas[top : top + height, start : start + width] = np.asarray(resized)


def _put_colour_bar(canvas: np.ndarray, layout: _Layout) -> None:
    """The colours from none to most, as they look over a medium grey."""
    from matplotlib import colormaps

    colours = colormaps[COLOURMAP](np.linspace(0, 1, 160))[:, :3]
    over = MAP_SHARE * 255 * colours + (1 - MAP_SHARE) * 127
    top = layout.height - 40
    canvas[top : top + 12, layout.starts[0] : layout.starts[0] + 160] = over.round().astype(np.uint8)


def _write_texts(figure: Figure, sheet: Sheet, layout: _Layout) -> None:
    def text(left: float, top: float, words: str, **style: Any) -> None:
        add_text(figure, left / layout.width, 1 - top / layout.height, words, va="center", **style)

    text(EDGE, 30, shortened(sheet.title, (layout.width - 2 * EDGE) // 12), fontsize=TITLE_SIZE, color=INK)
    text(EDGE, 60, sheet.subtitle, fontsize=TEXT_SIZE, color=MUTED)
    for left, heading in zip(layout.starts, sheet.headings, strict=True):
        text(left, layout.head - 14, heading, fontsize=TEXT_SIZE, color=INK)
    for number, row in enumerate(sheet.rows):
        _, top = layout.cell(number, 0, 0)
        middle, below = top + layout.tile_height / 2, top + layout.tile_height + 13
        text(EDGE, middle - 10, shortened(row.name, 13), fontsize=TEXT_SIZE + 1, color=INK)
        text(EDGE, middle + 12, row.note, fontsize=SMALL_SIZE, color=MUTED)
        for group, cells in enumerate(row.groups):
            for column, cell in enumerate(cells):
                left, _ = layout.cell(number, group, column)
                colour_of_text = MUTED if cell.right is None else RIGHT if cell.right else WRONG
                caption = shortened(cell.caption, max(6, round(layout.pair / 7)))
                text(left, below, caption, fontsize=SMALL_SIZE, color=colour_of_text)
            if not cells and len(sheet.columns) > 1:
                text(layout.starts[group], middle, "none", fontsize=SMALL_SIZE, color=MUTED)
    text(layout.starts[0] + 168, layout.height - 34, sheet.scale, fontsize=SMALL_SIZE, color=MUTED)
