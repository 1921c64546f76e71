"""What the peers of `study.py` share: the work, where it comes from, and the turns they wait for.

All train the same networks: initial weights and the order of the images are netdepth's own, read from
files that the driver wrote. A turn is the whole grid once: every depth and seed, for all epochs, with one
validation pass per epoch and run. Imports, reading the data, compiling and a few warm-up steps come before
the first turn and are reported apart.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

LEARNING_RATE = 1e-3
WARM_UP_STEPS = 5
READY_SECONDS = 600.0
"""How long one of two processes waits for the other to be ready."""

Outcome = tuple[float, float]
"""Mean training loss over the last epoch's batches, as the weights moved (nats); validation accuracy at its end."""

Orders = Sequence[np.ndarray]
"""Indices of training images, an array per epoch: int64 ``[N]``, or ``[S, N]`` for seeds side by side."""

Train = Callable[[int, Sequence[int]], list[Outcome]]
"""(depth, seeds) to one outcome per seed."""


@dataclass(frozen=True)
class Work:
    """The grid, and the folder that holds what is needed to train it.

    ``variant`` is the name the driver called, for files that serve several.
    """

    variant: str
    folder: Path
    depths: tuple[int, ...]
    seeds: tuple[int, ...]
    width: int
    epochs: int
    batch_size: int
    threads: int
    dataset: str
    data_dir: Path | None

    def images(self, part: str) -> np.ndarray:
        """uint8 ``[N, 28, 28]``."""
        return np.load(self.folder / f"{part}_images.npy")

    def pixels(self, part: str) -> np.ndarray:
        """Normalised images, float32 ``[N, 784]``."""
        images, (mean, std) = self.images(part), np.load(self.folder / "statistics.npy")
        return ((images.reshape(len(images), -1) / np.float32(255) - mean) / std).astype(np.float32)

    def labels(self, part: str) -> np.ndarray:
        """int64 ``[N]``."""
        return np.load(self.folder / f"{part}_labels.npy")

    def start(self, depth: int, seed: int) -> list[np.ndarray]:
        """Initial weights ``[out, in]`` and biases ``[out]`` in turn, layer by layer."""
        with np.load(self.folder / f"start_{depth}_{seed}.npz") as arrays:
            return [arrays[f"p{i}"] for i in range(2 * depth)]

    def starts(self, depth: int, seeds: Sequence[int]) -> list[np.ndarray]:
        """The same for several seeds side by side: ``[S, out, in]`` and ``[S, out]`` in turn."""
        return [np.stack(arrays) for arrays in zip(*(self.start(depth, seed) for seed in seeds), strict=True)]

    def orders(self, seed: int) -> list[np.ndarray]:
        """The order of every epoch."""
        return list(np.load(self.folder / f"orders_{seed}.npy"))

    def orders_of(self, seeds: Sequence[int]) -> list[np.ndarray]:
        """The orders of several seeds side by side, ``[S, N]`` per epoch."""
        return [np.stack(orders) for orders in zip(*map(self.orders, seeds), strict=True)]

    def few(self, orders: Orders) -> Orders:
        """The first steps of ``orders``, to warm up with."""
        return [order[..., : WARM_UP_STEPS * self.batch_size] for order in orders[:1]]


def open_work() -> tuple[Work, TextIO]:
    """Read the driver's arguments; standard output is kept for replies, libraries print to stderr."""
    parser = argparse.ArgumentParser()
    parser.add_argument("variant")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--depths", type=int, nargs="+", required=True)
    parser.add_argument("--seeds", type=int, required=True)
    parser.add_argument("--width", type=int, required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--data", type=Path)
    given = parser.parse_args()
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    work = Work(
        variant=given.variant,
        folder=given.folder,
        depths=tuple(given.depths),
        seeds=tuple(range(given.seeds)),
        width=given.width,
        epochs=given.epochs,
        batch_size=given.batch_size,
        threads=given.threads,
        dataset=given.dataset,
        data_dir=given.data,
    )
    return work, replies


def take_turns(turn: Callable[[], dict[str, Any]], replies: TextIO) -> None:
    """Say that all is ready, then one turn each time the driver asks, asleep in between, until it closes the line."""
    replies.write(json.dumps({"ready": True}) + "\n")
    replies.flush()
    while sys.stdin.readline():
        replies.write(json.dumps(turn()) + "\n")
        replies.flush()


def compete(
    prepare: Callable[[Work], Train], *, stacked: bool = False, processes: int = 1, pinned: bool = False
) -> None:
    """Be a baseline that trains the grid with what ``prepare`` makes.

    ``stacked``: all seeds of a depth in one call, else one call per seed. With two ``processes`` each
    makes what is left to do, the deepest first; ``pinned`` keeps each on a core of its own.
    """
    work, replies = open_work()
    groups = [work.seeds] if stacked else [(seed,) for seed in work.seeds]
    jobs = [(depth, seeds) for depth in sorted(work.depths, reverse=True) for seeds in groups]
    with _trainer(prepare, work, processes, pinned) as train_all:

        def turn() -> dict[str, Any]:
            started = time.perf_counter()
            done = train_all(jobs)
            seconds = time.perf_counter() - started
            depths = dict.fromkeys(map(str, work.depths), 0.0)
            guard: Outcome | None = None
            for (depth, seeds), (busy, outcomes) in zip(jobs, done, strict=True):
                depths[str(depth)] += busy / processes
                if depth == work.depths[0] and seeds[0] == work.seeds[0]:
                    guard = outcomes[0]
            assert guard is not None
            return {"seconds": seconds, "depths": depths, "train_loss": guard[0], "val_accuracy": guard[1]}

        take_turns(turn, replies)


Job = tuple[int, tuple[int, ...]]
Done = tuple[float, list[Outcome]]
"""Seconds of a job, and its outcomes."""


@contextlib.contextmanager
def _trainer(
    prepare: Callable[[Work], Train], work: Work, processes: int, pinned: bool
) -> Iterator[Callable[[list[Job]], list[Done]]]:
    """What makes a list of jobs, in this process or over others; ready to begin."""
    if processes == 1:
        _begin(prepare, work, None, None)
        yield lambda jobs: [_make(job) for job in jobs]
        return
    context = multiprocessing.get_context("spawn")
    slots, barrier = context.Value("i", 0), context.Barrier(processes)
    with ProcessPoolExecutor(
        processes, context, initializer=_begin, initargs=(prepare, work, barrier, slots if pinned else None)
    ) as pool:
        for idle in [pool.submit(int) for _ in range(processes)]:
            idle.result()  # a process begins when there is something for it to do
        yield lambda jobs: list(pool.map(_make, jobs))


_train: Train


def _begin(prepare: Callable[[Work], Train], work: Work, barrier: Any, slots: Any) -> None:
    """Make this process ready, and wait until the other one is."""
    global _train
    if slots is not None:
        with slots.get_lock():
            core = sorted(os.sched_getaffinity(0))[slots.value]
            slots.value += 1
        os.sched_setaffinity(0, {core})
    _train = prepare(work)
    if barrier is not None:
        barrier.wait(READY_SECONDS)


def _make(job: Job) -> Done:
    started = time.perf_counter()
    outcomes = _train(*job)
    return time.perf_counter() - started, outcomes
