"""The training examples of a step: a function of the seed and the step, gathered at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from netdepth.config import derive_seed
from netdepth.data.augment import Augmentation
from netdepth.data.splits import Split

__all__ = ["Batches", "epoch_order"]


def epoch_order(seed: int, epoch: int, size: int) -> Tensor:
    """The order of epoch ``epoch`` (from 0) as int64 ``[size]``, a function of (seed, epoch)."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    return torch.randperm(size, generator=generator)


class Batches:
    """The training batches of a run, or of several seeds side by side, by step number.

    Steps may be read in any order. The last batch of an epoch may be smaller. ``augment`` changes each replica's
    images, with random numbers from the replica's seed and the step. ``indexed`` batches also hold the indices of
    their images in the split.

    With a ``share`` (rank, world) only that rank's part of every batch is returned: parts are consecutive and differ
    in size by one image at most, larger ones first. Order and augmentation are those of the whole batch.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        seeds: Sequence[int],
        augment: Augmentation | None = None,
        share: tuple[int, int] = (0, 1),
        *,
        indexed: bool = False,
    ) -> None:
        self.split = split
        self.batch_size = batch_size
        self.seeds = tuple(seeds)
        self.augment = augment
        self.rank, self.world = share
        self.indexed = indexed
        self.steps_per_epoch = -(-len(split) // batch_size)
        self._epoch = -1
        self._orders = torch.empty(0, 0, dtype=torch.int64)

    def size(self, step: int) -> int:
        """The number of images of step ``step`` for one replica, on all ranks together."""
        return min(self.batch_size, len(self.split) - step % self.steps_per_epoch * self.batch_size)

    def __call__(self, step: int) -> tuple[Tensor, ...]:
        """Step ``step`` (from 0): uint8 ``[S·b, C, H, W]``, labels int64 ``[S·b]`` and, if ``indexed``, the images'
        indices int64 ``[S·b]``, on the split's device."""
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            orders = [epoch_order(seed, epoch, len(self.split)) for seed in self.seeds]
            self._orders = torch.stack(orders).to(self.split.labels.device, non_blocking=True)
            self._epoch = epoch
        chosen = self._orders[:, position * self.batch_size : (position + 1) * self.batch_size].reshape(-1)
        inputs, labels = self.split.inputs.index_select(0, chosen), self.split.labels.index_select(0, chosen)
        if self.augment is not None:
            replicas = zip(self.seeds, inputs.chunk(len(self.seeds)), strict=True)
            inputs = torch.cat([self.augment(images, derive_seed(seed, "augment", step)) for seed, images in replicas])
        batch = (inputs, labels, chosen) if self.indexed else (inputs, labels)
        if self.world > 1:
            each, more = divmod(len(labels), self.world)
            start = self.rank * each + min(self.rank, more)
            return tuple(part[start : start + each + (self.rank < more)] for part in batch)
        return batch
