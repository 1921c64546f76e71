"""Which examples make up step t: a function of the seed and the step, gathered in one go."""

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

    Any step can be asked for at any time. The last batch of an epoch holds what is left and may be smaller.
    ``augment`` alters each lane's images, by a stream of the lane's own seed and the step. ``indexed`` batches
    also say which images of the split they hold.

    With a ``share`` (rank, world) only that rank's part of every batch is given: parts are consecutive and differ in
    size by one image at most, the first ones being the larger. Order and augmentation are those of the whole.
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
        """How many images step ``step`` has in a lane, on all ranks together."""
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
            lanes = zip(self.seeds, inputs.chunk(len(self.seeds)), strict=True)
            inputs = torch.cat([self.augment(images, derive_seed(seed, "augment", step)) for seed, images in lanes])
        batch = (inputs, labels, chosen) if self.indexed else (inputs, labels)
        if self.world > 1:
            each, more = divmod(len(labels), self.world)
            start = self.rank * each + min(self.rank, more)
            return tuple(part[start : start + each + (self.rank < more)] for part in batch)
        return batch
