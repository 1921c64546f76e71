"""The figures of a study's page: each an SVG with a description in words, and the runs it is drawn from."""

from __future__ import annotations

import bisect
import itertools
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from netdepth.report import line_figures as lines
from netdepth.report import style
from netdepth.report.data import StudyData, StudyRun
from netdepth.report.line_figures import against, labels_of
from netdepth.report.numbers import STATUS, run_ranges
from netdepth.runs.folder import slug
from netdepth.studies.table import SOURCES
from netdepth.text import capitalised, plain, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["PageFigure", "against", "band_names", "curve_groups", "flow_groups", "labels_of", "level_group", "pictures"]

When = Literal["first", "last"]
"""The layer statistics at initialisation, or the last ones of the run."""

EDGES = (-8.0, -6.0, -4.0, -2.0, -1.0, -0.3, 0.3, 1.0, 2.0, 4.0, 6.0)
"""Where the colours of the gradient map change, in decades of the ratio; the middle one is a factor of two."""


@dataclass(frozen=True)
class PageFigure:
    """One figure: its SVG, the runs and fields it is drawn from, and the text above it."""

    svg: str
    runs: str
    fields: str
    title: str = ""


def level_group(data: StudyData) -> list[PageFigure]:
    """Training and validation error and loss against the factor."""
    if not any(run.finished for run in data.runs):
        return []
    every = [run.number for run in data.runs]
    return [
        _page_figure(
            lines.level_figure(data, quantity),
            f"level-{quantity.key}",
            _level_words(data, quantity),
            every,
            (SOURCES[quantity.column], STATUS),
        )
        for quantity in lines.panels_of(data)
    ]


def curve_groups(data: StudyData) -> dict[str, list[PageFigure]]:
    """Learning curves per depth, by metric; empty while no run has been evaluated."""
    if not lines.has_curves(data):
        return {}
    every = [run.number for run in data.runs]  # the axes are those of all depths
    groups: dict[str, list[PageFigure]] = {}
    for metric, (train, val) in lines.curves_of(data).items():
        fields = ("metrics.jsonl:epoch", f"metrics.jsonl:{train}", f"metrics.jsonl:{val}", STATUS)
        for number, level in enumerate(data.spec.levels):
            where = f" {data.spec.where(level)}".rstrip()
            words = f"Training and validation {metric} against epoch{where}, a colour per condition"
            figure = lines.curve_figure(data, level, metric)
            key = level if data.spec.factor_axis.numeric else number
            made = _page_figure(figure, f"curve-{metric}-{key}", words, every, fields)
            groups.setdefault(metric, []).append(made)
    return groups


def flow_groups(data: StudyData) -> dict[str, list[PageFigure]]:
    """Gradient flow per condition, by when it was measured: at initialisation, at the end."""
    titles: dict[When, str] = {"first": "At initialisation", "last": "At the last measurement of each run"}
    groups: dict[str, list[PageFigure]] = {}
    for when, title in titles.items():
        if not _has_flow(data, when):
            continue
        groups[title] = []
        for index, (name, label) in enumerate(zip(data.spec.conditions, labels_of(data), strict=True)):
            runs = [run for level in data.spec.levels for run in data.cells[name, level]]
            files = {"probes/init.json"} if when == "first" else {run.last_gradients_file for run in runs}
            fields = sorted(f"{file}:layers" for file in files if file is not None)
            figure, (axes,) = style.figure_of(3.5, 2.5)
            _draw_flow(axes, data, name, when)
            key, words, numbers = f"flow-{when}-{index}", _flow_words(data, name, when), [run.number for run in runs]
            groups[title].append(_page_figure(figure, key, words, numbers, fields, label))
    return groups


def pictures(data: StudyData, folder: Path) -> list[tuple[str, Path]]:
    """Write the figures as PNG files into ``folder``: what each shows, and its path."""
    factor = data.spec.factor_name
    per = f" per {factor}" if factor else ""
    name = slug(against(data))
    wanted: list[tuple[str, str, bool, Callable[[StudyData], Figure]]] = [
        (f"Error and loss {against(data)}", name, any(run.finished for run in data.runs), lines.level_overview),
        (f"Learning curves{per}", "learning-curves", lines.has_curves(data), lines.curves_overview),
        ("Gradient flow at initialisation", "gradient-flow", _has_flow(data, "first"), _flow_overview),
    ]
    return [(title, style.save_png(draw(data), folder / f"{name}.png")) for title, name, there, draw in wanted if there]


def _page_figure(
    figure: Figure, key: str, words: str, runs: Iterable[int], fields: Iterable[str], title: str = ""
) -> PageFigure:
    return PageFigure(style.svg(figure, key, words), run_ranges(runs), " ".join(fields), title)


def _level_words(data: StudyData, quantity: lines.Panel) -> str:
    """The figure in words: each condition's mean at the first and at the last level."""
    cells = lines.values_of(data, quantity)
    parts = []
    for name, label in zip(data.spec.conditions, labels_of(data), strict=True):
        shown = []
        for level in dict.fromkeys((data.spec.levels[0], data.spec.levels[-1])):
            mean = lines.mean_of(cells[name, level], quantity)
            value = "no mean" if mean is None or mean.value is None else plain(mean.value, 3)
            shown.append(f"{value} {data.spec.where(level)}".rstrip())
        parts.append(f"{label}: {', '.join(shown)}")
    return f"{quantity.title} {against(data)}. {'; '.join(parts)}."


