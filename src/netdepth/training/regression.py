"""Values instead of classes: the mean losses of a network's K outputs for K numbers, and what is told of them.

Outputs and targets are ``[N, K]``. The mean is over all N·K of them, as scikit-learn's ``uniform_average`` has it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from torch import Tensor
from torch.nn import functional as F

__all__ = ["Regression", "constant_loss", "value_metrics"]


class Regression:
    """The mean squared error, or the mean absolute one, of outputs and targets ``[B, K]``.

    A prediction of the mean minimises the first among all constant ones, the median the second.
    """

    targets = "values"
    """What it learns, as ``dataset.targets`` calls it; an objective without this attribute learns classes."""

    def __init__(self, name: Literal["mse", "mae"]) -> None:
        self.name = name

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean loss, a scalar in the targets' unit (``mse``: its square)."""
        loss = F.mse_loss if self.name == "mse" else F.l1_loss
        return loss(outputs, targets.to(outputs.dtype))

    def constant_loss(self, targets: Tensor) -> float:
        """The loss of the best constant prediction of ``targets`` ``[N, K]``: their variance (divided by N), or their
        mean absolute deviation from the median; the mean over the K."""
        targets = targets.double()
        if self.name == "mse":
            return float(targets.var(0, correction=0).mean())
        ordered = targets.sort(0).values
        median = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
        return float((targets - median).abs().mean())


def constant_loss(objective: Callable[[Tensor, Tensor], Tensor], targets: Tensor) -> float:
    """The loss of the best constant prediction of ``targets`` ``[N, K]``; where an objective of the user's own does not
    say it (``constant_loss``), that of their mean."""
    if isinstance(objective, Regression):
        return objective.constant_loss(targets)
    own = getattr(objective, "constant_loss", None)
    targets = targets.double()
    return float(objective(targets.mean(0).expand_as(targets), targets) if own is None else own(targets))


def value_metrics(outputs: Tensor, targets: Tensor) -> dict[str, float]:
    """``mse``, ``mae`` and ``r2`` of ``outputs`` and ``targets`` ``[N, K]``, in float64.

    They are scikit-learn's `mean_squared_error`, `mean_absolute_error` and `r2_score`. R² is the mean over the K of
    1 - Σ (t - o)² / Σ (t - mean t)²; for targets that are all the same it is 1 if every output is right and else 0, and
    of one example it is not known (NaN).
    """
    outputs, targets = outputs.double(), targets.double()
    errors = outputs - targets
    left, scatter = errors.square().sum(0), (targets - targets.mean(0)).square().sum(0)
    r2 = (1 - left / scatter).where(scatter > 0, (left == 0).double())
    return {
        "mse": float(errors.square().mean()),
        "mae": float(errors.abs().mean()),
        "r2": float(r2.mean()) if len(targets) > 1 else math.nan,
    }
