"""The training loop, read from top to bottom. It yields; the caller decides."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from netdepth.config import Duration, TrainConfig, derive_seed
from netdepth.data import Split
from netdepth.data.batches import Batches
from netdepth.engine.evaluate import loss_and_accuracy
from netdepth.engine.gradients import Gradients
from netdepth.engine.optim import Optimizer, Schedule
from netdepth.models import Network

__all__ = ["EpochRecord", "Tick", "fit"]

TICK_SECONDS = 0.5


@dataclass(frozen=True)
class Tick:
    """A sign of life between evaluations, at most two a second: ``step`` steps are done."""

    step: int


@dataclass(frozen=True)
class EpochRecord:
    """One evaluation, after ``step`` optimizer steps (``epoch`` = step / steps per epoch).

    ``train_*`` are means over the period's batches, in training mode, as the weights moved; ``val_*``
    in eval mode at its end. Losses in nats, accuracies as fractions, ``gap`` = val_loss - train_loss.
    ``grad_norm`` and ``layer_grad_norms`` are those of the period's last step, as applied (clipped).
    ``seconds`` is wall time since the previous record was yielded. ``diverged``: the loss of the
    last step was NaN or Inf; its update was not made and training ends.
    """

    step: int
    epoch: float
    lr: float
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    gap: float
    grad_norm: float
    layer_grad_norms: dict[str, float]
    seconds: float
    diverged: bool = field(default=False)


def fit(
    model: Network,
    flat: nn.Parameter,
    gradients: Gradients,
    optimizer: Optimizer,
    schedule: Schedule,
    batches: Batches,
    val: Split,
    config: TrainConfig,
    seed: int,
    start_step: int = 0,
) -> Iterator[Tick | EpochRecord]:
    """Train ``model`` from ``start_step`` to the end of the budget; one record per evaluation.

    Everything random is a function of (seed, step), so a run that starts at a step another run
    has reached, with its weights and optimizer state, continues it bit for bit.
    """
    per_epoch = batches.steps_per_epoch
    budget = Duration.parse(config.budget).steps(per_epoch)
    period = Duration.parse(config.eval_every).steps(per_epoch)
    eager_check = flat.device.type == "cpu"  # where reading a scalar costs nothing, read every loss
    step, diverged, lr = start_step, False, optimizer.lr * schedule(start_step)
    yielded = ticked = time.perf_counter()

    while step < budget and not diverged:
        end = min(budget, (step // period + 1) * period)
        losses: list[Tensor] = []
        right: list[Tensor] = []
        torch.manual_seed(derive_seed(seed, "dropout", step))
        model.train()
        seen = 0
        while step < end and not diverged:
            inputs, labels = batches(step)
            loss, hits = gradients(inputs, labels)
            losses.append(loss)
            right.append(hits)
            seen += len(labels)
            if eager_check and not math.isfinite(loss):
                diverged = True
                break
            if config.grad_clip_norm is not None:
                nn.utils.clip_grad_norm_([flat], config.grad_clip_norm)
            lr = optimizer.lr * schedule(step)
            optimizer.step(lr)
            step += 1
            if (now := time.perf_counter()) - ticked > TICK_SECONDS:
                ticked = now
                yield Tick(step)
        norms = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        layer_norms = torch.stack(torch._foreach_norm(list(norms.values()))).tolist()
        train_loss = float(torch.stack(losses).double().mean())
        diverged = diverged or not math.isfinite(train_loss)
        val_loss, val_accuracy = (math.nan, math.nan) if diverged else loss_and_accuracy(model, val)
        now = time.perf_counter()
        yield EpochRecord(
            step=step,
            epoch=step / per_epoch,
            lr=lr,
            train_loss=train_loss,
            train_accuracy=float(torch.stack(right).sum()) / seen,
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            gap=val_loss - train_loss,
            grad_norm=math.hypot(*layer_norms),
            layer_grad_norms=dict(zip(norms, layer_norms, strict=True)),
            seconds=now - yielded,
            diverged=diverged,
        )
        yielded = ticked = now
