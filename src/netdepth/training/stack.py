"""The trainable parameters of one network, or of several seeds of it, as one vector.

The parameters become views into it and their gradients views into its gradient. An optimizer step, a gradient norm, a
clip or an all-reduce is then one operation for any depth and any number of seeds. A single run is a stack of one.
`FineTuning` says which part of the vector is trained at which rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor, nn

from netdepth.config import Duration, StartFrom
from netdepth.errors import BadInput
from netdepth.models import Network

__all__ = ["FineTuning", "FlatParameter", "Gradients", "ParameterGroup", "Spans", "Stack"]

SAFE_CHANNELS = 16
"""With fewer channels, less than a vector, into a 1x1 convolution with a stride oneDNN writes past the end of its
memory where images lie channels-last (uxlfoundation/oneDNN issue 6035): wrong gradients, or a crash."""

NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)

Gradients = Callable[..., tuple[Tensor, Tensor]]
"""(inputs uint8 ``[S·B, C, H, W]``, labels ``[S·B]``, replica after replica) to (losses ``[S]``, numbers right
``[S]``); a function that distils is also given the images' indices ``[B]``."""

Spans = tuple[tuple[int, int], ...]
"""Stretches ``(start, end)`` of a vector, ascending, neighbours joined."""


@dataclass
class ParameterGroup:
    """Parameters with a learning rate of their own: ``factor`` times the run's. While ``frozen`` nothing about them
    moves: neither weights (decay included) nor the optimizer's state."""

    spans: Spans
    factor: float = 1.0
    frozen: bool = False


class FlatParameter(nn.Parameter):
    """The vector of a `Stack`; ``norms`` are the spans in it that are scales and shifts of normalisation layers.
    ``groups`` divide it into parts with different rates; without any, the whole vector is one group. ``named`` are the
    parameters themselves, in their order, where it holds one replica."""

    norms: Spans = ()
    groups: tuple[ParameterGroup, ...] = ()
    replicas: int = 1
    named: Mapping[str, nn.Parameter] = MappingProxyType({})


@dataclass(frozen=True)
class _Range:
    """The place of a parameter in a replica's row, from ``start`` to ``end``; ``shape`` is its shape there."""

    start: int
    end: int
    shape: torch.Size


