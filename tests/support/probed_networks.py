"""Small networks and a batch for the tests of probes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from netdepth import models
from netdepth.models.network import Network

SHAPE = (1, 8, 8)
KINDS: dict[str, dict[str, Any]] = {
    "plain": {"init": "he"},
    "residual": {"init": "he", "shortcut": "identity", "branch_scale": "blocks^-1/2"},
    "batch norm": {"norm": "batch"},
    "layer norm": {"norm": "layer", "shortcut": "identity"},
    "pre-activation": {"shortcut": "identity", "pre_activation": True, "norm": "batch", "block_layers": 2},
    "rezero": {"shortcut": "identity", "branch_scale": "rezero"},
    "fixup": {"shortcut": "identity", "branch_scale": "fixup", "block_layers": 2},
    "tanh": {"activation": "tanh", "init": "xavier"},
}


def network(width: int = 16, depth: int = 6, seed: int = 0, **settings: Any) -> Network:
    return models.build("mlp", SHAPE, 10, seed=seed, width=width, depth=depth, **settings)


def batch(size: int = 32, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randint(0, 256, (size, *SHAPE), dtype=torch.uint8, generator=generator)
    return inputs, torch.arange(size) % 10
