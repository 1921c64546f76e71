"""Error and loss as lines: against the factor with intervals and every run, and against epoch, a panel per level."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from netdepth.report.data import StudyData, StudyRun
from netdepth.report.style import (
    INK,
    MUTED,
    PAPER,
    add_legend,
    colour,
    condition_line,
    dash,
    figure_of,
    grid_of,
    marker,
    ticks,
    tidy,
)  # fmt: skip
from netdepth.runs.table import number_of
from netdepth.stats.intervals import Estimate, mean_interval
from netdepth.studyspec import DEPTH
from netdepth.text import plain, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "CURVES", "QUANTITIES", "Panel", "against", "chance_of", "curve_figure", "curves_of", "curves_overview",
    "factor_title", "has_curves", "labels_of", "level_figure", "level_overview", "mean_of", "panels_of", "values_of",
]  # fmt: skip

CURVES = {"error": ("train_accuracy", "val_accuracy"), "loss": ("train_loss", "val_loss")}
"""The fields of a record of ``metrics.jsonl`` for each metric: training, validation."""
CURVE_STYLES: tuple[Any, Any] = ((0, (3, 1.6)), "-")
"""Dashes of training and of validation."""


@dataclass(frozen=True)
class Panel:
    """What is drawn: a column of the table (an ``error`` is 1 - accuracy, in per cent)."""

    key: str
    title: str
    column: str
    error: bool

    def of(self, run: StudyRun) -> float:
        """The run's value; infinite where it has no finite one."""
        value = run.row.made.scores[self.column]
        if value is None or not math.isfinite(value):
            return math.inf
        return 100 * (1 - value) if self.error else float(value)


QUANTITIES = (
    Panel("train-error", "Training error (%)", "train_last_accuracy", True),
    Panel("val-error", "Validation error (%)", "val_last_accuracy", True),
    Panel("train-loss", "Training loss (nats)", "train_last_loss", False),
    Panel("val-loss", "Validation loss (nats)", "val_last_loss", False),
)
VALUE_QUANTITIES = (
    Panel("train-loss", "Training loss", "train_last_loss", False),
    Panel("val-loss", "Validation loss", "val_last_loss", False),
)
"""Of a study whose runs learn values."""


def panels_of(data: StudyData) -> tuple[Panel, ...]:
    """What is drawn of ``data`` against the factor."""
    return VALUE_QUANTITIES if data.values else QUANTITIES


def curves_of(data: StudyData) -> dict[str, tuple[str, str]]:
    """The `CURVES` that ``data`` has."""
    return {metric: fields for metric, fields in CURVES.items() if metric == "loss" or not data.values}


def values_of(data: StudyData, quantity: Panel) -> dict[tuple[str, str], list[float]]:
    """The values of the finished runs by condition and level; infinite where a run has no finite one."""
    return {place: [quantity.of(run) for run in runs if run.finished] for place, runs in data.cells.items()}


def mean_of(values: Sequence[float], quantity: Panel) -> Estimate | None:
    """The mean over the seeds with its interval; None unless every run has a value.

    The interval ends at 0, and of losses, whose axis is logarithmic, at half of the smallest one.
    """
    if not values or not all(map(math.isfinite, values)):
        return None
    found, floor = mean_interval(values), 0.0 if quantity.error else min(values) / 2
    return found if found.low is None else dataclasses.replace(found, low=max(found.low, floor))


def labels_of(data: StudyData) -> list[str]:
    """The conditions as people read them, in the order given."""
    return [data.spec.label_of(name) or "all runs" for name in data.spec.conditions]


def chance_of(data: StudyData, quantity: Panel) -> float | None:
    """What guessing all classes alike gives; None while the classes are not known, or where they are not the same."""
    if data.verdict is None or data.verdict.scale is None:
        return None
    scale = data.verdict.scale
    return 100 * (1 - 1 / scale.classes) if quantity.error else scale.chance


# --- against the factor ---


def against(data: StudyData) -> str:
    """What the figures show errors against: ``against depth``, ``by condition``."""
    return f"against {data.spec.factor_name}" if data.spec.factor is not None else "by condition"


def factor_title(data: StudyData) -> str:
    """The factor with its unit, below its axis."""
    return f"{DEPTH} (weight layers)" if data.spec.factor == DEPTH else data.spec.factor_name


def level_figure(data: StudyData, quantity: Panel) -> Figure:
    """One panel of its own."""
    figure, (axes,) = figure_of(4.4, 3.2)
    _draw_levels(axes, data, quantity)
    return figure


