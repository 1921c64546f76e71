"""A linear probe: simple classifiers on the features of a network, the input of its last stage.

k nearest neighbours, a linear support vector machine and logistic regression, all scikit-learn's. Each has one
nuisance parameter, chosen on validation; only the chosen one is tested. The same on raw pixels is the classical
baseline.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from netdepth.data import Split
from netdepth.data.splits import stratified_choice
from netdepth.errors import BadInput
from netdepth.models import Network, OwnNetwork

__all__ = ["CANDIDATES", "Features", "classifier", "features_of", "pixels_of", "right_answers", "subset"]

CANDIDATES: dict[str, tuple[float, ...]] = {
    "knn": (25, 15, 11, 7, 5, 3, 1),
    "svm": (1e-4, 1e-3, 1e-2, 1e-1, 1.0),
    "logistic": (1e-3, 1e-2, 1e-1, 1.0, 10.0),
}
"""k, or C on standardised features: the smoothest first, which also wins if two are equally good."""

CHUNK_PIXELS = 500 * 32 * 32


@dataclass(frozen=True)
class Features:
    """Features ``values`` float32 ``[N, F]`` of images with ``labels`` int64 ``[N]``. ``data_digest`` is that of their
    data set, ``computed_by`` the sha256 of a network's weights, or ``pixels``."""

    values: np.ndarray
    labels: np.ndarray
    data_digest: str
    computed_by: str

    def __len__(self) -> int:
        return len(self.labels)


def subset(split: Split, size: int | None) -> Split:
    """At most ``size`` images of ``split`` with its class shares, always the same ones; None: all."""
    if size is None or size >= len(split):
        return split
    chosen = torch.from_numpy(stratified_choice(split.labels.numpy(), size, stream=2))
    return Split(split.inputs[chosen], split.labels[chosen])


@torch.inference_mode()
def features_of(model: Network, split: Split, data_digest: str, weights_sha256: str) -> Features:
    """The input of the last stage of ``model``, in eval mode, with the network's own normalisation.

    Raises:
        BadInput: images of another shape than the network takes; a network of the user's own without a linear head.
    """
    if isinstance(model, OwnNetwork):
        model.last_linear()
    shape = tuple(split.inputs.shape[1:])
    if shape != tuple(model.input_shape):
        raise BadInput(f"images of {list(shape)} do not fit a network that takes {list(model.input_shape)}")
    (path,) = list(model.stage_paths().values())[-1]
    seen: list[Tensor] = []

    def keep(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
        seen.append(args[0].flatten(1).float())

    training = model.training
    hook = model.get_submodule(path).register_forward_pre_hook(keep)
    try:
        model.eval()
        for images in torch.split(split.inputs, max(1, min(500, CHUNK_PIXELS // math.prod(shape[1:])))):
            model(images)
    finally:
        hook.remove()
        model.train(training)
    return Features(torch.cat(seen).numpy(), split.labels.numpy(), data_digest, weights_sha256)


def pixels_of(split: Split, data_digest: str) -> Features:
    """The pixels themselves, 0 to 1."""
    return Features((split.inputs.flatten(1).float() / 255).numpy(), split.labels.numpy(), data_digest, "pixels")


def classifier(kind: str, value: float) -> Any:
    """The scikit-learn estimator of ``kind`` with its nuisance parameter ``value``.

    Linear ones standardise their features; their tolerance is larger than scikit-learn's default, which saves most of
    the time.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    if kind == "knn":
        return KNeighborsClassifier(n_neighbors=int(value), algorithm="brute")
    if kind == "svm":
        return make_pipeline(StandardScaler(), LinearSVC(C=value, dual="auto", random_state=0, tol=1e-2))
    return make_pipeline(StandardScaler(), LogisticRegression(C=value, tol=1e-3, max_iter=300))


def right_answers(kind: str, value: float, train: Features, other: Features, threads: int = 1) -> np.ndarray:
    """Which of ``other`` a classifier fitted to ``train`` gets right, bool ``[N]``.

    Raises:
        BadInput: ``other`` is of another data set, or its features come from another network.
    """
    if train.data_digest != other.data_digest:
        raise BadInput(
            f"these test images belong to another data set (digest {other.data_digest[:10]}) than the training images "
            f"({train.data_digest[:10]}); a classifier can only be tested on the classes it was trained on"
        )
    if train.computed_by != other.computed_by:
        raise BadInput(
            f"these features come from {other.computed_by[:10]}, the training features from {train.computed_by[:10]}"
        )
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    # One thread, as for small runs: several threads on a busy machine wait for each other.
    with warnings.catch_warnings(), threadpool_limits(threads):
        warnings.simplefilter("ignore", ConvergenceWarning)  # a fit that stops early is a candidate like any other
        fitted = classifier(kind, value).fit(train.values, train.labels)
        return np.asarray(fitted.predict(other.values) == other.labels)
