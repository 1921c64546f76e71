"""One run of a stack: its folder, its watchers, its snapshots, and what became of it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from netdepth.config import RunConfig
from netdepth.runs.folder import RunDir
from netdepth.training import layers as probes
from netdepth.training.checkpoint import OPTIMIZER, Checkpointer, Snapshot, restore, take_snapshot
from netdepth.training.fit import EpochRecord
from netdepth.training.optim import Optimizer, WatchingSchedule
from netdepth.training.stack import Stack
from netdepth.training.stopping import BestTracker, EarlyStopper, OverfitDetector

__all__ = ["Member", "newest_common_step"]

Files = dict[str, bytes]


@dataclass
class Member:
    """The run in one ``lane`` of a stack; ``config`` has its seed.

    ``result`` is there once the run is finished; a member that is so from the start rides along as
    a dead lane. ``seconds`` is its share of the training time.
    """

    lane: int
    config: RunConfig
    folder: RunDir
    result: dict[str, Any] | None = None
    status: str = "completed"
    evaluations: int = 0
    last_step: int = 0
    seconds: float = 0.0
    saver: Checkpointer = field(init=False)
    schedule: WatchingSchedule | None = None
    """One that is shown every evaluation, as the stopping rules are."""

    def __post_init__(self) -> None:
        stopping = self.config.train.early_stopping
        self.saver = Checkpointer(self.folder)
        self.best = BestTracker(stopping.monitor if stopping else "val_loss")
        self.early = EarlyStopper(stopping)
        self.overfit = OverfitDetector(self.config.train.overfitting)

    # --- going on from where it was ---

    def saved(self, step: int) -> tuple[Files, Files | None] | None:
        """The checkpoint at ``step`` and the best one it names, if all their digests hold."""
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
        """Go on from ``step``, for which `saved` has found files; from the start if it is 0."""
        found = self.saved(step) if step else None
        if found is None:
            self.folder.drop_checkpoints(())
        else:
            files, best_files = found
            best: Snapshot | None = None
            if best_files is not None and best_files is not files:
                best = restore(json.loads(files["state.json"])["best_step"], best_files, stack, self.lane, optimizer)
            newest = restore(step, files, stack, self.lane, optimizer)
            self.saver.resumed(newest, newest if best_files is files else best)
        for record in self.folder.truncate_metrics(step):
            self._judge(record)
        self.folder.truncate_probes(step)

    # --- while it trains ---

    def take(self, record: EpochRecord) -> dict[str, Any]:
        """Judge one evaluation and append it to ``metrics.jsonl``; returns what was written."""
        shown = dataclasses.asdict(record)
        best = self._judge(shown)
        shown |= {"best": best, "overfit_count": self.overfit.count, "overfit_onset_epoch": self.overfit.onset_epoch}
        self.folder.append_metrics(shown)
        return shown

    def offer(self, record: Mapping[str, Any], stack: Stack, optimizer: Optimizer) -> None:
        """Keep the state after ``record``, unless the run has diverged and there is nothing to keep."""
        if not record["diverged"]:
            self.saver.offer(take_snapshot(record["step"], stack, self.lane, optimizer), record["best"])

    def _judge(self, record: Mapping[str, Any]) -> bool:
        """Show one evaluation to all that watch; True if it is a new best. Sets the run's status."""
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

    def probe(self, stack: Stack, batch: tuple[Tensor, Tensor], step: int, steps_per_epoch: int) -> None:
        """Look into the network as it is after ``step`` steps (`netdepth.training.layers`), once."""
        name = f"probes/step-{step}.json" if step else "probes/init.json"
        if not (self.folder.path / name).exists():
            found = probes.probe(stack.models[self.lane], *batch)
            self.folder.write_json(name, {"step": step, "epoch": step / steps_per_epoch, **found})


def newest_common_step(members: Sequence[Member]) -> int:
    """The newest step at which every one of ``members`` has a sound checkpoint and its record; 0 if there is none.

    A checkpoint without its record cannot be used, since the stopping rules need all records up to it; it is told.
    """
    known = []
    for member in members:
        records = {record["step"] for record in member.folder.read_metrics()}
        for step in sorted({*member.folder.checkpoints()} - records):
            lost = f"checkpoint {step} has no record in {member.folder.path / 'metrics.jsonl'}; using the one before"
            member.folder.notes.append(lost)
        known.append({*member.folder.checkpoints()} & records)
    for step in sorted(set.intersection(*known), reverse=True):
        if all(member.saved(step) is not None for member in members):
            return step
    return 0
