"""Predicted against true values of a run that learns values, a panel each, for its page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from netdepth.errors import BadInput
from netdepth.report.style import MUTED, colour, figure_of, tidy
from netdepth.runs.compare import predictions_of
from netdepth.runs.folder import RunDir
from netdepth.runs.table import RunRow
from netdepth.text import thousands

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["MOST_POINTS", "value_figures"]

MOST_VALUES = 6
"""Values with a panel."""
MOST_POINTS = 1000
"""Images in a panel, evenly spread."""


def value_figures(run: RunDir, row: RunRow) -> Mapping[str, Figure]:
    """A figure for each of the first values by its name: what the reported weights predict for the images that the run
    was evaluated on, against what is true, and the line where both are the same.

    Raises:
        BadInput: no readable predictions, or they are not of the values of the run.
    """
    predictions, targets = predictions_of(run)
    names = row.split.targets if row.split is not None else ()
    if predictions.shape[1] != len(names) or not np.isfinite(targets).all():
        raise BadInput(f"the predictions of run {run.path.name} are not for its {len(names)} values")
    chosen = np.linspace(0, len(targets) - 1, min(MOST_POINTS, len(targets))).astype(int)
    figures = {}
    for index, name in enumerate(names[:MOST_VALUES]):
        true, said = targets[chosen, index], predictions[chosen, index]
        figure, (axes,) = figure_of(3.6, 3.4)
        tidy(axes, f"{name}: predicted", f"true, {thousands(len(true))} images", size=10)
        ends = float(targets[:, index].min()), float(targets[:, index].max())
        axes.plot(ends, ends, color=MUTED, linewidth=1.2, linestyle="--", zorder=1)
        axes.plot(true, np.where(np.isfinite(said), said, np.nan), ".", color=colour(0), markersize=4, alpha=0.6)
        figures[name] = figure
    return figures
