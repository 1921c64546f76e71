"""The pictures that a run got wrong, as small PNG files inside a page."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from netdepth.data import Split
from netdepth.errors import BadInput
from netdepth.runs.compare import predictions_of
from netdepth.runs.seal import PICTURES, opened
from netdepth.runs.table import RunRow
from netdepth.training.finished import Run

__all__ = ["Mistake", "Mistakes", "mistakes_of"]

MOST = 24
"""Pictures on the page."""
SIDE = 128
"""Pixels of a side from which a picture is made smaller."""


@dataclass(frozen=True)
class Mistake:
    """One picture as a ``data:`` address, its class, and the class it was taken for with that ``probability``."""

    picture: str
    true: str
    said: str
    probability: float


@dataclass(frozen=True)
class Mistakes:
    """``count`` of ``total`` images of ``part`` are wrong; ``shown`` are those that the network was surest of."""

    part: str
    count: int
    total: int
    shown: list[Mistake]


def mistakes_of(run: Run, row: RunRow, data_dir: Path | None) -> Mistakes:
    """The mistakes of the reported weights on the part that ``run`` was evaluated on, by its ``predictions.npz``.

    That part is validation, or test where the run itself opened it, which is kept in its ``test_access.json``. The
    test part of a run that left it sealed stays sealed.

    Raises:
        BadInput: no readable predictions, or they are not those of the data here or of the result.
        StorageError: the data are not here.
    """
    logits, labels = predictions_of(run.dir)
    answers = logits.argmax(1)
    wrong = np.flatnonzero(answers != labels)
    name, classes = run.path.name, run.classes
    if logits.shape[1] != len(classes) or not 0 <= labels.min() <= labels.max() < len(classes):
        raise BadInput(f"the predictions of run {name} are not for its {len(classes)} classes")
    part = _part(run, row, data_dir)
    if not np.array_equal(part.labels.numpy(), labels):
        raise BadInput(f"the predictions of run {name} are not for the images of its data set")
    shifted = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    sure = shifted.max(1) / shifted.sum(1)
    first = wrong[np.argsort(-sure[wrong], kind="stable")][:MOST]
    shown = [
        Mistake(_address(part.inputs[i].numpy()), classes[labels[i]], classes[answers[i]], float(sure[i]))
        for i in first
    ]
    return Mistakes("test" if row.evaluated_on == "test" else "validation", len(wrong), len(labels), shown)


def _part(run: Run, row: RunRow, data_dir: Path | None) -> Split:
    """The images that ``run`` was evaluated on."""
    if row.evaluated_on == "val":
        return run.data(data_dir).val
    purposes = opened(run.dir)
    splits = run.data(data_dir)
    if row.evaluated_on != "test" or not purposes or splits.test is None:
        raise BadInput(f"run {run.path.name} does not say that it opened its test images, so they stay sealed")
    log = None if PICTURES in purposes else run.dir.log_test_access
    return splits.test.open_test(PICTURES, log)


def _address(image: np.ndarray) -> str:
    """``image`` uint8 ``[C, H, W]`` as the address of a PNG."""
    drawn = Image.fromarray(image.transpose(1, 2, 0) if len(image) == 3 else image[0])
    drawn.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    drawn.save(buffer, "png", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
