"""The training examples of a step, gathered at once, and how their images are altered (augmentation).

Both are functions of the seed and the step. A new augmentation is a function registered in `AUGMENTATIONS`. It sees
uint8 pixels, before the network normalises them, whole batches at once, on their device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

import torch
from torch import Generator, Tensor

from netdepth.config import derive_seed
from netdepth.data.splits import Split
from netdepth.errors import BadInput
from netdepth.registry import Registry

__all__ = ["AUGMENTATIONS", "Augmentation", "Batches", "epoch_order"]

Augmentation = Callable[[Tensor, int], Tensor]
"""Images uint8 ``[B, C, H, W]`` and a seed to new images of the same type, shape and device."""

AUGMENTATIONS: Registry[Augmentation] = Registry("augmentation")
"""An augmentation function takes (input_shape) and its own settings.

The augmentation draws from a CPU generator with the seed of the call and from nothing else, so that every device sees
the same images.
"""


@AUGMENTATIONS.register("none")
def none(input_shape: tuple[int, int, int]) -> Augmentation:
    """Images as they are."""
    return lambda images, seed: images


@AUGMENTATIONS.register("crop-flip")
def crop_flip(
    input_shape: tuple[int, int, int],
    *,
    pad: Annotated[int, "pixels added at every border before a random crop to the old size"] = 4,
    flip: Annotated[bool, "mirror half of the images, chosen at random, left to right"] = True,
    cutout: Annotated[int, "side of a square that is blotted out at a random place; 0: none"] = 0,
    fill: Annotated[int, "grey value of padding and square, 0 (black) to 255"] = 0,
) -> Augmentation:
    """Mirror at random, pad and crop at random (He et al. 2016, §4.2), optional cutout.

    The paper pads images whose mean has been subtracted, so with the mean. Here pixels are padded before they are
    normalised, with black by default (``fill``); 120 is close to the mean of CIFAR-10. Cutout is DeVries &
    Taylor 2017, "Improved Regularization with Cutout", §3: the centre is any pixel, the square is cut off
    at the border and filled like the padding. Crops are the same with and without flips, and both are the same with
    and without cutout.

    Raises:
        BadInput: a setting out of range for the images.
    """
    _, height, width = input_shape
    shorter = min(height, width)
    for name, value, largest in (("pad", pad, shorter - 1), ("cutout", cutout, shorter), ("fill", fill, 255)):
        if not 0 <= value <= largest:
            raise BadInput(f"augmentation.{name} = {value} is out of range; it takes 0 to {largest}")

    def augment(images: Tensor, seed: int) -> Tensor:
        generator = Generator().manual_seed(seed)
        bounds = [2 * pad + 1, 2 * pad + 1, 2, *([height, width] if cutout else [])]
        draws = torch.stack([torch.randint(bound, (len(images),), generator=generator) for bound in bounds])
        top, left, mirrored, *centre = draws.to(images.device, non_blocking=True)  # one small transfer, not five
        if pad or flip:
            images = _crop(_canvases(images, pad, fill, flip), top, left, mirrored if flip else 0, height, width)
        if cutout:
            rows, columns = _stretch(centre[0], height, cutout), _stretch(centre[1], width, cutout)
            kept = 1 - rows[:, None, :, None] * columns[:, None, None, :]
            images = (images - fill) * kept + fill  # modulo 256, so exact; masked_fill takes ten times as long
        return images

    return augment


def _canvases(images: Tensor, pad: int, fill: int, flip: bool) -> Tensor:
    """Every image on a canvas ``pad`` larger at each border: ``[1, B, C, H + 2 pad, W + 2 pad]``, or ``[2, ...]``
    with the mirrored images behind the others: to make both costs less than to choose between them."""
    count, channels, height, width = images.shape
    canvases = images.new_full((1 + flip, count, channels, height + 2 * pad, width + 2 * pad), fill)
    inside = canvases[..., pad : pad + height, pad : pad + width]
    inside[0] = images
    if flip:
        inside[1] = images.flip(3)
    return canvases


def _crop(canvases: Tensor, top: Tensor, left: Tensor, side: Tensor | int, height: int, width: int) -> Tensor:
    """The ``height`` x ``width`` pixels below and right of (``top``, ``left``) on ``side`` 0 or 1, all int64 ``[B]``.

    An image is gathered row by row: every run of ``width`` bytes in memory is a row of one view, and `index_select`
    copies the right rows. That is about six times as fast as gathering pixels.
    """
    _, count, channels, tall, wide = canvases.shape
    each, planes, rows = (torch.arange(n, device=canvases.device) for n in (count, channels, height))
    first = ((side * count + each) * channels * tall + top) * wide + left
    starts = first[:, None, None] + (planes[:, None] * tall + rows) * wide
    runs = canvases.view(-1).unfold(0, width, 1)
    return runs.index_select(0, starts.view(-1)).view(count, channels, height, width)


def _stretch(centre: Tensor, size: int, side: int) -> Tensor:
    """uint8 ``[B, size]``: 1 for the places in a stretch of ``side`` around ``centre`` ``[B]``, else 0."""
    offset = torch.arange(size, device=centre.device) - centre[:, None] + side // 2
    return ((offset >= 0) & (offset < side)).to(torch.uint8)


# --- batches ---


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
