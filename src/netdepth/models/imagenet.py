"""ResNets for ImageNet-sized pictures with torchvision's parameter names, so that published weights load."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

from torch import Generator, Tensor, nn

from netdepth.config import require
from netdepth.models.cnn import EXPANSION, KERNELS, Layout
from netdepth.models.init import Init, initialise
from netdepth.models.network import Network
from netdepth.models.registered import MODELS

__all__ = ["BLOCKS", "MAX_WIDTH", "ImageNetResNet"]

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
"""Blocks of the four stages by depth (He et al. 2016, table 1); from 50 on they are bottlenecks."""

MAX_WIDTH = 1024


class Block(nn.Module):
    """h <- relu(F(h) + h), or F(h) + a projection of h where its shape changes (He et al. 2016, §3.2, option B).

    F is two 3x3 convolutions ("basic"), or 1x1, 3x3 and 1x1 with 4 times the channels at the end ("bottleneck").
    A stage's first block halves the picture in its first 3x3 convolution, as torchvision's networks (and the
    published weights) do; the paper's bottleneck does it in the 1x1 before. Names, shapes and counts are the same.
    """

    def __init__(self, inputs: int, channels: int, stride: int, layout: Layout) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace=True)  # its input, of batch norm or the sum, is not read again
        kernels = KERNELS[layout]
        sizes = [inputs, *[channels] * (len(kernels) - 1), EXPANSION[layout] * channels]
        self.layers = len(kernels)
        for i, kernel in enumerate(kernels):
            step = stride if i == kernels.index(3) else 1
            conv = nn.Conv2d(sizes[i], sizes[i + 1], kernel, step, padding=kernel // 2, bias=False)
            self.add_module(f"conv{i + 1}", conv)
            self.add_module(f"bn{i + 1}", nn.BatchNorm2d(sizes[i + 1]))
        self.downsample = nn.Sequential()  # the identity, without parameters
        if stride != 1 or inputs != sizes[-1]:
            self.downsample.append(nn.Conv2d(inputs, sizes[-1], 1, stride, bias=False))
            self.downsample.append(nn.BatchNorm2d(sizes[-1]))

    def forward(self, x: Tensor) -> Tensor:
        h = x
        for i in range(1, self.layers + 1):
            h = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(h))
            if i < self.layers:
                h = self.relu(h)
        summed: Tensor = self.relu(h + self.downsample(x))
        return summed


class ImageNetResNet(Network):
    """A stem that quarters the picture, four stages of blocks, global average pooling, a linear head.

    He et al. 2016, "Deep Residual Learning", §4.1 and table 1: a 7x7 convolution and a 3x3 maximum,
    each with stride 2; stages of ``width`` times 1, 2, 4 and 8 channels (bottlenecks put out four
    times as many), each but the first halving the picture. ``depth`` counts what table 1 counts: the
    stem, the convolutions in the branches and the head, not the projections.

    Beside ``normalize.*`` the state dict has torchvision's names: ``conv1``, ``bn1``, ``layer1`` to
    ``layer4`` with ``.<block>.conv1`` ... ``.downsample.1``, and ``fc``.
    """

    channels_last = True  # no layer depends on the memory layout
    replayable = True
    any_size = True

    def __init__(self, input_shape: tuple[int, int, int], num_classes: int, depth: int, width: int = 64) -> None:
        super().__init__(input_shape, num_classes, depth)
        layout: Layout = "bottleneck" if depth >= 50 else "basic"
        self.width = width
        self.conv1 = nn.Conv2d(input_shape[0], width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        inputs = [width, *(EXPANSION[layout] * width * 2**stage for stage in range(4))]
        stages = []
        for stage, (count, (before, after)) in enumerate(zip(BLOCKS[depth], pairwise(inputs), strict=True)):
            channels, stride = width * 2**stage, 1 if stage == 0 else 2
            first = Block(before, channels, stride, layout)
            stages.append(nn.Sequential(first, *(Block(after, channels, 1, layout) for _ in range(count - 1))))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.fc = nn.Linear(inputs[-1], num_classes)

    @property
    def stages(self) -> tuple[nn.Sequential, ...]:
        """The four stages, from the input to the head."""
        return self.layer1, self.layer2, self.layer3, self.layer4

    @property
    def head(self) -> nn.Linear:  # type: ignore[override]
        """The last layer under the name that all networks use; it is replaced as ``fc``."""
        return self.fc

    def stage_paths(self) -> dict[str, tuple[str, ...]]:
        """``stem``, ``stage1`` to ``stage4`` and ``head``."""
        return {
            "stem": ("conv1", "bn1"),
            **{f"stage{i + 1}": (f"layer{i + 1}",) for i in range(len(self.stages))},
            "head": ("fc",),
        }

    def features(self, x: Tensor) -> Tensor:
        """The input of the head: uint8 ``[B, C, H, W]`` to the channels' means ``[B, 8 * expansion * width]``."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(self.normalize(x)))))
        for stage in self.stages:
            x = stage(x)
        return x.mean((2, 3))


def _register(depth: int) -> None:
    def build(
        input_shape: tuple[int, int, int],
        num_classes: int,
        generator: Generator,
        *,
        width: Annotated[int, "channels of the first stage; published weights have 64"] = 64,
        init: Annotated[Init, "initialisation of the weights; he: by fan-in"] = "he",
    ) -> ImageNetResNet:
        require(1 <= width <= MAX_WIDTH, "model.width", width, f"1 to {MAX_WIDTH}")
        model = ImageNetResNet(input_shape, num_classes, depth, width)
        initialise(model, init, "relu", generator)
        return model

    blocks = "bottlenecks, stride in their 3x3 convolution" if depth >= 50 else "basic blocks"
    build.__doc__ = f"ResNet-{depth} for ImageNet-sized pictures with torchvision's parameter names; {blocks}."
    MODELS.register(f"resnet{depth}", example={"width": 8})(build)


for _depth in BLOCKS:
    _register(_depth)