# --- gradient flow ---


def band_names() -> list[str]:
    """What each colour of `HEAT` stands for."""
    shown = ["10⁻⁸", "10⁻⁶", "10⁻⁴", "1 %", "10 %", "½", "2 ×", "10 ×", "100 ×", "10⁴ ×", "10⁶ ×"]
    between = [f"{low} to {high}" for low, high in itertools.pairwise(shown)]
    return [f"below {shown[0]}", *between, f"above {shown[-1]}"]


def _has_flow(data: StudyData, when: When) -> bool:
    return any(_gradients(run, when) is not None for run in data.runs)


def _gradients(run: StudyRun, when: When) -> Sequence[float | None] | None:
    return run.first_gradients if when == "first" else run.last_gradients


def _flow(data: StudyData, condition: str, level: str, when: When) -> list[float | None]:
    """Per weight layer from the first to the last: the median over the seeds of log10 of its gradient norm over
    the last layer's; None where no seed has a finite one, minus infinity for a gradient of zero."""
    profiles = [ratios for run in data.cells[condition, level] if (ratios := _log_ratios(_gradients(run, when) or ()))]
    layers = max(map(len, profiles), default=0)
    known = [[ratios[layer] for ratios in profiles if layer < len(ratios)] for layer in range(layers)]
    finite = [[value for value in values if value is not None] for values in known]
    return [statistics.median_low(values) if values else None for values in finite]


def _log_ratios(norms: Sequence[float | None]) -> list[float | None]:
    """log10 of each layer's gradient norm over the last layer's; empty if nothing was measured."""
    last = norms[-1] if norms else None
    if last is None or last <= 0:
        return [None] * len(norms)
    return [None if norm is None else math.log10(norm / last) if norm > 0 else -math.inf for norm in norms]


def _flow_overview(data: StudyData) -> Figure:
    """All conditions at initialisation with a legend, for a page without styles."""
    from matplotlib.patches import Patch

    conditions = data.spec.conditions
    figure, panels = style.grid_of(len(conditions), 3, 3.4)
    for condition, label, axes in zip(conditions, labels_of(data), panels, strict=True):
        _draw_flow(axes, data, condition, "first")
        axes.set_title(printable(label), loc="left", fontsize=10, color=style.INK, parse_math=False)
    bands = [Patch(facecolor=shade, label=name) for shade, name in zip(style.HEAT, band_names(), strict=True)]
    style.add_legend(figure, bands, 6 if len(conditions) > 2 else 4, size=8.5)
    return figure


def _draw_flow(axes: Axes, data: StudyData, condition: str, when: When) -> None:
    """The levels of one condition side by side, each column from its first layer (below) to its last."""
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    levels = data.spec.levels
    known: list[Rectangle] = []
    unknown: list[Rectangle] = []
    shades: list[str] = []
    for column, level in enumerate(levels):
        ratios = _flow(data, condition, level, when)
        for layer, value in enumerate(ratios):
            share = 1 / len(ratios)
            place = Rectangle((column - 0.46, layer * share), 0.92, share)
            (unknown if value is None else known).append(place)
            if value is not None:
                shades.append(style.HEAT[bisect.bisect_right(EDGES, value)])
        if not ratios:
            axes.text(column, 0.5, "–", ha="center", va="center", fontsize=9, color=style.MUTED)
    axes.add_collection(
        PatchCollection(known, facecolors=shades, edgecolors=style.PAPER, linewidths=0.35), autolim=False
    )
    none = PatchCollection(unknown, facecolors=style.GRID, edgecolors=style.PAPER, linewidths=0.35, hatch="////")
    axes.add_collection(none, autolim=False)
    axes.set_facecolor("none")
    axes.set_xlim(-0.55, len(levels) - 0.45)
    axes.set_ylim(0, 1)
    axes.set_xticks(range(len(levels)), [printable(level) for level in levels], parse_math=False)
    axes.set_yticks([0.03, 0.97], ["first", "last"], rotation=90)
    first, last = axes.get_yticklabels()
    first.set_verticalalignment("bottom")
    last.set_verticalalignment("top")
    axes.tick_params(labelsize=9, colors=style.MUTED, length=0, pad=3)
    axes.set_xlabel(printable(lines.factor_title(data)), fontsize=9, color=style.MUTED, labelpad=3)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _flow_words(data: StudyData, condition: str, when: When) -> str:
    """The map in words: the first layer's share in the deepest network."""
    level, factor = data.spec.levels[-1], data.spec.factor_name
    ratios = _flow(data, condition, level, when)
    text = f"Gradient per layer{factor and f' and {factor}'}, {data.spec.label_of(condition) or 'all runs'}."
    if not ratios or ratios[0] is None or not math.isfinite(ratios[0]):
        return text
    where = capitalised(f"{data.spec.where(level)} the first".lstrip())
    return f"{text} {where} layer receives {plain(10 ** ratios[0], 1)} of the last layer's gradient."
