"""Snapshots of a run in memory, and the few of them that go to disk.

A snapshot is taken after every evaluation (a copy of the weights and the optimizer state).
The newest is written when the last write is over ten seconds old, and at the end or on a signal;
the best one is written with it. A kill therefore loses at most the running period or ten seconds,
and a short run pays for one write, not for one per epoch.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import safetensors.torch
from torch import Tensor, nn

from netdepth.config import SCHEMA
from netdepth.runs.folder import RunDir
from netdepth.training.optim import Optimizer
from netdepth.training.stack import Stack
from netdepth.training.torch_optim import TorchOptimizer

__all__ = ["Checkpointer", "Snapshot", "load_weights", "restore", "take_snapshot"]

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


def take_snapshot(step: int, stack: Stack, index: int, optimizer: Optimizer) -> Snapshot:
    """Copy the weights of one replica and its part of the optimizer's state after ``step`` steps."""
    state = stack.models[index].state_dict()
    weights = {name: tensor.detach().clone().contiguous() for name, tensor in state.items()}
    kept = {
        name: stack.row(tensor, index) if tensor.shape == stack.flat.shape else tensor.clone()
        for name, tensor in optimizer.state.items()
    }
    return Snapshot(step, weights, kept)


def load_weights(model: nn.Module, data: bytes) -> None:
    """Copy the weights in a ``model.safetensors`` into ``model``, in place."""
    model.load_state_dict(safetensors.torch.load(data))


def restore(step: int, files: dict[str, bytes], stack: Stack, index: int, optimizer: Optimizer) -> Snapshot:
    """Put one replica and its part of ``optimizer`` back to a checkpoint's state; returns it as a snapshot."""
    load_weights(stack.models[index], files[MODEL])
    saved = safetensors.torch.load(files[OPTIMIZER])
    if isinstance(optimizer, TorchOptimizer):
        optimizer.load(saved)
        return take_snapshot(step, stack, index, optimizer)
    for name, tensor in optimizer.state.items():
        if tensor.shape == stack.flat.shape:
            stack.put_row(tensor, index, saved[name])
        else:  # all replicas share it
            tensor.copy_(saved[name])
    return take_snapshot(step, stack, index, optimizer)


class Checkpointer:
    """The newest and the best snapshot of a run, and which of its snapshots are on disk.

    `write` and `prune` are two acts so that the replicas of a stack can all write before any
    removes the checkpoint they have in common.
    """

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self.newest: Snapshot | None = None
        self.best: Snapshot | None = None
        self.on_disk: set[int] = set()
        self._now: set[int] = set()
        self._before: set[int] = set()

    def resumed(self, newest: Snapshot, best: Snapshot | None) -> None:
        """Start from what the run folder holds; other checkpoints in it are damaged or later, and removed."""
        self.newest, self.best = newest, best
        self.on_disk = {snapshot.step for snapshot in (newest, best) if snapshot is not None}
        self._now = set(self.on_disk)
        self.run.drop_checkpoints(self.on_disk)

    def offer(self, snapshot: Snapshot, is_best: bool) -> None:
        """Keep a new snapshot in memory."""
        self.newest = snapshot
        if is_best:
            self.best = snapshot

    def write(self) -> None:
        """Write the best and the newest snapshot if they are not on disk yet, in this order."""
        for snapshot in (self.best, self.newest):
            if snapshot is not None and snapshot.step not in self.on_disk:
                self.run.save_checkpoint(snapshot.step, snapshot.files(self.best.step if self.best else None))
                self.on_disk.add(snapshot.step)

    def prune(self) -> None:
        """Keep what was written now and the time before, should the newer be damaged."""
        wanted = {snapshot.step for snapshot in (self.best, self.newest) if snapshot is not None}
        if wanted != self._now:
            self._now, self._before = wanted, self._now
        self.on_disk &= self._now | self._before
        self.run.drop_checkpoints(self.on_disk)
