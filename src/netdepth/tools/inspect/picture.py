"""The layer statistics of a run as a picture: a panel per quantity, a line per step of training, over the layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netdepth.report.learning_curves import run_title
from netdepth.report.style import INK, MUTED, add_text, colour, figure_of, save_png, shortened, tidy
from netdepth.runs.folder import RunDir
from netdepth.runs.table import run_row
from netdepth.text import status_words
from netdepth.tools.inspect.statistics import Statistics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_layers"]


@dataclass(frozen=True)
class _Quantity:
    """A field of `Layer` with its name for people; ``top`` is the largest value it can have, if it is a share."""

    field: str
    label: str
    scale: float = 1.0
    top: float | None = None

    def values(self, found: Statistics) -> list[float | None]:
        return [getattr(layer, self.field) for layer in found.layers]

    @property
    def log(self) -> bool:
        return self.top is None


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


def draw_layers(run: RunDir, found: Sequence[Statistics]) -> Path:
    """Draw ``figures/layers.png`` in the run folder from ``found``, at least one with a layer.

    Raises:
        StorageError: the file cannot be written.
    """
    row = run_row(run)
    quantities = [q for q in QUANTITIES if any(value is not None for one in found for value in q.values(one))]
    height = 2.0 + 1.95 * len(quantities)  # inches
    top, bottom = 1 - 1.3 / height, 0.8 / height
    figure, panels = figure_of(6.0, height, len(quantities), left=0.12, right=0.97, top=top, bottom=bottom, hspace=0.28)
    title = shortened(f"{run_title(row)}, seed {row['seed']}", 52)
    add_text(figure, 0.03, 1 - 0.35 / height, title, size=14, weight="bold", color=INK)
    add_text(figure, 0.03, 1 - 0.62 / height, shortened(status_words(row), 74), size=10.5, color=MUTED)
    remarks: set[str] = set()
    for quantity, panel in zip(quantities, panels, strict=True):
        last_panel = quantity is quantities[-1]
        tidy(panel, quantity.label, "layer" if last_panel else "")
        for order, one in enumerate(found):
            _line(panel, quantity, one, _style(order, len(found)))
        _set_range(panel, quantity, [value for one in found for value in quantity.values(one) if value is not None])
        for order, one in enumerate(found):
            remarks |= _mark(panel, quantity, one, _style(order, len(found))["color"])
        _number_layers(panel, max(len(one.layers) for one in found))
        panel.tick_params(labelbottom=last_panel)
    _legend(figure, found, 1 - 0.93 / height)
    note = "layers in the order of the forward pass; the last one gives the logits"
    add_text(figure, 0.03, 0.012, "; ".join([note, *sorted(remarks)]), size=8.5, color=MUTED)
    return save_png(figure, run.path / "figures" / "layers.png")


def _style(order: int, count: int) -> dict[str, Any]:
    """The first line vermillion and dashed, on top; the last blue; those between grey."""
    if order == 0:
        return {"color": FIRST, "linewidth": 2.4, "linestyle": (0, (3, 1)) if count > 1 else "-", "zorder": 5}
    if order == count - 1:
        return {"color": LAST, "linewidth": 2.4, "zorder": 4}
    share = (order - 1) / max(count - 3, 1)
    return {"color": str((1 - share) * GREYS[0] + share * GREYS[1]), "linewidth": 1.3, "zorder": 3}


def _line(panel: Axes, quantity: _Quantity, found: Statistics, style: dict[str, Any]) -> None:
    """A line over the layers; a gap where a value has no place on the axis."""
    heights = [
        quantity.scale * value
        if value is not None and math.isfinite(value) and (value > 0 or not quantity.log)
        else math.nan
        for value in quantity.values(found)
    ]
    dots = "o" if len(heights) <= DOTS_UP_TO else None
    panel.plot(range(1, len(heights) + 1), heights, marker=dots, markersize=4.5, **style)


def _set_range(panel: Axes, quantity: _Quantity, values: Sequence[float]) -> None:
    """Whole powers of ten, or the whole range of a share."""
    from matplotlib.ticker import LogLocator, NullLocator

    finite = [quantity.scale * value for value in values if math.isfinite(value)]
    if quantity.top is not None:
        panel.set_ylim(min([0.0, *finite]) - 0.04 * quantity.top, 1.06 * quantity.top)
        return
    panel.set_yscale("log")
    positive = [value for value in finite if value > 0]
    if positive:
        low, high = math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive)))
        high = max(high, low + 1)
        margin = 0.05 * (high - low)
        panel.set_ylim(10.0 ** (low - margin), 10.0 ** (high + margin))
    panel.yaxis.set_major_locator(LogLocator(numticks=6))
    panel.yaxis.set_minor_locator(NullLocator())


def _mark(panel: Axes, quantity: _Quantity, found: Statistics, shade: str) -> set[str]:
    """Mark at the edge of a panel the layers that a line cannot show; returns remarks that explain the marks."""
    values = list(enumerate(quantity.values(found), start=1))
    infinite = [index for index, value in values if value is not None and not math.isfinite(value)]
    zero = [index for index, value in values if value == 0 and quantity.log]
    remarks = set()
    for marked, symbol, height, remark in ((infinite, "x", 0.95, "×: not finite"), (zero, "v", 0.05, "▼: zero")):
        if marked:
            edge = panel.get_xaxis_transform()
            panel.plot(marked, [height] * len(marked), symbol, transform=edge, color=shade, markersize=5)
            remarks.add(remark)
    return remarks


def _number_layers(panel: Axes, count: int) -> None:
    """The layers by number; the first and the last always have theirs."""
    stride = next(n * 10**power for power in range(6) for n in (1, 2, 5) if count <= 12 * n * 10**power)
    between = [tick for tick in range(stride, count, stride) if 1 + stride / 2 < tick <= count - stride / 2]
    panel.set_xticks(sorted({1, *between, count}))
    margin = max(0.02 * count, 0.15)
    panel.set_xlim(1 - margin, count + margin)


def _legend(figure: Figure, found: Sequence[Statistics], y: float) -> None:
    """The moments in the colours of their lines, in one row under the title."""
    add_text(figure, 0.03, y, found[0].moment, size=10.5, weight="bold", color=FIRST)
    if len(found) > 2:
        epochs = [f"{one.epoch:.4g}" for one in found[1:-1]]
        listed = ", ".join(epochs if len(epochs) <= 6 else [*epochs[:3], "…", *epochs[-2:]])
        add_text(figure, 0.5, y, f"epoch {listed}", size=10.5, color=MUTED, ha="center")
    if len(found) > 1:
        add_text(figure, 0.97, y, found[-1].moment, size=10.5, weight="bold", color=LAST, ha="right")
