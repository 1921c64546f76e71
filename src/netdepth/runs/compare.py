"""Runs side by side: one line per run, and per config the mean over its seeds with an interval."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from netdepth.config import Json
from netdepth.errors import BadInput
from netdepth.runs.folder import RunDir
from netdepth.runs.naming import UNCALLED, differing, flat_settings
from netdepth.runs.table import QUANTITIES, UNFINISHED, Quantity, RunRow, quantities_of, run_row
from netdepth.stats.exact import McNemar, mcnemar
from netdepth.stats.intervals import Estimate, finite_mean, mean_worth
from netdepth.text import as_typed, listed

__all__ = ["ComparedRuns", "Comparison", "compare", "correct_of", "mcnemar_of_runs", "predictions_of"]

MOST_BYTES = 512 * 2**20
"""Of unpacked predictions: those for 50,000 images of 1,000 classes are 200 MB. Files from elsewhere may have more."""

DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, MemoryError, RuntimeError)
"""What an archive raises that was cut, altered or encrypted, or claims an array that no memory holds."""

SHOWN = ("run", "folder", "seed", "status", "error", "epochs", "best_epoch", "reported", "seconds", "worst_class")
"""Columns of a run in the JSON of a comparison, beside its quantities."""


@dataclass(frozen=True)
class ComparedRuns:
    """The runs of one config (one fingerprint), sorted by seed, and their estimates by quantity key."""

    fingerprint: str | None
    label: str
    rows: tuple[RunRow, ...]
    estimates: dict[str, Estimate]
    counts: dict[str, int]
    """How many runs have each status; a failed or unfinished run is in no mean and always counted here."""

    @property
    def remarks(self) -> list[str]:
        """``2 diverged``, ``1 failed``: what a reader of the mean must know."""
        return [f"{self.counts[status]} {status}" for status in ("diverged", *UNFINISHED) if self.counts.get(status)]

    def worth(self, key: str) -> float:
        """The mean of a loss by which the groups are sorted: a finished run whose value is not finite counts as
        infinitely bad, and so does a group without a value."""
        quantity = next(quantity for quantity in QUANTITIES if quantity.key == key)
        mean = mean_worth([quantity.of(row) for row in self.rows if row.status not in UNFINISHED])
        return math.inf if mean is None else mean


@dataclass(frozen=True)
class Comparison:
    """Groups in the order their first run was given, and one-line warnings."""

    groups: tuple[ComparedRuns, ...]
    warnings: tuple[str, ...]

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """What is compared: the user's own metrics too, where a run has one."""
        return quantities_of(row for group in self.groups for row in group.rows)

    def as_json(self) -> Mapping[str, Json]:
        """Plain values: fractions, nats, seconds; each number with the file and field it came from."""
        return {
            "groups": [
                {
                    "fingerprint": group.fingerprint,
                    "label": group.label,
                    "counts": group.counts,
                    "estimates": {key: asdict(estimate) for key, estimate in group.estimates.items()},
                    "runs": [
                        {
                            **{key: _finite(row.value(key)) for key in SHOWN},
                            **{q.key: _finite(q.of(row)) for q in self.quantities},
                            "sources": {q.key: q.source(row) for q in self.quantities},
                        }
                        for row in group.rows
                    ],
                }
                for group in self.groups
            ],
            "warnings": list(self.warnings),
        }


def compare(runs: Iterable[RunDir], label_of: Callable[[RunDir], str | None] = lambda run: None) -> Comparison:
    """Compare ``runs``; a folder named twice counts once.

    If each config has a name of its own, given to its runs or by ``label_of``, they are called so; else by the settings
    in which they differ.

    Every run has its line whatever its status. A mean is over the finished runs with a finite
    value (a diverged run counts if its value is finite), with Student's t interval at 95 %.

    Raises:
        BadInput: no runs.
    """
    unique = {run.path.resolve(): run for run in runs}
    if not unique:
        raise BadInput("nothing to compare; name at least one run")
    groups: dict[str, list[RunRow]] = {}
    names: dict[str, str | None] = {}
    for path, run in unique.items():
        row = run_row(run)
        key = str(row.fingerprint or path)
        groups.setdefault(key, []).append(row)
        names.setdefault(key, row.called.name or label_of(run))
    labels = [name for name in dict.fromkeys(names.values()) if name is not None]
    if len(labels) < len(groups):
        labels = _labels([rows[0] for rows in groups.values()])
    shown = quantities_of(row for rows in groups.values() for row in rows)
    made = tuple(_group(rows, label, shown) for rows, label in zip(groups.values(), labels, strict=True))
    return Comparison(made, tuple(_warnings(made)))


def _group(rows: list[RunRow], label: str, quantities: Sequence[Quantity]) -> ComparedRuns:
    ordered = tuple(sorted(rows, key=lambda row: (-1 if row.seed is None else row.seed, row.folder)))
    estimates = {}
    for quantity in quantities:
        estimates[quantity.key] = finite_mean([quantity.of(row) for row in ordered if row.status not in UNFINISHED])
    return ComparedRuns(ordered[0].fingerprint, label, ordered, estimates, dict(Counter(row.status for row in ordered)))


