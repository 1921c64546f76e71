"""Optimizers and learning-rate schedules by name.

An optimizer works on one flat parameter (see `flat`), so an update is one fused kernel
however many layers there are. A schedule is a pure function of the step: it has no state
that a resumed run could lose and its whole trace can be tested.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Annotated

import torch
from torch import nn

from netdepth.errors import BadInput
from netdepth.registry import Registry

__all__ = ["OPTIMIZERS", "SCHEDULES", "Schedule"]

Schedule = Callable[[int], float]
"""Step number (from 0) to the factor on the optimizer's learning rate."""

OPTIMIZERS: Registry[torch.optim.Optimizer] = Registry("optimizer")
"""An optimizer function takes (parameters) and its own settings."""

SCHEDULES: Registry[Schedule] = Registry("schedule")
"""A schedule function takes (total_steps, steps_per_epoch) and its own settings."""

Parameters = Sequence[nn.Parameter]
Lr = Annotated[float, "learning rate"]
Decay = Annotated[float, "weight decay"]
Beta1 = Annotated[float, "decay rate of the gradient's moving average"]
Beta2 = Annotated[float, "decay rate of the squared gradient's moving average"]


def _check(lr: float, weight_decay: float, *, momentum: Sequence[float] = (), eps: float = 1.0) -> None:
    for name, value in (("lr", lr), ("weight_decay", weight_decay), ("eps", eps)):
        if value < 0:
            raise BadInput(f"optimizer.{name} = {value} is out of range; it takes 0 or more")
    for value in momentum:
        if not 0 <= value < 1:
            raise BadInput(f"optimizer momentum or beta {value} is out of range; it takes 0 up to, not including, 1")


@OPTIMIZERS.register("adam")
def adam(
    parameters: Parameters,
    *,
    lr: Lr = 1e-3,
    beta1: Beta1 = 0.9,
    beta2: Beta2 = 0.999,
    eps: Annotated[float, "added to the denominator"] = 1e-8,
    weight_decay: Annotated[float, "L2 penalty added to the gradient"] = 0.0,
) -> torch.optim.Optimizer:
    """Adam (Kingma & Ba 2015)."""
    _check(lr, weight_decay, momentum=(beta1, beta2), eps=eps)
    return torch.optim.Adam(parameters, lr, (beta1, beta2), eps, weight_decay, fused=True)


@OPTIMIZERS.register("adamw")
def adamw(
    parameters: Parameters,
    *,
    lr: Lr = 1e-3,
    beta1: Beta1 = 0.9,
    beta2: Beta2 = 0.999,
    eps: Annotated[float, "added to the denominator"] = 1e-8,
    weight_decay: Decay = 1e-2,
) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay, on all parameters (Loshchilov & Hutter 2019)."""
    _check(lr, weight_decay, momentum=(beta1, beta2), eps=eps)
    return torch.optim.AdamW(parameters, lr, (beta1, beta2), eps, weight_decay, fused=True)


@OPTIMIZERS.register("sgd")
def sgd(
    parameters: Parameters,
    *,
    lr: Lr = 0.1,
    momentum: Annotated[float, "momentum, as PyTorch defines it"] = 0.9,
    nesterov: Annotated[bool, "Nesterov's variant of momentum"] = False,
    weight_decay: Annotated[float, "L2 penalty added to the gradient"] = 0.0,
) -> torch.optim.Optimizer:
    """Stochastic gradient descent with momentum."""
    _check(lr, weight_decay, momentum=(momentum,))
    if nesterov and momentum == 0:
        raise BadInput("optimizer.nesterov = True needs optimizer.momentum above 0")
    return torch.optim.SGD(parameters, lr, momentum, weight_decay=weight_decay, nesterov=nesterov, fused=True)


# --- schedules ----------------------------------------------------------------------------------


@SCHEDULES.register("constant")
def constant(total_steps: int, steps_per_epoch: int) -> Schedule:
    """The learning rate as given, throughout."""
    return lambda step: 1.0


@SCHEDULES.register("step")
def step_decay(
    total_steps: int,
    steps_per_epoch: int,
    *,
    at: Annotated[list[float], "shares of the budget after which the rate is multiplied by gamma"] = [0.5, 0.75],  # noqa: B006
    gamma: Annotated[float, "factor at each milestone"] = 0.1,
) -> Schedule:
    """Multiplied by gamma at fixed shares of the budget (He et al. 2016, §4.2: at 1/2 and 3/4 of 64k steps)."""
    if any(not 0 < share < 1 for share in at) or sorted(set(at)) != at:
        raise BadInput(f"schedule.at = {at} is not acceptable; it takes rising shares between 0 and 1")
    _positive("gamma", gamma)
    milestones = [round(share * total_steps) for share in at]
    return lambda step: gamma ** sum(step >= milestone for milestone in milestones)


@SCHEDULES.register("cosine")
def cosine(
    total_steps: int,
    steps_per_epoch: int,
    *,
    warmup: Annotated[float, "share of the budget in which the rate rises linearly from 0"] = 0.0,
    floor: Annotated[float, "factor reached at the end"] = 0.0,
) -> Schedule:
    """Half a cosine from the full rate to the floor (Loshchilov & Hutter 2017), after an optional warm-up."""
    _share("warmup", warmup)
    _share("floor", floor)
    rise = round(warmup * total_steps)

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        progress = (step - rise) / max(1, total_steps - rise)
        return floor + (1 - floor) * (1 + math.cos(math.pi * min(1.0, progress))) / 2

    return factor


@SCHEDULES.register("one-cycle")
def one_cycle(
    total_steps: int,
    steps_per_epoch: int,
    *,
    rise: Annotated[float, "share of the budget until the peak"] = 0.3,
    start: Annotated[float, "factor at the first step"] = 0.04,
    end: Annotated[float, "factor at the last step"] = 4e-6,
) -> Schedule:
    """Cosine up to the full rate and down again (Smith & Topin 2018); momentum is left alone."""
    _share("rise", rise)
    _share("start", start)
    _share("end", end)
    peak = rise * total_steps - 1
    last = total_steps - 1

    def factor(step: int) -> float:
        if step < peak:
            return _anneal(start, 1.0, step / peak)
        return _anneal(1.0, end, min(1.0, (step - peak) / max(1e-9, last - peak)))

    return factor


@SCHEDULES.register("warmup")
def warmup(
    total_steps: int,
    steps_per_epoch: int,
    *,
    steps: Annotated[int, "steps in which the rate rises linearly from 1/steps to 1"] = 500,
) -> Schedule:
    """Linear warm-up, then the full rate (Goyal et al. 2017, §2.2)."""
    if steps < 1:
        raise BadInput(f"schedule.steps = {steps} is out of range; it takes 1 or more")
    return lambda step: min(1.0, (step + 1) / steps)


def _anneal(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def _share(name: str, value: float) -> None:
    if not 0 <= value < 1:
        raise BadInput(f"schedule.{name} = {value} is out of range; it takes 0 up to, not including, 1")


def _positive(name: str, value: float) -> None:
    if value <= 0:
        raise BadInput(f"schedule.{name} = {value} is out of range; it takes a number above 0")
