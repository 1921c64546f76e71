"""The table of a study: a row per planned run, whether it was made or not.

Only the runs that ``study.json`` names are read; what else lies in the folder is no part of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from netdepth.errors import BadInput
from netdepth.runs.folder import RunDir
from netdepth.runs.table import COLUMNS, field_of, number_of, run_row
from netdepth.studies.cells import PROBED, RATIO
from netdepth.studies.folder import PlannedRun, StudyDir
from netdepth.studyspec import StudySpec

if TYPE_CHECKING:
    import pandas

__all__ = ["SOURCES", "frame_of", "study_row", "study_table"]

SOURCES = {
    **{column.name: f"{column.file}:{column.field}" for column in COLUMNS},
    "status": "result.json:status",
    "classes": "split.json:classes",
    "label_entropy": "split.json:label_entropy",
    **PROBED,
}
"""The ``file:field`` of a run's folder that each column is read from."""

WHOLE = ("depth", "seed", "num_params", "steps", "best_step", "classes")

PLANNED = ("condition", "depth", "seed")
"""Columns that say what was planned; ``study.json`` holds them, whatever the run says."""


def study_table(study: StudyDir) -> pandas.DataFrame:
    """The planned runs of ``study`` in the order of the plan, finished or not.

    The columns are ``condition``, one per scientific axis (``depth`` as planned), those of
    `run_row`, ``classes``, ``label_entropy`` (nats, of the training labels; empty where the run does not
    say) and ``gradient_ratio`` (first to last layer, at initialisation). A run that is not there
    has status ``no run``. ``folder`` is relative to the study's folder, so the table is the same
    wherever that lies. ``attrs["sources"]`` maps a column to its ``file:field``.

    Raises:
        BadInput: ``study.json`` is damaged.
    """
    spec = study.spec
    return frame_of((study_row(study, run) for run in study.runs()), spec)


def frame_of(rows: Iterable[Mapping[str, Any]], spec: StudySpec) -> pandas.DataFrame:
    """Rows of `study_row` as the frame of `study_table`; whole numbers stay whole where some are missing."""
    import pandas

    axes = [axis.name for axis in spec.scientific]
    names = ["run", "folder", "status", *PLANNED, *axes, *(column.name for column in COLUMNS)]
    columns = list(dict.fromkeys([*names, "classes", "label_entropy", RATIO, "error"]))
    frame = pandas.DataFrame(list(rows), columns=columns).astype(dict.fromkeys(WHOLE, "Int64"))
    frame.attrs["sources"] = dict(SOURCES)
    return frame


def study_row(study: StudyDir, planned: PlannedRun) -> dict[str, Any]:
    """One planned run as a flat dict, with the columns of `study_table`."""
    name = planned.folder
    if name is not None and (study.path / name).is_dir():
        run = RunDir(study.path / name)
        row = run_row(run)
        split, probe, error = _extras(run)
        if error is not None:
            row["status"], row["error"] = "unreadable", error
    else:
        row = {"status": "no run", "error": None, **dict.fromkeys(column.name for column in COLUMNS)}
        split, probe = {}, {}
    classes = split.get("classes")
    return {
        **row,
        "run": name,
        "folder": name,
        "fingerprint": planned.fingerprint,
        **planned.levels,
        "condition": planned.condition,
        "depth": planned.depth,
        "seed": planned.seed,
        "classes": len(classes) if isinstance(classes, list) else None,
        "label_entropy": number_of(field_of(split, "label_entropy")),
        RATIO: _positive(number_of(field_of(probe, "gradient_ratio"))),
    }


def _extras(run: RunDir) -> tuple[Mapping[str, Any], Mapping[str, Any], str | None]:
    """Split and first probe of a run, or what is wrong with them."""
    try:
        return run.read_json("split.json") or {}, run.read_json("probes/init.json") or {}, None
    except BadInput as error:
        return {}, {}, str(error)


def _positive(ratio: float | int | None) -> float | None:
    """A ratio of norms; None for what cannot be one."""
    return None if ratio is None or math.isnan(ratio) or ratio < 0 else float(ratio)
