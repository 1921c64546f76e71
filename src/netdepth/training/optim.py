"""Optimizers and learning-rate schedules by name.

An optimizer works on one flat vector (see `Stack`), so an update is one fused kernel of PyTorch
however many layers there are. The kernels are called directly: `torch.optim`'s classes around
them cost a tenth of a small step in Python, and their first use imports the compiler (1.7 s). Users register such
classes all the same (`netdepth.training.torch_optim`).

A schedule is a pure function of the step: it has no state that a resumed run could lose, and its whole trace can be
tested. The one exception, a `WatchingSchedule`, is a pure function of the step and of the records of metrics.jsonl,
which a resumed run shows it again.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from netdepth.config import Component, Duration
from netdepth.errors import BadInput
from netdepth.registry import Registry, required
from netdepth.training.stack import ParameterGroup, Spans
from netdepth.training.torch_optim import TorchOptimizer, adapted, trial_parameter

__all__ = [
    "OPTIMIZERS", "SCHEDULES", "Optimizer", "PaperWarmup", "Schedule", "WatchingSchedule", "descend", "elementwise",
]  # fmt: skip


class Optimizer(Protocol):
    """Updates a flat parameter in place from its ``.grad``."""

    lr: float
    """The full learning rate, before any schedule."""
    state: dict[str, Tensor]
    """The tensors that a checkpoint saves; copying saved values into them restores it."""

    def step(self, lr: float) -> None:
        """One update with learning rate ``lr``."""


OPTIMIZERS: Registry[Optimizer] = Registry("optimizer", adapted)
"""An optimizer function takes (flat parameter) and its own settings. Also taken: a class of `torch.optim`'s kind, and a
function of ``params``, the list of parameters, that returns one such optimizer or several."""


def elementwise(component: Component) -> bool:
    """Whether an optimizer moves each weight by that weight's gradients alone, so that seeds can lie in one vector.

    Ours do. One of a user's own is tried: two halves of a vector moved together and apart.
    """
    if OPTIMIZERS.entry(component.name).source is None:
        return True
    if isinstance(OPTIMIZERS.build(component, trial_parameter()), TorchOptimizer):
        return False

    def moved(start: Tensor) -> Tensor:
        flat = nn.Parameter(start.clone())
        flat.grad = torch.zeros_like(start)
        optimizer = OPTIMIZERS.build(component, flat)
        descend(flat, optimizer, optimizer.lr, 3)
        return flat.detach()

    whole = torch.linspace(-1.0, 2.0, 16)
    return torch.equal(moved(whole), torch.cat([moved(half) for half in whole.view(2, 8)]))


def descend(flat: nn.Parameter, optimizer: Optimizer, lr: float, steps: int) -> None:
    """Try ``optimizer``: ``steps`` updates of ``flat`` by the gradient of |x|^2 / 2."""
    assert flat.grad is not None
    for _ in range(steps):
        flat.grad.copy_(flat.detach())
        optimizer.step(lr)


Lr = Annotated[float, "learning rate"]
Beta1 = Annotated[float, "decay rate of the gradient's moving average"]
Beta2 = Annotated[float, "decay rate of the squared gradient's moving average"]
Eps = Annotated[float, "added to the denominator"]
DecayNorms = Annotated[bool, "whether weight decay also shrinks the scales and shifts of normalisation layers"]


class FusedOptimizer:
    """`torch.optim.Adam`, AdamW or SGD to the bit: their fused kernel, called once per group of the flat parameter.

    ``kernel`` updates tensors in place from their gradients and ``moments``, whose values are the ``state``. With
    ``counts`` it also takes the number of updates. A parameter group (`FlatParameter.groups`) is called as two where
    the scales and shifts of normalisation layers (`FlatParameter.norms`) do not decay; a plain parameter is one group.
    """

    def __init__(
        self,
        flat: nn.Parameter,
        lr: float,
        kernel: Callable[..., None],
        moments: Sequence[str],
        settings: Mapping[str, float],
        *,
        counts: bool = False,
        decay_norms: bool = True,
    ) -> None:
        _check_not_negative(lr=lr, weight_decay=settings["weight_decay"])
        self.lr, self._kernel = lr, kernel
        self.state = {name: torch.zeros_like(flat.data) for name in moments}
        groups: Sequence[ParameterGroup] = getattr(flat, "groups", ()) or (ParameterGroup(((0, flat.numel()),)),)
        self._counts: list[tuple[ParameterGroup, Tensor]] = []
        if counts:  # per group: one that is thawed later begins then, as torch's own would
            shape = (len(groups),) if len(groups) > 1 else ()
            self.state["step"] = torch.zeros(shape, dtype=torch.float32, device=flat.device)
            self._counts = list(zip(groups, self.state["step"].view(-1).unbind(), strict=True))
        norms: Spans = () if decay_norms or not settings["weight_decay"] else getattr(flat, "norms", ())
        assert flat.grad is not None
        vectors = (flat.data, flat.grad, *(self.state[name] for name in moments))
        self._updates: list[tuple[ParameterGroup, Sequence[Any], Mapping[str, float]]] = []
        for index, group in enumerate(groups):
            for inside, chosen in ((False, settings), (True, {**settings, "weight_decay": 0.0})):
                spans = [span for whole in group.spans for span in _cut(whole, norms, inside=inside)]
                if spans:
                    tensors: list[Any] = [[vector[start:end] for start, end in spans] for vector in vectors]
                    if counts:
                        tensors += [[], [self._counts[index][1]] * len(spans)]  # the empty list is for amsgrad
                    elif not moments:
                        tensors.append([])  # SGD without momentum
                    self._updates.append((group, tensors, chosen))

    def step(self, lr: float) -> None:
        for group, count in self._counts:
            if not group.frozen:
                count.add_(1)
        for group, tensors, settings in self._updates:
            if not group.frozen:
                self._kernel(*tensors, lr=lr * group.factor, **settings)


def _cut(whole: tuple[int, int], norms: Spans, *, inside: bool) -> Iterator[tuple[int, int]]:
    """The parts of ``whole`` that lie in ``norms``, or those between them."""
    start, end = whole
    edges = [start, *(min(max(edge, start), end) for span in norms for edge in span), end]
    pairs = zip(edges[1::2], edges[2::2], strict=False) if inside else zip(edges[::2], edges[1::2], strict=True)
    return ((low, high) for low, high in pairs if low < high)


def _adam(
    flat: nn.Parameter,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    kernel: Callable[..., None],
    decay_norms: bool = True,
) -> FusedOptimizer:
    _check_not_negative(eps=eps)
    _check_shares("optimizer", beta1=betas[0], beta2=betas[1])
    settings = {
        "beta1": betas[0], "beta2": betas[1], "eps": eps, "weight_decay": weight_decay,
        "amsgrad": False, "maximize": False,
    }  # fmt: skip
    moments = ("exp_avg", "exp_avg_sq")
    return FusedOptimizer(flat, lr, kernel, moments, settings, counts=True, decay_norms=decay_norms)


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
    return _adam(flat, lr, (beta1, beta2), eps, weight_decay, torch._fused_adam_)


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
    return _adam(flat, lr, (beta1, beta2), eps, weight_decay, torch._fused_adamw_, decay_norms)


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
    _check_shares("optimizer", momentum=momentum)
    if nesterov and momentum == 0:
        raise BadInput("optimizer.nesterov = True needs optimizer.momentum above 0")
    settings = {
        "momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay,
        "dampening": 0.0, "maximize": False, "is_first_step": False,
    }  # fmt: skip
    moments = ("momentum_buffer",) if momentum else ()
    return FusedOptimizer(flat, lr, torch._fused_sgd_, moments, settings, decay_norms=decay_norms)


# --- schedules --------------------------------------------------------------------------------

Schedule = Callable[[int], float]
"""Step number (from 0) to the factor on the optimizer's learning rate."""


