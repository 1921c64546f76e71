"""The seeds of a depth at once, stacked by hand: `torch.baddbmm` layers, autograd, one fused Adam."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from baselines.session import use_threads
from baselines.study_session import LEARNING_RATE, Orders, Outcome, Train, Work, compete


def logits(parameters: Sequence[Tensor], x: Tensor) -> Tensor:
    """``[S, B, 784]`` to ``[S, B, 10]``; weights ``[S, in, out]``, biases ``[S, 1, out]``."""
    *below, weight, bias = parameters
    for w, b in zip(below[::2], below[1::2], strict=True):
        x = torch.baddbmm(b, x, w).relu()
    return torch.baddbmm(bias, x, weight)


def prepare(work: Work) -> Train:
    use_threads(work.threads)
    images, labels = torch.from_numpy(work.pixels("train")), torch.from_numpy(work.labels("train"))
    val_images, val_labels = torch.from_numpy(work.pixels("val")), torch.from_numpy(work.labels("val"))

    def train_stack(depth: int, seeds: Sequence[int], orders: Orders) -> list[Outcome]:
        replicas = len(seeds)
        start = [torch.from_numpy(array) for array in work.starts(depth, seeds)]
        laid_out = [t.mT.contiguous() if t.dim() == 3 else t.unsqueeze(1) for t in start]
        parameters = [t.requires_grad_() for t in laid_out]
        optimizer = torch.optim.Adam(parameters, lr=LEARNING_RATE, fused=True)
        for order in orders:
            losses = []
            for chosen in torch.from_numpy(order).split(work.batch_size, dim=1):
                flat = chosen.reshape(-1)
                scores = logits(parameters, images.index_select(0, flat).view(replicas, -1, images.shape[1]))
                targets = labels.index_select(0, flat)
                loss = functional.cross_entropy(scores.flatten(0, 1), targets, reduction="none")
                loss = loss.view(replicas, -1).mean(1)
                optimizer.zero_grad(set_to_none=True)
                loss.sum().backward()
                optimizer.step()
                losses.append(loss.detach())
            with torch.no_grad():
                scores = logits(parameters, val_images.expand(replicas, -1, -1))
                right = (scores.argmax(2) == val_labels).double().mean(1)
        return list(zip(torch.stack(losses).mean(0).tolist(), right.tolist(), strict=True))

    for depth in work.depths:
        train_stack(depth, work.seeds, work.few(work.orders_of(work.seeds)))
    return lambda depth, seeds: train_stack(depth, seeds, work.orders_of(seeds))


if __name__ == "__main__":
    compete(prepare, stacked=True)
