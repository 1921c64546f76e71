"""What is minimised. Evaluation always reports plain cross-entropy in nats, whatever was minimised."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from torch import Tensor
from torch.nn import functional as F

from netdepth.errors import BadInput
from netdepth.registry import Registry

__all__ = ["OBJECTIVES", "CrossEntropy", "Objective"]

Objective = Callable[[Tensor, Tensor], Tensor]
"""(logits ``[B, K]``, labels ``[B]``) to the mean loss, a scalar."""

OBJECTIVES: Registry[Objective] = Registry("objective")


class CrossEntropy:
    """Mean cross-entropy in nats with optional label smoothing (Szegedy et al. 2016, §7)."""

    def __init__(self, label_smoothing: float) -> None:
        self.label_smoothing = label_smoothing

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)


@OBJECTIVES.register("cross-entropy")
def cross_entropy(
    *, label_smoothing: Annotated[float, "share of the target spread evenly over the classes"] = 0.0
) -> Objective:
    """Cross-entropy against the labels."""
    if not 0 <= label_smoothing < 1:
        raise BadInput(f"objective.label_smoothing = {label_smoothing} is out of range; it takes 0 to below 1")
    return CrossEntropy(label_smoothing)
