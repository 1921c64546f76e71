"""Loss and error against depth: a line per condition with its interval, and every run as a point."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from netdepth.report.data import StudyData
from netdepth.report.style import DASHES, MARKERS, MUTED, PAPER, colour, figure_of, ticks, tidy
from netdepth.stats.intervals import Estimate, mean_interval
from netdepth.text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "QUANTITIES",
    "Quantity",
    "depth_axis",
    "depth_figure",
    "depth_overview",
    "error_axis",
    "loss_axis",
    "summary",
]


@dataclass(frozen=True)
class Quantity:
    """What is drawn: a column of the table (an ``error`` is 1 - accuracy, in per cent)."""

    key: str
    title: str
    column: str
    error: bool

    def of(self, row: object) -> float | None:
        """The run's value; None where there is none, NaN where it was not finite."""
        value = row[self.column]  # type: ignore[index]
        if value is None:
            return None
        return 100 * (1 - value) if self.error else float(value)


QUANTITIES = (
    Quantity("train-error", "Training error (%)", "train_last_accuracy", True),
    Quantity("val-error", "Validation error (%)", "val_last_accuracy", True),
    Quantity("train-loss", "Training loss (nats)", "train_last_loss", False),
    Quantity("val-loss", "Validation loss (nats)", "val_last_loss", False),
)


def values_of(data: StudyData, quantity: Quantity) -> dict[tuple[str, int], list[float]]:
    """The values of the finished runs by cell; infinite where a run has no finite one."""
    found = {}
    for place, runs in data.cells.items():
        values = [quantity.of(run.row) for run in runs if run.finished]
        found[place] = [value if value is not None and math.isfinite(value) else math.inf for value in values]
    return found


def summary(values: Sequence[float], quantity: Quantity) -> Estimate | None:
    """The mean over the seeds with its interval (of losses the geometric one); None unless every run has a value."""
    if not values or not all(map(math.isfinite, values)):
        return None
    if not quantity.error and min(values) > 0:
        return mean_interval(values, scale="log")
    found = mean_interval(values)
    return found if found.low is None else dataclasses.replace(found, low=max(found.low, 0.0))


def depth_figure(data: StudyData, quantity: Quantity) -> Figure:
    """One panel of its own."""
    figure, (axes,) = figure_of(4.4, 3.2, left=0.105, right=0.985, top=0.89, bottom=0.15)
    _draw(axes, data, quantity)
    return figure


def depth_overview(data: StudyData) -> Figure:
    """All four panels with a legend, for a page without styles."""
    from matplotlib.lines import Line2D

    figure, panels = figure_of(10, 8.2, 2, 2, left=0.055, right=0.985, top=0.955, bottom=0.14, hspace=0.27, wspace=0.13)
    for quantity, axes in zip(QUANTITIES, panels, strict=True):
        _draw(axes, data, quantity)
    handles = [
        Line2D(
            [],
            [],
            color=colour(i),
            linestyle=DASHES[i % len(DASHES)],
            marker=MARKERS[i % len(MARKERS)],
            label=printable(name),
        )
        for i, name in enumerate(data.spec.conditions)
    ]
    legend = figure.legend(handles=handles, loc="lower center", ncols=3, frameon=False, fontsize=10)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def _draw(axes: Axes, data: StudyData, quantity: Quantity) -> None:
    tidy(axes, quantity.title, "depth (weight layers)", size=10)
    cells = values_of(data, quantity)
    depths = data.spec.depths
    place = depth_axis(axes, depths)
    drawn = [value for values in cells.values() for value in values if math.isfinite(value)]
    chance = _chance(data, quantity)
    scale = error_axis if quantity.error else loss_axis
    scale(axes, [*drawn, *([chance] if chance is not None else [])])
    if chance is not None:
        axes.axhline(chance, color=MUTED, linewidth=0.8, linestyle=(0, (1, 2)), zorder=1)
        edge = axes.get_yaxis_transform()
        axes.text(0.005, chance, "chance", transform=edge, ha="left", va="top", fontsize=9, color=MUTED)
    floor = axes.get_ylim()[0]
    conditions = data.spec.conditions
    spread = min((b - a for a, b in itertools.pairwise(place)), default=1.0) * 0.55
    spread = min(spread, 0.018 * len(conditions) * (place[-1] - place[0]) or spread)
    for index, condition in enumerate(conditions):
        aside = spread * ((index + 0.5) / len(conditions) - 0.5)
        marker, dash = MARKERS[index % len(MARKERS)], DASHES[index % len(DASHES)]
        means = [summary(cells[condition, depth], quantity) for depth in depths]
        xs = [x + aside for x in place]
        centre = [math.nan if m is None or m.value is None else max(m.value, floor) for m in means]
        low = [math.nan if m is None or m.low is None else max(m.low, floor) for m in means]
        high = [math.nan if m is None or m.high is None else m.high for m in means]
        axes.fill_between(xs, low, high, color=colour(index), alpha=0.16, linewidth=0, zorder=2)
        if len(xs) == 1 and not math.isnan(low[0]):  # a band of one place has no width
            axes.vlines(xs, low, high, color=colour(index), linewidth=1.5, zorder=4)
        points = [(x, max(y, floor)) for x, depth in zip(xs, depths, strict=True) for y in cells[condition, depth]]
        finite = [point for point in points if math.isfinite(point[1])]
        lost = [x for x, y in points if not math.isfinite(y)]
        axes.plot(
            *_columns(finite), marker, color=colour(index), markersize=2.2, alpha=0.5, markeredgewidth=0, zorder=3
        )
        axes.plot(xs, centre, color=colour(index), linewidth=1.5, linestyle=dash, zorder=4)
        axes.plot(
            xs,
            centre,
            marker,
            color=colour(index),
            markersize=4.6,
            markeredgecolor=PAPER,
            markeredgewidth=0.7,
            zorder=5,
        )
        top = axes.get_xaxis_transform()
        axes.plot(lost, [0.985] * len(lost), "x", color=colour(index), markersize=4.5, transform=top, zorder=6)


