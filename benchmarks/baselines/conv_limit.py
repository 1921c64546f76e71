"""How fast it could be: the operations of the convolutions over the best rate, and the convolutions themselves alone.

``limit``: multiplications and additions of a training step (forward, weight gradients and, except in the first
layer, input gradients) over the best measured rate of large square float32 products. ``convolutions`` and
``convolutions-bf16``: PyTorch's convolutions on channels_last arrays, forward and backward, and nothing else:
no batch norm, no ReLU, no shortcut, no update.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from baselines.conv_session import WARM_UP_STEPS, Work, compete
from baselines.session import use_threads

Layer = tuple[int, int, int, int, int, int]
"""Channels before and after, height and width before, stride, size of the kernel."""


def layers(channels: int, height: int, width: int, depth: int) -> list[Layer]:
    """The convolutions of the network in order."""
    found: list[Layer] = [(channels, 16, height, width, 1, 3)]
    before = 16
    for stage, after in enumerate((16, 32, 64)):
        for i in range((depth - 2) // 6):
            stride = 2 if stage and not i else 1
            found.append((before, after, height, width, stride, 3))
            height, width = -(-height // stride), -(-width // stride)
            found.append((after, after, height, width, 1, 3))
            before = after
    return found


def operations(channels: int, height: int, width: int, depth: int) -> int:
    """Of a training step, per image."""
    total = 0
    for number, (before, after, h, w, stride, kernel) in enumerate(layers(channels, height, width, depth)):
        forward = 2 * before * after * kernel**2 * -(-h // stride) * -(-w // stride)
        total += forward * (3 if number else 2)
    return total


def convolutions(shape: tuple[int, int, int], depth: int, batch: int, dtype: torch.dtype) -> Callable[[], None]:
    """A function that does the convolutions of one batch and their gradients."""
    given = []
    for before, after, height, width, stride, kernel in layers(*shape, depth):
        x = torch.randn(batch, before, height, width).to(dtype).contiguous(memory_format=torch.channels_last)
        weight = torch.randn(after, before, kernel, kernel).mul_((9 * before) ** -0.5).to(dtype)
        weight = weight.contiguous(memory_format=torch.channels_last)
        error = torch.randn_like(torch.conv2d(x, weight, None, stride, kernel // 2))
        given.append((x, weight, error, stride, kernel // 2))

    def work() -> None:
        for x, weight, _, stride, padding in given:
            torch.conv2d(x, weight, None, stride, padding)
        for number in reversed(range(len(given))):
            x, weight, error, stride, padding = given[number]
            torch.ops.aten.convolution_backward(
                error, x, weight, None, (stride, stride), (padding, padding), (1, 1), False, (0, 0), 1,
                (number > 0, True, False),
            )  # fmt: skip

    return work


def prepare(work: Work) -> Callable[[], dict[str, Any]]:
    use_threads(work.threads)
    count, *shape = work.images().shape
    channels, height, width = shape
    if work.variant == "limit":
        from baselines.limit import best_rate

        each = operations(channels, height, width, work.depth)
        return lambda: {"seconds": count * each / best_rate(), "images": count}
    dtype = torch.bfloat16 if work.bf16 else torch.float32
    step = convolutions((channels, height, width), work.depth, work.batch_size, dtype)
    steps = count // work.batch_size

    def turn() -> dict[str, Any]:
        started = time.perf_counter()
        for _ in range(steps):
            step()
        return {"seconds": time.perf_counter() - started, "images": steps * work.batch_size}

    for _ in range(WARM_UP_STEPS):
        step()
    return turn


if __name__ == "__main__":
    with torch.no_grad():
        compete(prepare)
