"""The loader and loop style of cifar10-airbench (Keller Jordan 2024), around this benchmark's network.

All images lie on the GPU in half precision and channels-last; an epoch flips and crops all of them in a few kernels
before its first batch; model and batches are float16 throughout, and nothing is read back until the epoch ends. What
its records also have, another network, optimizer and schedule, is left out: all baselines train the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from baselines.conv_session import DECAY, LEARNING_RATE, MOMENTUM, PAD, WARM_UP_STEPS, Work, compete
from baselines.conv_torch import network


def flipped(images: Tensor) -> Tensor:
    """Each of ``[N, C, H, W]`` mirrored with probability 1/2."""
    mirror = torch.rand(len(images), device=images.device).view(-1, 1, 1, 1) < 0.5
    return torch.where(mirror, images.flip(3), images)


def cropped(padded: Tensor, size: int) -> Tensor:
    """Windows ``[N, C, size, size]`` of padded images: one gather per offset, all images of an offset at once."""
    offsets = torch.randint(2 * PAD + 1, (len(padded), 2), device=padded.device)
    found = padded.new_empty((len(padded), padded.shape[1], size, size))
    rows = padded.new_empty((len(padded), padded.shape[1], size, padded.shape[3]))
    for shift in range(2 * PAD + 1):
        chosen = offsets[:, 0] == shift
        rows[chosen] = padded[chosen, :, shift : shift + size, :]
    for shift in range(2 * PAD + 1):
        chosen = offsets[:, 1] == shift
        found[chosen] = rows[chosen, :, :, shift : shift + size]
    return found


def prepare(work: Work) -> Callable[[], dict[str, Any]]:
    images = torch.from_numpy(work.images()).to(work.device)
    labels, order = torch.from_numpy(work.labels()).to(work.device), torch.from_numpy(work.order()).to(work.device)
    mean, std = (row.view(-1, 1, 1) for row in torch.from_numpy(work.statistics()).to(work.device))
    normal = ((images.float() / 255 - mean) / std).half().contiguous(memory_format=torch.channels_last)
    edge = [float(value) for value in (-mean / std).flatten()]  # black, as the others pad before they normalise

    def pad(batch: Tensor) -> Tensor:
        planes = [functional.pad(batch[:, i : i + 1], (PAD,) * 4, value=value) for i, value in enumerate(edge)]
        return torch.cat(planes, 1)

    padded = pad(normal)

    def epoch(chosen: Tensor) -> dict[str, Any]:
        model = network(work).to(work.device).half().to(memory_format=torch.channels_last)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.float()
        optimizer = torch.optim.SGD(
            model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM, weight_decay=DECAY, fused=True
        )
        losses = []
        torch.cuda.synchronize()
        started = time.perf_counter()
        altered = flipped(cropped(padded, images.shape[3])).contiguous(memory_format=torch.channels_last)
        for batch in chosen.split(work.batch_size):
            loss = functional.cross_entropy(model(altered[batch]).float(), labels[batch])
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
