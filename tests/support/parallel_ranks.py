"""Runs made by two processes: which, and the process that makes its part of all of them.

`python parallel_ranks.py FOLDER` with torchrun's variables. The tests make the same runs alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # torchrun starts this file by its path

from netdepth.config import Component, EarlyStopping, RunConfig, TrainConfig

WORLD = 2
MLP = Component("mlp", {"hidden": [16, 8]})
SGD = Component("sgd", {"lr": 0.1, "momentum": 0.9})
STEPS = {"budget": "8it", "eval_every": "1it"}


def config(batch_size: int = 599, precision: str = "float64", model: Component = MLP, **other: object) -> RunConfig:
    """A run whose every step is recorded. Of 3,000 images the sixth batch of 599 is the last of an epoch, with 5."""
    train = {**STEPS, "batch_size": batch_size, "precision": precision, **other.pop("train", {})}
    return RunConfig(Component("mnist5k"), model, train=TrainConfig(**train), **{"optimizer": SGD, **other})


RUNS = {
    "handwritten": config(),
    "autograd": config(
        objective=Component("cross-entropy", {"label_smoothing": 0.1}),
        augmentation=Component("crop-flip", {"cutout": 6}),
        train={"grad_clip_norm": 0.5},
    ),
    "convolutional": config(
        127,
        model=Component("cnn", {"channels": [2], "hidden": 4, "dropout": 0.0}),
        train={"budget": "4it", "eval_every": "4it"},
    ),
    "smaller than the world": config(batch_size=2999, train={"budget": "4it"}),  # the second batch is one image
    "stopped early": config(
        precision="float32",
        optimizer=Component("adam", {"lr": 0.03}),
        train={"budget": "40ep", "eval_every": "1ep", "early_stopping": EarlyStopping(patience=2)},
    ),
    "diverged": config(optimizer=Component("sgd", {"lr": 1e200})),
}
BATCH_NORM = config(127, model=Component("mlp", {"hidden": [16, 8], "norm": "batch"}), train={"budget": "1it"})


def environment(rank: int, port: int) -> dict[str, str]:
    """What torchrun gives a process; the store at ``port`` is the caller's, as it is torchrun's."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": WORLD, "LOCAL_WORLD_SIZE": WORLD}
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_USE_AGENT_STORE": True}
    return {**os.environ, **{name: str(value) for name, value in {**place, **where}.items()}}


def start(folder: Path, port: int) -> list[subprocess.Popen[str]]:
    """Both processes; their complaints are in `stderr`."""
    command = [sys.executable, __file__, str(folder)]
    return [
        subprocess.Popen(command, env=environment(rank, port), stderr=subprocess.PIPE, text=True)
        for rank in range(WORLD)
    ]


def main(folder: Path) -> None:
    from netdepth.errors import BadInput, RankLost
    from netdepth.training import parallel, resolve
    from support.real_runs import make

    follower = parallel.rank() > 0
    for name, run in {**RUNS, "batch norm": BATCH_NORM}.items():
        try:
            make(folder / name, run, probes=False)
        except SystemExit:
            assert follower, "only a follower ends with the training"

    def refuse(*args: object, **settings: object) -> None:
        raise BadInput("no such file here")

    parallel.LINGER_SECONDS = 0.1
    if follower:
        resolve.data.load = refuse
    try:
        make(folder / "refused", RUNS["handwritten"], probes=False)
    except RankLost as error:
        print(f"{error.exit_code}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
