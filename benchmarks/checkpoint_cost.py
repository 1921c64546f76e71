"""What checkpoints cost the baseline: whole trainings with and without them, in turn.

    python benchmarks/checkpoint_cost.py --data DIR --rounds 5 --epochs 10

Each round trains the baseline on MNIST once with checkpoints, as always, and once without, in a shuffled order,
in this process. Without, no snapshot is copied and none is written until the training is over. Written to
benchmarks/results/checkpoint_cost.json: the median over the rounds of the ratio of the two times; and the share
of a training with checkpoints that was spent in copying and writing them, which is the better figure where
other programs disturb the ratio. docs/reliability.md takes both from there.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from netdepth import data, recipes
from netdepth.config import RunConfig, Runtime
from netdepth.progress import TrainProgress
from netdepth.training import loop, replica
from netdepth.training.resolve import fill_in
from netdepth.training.run import run

RESULT = Path(__file__).parent / "results" / "checkpoint_cost.json"
WAYS = ("with", "without")


@contextlib.contextmanager
def without_checkpoints() -> Iterator[None]:
    """Nothing is copied or written while it trains; the last weights are kept when that is over."""
    keep = replica.Replica.keep

    def only_the_last(self: replica.Replica, record: Any, stack: Any, optimizer: Any) -> None:
        if record["epoch"] >= int(self.config.train.budget.removesuffix("ep")):
            keep(self, {**record, "best": True}, stack, optimizer)

    with mock.patch.object(replica.Replica, "keep", only_the_last), mock.patch.object(loop, "_save"):
        yield


@contextlib.contextmanager
def timed(spent: list[float]) -> Iterator[None]:
    """Add up the seconds of every copy and every write of a checkpoint."""

    def watch(original: Callable[..., Any]) -> Callable[..., Any]:
        def inner(*args: Any, **kwargs: Any) -> Any:
            begun = time.perf_counter()
            try:
                return original(*args, **kwargs)
            finally:
                spent.append(time.perf_counter() - begun)

        return inner

    with (
        mock.patch.object(replica.Replica, "keep", watch(replica.Replica.keep)),
        mock.patch.object(loop, "_save", watch(loop._save)),
    ):
        yield


def measure(way: str, config: RunConfig, splits: data.Splits) -> tuple[float, float]:
    """Seconds of one training, the final evaluation left out, and those of them spent on checkpoints."""
    spent: list[float] = []
    marks: list[float] = []

    class Watch(TrainProgress):
        def __enter__(self) -> Watch:
            marks.append(time.perf_counter())
            super().__enter__()
            return self

    def ended(replicas: Any, *args: Any) -> None:
        """In place of the final evaluation, which is the same both ways."""
        if replicas:
            marks.append(time.perf_counter())
        for one in replicas:
            one.result = {"status": one.status}

    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(loop.ends, "finish", ended),
        without_checkpoints() if way == "without" else timed(spent),
    ):
        runtime = Runtime(runs_root=Path(folder), threads=1, device="cpu", probes=False)
        run(config, runtime, name=f"{way} checkpoints", watch=Watch, splits=splits)
    return marks[1] - marks[0], sum(spent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--data", type=Path, default=os.environ.get("NETDEPTH_DATA"), help="as netdepth --data")
    given = parser.parse_args()
    _, config = recipes.resolve("baseline-mlp")
    train = dataclasses.replace(config.train, budget=f"{given.epochs}ep", early_stopping=None)
    config = fill_in(dataclasses.replace(config, train=train))
    splits = data.load(config.dataset, data_dir=given.data)
    shuffler = random.Random(0)
    turns: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    for _ in range(given.rounds):
        for way in shuffler.sample(WAYS, len(WAYS)):
            turns[way].append(measure(way, config, splits.for_another_run()))
    ratios = [a[0] / b[0] for a, b in zip(turns["with"], turns["without"], strict=True)]
    shares = [spent / seconds for seconds, spent in turns["with"]]
    measured = {
        "schema": 1,
        "what": f"{given.epochs} epochs of baseline-mlp on {config.dataset.name}, 1 thread",
        "rounds": given.rounds,
        "seconds": {way: [round(seconds, 3) for seconds, _ in turns[way]] for way in WAYS},
        "ratios": [round(ratio, 4) for ratio in ratios],
        "median_ratio": round(statistics.median(ratios), 4),
        "shares": [round(share, 5) for share in shares],
        "median_share": round(statistics.median(shares), 5),
        "load": round(os.getloadavg()[0], 1),
        "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
    }
    RESULT.write_text(json.dumps(measured, indent=1) + "\n")
    print(f"with / without: {measured['median_ratio']:.4f} (rounds: {', '.join(map(str, measured['ratios']))})")
    print(f"share of the time spent on checkpoints: {100 * measured['median_share']:.2f} %")


if __name__ == "__main__":
    main()
