"""From the table of a study to its cells: which runs exploded, which lost the signal, what the others reached.

A cell is one condition at one level of the study's factor, with a run per seed. Everything is judged by the training
loss of the *last* weights, over the whole training split: a deep net that trains worse than a
shallow one cannot be overfitting (He et al. 2016, §1).
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from netdepth.config import canonical_json
from netdepth.errors import BadInput, choose
from netdepth.runs.table import COLUMNS
from netdepth.stats.intervals import BOOTSTRAP_FROM, Estimate, bootstrap_interval, mean_interval, prediction_interval
from netdepth.studyspec import StudySpec

if TYPE_CHECKING:
    import pandas

__all__ = [
    "CHANCE_SHARE", "VANISHING_RATIO", "CellRun", "CellRuns", "Missing", "Scale", "cells_of", "fields_of", "kind_of",
    "val_errors",
]  # fmt: skip

LOSS, ACCURACY, RATIO = "train_last_loss", "val_last_accuracy", "gradient_ratio"
"""Columns of the table (see `netdepth.runs.table`); the last is the norm of the first layer's weight
gradient over that of the last layer, at initialisation."""

VAL_LOSS = "val_last_loss"

PROBED = {RATIO: "probes/init.json:gradient_ratio"}
"""Where a number stands that `COLUMNS` does not know, unless the table's ``attrs["sources"]`` say otherwise."""

FINISHED = ("completed", "stopped_early", "stopped_overfit", "diverged")
"""Ends with a result; a run with any other status, such as one that crashed, is missing."""

CHANCE_SHARE = 0.98
"""A training loss of at least this share of the labels' entropy has learned nothing but how frequent each is."""

VANISHING_RATIO = 1e-4
"""A first-to-last gradient ratio below this, of a net at chance, means the signal vanishes. Alone it means
little: at depth 20 with PyTorch's default initialisation it is 5e-6, and the net trains."""

TableRow = Mapping[str, str | float | None]
"""A row of the table as it is given: by column."""

Kind = Literal["trained", "exploded", "vanished", "at chance"]


@dataclass(frozen=True)
class Scale:
    """The two losses everything is held against: ``chance`` = ln C, ``entropy`` of the training labels (nats). Where
    values are learned both are ``constant``, the loss of the best constant answer, and there are 0 ``classes``.
    ``shared``: losses are shares of those of guessing, which several data sets have in common; both are 1."""

    classes: int
    entropy: float
    constant: float | None = None
    shared: bool = False

    @property
    def chance(self) -> float:
        """The loss of guessing all classes alike; for the tests no run's loss counts as more."""
        return math.log(self.classes) if self.constant is None else self.constant

    @property
    def guess(self) -> str:
        """What `chance` is, in words."""
        return f"ln {self.classes}" if self.constant is None else "the loss of the best constant answer"

    @property
    def unit(self) -> str:
        """The unit of a loss, after a number; of values it is theirs (or its square), which has no name."""
        if self.shared:
            return " of the loss of guessing"
        return " nats" if self.constant is None else ""


@dataclass(frozen=True)
class CellRun:
    """One finished run. ``loss`` is as measured (NaN if it diverged), ``capped`` what the tests use.

    ``val_error`` is a fraction; a diverged run's is that of guessing, and all are None in a study that
    set no images aside for validation. ``gradient_ratio`` is None if not measured. Kind ``at chance``:
    nothing learned, and no vanishing gradient to explain it. ``val_loss`` is in nats, ``metric`` the column that the
    study judges, if it names one; both are None if not measured.
    """

    run: str
    folder: str
    seed: int
    status: str
    loss: float
    capped: float
    val_error: float | None
    val_loss: float | None
    metric: float | None
    gradient_ratio: float | None
    kind: Kind
    parts: tuple[CellRun, ...] = ()
    """The runs with its seed on several data sets. It has the means of their losses, each divided by that of guessing
    there, and of their other values; it failed if one of them did."""

    @property
    def folders(self) -> tuple[str, ...]:
        """Its folder, or those of its parts."""
        return tuple(part.folder for part in self.parts) or (self.folder,)


@dataclass(frozen=True)
class Missing:
    """A planned run without a result: ``reason`` is ``no run``, ``unfinished``, ``failed`` or ``unreadable``."""

    seed: int
    reason: str
    folder: str | None


