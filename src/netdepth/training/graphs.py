"""A training step's forward and backward pass as one CUDA graph, recorded once per size of batch and replayed.

A small convolutional network launches several hundred kernels of a few microseconds each per step; launched one by
one from Python they keep a GPU waiting most of the time. A graph launches them all at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from netdepth.training.gradients import Gradients

__all__ = ["WARM_UP", "replayed"]

WARM_UP = 3
"""Steps of each size made kernel by kernel before the recording: libraries set themselves up in them."""


def replayed(compute: Gradients) -> Gradients:
    """``compute`` through a CUDA graph per size of batch; the same results, in buffers of their own.

    The first `WARM_UP` steps of a size are made as they are, so nothing is computed that is not training. What
    ``compute`` fills must stay where it is (`Stack` keeps gradients allocated), it must launch the same
    kernels each time and read nothing back.
    """
    made: dict[int, int] = {}
    recordings: dict[int, _Recording] = {}
    beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # a capture may not meet work that autograd began on the default stream

    def step(inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        size = len(labels)
        if size in recordings:
            return recordings[size](inputs, labels)
        made[size] = made.get(size, 0) + 1
        if made[size] > WARM_UP:
            recordings[size] = _Recording(compute, inputs, labels)
            return recordings[size](inputs, labels)
        ordinary = torch.cuda.current_stream()
        beside.wait_stream(ordinary)
        with torch.cuda.stream(beside):
            found = compute(inputs, labels)
        ordinary.wait_stream(beside)
        return found

    return step


class _Recording:
    """``compute`` for batches of one size: a graph, and the buffers that it reads and writes."""

    def __init__(self, compute: Gradients, inputs: Tensor, labels: Tensor) -> None:
        self.inputs, self.labels = inputs.clone(), labels.clone()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):  # records, computes nothing
            self.found = compute(self.inputs, self.labels)

    def __call__(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        self.inputs.copy_(inputs)
        self.labels.copy_(labels)
        self.graph.replay()
        loss, right = self.found
        return loss.clone(), right.clone()
