"""Slices of the loss as a picture (contours on one colour scale, and the line through the weights) and in words."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from netdepth.report.style import DPI, INK, MUTED, colour, dash, quiet, save_png, shortened
from netdepth.runs.folder import RunDir, slug
from netdepth.text import compact, listed, number, percent, printable
from netdepth.tools.landscape.surface import Curvature, Eigenvalue, Slice

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.contour import QuadContourSet
    from matplotlib.figure import Figure

__all__ = ["draw_landscape", "landscape_words", "short_names"]

COLUMNS = 3
PANEL, LINE, LEFT, RIGHT, TOP, BOTTOM, GAP = 3.1, 2.0, 0.75, 1.05, 1.2, 0.85, 0.55  # inches
LOG_FROM = 20.0
"""Highest over lowest loss from which levels are spaced by factors."""
FRAME = "#AAAAAA"


# --- in words ---


def short_names(slices: Sequence[Slice]) -> list[str]:
    """The runs' names without their common ends, and without their fingerprints if they still differ."""
    names = [found.run for found in slices]
    bare = [re.sub(r"-[0-9a-f]{10}$", "", name) for name in names]
    names = bare if len(set(bare)) == len(bare) else names
    parts = [name.split("-") for name in names]
    while len(names) > 1 and all(len(part) > 1 for part in parts) and len({part[-1] for part in parts}) == 1:
        parts = [part[:-1] for part in parts]
    return ["-".join(part) for part in parts]


def landscape_words(slices: Sequence[Slice]) -> str:
    """Sentences on every complete slice, on the first compared with each other one, and on what they do not say."""
    names = short_names(slices)
    sentences = [_alone(name, found) for name, found in zip(names, slices, strict=True)]
    for name, found in zip(names[1:], slices[1:], strict=True):
        sentences.append(_compared(names[0], slices[0], name, found))
    several = "One slice of two random directions and one run each" if len(slices) > 1 else "One slice of one run"
    sentences.append(f"{several}: these numbers say nothing about other directions and other seeds.")
    return " ".join(filter(None, sentences))


def _alone(name: str, found: Slice) -> str:
    summary = found.summary
    if summary is None or not math.isfinite(summary.centre):
        return f"{name}: the loss of the weights themselves is not finite."
    text = (
        f"{name}: the loss is {number(summary.centre)} at the weights and between {number(summary.lowest)} and "
        f"{number(summary.highest)} on the slice. {_share(summary.below_twice_centre)} of its {found.grid**2:,} points "
        f"lie below twice the loss at the weights, {_share(summary.below_guessing)} below the loss of guessing "
        f"({number(found.guessing, 3)})"
    )
    if summary.curved_down is not None:
        text += f", and {_share(summary.curved_down)} of the inner points are curved down in some direction of it"
    if summary.not_finite:
        text += f"; at {summary.not_finite:,} the loss is not finite"
    return f"{text}.{_eigenvalues(found.curvature)}"


def _eigenvalues(curvature: Curvature | None) -> str:
    if curvature is None:
        return ""
    text = f" The largest eigenvalue of the Hessian at the weights is {_eigenvalue(curvature.largest)}"
    if curvature.smallest is None:
        return f"{text}."
    if not curvature.smallest.converged:
        return f"{text}; the smallest was not found within {curvature.smallest.products} products."
    return f"{text}, the smallest {_eigenvalue(curvature.smallest)}."


def _eigenvalue(found: Eigenvalue) -> str:
    """``30.26 ± 0.29``."""
    text = f"{compact(found.value, 4)} ± {compact(found.residual)}"
    return text if found.converged else f"{text} (not converged after {found.products} products)"


def _compared(first: str, one: Slice, second: str, other: Slice) -> str:
    a, b = one.summary, other.summary
    if a is None or b is None or not (math.isfinite(a.centre) and math.isfinite(b.centre)):
        return ""
    more = f"{_times(b.below_guessing, a.below_guessing)} as much"
    parts = [
        f"{more if a.below_guessing else f'{_share(b.below_guessing)} instead of none'} of the slice below the loss of "
        f"guessing as {first}",
        f"a highest loss {_times(b.highest, a.highest)} as high",
    ]
    if a.curved_down is not None and b.curved_down is not None:
        parts.append(f"{_share(b.curved_down)} instead of {_share(a.curved_down)} of its points curved down")
    if one.curvature is not None and other.curvature is not None:
        before, after = one.curvature.largest, other.curvature.largest
        if before.converged and after.converged:
            parts.append(f"a largest eigenvalue {_times(after.value, before.value)} as large")
    return f"{second} has {listed(parts)}."


