"""Which numbers a training step computes with, by a rule of the model and the device, never by a stopwatch.

"float32" and "float64" are the type of everything. With "bf16", products and convolutions of a training step
are computed in bfloat16 (`engine.gradients.autograd_gradients`); weights, gradients, the optimizer's
state, the statistics of batch norm, the loss and every evaluation are float32. "auto" becomes one of these when
a config is resolved, so that it is the precision, and not where it was made, that the fingerprint holds.
"""

from __future__ import annotations

from typing import Literal

import torch

from netdepth.config import RunConfig
from netdepth.training.process import find_device

__all__ = ["DTYPES", "multiplies_bf16", "precision_of"]

Precision = Literal["float32", "float64", "bf16", "auto"]

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bf16": torch.float32}
"""The type of the weights."""

BF16_CPU = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")
"""What `torch.cpu.get_capabilities` calls the instructions for it, on x86 and ARM."""
BF16_CUDA = (8, 0)
"""The first compute capability with them (Ampere)."""


def precision_of(config: RunConfig, device: str = "auto") -> Precision:
    """The precision of ``config`` on what ``--device`` names; "auto" is bf16 where `multiplies_bf16`, else float32.

    An MLP stays in float32: its products are too small to gain, and the pass written out for it knows no other.
    """
    if config.train.precision != "auto":
        return config.train.precision
    return "bf16" if config.model.name != "mlp" and multiplies_bf16(find_device(device)) else "float32"


def multiplies_bf16(device: torch.device) -> bool:
    """Whether the device has instructions for bfloat16 products; without them bf16 is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= BF16_CUDA
    found = torch.cpu.get_capabilities()
    return device.type == "cpu" and any(found.get(name, False) for name in BF16_CPU)
