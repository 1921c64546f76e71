"""What every network shares: it takes uint8 images and carries its own normalisation."""

from __future__ import annotations

import functools
import typing
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from netdepth.errors import BadInput
from netdepth.models.own import adapted
from netdepth.registry import Registry

__all__ = ["MODELS", "Network", "Normalize", "OwnNetwork", "ReluChain", "class_of"]


class Normalize(nn.Module):
    """``(x - mean) * scale`` per channel, for uint8 pixels ``[B, C, H, W]``; 0..255 in, floats out.

    With ``height`` and ``width`` every pixel has its own mean; the scale is always the channel's.
    ``mean`` and ``scale`` are buffers, so a network that is fine-tuned, distilled, exported or
    explained keeps the statistics of its training. At first it maps 0..255 to 0..1.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, channels: int, height: int = 1, width: int = 1) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels, height, width))
        self.register_buffer("scale", torch.full((channels, 1, 1), 1 / 255))

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Take ``mean`` (``[C]``, or ``[C, H, W]`` where pixels have means) and ``std`` ``[C]`` of the training
        part, in units of 0..1."""
        with torch.no_grad():
            self.mean.copy_((mean.double() * 255).reshape(len(self.mean), *(mean.shape[1:] or (1, 1))))
            self.scale.copy_((1 / (std.double() * 255)).view_as(self.scale))

    def forward(self, x: Tensor) -> Tensor:
        return (x.to(self.mean.dtype) - self.mean) * self.scale


@dataclass(frozen=True)
class ReluChain:
    """A network of linear layers with a ReLU after each but the last, plain or in residual blocks of equal width.

    `netdepth.training.gradients` has its forward and backward pass written out, also for several seeds at once.
    """

    layers: tuple[str, ...]
    """The paths of the linear layers, from the normalised image to the logits."""
    block_layers: int = 0
    """Layers per residual block; the first block begins at the second layer. 0: no skips."""
    scale: float = 1.0
    """The factor on what a block adds to its skip."""


