"""netdepth's engine as ``netdepth train`` uses it: augmentation, records, checkpoints, the bar on a terminal.

A turn is a run of one epoch into a folder that is thrown away, with two evaluations on a few hundred validation
images. Its time goes from the first step until the last evaluation has been judged, written and shown, so what
comes with evaluations is inside; what a run does once, before and after training, is not. Probes are off: they
come at evaluations 1, 2, 4, 8 and so on, which in a run of two would weigh as they never do in one of many.
``netdepth`` trains in float32, ``netdepth-bf16`` with ``train.precision=bf16``.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from baselines.conv_session import DECAY, LEARNING_RATE, MOMENTUM, PAD, Work, compete, spread
from baselines.netdepth import terminal
from netdepth.progress import TrainProgress


class Timed(TrainProgress):
    """The bar that a user sees, with a clock."""

    started = seconds = 0.0

    def __enter__(self) -> Timed:
        super().__enter__()
        Timed.started = time.perf_counter()
        return self

    def evaluated(self, record: Mapping[str, Any]) -> None:
        super().evaluated(record)
        Timed.seconds = time.perf_counter() - Timed.started


def prepare(work: Work) -> Callable[[], dict[str, Any]]:
    os.environ["TERM"] = "xterm-256color"
    from netdepth.config import Component, RunConfig, Runtime, TrainConfig
    from netdepth.data import Split, load
    from netdepth.training.run import run

    dataset = Component(work.dataset)
    whole = load(dataset, data_dir=work.data_dir)
    count, few = len(work.labels()), len(work.labels()) // 16

    def part(split: Split, size: int) -> Split:
        chosen = spread(size, len(split))
        return Split(split.inputs[chosen], split.labels[chosen])

    splits = dataclasses.replace(whole, train=part(whole.train, count), val=part(whole.val, few), test=None)
    steps = -(-count // work.batch_size)
    config = RunConfig(
        dataset=dataset,
        model=Component("resnet", {"depth": work.depth}),
        optimizer=Component("sgd", {"lr": LEARNING_RATE, "momentum": MOMENTUM, "weight_decay": DECAY}),
        augmentation=Component("crop-flip", {"pad": PAD}),
        train=TrainConfig(
            budget=f"{steps}it",
            eval_every=f"{-(-steps // 2)}it",
            batch_size=work.batch_size,
            precision="bf16" if work.bf16 else "float32",
        ),
    )

    def turn() -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder, terminal():
            where = {"runs_root": Path(folder), "data_dir": work.data_dir}
            runtime = Runtime(device=work.device, threads=work.threads, probes=False, **where)
            made = run(config, runtime, name="conv", watch=Timed, splits=splits)
            records = made.run.read_metrics()
        weights = [record["step"] - before for record, before in zip(records, [0, records[0]["step"]], strict=True)]
        train_loss = sum(w * record["train_loss"] for w, record in zip(weights, records, strict=True)) / sum(weights)
        return {"seconds": Timed.seconds, "images": count, "train_loss": train_loss}

    turn()
    return turn


if __name__ == "__main__":
    compete(prepare)
