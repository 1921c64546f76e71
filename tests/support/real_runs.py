"""Real runs on the embedded digits, for tests of training."""

from pathlib import Path

import numpy as np

from netdepth.config import Component, RunConfig, Runtime, TrainConfig
from netdepth.runs.folder import RunDir
from netdepth.training.run import run

CONFIG = RunConfig(
    dataset=Component("mnist5k"),
    model=Component("mlp", {"hidden": [16], "dropout": 0.2}),
    train=TrainConfig(budget="4ep", batch_size=64),
)


def make(tmp_path, config=CONFIG, name="test", watch=None, **runtime):
    runtime = Runtime(runs_root=tmp_path, threads=1, device="cpu", **runtime)
    return run(config, runtime, name=name, watch=watch, quiet=True)


def weights(folder: RunDir, step: int) -> bytes:
    return (folder.path / "checkpoints" / str(step) / "model.safetensors").read_bytes()


def timeless(value):
    """A result or record without its wall-clock fields, and without the seal that holds them."""
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k not in ("seconds", "total_seconds", "seal")}
    return value


def same(a: RunDir, b: RunDir) -> None:
    result, other = a.result(), b.result()
    assert timeless(result) == timeless(other)
    assert [timeless(r) for r in a.read_metrics()] == [timeless(r) for r in b.read_metrics()]
    for name in ("model.safetensors", "optimizer.safetensors"):
        for step in {result["steps"], result["best_step"]}:
            path = Path("checkpoints") / str(step) / name
            assert (a.path / path).read_bytes() == (b.path / path).read_bytes(), path
    first, second = (np.load(x.path / "predictions.npz", allow_pickle=False) for x in (a, b))
    assert np.array_equal(first["logits"], second["logits"])