def level_overview(data: StudyData) -> Figure:
    """All four panels (of values two) with a legend, for a page without styles."""
    drawn = panels_of(data)
    figure, panels = figure_of(10, 4.1 * len(drawn) / 2, len(drawn) // 2, 2)
    for quantity, axes in zip(drawn, panels, strict=True):
        _draw_levels(axes, data, quantity)
    add_legend(figure, [condition_line(i, label) for i, label in enumerate(labels_of(data))], 3, size=10)
    return figure


def _draw_levels(axes: Axes, data: StudyData, quantity: Panel) -> None:
    tidy(axes, quantity.title, factor_title(data), size=10)
    cells = values_of(data, quantity)
    levels, conditions, joined = data.spec.levels, data.spec.conditions, data.spec.factor_axis.numeric
    places = _factor_axis(axes, levels, joined)
    drawn = [value for values in cells.values() for value in values if math.isfinite(value)]
    chance = chance_of(data, quantity)
    _value_axis(axes, [*drawn, *([chance] if chance is not None else [])], quantity.error)
    if chance is not None:
        axes.axhline(chance, color=MUTED, linewidth=0.8, linestyle=(0, (1, 2)), zorder=1)
        edge = axes.get_yaxis_transform()
        box = {"facecolor": PAPER, "edgecolor": "none", "pad": 0.8}
        axes.text(0.01, chance, "chance", transform=edge, ha="left", va="center", fontsize=9, color=MUTED, bbox=box)
    floor = axes.get_ylim()[0]
    spread = min((b - a for a, b in itertools.pairwise(places)), default=1.0) * 0.55
    spread = min(spread, 0.018 * len(conditions) * (places[-1] - places[0]) or spread)
    for index, condition in enumerate(conditions):
        aside = spread * ((index + 0.5) / len(conditions) - 0.5)
        _draw_condition(axes, index, [place + aside for place in places],
                        [cells[condition, level] for level in levels], quantity, floor, joined)  # fmt: skip


def _draw_condition(
    axes: Axes, index: int, places: Sequence[float], cells: Sequence[Sequence[float]], quantity: Panel, floor: float,
    joined: bool,
) -> None:  # fmt: skip
    """One condition: its mean and interval at each place, a point per run, crosses for runs without a finite value.
    Places of an order are ``joined`` by a line and a band."""
    shade = colour(index)
    means = [mean_of(values, quantity) for values in cells]
    ends = [(None, None, None) if mean is None else (mean.value, mean.low, mean.high) for mean in means]
    lines = zip(*ends, strict=True)
    centre, low, high = ([math.nan if end is None else max(end, floor) for end in line] for line in lines)
    if joined and len(places) > 1:
        axes.fill_between(places, low, high, color=shade, alpha=0.16, linewidth=0, zorder=2)
    else:  # a band of one place has no width
        ends_of = [(x, a, b) for x, a, b in zip(places, low, high, strict=True) if not math.isnan(a)]
        for x, a, b in ends_of:
            axes.vlines(x, a, b, color=shade, linewidth=1.5, zorder=4)
    points = [(x, y) for x, values in zip(places, cells, strict=True) for y in values]
    finite = [(x, max(y, floor)) for x, y in points if math.isfinite(y)]
    xs, ys = [x for x, _ in finite], [y for _, y in finite]
    axes.plot(xs, ys, marker(index), color=shade, markersize=2.2, alpha=0.5, markeredgewidth=0, zorder=3)
    axes.plot(places, centre, color=shade, linewidth=1.5, linestyle=dash(index) if joined else "", zorder=4)
    axes.plot(places, centre, marker(index), color=shade, markersize=4.6, markeredgecolor=PAPER, markeredgewidth=0.7,
              zorder=5)  # fmt: skip
    lost = [x for x, y in points if not math.isfinite(y)]
    top = axes.get_xaxis_transform()
    axes.plot(lost, [0.985] * len(lost), "x", color=shade, markersize=4.5, transform=top, zorder=6)


def _factor_axis(axes: Axes, levels: Sequence[str], numeric: bool) -> list[float]:
    """Put ``levels`` on the x axis, numbers to scale, by their logarithm if they span much; returns where each lies."""
    places = [float(level) for level in levels] if numeric else [float(place) for place in range(len(levels))]
    if numeric and places[0] > 0 and places[-1] >= 6 * places[0]:
        places = [math.log2(place) for place in places]
    margin = 0.06 * (places[-1] - places[0]) or 0.5
    axes.set_xlim(places[0] - margin, places[-1] + margin)
    axes.set_xticks(places, [printable(level) for level in levels], parse_math=False)
    return places


def _value_axis(axes: Axes, values: Sequence[float], error: bool) -> None:
    """Logarithmic where the values span much; errors, in per cent, even below the smallest one so that 0 is there."""
    positive = [value for value in values if value > 0 and math.isfinite(value)]
    if not positive or max(positive) < (6 if error else 4) * min(positive):
        finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
        low, high = min(finite), max(finite)
        margin = 0.06 * (high - low) or 0.5
        axes.set_ylim(max(low - margin, 0.0) if low >= 0 else low - margin, high + margin)
        return
    low, high = min(positive) / 1.25, 1.3 * max(positive)
    if error:
        high = min(high, 104.0)
    if error and (min(values) <= 0 or low < 0.05):
        even = 10.0 ** max(math.floor(math.log10(low)), -1)
        axes.set_yscale("symlog", linthresh=even, linscale=0.35)
        low, shown = -0.02 * even, [0.0, *ticks(even, high)]
    else:
        axes.set_yscale("log")
        shown = ticks(low, high)
    axes.set_ylim(low, high)
    axes.set_yticks(shown, [plain(value) for value in shown])
    axes.minorticks_off()


# --- against epoch ---


def has_curves(data: StudyData) -> bool:
    """Whether any run has been evaluated."""
    return any(run.records for run in data.runs)


def curve_figure(data: StudyData, level: str, metric: str) -> Figure:
    """The learning curves at one level; all levels have the same axes, so that they can be compared."""
    figure, (axes,) = figure_of(3.5, 2.75)
    _draw_curves(axes, data, level, metric, _all_values(data, metric))
    return figure


def curves_overview(data: StudyData) -> Figure:
    """The error (of values the loss) at all levels with a legend, for a page without styles."""
    from matplotlib.lines import Line2D

    levels = data.spec.levels
    figure, panels = grid_of(len(levels), 4, 2.9)
    metric = next(iter(curves_of(data)))
    values = _all_values(data, metric)
    for level, axes in zip(levels, panels, strict=True):
        _draw_curves(axes, data, level, metric, values)
    handles = [condition_line(i, label, dashed=False) for i, label in enumerate(labels_of(data))]
    for style, part in zip(CURVE_STYLES, ("training", "validation"), strict=True):
        handles.append(Line2D([], [], color=INK, linestyle=style, label=part))
    add_legend(figure, handles, min(len(levels), 4))
    return figure


def _draw_curves(axes: Axes, data: StudyData, level: str, metric: str, values: Sequence[float]) -> None:
    """Per condition the mean of the finished runs, thick, and every run, thin; ``values`` decide the y axis."""
    from matplotlib.collections import LineCollection
    from matplotlib.ticker import MaxNLocator

    conditions = data.spec.conditions
    unit = "error (%)" if metric == "error" else "loss" if data.values else "loss (nats)"
    tidy(axes, ": ".join(filter(None, [data.spec.place(level), unit])), "epoch", size=9)
    _value_axis(axes, values, error=metric == "error")
    top = axes.get_ylim()[1]
    for index, condition in enumerate(conditions):
        runs = data.cells[condition, level]
        for field, style, weight in zip(CURVES[metric], CURVE_STYLES, (1.1, 1.7), strict=True):
            curves = [curve for run in runs if (curve := _curve(run, field))]
            lines = LineCollection([list(curve.items()) for curve in curves], colors=colour(index), alpha=0.22)
            lines.set(linewidth=0.5, linestyle=style, zorder=2)
            axes.add_collection(lines, autolim=False)
            whole = [_curve(run, field) for run in runs if run.finished] or curves
            shared = sorted(set.intersection(*map(set, whole))) if whole else []
            mean = [math.fsum(curve[epoch] for curve in whole) / len(whole) for epoch in shared]
            line = axes.plot(shared, mean, color=colour(index), linewidth=weight, linestyle=style, zorder=3)[0]
            if field.startswith("val") or len(mean) == 1:  # not by colour alone; and a line needs two points
                every = max(1, -(-len(mean) // 5))
                line.set(marker=marker(index), markersize=4.2, markevery=((index * every) // len(conditions), every))
                line.set(markeredgecolor=PAPER, markeredgewidth=0.5)
        for run in runs:
            if run.row.made.status == "diverged" and run.records:
                end = max(_curve(run, CURVES[metric][0]), default=run.records[-1]["epoch"])
                axes.plot([end], [top], "x", color=colour(index), markersize=4, clip_on=False, zorder=4)
    last = max((record["epoch"] for run in data.runs for record in run.records), default=1.0)
    axes.set_xlim(0, last * 1.02)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True, min_n_ticks=1))


def _curve(run: StudyRun, field: str) -> dict[float, float]:
    """The finite values of a field by epoch; accuracies as errors in per cent."""
    found = {}
    for record in run.records:
        value = number_of(record.get(field))
        if value is not None and math.isfinite(value):
            found[float(record["epoch"])] = 100 * (1 - value) if field.endswith("accuracy") else float(value)
    return found


def _all_values(data: StudyData, metric: str) -> list[float]:
    """The values at all levels."""
    return [value for run in data.runs for field in CURVES[metric] for value in _curve(run, field).values()] or [0, 1]
