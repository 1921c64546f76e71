"""The seeds of a depth at once with `torch.func`: stacked parameters, ``vmap(grad(loss))``, one fused Adam."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.func import grad_and_value, vmap
from torch.nn import functional

from baselines.session import use_threads
from baselines.study_session import LEARNING_RATE, Orders, Outcome, Train, Work, compete


def logits(parameters: Sequence[Tensor], x: Tensor) -> Tensor:
    """``[B, 784]`` to ``[B, 10]`` for one seed."""
    *below, weight, bias = parameters
    for w, b in zip(below[::2], below[1::2], strict=True):
        x = functional.linear(x, w, b).relu()
    return functional.linear(x, weight, bias)


def loss_of(parameters: Sequence[Tensor], x: Tensor, y: Tensor) -> Tensor:
    return functional.cross_entropy(logits(parameters, x), y)


def prepare(work: Work) -> Train:
    use_threads(work.threads)
    images, labels = torch.from_numpy(work.pixels("train")), torch.from_numpy(work.labels("train"))
    val_images, val_labels = torch.from_numpy(work.pixels("val")), torch.from_numpy(work.labels("val"))
    gradients, predict = vmap(grad_and_value(loss_of)), vmap(logits, in_dims=(0, None))

    def train_stack(depth: int, seeds: Sequence[int], orders: Orders) -> list[Outcome]:
        parameters = tuple(torch.from_numpy(array) for array in work.starts(depth, seeds))
        optimizer = torch.optim.Adam(parameters, lr=LEARNING_RATE, fused=True)
        for order in orders:
            losses = []
            for chosen in torch.from_numpy(order).split(work.batch_size, dim=1):
                found, loss = gradients(parameters, images[chosen], labels[chosen])
                for parameter, gradient in zip(parameters, found, strict=True):
                    parameter.grad = gradient
                optimizer.step()
                losses.append(loss)
            with torch.no_grad():
                right = (predict(parameters, val_images).argmax(2) == val_labels).double().mean(1)
        return list(zip(torch.stack(losses).mean(0).tolist(), right.tolist(), strict=True))

    for depth in work.depths:
        train_stack(depth, work.seeds, work.few(work.orders_of(work.seeds)))
    return lambda depth, seeds: train_stack(depth, seeds, work.orders_of(seeds))


if __name__ == "__main__":
    compete(prepare, stacked=True)
