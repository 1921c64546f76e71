"""Two classifiers on the same images: McNemar's exact test on those that only one of them gets right."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from netdepth.errors import BadInput
from netdepth.runs.folder import RunDir

__all__ = ["McNemar", "correct_of", "mcnemar", "mcnemar_of_runs"]

MOST_BYTES = 512 * 2**20
"""Of unpacked predictions: those for 50,000 images of 1,000 classes are 200 MB. Files from elsewhere may have more."""

DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, MemoryError, RuntimeError)
"""What an archive raises that was cut, altered or encrypted, or claims an array that no memory holds."""


@dataclass(frozen=True)
class McNemar:
    """Of ``n`` images the first classifier alone is right on ``first``, the second alone on ``second``. If neither were
    better, each of these would fall to either with probability 1/2; ``p`` is two-sided and exact (McNemar 1947)."""

    n: int
    first: int
    second: int
    p: float


def mcnemar(first: np.ndarray, second: np.ndarray) -> McNemar:
    """The test for two arrays bool ``[N]``: which images each classifier gets right.

    Raises:
        BadInput: they are not about equally many images, or about none.
    """
    from scipy.stats import binomtest

    if first.shape != second.shape or first.ndim != 1 or not len(first):
        raise BadInput(
            f"McNemar's test takes answers to the same images, not {list(first.shape)}, {list(second.shape)}"
        )
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    discordant = only_first + only_second
    p = float(binomtest(only_first, discordant).pvalue) if discordant else 1.0
    return McNemar(len(first), only_first, only_second, p)


def correct_of(run: RunDir) -> tuple[np.ndarray, np.ndarray]:
    """Which images a run's reported weights get right, bool ``[N]``, and their labels, from ``predictions.npz``.

    Raises:
        BadInput: the file is missing, damaged or larger than `MOST_BYTES` when unpacked.
    """
    path = run.path / "predictions.npz"
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(item.file_size for item in archive.infolist()) > MOST_BYTES:
                raise ValueError("unpacked it is too large")
        with np.load(path, allow_pickle=False) as held:
            logits, labels = held["logits"], held["labels"]
        return logits.argmax(1) == labels, labels
    except (OSError, ValueError, LookupError, *DAMAGED) as error:
        raise BadInput(f"run {run.path.name} has no readable predictions.npz ({type(error).__name__})") from None


def mcnemar_of_runs(first: RunDir, second: RunDir) -> McNemar:
    """The test for two runs on the images that both were evaluated on.

    Raises:
        BadInput: they were evaluated on different images.
    """
    marks: list[tuple[Any, ...]] = []
    for run in (first, second):
        split, result = run.read_json("split.json") or {}, run.result() or {}
        marks.append((split.get("data_digest"), split.get("split_digest"), result.get("evaluated_on")))
    (a, labels), (b, others) = correct_of(first), correct_of(second)
    if marks[0] != marks[1] or not np.array_equal(labels, others):
        raise BadInput(f"runs {first.path.name} and {second.path.name} were evaluated on different images")
    return mcnemar(a, b)
