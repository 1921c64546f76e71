"""Synthetic run folders and readers of what the trackers wrote, shared by the tracker tests."""

from __future__ import annotations

import contextlib
import json
import math
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from netdepth.config import Component, RunConfig, TrainConfig, to_json
from netdepth.runs.folder import RunDir
from netdepth.trackers.wandb import read_log
from support.made_runs import metrics

CONFIG = RunConfig(
    dataset=Component("mnist5k", {"val_size": 1000}, 1),
    model=Component("mlp", {"hidden": [256, 128], "init": "he", "bias": True}, 1),
    optimizer=Component("adam", {"lr": 1e-3}, 1),
    schedule=Component("constant", {}, 1),
    objective=Component("cross-entropy", {}, 1),
    train=TrainConfig(budget="5ep", batch_size=64),
    seed=3,
)
FINGERPRINT = "0123456789"
CLASSES = ["zero", "one", "two"]
CONFUSION = [[5, 1, 0], [0, 7, 2], [1, 0, 9]]
STEPS_PER_EPOCH = 40


def new_run(root: Path) -> RunDir:
    """A run folder that is about to train: config, environment and split, no record yet."""
    run = RunDir.create(root / "single", "baseline-mlp", CONFIG.seed, FINGERPRINT)
    run.write_json("config.json", {"fingerprint": FINGERPRINT, "recipe": "baseline-mlp", **to_json(CONFIG)})
    run.write_json("environment.json", {"torch": "2.11", "device": "cpu", "threads": 2})
    run.write_json("split.json", {"name": "mnist5k", "title": "digits", "classes": CLASSES, "split_digest": "ab" * 32})
    return run


def record(epoch: int, *, train_loss: float | None = None) -> dict[str, Any]:
    """One line for ``metrics.jsonl``; values that float32 cannot hold exactly."""
    norms = {"layers.0.weight": 0.5 / epoch, "layers.0.bias": 0.1, "layers.1.weight": 0.7, "layers.1.bias": 1 / 3}
    return {
        "step": STEPS_PER_EPOCH * epoch,
        "epoch": float(epoch),
        "lr": 1e-3,
        "train_loss": 2.3 / epoch if train_loss is None else train_loss,
        "train_accuracy": 1 - 0.9 / epoch,
        "val_loss": 2.4 / epoch,
        "val_accuracy": 1 - 0.91 / epoch,
        "gap": 0.1 / epoch,
        "grad_norm": math.pi / epoch,
        "layer_grad_norms": norms,
        "overfit_count": epoch % 2,
        "overfit_onset_epoch": None if epoch < 3 else 3.0,
        "best": epoch == 2,
        "seconds": 0.25,
    }


def finish_run(run: RunDir, epochs: int, *, status: str = "completed", test: bool = True) -> dict[str, Any]:
    """Write the best checkpoint and ``result.json``; returns the result."""
    best = 2 * STEPS_PER_EPOCH
    run.save_checkpoint(best, {"model.safetensors": os.urandom(2048), "state.json": b"{}"})
    result = {
        "status": status,
        "steps": STEPS_PER_EPOCH * epochs,
        "best_step": best,
        "best_epoch": 2.0,
        "depth": 3,
        "num_params": 235_146,
        "seconds": 1.25,
        "reported": "best",
        "weights_sha256": "cd" * 32,
        "train": {"best": metrics(0.1, 0.97), "last": metrics(0.05, 0.98)},
        "val": {"best": metrics(0.2, 0.95), "last": metrics(0.25, 0.94)},
        "test": {"best": metrics(0.3, 0.93), "last": metrics(math.nan, 0.92)} if test else None,
        "per_class": [{"class": c, "precision": 0.9, "recall": 0.9, "f1": 0.9, "support": 8} for c in CLASSES],
        "confusion": CONFUSION,
        "evaluated_on": "test" if test else "val",
        "overfit_onset_epoch": 3.0,
        "gap": {"best": 0.1, "last": 0.2},
    }
    run.write_json("result.json", result)
    return result


def finished_run(root: Path, epochs: int) -> RunDir:
    """A whole finished run."""
    run = new_run(root)
    for epoch in range(1, epochs + 1):
        run.append_metrics(record(epoch))
    finish_run(run, epochs)
    return run


@contextlib.contextmanager
def silent_server() -> Iterator[tuple[str, list[socket.socket]]]:
    """A server that accepts every connection and never answers; yields its address and the connections."""
    taken: list[socket.socket] = []
    server = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        with contextlib.suppress(OSError):  # closed at the end
            while True:
                taken.append(server.accept()[0])

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.getsockname()[1]}", taken
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join()
        for connection in taken:
            connection.close()


def read_events(run: RunDir) -> Any:
    """TensorBoard's own accumulator over the run's event files, everything kept."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    guide = dict.fromkeys(("scalars", "images", "tensors", "histograms"), 0)
    accumulator = EventAccumulator(str(run.path), size_guidance=guide)
    return accumulator.Reload()


def wandb_records(run: RunDir) -> Iterator[Any]:
    """Every record of the run's one ``.wandb`` file, as wandb's own protobuf messages."""
    (path,) = (run.path / "wandb").glob("*-run-*/run-*.wandb")
    return read_log(path)


def wandb_history(run: RunDir) -> dict[int, dict[str, Any]]:
    """Step -> name -> value of the history rows; nested keys joined by dots."""
    rows: dict[int, dict[str, Any]] = {}
    for message in wandb_records(run):
        if message.WhichOneof("record_type") == "history":
            row = {".".join(i.nested_key) or i.key: json.loads(i.value_json) for i in message.history.item}
            assert row["_step"] not in rows, "a step twice"
            rows[row["_step"]] = row
    return rows
