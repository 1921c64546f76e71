"""One replica of a stack: its run folder, its stopping rules, its snapshots, and its result.

The stopping rules look at evaluation records alone, so a resumed run rebuilds their state from the records it has;
none of it has to be saved.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

import numpy as np
from torch import Tensor

from netdepth import data
from netdepth.config import EarlyStopping, Overfitting, RunConfig
from netdepth.files.atomic import write_atomic
from netdepth.runs import WEIGHTS, MetricsRecord, RunResult, Scores
from netdepth.runs.folder import RunDir
from netdepth.runs.seal import AGAIN, EVALUATION, PREDICTIONS, opened, write_sealed
from netdepth.training import layers
from netdepth.training.checkpoint import MODEL, OPTIMIZER, Checkpointer, Snapshot, restore, take_snapshot
from netdepth.training.evaluate import class_report, logits_of, metric_names, metrics
from netdepth.training.objectives import Objective, learns_values
from netdepth.training.optim import Optimizer, WatchingSchedule
from netdepth.training.stack import Stack

__all__ = ["BestTracker", "EarlyStopper", "OverfitDetector", "Replica", "finish", "newest_common_step"]

Monitor = Literal["val_loss", "val_accuracy", "train_loss"]


def badness(record: MetricsRecord, monitor: Monitor) -> float:
    """The monitored value as one to be minimised; NaN counts as infinitely bad."""
    value = record[monitor]
    if value is None or math.isnan(value):
        return math.inf
    return -value if monitor.endswith("accuracy") else value


class BestTracker:
    """The best evaluation so far by ``monitor``; the first of equals wins."""

    def __init__(self, monitor: Monitor) -> None:
        self.monitor = monitor
        self.value = math.inf
        self.step: int | None = None
        self.epoch: float | None = None

    def update(self, record: MetricsRecord) -> bool:
        """Judge ``record``; True if it is a new best."""
        value = badness(record, self.monitor)
        if not value < self.value:
            return False
        self.value, self.step, self.epoch = value, record["step"], record["epoch"]
        return True


class EarlyStopper:
    """Says stop after ``patience`` evaluations without an improvement of more than ``min_delta``."""

    def __init__(self, config: EarlyStopping | None) -> None:
        self.config = config
        self.reference = math.inf
        self.waited = 0

    def update(self, record: MetricsRecord) -> bool:
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
    """Finds overfitting: the validation loss rises while the training loss falls, for several evaluations in a row.

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

    def update(self, record: MetricsRecord) -> bool:
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


Files = dict[str, bytes]
Evaluated = dict[str, tuple[Mapping[str, float | None], Tensor]]
"""Per part of the data: metrics, and logits ``[N, K]``."""


