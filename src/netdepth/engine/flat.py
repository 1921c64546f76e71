"""All trainable parameters of a model as one vector.

The parameters become views into it and their gradients views into its gradient. An optimizer
step, a gradient norm, a clip or an all-reduce is then one operation, whatever the depth.
"""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["flatten"]


def flatten(model: nn.Module) -> nn.Parameter:
    """Move the trainable parameters of ``model`` into one vector ``[P]`` and return it.

    Values and names are unchanged; ``.grad`` of every parameter, and of the vector, is set to zero
    and stays allocated: fill it or accumulate into it, never replace it.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    vector = torch.cat([p.detach().reshape(-1) for p in parameters])
    flat = nn.Parameter(vector)
    flat.grad = torch.zeros_like(vector)
    offset = 0
    for parameter in parameters:
        end = offset + parameter.numel()
        parameter.data = vector[offset:end].view_as(parameter)
        parameter.grad = flat.grad[offset:end].view_as(parameter)
        offset = end
    return flat