def _share(value: float) -> str:
    return "under 0.1 %" if 0 < value < 0.001 else percent(value, 1)


def _times(value: float, base: float) -> str:
    return f"{compact(value / base)} times" if base else "not comparably"


# --- as a picture ---


def draw_landscape(runs: Sequence[RunDir], slices: Sequence[Slice], out: Path | None = None) -> Path:
    """Draw ``slices``, one per run, and write them to ``out``.

    By default that is ``figures/landscape.png`` in the folder of a single run, and a file named after the runs in
    ``figures/`` beside the first of several.

    Raises:
        StorageError: the file cannot be written.
    """
    levels, log = _levels(slices)
    columns = min(len(slices), COLUMNS)
    rows = math.ceil(len(slices) / columns)
    figure, panels, line = _figure(columns, rows)
    names = short_names(slices)
    filled = [_contours(panel, found, levels) for panel, found in zip(panels, slices, strict=False)]
    for panel, name, found in zip(panels, names, slices, strict=False):
        centre = None if found.summary is None else found.summary.centre
        title = f"{printable(shortened(name, 40))}\nloss {number(centre)} at +"
        panel.set_title(title, fontsize=10, loc="left", parse_math=False)
    panels[0].set_ylabel("second direction", fontsize=9.5, labelpad=0)
    for panel in panels[len(slices) :]:
        panel.remove()
    drawn = next((contours for contours in filled if contours is not None), None)
    if drawn is not None:
        _colour_bar(figure, drawn, levels, rows)
    _lines(line, slices, names, log)
    _headline(figure, slices[0])
    return save_png(figure, out or _path(runs))


def _path(runs: Sequence[RunDir]) -> Path:
    if len(runs) == 1:
        return runs[0].path / "figures" / "landscape.png"
    names = "-and-".join(slug(run.path.name) for run in runs)
    return runs[0].path.parent / "figures" / f"landscape-{names[:150]}.png"


def _levels(slices: Sequence[Slice]) -> tuple[list[float], bool]:
    """Contour levels around every finite loss of all ``slices``, and whether they are spaced by factors."""
    from matplotlib.ticker import MaxNLocator

    losses = np.concatenate([np.asarray(found.loss, dtype=float).ravel() for found in slices])
    finite = losses[np.isfinite(losses)]
    if not len(finite):
        return [0.0, 1.0], False
    low, high = float(finite.min()), float(finite.max())
    if low > 0 and high > LOG_FROM * low:
        return _powers(low, high), True
    levels = MaxNLocator(nbins=14).tick_values(low, high if high > low else low + max(abs(low), 1.0) / 10)
    return [float(level) for level in levels], False


def _powers(low: float, high: float) -> list[float]:
    """Round numbers from below ``low`` to above ``high``, about a constant factor apart, twenty at most."""
    decades = math.log10(high / low)
    wide = decades >= 9
    steps = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0) if decades < 2.5 else (1.0, 2.0, 5.0) if decades < 5 else (1.0, 3.0)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    levels = [step * 10.0**power for power in powers for step in ((1.0,) if wide else steps)]
    levels = levels[:: math.ceil(decades / 15)] if wide else levels
    first = max(i for i, level in enumerate(levels) if level <= low or i == 0)
    last = next((i for i, level in enumerate(levels) if level >= high), len(levels) - 1)
    return levels[first : last + 1]