@dataclass
class Replica:
    """The run at ``index`` of a stack; ``config`` has its seed.

    ``result`` is set once the run is finished; a replica that is finished from the start stays in the stack as zeros.
    ``seconds`` is its share of the training time.
    """

    index: int
    config: RunConfig
    folder: RunDir
    result: RunResult | None = None
    status: str = "completed"
    evaluations: int = 0
    last_step: int = 0
    seconds: float = 0.0
    checkpoints: Checkpointer = field(init=False)
    schedule: WatchingSchedule | None = None
    """A schedule that gets every evaluation, as the stopping rules do."""

    def __post_init__(self) -> None:
        stopping = self.config.train.early_stopping
        self.checkpoints = Checkpointer(self.folder)
        self.best = BestTracker(stopping.monitor if stopping else "val_loss")
        self.early = EarlyStopper(stopping)
        self.overfit = OverfitDetector(self.config.train.overfitting)

    # --- continuing ---

    def saved(self, step: int) -> tuple[Files, Files | None] | None:
        """The checkpoint at ``step`` and the best one that it names, if all digests are right."""
        files = self.folder.load_checkpoint(step)
        if files is None:
            return None
        if OPTIMIZER not in files:  # what `netdepth runs gc` leaves of a finished run, whose result was then removed
            self.folder.notes.append(f"checkpoint {step} has no optimizer state any more; using the one before")
            return None
        best_step = json.loads(files["state.json"])["best_step"]
        if best_step is None or best_step == step:
            return files, files if best_step == step else None
        best = self.folder.load_checkpoint(best_step)
        return None if best is None else (files, best)

    def resume(self, step: int, stack: Stack, optimizer: Optimizer) -> None:
        """Continue from ``step``, for which `saved` has found files; from the start if it is 0."""
        saved = self.saved(step) if step else None
        if saved is None:
            self.folder.drop_checkpoints(())
        else:
            files, best_files = saved
            best: Snapshot | None = None
            if best_files is not None and best_files is not files:
                best = restore(json.loads(files["state.json"])["best_step"], best_files, stack, self.index, optimizer)
            newest = restore(step, files, stack, self.index, optimizer)
            self.checkpoints.resumed(newest, newest if best_files is files else best)
        for record in self.folder.truncate_metrics(step):
            self._judge(record)
        self.folder.truncate_probes(step)

    # --- while it trains ---

    def record(self, evaluation: MetricsRecord) -> MetricsRecord:
        """Judge one evaluation and append it to ``metrics.jsonl``; returns what was written."""
        evaluation["best"] = self._judge(evaluation)
        evaluation["overfit_count"] = self.overfit.count
        evaluation["overfit_onset_epoch"] = self.overfit.onset_epoch
        self.folder.append_metrics(evaluation)
        return evaluation

    def keep(self, record: MetricsRecord, stack: Stack, optimizer: Optimizer) -> None:
        """Keep the state after ``record``, unless the run has diverged."""
        if not record["diverged"]:
            self.checkpoints.offer(take_snapshot(record["step"], stack, self.index, optimizer), record["best"])

    def _judge(self, record: MetricsRecord) -> bool:
        """Give one evaluation to all rules; True if it is a new best. Sets the run's status."""
        self.evaluations += 1
        self.last_step = record["step"]
        self.seconds += record["seconds"]
        best, early, overfit = self.best.update(record), self.early.update(record), self.overfit.update(record)
        if self.schedule is not None:
            self.schedule.observe(record["step"], record["train_accuracy"])
        if record["diverged"]:
            self.status = "diverged"
        else:
            self.status = "stopped_early" if early else "stopped_overfit" if overfit else "completed"
        return best

    def measure_layers(
        self, stack: Stack, batch: tuple[Tensor, Tensor], steps_per_epoch: int, objective: Objective
    ) -> None:
        """Write the layer statistics (`netdepth.training.layers`) of the network as it is now, once."""
        step = self.last_step
        name = f"probes/step-{step}.json" if step else "probes/init.json"
        if not (self.folder.path / name).exists():
            statistics = layers.probe(stack.models[self.index], *batch, step, step / steps_per_epoch, objective)
            self.folder.write_json(name, statistics.as_json())

    # --- at the end ---

    def snapshot(self, which: str) -> Snapshot | None:
        """The ``best`` or ``last`` weights; a run that diverged has no last ones."""
        if which == "best":
            return self.checkpoints.best
        return None if self.status == "diverged" else self.checkpoints.newest


def newest_common_step(replicas: Sequence[Replica]) -> int:
    """The newest step at which each of ``replicas`` has a sound checkpoint and its record; 0 if there is none.

    A checkpoint without its record cannot be used, since the stopping rules need all records up to it; a note says so.
    """
    known = []
    for replica in replicas:
        folder = replica.folder
        records = {record["step"] for record in folder.read_metrics()}
        for step in sorted({*folder.checkpoints()} - records):
            lost = f"checkpoint {step} has no record in {folder.path / 'metrics.jsonl'}; using the one before"
            folder.notes.append(lost)
        known.append({*folder.checkpoints()} & records)
    for step in sorted(set.intersection(*known), reverse=True):
        if all(replica.saved(step) is not None for replica in replicas):
            return step
    return 0


