"""Do the maps matter? Pixels are taken out, or put in, in the order that a map names, and the answer is watched.

Petsiuk et al. 2018, "RISE", §4.2 (the deletion and insertion metrics): the probability of a class falls fast when
the pixels that carry it go first, and rises fast when they come first. Deleted pixels become the network's own
mean, which is zero after its normalisation; insertion begins from the blurred picture, as theirs does.

Alone these curves say little, since a network's answer falls whatever is taken from it. So each is held against
controls: `moved`, the same map somewhere else, which takes out as much and as coherent a piece; and `scattered`
order, pixels drawn one by one, which tears the picture everywhere at once.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

__all__ = ["FRACTIONS", "area", "blurred", "curves", "moved", "ranks", "scattered"]

FRACTIONS = tuple(i / 10 for i in range(11))
"""Shares of the pixels that are taken out or put in."""


def ranks(maps: Tensor, generator: Generator) -> Tensor:
    """The place of each pixel, ``[B, H, W]``, in the order of decreasing ``maps`` ``[B, H, W]``; ties at random."""
    values = maps.flatten(1)
    shuffled = torch.rand(values.shape, generator=generator).argsort(1).to(values.device)
    order = shuffled.gather(1, values.gather(1, shuffled).argsort(dim=1, descending=True, stable=True))
    return order.argsort(1).view(maps.shape)


def scattered(maps: Tensor, generator: Generator) -> Tensor:
    """The values of each of ``maps`` ``[B, H, W]``, every one at a place of its own choosing."""
    values = maps.flatten(1)
    order = torch.rand(values.shape, generator=generator).argsort(1).to(values.device)
    return values.gather(1, order).view(maps.shape)


def moved(maps: Tensor, generator: Generator) -> Tensor:
    """Each of ``maps`` ``[B, H, W]`` somewhere else: mirrored or not, along either axis, and shifted around the edges.

    Its values and its smoothness stay, so what it names is as large and as much in one piece. The shift is drawn
    evenly from all there are, so some lie nearly where they were: the control is a little too good, never too bad.
    """
    _, height, width = maps.shape
    draws = torch.stack(
        [torch.randint(high, (len(maps),), generator=generator) for high in (2, 2, height, width)], dim=1
    ).tolist()
    made = []
    for values, (down, across, rows, columns) in zip(maps, draws, strict=True):
        mirrored = values.flip([axis for axis, flip in ((0, down), (1, across)) if flip])
        made.append(mirrored.roll((rows, columns), (0, 1)))
    return torch.stack(made)


def blurred(images: Tensor, sigma: float) -> Tensor:
    """uint8 ``[B, C, H, W]`` under a Gaussian of ``sigma`` pixels, mirrored at the edges."""
    pixels = images.to(torch.get_default_dtype())
    channels = pixels.shape[1]
    for axis, length in ((2, pixels.shape[2]), (3, pixels.shape[3])):
        reach = min(round(3 * sigma), length - 1)
        kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=pixels.device) / sigma) ** 2)
        kernel = (kernel / kernel.sum()).view(1, 1, *((-1, 1) if axis == 2 else (1, -1)))
        padded = F.pad(pixels, (0, 0, reach, reach) if axis == 2 else (reach, reach, 0, 0), mode="reflect")
        pixels = F.conv2d(padded, kernel.expand(channels, 1, -1, -1), groups=channels)
    return pixels.round().to(torch.uint8)


def curves(
    model: nn.Module,
    images: Tensor,
    classes: Tensor,
    orders: list[Tensor],
    *,
    blank: Tensor,
    blur: Tensor,
    report: Callable[[int], None] = lambda images: None,
) -> Tensor:
    """Probability of ``classes`` ``[B]`` as ever more pixels are deleted and inserted, float64 ``[2, orders, B, 11]``.

    Args:
        model: in eval mode; maps uint8 ``[B, C, H, W]`` to logits.
        images: uint8 ``[B, C, H, W]``.
        orders: `ranks` ``[B, H, W]``, one for each map that is compared.
        blank: uint8, to broadcast to ``images``: what a deleted pixel becomes.
        blur: uint8 ``[B, C, H, W]``: what insertion begins from.
        report: called with the number of pictures the network has seen more of.

    Returns:
        First index 0: deleted, from the picture (0 %) to ``blank`` (100 %). 1: inserted, from ``blur`` to the
        picture. Last index: `FRACTIONS`.
    """
    total = images.shape[2] * images.shape[3]
    empty = blank.expand_as(images)

    @torch.inference_mode()
    def probability(pixels: Tensor) -> Tensor:
        shares: Tensor = model(pixels).double().softmax(1).gather(1, classes[:, None])[:, 0]
        report(len(pixels))
        return shares

    whole, deleted, hidden = probability(images), probability(empty), probability(blur)
    made = torch.empty(2, len(orders), len(images), len(FRACTIONS), dtype=torch.float64, device=images.device)
    for number, order in enumerate(orders):
        made[0, number, :, 0], made[0, number, :, -1] = whole, deleted
        made[1, number, :, 0], made[1, number, :, -1] = hidden, whole
        for place, fraction in list(enumerate(FRACTIONS))[1:-1]:
            named = (order < round(fraction * total))[:, None]
            made[0, number, :, place] = probability(torch.where(named, empty, images))
            made[1, number, :, place] = probability(torch.where(named, images, blur))
    return made


def area(curves: Tensor) -> Tensor:
    """Area under ``curves`` ``[..., 11]`` over `FRACTIONS`, by the trapezoid rule: a mean probability."""
    return torch.trapezoid(curves, torch.tensor(FRACTIONS, dtype=curves.dtype, device=curves.device))
