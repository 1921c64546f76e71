"""What every baseline shares: its settings, the data, and the turn it waits for.

A baseline is a process of its own. It sets itself up, trains epoch after epoch and calls
`Session.epoch_done` after each; that call reports the epoch and sleeps until the next one is
asked for. Where a framework owns the loop, the call sits in the framework's end-of-epoch hook,
so that everything the framework does for an epoch is inside the time.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import numpy as np

MEAN, STD = 0.1307, 0.3081
"""Mean and standard deviation of MNIST's training pixels in 0..1, as tutorials write them."""
SIZES = (784, 256, 128, 10)
LEARNING_RATE = 1e-3


@dataclass
class Session:
    """One baseline's side of the benchmark.

    ``variant`` is the name the driver called, for files that serve several. Images are uint8
    ``[N, 28, 28]``, labels int64 ``[N]``.
    """

    variant: str
    batch_size: int
    threads: int
    arrays: Path
    data_dir: Path | None
    replies: TextIO
    epochs: int = 0
    started: float = field(default_factory=time.perf_counter)
    cpu_at_rest: float = 0.0
    wall_at_rest: float = 0.0

    def images(self, part: str) -> np.ndarray:
        return np.load(self.arrays / f"{part}_images.npy")

    def labels(self, part: str) -> np.ndarray:
        return np.load(self.arrays / f"{part}_labels.npy")

    def pixels(self, part: str) -> np.ndarray:
        """Normalised images, float32 ``[N, 784]``."""
        images = self.images(part)
        return ((images.reshape(len(images), -1) / np.float32(255) - MEAN) / STD).astype(np.float32)

    def epoch_done(self, val_accuracy: float | None, seconds: float | None = None, epochs: int | None = None) -> None:
        """Report an epoch and its validation pass, then sleep until the driver wants the next one.

        ``seconds`` is given only by a baseline that keeps its own clock, ``epochs`` (what the
        accuracy was reached after) by one that starts afresh each turn. Ends the process when the
        driver has closed the line.
        """
        elapsed = time.perf_counter() - self.started
        self.epochs = self.epochs + 1 if epochs is None else epochs
        reply = {
            "seconds": elapsed if seconds is None else seconds,
            "val_accuracy": val_accuracy,
            "epochs": self.epochs,
            "idle_cpu": self.cpu_at_rest / self.wall_at_rest if self.wall_at_rest else 0.0,
        }
        self.replies.write(json.dumps(reply) + "\n")
        self.replies.flush()
        cpu, wall = time.process_time(), time.perf_counter()
        if not sys.stdin.readline():
            sys.exit(0)
        self.cpu_at_rest += time.process_time() - cpu
        self.started = time.perf_counter()
        self.wall_at_rest += self.started - wall


def open_session() -> Session:
    """Read the driver's arguments; standard output is kept for replies, libraries print to stderr."""
    parser = argparse.ArgumentParser()
    parser.add_argument("variant")
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--arrays", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    given = parser.parse_args()
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return Session(given.variant, given.batch_size, given.threads, given.arrays, given.data, replies)


def use_threads(threads: int) -> None:
    """PyTorch on ``threads`` threads, denormals flushed in all of them (they inherit it, so it comes first)."""
    import torch

    torch.set_flush_denormal(True)
    torch.set_num_threads(threads)
