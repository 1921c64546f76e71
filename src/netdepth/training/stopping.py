"""When to stop: early stopping, and the detection of overfitting.

Both look at evaluation records alone, so a resumed run rebuilds their state by showing them
the records it has; none of it has to be saved.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from netdepth.config import EarlyStopping, Overfitting

__all__ = ["BestTracker", "EarlyStopper", "OverfitDetector"]

Record = Mapping[str, Any]


def badness(record: Record, monitor: str) -> float:
    """The monitored value as one to be minimised; NaN counts as infinitely bad."""
    value: float | None = record[monitor]
    if value is None or math.isnan(value):
        return math.inf
    return -value if monitor.endswith("accuracy") else value


class BestTracker:
    """The best evaluation so far by ``monitor``; the first of equals wins."""

    def __init__(self, monitor: str) -> None:
        self.monitor = monitor
        self.value = math.inf
        self.step: int | None = None
        self.epoch: float | None = None

    def update(self, record: Record) -> bool:
        """Judge ``record``; True if it is a new best."""
        value = badness(record, self.monitor)
        if not value < self.value:
            return False
        self.value, self.step, self.epoch = value, record["step"], record["epoch"]
        return True


class EarlyStopper:
    """True after ``patience`` evaluations without an improvement of more than ``min_delta``."""

    def __init__(self, config: EarlyStopping | None) -> None:
        self.config = config
        self.reference = math.inf
        self.waited = 0

    def update(self, record: Record) -> bool:
        """Judge ``record``; True if training should stop."""
        if self.config is None:
            return False
        value = badness(record, self.config.monitor)
        if value < self.reference - self.config.min_delta:
            self.reference, self.waited = value, 0
        else:
            self.waited += 1
        return self.waited >= self.config.patience


class OverfitDetector:
    """Validation loss rising while training loss falls, several evaluations running.

    An evaluation counts if its validation loss is more than ``delta`` above the best one and its
    training loss below that of the best one. A new best resets the counter and withdraws the
    onset; an evaluation that does not count resets the counter alone. The onset is the epoch of
    the first of ``patience`` evaluations that counted in a row.
    """

    def __init__(self, config: Overfitting | None) -> None:
        self.config = config
        self.best_val = math.inf
        self.train_at_best = math.inf
        self.count = 0
        self.first_epoch: float | None = None
        self.onset_epoch: float | None = None

    def update(self, record: Record) -> bool:
        """Judge ``record``; True if overfitting was found and training should stop for it."""
        if self.config is None:
            return False
        val, train = badness(record, "val_loss"), badness(record, "train_loss")
        if val < self.best_val:
            self.best_val, self.train_at_best = val, train
            self.count, self.first_epoch, self.onset_epoch = 0, None, None
        elif val > self.best_val + self.config.delta and train < self.train_at_best:
            self.count += 1
            if self.count == 1:
                self.first_epoch = record["epoch"]
            if self.count >= self.config.patience and self.onset_epoch is None:
                self.onset_epoch = self.first_epoch
        else:
            self.count, self.first_epoch = 0, None
        return self.onset_epoch is not None and self.config.action == "stop"
