"""Run folders made by hand, with known numbers, for tests of whatever reads run folders."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from netdepth.runs.folder import RunDir

FINGERPRINT = "0123456789"


def metrics(loss: float, accuracy: float) -> dict[str, float]:
    """One cell of ``result.json``; every metric has a value of its own."""
    return {
        "loss": loss,
        "accuracy": accuracy,
        "precision_weighted": accuracy + 0.001,
        "recall_weighted": accuracy + 0.002,
        "f1_weighted": accuracy + 0.003,
    }


def make_run(
    root: Path,
    *,
    seed: int = 0,
    fingerprint: str = FINGERPRINT,
    recipe: str = "baseline-mlp",
    dataset: str = "mnist",
    lr: float = 0.001,
    study: str = "single",
    epochs: int = 4,
    best: int | None = 2,
    onset: int | None = 3,
    status: str = "stopped_early",
    reported: str = "best",
    val_loss: float = 0.07,
    test_loss: float = 0.08,
    test_accuracy: float = 0.97,
    finish: bool = True,
    failure: str | None = None,
    split_digest: str = "split",
    recalls: Mapping[str, tuple[float, int]] | None = None,
    evaluated_on: str = "test",
) -> RunDir:
    """A run of ``epochs`` evaluations, 100 steps each; a ``diverged`` one has NaN in its last.

    ``recalls`` holds the recall and the support of each class.
    """
    run = RunDir.create(root / study, recipe, seed, fingerprint)
    component = {"version": 1, "args": {}}
    config = {
        "dataset": {**component, "name": dataset},
        "model": {**component, "name": "mlp", "args": {"hidden": [8, 4], "width": None, "activation": "relu"}},
        "objective": {**component, "name": "cross-entropy"},
        "optimizer": {**component, "name": "adam", "args": {"lr": lr}},
        "schedule": {**component, "name": "constant"},
        "train": {"budget": "30ep", "batch_size": 64},
    }
    run.write_json("config.json", {"fingerprint": fingerprint, "recipe": recipe, **config, "seed": seed})
    sizes = {"train": 3000, "val": 1000, "test": 1000}
    split = {"name": dataset, "data_digest": dataset, "split_digest": split_digest, "sizes": sizes}
    run.write_json("split.json", split)
    for epoch in range(1, epochs + 1):
        loss = math.nan if status == "diverged" and epoch == epochs else 0.5 / epoch
        run.append_metrics(
            {
                "step": 100 * epoch,
                "epoch": float(epoch),
                "train_loss": loss,
                "train_accuracy": 1 - loss / 5,
                "val_loss": loss + 0.05,
                "val_accuracy": 0.98 - loss / 5,
                "best": epoch == best,
                "seconds": 1.0,
            }
        )
    if failure is not None:
        run.write_json("failure.json", {"error": "OSError", "message": failure})
    elif finish:
        last = metrics(math.nan, math.nan) if status == "diverged" else metrics(test_loss + 0.01, test_accuracy - 0.01)
        result: dict[str, Any] = {
            "status": status,
            "steps": 100 * epochs,
            "best_step": None if best is None else 100 * best,
            "best_epoch": None if best is None else float(best),
            "depth": 3,
            "num_params": 1234,
            "seconds": 12.5,
            "reported": reported,
            "train": {"best": metrics(0.01, 0.99), "last": last},
            "val": {"best": metrics(val_loss, 0.96), "last": last},
            "test": {"best": metrics(test_loss, test_accuracy), "last": last},
            "evaluated_on": evaluated_on,
            "overfit_onset_epoch": None if onset is None else float(onset),
        }
        if recalls is not None:
            scores = [{"class": name, "recall": value, "support": n} for name, (value, n) in recalls.items()]
            result["per_class"] = [{**one, "precision": 0.5, "f1": 0.5} for one in scores]
        run.write_json("result.json", result)
    return run


def add_checkpoint(run: RunDir, step: int, state: bytes = b"o" * 1000) -> None:
    """A whole checkpoint with stand-in files."""
    files = {"model.safetensors": b"m", "optimizer.safetensors": state, "state.json": b"{}"}
    run.save_checkpoint(step, files)
