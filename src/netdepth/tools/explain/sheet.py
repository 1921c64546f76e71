"""Contact sheets: pictures side by side with their maps, to the pixel.

The pictures are put together as one array and laid into the figure unscaled, so that every pixel of a small
picture is a square of equal size; Matplotlib adds the words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netdepth.report.style import DPI, INK, MUTED, PAPER, save_png
from netdepth.text import printable

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

__all__ = ["Cell", "Sheet", "SheetRow", "draw_sheet", "shortened"]

TILE = 96
"""About how many pixels the side of a picture has on the sheet."""
MAP_SHARE = 0.6
"""Of a pixel under the map, how much is the map's colour; the rest is the picture in grey."""
COLOURMAP = "inferno"  # perceptually uniform, and as bright as the map is high
RIGHT, WRONG = "#00714f", "#b34700"  # the green and the vermillion of the house, darker to be read as text
EDGE, HEAD, FOOT, CAPTION, GAP, GROUP = 22, 96, 62, 24, 14, 26
"""Pixels: around the sheet, above and below the pictures, under each, between them, between right and wrong."""
TITLE_SIZE, TEXT_SIZE, SMALL_SIZE = 12.0, 8.5, 7.5


@dataclass(frozen=True)
class Cell:
    """A ``picture`` uint8 ``[C, H, W]`` (one channel or three), its ``heat`` ``[H, W]`` in 0..1, and a ``caption``.

    ``right``: the answer is the true class; None where that is not known.
    """

    picture: np.ndarray
    heat: np.ndarray
    caption: str
    right: bool | None = None


@dataclass(frozen=True)
class SheetRow:
    """A class and what is shown of it, in groups; ``note`` stands small under its name."""

    name: str
    note: str
    groups: Sequence[Sequence[Cell]]


@dataclass(frozen=True)
class Sheet:
    """Rows of cells. ``columns`` is how many cells each group may have, ``headings`` what stands above each."""

    title: str
    subtitle: str
    columns: Sequence[int]
    headings: Sequence[str]
    rows: Sequence[SheetRow]
    scale: str
    """What the colours mean, for the bar below."""


def draw_sheet(sheet: Sheet, path: Path) -> tuple[int, int]:
    """Write ``sheet`` as PNG to ``path``; returns its width and height in pixels.

    Raises:
        StorageError: the file cannot be written.
    """
    import numpy as np
    from matplotlib.figure import Figure

    first = next(cell for row in sheet.rows for group in row.groups for cell in group)
    tile = _tile(first.picture.shape[1:])
    place = _Places(sheet, tile)
    canvas = np.full((place.height, place.width, 3), _rgb(PAPER), np.uint8)
    figure = Figure(figsize=(place.width / DPI, place.height / DPI), dpi=DPI, facecolor=PAPER)
    for number, row in enumerate(sheet.rows):
        for group, cells in enumerate(row.groups):
            for column, cell in enumerate(cells):
                left, top = place.cell(number, group, column)
                _put(canvas, cell, left, top, tile)
    _bar(canvas, place)
    figure.figimage(canvas)
    _write(figure, sheet, place)
    save_png(figure, path, photographs=True)
    return place.width, place.height


class _Places:
    """Where things lie on a sheet, in pixels from its upper left corner."""

    def __init__(self, sheet: Sheet, tile: tuple[int, int]) -> None:
        self.tile_height, self.tile_width = tile
        self.names = 132 if any(row.name for row in sheet.rows) else 0
        self.head = HEAD + (22 if any(sheet.headings) else 0)
        self.pair = 2 * self.tile_width + 2
        self.row_height = self.tile_height + CAPTION + 8
        self.starts = []
        left = EDGE + self.names
        for count in sheet.columns:
            self.starts.append(left)
            left += count * (self.pair + GAP) - GAP + GROUP
        self.width = max(left - GROUP + EDGE, 560)
        self.height = self.head + len(sheet.rows) * self.row_height + FOOT

    def cell(self, row: int, group: int, column: int) -> tuple[int, int]:
        return self.starts[group] + column * (self.pair + GAP), self.head + row * self.row_height


def _tile(shape: Sequence[int]) -> tuple[int, int]:
    """Height and width on the sheet: a whole multiple of a small picture, a large one made smaller."""
    height, width = shape
    times = max(1, round(TILE / max(height, width)))
    if max(height, width) <= 1.5 * TILE:
        return times * height, times * width
    share = 1.5 * TILE / max(height, width)
    return max(1, round(share * height)), max(1, round(share * width))


def _put(canvas: np.ndarray, cell: Cell, left: int, top: int, tile: tuple[int, int]) -> None:
    """The picture, and right of it the map over the picture in grey."""
    import numpy as np
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


def _bar(canvas: np.ndarray, place: _Places) -> None:
    """The colours from nothing to most, as they look over a middling grey."""
    import numpy as np
    from matplotlib import colormaps

    colours = colormaps[COLOURMAP](np.linspace(0, 1, 160))[:, :3]
    over = MAP_SHARE * 255 * colours + (1 - MAP_SHARE) * 127
    top = place.height - 40
    canvas[top : top + 12, place.starts[0] : place.starts[0] + 160] = over.round().astype(np.uint8)


def _write(figure: Figure, sheet: Sheet, place: _Places) -> None:
    def text(left: float, top: float, words: str, **style: Any) -> None:
        figure.text(
            left / place.width, 1 - top / place.height, printable(words), parse_math=False, **{"va": "center", **style}
        )

    text(EDGE, 30, shortened(sheet.title, (place.width - 2 * EDGE) // 12), fontsize=TITLE_SIZE, color=INK)
    text(EDGE, 60, sheet.subtitle, fontsize=TEXT_SIZE, color=MUTED)
    for left, heading in zip(place.starts, sheet.headings, strict=True):
        text(left, place.head - 14, heading, fontsize=TEXT_SIZE, color=INK)
    for number, row in enumerate(sheet.rows):
        _, top = place.cell(number, 0, 0)
        text(EDGE, top + place.tile_height / 2 - 10, shortened(row.name, 13), fontsize=TEXT_SIZE + 1, color=INK)
        text(EDGE, top + place.tile_height / 2 + 12, row.note, fontsize=SMALL_SIZE, color=MUTED)
        for group, cells in enumerate(row.groups):
            for column, cell in enumerate(cells):
                left, _ = place.cell(number, group, column)
                colour = MUTED if cell.right is None else RIGHT if cell.right else WRONG
                words = shortened(cell.caption, max(6, round(place.pair / 7)))
                text(left, top + place.tile_height + 13, words, fontsize=SMALL_SIZE, color=colour)
            if not cells and len(sheet.columns) > 1:
                text(place.starts[group], top + place.tile_height / 2, "none", fontsize=SMALL_SIZE, color=MUTED)
    text(place.starts[0] + 168, place.height - 34, sheet.scale, fontsize=SMALL_SIZE, color=MUTED)


def shortened(text: str, limit: int) -> str:
    """``text`` in at most ``limit`` characters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _rgb(colour: str) -> list[int]:
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
