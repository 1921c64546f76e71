"""Whether an exported file computes what the network computes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from netdepth.errors import RunFailed
from netdepth.models import Network

__all__ = ["TOLERANCE", "Parity", "compare"]

TOLERANCE = 1e-5
BATCHES = (1, 3)
"""Sizes of the first batches; the rest of the images are one batch. A file that fixes the batch fails here."""

Logits = Callable[[np.ndarray], np.ndarray]
"""uint8 pixels ``[N, C, H, W]`` to logits ``[N, K]``, as the exported file has them."""


@dataclass(frozen=True)
class Parity:
    """The largest differences over ``images``: of a probability, and of a logit in units of the largest logit's size
    in its image (of 1 where that is smaller)."""

    images: int
    logit: float
    probability: float
    same_class: int

    @property
    def holds(self) -> bool:
        """Both differences are at most `TOLERANCE`; one that is NaN is not."""
        return self.logit <= TOLERANCE and self.probability <= TOLERANCE


def compare(model: Network, exported: Logits, images: Tensor) -> Parity:
    """The logits of ``model`` in eval mode against those of its exported twin, on uint8 ``images`` ``[N, C, H, W]``.

    float32 carries seven digits, so logits of a few tens cannot agree to 1e-5 in absolute terms, whoever computes
    them: they are compared relative to the largest of their image, probabilities absolutely.

    Raises:
        RunFailed: they differ by more than `TOLERANCE`, or the twin's logits have another shape.
    """
    with torch.inference_mode():
        expected = model.eval()(images).double().numpy()
    parts, start = [], 0
    for size in (*BATCHES, len(images)):
        if start < len(images):
            parts.append(exported(images[start : start + size].numpy()))
            start += size
    found = np.concatenate(parts).astype(np.float64)
    if found.shape != expected.shape:
        raise RunFailed(f"the exported network gives logits of shape {found.shape}, not {expected.shape}")
    scale = np.maximum(np.abs(expected).max(axis=1, keepdims=True), 1.0)
    parity = Parity(
        images=len(images),
        logit=float((np.abs(found - expected) / scale).max()),
        probability=float(np.abs(_softmax(found) - _softmax(expected)).max()),
        same_class=int((found.argmax(1) == expected.argmax(1)).sum()),
    )
    if not parity.holds:
        raise RunFailed(
            f"the exported network is not the trained one: on {parity.images} images logits differ by up to "
            f"{parity.logit:.2g} of the largest and probabilities by up to {parity.probability:.2g}, "
            f"{parity.same_class} have the same class; {TOLERANCE:g} is allowed. Nothing was written"
        )
    return parity


def _softmax(logits: np.ndarray) -> np.ndarray:
    return torch.from_numpy(logits).softmax(1).numpy()
