"""Run folders as rows. One list says which file and field each number comes from, and fills the rows."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netdepth.errors import BadInput, choose
from netdepth.runs.folder import RunDir

__all__ = [
    "COLUMNS", "METRICS", "QUANTITIES", "Column", "Quantity", "describe_component", "field_of", "number_of", "run_row",
    "source",
]  # fmt: skip

METRICS = ("loss", "accuracy", "precision_weighted", "recall_weighted", "f1_weighted")
PARTS = ("train", "val", "test")
WEIGHTS = ("best", "last")


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
    *(
        Column(f"{part}_{weights}_{metric}", "result.json", f"{part}.{weights}.{metric}", number=True)
        for part in PARTS
        for weights in WEIGHTS
        for metric in METRICS
    ),
    Column("epochs", "metrics.jsonl", "epoch", number=True),
)
"""Besides these a row holds ``run`` and ``folder`` (name and path), ``status`` and ``error``."""


@dataclass(frozen=True)
class Quantity:
    """A compared metric of the weights that a run reports; a ``percent`` one is a fraction until shown."""

    key: str
    title: str
    part: str
    metric: str
    percent: bool = False

    def column(self, row: Mapping[str, Any]) -> str:
        """The column of the table: best or last weights, as the run reports."""
        return f"{self.part}_{'last' if row.get('reported') == 'last' else 'best'}_{self.metric}"

    def of(self, row: Mapping[str, Any]) -> float | None:
        """The run's value, None where it has none yet."""
        value = row[self.column(row)]
        return None if value is None else float(value)


QUANTITIES = (
    Quantity("test_accuracy", "test accuracy", "test", "accuracy", percent=True),
    Quantity("test_precision_weighted", "weighted precision", "test", "precision_weighted", percent=True),
    Quantity("test_loss", "test loss", "test", "loss"),
    Quantity("val_loss", "val loss", "val", "loss"),
)
"""What `netdepth.runs.compare` shows and compares of every run."""


def run_row(run: RunDir) -> dict[str, Any]:
    """One run as a flat dict: a key per column, None where there is no value yet.

    Losses are in nats, accuracies fractions, ``seconds`` wall time, ``epochs`` those of the last
    evaluation. A number stored as null because it was NaN or Inf comes back as such. A folder
    that cannot be read has status ``unreadable`` and says why under ``error``.
    """
    row: dict[str, Any] = {"run": run.path.resolve().name, "folder": str(run.path), "status": "unreadable"}
    row.update({column.name: None for column in COLUMNS})
    row["error"] = None
    try:
        files = {name: run.read_json(name) or {} for name in ("config.json", "split.json", "result.json")}
        records = run.read_metrics()
        row["status"] = run.status()
        failure = run.read_json("failure.json") if row["status"] == "failed" else None
    except BadInput as error:
        row["error"] = str(error)
        return row
    files["metrics.jsonl"] = records[-1] if records else {}
    for column in COLUMNS:
        value = field_of(files[column.file], column.field)
        if column.name in ("dataset", "model"):
            value = describe_component(value)
        row[column.name] = number_of(value) if column.number else value
    if failure is not None:
        row["error"] = f"{failure.get('error')}: {failure.get('message')}"
    return row


def source(row: Mapping[str, Any], column: str) -> str:
    """Where a value of the table stands, e.g. ``runs/single/x-s0-ab/result.json:test.best.loss``."""
    found = {c.name: c for c in COLUMNS}
    choice = found[choose(column, found, "column")]
    return f"{Path(row['folder']) / choice.file}:{choice.field}"


def describe_component(value: Any) -> str | None:
    """A component of ``config.json`` in short: ``mlp hidden=[256,128] activation=relu``."""
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
        return None
    args = value.get("args")
    shown = args.items() if isinstance(args, Mapping) else ()
    texts = [
        f"{key}={item if isinstance(item, str) else json.dumps(item, separators=(',', ':'))}"
        for key, item in shown
        if item is not None
    ]
    return " ".join([value["name"], *texts])


def field_of(data: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted ``path`` of a file of a run's folder; NaN and Inf come back as such, None if absent."""
    value: Any = data
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    nonfinite = data.get("nonfinite")
    if value is None and isinstance(nonfinite, Mapping) and nonfinite.get(path) in ("nan", "inf", "-inf"):
        return float(nonfinite[path])
    return value


def number_of(value: Any) -> float | int | None:
    """``value`` if it is a number that fits a float, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if isinstance(value, float) or math.log2(abs(value) + 1) < 1000 else None
