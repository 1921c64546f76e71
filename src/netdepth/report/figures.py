"""The figures of a study's page: each an SVG with words for who cannot see it, and the runs it is drawn from."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netdepth.report.curves import FIELDS, curve_figure, curves_overview, has_curves
from netdepth.report.data import StudyData
from netdepth.report.depth_figures import QUANTITIES, Quantity, depth_figure, depth_overview, summary, values_of
from netdepth.report.gradient_figures import When, fields_of, flow, gradient_figure, gradients_overview, has_flow
from netdepth.report.numbers import run_ranges
from netdepth.report.sources import STATUS
from netdepth.report.style import DASHES, MARKERS, save_png, svg
from netdepth.studies.table import SOURCES

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure

__all__ = ["Drawn", "Group", "curve_groups", "depth_group", "flow_groups", "pictures", "swatch"]

SHAPES = {
    "o": "M13.5 6a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0-7 0z",
    "s": "M14 3h6v6h-6z",
    "^": "M17 2.2l4 7.3h-8z",
    "v": "M17 9.8l4-7.3h-8z",
    "D": "M17 1.8l4.2 4.2-4.2 4.2-4.2-4.2z",
    "P": "M15.5 2h3v2.5h2.5v3h-2.5v2.5h-3v-2.5h-2.5v-3h2.5z",
    "X": "M14.2 1.8L17 4.6l2.8-2.8 1.4 1.4L18.4 6l2.8 2.8-1.4 1.4L17 7.4l-2.8 2.8-1.4-1.4L15.6 6l-2.8-2.8z",
}
"""The markers of the lines, 34 × 12 with the middle at (17, 6)."""


@dataclass(frozen=True)
class Drawn:
    """One figure: its SVG, the text above it, and what it is drawn from."""

    svg: Markup
    runs: str
    fields: str
    title: str = ""


@dataclass(frozen=True)
class Group:
    """Figures side by side: ``size`` is how wide each wants to be."""

    title: str
    caption: str
    size: str
    figures: tuple[Drawn, ...]


def swatch(index: int) -> Markup:
    """The line and marker of a condition, for a legend."""
    from markupsafe import Markup

    dash = DASHES[index % len(DASHES)]
    pattern = "" if dash == "-" else f' stroke-dasharray="{" ".join(f"{2 * part:g}" for part in dash[1])}"'
    shape = SHAPES[MARKERS[index % len(MARKERS)]]
    return Markup(
        f'<svg class="swatch" viewBox="0 0 34 12" aria-hidden="true" style="color: var(--c{index % 7})">'
        f'<path d="M1 6H33"{pattern}/><path d="{shape}" stroke="none"/></svg>'
    )


def depth_group(data: StudyData) -> Group | None:
    """Training and validation error and loss against depth."""
    if not any(run.finished for run in data.runs):
        return None
    figures = [
        _drawn(
            depth_figure(data, quantity),
            f"depth-{quantity.key}",
            _depth_words(data, quantity),
            run_ranges(run.number for run in data.runs),
            (SOURCES[quantity.column], STATUS),
        )
        for quantity in QUANTITIES
    ]
    caption = (
        "Small marks are single runs, with their last weights; lines are means over the seeds (of losses the geometric "
        "mean), bands their 95 % intervals (Student's t). Where a run has no finite value, a cross stands at the top "
        "and the line is broken. Losses are shown as measured; the tests count none higher than chance."
    )
    return Group("Error and loss against depth", caption, "large", tuple(figures))


def curve_groups(data: StudyData) -> list[Group]:
    """Learning curves per depth: error first, then loss."""
    if not has_curves(data):
        return []
    caption = (
        "One panel per depth, all with the same axes, after He et al. 2016, Fig. 6: dashed is training (the mean while "
        "the period ran), solid is validation (at its end; in the paper it is test). Thick lines are means over the "
        "finished runs as far as all of them came, thin lines single runs; a cross at the top: a run diverged there."
    )
    groups = []
    for metric, (train, val) in FIELDS.items():
        fields = ("metrics.jsonl:epoch", f"metrics.jsonl:{train}", f"metrics.jsonl:{val}", STATUS)
        figures = []
        for depth in data.spec.depths:
            runs = run_ranges(run.number for run in data.runs)  # the axes are those of all depths
            words = f"Training and validation {metric} against epoch at depth {depth}, a colour per condition"
            figures.append(_drawn(curve_figure(data, depth, metric), f"curve-{metric}-{depth}", words, runs, fields))
        groups.append(Group("Learning curves", caption, "small", tuple(figures)))
    return groups


def flow_groups(data: StudyData) -> list[Group]:
    """Gradient flow per condition, at initialisation and at the last probe."""
    caption = (
        "Norm of each layer's weight gradient over that of the last layer, on one fixed batch; the median over the "
        "seeds. A column is a network, its first layer below, its last above. Grey: the layers learn alike. Blue: the "
        "gradient vanishes on its way down. Orange: it explodes."
    )
    titles: dict[When, str] = {"first": "At initialisation", "last": "At the last probe of each run"}
    groups = []
    for when, title in titles.items():
        if not has_flow(data, when):
            continue
        figures = []
        for index, name in enumerate(data.spec.conditions):
            runs = [run for depth in data.spec.depths for run in data.cells[name, depth]]
            fields = fields_of(when, [run.last_probe_file for run in runs])
            figure = gradient_figure(data, name, when)
            ranges = run_ranges(run.number for run in runs)
            words = _flow_words(data, name, when)
            figures.append(_drawn(figure, f"flow-{when}-{index}", words, ranges, fields, name))
        groups.append(Group(title, caption, "small", tuple(figures)))
    return groups


def pictures(data: StudyData, folder: Path) -> list[tuple[str, Path]]:
    """Write the figures as PNG files into ``folder``: what each shows, and its path."""
    wanted: list[tuple[str, str, bool, Callable[[StudyData], Figure]]] = [
        ("Error and loss against depth", "against-depth", any(run.finished for run in data.runs), depth_overview),
        ("Learning curves per depth", "learning-curves", has_curves(data), curves_overview),
        ("Gradient flow at initialisation", "gradient-flow", has_flow(data, "first"), gradients_overview),
    ]
    return [(title, save_png(draw(data), folder / f"{name}.png")) for title, name, there, draw in wanted if there]


def _drawn(figure: Figure, key: str, words: str, runs: str, fields: tuple[str, ...], title: str = "") -> Drawn:
    from markupsafe import Markup

    return Drawn(Markup(svg(figure, key, words)), runs, " ".join(fields), title)


def _depth_words(data: StudyData, quantity: Quantity) -> str:
    """The figure in words: each condition's mean at the shallowest and at the deepest place."""
    cells = values_of(data, quantity)
    ends = [data.spec.depths[0], data.spec.depths[-1]]
    parts = []
    for name in data.spec.conditions:
        means = [summary(cells[name, depth], quantity) for depth in ends]
        shown = ["no mean" if m is None or m.value is None else f"{m.value:.3g}" for m in means]
        parts.append(f"{name}: {shown[0]} at depth {ends[0]}, {shown[1]} at depth {ends[1]}")
    return f"{quantity.title} against depth. {'; '.join(parts)}."


def _flow_words(data: StudyData, condition: str, when: When) -> str:
    """The map in words: the first layer's share in the deepest network."""
    depth = data.spec.depths[-1]
    found = flow(data, condition, depth, when)
    first = found[0] if found else None
    text = f"Gradient per layer and depth, {condition}"
    if first is None or not math.isfinite(first):
        return f"{text}."
    return f"{text}. At depth {depth} the first layer receives {10**first:.1g} of the last layer's gradient."


def legend(data: StudyData) -> list[dict[str, Any]]:
    """Swatch and name of each condition."""
    return [{"swatch": swatch(index), "name": name or "all runs"} for index, name in enumerate(data.spec.conditions)]
