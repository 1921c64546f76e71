"""Learning curves as PNG files, drawn from ``metrics.jsonl`` and ``result.json`` alone.

Matplotlib's object interface is used throughout: no pyplot, no global state, no display.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netdepth.errors import BadInput
from netdepth.files.atomic import storage, write_atomic
from netdepth.runs.folder import RunDir, slug
from netdepth.runs.table import run_row
from netdepth.text import printable, status_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["learning_curves", "learning_curves_many"]

# Okabe and Ito 2008, "Color Universal Design": told apart with every common colour blindness.
COLOURS = {"train": "#0072B2", "val": "#D55E00"}
BEST, ONSET, DIVERGED, GREY = "#009E73", "#CC79A7", "#000000", "#555555"
NAMES = {"train": "train", "val": "validation"}
PANELS = (("loss", "loss (nats)", 1.0), ("accuracy", "accuracy (%)", 100.0))
SIZE_INCHES = (6.0, 7.6)  # upright, so that it fills a phone held upright
DPI = 160


@dataclass(frozen=True)
class _Curves:
    """The records of one run as columns; NaN where a value is missing or was not finite."""

    row: dict[str, Any]
    epochs: list[float]
    values: dict[str, list[float]]


def learning_curves(run: RunDir) -> Path:
    """Draw ``figures/learning_curves.png`` in the run folder: loss and accuracy, train and validation.

    The best epoch and the onset of overfitting are marked. A run with one record, or one that
    diverged or is unfinished, is drawn as far as it came.

    Raises:
        BadInput: the run has no evaluation yet.
        StorageError: the file cannot be written.
    """
    curves = _read(run)
    row = curves.row
    figure, panels = _figure(f"{_name(row)}, seed {row['seed']}", status_words(row))
    marks = [
        ("best weights: epoch", row["best_epoch"], BEST),
        ("overfits since epoch", row["overfit_onset_epoch"], ONSET),
        ("diverged at epoch", row["epochs"] if row["status"] == "diverged" else None, DIVERGED),
    ]
    marks = [mark for mark in marks if mark[1] is not None]
    for (metric, _, scale), axes in zip(PANELS, panels, strict=True):
        for part in ("train", "val"):
            _line(axes, curves, f"{part}_{metric}", scale, COLOURS[part], width=2.2)
        for _, epoch, colour in marks:
            axes.axvline(epoch, color=colour, linewidth=1.6, linestyle="--", zorder=1)
        _scale(axes, metric, [curves.values[f"{part}_{metric}"] for part in COLOURS])
        _mark_best(axes, curves, metric, scale)
        _end_labels(axes, {part: _scaled(curves.values[f"{part}_{metric}"], scale) for part in ("train", "val")})
    _mark_labels(panels[0], marks)
    return _save(figure, run.path / "figures" / "learning_curves.png")


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
    figure, panels = _figure(f"{_name(row)}, {len(drawn)} runs", subtitle)
    common = sorted(set.intersection(*(set(curves.epochs) for curves in drawn)))
    for (metric, _, scale), axes in zip(PANELS, panels, strict=True):
        ends = {}
        for part in ("train", "val"):
            key = f"{part}_{metric}"
            for curves in drawn:
                _line(axes, curves, key, scale, COLOURS[part], width=0.9, alpha=0.45)
            series = [dict(zip(curves.epochs, curves.values[key], strict=True)) for curves in drawn]
            mean = [scale * math.fsum(one[epoch] for one in series) / len(series) for epoch in common]
            axes.plot(common, mean, color=COLOURS[part], linewidth=3, marker="o" if len(common) == 1 else None)
            ends[part] = mean if common else _scaled(drawn[0].values[key], scale)
        _scale(axes, metric, [curves.values[f"{part}_{metric}"] for part in COLOURS for curves in drawn])
        _end_labels(axes, ends)
    name = f"{slug(str(row['recipe'] or 'runs'))}-{slug(str(row['fingerprint']))}-{len(runs)}-runs.png"
    return _save(figure, runs[0].path.parent / "figures" / name)


def _read(run: RunDir) -> _Curves:
    records = run.read_metrics()
    if not records:
        raise BadInput(f"{run.path} has no evaluation yet; there is nothing to draw")

    def column(key: str) -> list[float]:
        found = [record.get(key) for record in records]
        return [float(v) if isinstance(v, int | float) and not isinstance(v, bool) else math.nan for v in found]

    epochs = column("epoch")
    keys = [f"{part}_{metric}" for part in ("train", "val") for metric, _, _ in PANELS]
    return _Curves(run_row(run), epochs, {key: column(key) for key in keys})


def _name(row: dict[str, Any]) -> str:
    dataset = str(row["dataset"] or "unknown data").partition(" ")[0]
    return f"{row['recipe'] or row['run']} on {dataset}"


def _figure(title: str, subtitle: str) -> tuple[Figure, Sequence[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE_INCHES, dpi=DPI, facecolor="white")
    panels: Sequence[Axes] = figure.subplots(2, 1, sharex=True)
    figure.subplots_adjust(left=0.135, right=0.815, top=0.85, bottom=0.105, hspace=0.1)
    _text(figure, 0.03, 0.965, _shortened(title, 52), size=14, weight="bold")
    _text(figure, 0.03, 0.932, _shortened(subtitle, 74), size=10.5, color=GREY)
    _text(figure, 0.03, 0.014, "train: mean while the epoch ran; validation: at its end", size=8.5, color=GREY)
    for (_, label, _), axes in zip(PANELS, panels, strict=True):
        axes.set_ylabel(label, fontsize=12)
        axes.grid(axis="y", color="#E3E3E3", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=11, color="#AAAAAA")
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        for side in ("left", "bottom"):
            axes.spines[side].set_color("#AAAAAA")
    panels[-1].set_xlabel("epoch", fontsize=12)
    figure.align_ylabels(panels)
    return figure, panels


def _text(figure: Figure, x: float, y: float, text: str, **style: Any) -> None:
    figure.text(x, y, printable(text), parse_math=False, **style)  # a "$" in a name is a "$"


def _shortened(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _scaled(values: Sequence[float], scale: float) -> list[float]:
    return [scale * value for value in values]


def _line(
    axes: Axes, curves: _Curves, key: str, scale: float, colour: str, width: float, alpha: float | None = None
) -> None:
    values = _scaled(curves.values[key], scale)
    marker = "o" if sum(map(math.isfinite, values)) <= 2 else None  # a line needs two points
    axes.plot(curves.epochs, values, color=colour, linewidth=width, alpha=alpha, marker=marker, markersize=6)


def _scale(axes: Axes, metric: str, series: Iterable[Sequence[float]]) -> None:
    """Epochs as whole numbers; a loss that spans more than a factor of 30 on a log axis."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
    drawn = [y for values in series for y in values if math.isfinite(y)]
    if metric == "loss" and drawn and min(drawn) > 0 and max(drawn) > 30 * min(drawn):
        axes.set_yscale("log")
    low, high = axes.get_xlim()
    if high - low < 1:
        axes.set_xlim(low - 0.5, high + 0.5)


def _mark_best(axes: Axes, curves: _Curves, metric: str, scale: float) -> None:
    best = curves.row["best_epoch"]
    if best in curves.epochs:
        value = scale * curves.values[f"val_{metric}"][curves.epochs.index(best)]
        axes.plot([best], [value], "o", color=BEST, markersize=9, markeredgecolor="white", zorder=4)


def _mark_labels(axes: Axes, marks: Sequence[tuple[str, float, str]]) -> None:
    """Name the vertical marks above the upper panel, one above the other, each beside its line."""
    low, high = axes.get_xlim()
    for line, (text, epoch, colour) in enumerate(marks):
        place = (epoch - low) / (high - low)
        align = "left" if place < 0.3 else "right" if place > 0.7 else "center"
        height = 1.02 + 0.075 * line
        axes.text(
            place, height, f"{text} {epoch:g}", transform=axes.transAxes, ha=align, va="bottom", fontsize=10.5,
            color=colour, weight="bold",
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


def _save(figure: Figure, path: Path) -> Path:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure.savefig(buffer, format="png", metadata={"Software": None})
    with storage(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, buffer.getvalue())
    return path
