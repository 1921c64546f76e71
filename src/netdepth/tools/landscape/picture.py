"""Slices of the loss as a picture: filled contours of every run on one colour scale, and the line through the centre.

Matplotlib's object interface, as in `netdepth.report.style`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from netdepth.report.style import MUTED, RUN_DPI, add_text, save_png, shortened
from netdepth.runs.folder import RunDir, slug
from netdepth.text import number, printable
from netdepth.tools.landscape.words import short_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.contour import QuadContourSet
    from matplotlib.figure import Figure

__all__ = ["landscape_picture"]

Record = Mapping[str, Any]

COLUMNS = 3
PANEL, LINE, LEFT, RIGHT, TOP, BOTTOM, GAP = 3.1, 2.0, 0.75, 1.05, 1.2, 0.85, 0.55  # inches
LOG_FROM = 20.0
"""Highest over lowest loss from which levels are spaced by factors."""
# Okabe and Ito 2008, "Color Universal Design"; lines are told apart by their dashes as well.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#000000")
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1)), (0, (6, 1.5, 1.5, 1.5)), (0, (3, 1)), (0, (8, 2)))


def landscape_picture(runs: Sequence[RunDir], records: Sequence[Record], out: Path | None = None) -> Path:
    """Draw the slices of ``records``, one per run, and write them to ``out``.

    By default that is ``figures/landscape.png`` in the folder of a single run, and a file named after the runs in
    ``figures/`` beside the first of several.

    Raises:
        StorageError: the file cannot be written.
    """
    path = out or _path(runs)
    levels, log = _levels(records)
    columns = min(len(records), COLUMNS)
    rows = math.ceil(len(records) / columns)
    figure, panels, line = _figure(columns, rows)
    names = short_names(records)
    filled = [_contours(panel, record, levels, log) for panel, record in zip(panels, records, strict=False)]
    for panel, name, record in zip(panels, names, records, strict=False):
        panel.set_title(printable(_title(name, record)), fontsize=10, loc="left", parse_math=False)
    panels[0].set_ylabel("second direction", fontsize=9.5, labelpad=0)
    for panel in panels[len(records) :]:
        panel.remove()
    drawn = next((contours for contours in filled if contours is not None), None)
    if drawn is not None:
        _colour_bar(figure, drawn, levels, rows)
    _lines(line, records, names, log)
    _headline(figure, records[0])
    return save_png(figure, path)


def _path(runs: Sequence[RunDir]) -> Path:
    if len(runs) == 1:
        return runs[0].path / "figures" / "landscape.png"
    names = "-and-".join(slug(run.path.name) for run in runs)
    return runs[0].path.parent / "figures" / f"landscape-{names[:150]}.png"


def _levels(records: Sequence[Record]) -> tuple[list[float], bool]:
    """Contour levels that hold every finite loss of all ``records``, and whether they are spaced by factors."""
    from matplotlib.ticker import MaxNLocator

    losses = np.concatenate([np.asarray(record["loss"], dtype=float).ravel() for record in records])
    finite = losses[np.isfinite(losses)]
    if not len(finite):
        return [0.0, 1.0], False
    low, high = float(finite.min()), float(finite.max())
    if low > 0 and high > LOG_FROM * low:
        return _powers(low, high), True
    levels = MaxNLocator(nbins=14).tick_values(low, high if high > low else low + max(abs(low), 1.0) / 10)
    return [float(level) for level in levels], False


def _powers(low: float, high: float) -> list[float]:
    """Round numbers from below ``low`` to above ``high``, a constant factor or nearly so apart, twenty at most."""
    decades = math.log10(high / low)
    steps = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0) if decades < 2.5 else (1.0, 2.0, 5.0) if decades < 5 else (1.0, 3.0)
    stride = 1 if decades < 9 else math.ceil(decades / 15)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    levels = [step * 10.0**power for power in powers for step in (steps if decades < 9 else (1.0,))]
    levels = levels[::stride] if decades >= 9 else levels
    first = max(i for i, level in enumerate(levels) if level <= low or i == 0)
    last = next((i for i, level in enumerate(levels) if level >= high), len(levels) - 1)
    return levels[first : last + 1]


def _figure(columns: int, rows: int) -> tuple[Figure, list[Axes], Axes]:
    """Square panels in a grid and the line's panel below, all placed in inches."""
    from matplotlib.figure import Figure

    width = LEFT + columns * PANEL + (columns - 1) * GAP + RIGHT
    height = TOP + rows * PANEL + (rows - 1) * (GAP + 0.3) + 0.75 + LINE + BOTTOM
    figure = Figure(figsize=(width, height), dpi=RUN_DPI, facecolor="white")

    def place(x: float, y: float, w: float, h: float) -> Axes:
        axes: Axes = figure.add_axes((x / width, 1 - (y + h) / height, w / width, h / height))
        axes.tick_params(labelsize=9, color="#AAAAAA")
        for spine in axes.spines.values():
            spine.set_color("#AAAAAA")
        return axes

    panels = [
        place(LEFT + (PANEL + GAP) * column, TOP + (PANEL + GAP + 0.3) * row, PANEL, PANEL)
        for row in range(rows)
        for column in range(columns)
    ]
    line = place(LEFT, height - BOTTOM - LINE, columns * PANEL + (columns - 1) * GAP, LINE)
    for side in ("top", "right"):
        line.spines[side].set_visible(False)
    return figure, panels, line


