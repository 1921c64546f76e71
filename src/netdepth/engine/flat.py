"""All trainable parameters of a model as one vector.

The parameters become views into it and their gradients views into its gradient. An optimizer
step, a gradient norm, a clip or an all-reduce is then one operation, whatever the depth.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["flatten"]


def flatten(model: nn.Module) -> nn.Parameter:
    """Move the trainable parameters of ``model`` into one vector ``[P]`` and return it.

    Values, names and shapes are unchanged; ``.grad`` of every parameter, and of the vector, is set
    to zero and stays allocated: fill it or accumulate into it, never replace it. Matrices
    ``[out, in]`` lie transposed in the vector: ``x @ W.T`` and its weight gradient are then
    products of arrays in their natural order, up to a third faster on a CPU.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    vector = torch.cat([_laid_out(p.detach()).reshape(-1) for p in parameters])
    flat = nn.Parameter(vector)
    flat.grad = torch.zeros_like(vector)
    offset = 0
    for parameter in parameters:
        end = offset + parameter.numel()
        shape = _laid_out(parameter).shape
        parameter.data = _laid_out(vector[offset:end].view(shape))
        parameter.grad = _laid_out(flat.grad[offset:end].view(shape))
        offset = end
    return flat


def _laid_out(tensor: Tensor) -> Tensor:
    """A matrix transposed (its own inverse), anything else as it is."""
    return tensor.t() if tensor.dim() == 2 else tensor
