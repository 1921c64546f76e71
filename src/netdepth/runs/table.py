"""Run folders as rows. One list says which file and field each number comes from, and fills the rows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netdepth.config import Json
from netdepth.errors import BadInput, choose
from netdepth.runs import METRICS, VALUE_METRICS, WEIGHTS, SplitRecord
from netdepth.runs.folder import RunDir
from netdepth.runs.naming import UNCALLED, Called, called_in, title
from netdepth.text import STATUS_WORDS, as_typed, number, percent, plain

if TYPE_CHECKING:
    import pandas

__all__ = [
    "COLUMNS", "QUANTITIES", "SCORES", "UNFINISHED", "Column", "Quantity", "RunRow", "describe_component", "field_of",
    "frame", "minimised", "number_of", "quantities_of", "run_row", "source", "status_words",
]  # fmt: skip

PARTS = ("train", "val", "test")
SCORES = tuple(f"{part}_{weights}_{metric}" for part in PARTS for weights in WEIGHTS for metric in METRICS)


@dataclass(frozen=True)
class Column:
    """A column of the table and the ``field`` (dotted path) of the ``file`` it is read from."""

    name: str
    file: str
    field: str
    number: bool = False


COLUMNS = (
    Column("recipe", "config.json", "recipe"),
    Column("fingerprint", "config.json", "fingerprint"),
    Column("dataset", "config.json", "dataset"),
    Column("model", "config.json", "model"),
    Column("seed", "config.json", "seed"),
    Column("data_digest", "split.json", "data_digest"),
    Column("split_digest", "split.json", "split_digest"),
    Column("depth", "result.json", "depth", number=True),
    Column("num_params", "result.json", "num_params", number=True),
    Column("reported", "result.json", "reported"),
    Column("steps", "result.json", "steps", number=True),
    Column("best_step", "result.json", "best_step", number=True),
    Column("best_epoch", "result.json", "best_epoch", number=True),
    Column("overfit_onset_epoch", "result.json", "overfit_onset_epoch", number=True),
    Column("seconds", "result.json", "seconds", number=True),
    *(Column(name, "result.json", name.replace("_", ".", 2), number=True) for name in SCORES),
    Column("epochs", "metrics.jsonl", "epoch", number=True),
)
"""Besides these a row holds ``run`` and ``folder`` (name and path), ``status`` and ``error``."""
UNFINISHED = ("unfinished", "failed", "unreadable")
"""Ends without values: such runs are in no mean and always counted."""


@dataclass(frozen=True)
class ClassRecall:
    """The share of the ``support`` images of a class that are classified as it."""

    name: str
    recall: float
    support: int


@dataclass(frozen=True)
class RunRow:
    """One run: its values of the `COLUMNS`, None where there is none yet.

    Losses are in nats, accuracies fractions, ``seconds`` wall time, ``epochs`` those of the last evaluation. ``scores``
    holds the metrics by column, such as ``test_best_loss``. A number stored as null because it was NaN or Inf comes
    back as such. A folder that cannot be read has status ``unreadable`` and says why under ``error``. ``split`` is what
    is known of its data.
    """

    run: str
    folder: str
    status: str
    error: str | None = None
    recipe: str | None = None
    fingerprint: str | None = None
    dataset: str | None = None
    model: str | None = None
    seed: int | None = None
    data_digest: str | None = None
    split_digest: str | None = None
    depth: float | None = None
    num_params: float | None = None
    reported: str | None = None
    steps: float | None = None
    best_step: float | None = None
    best_epoch: float | None = None
    overfit_onset_epoch: float | None = None
    seconds: float | None = None
    epochs: float | None = None
    called: Called = UNCALLED
    scores: Mapping[str, float | None] = field(default_factory=lambda: dict.fromkeys(SCORES))
    split: SplitRecord | None = None
    evaluated_on: str | None = None
    classes: tuple[ClassRecall, ...] = ()
    """The classes of the images in ``evaluated_on``, the worst first."""
    objective: str | None = None
    """What was `minimised`."""
    own: tuple[str, ...] = ()
    """Names of the user's own metrics, which are among the ``scores``."""

    @property
    def values(self) -> bool:
        """Whether the run learns values: then its ``scores`` also hold `VALUE_METRICS`, and none of classes."""
        return self.split is not None and bool(self.split.targets)

    @property
    def title(self) -> str:
        """The run in a heading: ``baseline-mlp on mnist · lr 3e-4``, or the name that it was given."""
        return title(self.recipe or self.run, self.called, self.data_name or "unknown data")

    @property
    def data_name(self) -> str | None:
        """The name of the data set, without its settings."""
        return None if self.dataset is None else self.dataset.partition(" ")[0]

    @property
    def macro_recall(self) -> float | None:
        """The mean recall of the classes: a rare one counts as much as a frequent one."""
        return math.fsum(one.recall for one in self.classes) / len(self.classes) if self.classes else None

    @property
    def worst_recall(self) -> float | None:
        """The recall of the worst class."""
        return self.classes[0].recall if self.classes else None

    @property
    def worst_class(self) -> str | None:
        """The name of the class with the lowest recall."""
        return self.classes[0].name if self.classes else None

    def value(self, column: str) -> str | float | None:
        """What stands in a column of the table."""
        found: str | float | None = self.scores[column] if column in self.scores else getattr(self, column)
        return found


