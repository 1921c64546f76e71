"""The layer statistics of a run as a picture: a panel per quantity, a line per step of training, over the layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from netdepth.report.style import DPI, INK, PAPER, colour, figure_of, isolated, save_png, shortened, ticks, tidy
from netdepth.runs.folder import RunDir
from netdepth.runs.table import run_row, status_words
from netdepth.text import plain, printable
from netdepth.training.layers import Statistics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

__all__ = ["draw_layers", "layer_figures"]


@dataclass(frozen=True)
class _Quantity:
    """A field of `Layer` with its name for people; ``top`` is the largest value it can have, if it is a share."""

    field: str
    label: str
    scale: float = 1.0
    top: float | None = None

    def values(self, found: Statistics) -> list[float | None]:
        return [getattr(layer, self.field) for layer in found.layers]


QUANTITIES = (
    _Quantity("grad_norm", "gradient norm"),
    _Quantity("activation_var", "activation variance"),
    _Quantity("dead_fraction", "dead units (%)", 100.0, top=100.0),
    _Quantity("cosine", "cosine similarity of different images", top=1.0),
)
FIRST, LAST = colour(1), colour(0)  # vermillion and blue; steps between are grey, darker the later
GREYS = (0.80, 0.40)
DOTS_UP_TO = 12
"""Layers up to which each is a dot on its line."""
FEW_DECADES = 200
"""Up to this ratio of its ends a logarithmic axis has ticks between its decades."""


def draw_layers(run: RunDir, found: Sequence[Statistics]) -> Path:
    """Draw ``figures/layers.png`` in the run folder from ``found``, at least one with a layer.

    Raises:
        StorageError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    row = run_row(run)
    quantities = _measured(found)
    figure = Figure((6.0, 1.7 + 1.95 * len(quantities)), DPI, facecolor=PAPER, layout="constrained")
    title = printable(shortened(f"{row.title}, seed {row.seed}", 60))
    figure.suptitle(f"{title}\n{printable(shortened(status_words(row), 74))}", color=INK, fontsize=11, parse_math=False)
    remarks: set[str] = set()
    panels = figure.subplots(len(quantities), 1, squeeze=False, sharex=True)[:, 0]
    for quantity, panel in zip(quantities, panels, strict=True):
        remarks |= _draw_panel(panel, quantity, found)
    below = "layer, in the order of the forward pass; the last is the logits"
    panels[-1].set_xlabel("; ".join([below, *sorted(remarks)]))
    handles = panels[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return save_png(figure, run.path / "figures" / "layers.png")


def layer_figures(found: Sequence[Statistics]) -> dict[str, Figure]:
    """The same as a figure of its own for each quantity, by its name for people, for a page."""
    figures = {}
    for quantity in _measured(found):
        figure, (panel,) = figure_of(3.8, 2.7)
        remarks = _draw_panel(panel, quantity, found)
        panel.set_xlabel("; ".join(["layer", *sorted(remarks)]))
        figures[quantity.label] = figure
    return figures


def _measured(found: Sequence[Statistics]) -> list[_Quantity]:
    return [q for q in QUANTITIES if any(value is not None for one in found for value in q.values(one))]


def _draw_panel(panel: Axes, quantity: _Quantity, found: Sequence[Statistics]) -> set[str]:
    """A line over the layers for each of ``found``; returns remarks that explain marks."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    remarks: set[str] = set()
    tidy(panel, quantity.label, "")
    panel.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if quantity.top is None:
        panel.set_yscale("log")
    for order, one in enumerate(found):
        line = _line(panel, quantity, one)
        _style(line, order, found)
        remarks |= _mark(panel, quantity, one, str(line.get_color()))
    low, high = panel.get_ylim()
    if quantity.top is not None:
        panel.set_ylim(min(-0.04 * quantity.top, low), 1.06 * quantity.top)
        return remarks
    if 1 < high / low < FEW_DECADES:  # decades alone would be one or two
        shown = ticks(low, high)
        panel.set_yticks(shown, [plain(value) for value in shown])
    else:
        panel.yaxis.set_major_locator(LogLocator(numticks=6))
    panel.minorticks_off()
    return remarks


def _style(line: Line2D, order: int, found: Sequence[Statistics]) -> None:
    """The first line vermillion and dashed, on top; the last blue; those between grey."""
    label, count = found[order].moment, len(found)
    if order == 0:
        dashes = (0, (3, 1)) if count > 1 else "-"
        line.set(color=FIRST, linewidth=2.4, linestyle=dashes, zorder=5, label=label)
    elif order == count - 1:
        line.set(color=LAST, linewidth=2.4, zorder=4, label=label)
    else:
        share = (order - 1) / max(count - 3, 1)
        grey = str((1 - share) * GREYS[0] + share * GREYS[1])
        line.set(color=grey, linewidth=1.3, zorder=3, label=label if order in (1, count - 2) else None)


def _line(panel: Axes, quantity: _Quantity, found: Statistics) -> Line2D:
    """A line over the layers; a gap where a value has no place on the axis."""
    heights = [
        quantity.scale * value
        if value is not None and math.isfinite(value) and (value > 0 or quantity.top is not None)
        else math.nan
        for value in quantity.values(found)
    ]
    dotted = None if len(heights) <= DOTS_UP_TO else isolated(heights)  # of many layers only where no line leads
    return panel.plot(range(1, len(heights) + 1), heights, marker="o", markersize=4.5, markevery=dotted)[0]


def _mark(panel: Axes, quantity: _Quantity, found: Statistics, shade: str) -> set[str]:
    """Mark at the edge of a panel the layers that a line cannot show; returns remarks that explain the marks."""
    values = list(enumerate(quantity.values(found), start=1))
    infinite = [index for index, value in values if value is not None and not math.isfinite(value)]
    zero = [index for index, value in values if value == 0 and quantity.top is None]
    remarks = set()
    for marked, symbol, height, remark in ((infinite, "x", 0.95, "×: not finite"), (zero, "v", 0.05, "▼: zero")):
        if marked:
            edge = panel.get_xaxis_transform()
            panel.plot(marked, [height] * len(marked), symbol, transform=edge, color=shade, markersize=5)
            remarks.add(remark)
    return remarks
