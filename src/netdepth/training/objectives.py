"""What is minimised. Evaluation always reports plain cross-entropy in nats, whatever was minimised."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

from torch import Tensor
from torch.nn import functional as F

from netdepth.errors import BadInput
from netdepth.registry import Registry

__all__ = ["OBJECTIVES", "CrossEntropy", "Distillation", "Objective"]

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


class Distillation:
    """alpha T² KL(softmax(t / T) || softmax(z / T)) + (1 - alpha) CE(z, labels), for logits z and a teacher's t.

    Hinton, Vinyals & Dean 2015, "Distilling the Knowledge in a Neural Network", §2. Gradients of the soft part shrink
    as 1 / T², which the factor T² takes back. The paper has cross-entropy where this has KL: they differ by the
    entropy of the teacher, which no weight of the student moves, and KL is 0 where the student says the same.

    ``soft_targets`` gives a teacher's logits ``[B, K]`` of a batch: uint8 images ``[B, C, H, W]`` as trained on, and
    their indices in the training part ``[B]``. `netdepth.training.teacher` sets it.
    """

    def __init__(self, temperature: float, alpha: float, augmented: bool) -> None:
        self.temperature, self.alpha, self.augmented = temperature, alpha, augmented
        self.soft_targets: Callable[[Tensor, Tensor], Tensor] | None = None

    def __call__(self, logits: Tensor, labels: Tensor, soft: Tensor | None = None) -> Tensor:
        """The mean loss in nats; without ``soft`` (or with alpha 0) that of the labels alone."""
        hard = F.cross_entropy(logits, labels)
        if soft is None or self.alpha == 0:
            return hard
        t = self.temperature
        student, teacher = F.log_softmax(logits / t, 1), F.log_softmax(soft.to(logits.dtype) / t, 1)
        divergence = F.kl_div(student, teacher, reduction="batchmean", log_target=True)
        return self.alpha * t * t * divergence + (1 - self.alpha) * hard


@OBJECTIVES.register("distill", example={"teacher": "a-run"}, unhashed=("teacher", "weights"))
def distill(
    *,
    teacher: Annotated[str, "the run to learn from: a path or a unique prefix of its folder's name"],
    temperature: Annotated[float, "T: both sets of logits are divided by it"] = 4.0,
    alpha: Annotated[float, "share of the soft targets; the labels have the rest"] = 0.9,
    teacher_sees: Annotated[
        Literal["original", "augmented"],
        "original: targets of each training image as it is, computed once; augmented: of each batch, computed anew",
    ] = "original",
    weights: Annotated[Literal["best", "last"] | None, "the teacher's weights; null: those it reports"] = None,
    sha256: Annotated[str | None, "digest of those weights; filled in when the run is found"] = None,
) -> Objective:
    """Distillation: soft targets of a teacher beside the labels (Hinton et al. 2015)."""
    if not 0 < temperature <= 1000:
        raise BadInput(f"objective.temperature = {temperature} is out of range; it takes numbers above 0, to 1000")
    if not 0 <= alpha <= 1:
        raise BadInput(f"objective.alpha = {alpha} is out of range; it takes 0 to 1")
    return Distillation(temperature, alpha, teacher_sees == "augmented")
