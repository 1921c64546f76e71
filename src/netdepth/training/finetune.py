"""Training part of a network that starts from another: frozen stages, gradual thawing, rates per stage."""

from __future__ import annotations

import math

from torch import nn

from netdepth.config import Duration, StartFrom
from netdepth.errors import BadInput
from netdepth.training.stack import Group, Stack

__all__ = ["FineTuning"]


class FineTuning:
    """Which stages of a stack of one are trained after how many steps: a function of the step and nothing else.

    A frozen stage is as its source left it: its parameters receive no gradient and no update, and its modules stay in
    eval mode, so that the running statistics of batch norm do not move either. It changes at evaluations only.
    """

    def __init__(self, stack: Stack, start: StartFrom, per_epoch: int, eval_every: str) -> None:
        (self.model,) = stack.models
        stages = list(self.model.stage_paths())
        thawing = [stage for stage in reversed(stages) if stage in start.freeze]
        self.thaws: dict[str, float] = dict.fromkeys(thawing, math.inf)
        """The step from which each frozen stage is trained, the last stage first."""
        if start.unfreeze_every is not None:
            length = Duration.parse(start.unfreeze_every).steps(per_epoch)
            if length % Duration.parse(eval_every).steps(per_epoch):
                raise BadInput(
                    f"start_from.unfreeze_every = {start.unfreeze_every!r} is no multiple of train.eval_every = "
                    f"{eval_every!r}; stages thaw at evaluations"
                )
            self.thaws = {stage: length * (i + 1) for i, stage in enumerate(thawing)}
        alike: dict[tuple[float, float], list[str]] = {}
        for stage in stages:
            alike.setdefault((start.lr_scale.get(stage, 1.0), self.thaws.get(stage, 0)), []).append(stage)
        self.groups: list[tuple[float, Group]] = []
        for (factor, thaw), members in alike.items():
            spans = stack.spans(lambda name, members=members: self.model.stage_of(name) in members)  # type: ignore[misc]
            self.groups += [(thaw, Group(spans, factor))] if spans else []
        stack.flat.groups = tuple(group for _, group in self.groups)

    def at(self, step: int) -> None:
        """Bring the network, which is in training mode, and the groups to where they are after ``step`` steps."""
        frozen = {stage for stage, thaw in self.thaws.items() if step < thaw}
        for thaw, group in self.groups:
            group.frozen = step < thaw
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(self.model.stage_of(name) not in frozen)
        for name, module in self.model.named_modules():
            if isinstance(module, nn.Module) and self.model.stage_of(name) in frozen:
                module.eval()
