"""Plain PyTorch, eager, tensors in memory: the network as a tutorial writes it, augmentation by the batch.

``eager``: NCHW, float32. ``channels-last``: weights and batches in that order. ``bf16``: channels_last under
`torch.autocast`. ``compiled-bf16``: the same through `torch.compile`. Names with ``-pages`` run with the large
memory pages that the driver asks the C library for.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from baselines.conv_session import DECAY, LEARNING_RATE, MOMENTUM, PAD, WARM_UP_STEPS, Work, compete
from baselines.session import use_threads


class Block(nn.Module):
    """Two 3x3 convolutions and an identity shortcut without parameters (He et al. 2016, §4.2, option A)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.relu = nn.ReLU(inplace=True)
        self.stride, self.missing = stride, after - before

    def forward(self, x: Tensor) -> Tensor:
        h = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        if self.missing:
            x = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.missing))
        return self.relu(h + x)


class ResNet(nn.Module):
    """The CIFAR network of depth 6n + 2 and width 16."""

    def __init__(self, channels: int, classes: int, depth: int) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(channels, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        widths = [16, 16, 32, 64]
        self.stages = nn.Sequential(
            *(
                Block(widths[stage] if i == 0 else widths[stage + 1], widths[stage + 1], 2 if stage and i == 0 else 1)
                for stage in range(3)
                for i in range((depth - 2) // 6)
            )
        )
        self.head = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stages(functional.relu(self.bn(self.conv(x)))).mean((2, 3)))


def network(work: Work) -> ResNet:
    """With the benchmark's initial weights."""
    *convolutions, weight, bias = map(torch.from_numpy, work.weights())
    model = ResNet(convolutions[0].shape[1], len(bias), work.depth)
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    with torch.no_grad():
        for layer, start in zip(layers, convolutions, strict=True):
            layer.weight.copy_(start)
        model.head.weight.copy_(weight)
        model.head.bias.copy_(bias)
    return model


def augment(images: Tensor) -> Tensor:
    """Pad, crop and flip each of uint8 ``[B, C, H, W]`` at random."""
    count, channels, height, width = images.shape
    device = images.device
    padded = functional.pad(images, (PAD, PAD, PAD, PAD))
    rows = torch.randint(2 * PAD + 1, (count, 1), device=device) + torch.arange(height, device=device)
    columns = torch.randint(2 * PAD + 1, (count, 1), device=device) + torch.arange(width, device=device)
    columns = torch.where(torch.rand(count, 1, device=device) < 0.5, columns.flip(1), columns)
    each = torch.arange(count, device=device).view(-1, 1, 1, 1)
    planes = torch.arange(channels, device=device).view(1, -1, 1, 1)
    return padded[each, planes, rows.view(count, 1, height, 1), columns.view(count, 1, 1, width)]


def prepare(work: Work) -> Callable[[], dict[str, Any]]:
    use_threads(work.threads)
    arrays = work.images(), work.labels(), work.order()
    images, labels, order = (torch.from_numpy(array).to(work.device) for array in arrays)
    mean, std = (row.view(-1, 1, 1) for row in torch.from_numpy(work.statistics()).to(work.device))
    last = work.variant != "eager"
    layout = torch.channels_last if last else torch.contiguous_format

    def epoch(chosen: Tensor) -> dict[str, Any]:
        model = network(work).to(work.device, memory_format=layout)
        called = torch.compile(model) if "compiled" in work.variant else model
        optimizer = torch.optim.SGD(
            model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM, weight_decay=DECAY, fused=True
        )
        losses = []
        started = time.perf_counter()
        for batch in chosen.split(work.batch_size):
            x = augment(images.index_select(0, batch)).contiguous(memory_format=layout)
            x = x.float().div_(255).sub_(mean).div_(std)
            with torch.autocast(work.device, torch.bfloat16, enabled=work.bf16):
                logits = called(x)
            loss = functional.cross_entropy(logits.float(), labels.index_select(0, batch))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        train_loss = torch.stack(losses).mean().item()
        return {"seconds": time.perf_counter() - started, "images": len(chosen), "train_loss": train_loss}

    torch.manual_seed(0)
    epoch(order[: WARM_UP_STEPS * work.batch_size])
    return lambda: epoch(order)


if __name__ == "__main__":
    compete(prepare)
