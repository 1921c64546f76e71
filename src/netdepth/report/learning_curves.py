"""Learning curves as PNG files, drawn from ``metrics.jsonl`` and ``result.json`` alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netdepth.errors import BadInput
from netdepth.report.style import MUTED, add_text, colour, figure_of, quiet, save_png, shortened, ticks
from netdepth.runs.folder import RunDir, slug
from netdepth.runs.table import run_row
from netdepth.text import status_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["learning_curves", "learning_curves_many", "run_title"]

COLOURS = {"train": colour(0), "val": colour(1)}
NAMES = {"train": "train", "val": "validation"}
PANELS = (("loss", "loss (nats)", 1.0), ("accuracy", "accuracy (%)", 100.0))
"""Metric, the label of its axis, and what its values are multiplied by."""


@dataclass(frozen=True)
class _Curves:
    """One run: its row of the table, its epochs, and by metric its scaled values, NaN where there is no finite one."""

    row: dict[str, Any]
    epochs: list[float]
    values: dict[str, list[float]]


@dataclass(frozen=True)
class _Mark:
    """A vertical line at an epoch, and its name."""

    text: str
    epoch: float
    colour: str


def learning_curves(run: RunDir) -> Path:
    """Draw ``figures/learning_curves.png`` in the run folder: loss and accuracy, train and validation.

    The best epoch and the onset of overfitting are marked. A run with one record, or one that
    diverged or is unfinished, is drawn as far as it came.

    Raises:
        BadInput: the run has no evaluation yet.
        StorageError: the file cannot be written.
    """
    curves = _read(run)
    row, best = curves.row, curves.row["best_epoch"]
    figure, panels = _figure(f"{run_title(row)}, seed {row['seed']}", status_words(row))
    epochs = {
        ("best weights: epoch", colour(2)): best,
        ("overfits since epoch", colour(3)): row["overfit_onset_epoch"],
        ("diverged at epoch", "black"): row["epochs"] if row["status"] == "diverged" else None,
    }
    marks = [_Mark(text, epoch, shade) for (text, shade), epoch in epochs.items() if epoch is not None]
    for (metric, _, _), axes in zip(PANELS, panels, strict=True):
        for part in COLOURS:
            _line(axes, curves, part, metric, linewidth=2.2)
        for mark in marks:
            axes.axvline(mark.epoch, color=mark.colour, linewidth=1.6, linestyle="--", zorder=1)
        if best in curves.epochs:
            value = curves.values[f"val_{metric}"][curves.epochs.index(best)]
            axes.plot([best], [value], "o", color=colour(2), markersize=9, markeredgecolor="white", zorder=4)
        _scale(axes, metric, [curves])
        _end_labels(axes, {part: curves.values[f"{part}_{metric}"] for part in COLOURS})
    _mark_labels(panels[0], marks)
    return save_png(figure, run.path / "figures" / "learning_curves.png")


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
    diverged = sum(curves.row["status"] == "diverged" for curves in drawn)
    subtitle = f"thin: single runs, thick: their mean{f'; {diverged} diverged' if diverged else ''}{missing}"
    figure, panels = _figure(f"{run_title(row)}, {len(drawn)} runs", subtitle)
    common = sorted(set.intersection(*(set(curves.epochs) for curves in drawn)))
    for (metric, _, _), axes in zip(PANELS, panels, strict=True):
        ends = {}
        for part, shade in COLOURS.items():
            key = f"{part}_{metric}"
            for curves in drawn:
                _line(axes, curves, part, metric, linewidth=0.9, alpha=0.45)
            by_epoch = [dict(zip(curves.epochs, curves.values[key], strict=True)) for curves in drawn]
            mean = [math.fsum(values[epoch] for values in by_epoch) / len(drawn) for epoch in common]
            axes.plot(common, mean, color=shade, linewidth=3, marker="o" if len(common) == 1 else None)
            ends[part] = mean if common else drawn[0].values[key]
        _scale(axes, metric, drawn)
        _end_labels(axes, ends)
    name = f"{slug(str(row['recipe'] or 'runs'))}-{slug(str(row['fingerprint']))}-{len(runs)}-runs.png"
    return save_png(figure, runs[0].path.parent / "figures" / name)


def run_title(row: dict[str, Any]) -> str:
    """A run in a heading: ``baseline-mlp on mnist``."""
    dataset = str(row["dataset"] or "unknown data").partition(" ")[0]
    return f"{row['recipe'] or row['run']} on {dataset}"


def _read(run: RunDir) -> _Curves:
    records = run.read_metrics()
    if not records:
        raise BadInput(f"{run.path} has no evaluation yet; there is nothing to draw")

    def column(key: str, scale: float = 1.0) -> list[float]:
        found = [record.get(key) for record in records]
        return [scale * v if isinstance(v, int | float) and not isinstance(v, bool) else math.nan for v in found]

    values = {f"{part}_{metric}": column(f"{part}_{metric}", scale) for part in COLOURS for metric, _, scale in PANELS}
    return _Curves(run_row(run), column("epoch"), values)


def _figure(title: str, subtitle: str) -> tuple[Figure, Sequence[Axes]]:
    figure, panels = figure_of(6.0, 7.6, 2, left=0.135, right=0.815, top=0.85, bottom=0.105, hspace=0.1)
    add_text(figure, 0.03, 0.965, shortened(title, 52), size=14, weight="bold")
    add_text(figure, 0.03, 0.932, shortened(subtitle, 74), size=10.5, color=MUTED)
    note = "train: mean over the epoch while it ran; validation: at its end"
    add_text(figure, 0.03, 0.014, note, size=8.5, color=MUTED)
    for (_, label, _), axes in zip(PANELS, panels, strict=True):
        axes.set_ylabel(label, fontsize=12)
        quiet(axes, 11)
    panels[0].tick_params(labelbottom=False)
    panels[1].set_xlabel("epoch", fontsize=12)
    figure.align_ylabels(panels)
    return figure, panels


def _line(axes: Axes, curves: _Curves, part: str, metric: str, **style: Any) -> None:
    values = curves.values[f"{part}_{metric}"]
    dots = "o" if sum(map(math.isfinite, values)) <= 2 else None  # a line needs two points
    axes.plot(curves.epochs, values, color=COLOURS[part], marker=dots, markersize=6, **style)


def _scale(axes: Axes, metric: str, drawn: Iterable[_Curves]) -> None:
    """Epochs as whole numbers; a loss that spans more than a factor of 30 on a log axis."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
    values = [y for curves in drawn for part in COLOURS for y in curves.values[f"{part}_{metric}"] if math.isfinite(y)]
    if metric == "loss" and values and min(values) > 0 and max(values) > 30 * min(values):
        axes.set_yscale("log")
        shown = ticks(*axes.get_ylim())
        axes.set_yticks(shown, [f"{value:g}" for value in shown])
        axes.minorticks_off()
    low, high = axes.get_xlim()
    if high - low < 1:
        axes.set_xlim(low - 0.5, high + 0.5)


