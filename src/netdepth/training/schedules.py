"""Learning-rate schedules by name.

A schedule is a pure function of the step: it has no state that a resumed run could lose, and
its whole trace can be tested. The one exception, a `WatchingSchedule`, is a pure function of the step and
of the records of metrics.jsonl, which a resumed run shows it again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Protocol, runtime_checkable

from netdepth.errors import BadInput
from netdepth.registry import Registry

__all__ = ["SCHEDULES", "PaperWarmup", "Schedule", "WatchingSchedule"]

Schedule = Callable[[int], float]
"""Step number (from 0) to the factor on the optimizer's learning rate."""


@runtime_checkable
class WatchingSchedule(Protocol):
    """A schedule that depends on how training goes. Its run is made alone: the lanes of a stack share one rate."""

    def __call__(self, step: int) -> float:
        """The factor for ``step``, after all evaluations up to it have been shown."""

    def observe(self, step: int, train_accuracy: float) -> None:
        """Take note of an evaluation after ``step`` steps (an `EpochRecord`'s), in their order."""


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
    _positive("gamma", gamma)
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
