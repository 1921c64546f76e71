"""The CIFAR networks of He et al. 2016, "Deep Residual Learning", §4.2: plain and residual from one block."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Annotated, Literal

from torch import Generator, Tensor, nn
from torch.nn import functional as F

from netdepth.config import require
from netdepth.errors import BadInput
from netdepth.models.init import Init, initialise
from netdepth.models.network import Network, Normalize
from netdepth.models.registered import MODELS

__all__ = ["EXPANSION", "KERNELS", "Block", "CifarResNet", "Layout", "resnet"]

Shortcut = Literal["none", "identity", "projection", "projection_all"]
Layout = Literal["basic", "bottleneck"]
Normalization = Literal["channel", "pixel"]
EXPANSION: dict[Layout, int] = {"basic": 1, "bottleneck": 4}
"""Channels that leave a block for each channel inside it."""
KERNELS: dict[Layout, tuple[int, ...]] = {"basic": (3, 3), "bottleneck": (1, 3, 1)}
"""Sizes of the kernels of a block's convolutions (He et al. 2016, fig. 5)."""
STAGES = 3
MAX_WIDTH, MAX_DEPTH = 4096, 10_000


class Block(nn.Module):
    """Two 3x3 convolutions ("basic"), or 1x1, 3x3 and 1x1 ("bottleneck"), with or without a shortcut around them.

    With F the branch, x ``[B, in, H, W]`` becomes ``[B, out, H/stride, W/stride]`` as ReLU(F(x) + skip(x)), every
    convolution followed by batch norm and all but the last by ReLU (§3.2, §3.4), or, with ``pre_activation``, as
    F(x) + skip(x) with batch norm and ReLU before every convolution (He et al. 2016, "Identity Mappings",
    Fig. 4e). The plain twin leaves out ``+ skip(x)`` and nothing else.

    The skip is x itself where the shape stays. Where it changes, "identity" takes every ``stride``-th pixel and
    sets the missing channels to zero (option A, no parameters), "projection" is a 1x1 convolution with batch norm
    (B). "projection_all" has that projection in every block (C). A pre-activated projection has the same input as
    the branch's first convolution and no batch norm, as in the authors' code. The stride is in the first
    convolution, also in a bottleneck, as in the paper (others moved it to the 3x3).
    """

    def __init__(
        self,
        channels: tuple[int, int],
        stride: int,
        *,
        layout: Layout,
        shortcut: Shortcut,
        pre_activation: bool,
        activates_skip: bool,
    ) -> None:
        super().__init__()
        before, after = channels
        inner = after // EXPANSION[layout]
        kernels = KERNELS[layout]
        sizes = [before, *[inner] * (len(kernels) - 1), after]
        self.convs = nn.ModuleList(
            nn.Conv2d(n, m, kernel, stride if i == 0 else 1, kernel // 2, bias=False)
            for i, (n, m, kernel) in enumerate(zip(sizes, sizes[1:], kernels, strict=False))
        )
        self.norms = nn.ModuleList(map(nn.BatchNorm2d, sizes[:-1] if pre_activation else sizes[1:]))
        self.relu = nn.ReLU(inplace=True)  # its input, of batch norm or the sum, is not read again
        self.shortcut, self.stride, self.pre_activation = shortcut, stride, pre_activation
        self.missing_channels = after - before
        changes = stride != 1 or before != after
        self.projection: nn.Sequential | None = None
        if shortcut == "projection_all" or (shortcut == "projection" and changes):
            self.projection = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False))
            if not pre_activation:
                self.projection.append(nn.BatchNorm2d(after))
        self.activates_skip = activates_skip or self.projection is not None
        """With ``pre_activation``: the skip starts after the first activation, not before it."""

    def forward(self, x: Tensor) -> Tensor:
        h = skip = x
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            if self.pre_activation:
                h = self.relu(norm(h))
                if i == 0 and self.activates_skip:
                    skip = h
                h = conv(h)
            else:
                h = norm(conv(self.relu(h) if i else h))
        if self.shortcut != "none":
            h = h.add_(self._skip(skip))
        return h if self.pre_activation else self.relu(h)

    def _skip(self, x: Tensor) -> Tensor:
        if self.projection is not None:
            projected: Tensor = self.projection(x)
            return projected
        if self.stride != 1:
            x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, 0, self.missing_channels)) if self.missing_channels else x