@dataclass(frozen=True)
class Quantity:
    """A compared metric of the weights that a run reports; a ``percent`` one is a fraction until shown.

    A quantity that is no metric of a part of the data overrides `of` and `source`.
    """

    key: str
    title: str
    part: str
    metric: str
    percent: bool = False

    def column(self, row: RunRow) -> str:
        """The column of the table: best or last weights, as the run reports."""
        return f"{self.part}_{'last' if row.reported == 'last' else 'best'}_{self.metric}"

    def of(self, row: RunRow) -> float | None:
        """The run's value, None where it has none yet, or was made without this metric of the user's own."""
        return row.scores.get(self.column(row))

    def source(self, row: RunRow) -> str:
        """The file and field of the run's value."""
        return f"{Path(row.folder) / 'result.json'}:{self.column(row).replace('_', '.', 2)}"

    def shown(self, value: float | None) -> str:
        """A value as a person reads it."""
        return percent(value) if self.percent else number(value)

    def of_run(self, row: RunRow) -> str:
        """The run's value as a person reads it."""
        return self.shown(self.of(row))


@dataclass(frozen=True)
class ClassQuantity(Quantity):
    """A quantity of single classes, on the part that the run was evaluated on: its ``metric`` is one of the row."""

    def of(self, row: RunRow) -> float | None:
        value: float | None = getattr(row, self.metric)
        return value

    def source(self, row: RunRow) -> str:
        return f"{Path(row.folder) / 'result.json'}:per_class"

    def of_run(self, row: RunRow) -> str:
        named = self.metric == "worst_recall" and row.worst_class is not None
        return f"{super().of_run(row)} ({row.worst_class})" if named else super().of_run(row)


QUANTITIES = (
    Quantity("test_accuracy", "test accuracy", "test", "accuracy", percent=True),
    ClassQuantity("macro_recall", "macro recall", "", "macro_recall", percent=True),
    ClassQuantity("worst_recall", "worst class", "", "worst_recall", percent=True),
    Quantity("test_precision_weighted", "weighted precision", "test", "precision_weighted", percent=True),
    Quantity("test_loss", "test loss", "test", "loss"),
    Quantity("val_loss", "val loss", "val", "loss"),
)
"""What every table of runs shows: the one list of columns of `netdepth compare`, of its other formats and JSON, and of
`netdepth.runs.listing`."""


VALUE_QUANTITIES = (
    Quantity("test_r2", "test R²", "test", "r2"),
    Quantity("test_mae", "test MAE", "test", "mae"),
    Quantity("test_mse", "test MSE", "test", "mse"),
    *QUANTITIES[-2:],
)
"""The same of runs that learn values."""


def quantities_of(rows: Iterable[RunRow]) -> tuple[Quantity, ...]:
    """The `QUANTITIES` (of runs that learn values `VALUE_QUANTITIES`), and after them the user's own metrics that any
    of ``rows`` has."""
    held = list(rows)
    own = dict.fromkeys(name for row in held for name in row.own)
    kinds = {row.values for row in held if row.split is not None} or {False}
    shown: tuple[Quantity, ...] = QUANTITIES if kinds == {False} else VALUE_QUANTITIES
    if len(kinds) == 2:
        shown = tuple(dict.fromkeys((*QUANTITIES[:-2], *VALUE_QUANTITIES)))
    return (*shown, *(Quantity(f"test_{name}", f"test {name}", "test", name) for name in own))


def run_row(run: RunDir) -> RunRow:
    """The row of a run, read from its folder."""
    name, folder = run.path.resolve().name, str(run.path)
    try:
        files = {name: run.read_json(name) or {} for name in ("config.json", "result.json")}
        split = run.split()
        records = run.read_metrics()
        status = run.status()
        failure = run.read_json("failure.json") if status == "failed" else None
    except BadInput as error:
        return RunRow(name, folder, "unreadable", str(error))
    files |= {"split.json": vars(split) if split else {}, "metrics.jsonl": {**records[-1]} if records else {}}
    values: dict[str, Any] = {}
    for column in COLUMNS:
        value = field_of(files[column.file], column.field)
        if column.number:
            values[column.name] = number_of(value)
        elif column.name in ("dataset", "model"):
            values[column.name] = describe_component(value)
        else:
            values[column.name] = value if type(value) is (int if column.name == "seed" else str) else None
    scores = {score: values.pop(score) for score in SCORES}
    own = own_metrics(files["result.json"])
    told = (*VALUE_METRICS[1:], *own) if split is not None and split.targets else own
    more = [f"{part}_{weights}_{name}" for part in PARTS for weights in WEIGHTS for name in told]
    scores |= {score: number_of(field_of(files["result.json"], score.replace("_", ".", 2))) for score in more}
    why = None if failure is None else f"{failure.get('error')}: {failure.get('message')}"
    part = files["result.json"].get("evaluated_on")
    return RunRow(
        name,
        folder,
        status,
        why,
        **values,
        called=called_in(files["config.json"]),
        scores=scores,
        split=split,
        evaluated_on=part if isinstance(part, str) else None,
        classes=class_recalls(files["result.json"]),
        objective=minimised(files["config.json"]),
        own=own,
    )


