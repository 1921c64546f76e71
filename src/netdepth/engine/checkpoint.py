"""Snapshots of a run in memory, and the few of them that go to disk.

A snapshot is taken after every evaluation (a copy of the weights and the optimizer state).
It is written when the last write is over ten seconds old, and at the end or on a signal; the
best one is written with it. A kill therefore loses at most the running period or ten seconds,
and a short run pays for one write, not for one per epoch.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

import safetensors.torch
from torch import Tensor, nn

from netdepth.config import SCHEMA
from netdepth.engine.optim import Optimizer
from netdepth.store import RunDir

__all__ = ["Checkpointer", "Snapshot", "load_weights", "restore", "take_snapshot"]

WRITE_EVERY_SECONDS = 10.0
MODEL, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"


@dataclass(frozen=True)
class Snapshot:
    """Weights and optimizer state after ``step`` steps, as named tensors of their own."""

    step: int
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]

    def files(self, best_step: int | None) -> dict[str, bytes]:
        """The snapshot as a checkpoint's files."""
        state = {"schema": SCHEMA, "step": self.step, "best_step": best_step}
        return {
            MODEL: safetensors.torch.save(self.model),
            OPTIMIZER: safetensors.torch.save(self.optimizer),
            STATE: json.dumps(state, indent=1).encode(),
        }


def take_snapshot(step: int, model: nn.Module, optimizer: Optimizer) -> Snapshot:
    """Copy the state of ``model`` and ``optimizer`` after ``step`` steps."""
    weights = {name: tensor.detach().clone().contiguous() for name, tensor in model.state_dict().items()}
    return Snapshot(step, weights, {name: tensor.clone() for name, tensor in optimizer.state.items()})


def load_weights(model: nn.Module, data: bytes) -> None:
    """Copy the weights in a ``model.safetensors`` into ``model``, in place."""
    model.load_state_dict(safetensors.torch.load(data))


def restore(step: int, files: dict[str, bytes], model: nn.Module, optimizer: Optimizer) -> Snapshot:
    """Put ``model`` and ``optimizer`` back to a checkpoint's state; returns it as a snapshot."""
    load_weights(model, files[MODEL])
    saved = safetensors.torch.load(files[OPTIMIZER])
    for name, tensor in optimizer.state.items():
        tensor.copy_(saved[name])
    return take_snapshot(step, model, optimizer)


class Checkpointer:
    """Keeps the newest and the best snapshot of a run and writes them when it is time."""

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self.newest: Snapshot | None = None
        self.best: Snapshot | None = None
        self.on_disk: set[int] = set()
        self._written = time.monotonic()

    def resumed(self, newest: Snapshot, best: Snapshot | None) -> None:
        """Start from what the run folder holds; other checkpoints in it are damaged or later, and removed."""
        self.newest, self.best = newest, best
        self.on_disk = {snapshot.step for snapshot in (newest, best) if snapshot is not None}
        self.run.drop_checkpoints(self.on_disk)

    def offer(self, snapshot: Snapshot, is_best: bool) -> None:
        """Take note of a new snapshot; write if the last write is ten seconds old."""
        self.newest = snapshot
        if is_best:
            self.best = snapshot
        if time.monotonic() - self._written >= WRITE_EVERY_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write the best and the newest snapshot if they are not on disk yet, in this order."""
        best_step = self.best.step if self.best else None
        keep = [best_step] if best_step is not None else []
        for snapshot in (self.best, self.newest):
            if snapshot is not None and snapshot.step not in self.on_disk:
                self.run.save_checkpoint(snapshot.step, snapshot.files(best_step), keep=keep)
                self.on_disk.add(snapshot.step)
        self._written = time.monotonic()
