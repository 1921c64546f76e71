"""The table of a study: a row per planned run, whether it was made or not.

Only the runs that ``study.json`` names are read; what else lies in the folder is no part of it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from netdepth.errors import BadInput
from netdepth.runs.folder import RunDir
from netdepth.runs.table import COLUMNS, RunRow, field_of, frame, number_of, run_row
from netdepth.studies.cells import PROBED, RATIO
from netdepth.studies.folder import PlannedRun, StudyDir
from netdepth.studyspec import DEPTH, StudySpec

if TYPE_CHECKING:
    import pandas

__all__ = ["SOURCES", "StudyRow", "frame_of", "study_row", "study_table"]

SOURCES = {
    **{column.name: f"{column.file}:{column.field}" for column in COLUMNS},
    "status": "result.json:status",
    "classes": "split.json:classes",
    "label_entropy": "split.json:label_entropy",
    "constant_loss": "split.json:constant_loss",
    **PROBED,
}
"""The ``file:field`` of a run's folder that each column is read from."""

WHOLE = ("depth", "seed", "num_params", "steps", "best_step", "classes")

PLANNED = ("condition", "seed")
"""Columns that say what was planned, beside the level of each axis."""


@dataclass(frozen=True)
class StudyRow:
    """A planned run, the row of its folder, and what else the verdict looks at; None where the run does not say."""

    planned: PlannedRun
    made: RunRow = field(default_factory=lambda: RunRow("", "", "no run"))
    classes: int | None = None
    label_entropy: float | None = None
    gradient_ratio: float | None = None
    constant_loss: float | None = None

    def columns(self) -> dict[str, str | float | None]:
        """The columns of `study_table`; what was planned comes from ``study.json``, whatever the run says."""
        planned = self.planned
        return {
            **{name: self.made.value(name) for name in ("status", "error", *(column.name for column in COLUMNS))},
            "run": planned.folder,
            "folder": planned.folder,
            "fingerprint": planned.fingerprint,
            **{name: getattr(planned, name) for name in PLANNED},
            **{axis: int(level) if axis == DEPTH else level for axis, level in planned.levels.items()},
            **{name: getattr(self, name) for name in ("classes", "label_entropy", RATIO)},
            **({} if self.constant_loss is None else {"constant_loss": self.constant_loss, **self.made.scores}),
        }


def study_table(study: StudyDir) -> pandas.DataFrame:
    """The planned runs of ``study`` in the order of the plan, finished or not.

    The columns are ``condition``, one per scientific axis (its level as planned), those of
    `run_row`, ``classes``, ``label_entropy`` (nats, of the training labels; empty where the run does not
    say) and ``gradient_ratio`` (first to last layer, at initialisation). Where values are learned also
    ``constant_loss`` and the metrics of values, such as ``val_last_r2``. A run that is not there
    has status ``no run``. ``folder`` is relative to the study's folder, so the table is the same
    wherever that lies. ``attrs["sources"]`` maps a column to its ``file:field``.

    Raises:
        BadInput: ``study.json`` is damaged.
    """
    spec = study.spec
    return frame_of((study_row(study, run) for run in study.runs()), spec)


def frame_of(rows: Iterable[StudyRow], spec: StudySpec) -> pandas.DataFrame:
    """Rows of `study_row` as the frame of `study_table`; whole numbers stay whole where some are missing."""
    axes = [axis.name for axis in spec.scientific]
    condition, seed = PLANNED
    first = [] if spec.factor is None else [spec.factor]
    names = ["run", "folder", "status", condition, *first, seed, *axes, *(column.name for column in COLUMNS)]
    held = list(rows)
    valued = next((row.made.scores for row in held if row.constant_loss is not None and row.made.values), {})
    more = [] if all(row.constant_loss is None for row in held) else ["constant_loss", *valued]
    columns = list(dict.fromkeys([*names, "classes", "label_entropy", *more, RATIO, "error"]))
    made = frame((row.columns() for row in held), columns).astype(dict.fromkeys(WHOLE, "Int64"))
    made.attrs["sources"] = dict(SOURCES)
    return made


def study_row(study: StudyDir, planned: PlannedRun) -> StudyRow:
    """The row of one planned run, read from its folder."""
    row = StudyRow(planned)
    if planned.folder is None or not (study.path / planned.folder).is_dir():
        return row
    run = RunDir(study.path / planned.folder)
    made = run_row(run)
    try:
        split, statistics = run.split(), run.read_json("probes/init.json") or {}
    except BadInput as error:
        return StudyRow(planned, dataclasses.replace(made, status="unreadable", error=str(error)))
    return StudyRow(
        planned,
        made,
        len(split.classes) if split and split.classes else None,
        None if split is None else split.label_entropy,
        _positive(number_of(field_of(statistics, "gradient_ratio"))),
        None if split is None else split.constant_loss,
    )


def _positive(ratio: float | int | None) -> float | None:
    """A ratio of norms; None for what cannot be one."""
    return None if ratio is None or math.isnan(ratio) or ratio < 0 else float(ratio)