def own_metrics(result: Mapping[str, Json]) -> tuple[str, ...]:
    """The names of the user's own metrics in a ``result.json``."""
    found = field_of(result, "train.last")
    if not isinstance(found, Mapping):
        return ()
    known = METRICS if METRICS[1] in found else VALUE_METRICS
    return tuple(name for name in found if name not in known)


def class_recalls(result: Mapping[str, Json]) -> tuple[ClassRecall, ...]:
    """The recall of every class in ``per_class`` of a ``result.json``, the worst first; what is damaged is left out.

    A class without images has no recall.
    """
    told = result.get("per_class")
    found = []
    for scores in told if isinstance(told, list) else ():
        if not isinstance(scores, Mapping):
            continue
        name, value, size = scores.get("class"), number_of(scores.get("recall")), number_of(scores.get("support"))
        if isinstance(name, str) and value is not None and 0 <= value <= 1 and size is not None and size >= 1:
            found.append(ClassRecall(name, value, int(size)))
    return tuple(sorted(found, key=lambda one: one.recall))


def status_words(row: RunRow) -> str:
    """The end of a run in words: ``stopped early at epoch 11; best at 6; overfitting since epoch 8``."""
    words = STATUS_WORDS.get(row.status, row.status)
    if row.status == "diverged":
        words += " (the loss was no longer finite)"
    if row.epochs is not None:
        words += f" at epoch {plain(row.epochs, 4)}"
    if row.best_epoch is not None:
        words += f"; best at {plain(row.best_epoch)}"
    if row.overfit_onset_epoch is not None:
        words += f"; overfitting since epoch {plain(row.overfit_onset_epoch)}"
        if row.split is not None and row.split.without_val:
            words += f" (judged without {len(row.split.without_val)} of {len(row.split.classes)} classes)"
    return words + (f" ({row.error})" if row.error else "")


def frame(rows: Iterable[Mapping[str, Any]], columns: Sequence[str] | None = None) -> pandas.DataFrame:
    """Rows as a pandas frame.

    Its texts are Python's also where pyarrow is installed, which pandas would take then: it knows no name of a file
    with bytes that are not UTF-8.
    """
    import pandas

    with pandas.option_context("mode.string_storage", "python"):
        return pandas.DataFrame(list(rows), columns=columns)


def source(row: RunRow, column: str) -> str:
    """Where a value of the table stands, e.g. ``runs/single/x-s0-ab/result.json:test.best.loss``."""
    found = {c.name: c for c in COLUMNS}
    choice = found[choose(column, found, "column")]
    return f"{Path(row.folder) / choice.file}:{choice.field}"


def minimised(config: Mapping[str, Json]) -> str | None:
    """What the run of a ``config.json`` minimised, in short, where that is not plain cross-entropy. It is the training
    loss of ``metrics.jsonl`` then; every other loss of a run that learns classes is the plain cross-entropy all the
    same, of one that learns values what it minimised."""
    component = config.get("objective")
    name, args = (component.get("name"), component.get("args")) if isinstance(component, Mapping) else (None, None)
    settings = args if isinstance(args, Mapping) else {}
    if not isinstance(name, str) or (name == "cross-entropy" and not any(settings.values())):
        return None
    short = {key: item for key, item in settings.items() if item and len(str(item)) <= 40}  # no digest, no path
    return describe_component({"name": name, "args": short})


def describe_component(value: Json) -> str | None:
    """A component of ``config.json`` in short: ``mlp hidden=[256,128] activation=relu``."""
    name, args = (value.get("name"), value.get("args")) if isinstance(value, Mapping) else (None, None)
    if not isinstance(name, str):
        return None
    shown = args.items() if isinstance(args, Mapping) else ()
    return " ".join([name, *(f"{key}={as_typed(item)}" for key, item in shown if item is not None)])


def field_of(data: Json, path: str) -> Json:
    """The value at a dotted ``path`` of a file of a run's folder; NaN and Inf come back as such, None if absent."""
    value = data
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    nonfinite = data.get("nonfinite") if isinstance(data, Mapping) else None
    if value is None and isinstance(nonfinite, Mapping) and (flag := nonfinite.get(path)) in ("nan", "inf", "-inf"):
        return float(str(flag))
    return value


def number_of(value: object) -> float | None:
    """``value`` if it is a number that fits a float, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if isinstance(value, float) or math.log2(abs(value) + 1) < 1000 else None