class Stack:
    """Networks of one architecture, the replicas, with their parameters in ``flat`` ``[S·P]``.

    Parameters follow each other, and for each parameter its S replicas are side by side: a batched product writes the
    weight gradients of all replicas directly to their places. Values, names and shapes are unchanged. ``.grad`` of
    every parameter, and of ``flat``, is set to zero and stays allocated: fill it or add to it, never replace it.
    Matrices ``[out, in]`` lie transposed: ``x @ W.T`` and its weight gradient are then products of arrays in their
    natural order, up to a third faster on a CPU. ``live`` are the indices of the replicas still in training, ascending.

    With ``channels_last``, in networks that allow it, convolution weights ``[out, in, h, w]`` lie as
    ``[out, h, w, in]`` and `images` makes batches lie so too. From there on every activation and every gradient does,
    and no step reorders any of them. ``bf16`` says that training multiplies in bfloat16; the parameters are float32
    all the same.
    """

    def __init__(self, models: Sequence[Network], *, channels_last: bool = False, bf16: bool = False) -> None:
        self.models = list(models)
        self.bf16 = bf16
        self.tuning: FineTuning | None = None
        """Frozen stages and their rates; None if the whole network is trained alike."""
        self.live = list(range(len(models)))
        self.convolutional = any(p.dim() == 4 for p in models[0].parameters())
        self.channels_last = channels_last and self.convolutional and models[0].channels_last and not _unsafe(models[0])
        rows = [[p for p in model.parameters() if p.requires_grad] for model in models]
        self.ranges: dict[str, _Range] = {}
        names = [name for name, p in models[0].named_parameters() if p.requires_grad]
        start = 0
        for name, parameter in zip(names, rows[0], strict=True):
            end = start + parameter.numel()
            self.ranges[name] = _Range(start, end, self._laid_out(parameter).shape)
            start = end
        side_by_side = [self._laid_out(p.detach()).reshape(-1) for same in zip(*rows, strict=True) for p in same]
        self.flat = FlatParameter(torch.cat(side_by_side))
        inside = {name for name, module in models[0].named_modules() if isinstance(module, NORMS)}
        self.flat.norms = self.spans(lambda name: name.rpartition(".")[0] in inside)
        self.flat.replicas = len(models)
        self.flat.named = dict(zip(names, rows[0], strict=True)) if len(models) == 1 else {}
        self.gradient = self.flat.grad = torch.zeros_like(self.flat.data)
        for index, row in enumerate(rows):
            for parameter, place in zip(row, self.ranges.values(), strict=True):
                parameter.data = self._as_named(self._rows(self.flat.data, place)[index].view(place.shape))
                parameter.grad = self._as_named(self._rows(self.gradient, place)[index].view(place.shape))

    def __len__(self) -> int:
        return len(self.models)

    def train(self, step: int) -> None:
        """Switch to training mode, with the stages frozen that are frozen after ``step`` steps."""
        for model in self.models:
            model.train()
        if self.tuning is not None:
            self.tuning.at(step)

    def images(self, pixels: Tensor) -> Tensor:
        """uint8 ``[B, C, H, W]`` in the memory layout of the networks: converted here once, as bytes."""
        return pixels.contiguous(memory_format=torch.channels_last) if self.channels_last else pixels

    def views(self, name: str) -> tuple[Tensor, Tensor]:
        """A parameter and its gradient in all replicas, ``[S, in, out]`` or ``[S, n]``; without S in a stack of one."""
        place = self.ranges[name]
        leading = (len(self),) if len(self) > 1 else ()
        value, gradient = (self._rows(t, place).view(*leading, *place.shape) for t in (self.flat.data, self.gradient))
        return value, gradient

    def blocks(self, tensor: Tensor) -> list[Tensor]:
        """A tensor laid out like ``flat`` as views ``[S, n]`` with a row per replica; one view in a stack of one."""
        if len(self) == 1:
            return [tensor.view(1, -1)]
        return [self._rows(tensor, place) for place in self.ranges.values()]

    def finite(self) -> list[bool]:
        """Whether the weights of each replica are all finite."""
        sums = torch.stack([block.sum(dim=1) for block in self.blocks(self.flat.data)]).sum(dim=0)
        if math.isfinite(sums.sum()):  # a tenth of what asking every weight takes
            return [True] * len(self)
        return torch.stack([block.isfinite().all(dim=1) for block in self.blocks(self.flat.data)]).all(dim=0).tolist()

    def row(self, tensor: Tensor, index: int) -> Tensor:
        """One replica's part ``[P]`` of a tensor laid out like ``flat``: a copy, in the order of the parameters."""
        return torch.cat([block[index] for block in self.blocks(tensor)])

    def put_row(self, tensor: Tensor, index: int, row: Tensor) -> None:
        """Write a ``row`` that `row` returned back to its replica."""
        blocks = self.blocks(tensor)
        for block, values in zip(blocks, torch.split(row, [block.shape[1] for block in blocks]), strict=True):
            block[index].copy_(values)

    def retire(self, index: int, state: Sequence[Tensor] = ()) -> None:
        """Take a replica out of training. It stays in the stack, since the stack's size changes bits, but starts
        again from zeros (its part of ``state`` with it), where it cannot grow to NaN or Inf."""
        self.live.remove(index)
        for tensor in (self.flat.data, self.gradient, *state):
            for block in self.blocks(tensor):
                block[index].zero_()

    def spans(self, wanted: Callable[[str], bool]) -> Spans:
        """The spans of the parameters whose names are ``wanted``."""
        spans: list[tuple[int, int]] = []
        for name, place in self.ranges.items():
            if wanted(name):
                start, end = len(self) * place.start, len(self) * place.end
                if spans and spans[-1][1] == start:
                    start = spans.pop()[0]
                spans.append((start, end))
        return tuple(spans)

    def _rows(self, tensor: Tensor, place: _Range) -> Tensor:
        return tensor[len(self) * place.start : len(self) * place.end].view(len(self), -1)

    def _laid_out(self, tensor: Tensor) -> Tensor:
        """A parameter as a view in its memory order in ``flat``."""
        if tensor.dim() == 2:
            return tensor.t()
        return tensor.permute(0, 2, 3, 1) if tensor.dim() == 4 and self.channels_last else tensor

    def _as_named(self, tensor: Tensor) -> Tensor:
        """The inverse of `_laid_out`."""
        if tensor.dim() == 2:
            return tensor.t()
        return tensor.permute(0, 3, 1, 2) if tensor.dim() == 4 and self.channels_last else tensor


def _unsafe(model: nn.Module) -> bool:
    """Whether ``model`` has a convolution with a stride and fewer channels than `SAFE_CHANNELS`."""
    return any(
        isinstance(module, nn.Conv2d)
        and module.kernel_size == (1, 1)
        and module.stride != (1, 1)
        and module.in_channels < SAFE_CHANNELS
        for module in model.modules()
    )


class FineTuning:
    """Which stages of a stack of one are trained after how many steps: a function of the step and nothing else.

    A frozen stage is as its parent run left it: its parameters receive no gradient and no update, and its modules stay
    in eval mode, so that the running statistics of batch norm do not move either. It changes at evaluations only.
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
        self.groups: list[tuple[float, ParameterGroup]] = []
        for (factor, thaw), together in alike.items():
            spans = stack.spans(lambda name, together=together: self.model.stage_of(name) in together)  # type: ignore[misc]
            self.groups += [(thaw, ParameterGroup(spans, factor))] if spans else []
        stack.flat.groups = tuple(group for _, group in self.groups)

    def at(self, step: int) -> None:
        """Freeze and thaw stages and groups for ``step``; the network is in training mode."""
        frozen = {stage for stage, thaw in self.thaws.items() if step < thaw}
        for thaw, group in self.groups:
            group.frozen = step < thaw
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(self.model.stage_of(name) not in frozen)
        for name, module in self.model.named_modules():
            if self.model.stage_of(name) in frozen:
                module.eval()
