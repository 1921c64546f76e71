"""Optimizers by name; the schedules of their rate stand in `schedules`.

An optimizer works on one flat vector (see `flat`), so an update is one fused kernel of PyTorch
however many layers there are. The kernels are called directly: `torch.optim`'s classes around
them cost a tenth of a small step in Python, and their first use imports the compiler (1.7 s).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Protocol

import torch
from torch import Tensor, nn

from netdepth.errors import BadInput
from netdepth.registry import Registry
from netdepth.training.schedules import SCHEDULES, Schedule, WatchingSchedule
from netdepth.training.stack import Group, Spans

__all__ = ["OPTIMIZERS", "SCHEDULES", "Optimizer", "Schedule", "WatchingSchedule"]


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

Lr = Annotated[float, "learning rate"]
Beta1 = Annotated[float, "decay rate of the gradient's moving average"]
Beta2 = Annotated[float, "decay rate of the squared gradient's moving average"]
Eps = Annotated[float, "added to the denominator"]
DecayNorms = Annotated[bool, "whether weight decay also shrinks the scales and shifts of normalisation layers"]

Part = tuple[int, Group, Spans, dict[str, Any]]
"""A group with its index, spans of it, and the settings with which a kernel updates them."""
Update = tuple[Group, Sequence[Any], dict[str, Any]]
"""The same as a call: a group, the tensors of the spans, settings."""


def _groups(flat: nn.Parameter) -> Sequence[Group]:
    """The groups of ``flat``; a plain parameter is one."""
    return getattr(flat, "groups", ()) or (Group(((0, flat.numel()),)),)


def _divided(flat: nn.Parameter, settings: dict[str, Any], decay_norms: bool) -> list[Part]:
    """A part per group (`Flat.groups`), or two: with decay, and without it of what normalises (`Flat.norms`).

    A plain parameter says nothing of either and is updated as a whole.
    """
    norms: Spans = getattr(flat, "norms", ())
    if decay_norms or not settings["weight_decay"]:
        norms = ()
    undecayed = {**settings, "weight_decay": 0.0}
    parts: list[Part] = []
    for index, group in enumerate(_groups(flat)):
        inside = tuple(span for whole in group.spans for span in _cut(whole, norms, inside=True))
        others = tuple(span for whole in group.spans for span in _cut(whole, norms, inside=False))
        parts += [(index, group, others, settings)] if others else []
        parts += [(index, group, inside, undecayed)] if inside else []
    return parts


def _cut(whole: tuple[int, int], norms: Spans, *, inside: bool) -> Iterator[tuple[int, int]]:
    """The parts of ``whole`` that lie in ``norms``, or those between them."""
    start, end = whole
    edges = [start, *(min(max(edge, start), end) for span in norms for edge in span), end]
    pairs = zip(edges[1::2], edges[2::2], strict=False) if inside else zip(edges[::2], edges[1::2], strict=True)
    return ((low, high) for low, high in pairs if low < high)


def _spans(tensor: Tensor, spans: Spans) -> list[Tensor]:
    """Views of ``tensor``; itself where the span is the whole."""
    return [tensor if end - start == tensor.numel() else tensor[start:end] for start, end in spans]


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
        decay_norms: bool = True,
    ) -> None:
        _check(lr=lr, weight_decay=weight_decay, eps=eps)
        _check_shares(beta1=betas[0], beta2=betas[1])
        self.lr = lr
        self._groups = _groups(flat)
        # How often each group was updated: one that is thawed later begins then, as torch's own would.
        counts = (len(self._groups),) if len(self._groups) > 1 else ()
        self.state = {
            "exp_avg": torch.zeros_like(flat.data),
            "exp_avg_sq": torch.zeros_like(flat.data),
            "step": torch.zeros(counts, dtype=torch.float32, device=flat.device),
        }
        self._kernel: Any = torch._fused_adamw_ if decoupled else torch._fused_adam_
        whole: dict[str, Any] = {
            "beta1": betas[0], "beta2": betas[1], "eps": eps, "weight_decay": weight_decay,
            "amsgrad": False, "maximize": False,
        }  # fmt: skip
        assert flat.grad is not None
        vectors = (flat.data, flat.grad, self.state["exp_avg"], self.state["exp_avg_sq"])
        self._steps = self.state["step"].view(-1).unbind()
        self._updates: list[Update] = []
        for index, group, spans, settings in _divided(flat, whole, decay_norms):
            steps = [self._steps[index]] * len(spans)
            self._updates.append((group, (*(_spans(vector, spans) for vector in vectors), [], steps), settings))

    def step(self, lr: float) -> None:
        for group, steps in zip(self._groups, self._steps, strict=True):
            if not group.frozen:
                steps.add_(1)
        for group, tensors, settings in self._updates:
            if not group.frozen:
                self._kernel(*tensors, lr=lr * group.factor, **settings)


class SGD:
    """`torch.optim.SGD` with momentum, to the bit."""

    def __init__(
        self,
        flat: nn.Parameter,
        lr: float,
        momentum: float,
        nesterov: bool,
        weight_decay: float,
        decay_norms: bool = True,
    ) -> None:
        _check(lr=lr, weight_decay=weight_decay)
        _check_shares(momentum=momentum)
        if nesterov and momentum == 0:
            raise BadInput("optimizer.nesterov = True needs optimizer.momentum above 0")
        self.lr = lr
        self._kernel: Any = torch._fused_sgd_
        self.state = {"momentum_buffer": torch.zeros_like(flat.data)} if momentum else {}
        whole: dict[str, Any] = {
            "momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay,
            "dampening": 0.0, "maximize": False, "is_first_step": False,
        }  # fmt: skip
        assert flat.grad is not None
        self._updates: list[Update] = []
        for _, group, spans, settings in _divided(flat, whole, decay_norms):
            buffers = [view for buffer in self.state.values() for view in _spans(buffer, spans)]
            self._updates.append((group, (_spans(flat.data, spans), _spans(flat.grad, spans), buffers), settings))

    def step(self, lr: float) -> None:
        for group, tensors, settings in self._updates:
            if not group.frozen:
                self._kernel(*tensors, lr=lr * group.factor, **settings)


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


@OPTIMIZERS.register("adamw", added=("decay_norms",))
def adamw(
    flat: nn.Parameter,
    *,
    lr: Lr = 1e-3,
    beta1: Beta1 = 0.9,
    beta2: Beta2 = 0.999,
    eps: Eps = 1e-8,
    weight_decay: Annotated[float, "share of lr by which the weights shrink each step"] = 1e-2,
    decay_norms: DecayNorms = True,
) -> Optimizer:
    """Adam with decoupled weight decay, on all parameters or all but the norms' (Loshchilov & Hutter 2019)."""
    return Adam(flat, lr, (beta1, beta2), eps, weight_decay, decoupled=True, decay_norms=decay_norms)


@OPTIMIZERS.register("sgd", added=("decay_norms",))
def sgd(
    flat: nn.Parameter,
    *,
    lr: Lr = 0.1,
    momentum: Annotated[float, "momentum, as PyTorch defines it"] = 0.9,
    nesterov: Annotated[bool, "Nesterov's variant of momentum"] = False,
    weight_decay: Annotated[float, "L2 penalty added to the gradient"] = 0.0,
    decay_norms: DecayNorms = True,
) -> Optimizer:
    """Stochastic gradient descent with momentum. He et al. 2016 decay everything, the norms' scales and shifts too."""
    return SGD(flat, lr, momentum, nesterov, weight_decay, decay_norms)


def _check(**values: float) -> None:
    for name, value in values.items():
        if value < 0:
            raise BadInput(f"optimizer.{name} = {value} is out of range; it takes 0 or more")


def _check_shares(**values: float) -> None:
    for name, value in values.items():
        if not 0 <= value < 1:
            raise BadInput(f"optimizer.{name} = {value} is out of range; it takes 0 to below 1")
