"""Data sets: ``load(Component("mnist"), data_dir=None)`` gives train, validation and sealed test.

A new data set is one new file in this folder that registers a function in `DATASETS`.
"""

from __future__ import annotations

from pathlib import Path

from netdepth.config import Component
from netdepth.data.splits import DATASETS, DatasetSpec, SealedTest, Split, Splits, train_statistics
from netdepth.registry import import_package_modules

__all__ = ["DATASETS", "DatasetSpec", "SealedTest", "Split", "Splits", "load", "train_statistics"]

import_package_modules(__name__, __path__)


def load(component: Component, *, data_dir: Path | None) -> Splits:
    """The data set that ``component`` names, with its settings; ``data_dir`` is ``--data``.

    Raises:
        BadInput: unknown name or setting, or a local file that is not the official one.
        StorageError: the data are not on this machine (loading never downloads), or cannot be read.
    """
    return DATASETS.build(component, data_dir)
