"""Networks and runs whose evidence is known, for the tests of ``explain``."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from netdepth.config import Component, RunConfig, TrainConfig
from netdepth.models import Network
from netdepth.models.network import Normalize
from netdepth.runs.folder import RunDir
from support.real_runs import make

SIDE = 16
HALF = SIDE // 2


class QuadrantNet(Network):
    """Answers 1 where the upper left quadrant is bright, else 0; what lies elsewhere it cannot see.

    A mean of 255 per pixel and a ReLU blind it outside the quadrant. ``pooled``: global average pooling and a
    linear head, which allow a class activation map; else a linear layer of all positions.
    """

    def __init__(self, pooled: bool) -> None:
        super().__init__((1, SIDE, SIDE), 2, depth=2)
        self.normalize = Normalize(1, SIDE, SIDE)
        self.normalize.mean.fill_(255).view(SIDE, SIDE)[:HALF, :HALF] = 0
        self.conv = nn.Conv2d(1, 2, 1, bias=False)
        self.relu = nn.ReLU()
        self.pooled = pooled
        self.head = nn.Linear(2 if pooled else 2 * SIDE * SIDE, 2)
        with torch.no_grad():
            self.conv.weight.fill_(1.0)
            self.head.weight.zero_()
            strength = 40.0 if pooled else 40.0 / SIDE**2
            self.head.weight[1] = strength
            self.head.bias.copy_(torch.tensor([6.0, 0.0]))

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu(self.conv(self.normalize(x)))
        logits: Tensor = self.head(h.mean((2, 3)) if self.pooled else h.flatten(1))
        return logits


def bright_pictures(count: int = 12) -> Tensor:
    """uint8 ``[count, 1, 16, 16]``, bright everywhere, with some noise."""
    generator = torch.Generator().manual_seed(3)
    return torch.randint(170, 256, (count, 1, SIDE, SIDE), generator=generator).byte()


RESNET = Component("resnet", {"depth": 8, "width": 4})
CNN = Component("cnn", {"channels": [4, 8], "hidden": 8})
MLP = Component("mlp", {"hidden": [16]})


def short_run(folder: Path, model: Component) -> RunDir:
    """A run of a few steps on the embedded digits; it opens its test part once, as every run does."""
    config = RunConfig(dataset=Component("mnist5k"), model=model, train=TrainConfig(budget="12it", batch_size=64))
    return make(folder, config, name=model.name).run
