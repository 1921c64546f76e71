"""Learning curves as PNG files, drawn from ``metrics.jsonl`` and ``result.json`` alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netdepth.errors import BadInput
from netdepth.report.style import (
    INK,
    MUTED,
    PAPER,
    add_legend,
    colour,
    figure_of,
    isolated,
    quiet,
    save_png,
    shortened,
    ticks,
    tidy,
)  # fmt: skip
from netdepth.runs.folder import RunDir, slug
from netdepth.runs.table import RunRow, number_of, run_row, status_words
from netdepth.text import capitalised, plain, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

__all__ = ["current_curves", "curve_figures", "learning_curves", "learning_curves_many"]

PARTS = {"train": ("train", colour(0)), "val": ("validation", colour(1))}
"""The name and the colour of each part of the data."""
Metrics = dict[str, tuple[str, float]]
"""The label of a metric's axis, and what its values are multiplied by."""


def _metrics(row: RunRow) -> Metrics:
    """What is drawn of a run; one that learns values has the R² of validation where others have accuracies."""
    if row.values:
        return {"loss": (f"loss ({row.objective})", 1.0), "r2": ("R² of validation", 1.0)}
    return {"loss": ("loss (nats)", 1.0), "accuracy": ("accuracy (%)", 100.0)}


NOTE = "train: mean over the epoch while it ran; validation: at its end"


@dataclass(frozen=True)
class _Curves:
    """One run: its row of the table, its epochs, and by metric its scaled values, NaN where there is no finite one."""

    row: RunRow
    epochs: list[float]
    values: dict[str, list[float]]


def learning_curves(run: RunDir) -> Path:
    """Draw ``figures/learning_curves.png`` in the run folder: loss and accuracy (or R²), train and validation.

    The best epoch and the onset of overfitting are marked. A run with one record, or one that
    diverged or is unfinished, is drawn as far as it came.

    Raises:
        BadInput: the run has no evaluation yet.
        StorageError: the file cannot be written.
    """
    curves = _read(run)
    row = curves.row
    figure, panels = _figure(f"{row.title}, seed {row.seed}", status_words(row), row)
    for metric, axes in panels.items():
        lines = _draw_run(axes, curves, metric)
    if lines:
        add_legend(figure, lines, len(lines))
    return save_png(figure, run.path / "figures" / "learning_curves.png")


def current_curves(run: RunDir) -> Path:
    """The picture of `learning_curves`, drawn anew only if a record or the result was written after it.

    Raises:
        BadInput, StorageError: as `learning_curves`.
    """
    path, read = run.path / "figures" / "learning_curves.png", (run.path / "metrics.jsonl", run.path / "result.json")
    times = [file.stat().st_mtime_ns for file in (path, *read) if file.is_file()]
    return path if path.is_file() and times[0] == max(times) else learning_curves(run)


def curve_figures(run: RunDir) -> dict[str, Figure]:
    """The same as a figure of its own for each metric, for a page.

    Raises:
        BadInput: the run has no evaluation yet.
    """
    curves, figures = _read(run), {}
    for metric, (label, _) in _metrics(curves.row).items():
        figure, (axes,) = figure_of(4.6, 3.2)
        tidy(axes, capitalised(label), "epoch", size=10)
        lines = _draw_run(axes, curves, metric)
        if lines:
            add_legend(figure, lines, 2, size=9)
        figures[metric] = figure
    return figures


def _draw_run(axes: Axes, curves: _Curves, metric: str) -> list[Line2D]:
    """Both curves of a metric; returns the lines that mark an epoch."""
    row, best = curves.row, curves.row.best_epoch
    marks = (
        ("best weights: epoch", colour(2), best),
        ("overfits since epoch", colour(3), row.overfit_onset_epoch),
        ("diverged at epoch", INK, row.epochs if row.status == "diverged" else None),
    )
    for part in PARTS:
        _line(axes, curves, part, metric, linewidth=2.2)
    lines = [
        axes.axvline(epoch, color=shade, linewidth=1.6, linestyle="--", zorder=1, label=f"{text} {plain(epoch)}")
        for text, shade, epoch in marks
        if epoch is not None
    ]
    if best in curves.epochs:
        value = curves.values[f"val_{metric}"][curves.epochs.index(best)]
        axes.plot([best], [value], "o", color=colour(2), markersize=9, markeredgecolor=PAPER, zorder=4)
    _scale(axes, metric, [curves])
    _name_lines(axes, {part: curves.values[f"{part}_{metric}"] for part in PARTS})
    return lines


