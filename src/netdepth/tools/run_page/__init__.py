"""``netdepth report RUN`` and ``run.report()``: one HTML file about one run, to be sent to somebody.

It is made from the run folder. Only the pictures that the network got wrong need the data set; where it is not on
this machine, the page says so and is written without them. No scripts, and nothing is asked of the network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from netdepth.errors import BadInput, NetdepthError
from netdepth.files.atomic import write_atomic
from netdepth.report.content import rendered
from netdepth.report.learning_curves import curve_figures
from netdepth.report.style import svg
from netdepth.runs.table import run_row
from netdepth.tools.common import open_run
from netdepth.tools.inspect.picture import layer_figures
from netdepth.tools.inspect.statistics import read_statistics, words
from netdepth.tools.run_page.content import RunContent
from netdepth.tools.run_page.pictures import Mistakes, mistakes_of
from netdepth.tools.run_page.values import value_figures
from netdepth.training.finished import Run
from netdepth.training.layers import Statistics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["HTML", "RunPage", "write_page"]

HTML = "report.html"


@dataclass(frozen=True)
class RunPage:
    """The page's ``path``, and ``notes`` on what is not on it."""

    path: Path
    notes: list[str]


def write_page(
    name: str | Path | Run, out: Path | None = None, *, data_dir: Path | None = None, runs_dir: Path | None = None
) -> RunPage:
    """Write ``report.html`` about a run: finished or not.

    Args:
        name: a run, a path or a unique prefix of a folder name.
        out: the folder to write to; the run's own if None.
        data_dir: ``--data``, where the pictures that it got wrong are read.

    Raises:
        BadInput: no such run, or a folder whose files cannot be read.
        StorageError: the page cannot be written.
    """
    run = open_run(name, runs_dir)
    row = run_row(run.dir)
    if row.status == "unreadable":
        raise BadInput(row.error or f"run {run.path.name} cannot be read")
    notes: list[str] = []
    layers: list[Statistics] = []
    mistakes: Mistakes | None = None
    try:
        layers = read_statistics(run.dir)
    except BadInput as error:
        notes.append(f"without layer statistics: {error}")
    what = "predicted and true values" if row.values else "the pictures that it got wrong"
    by_value: Mapping[str, Figure] = {}
    try:
        if row.values:
            by_value = value_figures(run.dir, row)
        else:
            mistakes = mistakes_of(run, row, data_dir)
    except NetdepthError as error:  # data or predictions that are not here: the rest of the page needs neither
        notes.append(f"without {what}: {error}")
    if layers and not layers[0].layers:
        layers = []
    by_epoch = curve_figures(run.dir) if row.epochs is not None else {}
    by_layer = enumerate(layer_figures(layers).items())
    text = rendered(
        "run.html",
        content=RunContent(run.dir, row, layers),
        row=row,
        curves={
            metric: svg(figure, f"curve-{metric}", f"{metric.capitalize()} of training and validation by epoch")
            for metric, figure in by_epoch.items()
        },
        values=[
            svg(figure, f"values-{i}", f"Predicted against true values of {name}")
            for i, (name, figure) in enumerate(by_value.items())
        ],
        layers={label: svg(figure, f"layers-{i}", f"{label} by layer") for i, (label, figure) in by_layer},
        words=words(layers, row.status) if layers else "",
        mistakes=mistakes,
        notes=notes,
    )
    path = (out or run.path) / HTML
    write_atomic(path, text.encode(errors="backslashreplace"), parents=True)
    return RunPage(path, notes)
