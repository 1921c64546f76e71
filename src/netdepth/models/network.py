"""What every network shares: it takes uint8 images and carries its own normalisation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["Network", "Normalize", "ReluChain"]


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
