"""From locked run folders to finished runs: the members of a stack train together, in plain order."""

from __future__ import annotations

import signal
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from netdepth import data, models
from netdepth.config import Duration, RunConfig
from netdepth.data.augment import AUGMENTATIONS
from netdepth.data.batches import Batches
from netdepth.errors import BadInput, Interrupted
from netdepth.training import layers as probes
from netdepth.training import result
from netdepth.training.finetune import FineTuning
from netdepth.training.fit import Tick, fit
from netdepth.training.gradients import choose_gradients
from netdepth.training.objectives import Distillation, Objective
from netdepth.training.optim import OPTIMIZERS, SCHEDULES, WatchingSchedule
from netdepth.training.process import Process
from netdepth.training.replica import Member, newest_common_step
from netdepth.training.signals import signals_held, signals_ignored
from netdepth.training.stack import Stack

__all__ = ["Watch", "Watcher", "conduct", "laid_out"]

WRITE_EVERY_SECONDS = 10.0


class Watcher(Protocol):
    """What is told how far a training is (`netdepth.progress.TrainProgress` is one)."""

    def advance(self, step: int) -> None: ...

    def evaluated(self, record: Mapping[str, Any]) -> None: ...


Watch = Callable[[str, int, int], AbstractContextManager[Watcher]]
"""(title, total steps, steps per epoch) to a watcher, entered while the training lasts."""


def conduct(
    config: RunConfig,
    networks: Sequence[models.Network],
    objective: Objective,
    members: Sequence[Member],
    process: Process,
    splits: data.Splits,
    *,
    title: str,
    watch: Watch,
    probing: bool = True,
) -> float:
    """Train ``members`` from what their folders hold to their ends and finish every one.

    ``config`` is theirs but for the seed, ``networks`` are theirs before training, ``objective`` is ready to be used.

    Returns:
        `time.monotonic` after the last training step.

    Raises:
        Interrupted: a signal came; everything is saved.
    """
    started = time.perf_counter()
    seeds, indexed = [member.config.seed for member in members], isinstance(objective, Distillation)
    stack, batches = laid_out(config, networks, process, splits, seeds, indexed=indexed)
    val = splits.val.to(process.device)
    per_epoch = batches.steps_per_epoch
    if config.start_from is not None:
        stack.tuning = FineTuning(stack, config.start_from, per_epoch, config.train.eval_every)
    optimizer = OPTIMIZERS.build(config.optimizer, stack.flat)
    rows = [tensor for tensor in optimizer.state.values() if tensor.shape == stack.flat.shape]
    budget = Duration.parse(config.train.budget).steps(per_epoch)
    schedule = SCHEDULES.build(config.schedule, budget, per_epoch)
    if isinstance(schedule, WatchingSchedule):
        if len(members) > 1:
            raise BadInput(f"schedule {config.schedule.name!r} follows one run's training error; make its seeds alone")
        members[0].schedule = schedule
    look = probes.probe_batch(batches.split) if probing else None

    def finish(ended: Sequence[Member]) -> None:
        if look is not None:
            for member in ended:
                member.probe(stack, look, member.last_step, per_epoch)
        _save(ended)
        result.finish(ended, splits, stack, started)
        for member in ended:
            stack.retire(member.lane, rows)

    def look_at(present: Sequence[Member]) -> None:
        for member in present:
            if look is not None and member.evaluations & (member.evaluations - 1) == 0:
                member.probe(stack, look, member.last_step, per_epoch)

    for member in members:
        if member.result is not None:
            stack.retire(member.lane, rows)
    live = [member for member in members if member.result is None]
    resumed = newest_common_step(live)
    for member in live:
        member.resume(resumed, stack, optimizer)
        if resumed:
            member.folder.notes.append(f"continued from step {resumed} (epoch {resumed / per_epoch:.4g})")

    try:
        look_at(live)  # the newest probe may be missing: its checkpoint can be older than it
        finish([member for member in live if member.status != "completed"])
        gradients = choose_gradients(stack, objective)
        gradients = process.team.share(gradients, stack, batches, resumed)
        saved_at = time.monotonic()
        with watch(title, budget, per_epoch) as watcher:
            for event in fit(stack, gradients, optimizer, schedule, batches, val, config.train, resumed):
                if isinstance(event, Tick):
                    watcher.advance(event.step)
                    continue
                present = [members[lane] for lane in event]
                with signals_held():  # no lane's snapshot is of another evaluation than its neighbour's
                    records = [member.take(event[member.lane]) for member in present]
                    for member, record in zip(present, records, strict=True):
                        member.offer(record, stack, optimizer)
                if time.monotonic() - saved_at >= WRITE_EVERY_SECONDS:
                    _save([member for member in members if member.result is None])
                    saved_at = time.monotonic()
                look_at(present)
                watcher.evaluated(_mean(records))
                finish([member for member in present if member.status != "completed"])
        trained_until = time.monotonic()
        finish([member for member in members if member.result is None])
    except (KeyboardInterrupt, Interrupted) as error:
        unfinished = [member for member in members if member.result is None]
        with signals_ignored():
            process.team.release()
            _save(unfinished)
        number = error.exit_code - 128 if isinstance(error, Interrupted) else signal.SIGINT
        done = min((member.saver.newest.step if member.saver.newest else 0) for member in unfinished or members)
        raise Interrupted(f"interrupted; saved up to step {done}; the same command continues it", number) from None
    return trained_until


def laid_out(
    config: RunConfig,
    networks: Sequence[models.Network],
    process: Process,
    splits: data.Splits,
    seeds: Sequence[int],
    *,
    indexed: bool = False,
) -> tuple[Stack, Batches]:
    """``networks`` as one stack on the device of ``process``, and what it trains on there: this rank's share."""
    channels_last, bf16 = process.memory_format == "channels_last", config.train.precision == "bf16"
    stack = Stack([network.to(process.device) for network in networks], channels_last=channels_last, bf16=bf16)
    augment = AUGMENTATIONS.build(config.augmentation, splits.spec.input_shape) if config.augmented else None
    share = process.team.rank, process.team.world
    return stack, Batches(
        splits.train.to(process.device), config.train.batch_size, seeds, augment, share, indexed=indexed
    )


def _save(members: Sequence[Member]) -> None:
    """Put the newest and best state of all on disk, and only then remove older ones."""
    for member in members:
        member.saver.write()
    for member in members:
        member.saver.prune()


def _mean(records: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The records of a stack as one to show: means of the numbers that a watcher shows."""
    if len(records) == 1:
        return records[0]
    names = ("train_loss", "val_loss", "train_accuracy", "val_accuracy")
    return {"step": records[0]["step"], **{name: statistics.fmean(r[name] for r in records) for name in names}}
