"""Evaluating networks: logits over a split, and the metrics that follow from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from netdepth.config import Component
from netdepth.data import Split
from netdepth.errors import BadInput
from netdepth.registry import Registry, as_factory
from netdepth.runs import METRICS as BUILT_IN
from netdepth.runs import VALUE_METRICS, ClassScores
from netdepth.training.gradients import MLPPass, Workspace
from netdepth.training.objectives import Objective, learns_values
from netdepth.training.regression import value_metrics
from netdepth.training.stack import Stack

__all__ = [
    "METRICS", "Metric", "class_report", "confusion", "logits_of", "metric_names", "metrics", "own_metrics",
    "own_names", "scores_at_evaluation",
]  # fmt: skip

Metric = Callable[[Tensor, Tensor], float]
"""(logits ``[N, K]``, labels ``[N]`` of a whole part of the data) to a number."""

METRICS: Registry[Metric] = Registry("metric", as_factory)
"""Metrics of a user's own. Each is computed at every evaluation, by its default settings; none decides anything, so
none is in a fingerprint. A metric function takes its settings and returns a `Metric`. Also taken: a function of logits
and labels."""

CHUNK = 500
"""Images per forward pass: large enough to be efficient, small enough to stay in cache."""
CHUNK_PIXELS = CHUNK * 32 * 32
"""Most pixels per forward pass of a convolutional network, whose activations grow with the image."""


def logits_of(stack: Stack, replicas: Sequence[int], split: Split) -> list[Tensor]:
    """Logits ``[N, K]`` of the networks in ``replicas``, in eval mode, on ``split``; the modes are put back afterwards.

    In the precision of the weights: a network trained in bf16 is evaluated in float32, as after loading its
    checkpoint.
    """
    if replicas and len(stack) > 1 and stack.models[0].relu_chain() is not None:
        return _logits_together(MLPPass(stack, replicas), split)
    return [_logits_of_one(stack, stack.models[index], split) for index in replicas]


@torch.inference_mode()
def _logits_of_one(stack: Stack, model: nn.Module, split: Split) -> Tensor:
    chunk = CHUNK
    if stack.convolutional:
        chunk = max(1, min(CHUNK, CHUNK_PIXELS // math.prod(split.inputs.shape[2:])))
    training = model.training
    model.eval()
    try:
        return torch.cat([model(stack.images(pixels)) for pixels in torch.split(split.inputs, chunk)])
    finally:
        model.train(training)


@torch.inference_mode()
def _logits_together(net: MLPPass, split: Split) -> list[Tensor]:
    """All replicas chunk by chunk: they carry the same statistics, so the images are normalised once."""
    logits = split.inputs.new_empty((net.size, len(split), net.model.num_classes), dtype=net.weights[0].dtype)
    space = None
    for start in range(0, len(split), CHUNK):
        pixels = split.inputs[start : start + CHUNK]
        if space is None or len(space.images) != len(pixels):
            space = Workspace(net, len(pixels), keep=False, shared=True)
        space.take(pixels, net.model)
        logits[:, start : start + len(pixels)] = net.forward(space)
    return list(logits)


@torch.inference_mode()
def scores_at_evaluation(
    stack: Stack, replicas: Sequence[int], split: Split, objective: Objective | None = None
) -> list[dict[str, float]]:
    """What a record of ``metrics.jsonl`` tells of ``split``, for the networks in ``replicas``, in eval mode: loss and
    accuracy (of an objective that `learns_values`: all metrics) and `own_metrics`; summed in float64."""
    found: list[dict[str, float]] = []
    for logits in logits_of(stack, replicas, split):
        if learns_values(objective):
            found.append(metrics(logits, split.labels, objective))
            continue
        loss = F.cross_entropy(logits, split.labels, reduction="none").double().mean()
        accuracy = (logits.argmax(1) == split.labels).double().mean()
        found.append({"loss": float(loss), "accuracy": float(accuracy), **own_metrics(logits, split.labels)})
    return found


def own_names() -> dict[str, str]:
    """The registered metrics: the name in ``metrics.jsonl`` and ``result.json`` to that in the registry.

    Raises:
        BadInput: the name is one of netdepth's own.
    """
    names = {name.replace("-", "_"): name for name in METRICS.names()}
    if taken := sorted(names.keys() & {*BUILT_IN}):
        raise BadInput(f"a metric named {names[taken[0]]!r} would hide netdepth's own; call it otherwise")
    return names


def metric_names(objective: Objective) -> tuple[str, ...]:
    """The names of all that `metrics` tells under ``objective``.

    Raises:
        BadInput: a metric of the user's own has the name of one of netdepth's.
    """
    names, own = (VALUE_METRICS if learns_values(objective) else BUILT_IN), own_names()
    if taken := sorted(own.keys() & {*names}):
        raise BadInput(f"a metric named {own[taken[0]]!r} would hide netdepth's own; call it otherwise")
    return *names, *own


def own_metrics(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """The user's `METRICS` of ``logits`` ``[N, K]``, by their `own_names`.

    Raises:
        BadInput: one returns no number.
    """
    found = {}
    for key, name in own_names().items():
        value = METRICS.build(Component(name))(logits, labels)
        try:
            found[key] = float(value)
        except (TypeError, ValueError, RuntimeError):
            raise BadInput(f"metric {name!r} returned {type(value).__name__}; it must return one number") from None
    return found


def metrics(logits: Tensor, labels: Tensor, objective: Objective | None = None) -> dict[str, float]:
    """Loss, accuracy and weighted precision, recall and F1 of ``logits`` ``[N, K]``, in float64; and `own_metrics`.

    Weighted by class frequency, as scikit-learn's ``average="weighted"`` with ``zero_division=0``: a
    class that is never predicted has precision 0. Under an ``objective`` that `learns_values`: its loss, and
    `netdepth.training.regression.value_metrics`.
    """
    if objective is not None and learns_values(objective):
        loss = float(objective(logits.double(), labels))
        return {"loss": loss, **value_metrics(logits, labels), **own_metrics(logits, labels)}
    matrix = confusion(logits, labels)
    weights = matrix.sum(axis=1) / matrix.sum()
    precision, recall, f1 = (float(weights @ values) for values in _scores(matrix))
    return {
        "loss": float(F.cross_entropy(logits.double(), labels)),
        "accuracy": float(np.trace(matrix) / matrix.sum()),
        "precision_weighted": precision,
        "recall_weighted": recall,
        "f1_weighted": f1,
        **own_metrics(logits, labels),
    }


def confusion(logits: Tensor, labels: Tensor) -> np.ndarray:
    """Counts ``[true class, predicted class]`` of ``logits`` ``[N, K]``."""
    classes = logits.shape[1]
    pairs = labels.cpu() * classes + logits.argmax(1).cpu()
    counts: np.ndarray = torch.bincount(pairs, minlength=classes * classes).view(classes, classes).numpy()
    return counts


def _scores(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision, recall and F1 of each class ``[K]``, 0 where undefined."""
    hits, predicted, actual = np.diag(matrix), matrix.sum(axis=0), matrix.sum(axis=1)
    precision = hits / np.maximum(predicted, 1)
    recall = hits / np.maximum(actual, 1)
    return precision, recall, 2 * hits / np.maximum(predicted + actual, 1)


def class_report(logits: Tensor, labels: Tensor, classes: Sequence[str]) -> tuple[list[ClassScores], list[list[int]]]:
    """Precision, recall, F1 and support of each class, and the confusion matrix ``[true][predicted]``."""
    matrix = confusion(logits, labels)
    columns = zip(classes, *_scores(matrix), matrix.sum(axis=1), strict=True)
    per_class: list[ClassScores] = [
        {"class": label, "precision": float(p), "recall": float(r), "f1": float(f), "support": int(n)}
        for label, p, r, f, n in columns
    ]
    return per_class, matrix.tolist()
