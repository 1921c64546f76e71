"""Gradients and activations per layer as a picture, from a run's probes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netdepth.report.learning_curves import DPI, GREY, _name, _save, _shortened, _text
from netdepth.runs.folder import RunDir
from netdepth.runs.table import run_row
from netdepth.text import status_words
from netdepth.tools.inspect.tables import moment

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["layers_picture"]

PANELS = (
    ("grad_norm", "gradient norm", 1.0),
    ("activation_var", "activation variance", 1.0),
    ("dead_fraction", "dead units (%)", 100.0),
    ("cosine", "cosine similarity", 1.0),
)
LOG = ("grad_norm", "activation_var")
# Vermillion and blue of Okabe and Ito 2008; what lies between is told by its darkness.
FIRST, LAST = "#D55E00", "#0072B2"
BETWEEN = ("#C9CDD2", "#5B6570")
DOTS_UP_TO = 12
"""Layers up to which each is a dot on its line."""


def layers_picture(run: RunDir, probes: Sequence[Mapping[str, Any]]) -> Path:
    """Draw ``figures/layers.png`` in the run folder: a panel per quantity, a line per probe over the layers.

    Args:
        run: whose name and status are the title.
        probes: as `netdepth.tools.inspect.tables.read_probes` returns them, at least one with a layer.

    Raises:
        StorageError: the file cannot be written.
    """
    row = run_row(run)
    panels = [panel for panel in PANELS if any(layer[panel[0]] is not None for p in probes for layer in p["layers"])]
    figure, axes = _figure(f"{_name(row)}, seed {row['seed']}", status_words(row), len(panels))
    remarks: set[str] = set()
    for (key, label, scale), panel in zip(panels, axes, strict=True):
        panel.set_ylabel(label, fontsize=11)
        for order, probe in enumerate(probes):
            _line(panel, probe, key, scale, _style(order, len(probes)))
        _range(panel, [scale * v for p in probes for v in _values(p, key) if v is not None], key)
        remarks |= _mark(panel, probes, key)
    _layer_axis(axes[-1], max(len(probe["layers"]) for probe in probes))
    _legend(figure, probes)
    note = "layers in the order of the forward pass, the last one makes the logits"
    _text(figure, 0.03, 0.012, "; ".join([note, *sorted(remarks)]), size=8.5, color=GREY)
    return _save(figure, run.path / "figures" / "layers.png")


def _figure(title: str, subtitle: str, count: int) -> tuple[Figure, Sequence[Axes]]:
    from matplotlib.figure import Figure

    height = 2.0 + 1.85 * count  # inches
    figure = Figure(figsize=(6.0, height), dpi=DPI, facecolor="white")
    axes: Sequence[Axes] = list(figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0])
    figure.subplots_adjust(left=0.16, right=0.97, top=1 - 1.13 / height, bottom=0.78 / height, hspace=0.16)
    _text(figure, 0.03, 1 - 0.35 / height, _shortened(title, 52), size=14, weight="bold")
    _text(figure, 0.03, 1 - 0.62 / height, _shortened(subtitle, 74), size=10.5, color=GREY)
    for panel in axes:
        panel.grid(axis="y", color="#E3E3E3", linewidth=0.8)
        panel.set_axisbelow(True)
        panel.tick_params(labelsize=10.5, color="#AAAAAA")
        for side in ("top", "right"):
            panel.spines[side].set_visible(False)
        for side in ("left", "bottom"):
            panel.spines[side].set_color("#AAAAAA")
    figure.align_ylabels(axes)
    return figure, axes


def _values(probe: Mapping[str, Any], key: str) -> list[float | None]:
    return [layer[key] for layer in probe["layers"]]


def _style(order: int, count: int) -> dict[str, Any]:
    """The first probe vermillion and dashed, on top; the last blue; those between ever darker grey."""
    if order == 0:
        return {"color": FIRST, "linewidth": 2.4, "linestyle": (0, (3, 1)) if count > 1 else "-", "zorder": 5}
    if order == count - 1:
        return {"color": LAST, "linewidth": 2.4, "zorder": 4}
    share = (order - 1) / max(count - 3, 1)
    mixed = [round((1 - share) * a + share * b) for a, b in zip(*map(_rgb, BETWEEN), strict=True)]
    return {"color": "#{:02X}{:02X}{:02X}".format(*mixed), "linewidth": 1.3, "zorder": 3}


def _rgb(colour: str) -> list[int]:
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def _line(panel: Axes, probe: Mapping[str, Any], key: str, scale: float, style: Mapping[str, Any]) -> None:
    values = [_drawable(value, key, scale) for value in _values(probe, key)]
    dots = "o" if len(values) <= DOTS_UP_TO else None
    panel.plot(range(1, len(values) + 1), values, marker=dots, markersize=4.5, **style)


def _drawable(value: float | None, key: str, scale: float) -> float:
    """NaN, a gap in the line, for what has no place on the axis."""
    drawn = value is not None and math.isfinite(value) and (key not in LOG or value > 0)
    return scale * value if drawn and value is not None else math.nan


def _range(panel: Axes, values: Sequence[float], key: str) -> None:
    """The axis of a panel: whole powers of ten, or the whole range of a share."""
    from matplotlib.ticker import LogLocator, NullLocator

    if key not in LOG:
        top = 100.0 if key == "dead_fraction" else 1.0
        low = min([0.0, *(v for v in values if math.isfinite(v))])
        panel.set_ylim(low - 0.04 * top, 1.06 * top)
        return
    finite = [value for value in values if math.isfinite(value) and value > 0]
    panel.set_yscale("log")
    if finite:
        low, high = math.floor(math.log10(min(finite))), math.ceil(math.log10(max(finite)))
        high = max(high, low + 1)
        margin = 0.05 * (high - low)
        panel.set_ylim(10.0 ** (low - margin), 10.0 ** (high + margin))
    panel.yaxis.set_major_locator(LogLocator(numticks=6))
    panel.yaxis.set_minor_locator(NullLocator())


def _mark(panel: Axes, probes: Sequence[Mapping[str, Any]], key: str) -> set[str]:
    """Mark at the edge of a panel what a line cannot show; returns the remarks that explain the marks."""
    remarks = set()
    edge = panel.get_xaxis_transform()
    for order, probe in enumerate(probes):
        places: dict[str, list[int]] = {"x": [], "v": []}
        for index, value in enumerate(_values(probe, key), start=1):
            if value is not None and not math.isfinite(value):
                places["x"].append(index)
            elif value == 0 and key in LOG:
                places["v"].append(index)
        colour = _style(order, len(probes))["color"]
        for marker, height, remark in (("x", 0.95, "×: not finite"), ("v", 0.05, "▼: zero")):
            if places[marker]:
                panel.plot(
                    places[marker], [height] * len(places[marker]), marker, transform=edge, color=colour, markersize=5
                )
                remarks.add(remark)
    return remarks


def _layer_axis(panel: Axes, count: int) -> None:
    """The layers by number; the first and the last are always named."""
    panel.set_xlabel("layer", fontsize=11)
    stride = next(n * 10**power for power in range(6) for n in (1, 2, 5) if count <= 12 * n * 10**power)
    between = [tick for tick in range(stride, count, stride) if 1 + stride / 2 < tick <= count - stride / 2]
    panel.set_xticks(sorted({1, *between, count}))
    panel.set_xlim(1 - max(0.02 * count, 0.15), count + max(0.02 * count, 0.15))


def _legend(figure: Figure, probes: Sequence[Mapping[str, Any]]) -> None:
    """The lines' moments in their colours, in one row under the title."""
    height = 1 - 0.93 / figure.get_figheight()
    _text(figure, 0.03, height, moment(probes[0]), size=10.5, weight="bold", color=FIRST)
    if len(probes) > 2:
        epochs = [f"{probe['epoch']:.4g}" for probe in probes[1:-1]]
        listed = ", ".join(epochs if len(epochs) <= 6 else [*epochs[:3], "…", *epochs[-2:]])
        _text(figure, 0.5, height, f"epoch {listed}", size=10.5, color=BETWEEN[1], ha="center")
    if len(probes) > 1:
        _text(figure, 0.97, height, moment(probes[-1]), size=10.5, weight="bold", color=LAST, ha="right")
