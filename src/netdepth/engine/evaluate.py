"""Looking at a network: logits over a split, and the metrics that follow from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from netdepth.data import Split

__all__ = ["class_report", "logits_of", "loss_and_accuracy", "metrics"]

CHUNK = 1000
"""Images per forward pass: large enough to be efficient, small enough to stay in cache."""


@torch.inference_mode()
def logits_of(model: nn.Module, split: Split) -> Tensor:
    """Logits ``[N, K]`` of ``model`` in eval mode on ``split``; the mode is put back afterwards."""
    training = model.training
    model.eval()
    try:
        return torch.cat([model(chunk) for chunk in torch.split(split.inputs, CHUNK)])
    finally:
        model.train(training)


@torch.inference_mode()
def loss_and_accuracy(model: nn.Module, split: Split) -> tuple[float, float]:
    """Mean cross-entropy (nats) and accuracy of ``model`` in eval mode; summed in float64."""
    logits = logits_of(model, split)
    loss = F.cross_entropy(logits, split.labels, reduction="none").double().mean()
    accuracy = (logits.argmax(1) == split.labels).double().mean()
    return float(loss), float(accuracy)


def metrics(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Loss, accuracy and weighted precision, recall and F1 of ``logits`` ``[N, K]``, in float64.

    A class that is never predicted has precision 0, as in scikit-learn with ``zero_division=0``.
    """
    from sklearn.metrics import precision_recall_fscore_support

    truth = labels.cpu().numpy()
    predicted = logits.argmax(1).cpu().numpy()
    precision, recall, f1, _ = precision_recall_fscore_support(truth, predicted, average="weighted", zero_division=0)
    return {
        "loss": float(F.cross_entropy(logits.double(), labels)),
        "accuracy": float(np.mean(truth == predicted)),
        "precision_weighted": float(precision),
        "recall_weighted": float(recall),
        "f1_weighted": float(f1),
    }


def class_report(logits: Tensor, labels: Tensor, classes: Sequence[str]) -> dict[str, Any]:
    """``per_class`` precision, recall, F1 and support, and ``confusion`` ``[true][predicted]``."""
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    truth = labels.cpu().numpy()
    predicted = logits.argmax(1).cpu().numpy()
    index = list(range(len(classes)))
    columns = precision_recall_fscore_support(truth, predicted, labels=index, zero_division=0)
    names = ("precision", "recall", "f1", "support")
    per_class = [
        {
            "class": label,
            **{name: (int if name == "support" else float)(col[i]) for name, col in zip(names, columns, strict=True)},
        }
        for i, label in enumerate(classes)
    ]
    return {"per_class": per_class, "confusion": confusion_matrix(truth, predicted, labels=index).tolist()}