def _figure(columns: int, rows: int) -> tuple[Figure, list[Axes], Axes]:
    """Square panels in a grid and the line's panel below, all placed in inches."""
    from matplotlib.figure import Figure

    width = LEFT + columns * PANEL + (columns - 1) * GAP + RIGHT
    height = TOP + rows * PANEL + (rows - 1) * (GAP + 0.3) + 0.75 + LINE + BOTTOM
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")

    def place(x: float, y: float, w: float, h: float) -> Axes:
        axes: Axes = figure.add_axes((x / width, 1 - (y + h) / height, w / width, h / height))
        axes.tick_params(labelsize=9, color=FRAME)
        for spine in axes.spines.values():
            spine.set_color(FRAME)
        return axes

    panels = [
        place(LEFT + (PANEL + GAP) * column, TOP + (PANEL + GAP + 0.3) * row, PANEL, PANEL)
        for row in range(rows)
        for column in range(columns)
    ]
    line = place(LEFT, height - BOTTOM - LINE, columns * PANEL + (columns - 1) * GAP, LINE)
    return figure, panels, line


def _contours(panel: Axes, found: Slice, levels: Sequence[float]) -> QuadContourSet | None:
    """One slice: filled contours, thin lines labelled with some of the levels, a cross at the weights."""
    from matplotlib.colors import BoundaryNorm

    steps = found.coordinates
    losses = np.ma.masked_invalid(np.asarray(found.loss, dtype=float))
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
            panel.clabel(lines, levels=labelled, fontsize=7.5, fmt=lambda level: compact(level, 3), colors="white")
    panel.plot([0], [0], "+", color="white", markersize=9, markeredgewidth=1.6)
    return contours


def _five(steps: Sequence[float]) -> list[float]:
    """The ends of an axis, its middle, and half-way between: more would touch."""
    return [steps[-1] * share for share in (-1, -0.5, 0, 0.5, 1)]


def _colour_bar(figure: Figure, contours: QuadContourSet, levels: Sequence[float], rows: int) -> None:
    """The one scale of all panels, right of them."""
    width, height = figure.get_size_inches()
    tall = rows * PANEL + (rows - 1) * (GAP + 0.3)
    place = figure.add_axes(((width - RIGHT + 0.18) / width, 1 - (TOP + tall) / height, 0.16 / width, tall / height))
    bar = figure.colorbar(contours, cax=place, spacing="uniform")
    bar.set_ticks(list(levels), labels=[compact(level, 3) for level in levels])
    place.tick_params(labelsize=8, color=FRAME, length=2)
    bar.outline.set_edgecolor(FRAME)
    place.set_title("loss", fontsize=9.5, pad=6)


def _lines(panel: Axes, slices: Sequence[Slice], names: Sequence[str], log: bool) -> None:
    """The loss along the first direction through the weights."""
    for order, (found, name) in enumerate(zip(slices, names, strict=True)):
        middle = [value if math.isfinite(value) else math.nan for value in found.loss[len(found.loss) // 2]]
        style: dict[str, Any] = {"color": colour(order), "linestyle": dash(order), "linewidth": 2}
        panel.plot(found.coordinates, middle, label=printable(shortened(name, 40)), **style)
    steps = slices[0].coordinates
    if slices[0].guessing is not None:
        panel.axhline(slices[0].guessing, color=MUTED, linewidth=0.9, linestyle=":")
    if log:
        panel.set_yscale("log")
    panel.set_xlim(steps[0], steps[-1])
    panel.set_xticks(_five(steps))
    panel.set_xlabel("first direction, through the weights (dotted: guessing)", fontsize=9.5)
    panel.set_ylabel("loss", fontsize=9.5)
    quiet(panel, 9)
    for text in panel.legend(fontsize=8.5, frameon=False, loc="best").get_texts():
        text.set_parse_math(False)


def _headline(figure: Figure, found: Slice) -> None:
    width, height = figure.get_size_inches()

    def write(y: float, text: str, **style: Any) -> None:
        figure.text(0.3 / width, y / height, printable(text), parse_math=False, **style)

    write(height - 0.38, "The loss around the weights", fontsize=13, weight="bold", color=INK)
    grid = f"{found.grid} × {found.grid} points"
    text = f"{grid}, {found.images:,} training images of {found.dataset}, directions of seed {found.seed}"
    write(height - 0.64, shortened(text, round(10.5 * width) + 30), fontsize=9, color=MUTED)
    write(0.2, "random directions, filters as long as the weights' (Li et al. 2018)", fontsize=8, color=MUTED)
