"""Slices of the loss as a picture (contours on one colour scale, and the line through the weights) and in words."""

from __future__ import annotations

import bisect
import math
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from netdepth.report.style import DPI, INK, MUTED, colour, dash, quiet, save_png, shortened
from netdepth.runs.folder import RunDir, slug
from netdepth.text import compact, listed, number, percent, printable, thousands
from netdepth.tools.landscape.surface import Curvature, Eigenvalue, Slice

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import BoundaryNorm

__all__ = ["draw_landscape", "landscape_words", "short_names"]

COLUMNS = 3
LOG_FROM = 20.0
"""Highest over lowest loss from which levels are spaced by factors."""


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
        f"{number(summary.highest)} on the slice. {_share(summary.below_twice_centre)} of its "
        f"{thousands(found.grid**2)} points lie below twice the loss at the weights, {_share(summary.below_guessing)} "
        f"below the loss of guessing "
        f"({number(found.guessing, 3)})"
    )
    if summary.curved_down is not None:
        text += f", and {_share(summary.curved_down)} of the inner points are curved down in some direction of it"
    if summary.not_finite:
        text += f"; at {thousands(summary.not_finite)} the loss is not finite"
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
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import BoundaryNorm
    from matplotlib.figure import Figure

    levels, log = _levels(slices)
    names = [printable(shortened(name, 40)) for name in short_names(slices)]
    columns = min(len(slices), COLUMNS)
    rows = math.ceil(len(slices) / columns)
    figure = Figure((3.4 * columns + 1.4, 3.7 * rows + 3.4), DPI, facecolor="white", layout="constrained")
    halves: Any = figure.subfigures(2, 1, height_ratios=(3.7 * rows, 2.5))
    above, below = halves
    grid = above.subplots(rows, columns, squeeze=False)
    for panel in grid.flat[len(slices) :]:
        panel.remove()
    panels = list(grid.flat[: len(slices)])
    norm = BoundaryNorm(levels, 256) if levels else None
    for panel, name, found in zip(panels, names, slices, strict=True):
        _contours(panel, found, levels, norm)
        centre = None if found.summary is None else found.summary.centre
        panel.set_title(f"{name}\nloss {number(centre)} at +", fontsize=10, loc="left", parse_math=False)
    panels[0].set_ylabel("second direction", fontsize=9.5)
    if norm is not None:
        bar = above.colorbar(ScalarMappable(norm, "viridis"), ax=panels, ticks=levels, aspect=20 * rows, pad=0.02)
        bar.ax.set_yticklabels([compact(level, 3) for level in levels], fontsize=8)
        bar.ax.set_title("loss", fontsize=9.5)
    _lines(below.subplots(), slices, names, log)
    first = slices[0]
    images = f"{thousands(first.images)} training images of {first.dataset}, directions of seed {first.seed}"
    text = printable(f"{first.grid} × {first.grid} points, {images}")
    title = f"The loss around the weights\n{textwrap.fill(text, 40 * columns + 14)}"
    figure.suptitle(title, x=0.02, ha="left", fontsize=10, color=INK, parse_math=False)
    note = "random directions, filters as long as the weights' (Li et al. 2018)"
    figure.supxlabel(note, x=0.02, ha="left", fontsize=8, color=MUTED)
    return save_png(figure, out or _path(runs))


def _path(runs: Sequence[RunDir]) -> Path:
    if len(runs) == 1:
        return runs[0].path / "figures" / "landscape.png"
    names = "-and-".join(slug(run.path.name) for run in runs)
    return runs[0].path.parent / "figures" / f"landscape-{names[:150]}.png"


def _levels(slices: Sequence[Slice]) -> tuple[list[float], bool]:
    """Contour levels around every finite loss of all ``slices``, and whether they are spaced by factors."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    losses = np.concatenate([np.asarray(found.loss, dtype=float).ravel() for found in slices])
    finite = losses[np.isfinite(losses)]
    if not len(finite):
        return [], False
    low, high = float(finite.min()), float(finite.max())
    log = low > 0 and high > LOG_FROM * low
    if log:
        decades = math.log10(high / low)
        subs = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0) if decades < 2.5 else (1.0, 2.0, 5.0) if decades < 5 else (1.0, 3.0)
        ticks = LogLocator(subs=subs if decades < 9 else (1.0,), numticks=15).tick_values(low, high)
    else:
        ticks = MaxNLocator(nbins=14).tick_values(low, high if high > low else low + max(abs(low), 1.0) / 10)
    levels = [float(tick) for tick in ticks]
    return levels[bisect.bisect(levels, low) - 1 : bisect.bisect_left(levels, high) + 1], log


def _contours(panel: Axes, found: Slice, levels: Sequence[float], norm: BoundaryNorm | None) -> None:
    """One slice: filled contours, thin lines labelled with some of the levels, a cross at the weights."""
    steps = found.coordinates
    losses = np.ma.masked_invalid(np.asarray(found.loss, dtype=float))
    ends = (steps[0], steps[-1])
    panel.set(facecolor="#DDDDDD", aspect="equal", xlim=ends, ylim=ends, xticks=_five(steps), yticks=_five(steps))
    panel.set_xlabel("first direction", fontsize=9.5)
    panel.tick_params(labelsize=9)
    if losses.count():
        panel.contourf(steps, steps, losses, levels=levels, norm=norm, cmap="viridis")
        inside = [level for level in levels if losses.min() < level < losses.max()]
        if inside:
            lines = panel.contour(steps, steps, losses, levels=inside, colors="white", linewidths=0.5, alpha=0.75)
            labelled = inside[:: max(1, math.ceil(len(inside) / 7))]
            panel.clabel(lines, levels=labelled, fontsize=7.5, fmt=lambda level: compact(level, 3), colors="white")
    panel.plot([0], [0], "+", color="white", markersize=9, markeredgewidth=1.6)


def _five(steps: Sequence[float]) -> list[float]:
    """The ends of an axis, its middle, and half-way between: more would touch."""
    return [steps[-1] * share for share in (-1, -0.5, 0, 0.5, 1)]


def _lines(panel: Axes, slices: Sequence[Slice], names: Sequence[str], log: bool) -> None:
    """The loss along the first direction through the weights."""
    for order, (found, name) in enumerate(zip(slices, names, strict=True)):
        middle = [value if math.isfinite(value) else math.nan for value in found.loss[len(found.loss) // 2]]
        panel.plot(found.coordinates, middle, label=name, color=colour(order), linestyle=dash(order), linewidth=2)
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
