"""Learning curves, a panel per depth, after He et al. 2016, Fig. 6: dashed training, solid validation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from netdepth.report.data import Run, StudyData
from netdepth.report.depth_figures import error_axis, loss_axis
from netdepth.report.style import INK, MARKERS, PAPER, colour, figure_of, tidy
from netdepth.runs.table import number_of
from netdepth.text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["FIELDS", "curve_figure", "curves_overview", "has_curves"]

FIELDS = {"error": ("train_accuracy", "val_accuracy"), "loss": ("train_loss", "val_loss")}
"""The fields of a record of ``metrics.jsonl`` for each metric: training, validation."""

STYLES: tuple[Any, Any] = ((0, (3, 1.6)), "-")
Curve = dict[float, float]


def has_curves(data: StudyData) -> bool:
    """Whether there is anything to draw."""
    return any(run.records for run in data.runs)


def curve_figure(data: StudyData, depth: int, metric: str) -> Figure:
    """One depth; all depths have the same axes, so that they can be compared."""
    figure, (axes,) = figure_of(3.5, 2.75, left=0.115, right=0.985, top=0.885, bottom=0.155)
    _draw(axes, data, depth, metric, _range(data, metric))
    return figure


def curves_overview(data: StudyData) -> Figure:
    """All depths, error above and loss below, with a legend, for a page without styles."""
    from matplotlib.lines import Line2D

    depths = data.spec.depths
    columns = min(4, len(depths))
    rows = -(-len(depths) // columns)
    height = 2.5 * rows + 0.9
    figure, panels = figure_of(
        max(2.9 * columns, 6.0), height, rows, columns,
        left=0.05, right=0.99, top=1 - 0.3 / height, bottom=1.3 / height, hspace=0.42, wspace=0.2,
    )  # fmt: skip
    limits = _range(data, "error")
    for depth, axes in zip(depths, panels, strict=False):
        _draw(axes, data, depth, "error", limits)
    for axes in panels[len(depths) :]:
        axes.set_visible(False)
    handles = [
        Line2D([], [], color=colour(i), marker=MARKERS[i % len(MARKERS)], label=printable(name))
        for i, name in enumerate(data.spec.conditions)
    ]
    handles += [Line2D([], [], color=INK, linestyle=STYLES[0], label="training")]
    handles += [Line2D([], [], color=INK, linestyle=STYLES[1], label="validation")]
    legend = figure.legend(handles=handles, loc="lower center", ncols=min(columns, 4), frameon=False, fontsize=9.5)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def _draw(axes: Axes, data: StudyData, depth: int, metric: str, values: Sequence[float]) -> None:
    from matplotlib.collections import LineCollection
    from matplotlib.ticker import MaxNLocator

    unit = "error (%)" if metric == "error" else "loss (nats)"
    tidy(axes, f"depth {depth}: {unit}", "epoch", size=9)
    (error_axis if metric == "error" else loss_axis)(axes, values)
    top = axes.get_ylim()[1]
    last = max((record["epoch"] for run in data.runs for record in run.records), default=1.0)
    for index, condition in enumerate(data.spec.conditions):
        runs = data.cells[condition, depth]
        for field, style, weight in zip(FIELDS[metric], STYLES, (1.1, 1.7), strict=True):
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
                start = (index * every) // len(data.spec.conditions)
                line.set(marker=MARKERS[index % len(MARKERS)], markersize=4.2, markevery=(start, every))
                line.set(markeredgecolor=PAPER, markeredgewidth=0.5)
        for run in runs:
            _mark_end(axes, run, FIELDS[metric][0], index, top)
    axes.set_xlim(0, last * 1.02)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True, min_n_ticks=1))


def _mark_end(axes: Axes, run: Run, field: str, index: int, top: float) -> None:
    """A cross at the top where a run diverged."""
    if run.row["status"] != "diverged" or not run.records:
        return
    curve = _curve(run, field)
    epoch = max(curve, default=run.records[-1]["epoch"])
    axes.plot([epoch], [top], "x", color=colour(index), markersize=4, clip_on=False, zorder=4)


def _curve(run: Run, field: str) -> Curve:
    """The finite values of a field by epoch; accuracies as errors in per cent."""
    found = {}
    for record in run.records:
        value = _finite(record, field)
        if value is not None:
            found[float(record["epoch"])] = 100 * (1 - value) if field.endswith("accuracy") else value
    return found


def _finite(record: Mapping[str, Any], field: str) -> float | None:
    value = number_of(record.get(field))
    return float(value) if value is not None and math.isfinite(value) else None


def _range(data: StudyData, metric: str) -> list[float]:
    """All values drawn, of all depths."""
    return [value for run in data.runs for field in FIELDS[metric] for value in _curve(run, field).values()] or [
        0.0,
        1.0,
    ]
