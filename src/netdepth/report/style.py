"""How figures look, and how a Matplotlib figure becomes SVG that follows the page, or a PNG file.

A figure is drawn once, in the colours of light paper. In the SVG each of these colours is replaced by a
CSS variable of the page (``--c0`` for the first condition and so on), so the reader's light or dark
setting decides. Text stays text, in the page's own font. Only Matplotlib's object interface is used: no
pyplot, no global state, no display.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netdepth.files.atomic import storage, write_atomic
from netdepth.text import printable

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

__all__ = [
    "DASHES", "DPI", "GRID", "HEAT", "INK", "MARKERS", "MUTED", "PAPER", "add_legend", "add_text", "colour",
    "condition_line", "dash", "figure_of", "grid_of", "isolated", "marker", "quiet", "save_png", "shortened", "svg",
    "ticks", "tidy",
]  # fmt: skip

DPI = 130
"""Of a PNG."""

PAPER, INK, MUTED, GRID = "#fffefd", "#1b1c1e", "#65686d", "#dddad3"

# Okabe and Ito 2008, "Color Universal Design"; their black is the ink, their yellow too pale for a line.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#2b2b2c", "#e69f00", "#56b4e9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)), (0, (8, 3)), (0, (3, 3)), "-")
"""Not by colour alone: a condition also has its marker and its dashes."""

# From a vanishing gradient (blue) over an even one (grey) to an exploding one (orange).
HEAT = (
    "#0b3c6f", "#2166a5", "#4f93c7", "#8fbfe0", "#c6dff0", "#e3edf2",
    "#efede6",
    "#f7e6d2", "#f8cfa4", "#efa35f", "#cf6f1f", "#8a3f06",
)  # fmt: skip

VARIABLES: Mapping[str, str] = {
    PAPER: "paper", INK: "ink", MUTED: "muted", GRID: "rule",
    **{value: f"c{index}" for index, value in enumerate(COLOURS)},
    **{value: f"h{index}" for index, value in enumerate(HEAT)},
}  # fmt: skip


def colour(index: int) -> str:
    """The colour of the condition number ``index``."""
    return COLOURS[index % len(COLOURS)]


def marker(index: int) -> str:
    """The marker of the condition number ``index``."""
    return MARKERS[index % len(MARKERS)]


def dash(index: int) -> Any:
    """The dashes of the condition number ``index``, as Matplotlib takes them."""
    return DASHES[index % len(DASHES)]


def figure_of(width: float, height: float, rows: int = 1, columns: int = 1, **grid: Any) -> tuple[Figure, list[Axes]]:
    """A figure in inches and its panels, row by row: laid out by Matplotlib unless ``grid`` says where they stand."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = None if grid else ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor=PAPER, layout=layout)
    panels = figure.subplots(rows, columns, squeeze=False)
    if grid:
        figure.subplots_adjust(**grid)
    return figure, list(panels.flat)


def grid_of(count: int, most: int, width: float) -> tuple[Figure, list[Axes]]:
    """``count`` panels of ``width`` inches, at most ``most`` side by side, with room for a legend below."""
    columns = min(most, count)
    rows = math.ceil(count / columns)
    figure, panels = figure_of(max(width * columns, 7.0), 2.55 * rows + 1.0, rows, columns)
    for axes in panels[count:]:
        axes.remove()
    return figure, panels[:count]


