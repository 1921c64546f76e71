"""All that a report reads of a study's folder, read once: rows, verdict, curves, probes, how it was made."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from netdepth.config import Json, Settings
from netdepth.errors import BadInput, StorageError
from netdepth.runs import MetricsRecord
from netdepth.runs.folder import RunDir
from netdepth.runs.table import UNFINISHED, field_of, number_of
from netdepth.studies.cells import CellRun
from netdepth.studies.folder import StudyDir
from netdepth.studies.judgements import Judgement, as_json, earlier_judgements, record
from netdepth.studies.table import StudyRow, frame_of, study_row
from netdepth.studies.verdict import Verdict, verdict
from netdepth.studyspec import StudySpec

if TYPE_CHECKING:
    import pandas

__all__ = ["StudyData", "StudyRun", "judge_study", "read_study"]


@dataclass(frozen=True)
class StudyRun:
    """A planned run: its ``number`` in the plan from 1 on, its row of the table, and what lies in its folder.

    The gradients are the norms of every weight layer's gradient at initialisation and at the last step measured, where
    they are finite numbers.
    """

    number: int
    row: StudyRow
    records: Sequence[MetricsRecord] = ()
    config: Settings = field(default_factory=dict)
    environment: Settings = field(default_factory=dict)
    first_gradients: Sequence[float | None] | None = None
    last_gradients: Sequence[float | None] | None = None
    last_gradients_file: str | None = None

    @property
    def place(self) -> tuple[str, str]:
        """Condition and level of the factor."""
        return self.row.planned.condition, self.row.planned.level

    @property
    def finished(self) -> bool:
        """Whether it has a result; a diverged run has one."""
        return self.row.made.status not in ("no run", *UNFINISHED)


@dataclass(frozen=True)
class StudyData:
    """A study with everything that the page shows of it."""

    study: StudyDir
    spec: StudySpec
    runs: tuple[StudyRun, ...]
    table: pandas.DataFrame
    verdict: Verdict | None
    """None while no run has begun: the number of classes is not known yet."""
    earlier: tuple[Judgement, ...] = ()
    """What was judged of the same question before, by other data."""

    def verdict_json(self) -> Mapping[str, Json] | None:
        """The content of ``verdict.json``."""
        return None if self.verdict is None else {**self.verdict.as_json(), **as_json(self.earlier)}

    @cached_property
    def values(self) -> bool:
        """Whether its runs learn values: losses have no name of their own for a unit then, and there are no errors."""
        return any(run.row.constant_loss is not None for run in self.runs)

    @property
    def losses(self) -> str:
        """The training loss with its unit."""
        return "training loss" if self.values else "training loss in nats"

    @cached_property
    def cells(self) -> dict[tuple[str, str], list[StudyRun]]:
        """The planned runs by condition and level of the factor."""
        found: dict[tuple[str, str], list[StudyRun]] = {(cell.condition, cell.level): [] for cell in self.spec.cells}
        for run in self.runs:
            found[run.place].append(run)
        for name, parts in self.spec.combined.items():
            for level in self.spec.levels:
                found[name, level] = [run for part in parts for run in found[part, level]]
        return found

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {run.row.planned.folder: run.number for run in self.runs if run.row.planned.folder is not None}

    def numbers(self, runs: Iterable[CellRun]) -> tuple[int, ...]:
        """The numbers of the verdict's ``runs``."""
        return tuple(sorted({self._numbers[name] for run in runs for name in run.folders}))

    @property
    def missing(self) -> list[StudyRun]:
        """The planned runs that have no result."""
        return [run for run in self.runs if not run.finished]


def read_study(study: StudyDir) -> StudyData:
    """Read the folders of the planned runs and judge them.

    Raises:
        BadInput: ``study.json`` is damaged, or its runs are about different data.
    """
    spec = study.spec
    rows = [study_row(study, planned) for planned in study.runs()]
    table = frame_of(rows, spec)
    begun = any(row.classes is not None or row.constant_loss is not None for row in rows)
    runs = tuple(_run(study, number, row) for number, row in enumerate(rows, 1))
    found = verdict(table, spec) if begun else None
    return StudyData(study, spec, runs, table, found, earlier_judgements(study, found) if found else ())


def judge_study(study: StudyDir) -> tuple[StudyData, str]:
    """As `read_study`, for a verdict that is given: it is recorded in the store. The text says why, if it was not."""
    data = read_study(study)
    if data.verdict is None:
        return data, ""
    try:
        record(study, data.verdict)
    except StorageError as error:
        return data, f"this verdict is not in the record of the runs folder: {error}"
    return replace(data, earlier=earlier_judgements(study, data.verdict)), ""


def _run(study: StudyDir, number: int, row: StudyRow) -> StudyRun:
    if row.planned.folder is None or row.made.status in ("no run", "unreadable"):
        return StudyRun(number, row)
    folder = RunDir(study.path / row.planned.folder)
    try:
        last = _last_statistics(folder)
        return StudyRun(
            number,
            row,
            folder.read_metrics(),
            folder.read_json("config.json") or {},
            folder.read_json("environment.json") or {},
            _gradients(folder, "probes/init.json"),
            None if last is None else _gradients(folder, last),
            last,
        )
    except BadInput as error:  # a damaged file beside the result: the numbers stand, the picture lacks them
        return StudyRun(number, replace(row, made=replace(row.made, error=str(error))))


def _gradients(folder: RunDir, file: str) -> list[float | None] | None:
    """The gradient norm of every layer in a file of layer statistics; None where there is no file."""
    statistics = folder.read_json(file)
    if statistics is None:
        return None
    layers = statistics.get("layers")
    norms = [field_of(layer, "grad_norm") for layer in (layers if isinstance(layers, list) else ())]
    return [norm if isinstance(norm, int | float) and math.isfinite(norm) else None for norm in map(number_of, norms)]


def _last_statistics(folder: RunDir) -> str | None:
    """The file of the last layer statistics after initialisation."""
    steps = [path.stem.removeprefix("step-") for path in (folder.path / "probes").glob("step-*.json")]
    newest = max((int(step) for step in steps if step.isdecimal()), default=None)
    return None if newest is None else f"probes/step-{newest}.json"
