"""Networks by name: `build` makes one, `describe` counts its layers, parameters and multiply-adds."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor, nn

from netdepth.config import Component, derive_seed
from netdepth.models.network import Network, Normalize
from netdepth.models.registered import MODELS, OwnNetwork, class_of
from netdepth.registry import import_package_modules

__all__ = ["MODELS", "Description", "LayerInfo", "Network", "Normalize", "OwnNetwork", "build", "class_of", "describe"]

import_package_modules(__name__, __path__)


def build(
    model: str | Component,
    input_shape: tuple[int, int, int],
    num_classes: int,
    *,
    seed: int = 0,
    **args: Any,
) -> Network:
    """The network called ``model`` for images ``(C, H, W)``; ``seed`` seeds its initial weights.

    Raises:
        BadInput: an unknown name or setting, or a value out of range.
    """
    component = model if isinstance(model, Component) else Component(model, args)
    with _drawing_from(derive_seed(seed, "init", 1)):  # not the seed of the generator, or both would draw the same
        return MODELS.build(component, input_shape, num_classes, Generator().manual_seed(seed))


@contextlib.contextmanager
def _drawing_from(seed: int) -> Iterator[None]:
    """Whatever a constructor draws from, the global generator of PyTorch, NumPy's or Python's, begins with ``seed``;
    afterwards each is as the caller left it."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002  (what users' code draws from)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        random.seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


@dataclass(frozen=True)
class LayerInfo:
    """One weight layer: its parameters, and multiply-adds for one example."""

    name: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int
    multiply_adds: int


@dataclass(frozen=True)
class Description:
    """Depth, parameters and multiply-adds of a network, per layer and in all."""

    depth: int
    parameters: int
    multiply_adds: int
    layers: tuple[LayerInfo, ...]


def describe(model: Network) -> Description:
    """Count the weight layers, parameters and multiply-adds of ``model`` by one pass of one black image."""
    layers: list[LayerInfo] = []
    names: Mapping[nn.Module, str] = {module: name for name, module in model.named_modules()}

    def count(module: nn.Module, _inputs: object, output: Tensor) -> None:
        weight = module.weight
        assert isinstance(weight, Tensor)
        shape = tuple(output.shape[1:])
        positions = output[0].numel() // (weight.shape[0] or 1)  # of an image, or tokens
        parameters = sum(p.numel() for p in module.parameters(recurse=False))
        layers.append(LayerInfo(names[module], type(module).__name__, shape, parameters, weight.numel() * positions))

    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    device = next(model.parameters()).device
    training = model.training
    try:
        with torch.inference_mode():
            model.eval()(torch.zeros(1, *model.input_shape, dtype=torch.uint8, device=device))
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    parameters = sum(p.numel() for p in model.parameters())
    return Description(model.depth, parameters, sum(layer.multiply_adds for layer in layers), tuple(layers))