@dataclass(frozen=True)
class CellRuns:
    """A cell: its finished runs by seed, and the planned ones that are missing.

    For people: ``label`` is its condition, ``place`` its level ("depth 8", "optimizer adam"; "" without a factor) and
    ``where`` the same in a sentence ("at depth 8"). ``scale`` is that of its data set. ``parts``: the cells of several
    data sets, by name, that are together in this one.
    """

    condition: str
    label: str
    level: str
    place: str
    where: str
    scale: Scale
    runs: tuple[CellRun, ...]
    missing: tuple[Missing, ...]
    parts: tuple[tuple[str, CellRuns], ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """How many runs have each status, the missing ones by their reason."""
        return dict(Counter([*(run.status for run in self.runs), *(item.reason for item in self.missing)]))

    def of_kind(self, kind: Kind) -> tuple[CellRun, ...]:
        """The runs of one kind."""
        return tuple(run for run in self.runs if run.kind == kind)

    @property
    def fate(self) -> Literal["exploded", "vanished", "at chance"] | None:
        """What at least half of the finished runs share, if it is not having trained."""
        fates: tuple[Literal["exploded", "vanished", "at chance"], ...] = ("exploded", "vanished", "at chance")
        return next((fate for fate in fates if self.runs and 2 * len(self.of_kind(fate)) >= len(self.runs)), None)

    @property
    def loss(self) -> Estimate:
        """Mean of the capped training losses (nats), Student's t."""
        return mean_interval([run.capped for run in self.runs])

    @property
    def metric(self) -> Estimate:
        """Mean of the metric that the study names, in its own direction, Student's t."""
        return mean_interval([run.metric for run in self.runs if run.metric is not None])

    @property
    def one_run(self) -> Estimate:
        """Where one more run's capped training loss would fall."""
        losses = [run.capped for run in self.runs]
        return prediction_interval(losses, scale="log" if min(losses, default=1) > 0 else "linear")

    @property
    def bootstrap(self) -> Estimate | None:
        """The mean capped training loss with a bootstrap interval, from 20 runs on."""
        return bootstrap_interval([run.capped for run in self.runs]) if len(self.runs) >= BOOTSTRAP_FROM else None

    @property
    def val_error(self) -> Estimate:
        """Mean validation error (fraction) of the same weights, Student's t."""
        return mean_interval(val_errors(self.runs))

    @property
    def gradient_ratio(self) -> float | None:
        """The median over the runs that measured it."""
        ratios = [run.gradient_ratio for run in self.runs if run.gradient_ratio is not None]
        return statistics.median(ratios) if ratios else None


def cells_of(table: pandas.DataFrame, spec: StudySpec) -> tuple[dict[tuple[str, str], CellRuns], Scale | None]:
    """The cells of ``spec`` by (condition, level), and the scale of the losses, None if cells have different data.

    ``table`` has one row per run, of any order: those of `run_row`, and for every row, finished
    or not, ``seed``, a column per scientific axis (its level as planned), ``classes``, and where known
    ``label_entropy`` (nats; else ln C) and ``gradient_ratio``; where values are learned ``constant_loss``.

    Raises:
        BadInput: a column that is missing, a row outside the plan, a run in two rows.
    """
    axes = [axis.name for axis in spec.scientific]
    metric = [] if spec.metric is None else [spec.metric]
    for name in ("run", "folder", "seed", "status", LOSS, ACCURACY, "classes", *axes, *metric):
        choose(name, map(str, table.columns), "column of the table")
    rows = table.astype(object).to_dict("records")
    validated = any(_number(row[ACCURACY]) is not None for row in rows)
    found: dict[tuple[str, str], dict[int, TableRow]] = {(c.condition, c.level): {} for c in spec.cells}
    for row in rows:
        run = f"of run {row['run']}:"
        level = spec.factor_axis.level(row[spec.factor] if spec.factor else "", f"{spec.factor} {run}")
        condition = choose(spec.condition_of(row), spec.conditions, f"condition {run}")
        seed = int(choose(_whole(row["seed"]), map(str, spec.seeds_for(condition)), f"seed {run}"))
        place = condition, level
        if seed in found[place]:
            raise BadInput(f"runs {found[place][seed]['run']} and {row['run']} are the same cell and seed; keep one")
        found[place][seed] = row
    scales = _scales(found, spec)
    cells = {}
    for (condition, level), by_seed in found.items():
        runs, missing = [], []
        scale = scales[condition, level]
        for seed in sorted(spec.seeds_for(condition)):
            row = by_seed.get(seed, {"status": "no run", "folder": None})
            if row["status"] not in FINISHED:
                folder = row["folder"]
                missing.append(Missing(seed, str(row["status"]), folder if isinstance(folder, str) else None))
            else:
                runs.append(_run(row, scale, validated, spec.metric))
        names = condition, spec.label_of(condition), level, spec.place(level), spec.where(level)
        cells[condition, level] = CellRuns(*names, scale, tuple(runs), tuple(missing))
    return cells, next(iter(scales.values())) if len({*scales.values()}) == 1 else None


def val_errors(runs: Iterable[CellRun]) -> list[float]:
    """The validation errors of ``runs``, in their order; empty where the study has none."""
    return [run.val_error for run in runs if run.val_error is not None]


def fields_of(table: pandas.DataFrame, spec: StudySpec) -> dict[str, str]:
    """``file:field`` in a run's folder for each column that a verdict uses."""
    names = (LOSS, ACCURACY, VAL_LOSS, RATIO, *([] if spec.metric is None else [spec.metric]))
    known = {column.name: f"{column.file}:{column.field}" for column in COLUMNS}
    given = table.attrs.get("sources", {})
    return {name: given.get(name) or {**PROBED, **known}.get(name) or source_of_score(name) for name in names}


def source_of_score(column: str) -> str:
    """The ``file:field`` of a score's ``column``, such as ``val_last_r2``."""
    return f"result.json:{column.replace('_', '.', 2)}"


def _scales(found: Mapping[tuple[str, str], Mapping[int, TableRow]], spec: StudySpec) -> dict[tuple[str, str], Scale]:
    """The scale of each cell: that of its data set. Cells whose data set no run has begun on have another's."""
    datasets = {(cell.condition, cell.level): canonical_json(cell.config.dataset) for cell in spec.cells}
    rows: dict[bytes, list[TableRow]] = {}
    for place, by_seed in found.items():
        rows.setdefault(datasets[place], []).extend(by_seed.values())
    known = ("classes", "constant_loss")
    begun = {
        name: own
        for name, own in rows.items()
        if any(_number(row.get(key)) is not None for row in own for key in known)
    }
    scales = {name: _scale(own) for name, own in begun.items()} or {b"": _scale(())}
    return {place: scales.get(name) or next(iter(scales.values())) for place, name in datasets.items()}


def _scale(rows: Iterable[TableRow]) -> Scale:
    """The number of classes and the entropy that all rows of one data set agree on."""
    found = {}
    for name in ("classes", "label_entropy", "constant_loss"):
        values = sorted({value for row in rows if (value := _number(row.get(name))) is not None})
        if len(values) > 1:
            raise BadInput(f"the runs have different {name}: {values}; a cell is about one data set")
        found[name] = values[0] if values else None
    classes, constant = found["classes"], found["constant_loss"]
    if classes is None and constant is not None:
        return Scale(0, constant, constant)
    if classes is None or classes < 2 or classes != int(classes):
        raise BadInput(f"classes = {classes!r} is not acceptable; the table takes the number of classes, 2 or more")
    entropy = found["label_entropy"]
    return Scale(int(classes), math.log(classes) if entropy is None else entropy)


def _run(row: TableRow, scale: Scale, validated: bool, metric: str | None) -> CellRun:
    loss = _number(row[LOSS])
    loss = math.nan if loss is None else loss
    lost = row["status"] == "diverged" or not math.isfinite(loss)
    accuracy = _number(row[ACCURACY])
    guessing = 1 - 1 / scale.classes if validated else None
    val_error = 1 - accuracy if accuracy is not None and math.isfinite(accuracy) else guessing
    ratio = _number(row.get(RATIO))
    return CellRun(
        run=str(row["run"]),
        folder=str(row["folder"]),
        seed=int(_whole(row["seed"])),
        status=str(row["status"]),
        loss=loss,
        capped=scale.chance if lost else min(loss, scale.chance),
        val_error=val_error,
        val_loss=_number(row.get(VAL_LOSS)),
        metric=None if metric is None else _metric(row, metric, lost, scale),
        gradient_ratio=ratio,
        kind=kind_of(math.inf if lost else loss, ratio, scale),
    )


def kind_of(loss: float, gradient_ratio: float | None, scale: Scale) -> Kind:
    """What became of a run of this training loss (nats; not finite if it diverged)."""
    if not math.isfinite(loss) or loss > 2 * scale.chance:
        return "exploded"
    if loss >= CHANCE_SHARE * scale.entropy:
        return "vanished" if gradient_ratio is not None and gradient_ratio < VANISHING_RATIO else "at chance"
    return "trained"


def _metric(row: TableRow, metric: str, lost: bool, scale: Scale) -> float | None:
    """The metric that a study judges; of a diverged run that of guessing, and no loss (no R²) counts as worse."""
    value, r2 = _number(row[metric]), metric.endswith("_r2")
    guessing = scale.chance if metric.endswith("_loss") else 0.0 if r2 else 1 / max(scale.classes, 1)
    if lost or (value is not None and not math.isfinite(value)):
        return guessing
    if r2 and value is not None:
        return max(value, guessing)
    return min(value, guessing) if value is not None and metric.endswith("_loss") else value


def _whole(value: object) -> str:
    """A whole number as text; pandas makes 8.0 of 8 in a column with gaps."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _number(value: Any) -> float | None:
    """A number of the frame; None where there is none (pandas writes NaN or NA for that too)."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return None
    number = float(value)
    return None if math.isnan(number) else number
