"""Optimizers and learning-rate schedules by name.

An optimizer works on one flat vector (see `Stack`), so an update is one fused kernel of PyTorch
however many layers there are. The kernels are called directly: `torch.optim`'s classes around
them cost a tenth of a small step in Python, and their first use imports the compiler (1.7 s).

A schedule is a pure function of the step: it has no state that a resumed run could lose, and its whole trace can be
tested. The one exception, a `WatchingSchedule`, is a pure function of the step and of the records of metrics.jsonl,
which a resumed run shows it again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from netdepth.errors import BadInput
from netdepth.registry import Registry
from netdepth.training.stack import ParameterGroup, Spans

__all__ = ["OPTIMIZERS", "SCHEDULES", "Optimizer", "PaperWarmup", "Schedule", "WatchingSchedule"]


class Optimizer(Protocol):
    """Updates a flat parameter in place from its ``.grad``."""

    lr: float
    """The full learning rate, before any schedule."""
    state: dict[str, Tensor]
    """The tensors that a checkpoint saves; copying saved values into them restores it."""

    def step(self, lr: float) -> None:
        """One update with learning rate ``lr``."""


OPTIMIZERS: Registry[Optimizer] = Registry("optimizer")
"""An optimizer function takes (flat parameter) and its own settings."""

Lr = Annotated[float, "learning rate"]
Beta1 = Annotated[float, "decay rate of the gradient's moving average"]
Beta2 = Annotated[float, "decay rate of the squared gradient's moving average"]
Eps = Annotated[float, "added to the denominator"]
DecayNorms = Annotated[bool, "whether weight decay also shrinks the scales and shifts of normalisation layers"]

Part = tuple[int, ParameterGroup, Spans, dict[str, Any]]
"""A group with its index, spans of it, and the settings with which a kernel updates them."""
Update = tuple[ParameterGroup, Sequence[Any], dict[str, Any]]
"""The same as a call: a group, the tensors of the spans, settings."""


def _groups(flat: nn.Parameter) -> Sequence[ParameterGroup]:
    """The groups of ``flat``; a plain parameter is one."""
    return getattr(flat, "groups", ()) or (ParameterGroup(((0, flat.numel()),)),)


def _divided(flat: nn.Parameter, settings: dict[str, Any], decay_norms: bool) -> list[Part]:
    """A part per group (`Flat.groups`), or two: with decay, and without it of what normalises (`Flat.norms`).

    A plain parameter has neither and is updated as a whole.
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
        _check_not_negative(lr=lr, weight_decay=weight_decay, eps=eps)
        _check_shares("optimizer", beta1=betas[0], beta2=betas[1])
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
        _check_not_negative(lr=lr, weight_decay=weight_decay)
        _check_shares("optimizer", momentum=momentum)
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


# --- schedules --------------------------------------------------------------------------------

Schedule = Callable[[int], float]
"""Step number (from 0) to the factor on the optimizer's learning rate."""


@runtime_checkable
class WatchingSchedule(Protocol):
    """A schedule that depends on how training goes. Its run is made alone: the replicas of a stack share one rate."""

    def __call__(self, step: int) -> float:
        """The factor for ``step``, after all evaluations up to it have been shown."""

    def observe(self, step: int, train_accuracy: float) -> None:
        """Note an evaluation after ``step`` steps (an `EpochRecord`'s); they come in order."""


SCHEDULES: Registry[Schedule] = Registry("schedule")
"""A schedule function takes (total_steps, steps_per_epoch) and its own settings."""


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
    return _decays(total_steps, at, gamma)


def _decays(total_steps: int, at: list[float], gamma: float) -> Schedule:
    if any(not 0 < share < 1 for share in at) or sorted(set(at)) != at:
        raise BadInput(f"schedule.at = {at} is not acceptable; it takes rising shares between 0 and 1")
    if gamma <= 0:
        raise BadInput(f"schedule.gamma = {gamma} is out of range; it takes a number above 0")
    milestones = [round(share * total_steps) for share in at]
    return lambda step: gamma ** sum(step >= milestone for milestone in milestones)


class PaperWarmup:
    """`paper_warmup`: ``start`` until an evaluation's training error was below ``error``, then ``after``."""

    def __init__(self, start: float, error: float, after: Schedule) -> None:
        self.start, self.error, self.after = start, error, after
        self.ended_at: int | None = None
        """The step of that evaluation."""

    def observe(self, step: int, train_accuracy: float) -> None:
        if self.ended_at is None and 1 - train_accuracy < self.error:  # NaN is not
            self.ended_at = step

    def __call__(self, step: int) -> float:
        if self.ended_at is None or step < self.ended_at:
            return min(self.start, self.after(step))
        return self.after(step)


@SCHEDULES.register("paper-warmup")
def paper_warmup(
    total_steps: int,
    steps_per_epoch: int,
    *,
    start: Annotated[float, "factor while warming up: 0.01 of a rate of 0.1"] = 0.1,
    error: Annotated[float, "training error (a fraction) below which the full rate begins"] = 0.8,
    at: Annotated[list[float], "shares of the budget after which the rate is multiplied by gamma"] = [0.5, 0.75],  # noqa: B006
    gamma: Annotated[float, "factor at each milestone"] = 0.1,
) -> Schedule:
    """`step` after a low rate that lasts until the network has begun to learn (He et al. 2016, §4.2: ResNet-110).

    The paper: "we use 0.01 to warm up the training until the training error is below 80% (about 400 iterations),
    and then go back to 0.1 and continue training". Looked at are the evaluations, so train.eval_every is how
    exactly the end is found; their training error is that of the period's batches, as the weights moved. The
    decays come where they would without a warm-up, and while it lasts the rate is the lower of the two.
    """
    if not 0 < start <= 1:
        raise BadInput(f"schedule.start = {start} is out of range; it takes a number above 0, up to 1")
    if not 0 < error <= 1:
        raise BadInput(f"schedule.error = {error} is out of range; it takes a fraction above 0, up to 1")
    return PaperWarmup(start, error, _decays(total_steps, at, gamma))


@SCHEDULES.register("cosine")
def cosine(
    total_steps: int,
    steps_per_epoch: int,
    *,
    warmup: Annotated[float, "share of the budget in which the rate rises linearly from 0"] = 0.0,
    floor: Annotated[float, "factor reached at the end"] = 0.0,
) -> Schedule:
    """Half a cosine from the full rate to the floor (Loshchilov & Hutter 2017), after an optional warm-up."""
    _check_shares("schedule", warmup=warmup, floor=floor)
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
    _check_shares("schedule", rise=rise, start=start, end=end)
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


def _check_not_negative(**values: float) -> None:
    for name, value in values.items():
        if value < 0:
            raise BadInput(f"optimizer.{name} = {value} is out of range; it takes 0 or more")


def _check_shares(kind: str, **values: float) -> None:
    for name, value in values.items():
        if not 0 <= value < 1:
            raise BadInput(f"{kind}.{name} = {value} is out of range; it takes 0 to below 1")
