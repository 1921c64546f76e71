"""Initialisations by name. Each draws from the generator it is given and from nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, get_args

from torch import Generator, Tensor, nn

__all__ = ["Init", "initialise"]

Init = Literal["default", "he", "xavier", "orthogonal"]


def _default(weight: Tensor, activation: str, generator: Generator) -> None:
    """PyTorch's `nn.Linear.reset_parameters`: uniform within ± fan_in^-1/2."""
    nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=generator)


def _he(weight: Tensor, activation: str, generator: Generator) -> None:
    """Normal with variance 2 / fan_in (He et al. 2015, "Delving Deep into Rectifiers", §2.2)."""
    nn.init.kaiming_normal_(weight, nonlinearity="relu", generator=generator)


def _xavier(weight: Tensor, activation: str, generator: Generator) -> None:
    """Uniform with variance 2 / (fan_in + fan_out) (Glorot & Bengio 2010, eq. 16)."""
    nn.init.xavier_uniform_(weight, generator=generator)


def _orthogonal(weight: Tensor, activation: str, generator: Generator) -> None:
    """Random orthogonal rows, with the activation's gain (Saxe et al. 2014, §3)."""
    gain = nn.init.calculate_gain(activation if activation in ("relu", "tanh") else "linear")  # type: ignore[arg-type]
    nn.init.orthogonal_(weight, gain=gain, generator=generator)


_INITS: dict[str, Callable[[Tensor, str, Generator], None]] = {
    "default": _default,
    "he": _he,
    "xavier": _xavier,
    "orthogonal": _orthogonal,
}
assert set(_INITS) == set(get_args(Init))


def initialise(model: nn.Module, name: Init, activation: str, generator: Generator) -> None:
    """Initialise every linear and convolution layer of ``model`` in the order of its modules.

    Biases are zero, except for "default", which draws them as PyTorch does.
    """
    for module in model.modules():
        if not isinstance(module, nn.Linear | nn.Conv2d):
            continue
        _INITS[name](module.weight, activation, generator)
        if module.bias is None:
            continue
        if name == "default":
            bound = 1 / math.sqrt(module.weight[0].numel())
            nn.init.uniform_(module.bias, -bound, bound, generator=generator)
        else:
            nn.init.zeros_(module.bias)
