"""Plain eager PyTorch, one seed at a time: the reference. Tensors in memory, autograd, one Adam.

``eager-foreach`` leaves the choice of Adam to PyTorch (foreach on a CPU), ``eager-fused`` asks for the
fused one. ``eager-one-thread`` is the latter on one thread, ``eager-processes`` in two processes of one thread.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from baselines.session import use_threads
from baselines.study_session import LEARNING_RATE, Orders, Outcome, Train, Work, compete


def network(start: Sequence[torch.Tensor]) -> nn.Sequential:
    """A ReLU network with the given weights and biases."""
    layers: list[nn.Module] = []
    for weight, bias in zip(start[::2], start[1::2], strict=True):
        layer = nn.Linear(weight.shape[1], weight.shape[0])
        layer.weight.data, layer.bias.data = weight, bias
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def prepare(work: Work) -> Train:
    use_threads(work.threads)
    images, labels = torch.from_numpy(work.pixels("train")), torch.from_numpy(work.labels("train"))
    val_images, val_labels = torch.from_numpy(work.pixels("val")), torch.from_numpy(work.labels("val"))
    fused = None if work.variant == "eager-foreach" else True

    def train_one(depth: int, seed: int, orders: Orders) -> Outcome:
        model = network([torch.from_numpy(array) for array in work.start(depth, seed)])
        optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=fused)
        for order in orders:
            losses = []
            for chosen in torch.from_numpy(order).split(work.batch_size):
                loss = functional.cross_entropy(model(images.index_select(0, chosen)), labels.index_select(0, chosen))
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                losses.append(loss.detach())
            with torch.no_grad():
                right = (model(val_images).argmax(1) == val_labels).double().mean()
        return torch.stack(losses).mean().item(), right.item()

    for depth in work.depths:
        train_one(depth, work.seeds[0], work.few(work.orders(work.seeds[0])))
    return lambda depth, seeds: [train_one(depth, seed, work.orders(seed)) for seed in seeds]


if __name__ == "__main__":
    compete(prepare, processes=2 if sys.argv[1] == "eager-processes" else 1)