def depth_axis(axes: Axes, depths: Sequence[int]) -> list[float]:
    """Put ``depths`` on the x axis, by their logarithm if they span much; returns where each lies."""
    logarithmic = depths[-1] >= 6 * depths[0]
    place = [math.log2(depth) if logarithmic else float(depth) for depth in depths]
    margin = 0.06 * (place[-1] - place[0]) or 0.5
    axes.set_xlim(place[0] - margin, place[-1] + margin)
    axes.set_xticks(place, [str(depth) for depth in depths])
    return place


def loss_axis(axes: Axes, values: Sequence[float]) -> None:
    """Losses: logarithmic where they span more than a factor of four."""
    positive = [value for value in values if value > 0 and math.isfinite(value)]
    if not positive or max(positive) < 4 * min(positive):
        _linear(axes, values)
        return
    low, high = min(positive) / 1.25, max(positive) * 1.35
    axes.set_yscale("log")
    _log_ticks(axes, low, high, ticks(low, high))


def error_axis(axes: Axes, values: Sequence[float]) -> None:
    """Errors in per cent: where they span much, logarithmic above the smallest one, even below so that 0 is there."""
    positive = [value for value in values if value > 0 and math.isfinite(value)]
    if not positive or max(positive) < 6 * min(positive):
        _linear(axes, values)
        return
    low, high = min(positive) / 1.2, min(max(positive) * 1.25, 104.0)
    if min(values) <= 0 or low < 0.05:
        even = 10.0 ** max(math.floor(math.log10(low)), -1)
        axes.set_yscale("symlog", linthresh=even, linscale=0.35)
        _log_ticks(axes, -0.02 * even, high, [0.0, *ticks(even, high)])
        return
    axes.set_yscale("log")
    _log_ticks(axes, low, high, ticks(low, high))


def _linear(axes: Axes, values: Sequence[float]) -> None:
    finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    margin = 0.06 * (max(finite) - min(finite)) or 0.5
    axes.set_ylim(max(min(finite) - margin, 0.0) if min(finite) >= 0 else min(finite) - margin, max(finite) + margin)


def _log_ticks(axes: Axes, low: float, high: float, where: Sequence[float]) -> None:
    from matplotlib.ticker import NullLocator

    axes.set_ylim(low, high)
    axes.set_yticks(where, [f"{value:g}" for value in where])
    axes.yaxis.set_minor_locator(NullLocator())


def _chance(data: StudyData, quantity: Quantity) -> float | None:
    """What guessing all classes alike gives."""
    if data.verdict is None:
        return None
    scale = data.verdict.scale
    return 100 * (1 - 1 / scale.classes) if quantity.error else scale.chance


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]