class Network(nn.Module):
    """Base of all models: `forward` maps uint8 ``[B, C, H, W]`` to logits ``[B, num_classes]``.

    ``depth`` counts the weight layers on the main path. A subclass begins its forward pass with
    ``self.normalize``. It has `features` and ``head``, or it defines `forward`.
    """

    head: nn.Linear
    lsuv: bool = False
    """Its weights still have to be rescaled on images (`models.init.rescale_lsuv`) before training."""
    channels_last: bool = False
    """Its images and weights may be in channels-last layout, which is faster: values and shapes are the same, but
    ``view`` across the axes of an image is not possible (``flatten`` and ``reshape`` are)."""
    replayable: bool = False
    """Its forward pass launches the same kernels for every batch of one size and reads nothing back to the host, so
    that a GPU may replay a recording of it (a CUDA graph)."""
    handwritten: bool = False
    """Some networks of this class have a `relu_chain`."""
    gains_from_bf16: bool = True
    """``train.precision = "auto"`` means bf16 on a device that multiplies in it; False: its products are too small."""
    any_size: bool = False
    """Its weights do not depend on the height and width of the images, so ``input_shape`` may change in these."""
    pixel_mean: bool = False
    """Its ``normalize`` takes a mean per pixel (`Splits.pixel_mean`), not per channel."""

    def __init__(self, input_shape: tuple[int, int, int], num_classes: int, depth: int) -> None:
        super().__init__()
        self.input_shape = input_shape
        self.num_classes = num_classes
        self.depth = depth
        self.normalize = Normalize(input_shape[0])

    def features(self, x: Tensor) -> Tensor:
        """The input of the head ``[B, F]`` for images ``x``, uint8 ``[B, C, H, W]``."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x))
        return logits

    def relu_chain(self) -> ReluChain | None:
        """What the network computes, if it is a `ReluChain` and nothing else; only such networks train as a stack."""
        return None

    def stage_paths(self) -> dict[str, tuple[str, ...]]:
        """The stages from the input to the head, each of which can be frozen, thawed and given its own learning rate.

        A name to the paths of its modules and parameters; every parameter belongs to one stage, and the last stage
        depends on the number of classes. By default: the modules in the order in which they were made.
        """
        return {name: (name,) for name, child in self.named_children() if any(True for _ in child.parameters())}

    def stage_of(self, name: str) -> str | None:
        """The stage of a parameter, buffer or module; None where it is in none, as ``normalize``."""
        for stage, paths in self.stage_paths().items():
            if any(name == path or name.startswith(f"{path}.") for path in paths):
                return stage
        return None


WEIGHT_LAYERS = (nn.Linear, nn.modules.conv._ConvNd)


class OwnNetwork(Network):
    """Any ``net`` of the user's as a `Network`: it gets normalised float images ``[B, C, H, W]`` and gives logits.

    ``depth`` is the one that ``net`` says, an attribute of that name, or else the number of its weight layers (linear
    and convolutional) that a pass goes through. ``head`` is the linear layer that gives the logits, if one does.
    """

    def __init__(self, net: nn.Module, input_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__(input_shape, num_classes, depth=1)
        self.net = net
        self.head_path: str | None = None
        layers = self._try_out()
        said = getattr(net, "depth", None)
        self.depth = said if type(said) is int and said >= 1 else max(1, layers)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(self.normalize(x))
        return logits

    def features(self, x: Tensor) -> Tensor:
        """The input of the linear layer that gives the logits.

        Raises:
            BadInput: none does.
        """
        seen: list[Tensor] = []
        hook = self.last_linear().register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        try:
            self(x)
        finally:
            hook.remove()
        return seen[-1]

    def last_linear(self) -> nn.Module:
        """The linear layer that gives the logits.

        Raises:
            BadInput: none does.
        """
        if self.head_path is None:
            raise BadInput(
                f"the logits of {type(self.net).__name__} do not come from a linear layer, so it has no features; "
                "end its forward pass with an nn.Linear"
            )
        return self.get_submodule(self.head_path)

    def stage_paths(self) -> dict[str, tuple[str, ...]]:
        """The modules and parameters of the network by name, in the order in which they were made, the head last."""
        paths: dict[str, tuple[str, ...]] = {}

        def add(module: nn.Module, path: str) -> None:
            for name, _ in module.named_parameters(path, recurse=False):
                paths[name.removeprefix("net.")] = (name,)
            for name, child in module.named_children():
                inner = f"{path}.{name}"
                if f"{self.head_path}".startswith(f"{inner}."):
                    add(child, inner)
                elif any(True for _ in child.parameters()):
                    paths[inner.removeprefix("net.")] = (inner,)

        if self.head_path == "net":
            return {"net": ("net",)}
        add(self.net, "net")
        if self.head_path is not None:
            head = self.head_path.removeprefix("net.")
            paths[head] = paths.pop(head)
        return paths

    @torch.no_grad()
    def _try_out(self) -> int:
        """One pass of two black images: the number of weight layers, and ``head_path``.

        Raises:
            BadInput: what comes out are no logits.
        """
        ran: dict[nn.Module, tuple[object, object]] = {}
        hooks = [
            module.register_forward_hook(lambda module, args, out: ran.update({module: (args, out)}))
            for module in self.net.modules()
        ]
        training = self.net.training
        try:
            logits = self.eval()(torch.zeros(2, *self.input_shape, dtype=torch.uint8))
        finally:
            self.train(training)
            for hook in hooks:
                hook.remove()
        name, wanted = type(self.net).__name__, [2, self.num_classes]
        if not isinstance(logits, Tensor):
            raise BadInput(
                f"{name} gives {type(logits).__name__}; a network gives logits, a tensor {wanted} of numbers"
            )
        if list(logits.shape) != wanted or not logits.is_floating_point():
            raise BadInput(
                f"{name} gives {logits.dtype} {list(logits.shape)} for 2 images of {self.num_classes} classes, not "
                f"logits {wanted}; a parameter called num_classes gets the number of classes"
            )
        if self.num_classes > 1 and bool((logits >= 0).all()) and torch.allclose(logits.sum(1), torch.ones(2)):
            raise BadInput(f"{name} gives probabilities, not logits; leave out its last softmax: the objective has it")
        for path, module in self.named_modules():
            args, out = ran.get(module, ((), None))
            flat = isinstance(args, tuple) and bool(args) and isinstance(args[0], Tensor) and args[0].dim() == 2
            if isinstance(module, nn.Linear) and out is logits and flat:
                self.head_path = path
        return sum(isinstance(module, WEIGHT_LAYERS) for module in ran)


def _finished(net: nn.Module, input_shape: tuple[int, int, int], num_classes: int) -> Network:
    return net if isinstance(net, Network) else OwnNetwork(net, input_shape, num_classes)


MODELS: Registry[Network] = Registry("model", functools.partial(adapted, finish=_finished))
"""A model function takes (input_shape, num_classes, generator) and its own settings. Of users it takes any class of
networks, or a function that returns one (`netdepth.models.own`)."""


def class_of(name: str) -> type[Network]:
    """The class of the networks that the model called ``name`` builds, by the annotation of its function.

    Raises:
        BadInput: no model is called so.
    """
    function = MODELS.entry(name).function
    returned = getattr(function, "__wrapped__", function)
    if not isinstance(returned, type):
        try:
            returned = typing.get_type_hints(returned).get("return")
        except Exception:  # evaluating a user's annotations runs the user's code
            returned = None
    return returned if isinstance(returned, type) and issubclass(returned, Network) else Network
