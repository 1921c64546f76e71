"""What stands on the page of a run but its figures and pictures: the answer, tables, the confusion matrix, settings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from netdepth.config import Json
from netdepth.report.run_text import class_words, metric_table
from netdepth.report.tables import Table
from netdepth.runs import RunResult, SplitRecord
from netdepth.runs.folder import RunDir
from netdepth.runs.table import RunRow, describe_component, number_of, status_words
from netdepth.studies.folder import label_of_run
from netdepth.text import capitalised, compact, count, duration, fixed, number, percent, plain, thousands
from netdepth.training.layers import Layer, Statistics

__all__ = ["Confusion", "RunContent"]

MOST_CLASSES = 20
"""Of a confusion matrix that is drawn."""
PARTS = {"train": "training", "val": "validation", "test": "test"}
COMPONENTS = ("dataset", "model", "augmentation", "objective", "optimizer", "schedule")
UNTOLD = {"schema", "nonfinite"}


@dataclass(frozen=True)
class Confusion:
    """Counts of images by true class (rows) and predicted class; ``shares`` are the same as a part of their row."""

    classes: tuple[str, ...]
    counts: list[list[int]]
    shares: list[list[float]]


@dataclass(frozen=True)
class RunContent:
    """``statistics`` of the layers are in the order of their steps; empty where none were kept."""

    run: RunDir
    row: RunRow
    statistics: Sequence[Statistics]

    @cached_property
    def result(self) -> RunResult:
        return self.run.result() or RunResult()

    @cached_property
    def split(self) -> SplitRecord:
        return self.run.split() or SplitRecord.from_json({})

    @cached_property
    def config(self) -> dict[str, Json]:
        return self.run.read_json("config.json") or {}

    @cached_property
    def title(self) -> str:
        return ", ".join(filter(None, [self.row.title, label_of_run(self.run), f"seed {self.row.seed}"]))

    @cached_property
    def unfinished(self) -> str:
        """What a reader must know first; empty for a run that came to its end."""
        if self.row.status in ("unfinished", "failed", "diverged"):
            return f"{capitalised(status_words(self.row))}."
        return ""

    @cached_property
    def answer(self) -> str:
        """How good it is, in a few sentences; the rare class that an accuracy hides among them."""
        row, part = self.row, PARTS.get(str(self.row.evaluated_on), "")
        metric = "r2" if row.values else "accuracy"
        score = row.scores.get(f"{row.evaluated_on}_{row.reported}_{metric}")
        if score is None:
            return "It has no result yet."
        size = self.split.sizes.get(str(row.evaluated_on))
        images = f"{thousands(size)} {part} images" if size else f"the {part} images"
        which = "last weights" if row.reported == "last" else "weights that were best on validation"
        if row.values:
            error = number(row.scores.get(f"{row.evaluated_on}_{row.reported}_mae"))
            scatter = f"R² {number(score)}: 1 is perfect, 0 what the mean would reach"
            return f"The {which} are off by {error} in the mean on {images} ({scatter})."
        return " ".join([f"The {which} classify {percent(score)} of {images} correctly.", *class_words(row)])

    @cached_property
    def losses(self) -> str:
        """What the losses of the page are."""
        if not self.row.values:
            return "losses here are plain cross-entropy"
        return f"that is the loss here, and the best constant answer has {number(self.split.constant_loss)} on train"

    @cached_property
    def facts(self) -> list[str]:
        row, sizes = self.row, self.split.sizes
        objective, origin = self.row.objective, self.result.get("continued_from")
        images = ", ".join(f"{thousands(sizes[key])} {name}" for key, name in PARTS.items() if key in sizes)
        facts = [
            capitalised(status_words(row)),
            f"depth {plain(row.depth)}, {thousands(row.num_params)} parameters" if row.num_params else "",
            f"trained in {duration(row.seconds)}" if row.seconds is not None else "",
            f"{images} images" if images else "",
            f"trained on from {origin.get('run')}, step {origin.get('step')}" if origin is not None else "",
            f"minimised: {objective}; {self.losses}" if objective else "",
        ]
        return list(filter(None, facts))

    @cached_property
    def about_data(self) -> list[str]:
        """What a reader of the numbers must know of the data."""
        return [*self.split.warnings, *filter(None, [self.split.note])]

    @cached_property
    def metrics(self) -> Table:
        header, lines = metric_table(self.row)
        rows = [line for line in lines if any(cell != "-" for cell in line[2:])]
        return _table("Best and last weights", header, rows, range(2, len(header)))

    @cached_property
    def classes(self) -> Table:
        """A row per class, the worst first."""
        mixed, rows = self._taken_for, []
        told = {str(scores.get("class")): scores for scores in self.result.get("per_class") or []}
        for one in self.row.classes:
            scores = [percent(number_of(told[one.name].get(key))) for key in ("precision", "recall", "f1")]
            rows.append([one.name, thousands(one.support), *scores, mixed.get(one.name, "")])
        part = PARTS.get(str(self.row.evaluated_on), "")
        header = ("class", "images", "precision", "recall", "F1", "taken for (times)")
        return _table(f"Every class on {part}, the worst first", header, rows, range(1, 5))

    @cached_property
    def matrix(self) -> list[list[int]]:
        """The confusion matrix, if it is one of this run's classes."""
        counts, size = self.result.get("confusion"), len(self.split.classes)
        rows = counts if isinstance(counts, list) else []
        whole = all(isinstance(row, list) and len(row) == size and all(type(n) is int for n in row) for row in rows)
        return rows if whole and len(rows) == size else []

    @cached_property
    def _taken_for(self) -> dict[str, str]:
        """By class, the other class that its images are taken for most often."""
        classes, found = self.split.classes, {}
        for index, counts in enumerate(self.matrix):
            others = [(n, other) for other, n in enumerate(counts) if other != index and n > 0]
            if others:
                n, other = max(others, key=lambda item: item[0])
                found[classes[index]] = f"{classes[other]} ({thousands(n)})"
        return found

    @cached_property
    def confusion(self) -> Confusion | None:
        """The matrix to be drawn; None if there is none or it has too many classes."""
        if not 0 < len(self.matrix) <= MOST_CLASSES:
            return None
        shares = [[n / max(sum(counts), 1) for n in counts] for counts in self.matrix]
        return Confusion(self.split.classes, self.matrix, shares)

    @cached_property
    def layers(self) -> Table:
        """A row per layer, at the first and at the last measurement."""
        if not self.statistics:
            return _table("", (), [], ())
        first, last = self.statistics[0], self.statistics[-1]
        header, rows = ["#", "layer"], [[str(i), layer.name] for i, layer in enumerate(first.layers, start=1)]
        for one in [first, *([last] if last is not first else [])]:
            header += [f"{name}, {one.moment}" for name in ("gradient", "variance", "dead", "cosine")]
            for row, layer in zip(rows, one.layers, strict=True):
                row += _cells(layer)
        return _table("Every layer; variance and cosine are of what the next layer receives", header, rows,
                      [0, *range(2, len(header))])  # fmt: skip

    @cached_property
    def settings(self) -> list[tuple[str, str]]:
        """Names and values of what was computed, and where."""
        config, environment = self.config, self.run.environment()
        shown = [(part, describe_component(config.get(part)) or "") for part in COMPONENTS]
        train = config.get("train")
        for name, value in train.items() if isinstance(train, Mapping) else ():
            shown.append((f"train.{name}", _said(value)))
        if config.get("start_from"):
            shown.append(("start_from", _said(config["start_from"])))
        shown.append(("seed", str(self.row.seed)))
        if environment is not None:
            commit = f", commit {environment.commit[:10]}" if environment.commit else ""
            shown.append(("made by", f"netdepth {environment.netdepth}{commit}, torch {environment.torch}"))
            device = environment.device_name or environment.cpu or ""
            shown.append(("made on", f"{environment.device} {device}, {count(environment.threads, 'thread')}"))
        shown += [("fingerprint", str(self.row.fingerprint)), ("data digest", str(self.row.data_digest))]
        return [(name, value) for name, value in shown if value not in ("", "null", "none", "None")]

    @cached_property
    def config_text(self) -> str:
        """``config.json`` as ``netdepth train`` takes it."""
        return json.dumps({key: value for key, value in self.config.items() if key not in UNTOLD}, indent=1)


def _said(value: Json) -> str:
    """A setting in short; one that has settings of its own as ``patience=5 delta=0.0``."""
    if isinstance(value, Mapping):
        return " ".join(f"{key}={_said(item)}" for key, item in value.items() if item is not None)
    return value if isinstance(value, str) else json.dumps(value)


def _cells(layer: Layer) -> list[str]:
    cosine = "-" if layer.cosine is None else fixed(layer.cosine, 4)
    return [compact(layer.grad_norm), compact(layer.activation_var), percent(layer.dead_fraction, 0), cosine]


def _table(caption: str, header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int]) -> Table:
    return Table(caption, tuple(header), tuple(tuple([cell] for cell in row) for row in rows), tuple(right))
