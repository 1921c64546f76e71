"""A two-dimensional slice of the loss around a network's weights (Li et al. 2018, "Visualizing the Loss Landscape").

Loss(a, b) = L(w + a·d1 + b·d2) on a fixed set of images. The directions are the paper's (§4): Gaussian, and
every filter of a direction, what makes one output channel or unit, as long as the same filter of the weights. Biases
and the scales and shifts of normalisation layers are not moved, as in the authors' code (``biasbn``). Batch norm uses
its stored statistics throughout: the network is in eval mode.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from netdepth.config import derive_seed
from netdepth.errors import BadInput

__all__ = ["coordinates", "describe_surface", "filter_directions", "mean_loss", "slice_losses"]

CHUNK_PIXELS = 250 * 32 * 32
"""Pixels per forward pass, so that activations stay small."""
FLAT, SMALL = 1e-2, 1e-3
"""A point is curved down if its smaller curvature is negative by more than this share of the larger one's size,
and by more than this many nats per unit squared: less is the rounding of a plain."""

Directions = Sequence[dict[str, Tensor]]


def coordinates(points: int, radius: float) -> list[float]:
    """``points`` values from -``radius`` to ``radius``; an odd number, so that 0 is the middle one, exactly.

    Raises:
        BadInput: an even number or fewer than 3, a radius that is not above 0.
    """
    if points < 3 or points % 2 == 0:
        raise BadInput(f"a grid of {points} points a side has no centre; it takes an odd number from 3")
    if not (math.isfinite(radius) and radius > 0):
        raise BadInput(f"a radius of {radius:g} is out of range; it takes a number above 0")
    half = points // 2
    return [radius * i / half for i in range(-half, half + 1)]


def filter_directions(model: nn.Module, seed: int, count: int = 2) -> list[dict[str, Tensor]]:
    """``count`` random directions in the weights of ``model``, each filter as long as that of the weights.

    A filter is what lies under one index of a parameter's first axis: ``[in]`` of a linear layer's ``[out, in]``,
    ``[in, h, w]`` of a convolution's. Parameters of fewer than two axes are not in a direction: they stay. Two
    networks with the same parameters, such as a residual one and its plain twin, get the same draws.

    Returns:
        By name of the parameter, of its shape, type and device.
    """
    made = []
    for index in range(count):
        generator = Generator().manual_seed(derive_seed(seed, "landscape", index))
        direction = {}
        for name, weight in model.named_parameters():
            if weight.dim() < 2:
                continue
            drawn = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
            lengths = _filter_lengths(weight.detach().double().cpu())
            direction[name] = (drawn * (lengths / _filter_lengths(drawn))).to(weight)
        made.append(direction)
    return made


def _filter_lengths(weight: Tensor) -> Tensor:
    """Euclidean length of every filter, shaped to be multiplied with ``weight``."""
    lengths: Tensor = torch.linalg.vector_norm(weight.flatten(1), dim=1)
    return lengths.view(-1, *[1] * (weight.dim() - 1))


def slice_losses(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    directions: Directions,
    steps: Sequence[float],
    begin: int = 0,
) -> Iterator[float]:
    """The mean cross-entropy (nats) at every point of the slice, row by row: ``steps[k // n]`` along the second
    direction and ``steps[k % n]`` along the first, for k from ``begin`` to n².

    ``model`` is copied and not touched. A value may be NaN or infinite.

    Args:
        model: maps ``inputs`` to logits ``[B, C]``.
        inputs: uint8 ``[B, C, H, W]``.
        labels: int64 ``[B]``.
        directions: two, from `filter_directions`.
        steps: the n coordinates of either axis.
        begin: how many points are known already.
    """
    model = copy.deepcopy(model).eval()
    moved: list[Tensor] = [parameter for name, parameter in model.named_parameters() if name in directions[0]]
    start = [parameter.detach().clone() for parameter in moved]
    first, second = ([direction[name] for name in directions[0]] for direction in directions)
    for k in range(begin, len(steps) ** 2):
        b, a = (steps[i] for i in divmod(k, len(steps)))
        with torch.no_grad():  # ended before the yield: whoever asks keeps a mode of its own
            torch._foreach_copy_(moved, start)
            torch._foreach_add_(moved, first, alpha=a)
            torch._foreach_add_(moved, second, alpha=b)
        yield mean_loss(model, inputs, labels)


@torch.inference_mode()
def mean_loss(model: nn.Module, inputs: Tensor, labels: Tensor) -> float:
    """Mean cross-entropy (nats) of ``model``, in the mode it is in, summed in float64."""
    size = max(1, CHUNK_PIXELS // math.prod(inputs.shape[2:]))
    total = torch.zeros((), dtype=torch.float64, device=labels.device)
    for pixels, truth in zip(torch.split(inputs, size), torch.split(labels, size), strict=True):
        total += F.cross_entropy(model(pixels), truth, reduction="none").double().sum()
    return float(total) / len(labels)


def describe_surface(losses: Sequence[Sequence[float]], step: float, guessing: float) -> dict[str, Any]:
    """What can be counted on a whole grid of losses ``[n, n]``.

    Args:
        losses: rows along the second direction.
        step: distance of neighbouring points.
        guessing: loss of giving every class the same probability, ln C.

    Returns:
        - ``centre``, ``lowest``, ``highest``: losses, of the finite points;
        - ``below_twice_centre``: share of all points whose loss is below twice the centre's;
        - ``below_guessing``: share of all points whose loss is below ``guessing``;
        - ``curved_down``: share of the points with eight finite neighbours at which the slice's 2x2 Hessian (central
          differences) has an eigenvalue that is negative, by more than a hundredth of the larger one's size. In the
          spirit of Li et al. 2018, §6, whose ratio is of the whole Hessian's eigenvalues. None where no point can be
          judged;
        - ``not_finite``: points whose loss is NaN or infinite.
    """
    z = np.asarray(losses, dtype=np.float64)
    finite = z[np.isfinite(z)]
    centre = float(z[len(z) // 2, len(z) // 2])
    with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinities compare and subtract as they are
        judged, down = _curved_down(z, step)
        return {
            "centre": centre,
            "lowest": float(finite.min()) if len(finite) else math.nan,
            "highest": float(finite.max()) if len(finite) else math.nan,
            "below_twice_centre": float((z < 2 * centre).mean()),
            "below_guessing": float((z < guessing).mean()),
            "curved_down": float(down.sum() / judged.sum()) if judged.any() else None,
            "not_finite": int(z.size - len(finite)),
        }


def _curved_down(z: np.ndarray, step: float) -> tuple[np.ndarray, np.ndarray]:
    """Which inner points of ``z`` have a finite Hessian, and which of those an eigenvalue below zero."""
    middle = z[1:-1, 1:-1]
    xx = (z[1:-1, 2:] - 2 * middle + z[1:-1, :-2]) / step**2
    yy = (z[2:, 1:-1] - 2 * middle + z[:-2, 1:-1]) / step**2
    xy = (z[2:, 2:] - z[2:, :-2] - z[:-2, 2:] + z[:-2, :-2]) / (4 * step**2)
    mean, half = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
    low, high = mean - half, mean + half
    judged = np.isfinite(low) & np.isfinite(high)
    return judged, judged & (low < -np.maximum(FLAT * np.abs(high), SMALL))
