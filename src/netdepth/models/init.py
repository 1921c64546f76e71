"""Initialisations by name. Each draws from the generator it is given and from nothing else."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Literal

import torch
from torch import Generator, Tensor, nn

from netdepth.models.network import Network

__all__ = ["Init", "initialise", "rescale_fixup", "rescale_lsuv"]

Init = Literal["default", "he", "xavier", "orthogonal", "lsuv"]
LSUV_TOLERANCE, LSUV_TRIES = 0.1, 10
"""Tol_var and T_max of Mishkin & Matas 2016, algorithm 1."""


def _draw(weight: Tensor, name: Init, activation: str, generator: Generator) -> None:
    match name:
        case "default":  # PyTorch's `nn.Linear.reset_parameters`: uniform within ± fan_in^-1/2
            nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=generator)
        case "he":  # normal with variance 2 / fan_in (He et al. 2015, "Delving Deep into Rectifiers", §2.2)
            nn.init.kaiming_normal_(weight, nonlinearity="relu", generator=generator)
        case "xavier":  # uniform with variance 2 / (fan_in + fan_out) (Glorot & Bengio 2010, eq. 16)
            nn.init.xavier_uniform_(weight, generator=generator)
        case "orthogonal" | "lsuv":  # random orthogonal rows, with the activation's gain (Saxe et al. 2014, §3)
            gain = nn.init.calculate_gain("linear" if activation == "gelu" else activation)  # type: ignore[arg-type]
            nn.init.orthogonal_(weight, gain=gain, generator=generator)


def initialise(
    model: Network,
    name: Init,
    activation: str,
    generator: Generator,
    order: Iterable[nn.Module] | None = None,
) -> None:
    """Initialise every linear and convolution layer of ``model``, module by module in ``order`` (None: as made).

    Biases are zero, except for "default", which draws them as PyTorch does. "lsuv" is drawn as
    "orthogonal"; its second half needs images (`rescale_lsuv`), which ``model.lsuv`` asks for.
    """
    model.lsuv = name == "lsuv"
    for module in itertools.chain.from_iterable(part.modules() for part in order or [model]):
        if not isinstance(module, nn.Linear | nn.Conv2d):
            continue
        _draw(module.weight, name, activation, generator)
        if module.bias is None:
            continue
        if name == "default":
            bound = 1 / math.sqrt(module.weight[0].numel())
            nn.init.uniform_(module.bias, -bound, bound, generator=generator)
        else:
            nn.init.zeros_(module.bias)


@torch.no_grad()
def rescale_fixup(branches: Sequence[Sequence[nn.Linear]], head: nn.Linear) -> None:
    """Fixup's starting point for residual ``branches``, each the linear layers of one block in order.

    Zhang, Dauphin & Ma 2019, "Fixup Initialization", §3: the head and the last layer of every
    branch are zero, its other layers are scaled by (number of branches)^(-1 / (2k - 2)), k the
    layers of a branch. The zeroed layers are drawn too, so that the draws of all other layers are
    those of the plain twin.
    """
    for *inner, _ in branches:
        for parameter in itertools.chain.from_iterable(layer.parameters() for layer in inner):
            parameter.mul_(len(branches) ** (-1 / (2 * len(inner))))
    for layer in (*(last for *_, last in branches), head):
        for parameter in layer.parameters():
            nn.init.zeros_(parameter)


@torch.no_grad()
def rescale_lsuv(model: nn.Module, inputs: Tensor) -> None:
    """Scale each weight matrix so that the layer's output on ``inputs`` uint8 ``[B, C, H, W]`` has variance 1.

    Mishkin & Matas 2016, "All you need is a good init", algorithm 1: layer by layer in the order
    in which they are used, weight / std(output) until the variance over images and units is
    within 0.1 of 1 or ten tries are made; a layer whose output is constant stays as it is. Draws
    nothing. Batch normalisation uses the statistics of ``inputs`` here, as it would in training,
    and dropout is off. Mode and buffers of ``model`` stay as they are.
    """
    copied = copy.deepcopy(model).train()  # running statistics and modes change in the copy only

    def rescale(layer: nn.Module, args: tuple[Tensor, ...], output: Tensor, *, weight: Tensor) -> Tensor:
        assert isinstance(layer.weight, Tensor)
        for _ in range(LSUV_TRIES):
            variance = output.var(correction=0)
            if abs(variance - 1) < LSUV_TOLERANCE or not 0 < variance < math.inf:
                break
            weight.div_(variance.sqrt())
            layer.weight.copy_(weight)
            output = layer.forward(*args)
        return output  # the input of the next layers

    for name, module in copied.named_modules():
        if isinstance(module, nn.Dropout):
            module.eval()
        elif isinstance(module, nn.Linear | nn.Conv2d):
            module.register_forward_hook(partial(rescale, weight=model.get_parameter(f"{name}.weight")))
    copied(inputs)