@runtime_checkable
class WatchingSchedule(Protocol):
    """A schedule that depends on how training goes. Its run is made alone: the replicas of a stack share one rate."""

    def __call__(self, step: int) -> float:
        """The factor for ``step``, after all evaluations up to it have been shown."""

    def observe(self, step: int, train_accuracy: float | None) -> None:
        """Note an evaluation after ``step`` steps (of a `MetricsRecord`); they come in order."""


LENGTHS = ("total_steps", "steps_per_epoch")


def _of_a_step(function: Callable[..., Any]) -> Callable[..., Any]:
    """A user's function of ``step`` as a schedule function; it may ask for the `LENGTHS` by their names."""
    context = required(function)
    if not context or context[0] in LENGTHS:
        return function
    if unknown := [name for name in context[1:] if name not in LENGTHS]:
        raise BadInput(
            f"schedule {function.__name__} asks for {', '.join(unknown)}; it is given {context[0]}, the number of the "
            f"step, and {' and '.join(LENGTHS)} if it names them; its settings need defaults"
        )

    def component(total_steps: int, steps_per_epoch: int, **settings: Any) -> Schedule:
        given = {"total_steps": total_steps, "steps_per_epoch": steps_per_epoch}
        settings |= {name: given[name] for name in context[1:]}
        return lambda step: float(function(step, **settings))

    return functools.update_wrapper(component, function)


SCHEDULES: Registry[Schedule] = Registry("schedule", _of_a_step)
"""A schedule function takes (total_steps, steps_per_epoch) and its own settings. Also taken: a function of a step."""


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


Milestones = Annotated[list[str], "after so much training the rate is multiplied by gamma: epochs, as 30ep, or steps"]


@SCHEDULES.register("multi-step")
def multi_step(
    total_steps: int,
    steps_per_epoch: int,
    *,
    at: Milestones = ["30ep", "60ep"],  # noqa: B006
    gamma: Annotated[float, "factor at each milestone"] = 0.1,
) -> Schedule:
    """`step` by count: whatever the budget is, so that a finished run can be trained on with a larger one."""
    milestones = [Duration.parse(text, "schedule.at").steps(steps_per_epoch) for text in at]
    if sorted(set(milestones)) != milestones:
        raise BadInput(f"schedule.at = {at} is not acceptable; it takes rising lengths of training, as 30ep, 60ep")
    return _decays_at(milestones, gamma)


def _decays(total_steps: int, at: list[float], gamma: float) -> Schedule:
    if any(not 0 < share < 1 for share in at) or sorted(set(at)) != at:
        raise BadInput(f"schedule.at = {at} is not acceptable; it takes rising shares between 0 and 1")
    return _decays_at([round(share * total_steps) for share in at], gamma)


def _decays_at(milestones: list[int], gamma: float) -> Schedule:
    if gamma <= 0:
        raise BadInput(f"schedule.gamma = {gamma} is out of range; it takes a number above 0")
    return lambda step: gamma ** sum(step >= milestone for milestone in milestones)


class PaperWarmup:
    """`paper_warmup`: ``start`` until an evaluation's training error was below ``error``, then ``after``."""

    def __init__(self, start: float, error: float, after: Schedule) -> None:
        self.start, self.error, self.after = start, error, after
        self.ended_at: int | None = None
        """The step of that evaluation."""

    def observe(self, step: int, train_accuracy: float | None) -> None:
        if self.ended_at is None and train_accuracy is not None and 1 - train_accuracy < self.error:  # NaN is not
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
