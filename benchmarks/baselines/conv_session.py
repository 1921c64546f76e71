"""What the baselines of `conv.py` share: the work, where it comes from, and the turns they wait for.

A turn is an epoch over the benchmark's training images, from the same initial weights each time, in the
same order, every image padded, cropped and flipped at random. Imports, reading the data, compiling and
`WARM_UP_STEPS` steps come before the first turn and are reported apart.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from baselines.study_session import take_turns

__all__ = ["DECAY", "LEARNING_RATE", "MOMENTUM", "PAD", "WARM_UP_STEPS", "Work", "open_work", "spread", "take_turns"]

LEARNING_RATE, MOMENTUM, DECAY = 0.02, 0.9, 1e-4
"""A lower rate than the paper's, so that few steps from equal weights end at comparable losses."""
PAD = 4
WARM_UP_STEPS = 5


@dataclass(frozen=True)
class Work:
    """The network, and the folder that holds what is needed to train it.

    ``variant`` is the name the driver called, for files that serve several.
    """

    variant: str
    folder: Path
    depth: int
    batch_size: int
    threads: int
    dataset: str
    data_dir: Path | None
    device: str = "cpu"
    loaders: int = 0
    """Processes that load data, of a baseline that has such."""

    @property
    def bf16(self) -> bool:
        return "bf16" in self.variant

    def images(self) -> np.ndarray:
        """uint8 ``[N, C, H, W]``."""
        return np.load(self.folder / "images.npy")

    def labels(self) -> np.ndarray:
        """int64 ``[N]``."""
        return np.load(self.folder / "labels.npy")

    def order(self) -> np.ndarray:
        """Indices of all images in the order of the epoch."""
        return np.load(self.folder / "order.npy")

    def statistics(self) -> np.ndarray:
        """Mean and standard deviation per channel, in 0..1, float32 ``[2, C]``."""
        return np.load(self.folder / "statistics.npy")

    def weights(self) -> list[np.ndarray]:
        """Initial weights of the convolutions ``[out, in, 3, 3]`` in the order of the forward pass, then
        weight and bias of the last layer."""
        with np.load(self.folder / "weights.npz") as arrays:
            return [arrays[f"p{i}"] for i in range(len(arrays.files))]


def spread(count: int, total: int) -> np.ndarray:
    """Indices of ``count`` of ``total`` images, evenly spread: a folder of pictures lies class by class."""
    return np.arange(count) * total // count


def open_work() -> tuple[Work, TextIO]:
    """Read the driver's arguments; standard output is kept for replies, libraries print to stderr."""
    parser = argparse.ArgumentParser()
    parser.add_argument("variant")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--depth", type=int, required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--loaders", type=int, default=0)
    given = parser.parse_args()
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return (
        Work(
            variant=given.variant,
            folder=given.folder,
            depth=given.depth,
            batch_size=given.batch_size,
            threads=given.threads,
            dataset=given.dataset,
            data_dir=given.data,
            device=given.device,
            loaders=given.loaders,
        ),
        replies,
    )


def compete(prepare: Callable[[Work], Callable[[], dict[str, Any]]]) -> None:
    """Be a baseline whose turn is what ``prepare`` makes."""
    work, replies = open_work()
    take_turns(prepare(work), replies)