def _labels(firsts: Sequence[RunRow]) -> list[str]:
    """The titles of the groups, if they tell them apart; else recipe and data set, and the settings that differ."""
    titles = [row.title for row in firsts]
    if len(set(titles)) == len(titles) and all(row.called != UNCALLED for row in firsts):
        return titles
    readable = [RunDir(Path(row.folder)) if row.status != "unreadable" else None for row in firsts]
    configs = [(run and run.read_json("config.json")) or {} for run in readable]
    labels = []
    for row, differ in zip(firsts, differing([flat_settings(config) for config in configs]), strict=True):
        said = row.called.name or " on ".join(filter(None, [row.recipe, row.data_name])) or row.run
        settings = {path: value for path, value in differ.items() if path != "dataset" and value is not None}
        labels.append(", ".join([said, *(f"{path}={as_typed(value)}" for path, value in settings.items())]))
    return labels


def _warnings(groups: Sequence[ComparedRuns]) -> list[str]:
    warnings = []
    rows = [row for group in groups for row in group.rows]
    digests = {(row.data_digest, row.split_digest) for row in rows if row.data_digest}
    if len(digests) > 1:
        names = sorted({str(row.data_name) for row in rows if row.data_digest})
        warnings.append(
            f"these runs used {len(digests)} different data sets or splits ({', '.join(names)}); "
            "their numbers cannot be compared"
        )
    parts = {row.evaluated_on for row in rows if row.classes}
    if len(parts) > 1:
        warnings.append(
            "some of these runs were evaluated on test images and some on validation images; their macro recall and "
            "their worst classes are not of the same images"
        )
    elif parts == {"val"}:
        warnings.append("no test image was looked at: macro recall and worst class are of the validation images")
    warnings += _of_data(groups)
    for group in groups:
        seeds = Counter(row.seed for row in group.rows if row.seed is not None)
        twice = sorted(seed for seed, count in seeds.items() if count > 1)
        if twice:
            which = ", ".join(map(str, twice))
            warnings.append(f"{group.label}: seed {which} is in several folders and counts each time")
    valued = {row.objective for row in rows if row.values}
    if valued and not all(row.values for row in rows if row.split is not None):
        warnings.append("some of these runs learn values and some classes; their losses cannot be compared")
    elif len(valued) > 1:
        losses = " and ".join(sorted(map(str, valued)))
        warnings.append(
            f"these runs minimised different losses ({losses}); compare them by R², MAE or MSE, not by loss"
        )
    elif not valued and any(row.objective is not None for row in rows):
        warnings.append("some of these runs minimised another loss; the losses shown are all plain cross-entropy")
    return warnings


def _of_data(groups: Sequence[ComparedRuns]) -> list[str]:
    """What is wrong with the data, and of which groups, unless it is all of them."""
    found: dict[str, dict[str, None]] = {}
    for group in groups:
        for text in [text for row in group.rows if row.split is not None for text in row.split.warnings]:
            found.setdefault(text, {})[group.label] = None
    return [
        text if len(labels) == len(groups) else f"{listed([*labels], most=3)}: {text}" for text, labels in found.items()
    ]


def _finite(value: str | float | None) -> str | float | None:
    """JSON has no NaN: the word instead."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


# --- predictions ---


def correct_of(run: RunDir) -> tuple[np.ndarray, np.ndarray]:
    """Which images a run's reported weights get right, bool ``[N]``, and their labels; errors as `predictions_of`."""
    logits, labels = predictions_of(run)
    return logits.argmax(1) == labels, labels


def predictions_of(run: RunDir) -> tuple[np.ndarray, np.ndarray]:
    """The logits ``[N, K]`` of a run's reported weights and the labels ``[N]``, from ``predictions.npz``.

    Of a run that learns values: its predictions ``[N, K]`` and the targets ``[N, K]``.

    Raises:
        BadInput: the file is missing, damaged or larger than `MOST_BYTES` when unpacked.
    """
    path, split = run.path / "predictions.npz", run.split()
    names, whole = ("logits", "labels"), 1
    if split is not None and split.targets:
        names, whole = ("predictions", "targets"), 2
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(item.file_size for item in archive.infolist()) > MOST_BYTES:
                raise ValueError("unpacked it is too large")
        with np.load(path, allow_pickle=False) as held:
            logits, labels = held[names[0]], held[names[1]]
        if logits.ndim != 2 or labels.shape != logits.shape[:whole] or not logits.size:
            raise ValueError(f"{names[0]} and {names[1]} do not fit one another")
        return logits, labels
    except (OSError, ValueError, LookupError, *DAMAGED) as error:
        raise BadInput(f"run {run.path.name} has no readable predictions.npz ({type(error).__name__})") from None


def mcnemar_of_runs(first: RunDir, second: RunDir) -> McNemar:
    """The test for two runs on the images that both were evaluated on.

    Raises:
        BadInput: they were evaluated on different images.
    """
    marks = []
    for run in (first, second):
        split, result = run.split(), run.result()
        if split is not None and split.targets:
            raise BadInput(f"run {run.path.name} learns values, and McNemar's test is of right and wrong answers")
        marks.append((split and (split.data_digest, split.split_digest), result and result.get("evaluated_on")))
    (a, labels), (b, others) = correct_of(first), correct_of(second)
    if marks[0] != marks[1] or not np.array_equal(labels, others):
        raise BadInput(f"runs {first.path.name} and {second.path.name} were evaluated on different images")
    return mcnemar(a, b)
