"""The steps of a training, as a generator: it yields records, and the caller decides."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor

from netdepth.config import Duration, TrainConfig, derive_seed
from netdepth.data import Split
from netdepth.data.augment import Batches
from netdepth.runs import VALUE_METRICS, MetricsRecord
from netdepth.training.evaluate import own_names, scores_at_evaluation
from netdepth.training.objectives import Objective, learns_values
from netdepth.training.optim import Optimizer, Schedule
from netdepth.training.stack import Gradients, Stack

__all__ = ["Evaluation", "Tick", "fit"]

TICK_SECONDS = 0.5


@dataclass(frozen=True)
class Tick:
    """``step`` steps are done: between evaluations, at most twice a second."""

    step: int


Evaluation = dict[int, MetricsRecord]
"""Records by replica: of all live replicas at the end of a period, of single ones at the step where they diverge."""


def fit(
    stack: Stack,
    gradients: Gradients,
    optimizer: Optimizer,
    schedule: Schedule,
    batches: Batches,
    val: Split,
    config: TrainConfig,
    start_step: int = 0,
    objective: Objective | None = None,
) -> Iterator[Tick | Evaluation]:
    """Train ``stack`` from ``start_step`` to the end of the budget, or until no replica is live.

    The ``objective`` decides which scores of ``val`` are in the records (None: those of classes).
    The caller retires replicas (`Stack.retire`), also those whose record says ``diverged``.
    Everything random is a function of (seed, step), so a run that continues from a saved step, with its
    weights and optimizer state, continues bit for bit.
    """
    per_epoch = batches.steps_per_epoch
    budget = Duration.parse(config.budget).steps(per_epoch)
    period = Duration.parse(config.eval_every).steps(per_epoch)
    eager_check = stack.flat.device.type == "cpu"  # where reading a scalar costs nothing, read every loss
    step, lr = start_step, optimizer.lr * schedule(start_step)
    yielded = ticked = time.perf_counter()

    while step < budget and stack.live:
        end = min(budget, (step // period + 1) * period)
        losses: list[Tensor] = []
        right: list[Tensor] = []
        seed = derive_seed(batches.seeds[0], "dropout", step)  # what is stacked has no dropout
        torch.manual_seed(seed)
        random.seed(seed)  # users' networks and losses may draw from these two as well
        np.random.seed(seed % 2**32)  # noqa: NPY002
        stack.train(step)
        seen = 0
        while step < end and stack.live:
            batch = batches(step)
            loss, hits = gradients(*batch)
            losses.append(loss)
            right.append(hits)
            seen += batches.size(step)
            if eager_check and not math.isfinite(loss.sum()):
                lost = [index for index in stack.live if not math.isfinite(loss[index])]
                if lost:
                    now = time.perf_counter()
                    yield _records(
                        stack, objective, lost, step, lr, per_epoch, losses, right, seen, None, now - yielded
                    )
                    yielded += time.perf_counter() - now  # what the caller did meanwhile is not training
                    if not stack.live:
                        return
            if config.grad_clip_norm is not None:
                _clip(stack, config.grad_clip_norm)
            lr = optimizer.lr * schedule(step)
            optimizer.step(lr)
            step += 1
            if (now := time.perf_counter()) - ticked > TICK_SECONDS:
                ticked = now
                yield Tick(step)
        now = time.perf_counter()
        yield _records(stack, objective, stack.live, step, lr, per_epoch, losses, right, seen, val, now - yielded)
        yielded = ticked = time.perf_counter()


def _clip(stack: Stack, most: float) -> None:
    """Scale each replica's gradient down to a norm of ``most``, as `clip_grad_norm_` does."""
    blocks = stack.blocks(stack.gradient)
    norms = torch.stack([torch.linalg.vector_norm(block, dim=1) for block in blocks])
    factors = (most / (torch.linalg.vector_norm(norms, dim=0) + 1e-6)).clamp(max=1.0)
    for block in blocks:
        block.mul_(factors.unsqueeze(1))


def _records(
    stack: Stack,
    objective: Objective | None,
    indices: list[int],
    step: int,
    lr: float,
    per_epoch: int,
    losses: list[Tensor],
    right: list[Tensor],
    seen: int,
    val: Split | None,
    seconds: float,
) -> Evaluation:
    """One record per replica of ``indices``; without ``val`` they have diverged. Values have no accuracies in it."""
    evaluated_from = time.perf_counter()
    train_loss = torch.stack(losses).double().mean(0).tolist()
    train_accuracy = (torch.stack(right).sum(0) / seen).tolist()
    finite = stack.finite()
    sound = [index for index in indices if val is not None and math.isfinite(train_loss[index]) and finite[index]]
    judged = scores_at_evaluation(stack, sound, val, objective) if val is not None else []
    val_of = dict(zip(sound, judged, strict=True))
    told = VALUE_METRICS if learns_values(objective) else ("loss", "accuracy")
    unknown = dict.fromkeys((*told, *own_names()), math.nan)
    share = (seconds + time.perf_counter() - evaluated_from) / len(stack.live)
    records = {}
    for index in indices:
        norms = {name: p.grad for name, p in stack.models[index].named_parameters() if p.grad is not None}
        layer_norms = torch.stack(torch._foreach_norm(list(norms.values()))).tolist()
        found = {f"val_{name}": value for name, value in val_of.get(index, unknown).items()}
        val_loss = found["val_loss"]
        record: dict[str, object] = {
            "step": step,
            "epoch": step / per_epoch,
            "lr": lr,
            "train_loss": train_loss[index],
            **({"train_accuracy": train_accuracy[index]} if "accuracy" in told else {}),
            **{f"val_{name}": found.pop(f"val_{name}") for name in told},
            "gap": val_loss - train_loss[index],
            "grad_norm": math.hypot(*layer_norms),
            "layer_grad_norms": dict(zip(norms, layer_norms, strict=True)),
            "seconds": share,
            "diverged": index not in val_of,
            **found,  # metrics of the user's own
        }
        records[index] = cast(MetricsRecord, record)
    return records
