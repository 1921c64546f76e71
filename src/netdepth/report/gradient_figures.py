"""Gradient flow as a heat map: each layer's weight-gradient norm over the last layer's, in decades."""

from __future__ import annotations

import bisect
import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from netdepth.report.data import StudyData
from netdepth.report.style import GRID, HEAT, INK, MUTED, PAPER, figure_of
from netdepth.runs.table import number_of
from netdepth.text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["EDGES", "When", "band_names", "flow", "gradient_figure", "gradients_overview", "has_flow"]

When = Literal["first", "last"]
"""At initialisation, or at the last probe."""

EDGES = (-8.0, -6.0, -4.0, -2.0, -1.0, -0.3, 0.3, 1.0, 2.0, 4.0, 6.0)
"""Where the colours change, in decades of the ratio; the middle one holds what is within a factor of two."""


def band_names() -> list[str]:
    """What each colour of `HEAT` stands for."""
    shown = ["10⁻⁸", "10⁻⁶", "10⁻⁴", "1 %", "10 %", "½", "2", "10", "100", "10⁴", "10⁶"]
    between = [f"{low} to {high}" for low, high in itertools.pairwise(shown)]
    return [f"below {shown[0]}", *between, f"above {shown[-1]}"]


def has_flow(data: StudyData, when: When) -> bool:
    """Whether any run was probed then."""
    return any(_probe(run, when) for run in data.runs)


def flow(data: StudyData, condition: str, depth: int, when: When) -> list[float | None]:
    """Per weight layer from the first to the last: the median over the seeds of log10 of its gradient norm over
    the last layer's; None where no seed has a finite one, minus infinity for a gradient of zero."""
    profiles = [profile for run in data.cells[condition, depth] if (profile := _profile(_probe(run, when))) is not None]
    layers = max(map(len, profiles), default=0)
    found: list[float | None] = []
    for layer in range(layers):
        values = [p[layer] for p in profiles if layer < len(p)]
        known = [value for value in values if value is not None]
        found.append(statistics.median_low(known) if known else None)
    return found


def gradient_figure(data: StudyData, condition: str, when: When) -> Figure:
    """The depths of one condition side by side, each column from its first layer (below) to its last."""
    figure, (axes,) = figure_of(3.5, 2.5, left=0.07, right=0.99, top=0.97, bottom=0.17)
    _draw(axes, data, condition, when)
    return figure


def gradients_overview(data: StudyData) -> Figure:
    """All conditions at initialisation with a legend, for a page without styles."""
    from matplotlib.patches import Patch

    conditions = data.spec.conditions
    columns = min(3, len(conditions))
    rows = -(-len(conditions) // columns)
    height = 2.6 * rows + 1.0
    figure, panels = figure_of(
        max(3.4 * columns, 7.0), height, rows, columns,
        left=0.04, right=0.99, top=1 - 0.3 / height, bottom=1.35 / height, hspace=0.45, wspace=0.12,
    )  # fmt: skip
    for condition, axes in zip(conditions, panels, strict=False):
        _draw(axes, data, condition, "first")
        axes.set_title(printable(condition), loc="left", fontsize=10, color=INK, parse_math=False)
    for axes in panels[len(conditions) :]:
        axes.set_visible(False)
    handles = [Patch(facecolor=shade, label=name) for shade, name in zip(HEAT, band_names(), strict=True)]
    figure.legend(handles=handles, loc="lower center", ncols=6 if columns > 1 else 4, frameon=False, fontsize=8.5)
    return figure


def _draw(axes: Axes, data: StudyData, condition: str, when: When) -> None:
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    depths = data.spec.depths
    known: list[Rectangle] = []
    unknown: list[Rectangle] = []
    shades: list[str] = []
    for column, depth in enumerate(depths):
        profile = flow(data, condition, depth, when)
        for layer, value in enumerate(profile):
            share = 1 / len(profile)
            place = Rectangle((column - 0.46, layer * share), 0.92, share)
            (unknown if value is None else known).append(place)
            if value is not None:
                shades.append(HEAT[bisect.bisect_right(EDGES, value)])
        if not profile:
            axes.text(column, 0.5, "–", ha="center", va="center", fontsize=9, color=MUTED)
    axes.add_collection(PatchCollection(known, facecolors=shades, edgecolors=PAPER, linewidths=0.35), autolim=False)
    none = PatchCollection(unknown, facecolors=GRID, edgecolors=PAPER, linewidths=0.35, hatch="////")
    axes.add_collection(none, autolim=False)
    axes.set_facecolor("none")
    axes.set_xlim(-0.55, len(depths) - 0.45)
    axes.set_ylim(0, 1)
    axes.set_xticks(range(len(depths)), [str(depth) for depth in depths])
    axes.set_yticks([0.03, 0.97], ["first", "last"], rotation=90)
    first, last = axes.get_yticklabels()
    first.set_verticalalignment("bottom")
    last.set_verticalalignment("top")
    axes.tick_params(labelsize=9, colors=MUTED, length=0, pad=3)
    axes.set_xlabel("depth (weight layers)", fontsize=9, color=MUTED, labelpad=3)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _probe(run: Any, when: When) -> Mapping[str, Any] | None:
    found: Mapping[str, Any] | None = run.first_probe if when == "first" else run.last_probe
    return found


def _profile(probe: Mapping[str, Any] | None) -> list[float | None] | None:
    """log10 of each layer's gradient norm over the last layer's."""
    layers = probe.get("layers") if probe is not None else None
    if not isinstance(layers, list) or not layers:
        return None
    norms = [_norm(layer) for layer in layers]
    last = norms[-1]
    if last is None or last <= 0:
        return [None] * len(norms)
    return [None if norm is None else math.log10(norm / last) if norm > 0 else -math.inf for norm in norms]


def _norm(layer: Any) -> float | None:
    value = number_of(layer.get("grad_norm")) if isinstance(layer, Mapping) else None
    return float(value) if value is not None and math.isfinite(value) else None


def fields_of(when: When, files: Sequence[str | None]) -> tuple[str, ...]:
    """The ``file:field`` that the map is drawn from."""
    if when == "first":
        return ("probes/init.json:layers",)
    return tuple(sorted({f"{name}:layers" for name in files if name is not None}))
