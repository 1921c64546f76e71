"""A small convolutional network without shortcuts or batch norm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from torch import Generator, Tensor, nn

from netdepth.config import require
from netdepth.errors import BadInput
from netdepth.models.init import Init, initialise
from netdepth.models.network import Network
from netdepth.models.registered import MODELS

__all__ = ["SimpleCNN", "simple_cnn"]

MAX_CHANNELS, MAX_HIDDEN, MAX_CONVOLUTIONS = 4096, 65_536, 100


class SimpleCNN(Network):
    """Stages of 3x3 convolution, ReLU and 2x2 max pooling, one hidden layer with ReLU and dropout, a linear head.

    A stage may hold several ``convolutions``, each with its ReLU, before the pooling. Each stage halves the
    image, a last odd row or column falling away; depth = all convolutions + 2.
    """

    channels_last = True  # no layer depends on the memory layout
    replayable = True

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_classes: int,
        channels: Sequence[int],
        hidden: int,
        dropout: float,
        *,
        convolutions: int = 1,
    ) -> None:
        super().__init__(input_shape, num_classes, depth=len(channels) * convolutions + 2)
        planes, height, width = input_shape
        self.stages = nn.ModuleList()
        for after in channels:
            layers: list[nn.Module] = []
            for _ in range(convolutions):
                layers += [nn.Conv2d(planes, after, 3, padding=1), nn.ReLU()]
                planes = after
            self.stages.append(nn.Sequential(*layers, nn.MaxPool2d(2)))
            height, width = height // 2, width // 2
        self.hidden = nn.Linear(planes * height * width, hidden)
        self.relu = nn.ReLU()
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden, num_classes)

    def stage_paths(self) -> dict[str, tuple[str, ...]]:
        """``stage1``, ``stage2`` and so on, ``hidden`` and ``head``."""
        paths = {f"stage{i + 1}": (f"stages.{i}",) for i in range(len(self.stages))}
        return {**paths, "hidden": ("hidden",), "head": ("head",)}

    def features(self, x: Tensor) -> Tensor:
        """The input of the head: uint8 ``[B, C, H, W]`` to ``[B, hidden]``."""
        h: Tensor = self.normalize(x)
        for stage in self.stages:
            h = stage(h)
        dropped: Tensor = self.dropout(self.relu(self.hidden(h.flatten(1))))
        return dropped


@MODELS.register("cnn")
def simple_cnn(
    input_shape: tuple[int, int, int],
    num_classes: int,
    generator: Generator,
    *,
    channels: Annotated[list[int], "channels of each stage of convolution, ReLU and 2x2 pooling"] = [32, 64],  # noqa: B006
    convolutions: Annotated[int, "convolutions of each stage, each with its ReLU, before the pooling"] = 1,
    hidden: Annotated[int, "units of the hidden layer"] = 128,
    dropout: Annotated[float, "probability that a hidden unit is dropped in training"] = 0.25,
    init: Annotated[Init, "initialisation of the weights"] = "default",
) -> SimpleCNN:
    """Small CNN: stages of convolution, ReLU and pooling, a hidden layer, dropout.

    Raises:
        BadInput: no stage, more stages than the image can be halved, a number out of range.
    """
    _, height, width = input_shape
    most = min(height, width).bit_length() - 1
    if not 1 <= len(channels) <= most:
        limit = f"it takes 1 to {most} stages" if most else "model cnn needs images of 2 pixels or more"
        raise BadInput(
            f"model.channels = {channels} is {len(channels)} stages, each of which halves the {height} x {width} "
            f"pixels of an image; {limit}"
        )
    for planes in channels:
        if not 1 <= planes <= MAX_CHANNELS:
            raise BadInput(f"model.channels = {channels} holds {planes}, out of range; it takes 1 to {MAX_CHANNELS}")
    require(1 <= convolutions <= MAX_CONVOLUTIONS, "model.convolutions", convolutions, f"1 to {MAX_CONVOLUTIONS}")
    require(1 <= hidden <= MAX_HIDDEN, "model.hidden", hidden, f"1 to {MAX_HIDDEN}")
    require(0 <= dropout < 1, "model.dropout", dropout, "0 up to, not including, 1")
    model = SimpleCNN(input_shape, num_classes, channels, hidden, dropout, convolutions=convolutions)
    initialise(model, init, "relu", generator)
    return model
