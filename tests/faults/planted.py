"""Faults planted in the product, in the process that a drill kills: every one must make the drill fail."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from typing import Any

from netdepth.runs.folder import RunDir
from netdepth.training import checkpoint, fit, replica


def saved_without_rename() -> None:
    """A checkpoint's files are written where they are read."""

    def save(self: RunDir, step: int, files: Mapping[str, bytes]) -> None:
        folder = self.path / "checkpoints" / str(step)
        folder.mkdir(exist_ok=True)
        for name, data in files.items():
            (folder / name).write_bytes(data)
            time.sleep(0.005)

    RunDir.save_checkpoint = save


def lost_generator() -> None:
    """The generator of dropout is not where it was after so many steps, but where a process begins."""
    original, periods = fit.derive_seed, itertools.count()

    def derive_seed(seed: int, stream: str, *place: int) -> int:
        return original(seed, stream, *((next(periods),) if stream == "dropout" else place))

    fit.derive_seed = derive_seed


def lost_optimizer() -> None:
    """Weights come back, the optimizer's state begins anew."""

    def restore(step: int, files: dict[str, bytes], stack: Any, index: int, optimizer: Any) -> checkpoint.Snapshot:
        checkpoint.load_weights(stack.models[index], files[checkpoint.MODEL])
        return checkpoint.take_snapshot(step, stack, index, optimizer)

    replica.restore = restore


def lost_patience() -> None:
    """A run that goes on counts its evaluations without an improvement from none."""
    original = replica.Replica.resume

    def resume(self: replica.Replica, *args: Any) -> None:
        original(self, *args)
        self.early.waited = 0

    replica.Replica.resume = resume