def learning_curves_many(runs: Sequence[RunDir]) -> Path:
    """Overlay several runs, say the seeds of one config, with their mean while all of them still train.

    Written to ``figures/`` beside the first run's folder and named after its recipe, fingerprint
    and the number of runs. Runs without an evaluation are left out of the picture and counted in it.

    Raises:
        BadInput: no run has an evaluation yet.
    """
    drawn = [_read(run) for run in runs if run.read_metrics()]
    if not drawn:
        raise BadInput("none of these runs has an evaluation yet; there is nothing to draw")
    row = drawn[0].row
    missing = f"; {len(runs) - len(drawn)} without any evaluation" if len(drawn) < len(runs) else ""
    diverged = sum(curves.row.status == "diverged" for curves in drawn)
    subtitle = f"thin: runs, thick: mean{f'; {diverged} diverged' if diverged else ''}{missing}"
    figure, panels = _figure(f"{row.title}, {len(drawn)} runs", subtitle, row)
    common = sorted(set.intersection(*(set(curves.epochs) for curves in drawn)))
    for metric, axes in panels.items():
        ends = {}
        for part, (_, shade) in PARTS.items():
            key = f"{part}_{metric}"
            for curves in drawn:
                _line(axes, curves, part, metric, linewidth=0.9, alpha=0.45)
            by_epoch = [dict(zip(curves.epochs, curves.values[key], strict=True)) for curves in drawn]
            mean = [math.fsum(values[epoch] for values in by_epoch) / len(drawn) for epoch in common]
            axes.plot(common, mean, color=shade, linewidth=3, marker="o" if len(common) == 1 else None)
            ends[part] = mean if common else drawn[0].values[key]
        _scale(axes, metric, drawn)
        _name_lines(axes, ends)
    name = f"{slug(row.recipe or 'runs')}-{slug(str(row.fingerprint))}-{len(runs)}-runs.png"
    return save_png(figure, runs[0].path.parent / "figures" / name)


def _read(run: RunDir) -> _Curves:
    records = run.read_metrics()
    if not records:
        raise BadInput(f"{run.path} has no evaluation yet; there is nothing to draw")

    def column(key: str, scale: float = 1.0) -> list[float]:
        found = [number_of(record.get(key)) for record in records]
        return [math.nan if value is None else scale * value for value in found]

    row = run_row(run)
    shown = _metrics(row).items()
    values = {f"{part}_{metric}": column(f"{part}_{metric}", scale) for part in PARTS for metric, (_, scale) in shown}
    return _Curves(row, column("epoch"), values)


def _figure(title: str, subtitle: str, row: RunRow) -> tuple[Figure, dict[str, Axes]]:
    """The figure and its panel of each metric of runs such as that of ``row``."""
    figure, panels = figure_of(6.0, 7.6, 2)
    figure.suptitle(shortened(printable(title), 52), x=0.03, ha="left", size=14, weight="bold", parse_math=False)
    panels[0].set_title(shortened(printable(subtitle), 64), loc="left", fontsize=10.5, color=MUTED, parse_math=False)
    shown = _metrics(row)
    for (label, _), axes in zip(shown.values(), panels, strict=True):
        axes.set_ylabel(label, fontsize=12)
        quiet(axes, 11)
    panels[0].tick_params(labelbottom=False)
    lines = ["epoch", NOTE]
    if row.objective is not None and not row.values:
        lines.append(f"training loss: {shortened(printable(row.objective), 40)}; validation loss: plain cross-entropy")
    panels[1].set_xlabel("\n".join(lines), fontsize=10, parse_math=False)
    return figure, dict(zip(shown, panels, strict=True))


def _line(axes: Axes, curves: _Curves, part: str, metric: str, **style: Any) -> None:
    values = curves.values[f"{part}_{metric}"]
    few = sum(map(math.isfinite, values)) <= 2
    dotted = None if few else isolated(values)  # a line needs two points
    axes.plot(curves.epochs, values, color=PARTS[part][1], marker="o", markersize=6, markevery=dotted, **style)


def _scale(axes: Axes, metric: str, drawn: Sequence[_Curves]) -> None:
    """Epochs as whole numbers; a loss that spans more than a factor of 30 on a log axis."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
    values = [y for curves in drawn for part in PARTS for y in curves.values[f"{part}_{metric}"] if math.isfinite(y)]
    if metric == "loss" and values and min(values) > 0 and max(values) > 30 * min(values):
        axes.set_yscale("log")
        shown = ticks(*axes.get_ylim())
        axes.set_yticks(shown, [plain(value) for value in shown])
        axes.minorticks_off()
    low, high = axes.get_xlim()
    if high - low < 1:
        axes.set_xlim(low - 0.5, high + 0.5)


def _name_lines(axes: Axes, ends: Mapping[str, Sequence[float]]) -> None:
    """Each curve's name and last finite value right of the panel."""
    from matplotlib.lines import Line2D

    handles = []
    for part, values in ends.items():
        name, shade = PARTS[part]
        if finite := [value for value in values if math.isfinite(value)]:
            handles.append(Line2D([], [], color=shade, linewidth=2.2, label=f"{name}\n{plain(finite[-1], 4)}"))
    place: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1, 0.5), "frameon": False, "handlelength": 1}
    axes.legend(handles=handles, labelcolor="linecolor", fontsize=11, **place)