def finish(
    replicas: Sequence[Replica], splits: data.Splits, stack: Stack, objective: Objective, started: float
) -> None:
    """Evaluate ``replicas``, whose training has ended and is saved, and write a ``result.json`` for each.

    The best and the last weights are evaluated on every part; the test part is opened once per run. Equal best and
    last weights are evaluated once. The replicas' weights are overwritten. ``total_seconds`` counts from ``started``
    (`time.perf_counter`), evaluation and writing included.
    """
    if not replicas:
        return
    parts = {"train": splits.train, "val": splits.val}
    for replica in replicas:
        test = splits.for_another_run().test  # a seal of its own for every run
        if test is not None:
            purpose = AGAIN if opened(replica.folder) else EVALUATION  # a kill in between leaves the first opening
            parts["test"] = test.open_test(purpose, replica.folder.log_test_access)
    scores: dict[tuple[int, str], Evaluated] = {}
    for which in WEIGHTS:
        evaluated: list[int] = []
        for replica in replicas:
            snapshot = replica.snapshot(which)
            if snapshot is None:
                continue
            if which == "last" and snapshot is replica.checkpoints.best:
                scores[replica.index, which] = scores[replica.index, "best"]
                continue
            stack.models[replica.index].load_state_dict(snapshot.model)
            scores[replica.index, which] = {}
            evaluated.append(replica.index)
        for part, split in parts.items():
            if evaluated and len(split):
                every = logits_of(stack, evaluated, split.to(stack.flat.device))
                for index, logits in zip(evaluated, every, strict=True):
                    scores[index, which][part] = metrics(logits.cpu(), split.labels, objective), logits.cpu()
    for replica in replicas:
        found = {w: scores.get((replica.index, w), {}) for w in WEIGHTS}
        result = _result(replica, found, parts, splits, objective)
        model = stack.models[replica.index]
        result["depth"] = model.depth
        result["num_params"] = sum(p.numel() for p in model.parameters())
        result["seconds"] = replica.seconds
        result["total_seconds"] = time.perf_counter() - started
        made_in = replica.folder.environment()
        if made_in is not None and made_in.continued_from is not None:
            result["continued_from"] = asdict(made_in.continued_from)
        replica.result = write_sealed(replica.folder, result)


def _result(
    replica: Replica,
    found: dict[str, Evaluated],
    parts: dict[str, data.Split],
    splits: data.Splits,
    objective: Objective,
) -> RunResult:
    """Most of ``result.json``, from the scores of the best and the last weights; writes ``predictions.npz``."""
    reported = "best" if replica.config.train.early_stopping and replica.checkpoints.best else "last"
    # A diverged run has no last weights; without validation images there are no best ones, and nothing to judge by.
    unknown = dict.fromkeys(metric_names(objective), math.nan if replica.status == "diverged" else None)
    scores: dict[str, Scores] = {
        part: {w: found[w][part][0] if part in found[w] else unknown for w in WEIGHTS} for part in parts
    }
    shown = "test" if "test" in parts else "val"
    per_class, confusion = None, None
    if shown in found[reported]:
        logits, labels = found[reported][shown][1], parts[shown].labels
        buffer = io.BytesIO()
        if learns_values(objective):
            np.savez_compressed(buffer, predictions=logits.numpy(), targets=labels.numpy())
        else:
            per_class, confusion = class_report(logits, labels, splits.spec.classes)
            np.savez_compressed(buffer, logits=logits.numpy(), labels=labels.numpy())
        write_atomic(replica.folder.path / PREDICTIONS, buffer.getvalue())
    weights, newest = replica.snapshot(reported), replica.checkpoints.newest
    return {
        "status": replica.status,
        "steps": newest.step if newest else 0,
        "best_step": replica.best.step,
        "best_epoch": replica.best.epoch,
        "reported": reported,
        "weights_sha256": hashlib.sha256(weights.files(None)[MODEL]).hexdigest() if weights else None,
        "train": scores["train"],
        "val": scores["val"],
        "test": scores.get("test"),
        "per_class": per_class,
        "confusion": confusion,
        "evaluated_on": shown,
        "overfit_onset_epoch": replica.overfit.onset_epoch,
        "gap": {w: _gap(scores["train"][w]["loss"], scores["val"][w]["loss"]) for w in WEIGHTS},
    }


def _gap(train: float | None, val: float | None) -> float | None:
    return None if train is None or val is None else val - train
