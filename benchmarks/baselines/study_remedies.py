"""Steps per second of one network made alone, with remedies that have no fast path beside the plain one that has.

A turn makes a short run of each, in a shuffled order, on one thread, through `netdepth.training.run`, probes
left out. The rate is that of the second half of its steps: steps over ``seconds`` of its record, which
hold the evaluation of the validation images. The plain network is also made as a stack of all seeds; its
rate is then in steps of all seeds together.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from baselines.study_session import LEARNING_RATE, open_work, take_turns

REMEDIES: Mapping[str, Mapping[str, Any]] = {
    "plain": {},
    "residual, branches scaled": {"shortcut": "identity", "branch_scale": "blocks^-1/2"},
    "batch norm": {"norm": "batch"},
    "layer norm": {"norm": "layer"},
    "ReZero": {"shortcut": "identity", "branch_scale": "rezero"},
    "Fixup": {"shortcut": "identity", "branch_scale": "fixup"},
    "pre-activation": {"shortcut": "identity", "pre_activation": True},
    "GELU": {"activation": "gelu"},
    "dropout": {"dropout": 0.1},
}
STACKED = "plain, all seeds stacked"


def main() -> None:
    work, replies = open_work()
    from netdepth.config import Component, RunConfig, Runtime, TrainConfig
    from netdepth.progress import TrainProgress
    from netdepth.training.resolve import resolve
    from netdepth.training.run import run_stack

    (depth,) = work.depths
    steps = -(-len(work.labels("train")) // work.batch_size)
    shuffler = random.Random(0)

    def config_of(args: Mapping[str, Any]) -> RunConfig:
        return RunConfig(
            dataset=Component(work.dataset),
            model=Component("mlp", {"width": work.width, "depth": depth, "init": "he", **args}),
            optimizer=Component("adam", {"lr": LEARNING_RATE}),
            train=TrainConfig(budget=f"{steps}it", eval_every=f"{-(-steps // 2)}it", batch_size=work.batch_size),
        )

    def rate(name: str) -> float:
        """Steps per second of the second half of a run, of all its seeds together."""
        config = config_of(REMEDIES["plain" if name == STACKED else name])
        seeds = work.seeds if name == STACKED else work.seeds[:1]
        with tempfile.TemporaryDirectory() as folder:
            runtime = Runtime(device="cpu", threads=1, runs_root=Path(folder), data_dir=work.data_dir, probes=False)
            made = run_stack(resolve(config, runtime), seeds, runtime, name="remedy", study="remedies", watch=quiet)
            records = [done.run.read_metrics() for done in made]
        done = records[0][1]["step"] - records[0][0]["step"]
        # In a stack ``seconds`` is a run's share of the time, so their sum is the time.
        return len(seeds) * done / sum(record[1]["seconds"] for record in records)

    def quiet(title: str, total_steps: int, steps_per_epoch: int) -> TrainProgress:
        return TrainProgress(title, total_steps, steps_per_epoch, shown=False)

    fast = {
        name: resolve(config_of(args), Runtime(device="cpu", data_dir=work.data_dir)).stackable
        for name, args in REMEDIES.items()
    }

    def turn() -> dict[str, Any]:
        names = [*REMEDIES, STACKED]
        found = {name: rate(name) for name in shuffler.sample(names, len(names))}
        order = {name: found[name] for name in names}
        return {"steps_per_second": order, "fast_path": {**fast, STACKED: True}, "depth": depth}

    take_turns(turn, replies)


if __name__ == "__main__":
    main()