class CifarResNet(Network):
    """A 3x3 convolution, three stages of blocks, global average pooling, a linear head.

    The stages have ``width``, 2 and 4 times as many channels (four times that with "bottleneck") and the second and
    third begin with stride 2. The depth is 2 + 3 * (layers of a block) * n for n blocks per stage: 6n + 2 or 9n + 2;
    projections are not on the main path and are not counted. ``stages`` are the three stages.

    With ``pre_activation`` no batch norm follows the first convolution, the first block's activation comes before
    branch and skip separate, and batch norm and ReLU precede the pooling ("Identity Mappings", appendix). Two plain
    nets that differ in ``pre_activation`` alone are the same function.

    The images are normalised with one mean and standard deviation per channel or, with ``pixel_mean``, one mean
    per pixel and channel as in the paper. The paper does not divide; here both divide by the channel's standard
    deviation, which the batch norm after the first convolution cancels.
    """

    channels_last = True  # no layer depends on the memory layout
    replayable = True

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_classes: int,
        blocks_per_stage: int,
        width: int,
        *,
        layout: Layout = "basic",
        shortcut: Shortcut = "identity",
        pre_activation: bool = False,
        pixel_mean: bool = False,
    ) -> None:
        super().__init__(input_shape, num_classes, depth=2 + STAGES * len(KERNELS[layout]) * blocks_per_stage)
        self.layout, self.shortcut, self.pre_activation = layout, shortcut, pre_activation
        self.pixel_mean = pixel_mean
        self.any_size = not pixel_mean
        if pixel_mean:
            self.normalize = Normalize(*input_shape)
        self.conv = nn.Conv2d(input_shape[0], width, 3, padding=1, bias=False)
        outputs = [EXPANSION[layout] * width * 2**stage for stage in range(STAGES)]
        block = partial(Block, layout=layout, shortcut=shortcut, pre_activation=pre_activation)
        self.stages = nn.ModuleList()
        for stage, (before, after) in enumerate(itertools.pairwise([width, *outputs])):
            first = block((before, after), 2 if stage else 1, activates_skip=stage == 0)
            others = (block((after, after), 1, activates_skip=False) for _ in range(blocks_per_stage - 1))
            self.stages.append(nn.Sequential(first, *others))
        self.norm = nn.BatchNorm2d(outputs[-1] if pre_activation else width)
        """After the first convolution; with ``pre_activation`` before the pooling."""
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(outputs[-1], num_classes)

    def stage_paths(self) -> dict[str, tuple[str, ...]]:
        """``stem``, ``stage1`` to ``stage3`` and ``head``; a batch norm before the pooling is part of ``stage3``."""
        paths: dict[str, tuple[str, ...]] = {"stem": ("conv",)}
        paths |= {f"stage{i + 1}": (f"stages.{i}",) for i in range(STAGES)}
        paths[f"stage{STAGES}" if self.pre_activation else "stem"] += ("norm",)
        return {**paths, "head": ("head",)}

    def blocks(self) -> list[Block]:
        """All blocks, in order."""
        return [module for module in self.stages.modules() if isinstance(module, Block)]

    def features(self, x: Tensor) -> Tensor:
        """The input of the head: uint8 ``[B, C, H, W]`` to ``[B, channels of the last stage]``."""
        h: Tensor = self.conv(self.normalize(x))
        if not self.pre_activation:
            h = self.relu(self.norm(h))
        for stage in self.stages:
            h = stage(h)
        if self.pre_activation:
            h = self.relu(self.norm(h))
        return h.mean((2, 3))


