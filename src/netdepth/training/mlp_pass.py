"""The forward pass of ReLU MLPs written out over the lanes of a stack: for training, and for looking at many at once.

With h_0 the normalised input and a_i = max(h_(i-1) W_i + b_i, 0), a plain layer passes on h_i = a_i;
a residual block of k layers passes on h_in + s a_k. The last layer's output are the logits.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from netdepth.models import Network
from netdepth.models.mlp import MLP
from netdepth.training.stack import Stack

__all__ = ["MLPPass", "Workspace", "written_out"]


def written_out(model: Network) -> bool:
    """Whether `MLPPass` computes this model in eval mode: a ReLU MLP without norm or learned scales."""
    return (
        type(model) is MLP
        and isinstance(model.activation, nn.ReLU)
        and model.norm == "none"
        and not model.pre_activation
        and (model.shortcut == "none" or model.branch_scale in ("1", "blocks^-1/2"))
        and all(p.requires_grad for p in model.parameters())
    )


class MLPPass:
    """The MLPs in ``lanes`` of a stack (all of them: views, so that training moves them; some: copies).

    Weights are ``[S, in, out]``, biases ``[S, 1, out]``; without S in a stack of one. What one lane of
    several computes depends on no other, nor on how many are looked at.
    """

    def __init__(self, stack: Stack, lanes: Sequence[int] | None = None) -> None:
        model = stack.models[0]
        assert isinstance(model, MLP)
        self.model = model
        self.alone = len(stack) == 1
        self.lanes = len(stack) if lanes is None else len(lanes)
        self.names = [*(f"hidden.{i}" for i in range(len(model.hidden))), "head"]
        chosen = slice(None) if lanes is None or self.alone else list(lanes)
        self.weights = [stack.views(f"{name}.weight")[0][chosen] for name in self.names]
        biases = [stack.views(f"{name}.bias")[0][chosen] for name in self.names]
        self.biases = biases if self.alone else [bias.unsqueeze(1) for bias in biases]
        self.last = len(self.names) - 1
        self.scale = model.branch_factor
        residual, k = model.shortcut == "identity", model.block_layers
        inside = [residual and 0 < i < self.last for i in range(self.last + 1)]
        self.opens = [inside[i] and (i - 1) % k == 0 for i in range(self.last + 1)]
        """Whether layer i is the first of a block."""
        self.closes = [inside[i] and i % k == 0 for i in range(self.last + 1)]
        """Whether layer i is the last of a block."""

    def forward(self, space: Workspace) -> Tensor:
        """Logits ``[S, B, classes]`` of ``space.x``; what each layer computes is left in ``space``."""
        h = block = space.x
        for i, z in enumerate(space.outputs):
            if self.opens[i]:
                block = h
            if self.alone:
                torch.addmm(self.biases[i], h, self.weights[i], out=z)
            else:  # baddbmm would fill z with the biases first, and read it again
                torch.bmm(h, self.weights[i], out=z).add_(self.biases[i])
            h = z.relu_() if i < self.last else z
            if self.closes[i]:
                h = torch.add(block, z, alpha=self.scale, out=space.passed[i])
        return h


class Workspace:
    """The arrays of one pass at one batch size, ``[S, B, width]`` (``[B, width]`` in a stack of one).

    ``images`` take the pixels: each lane its own batch, or one for all (``shared``). With ``keep``
    every layer has arrays of its own, as a backward pass needs; else few are used in turn and stay
    in the cache.
    """

    def __init__(self, net: MLPPass, batch: int, *, keep: bool, shared: bool = False) -> None:
        model = net.model
        self.empty = model.normalize.mean.new_empty
        self.widths: list[int] = [layer.out_features for layer in [*model.hidden, model.head]]
        self.shape = (batch,) if net.alone else (net.lanes, batch)
        self.images = self.empty((batch if shared else net.lanes * batch, *model.input_shape))
        self.x = self.images.view(batch, -1).expand(*self.shape, -1) if shared else self.images.view(*self.shape, -1)
        if keep:
            self.outputs = [self.empty((*self.shape, width)) for width in self.widths]
            """What each layer computes, after its ReLU."""
            self.passed = [torch.empty_like(z) if c else z for z, c in zip(self.outputs, net.closes, strict=True)]
            """What each layer passes on: at the end of a block, the sum with the skip."""
        else:
            turns = {(width, i): self.empty((*self.shape, width)) for width in self.widths for i in (0, 1, 2)}
            # A residual net's stream, from the first layer on, is the third array.
            self.outputs = [turns[w, i % 2 if i or not any(net.closes) else 2] for i, w in enumerate(self.widths)]
            self.passed = [
                turns[width, 2] if c else z for width, z, c in zip(self.widths, self.outputs, net.closes, strict=True)
            ]

    def take(self, pixels: Tensor, model: MLP) -> None:
        """Normalise uint8 ``pixels`` into ``images``."""
        self.images.copy_(pixels).sub_(model.normalize.mean).mul_(model.normalize.scale)