def _contours(panel: Axes, record: Record, levels: Sequence[float], log: bool) -> QuadContourSet | None:
    """One slice: filled contours, thin lines with some of the levels written on them, a cross at the weights."""
    from matplotlib.colors import BoundaryNorm

    steps = record["coordinates"]
    losses = np.ma.masked_invalid(np.asarray(record["loss"], dtype=float))
    panel.set_facecolor("#DDDDDD")
    panel.set_aspect("equal")
    panel.set_xlabel("first direction", fontsize=9.5, labelpad=2)
    panel.set_xlim(steps[0], steps[-1])
    panel.set_ylim(steps[0], steps[-1])
    panel.set_xticks(_five(steps))
    panel.set_yticks(_five(steps))
    contours = None
    if losses.count():
        colours = BoundaryNorm(levels, 256)
        contours = panel.contourf(steps, steps, losses, levels=levels, norm=colours, cmap="viridis")
        inside = [level for level in levels if losses.min() < level < losses.max()]
        if inside:
            lines = panel.contour(steps, steps, losses, levels=inside, colors="white", linewidths=0.5, alpha=0.75)
            labelled = inside[:: max(1, math.ceil(len(inside) / 7))]
            panel.clabel(lines, levels=labelled, fontsize=7.5, fmt=_brief, colors="white")
    panel.plot([0], [0], "+", color="white", markersize=9, markeredgewidth=1.6)
    return contours


def _five(steps: Sequence[float]) -> list[float]:
    """The ends of an axis, its middle, and half-way between: more would touch."""
    return [steps[-1] * share for share in (-1, -0.5, 0, 0.5, 1)]


def _title(name: str, record: Record) -> str:
    return f"{shortened(name, 40)}\nloss {number(record['summary']['centre'])} at +"


def _brief(value: float) -> str:
    if value == 0 or 1e-3 <= abs(value) < 9999:
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    mantissa, power = f"{value:.0e}".split("e")
    return f"{mantissa}e{int(power)}"


def _colour_bar(figure: Figure, contours: QuadContourSet, levels: Sequence[float], rows: int) -> None:
    """The one scale of all panels, right of them."""
    width, height = figure.get_size_inches()
    tall = rows * PANEL + (rows - 1) * (GAP + 0.3)
    place = figure.add_axes(((width - RIGHT + 0.18) / width, 1 - (TOP + tall) / height, 0.16 / width, tall / height))
    bar = figure.colorbar(contours, cax=place, spacing="uniform")
    bar.set_ticks(list(levels), labels=[_brief(level) for level in levels])
    place.tick_params(labelsize=8, color="#AAAAAA", length=2)
    bar.outline.set_edgecolor("#AAAAAA")
    place.set_title("loss", fontsize=9.5, pad=6)


def _lines(panel: Axes, records: Sequence[Record], names: Sequence[str], log: bool) -> None:
    """The loss along the first direction through the weights."""
    for order, (record, name) in enumerate(zip(records, names, strict=True)):
        middle = [value if math.isfinite(value) else math.nan for value in record["loss"][len(record["loss"]) // 2]]
        style: dict[str, Any] = {"color": COLOURS[order], "linestyle": DASHES[order], "linewidth": 2}
        panel.plot(record["coordinates"], middle, label=printable(shortened(name, 40)), **style)
    panel.axhline(records[0]["guessing"], color=MUTED, linewidth=0.9, linestyle=":")
    if log:
        panel.set_yscale("log")
    panel.set_xlim(records[0]["coordinates"][0], records[0]["coordinates"][-1])
    panel.set_xticks(_five(records[0]["coordinates"]))
    panel.set_xlabel("first direction, through the weights (dotted: guessing)", fontsize=9.5)
    panel.set_ylabel("loss", fontsize=9.5)
    panel.grid(axis="y", color="#E3E3E3", linewidth=0.8)
    legend = panel.legend(fontsize=8.5, frameon=False, loc="best")
    for text in legend.get_texts():
        text.set_parse_math(False)


def _headline(figure: Figure, record: Record) -> None:
    width, height = figure.get_size_inches()
    limit = round(10.5 * width)
    add_text(figure, 0.3 / width, 1 - 0.38 / height, "The loss around the weights", size=13, weight="bold")
    grid = f"{record['grid']} × {record['grid']} points"
    text = f"{grid}, {record['images']:,} training images of {record['dataset']}, directions of seed {record['seed']}"
    add_text(figure, 0.3 / width, 1 - 0.64 / height, shortened(text, limit + 30), size=9, color=MUTED)
    note = "random directions, filters as long as the weights' (Li et al. 2018)"
    add_text(figure, 0.3 / width, 0.2 / height, note, size=8, color=MUTED)