def tidy(axes: Axes, title: str, below: str, size: float = 9.5) -> None:
    """What every panel has: its title above, at the left, a quiet frame, rules along y."""
    axes.set_facecolor(PAPER)
    axes.set_title(printable(title), loc="left", fontsize=size + 0.5, color=INK, pad=7, parse_math=False)
    axes.set_xlabel(printable(below), fontsize=size, color=MUTED, labelpad=3)
    axes.tick_params(labelsize=size, colors=MUTED, length=2.5, width=0.6, pad=2.5)
    axes.grid(axis="y", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(MUTED)
        spine.set_linewidth(0.6)


def quiet(axes: Axes, size: float) -> None:
    """The frame of a panel in the picture of one run: two thin sides, rules along y."""
    axes.grid(axis="y", color="#E3E3E3", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=size, color="#AAAAAA")
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color("#AAAAAA")


def add_text(figure: Figure, x: float, y: float, text: str, **style: Any) -> None:
    """Write ``text`` at a place given in shares of the figure; a "$" in a name stays a "$"."""
    figure.text(x, y, printable(text), parse_math=False, **style)


def shortened(text: str, limit: int) -> str:
    """``text`` with at most ``limit`` characters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def condition_line(index: int, label: str, dashed: bool = True) -> Line2D:
    """The line of the condition number ``index``, for a legend."""
    from matplotlib.lines import Line2D

    style: Any = dash(index) if dashed else "-"
    return Line2D([], [], color=colour(index), marker=marker(index), linestyle=style, label=printable(label))


def add_legend(figure: Figure, handles: Sequence[Artist], columns: int, size: float = 9.5) -> None:
    """A legend below the panels; a "$" in a name stays a "$"."""
    legend = figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=size,
                           labelcolor=INK)  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)


def svg(figure: Figure, key: str, label: str) -> str:
    """``figure`` as an SVG element for the page: no size of its own, no metadata, ids that start with ``key``.

    ``label`` says what it shows, for people who cannot see it.
    """
    import matplotlib
    from markupsafe import escape

    metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "netdepth"}):
        text = _saved(figure, format="svg", metadata=metadata, facecolor="none").getvalue().decode()
    opening, _, body = text[text.index("<svg") :].partition(">")
    box = re.search(r'viewBox="[^"]*"', opening)
    assert box is not None
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r' id="[A-Za-z2.]+_\d+"', "", body)  # of groups; those that are referred to have other names
    body = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{key}-", body)
    body = re.sub(r"(\.\d\d)\d+", r"\1", body)
    body = re.sub(r"'DejaVu Sans'[^;\"]*", "var(--sans)", body)
    body = re.sub("|".join(VARIABLES), lambda found: f"var(--{VARIABLES[found[0]]})", body)
    body = re.sub(r"\s*\n\s*", "\n", body)
    return f'<svg role="img" aria-label="{escape(label)}" {box[0]}>{body.strip()}'


def save_png(figure: Figure, path: Path, photographs: bool = False) -> Path:
    """Write ``figure`` as PNG: with 256 colours, a third of the size, unless it shows ``photographs``.

    Raises:
        StorageError: the file cannot be written.
    """
    from PIL import Image

    buffer = _saved(figure, format="png", metadata={"Software": None})
    if not photographs:
        drawn = Image.open(buffer).convert("RGB").quantize(method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        buffer = io.BytesIO()
        drawn.save(buffer, "png", optimize=True)
    with storage(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, buffer.getvalue())
    return path


def _saved(figure: Figure, **settings: Any) -> io.BytesIO:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        # Where names are longer than the figure is wide, the panels keep the places they had before.
        warnings.filterwarnings("ignore", message="constrained_layout not applied", category=UserWarning)
        figure.savefig(buffer, **settings)
    return buffer


def isolated(values: Sequence[float]) -> list[int]:
    """The places in ``values`` of numbers that a line does not show, since both neighbours are missing (NaN or Inf)."""
    finite = [False, *map(math.isfinite, values), False]
    return [i for i in range(len(values)) if finite[i + 1] and not finite[i] and not finite[i + 2]]


def ticks(low: float, high: float) -> list[float]:
    """Round numbers between ``low`` and ``high`` (> 0) for a log axis: decades, or 1-2-5 if there are few."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    wide = math.log10(high / low)
    steps = (1,) if wide > 2.6 else (1, 2, 5) if wide > 0.5 else (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)
    every = math.ceil(wide / 7) if wide > 2.6 else 1
    found = [step * 10.0**power for power in decades if power % every == 0 for step in steps]
    return [value for value in found if low <= value <= high]