def _mark_labels(axes: Axes, marks: Sequence[_Mark]) -> None:
    """Name the marks above the upper panel, one above the other, each beside its line."""
    low, high = axes.get_xlim()
    for line, mark in enumerate(marks):
        place = (mark.epoch - low) / (high - low)
        align = "left" if place < 0.3 else "right" if place > 0.7 else "center"
        axes.text(
            place, 1.02 + 0.075 * line, f"{mark.text} {mark.epoch:g}", transform=axes.transAxes, ha=align, va="bottom",
            fontsize=10.5, color=mark.colour, weight="bold",
        )  # fmt: skip


def _end_labels(axes: Axes, ends: dict[str, list[float]]) -> None:
    """Write each curve's name and last value right of the panel, moved apart where they would touch."""
    gap = 0.13
    low, high = axes.get_ylim()
    warp = math.log if axes.get_yscale() == "log" else float
    labels: list[tuple[float, str, str]] = []
    for part, values in ends.items():
        finite = [value for value in values if math.isfinite(value)]
        if finite:
            height = (warp(finite[-1]) - warp(low)) / (warp(high) - warp(low))
            labels.append((min(max(height, 0.0), 1.0), part, f"{finite[-1]:.4g}"))
    labels.sort()
    heights = [height for height, _, _ in labels]
    if len(labels) == 2 and heights[1] - heights[0] < gap:
        middle = min(max(sum(heights) / 2, gap / 2), 1 - gap / 2)
        heights = [middle - gap / 2, middle + gap / 2]
    for height, (_, part, value) in zip(heights, labels, strict=True):
        axes.text(
            1.02, height, f"{NAMES[part]}\n{value}", transform=axes.transAxes, va="center", fontsize=11,
            color=COLOURS[part], weight="bold", linespacing=1.05,
        )  # fmt: skip
