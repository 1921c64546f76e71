"""Optimizers and learning-rate schedules by name.

An optimizer works on one flat vector (see `flat`), so an update is one fused kernel of PyTorch
however many layers there are. The kernels are called directly: `torch.optim`'s classes around
them cost a tenth of a small step in Python, and their first use imports the compiler (1.7 s).

A schedule is a pure function of the step: it has no state that a resumed run could lose, and
its whole trace can be tested.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any, Protocol

import torch
from torch import Tensor, nn

from netdepth.errors import BadInput
from netdepth.registry import Registry

__all__ = ["OPTIMIZERS", "SCHEDULES", "Optimizer", "Schedule"]

Schedule = Callable[[int], float]
"""Step number (from 0) to the factor on the optimizer's learning rate."""


class Optimizer(Protocol):
    """Updates a flat parameter in place from its ``.grad``."""

    lr: float
    """The full learning rate, before any schedule."""
    state: dict[str, Tensor]
    """What a checkpoint saves; copying saved values into these tensors restores it."""

    def step(self, lr: float) -> None:
        """One update with learning rate ``lr``."""


OPTIMIZERS: Registry[Optimizer] = Registry("optimizer")
"""An optimizer function takes (flat parameter) and its own settings."""

SCHEDULES: Registry[Schedule] = Registry("schedule")
"""A schedule function takes (total_steps, steps_per_epoch) and its own settings."""

Lr = Annotated[float, "learning rate"]
Beta1 = Annotated[float, "decay rate of the gradient's moving average"]
Beta2 = Annotated[float, "decay rate of the squared gradient's moving average"]
Eps = Annotated[float, "added to the denominator"]


class Adam:
    """`torch.optim.Adam` or, ``decoupled``, `torch.optim.AdamW`, to the bit."""

    def __init__(
        self,
        flat: nn.Parameter,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
        decoupled: bool,
    ) -> None:
        _check(lr=lr, weight_decay=weight_decay, eps=eps)
        _check_shares(beta1=betas[0], beta2=betas[1])
        self.lr = lr
        self.state = {
            "exp_avg": torch.zeros_like(flat.data),
            "exp_avg_sq": torch.zeros_like(flat.data),
            "step": torch.zeros((), dtype=torch.float32, device=flat.device),
        }
        self._kernel: Any = torch._fused_adamw_ if decoupled else torch._fused_adam_
        self._tensors: tuple[Any, ...] = (
            [flat.data],
            [flat.grad],
            [self.state["exp_avg"]],
            [self.state["exp_avg_sq"]],
            [],
        )
        self._settings: dict[str, Any] = {
            "beta1": betas[0], "beta2": betas[1], "eps": eps, "weight_decay": weight_decay,
            "amsgrad": False, "maximize": False,
        }  # fmt: skip

    def step(self, lr: float) -> None:
        self.state["step"] += 1
        self._kernel(*self._tensors, [self.state["step"]], lr=lr, **self._settings)


class SGD:
    """`torch.optim.SGD` with momentum, to the bit."""

    def __init__(self, flat: nn.Parameter, lr: float, momentum: float, nesterov: bool, weight_decay: float) -> None:
        _check(lr=lr, weight_decay=weight_decay)
        _check_shares(momentum=momentum)
        if nesterov and momentum == 0:
            raise BadInput("optimizer.nesterov = True needs optimizer.momentum above 0")
        self.lr = lr
        self._kernel: Any = torch._fused_sgd_
        self.state = {"momentum_buffer": torch.zeros_like(flat.data)} if momentum else {}
        self._tensors: tuple[Any, ...] = ([flat.data], [flat.grad], list(self.state.values()))
        self._settings: dict[str, Any] = {
            "momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay,
            "dampening": 0.0, "maximize": False, "is_first_step": False,
        }  # fmt: skip

    def step(self, lr: float) -> None:
        self._kernel(*self._tensors, lr=lr, **self._settings)


@OPTIMIZERS.register("adam")
def adam(
    flat: nn.Parameter,
    *,
    lr: Lr = 1e-3,
    beta1: Beta1 = 0.9,
    beta2: Beta2 = 0.999,
    eps: Eps = 1e-8,
    weight_decay: Annotated[float, "L2 penalty added to the gradient"] = 0.0,
) -> Optimizer:
    """Adam (Kingma & Ba 2015)."""
    return Adam(flat, lr, (beta1, beta2), eps, weight_decay, decoupled=False)


@OPTIMIZERS.register("adamw")
def adamw(
    flat: nn.Parameter,
    *,
    lr: Lr = 1e-3,
    beta1: Beta1 = 0.9,
    beta2: Beta2 = 0.999,
    eps: Eps = 1e-8,
    weight_decay: Annotated[float, "share of lr by which the weights shrink each step"] = 1e-2,
) -> Optimizer:
    """Adam with decoupled weight decay, on all parameters (Loshchilov & Hutter 2019)."""
    return Adam(flat, lr, (beta1, beta2), eps, weight_decay, decoupled=True)


@OPTIMIZERS.register("sgd")
def sgd(
    flat: nn.Parameter,
    *,
    lr: Lr = 0.1,
    momentum: Annotated[float, "momentum, as PyTorch defines it"] = 0.9,
    nesterov: Annotated[bool, "Nesterov's variant of momentum"] = False,
    weight_decay: Annotated[float, "L2 penalty added to the gradient"] = 0.0,
) -> Optimizer:
    """Stochastic gradient descent with momentum."""
    return SGD(flat, lr, momentum, nesterov, weight_decay)


def _check(**values: float) -> None:
    for name, value in values.items():
        if value < 0:
            raise BadInput(f"optimizer.{name} = {value} is out of range; it takes 0 or more")


def _check_shares(**values: float) -> None:
    for name, value in values.items():
        if not 0 <= value < 1:
            raise BadInput(f"optimizer.{name} = {value} is out of range; it takes 0 to below 1")


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
