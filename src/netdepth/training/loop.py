"""The training loop: the replicas of a stack train together, from locked run folders to finished runs."""

from __future__ import annotations

import math
import signal
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Literal, Protocol

from netdepth import data, models
from netdepth.config import Duration, RunConfig
from netdepth.data.augment import AUGMENTATIONS, Batches
from netdepth.errors import BadInput, Interrupted
from netdepth.progress import ShownRecord
from netdepth.runs import MetricsRecord
from netdepth.text import plain
from netdepth.training import replica as ends
from netdepth.training.fit import Tick, fit
from netdepth.training.gradients import choose_gradients
from netdepth.training.layers import probe_batch
from netdepth.training.objectives import Distillation, Objective
from netdepth.training.optim import OPTIMIZERS, SCHEDULES, WatchingSchedule
from netdepth.training.process import Process
from netdepth.training.replica import Replica, newest_common_step
from netdepth.training.signals import ignore_signals, signals_held
from netdepth.training.stack import FineTuning, Stack

__all__ = ["Watch", "Watcher", "lay_out", "train_stack"]

WRITE_EVERY_SECONDS = 10.0


class Watcher(Protocol):
    """Shows the progress of a training (`netdepth.progress.TrainProgress` is one)."""

    def advance(self, step: int) -> None: ...

    def evaluated(self, record: ShownRecord) -> None: ...


Watch = Callable[[str, int, int], AbstractContextManager[Watcher]]
"""(title, total steps, steps per epoch) to a watcher, entered while the training lasts."""


def train_stack(
    config: RunConfig,
    networks: Sequence[models.Network],
    objective: Objective,
    replicas: Sequence[Replica],
    process: Process,
    splits: data.Splits,
    *,
    title: str,
    watch: Watch,
    probes: bool = True,
) -> float:
    """Train ``replicas`` from the state in their folders to their ends, and write the result of each.

    ``config`` is the config of all, except for the seed; ``networks`` are their untrained networks.
    With ``probes`` layer statistics are written at initialisation, after evaluations 1, 2, 4, 8, ... and at the end.

    Returns:
        `time.monotonic` after the last training step.

    Raises:
        Interrupted: a signal came; everything is saved.
    """
    started = time.perf_counter()
    seeds, indexed = [replica.config.seed for replica in replicas], isinstance(objective, Distillation)
    stack, batches = lay_out(config, networks, process, splits, seeds, indexed=indexed)
    val = splits.val.to(process.device)
    per_epoch = batches.steps_per_epoch
    if config.start_from is not None:
        stack.tuning = FineTuning(stack, config.start_from, per_epoch, config.train.eval_every)
    optimizer = OPTIMIZERS.build(config.optimizer, stack.flat)
    state_rows = [tensor for tensor in optimizer.state.values() if tensor.shape == stack.flat.shape]
    budget = Duration.parse(config.train.budget).steps(per_epoch)
    schedule = SCHEDULES.build(config.schedule, budget, per_epoch)
    if isinstance(schedule, WatchingSchedule):
        if len(replicas) > 1:
            raise BadInput(
                f"schedule {config.schedule.name!r} follows one run's training error; train its seeds one at a time"
            )
        replicas[0].schedule = schedule
    measured = probe_batch(batches.split) if probes else None

    def measure(chosen: Sequence[Replica]) -> None:
        for replica in chosen:
            if measured is not None:
                replica.measure_layers(stack, measured, per_epoch, objective)

    def measure_at_powers_of_2(chosen: Sequence[Replica]) -> None:
        measure([replica for replica in chosen if replica.evaluations & (replica.evaluations - 1) == 0])

    def finish(ended: Sequence[Replica]) -> None:
        measure(ended)
        _save(ended)
        ends.finish(ended, splits, stack, objective, started)
        for replica in ended:
            stack.retire(replica.index, state_rows)

    def unfinished() -> list[Replica]:
        return [replica for replica in replicas if replica.result is None]

    for replica in replicas:
        if replica.result is not None:
            stack.retire(replica.index, state_rows)
    live = unfinished()
    resumed = newest_common_step(live)
    for replica in live:
        replica.resume(resumed, stack, optimizer)
        if resumed:
            replica.folder.notes.append(f"continued from step {resumed} (epoch {plain(resumed / per_epoch, 4)})")

    try:
        measure_at_powers_of_2(live)  # the newest probe may be missing: its checkpoint can be older than it
        finish([replica for replica in live if replica.status != "completed"])
        gradients = choose_gradients(stack, objective)
        gradients = process.team.share(gradients, stack, batches, resumed)
        saved_at = time.monotonic()
        with watch(title, budget, per_epoch) as watcher:
            for event in fit(stack, gradients, optimizer, schedule, batches, val, config.train, resumed, objective):
                if isinstance(event, Tick):
                    watcher.advance(event.step)
                    continue
                present = [replicas[index] for index in event]
                with signals_held():  # no replica's snapshot is of another evaluation than its neighbour's
                    records = [replica.record(event[replica.index]) for replica in present]
                    for replica, record in zip(present, records, strict=True):
                        replica.keep(record, stack, optimizer)
                if time.monotonic() - saved_at >= WRITE_EVERY_SECONDS:
                    _save(unfinished())
                    saved_at = time.monotonic()
                measure_at_powers_of_2(present)
                watcher.evaluated(_mean(records))
                finish([replica for replica in present if replica.status != "completed"])
        trained_until = time.monotonic()
        finish(unfinished())
    except (KeyboardInterrupt, Interrupted) as error:
        ignore_signals()
        left = unfinished()
        process.team.release()
        _save(left)
        number = error.exit_code - 128 if isinstance(error, Interrupted) else signal.SIGINT
        newest = [replica.checkpoints.newest for replica in left or replicas]
        done = min(snapshot.step if snapshot else 0 for snapshot in newest)
        raise Interrupted(f"interrupted; saved up to step {done}; the same command continues it", number) from None
    return trained_until


def lay_out(
    config: RunConfig,
    networks: Sequence[models.Network],
    process: Process,
    splits: data.Splits,
    seeds: Sequence[int],
    *,
    indexed: bool = False,
) -> tuple[Stack, Batches]:
    """``networks`` as one stack on the device of ``process``, and its training batches: this rank's share."""
    channels_last, bf16 = process.memory_format == "channels_last", config.train.precision == "bf16"
    stack = Stack([network.to(process.device) for network in networks], channels_last=channels_last, bf16=bf16)
    augment = AUGMENTATIONS.build(config.augmentation, splits.spec.input_shape) if config.augmented else None
    share = process.team.rank, process.team.world
    return stack, Batches(
        splits.train.to(process.device), config.train.batch_size, seeds, augment, share, indexed=indexed
    )


def _save(replicas: Sequence[Replica]) -> None:
    """Write the newest and the best checkpoint of all, and only then remove older ones."""
    for replica in replicas:
        replica.checkpoints.write()
    for replica in replicas:
        replica.checkpoints.prune()


def _mean(records: Sequence[MetricsRecord]) -> ShownRecord:
    """One record to show for a stack: the means of the numbers that a watcher shows."""
    if len(records) == 1:
        return records[0]

    def mean(name: Literal["train_loss", "val_loss", "train_accuracy", "val_accuracy"]) -> float:
        return statistics.fmean(math.nan if (value := record[name]) is None else value for record in records)

    return {
        "step": records[0]["step"],
        "train_loss": mean("train_loss"),
        "val_loss": mean("val_loss"),
        "train_accuracy": mean("train_accuracy"),
        "val_accuracy": mean("val_accuracy"),
    }
