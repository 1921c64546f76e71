"""The trainable parameters of one network, or of several seeds of it, as one matrix.

The parameters become views into its rows and their gradients views into its gradient. An optimizer
step, a gradient norm, a clip or an all-reduce is then one operation, whatever the depth and however
many seeds. A run made alone is a stack of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from netdepth.models import Network

__all__ = ["Place", "Stack"]


@dataclass(frozen=True)
class Place:
    """Where a parameter lies in a row: columns ``start`` to ``end``; matrices transposed, as ``shape`` says."""

    start: int
    end: int
    shape: torch.Size


class Stack:
    """Networks of one architecture with their parameters in ``flat`` ``[S, P]``, a row (lane) each.

    Values, names and shapes are unchanged; ``.grad`` of every parameter, and of ``flat``, is set to
    zero and stays allocated: fill it or accumulate into it, never replace it. Matrices ``[out, in]``
    lie transposed: ``x @ W.T`` and its weight gradient are then products of arrays in their natural
    order, up to a third faster on a CPU. ``live`` are the lanes still in training, ascending.
    """

    def __init__(self, models: Sequence[Network]) -> None:
        self.models = list(models)
        self.live = list(range(len(models)))
        rows = [[p for p in model.parameters() if p.requires_grad] for model in models]
        self.flat = nn.Parameter(
            torch.stack([torch.cat([_laid_out(p.detach()).reshape(-1) for p in row]) for row in rows])
        )
        self.gradient = self.flat.grad = torch.zeros_like(self.flat.data)
        self.places: dict[str, Place] = {}
        names = [name for name, p in models[0].named_parameters() if p.requires_grad]
        start = 0
        for name, parameter in zip(names, rows[0], strict=True):
            end = start + parameter.numel()
            self.places[name] = Place(start, end, _laid_out(parameter).shape)
            start = end
        for lane, row in enumerate(rows):
            for parameter, place in zip(row, self.places.values(), strict=True):
                columns = slice(place.start, place.end)
                parameter.data = _laid_out(self.flat.data[lane, columns].view(place.shape))
                parameter.grad = _laid_out(self.gradient[lane, columns].view(place.shape))

    def __len__(self) -> int:
        return len(self.models)

    def views(self, name: str) -> tuple[Tensor, Tensor]:
        """A parameter and its gradient in all lanes, ``[S, in, out]`` or ``[S, n]``; without S in a stack of one."""
        place = self.places[name]
        lanes: slice | int = slice(None) if len(self) > 1 else 0
        both = (tensor[lanes, place.start : place.end] for tensor in (self.flat.data, self.gradient))
        value, gradient = (tensor.view(*tensor.shape[:-1], *place.shape) for tensor in both)
        return value, gradient

    def retire(self, lane: int, state: Sequence[Tensor] = ()) -> None:
        """Take a lane out of training. It stays in the stack, since the stack's size changes bits, but starts
        again from zeros (the rows of ``state`` with it), where it cannot grow to NaN or Inf."""
        self.live.remove(lane)
        for tensor in (self.flat.data, self.gradient, *state):
            tensor[lane].zero_()


def _laid_out(tensor: Tensor) -> Tensor:
    """A matrix transposed (its own inverse), anything else as it is."""
    return tensor.t() if tensor.dim() == 2 else tensor
