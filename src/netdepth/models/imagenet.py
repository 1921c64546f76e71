"""ResNets for ImageNet-sized pictures with torchvision's parameter names, so that published weights load."""

from __future__ import annotations

import abc
from itertools import pairwise
from typing import Annotated, ClassVar

from torch import Generator, Tensor, nn

from netdepth.errors import BadInput
from netdepth.models.init import Init, initialise
from netdepth.models.network import MODELS, Network

__all__ = ["BLOCKS", "MAX_WIDTH", "ImageNetResNet"]

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
"""Blocks of the four stages by depth (He et al. 2016, table 1); from 50 on they are bottlenecks."""

MAX_WIDTH = 1024


class _Block(nn.Module, abc.ABC):
    """h <- relu(F(h) + h), or F(h) + a projection of h where its shape changes (He et al. 2016, §3.2, option B)."""

    expansion: ClassVar[int]
    """Channels that leave the block for each that its 3x3 convolution has."""
    downsample: nn.Sequential

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace=True)  # on what batch norm or the sum has just put out, which nobody else reads

    @abc.abstractmethod
    def branch(self, x: Tensor) -> Tensor:
        """F(x), without the last activation."""

    def forward(self, x: Tensor) -> Tensor:
        summed: Tensor = self.relu(self.branch(x) + self.downsample(x))
        return summed


def _projection(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """A 1x1 convolution with batch norm; empty, which is the identity and has no parameters, where the shape stays."""
    if stride == 1 and inputs == outputs:
        return nn.Sequential()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


class BasicBlock(_Block):
    """Two 3x3 convolutions (He et al. 2016, fig. 5, left)."""

    expansion = 1

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = _projection(inputs, channels, stride)

    def branch(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        normed: Tensor = self.bn2(self.conv2(x))
        return normed


class Bottleneck(_Block):
    """1x1, 3x3 and 1x1 convolutions (He et al. 2016, fig. 5, right).

    A stage's first block halves the picture in its 3x3 convolution, as torchvision's networks (and
    the published weights) do; the paper does it in the 1x1 before. Names, shapes and counts are the same.
    """

    expansion = 4

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        outputs = self.expansion * channels
        self.conv1 = nn.Conv2d(inputs, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = _projection(inputs, outputs, stride)

    def branch(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        normed: Tensor = self.bn3(self.conv3(x))
        return normed


class ImageNetResNet(Network):
    """A stem that quarters the picture, four stages of blocks, global average pooling, a linear head.

    He et al. 2016, "Deep Residual Learning", §4.1 and table 1: a 7x7 convolution and a 3x3 maximum,
    each with stride 2; stages of ``width`` times 1, 2, 4 and 8 channels (bottlenecks put out four
    times as many), each but the first halving the picture. ``depth`` counts what table 1 counts: the
    stem, the convolutions in the branches and the head, not the projections.

    Beside ``normalize.*`` the state dict has torchvision's names: ``conv1``, ``bn1``, ``layer1`` to
    ``layer4`` with ``.<block>.conv1`` ... ``.downsample.1``, and ``fc``.
    """

    channels_last = True  # nothing here looks at how images lie in memory
    replayable = True

    def __init__(self, input_shape: tuple[int, int, int], num_classes: int, depth: int, width: int = 64) -> None:
        super().__init__(input_shape, num_classes, depth)
        block: type[BasicBlock | Bottleneck] = BasicBlock if depth < 50 else Bottleneck
        self.width = width
        self.conv1 = nn.Conv2d(input_shape[0], width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        inputs = [width, *(block.expansion * width * 2**stage for stage in range(4))]
        stages = []
        for stage, (count, (before, after)) in enumerate(zip(BLOCKS[depth], pairwise(inputs), strict=True)):
            channels, stride = width * 2**stage, 1 if stage == 0 else 2
            first = block(before, channels, stride)
            stages.append(nn.Sequential(first, *(block(after, channels, 1) for _ in range(count - 1))))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.fc = nn.Linear(inputs[-1], num_classes)

    @property
    def stages(self) -> tuple[nn.Sequential, ...]:
        """The four stages, from the input to the head."""
        return self.layer1, self.layer2, self.layer3, self.layer4

    @property
    def head(self) -> nn.Linear:
        """The last layer under the name that all networks have for it; it is replaced as ``fc``."""
        return self.fc

    def stage_paths(self) -> dict[str, tuple[str, ...]]:
        """``stem``, ``stage1`` to ``stage4`` and ``head``."""
        return {
            "stem": ("conv1", "bn1"),
            **{f"stage{i + 1}": (f"layer{i + 1}",) for i in range(len(self.stages))},
            "head": ("fc",),
        }

    def features(self, x: Tensor) -> Tensor:
        """What the head sees: uint8 ``[B, C, H, W]`` to the channels' means ``[B, 8 * expansion * width]``."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(self.normalize(x)))))
        for stage in self.stages:
            x = stage(x)
        return x.mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.features(x))
        return logits


def _register(depth: int) -> None:
    def build(
        input_shape: tuple[int, int, int],
        num_classes: int,
        generator: Generator,
        *,
        width: Annotated[int, "channels of the first stage; published weights have 64"] = 64,
        init: Annotated[Init, "initialisation of the weights; he: by fan-in"] = "he",
    ) -> ImageNetResNet:
        if not 1 <= width <= MAX_WIDTH:
            raise BadInput(f"model.width = {width} is out of range; it takes 1 to {MAX_WIDTH}")
        model = ImageNetResNet(input_shape, num_classes, depth, width)
        initialise(model, init, "relu", generator)
        model.lsuv = init == "lsuv"
        return model

    blocks = "bottlenecks, stride in their 3x3 convolution" if depth >= 50 else "basic blocks"
    build.__doc__ = f"ResNet-{depth} for ImageNet-sized pictures with torchvision's parameter names; {blocks}."
    MODELS.register(f"resnet{depth}", example={"width": 8})(build)


for _depth in BLOCKS:
    _register(_depth)