@MODELS.register("resnet")
def resnet(
    input_shape: tuple[int, int, int],
    num_classes: int,
    generator: Generator,
    *,
    depth: Annotated[int, "weight layers on the main path: 6n + 2, or 9n + 2 with block = bottleneck"] = 20,
    width: Annotated[int, "channels of the first stage; the others have 2 and 4 times as many"] = 16,
    shortcut: Annotated[
        Shortcut, "none: the plain twin; identity: option A; projection: option B; projection_all: option C"
    ] = "identity",
    block: Annotated[
        Layout, "basic: two 3x3 convolutions; bottleneck: 1x1, 3x3, 1x1 to 4 times the channels"
    ] = "basic",
    pre_activation: Annotated[bool, "batch norm and ReLU before each convolution, not after"] = False,
    zero_gamma: Annotated[bool, "the last batch norm of every branch starts at 0, so each block as its skip"] = False,
    init: Annotated[Init, "initialisation of the weights; he: normal, variance 2 / fan_in"] = "he",
    normalization: Annotated[Normalization, "channel: mean per channel; pixel: mean per pixel (the paper)"] = "channel",
) -> CifarResNet:
    """CIFAR network of He et al. 2016, plain or residual, of depth 6n + 2 (bottleneck: 9n + 2).

    "none" and "identity" have the same parameters, and every ``shortcut`` has the same initial weights on its main
    path for the same seed: projections are drawn last. The paper initialises as He et al. 2015 ("we adopt the
    weight initialization in [13]"), which derives variance 2 / fan_in and 2 / fan_out and finds either sufficient;
    the authors' later code takes fan_out, here it is fan_in (they differ in the first layer, where a stage begins
    and in the head). ``zero_gamma`` is Goyal et al. 2017, §5.1, not the paper's.

    Raises:
        BadInput: a depth that the blocks do not fill, a width out of range, ``zero_gamma`` without a branch that
            ends in batch norm beside a skip.
    """
    require(1 <= width <= MAX_WIDTH, "model.width", width, f"1 to {MAX_WIDTH}")
    if zero_gamma and shortcut == "none":
        raise BadInput(
            "model.zero_gamma = true needs a shortcut (model.shortcut = 'identity', 'projection' or 'projection_all'): "
            "a plain net would put out zeros"
        )
    if zero_gamma and pre_activation:
        raise BadInput(
            "model.zero_gamma = true needs model.pre_activation = false: a pre-activated branch ends in a convolution, "
            "and zeros before its last ReLU would stop every gradient"
        )
    model = CifarResNet(
        input_shape,
        num_classes,
        _blocks_per_stage(depth, block),
        width,
        layout=block,
        shortcut=shortcut,
        pre_activation=pre_activation,
        pixel_mean=normalization == "pixel",
    )
    blocks = model.blocks()
    projections = [b.projection for b in blocks if b.projection is not None]
    order = (model.conv, *(b.convs for b in blocks), model.head, *projections)
    initialise(model, init, "relu", generator, order)
    if zero_gamma:
        for b in blocks:
            last = b.norms[-1]
            assert isinstance(last, nn.BatchNorm2d)
            nn.init.zeros_(last.weight)
    return model


def _blocks_per_stage(depth: int, layout: Layout) -> int:
    """The n of 6n + 2 or 9n + 2; raises BadInput, naming the nearest depths, where there is none."""
    layers = STAGES * len(KERNELS[layout])
    largest = 2 + layers * ((MAX_DEPTH - 2) // layers)
    good = f"{layers}n + 2, from {2 + layers} to {largest}"
    require(2 + layers <= depth <= largest, "model.depth", depth, good)
    n, rest = divmod(depth - 2, layers)
    if rest:
        raise BadInput(
            f"model.depth = {depth} is not {layers}n + 2 (model.block = {layout!r}); "
            f"nearest: {depth - rest} and {depth - rest + layers}"
        )
    return n
