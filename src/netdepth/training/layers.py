"""Gradients and activations of every weight layer on one batch.

Four tensors belong to a weight layer l (`nn.Linear`, `nn.Conv2d`), in the order of the forward pass:

- its weight W_l and the gradient of the mean cross-entropy (of values: of the objective) with respect to it;
- the output of the first `nn.ReLU` that runs after it, for dead units;
- its *representation* r_l: what the next weight layer receives, and the logits for the last one. That
  is after normalisation, nonlinearity and shortcut: in a residual net the block's sum, in which a
  signal grows, shrinks or collapses, not the branch alone. Mean, variance and cosine are those of r_l.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from netdepth.data import Split
from netdepth.text import plain
from netdepth.training.objectives import Objective, learns_values
from netdepth.training.regression import constant_loss

__all__ = ["BATCH_SIZE", "Layer", "Statistics", "probe", "probe_batch"]

BATCH_SIZE = 256
SMALLEST = torch.finfo(torch.float64).tiny


def probe_batch(split: Split, size: int = BATCH_SIZE) -> tuple[Tensor, Tensor]:
    """At most ``size`` images and labels spread evenly over ``split``: always the same ones."""
    count = min(size, len(split))
    chosen = torch.arange(count, device=split.labels.device) * len(split) // count
    return split.inputs[chosen], split.labels[chosen]


@dataclass(frozen=True)
class Layer:
    """Statistics of a weight layer; a float may be NaN or infinite.

    ``shape``: of its output for one example. ``grad_norm``, ``weight_norm``: Frobenius; ``grad_to_weight``, their
    quotient, is None for a zero weight. ``activation_mean``, ``activation_var``: over all examples and units of its
    representation. ``dead_fraction``: share of units (channels of a convolution) that the ReLU leaves at zero for every
    example; None where no `nn.ReLU` module follows. ``cosine``: mean cosine similarity of the representations over all
    pairs of different examples, a zero representation left out; None where fewer than two are left.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    grad_norm: float
    weight_norm: float
    grad_to_weight: float | None
    activation_mean: float
    activation_var: float
    dead_fraction: float | None
    cosine: float | None


@dataclass(frozen=True)
class Statistics:
    """Statistics of all ``layers`` at a ``step`` of training, on ``batch`` training images, as ``probes/*.json`` hold
    them, in the order of the forward pass.

    ``loss``: mean cross-entropy in nats, or that of an objective which learns values.
    ``gradient_ratio``: gradient norm of the first layer's weight over the last's. ``constant_loss``: of values, the
    loss of the best constant prediction of these images; None for classes.
    """

    step: int
    epoch: float
    batch: int
    loss: float
    gradient_ratio: float
    layers: tuple[Layer, ...]
    constant_loss: float | None = None

    def as_json(self) -> dict[str, object]:
        """What ``probes/*.json`` hold; without ``constant_loss`` for classes."""
        return {key: value for key, value in asdict(self).items() if (key, value) != ("constant_loss", None)}

    @property
    def moment(self) -> str:
        """``at initialisation``, ``after epoch 4``; within the first epoch ``after step 20``."""
        if self.step == 0:
            return "at initialisation"
        return f"after epoch {plain(self.epoch, 4)}" if self.epoch >= 1 else f"after step {self.step}"

    @property
    def growth(self) -> float | None:
        """Activation variance of the last hidden layer over the first one's; None without hidden layers or signal."""
        hidden = self.layers[:-1]
        if not hidden or not hidden[0].activation_var:
            return None
        return hidden[-1].activation_var / hidden[0].activation_var

    @property
    def similarity(self) -> float | None:
        """Mean cosine similarity of different images in the input of the last layer."""
        return self.layers[-2].cosine if len(self.layers) > 1 else None

    @property
    def chance(self) -> float:
        """The loss of guessing all classes alike, ln C; of values that of the best constant."""
        return math.log(self.layers[-1].shape[-1]) if self.constant_loss is None else self.constant_loss

    @property
    def not_finite(self) -> str | None:
        """What is NaN or infinite, in words."""
        for index, layer in enumerate(self.layers, start=1):
            if not math.isfinite(layer.activation_var):
                return f"the activations are not finite from layer {index} on"
        for index, layer in enumerate(self.layers, start=1):
            if not math.isfinite(layer.grad_norm):
                return f"the gradient of layer {index} is not finite"
        return None if math.isfinite(self.loss) else "the loss is not finite"


@dataclass
class _Layer:
    """A weight layer as it runs."""

    name: str
    kind: str
    shape: tuple[int, ...]
    representation: tuple[float, float, float | None] = (math.nan, math.nan, None)
    """What `_measured` says of it, once the next layer has run."""
    dead: float | None = None


def probe(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    step: int = 0,
    epoch: float = 0.0,
    objective: Objective | None = None,
) -> Statistics:
    """Gradient and activation statistics of every weight layer of ``model`` on one batch.

    Measured in training mode (batch norm uses the batch) with dropout off: its noise would hide
    that two inputs look alike. Weights, gradients, buffers, mode and the global random state are
    after it what they were before.

    Args:
        model: maps ``inputs`` to logits ``[B, C]``.
        inputs: uint8 ``[B, C, H, W]``.
        labels: int64 ``[B]``; of values float32 ``[B, K]``.
        step: of training, which has come to the ``epoch``.
        objective: of the run; only one that learns values has its own loss here.
    """
    valued = objective if learns_values(objective) else None
    constant = None if valued is None else constant_loss(valued, labels)
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    buffers = {name: b.detach().clone() for name, b in model.named_buffers()}
    started = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = range(torch.cuda.device_count()) if started else ()
    with torch.random.fork_rng(devices=devices), torch.enable_grad(), _training(model), _watched(model) as layers:
        torch.manual_seed(0)  # for a network that draws
        first = {id(p): name for name, p in model.named_parameters()}  # two layers may share a weight
        weight_of = {name: parameters[first[id(layer.weight)]] for name, layer in _weight_layers(model).items()}
        for weight in weight_of.values():
            weight.requires_grad_(True)
        logits: Tensor = torch.func.functional_call(model, (parameters, buffers), (inputs,))
        loss = F.cross_entropy(logits, labels) if valued is None else valued(logits, labels)
        if layers:
            layers[-1].representation = _measured(logits)
        weights = [weight_of[layer.name] for layer in layers]
        gradients = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True) if weights else ()
    grad_norms, weight_norms = _norms(gradients), _norms(weights)
    found = []
    for layer, grad_norm, weight_norm in zip(layers, grad_norms, weight_norms, strict=True):
        mean, variance, cosine = layer.representation
        quotient = grad_norm / weight_norm if weight_norm else None
        norms = grad_norm, weight_norm, quotient
        found.append(Layer(layer.name, layer.kind, layer.shape, *norms, mean, variance, layer.dead, cosine))
    ratio = grad_norms[0] / grad_norms[-1] if grad_norms and grad_norms[-1] else math.nan
    return Statistics(step, epoch, len(labels), float(loss.detach()), ratio, tuple(found), constant)


def _weight_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The linear and convolution layers of ``model`` by name whose weight is a parameter."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and "weight" in module._parameters
    }


@contextlib.contextmanager
def _training(model: nn.Module) -> Iterator[None]:
    """Training mode without dropout; every module's own mode afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.train()
        for module, _ in modes:
            if isinstance(module, nn.modules.dropout._DropoutNd):
                module.eval()
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextlib.contextmanager
def _watched(model: nn.Module) -> Iterator[list[_Layer]]:
    """A list that a forward pass of ``model`` fills with its weight layers.

    Tensors are measured inside the hooks: a later layer may work in place.
    """
    layers: list[_Layer] = []
    names = {module: name for name, module in _weight_layers(model).items()}

    def before(_module: nn.Module, args: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
        if layers:
            layers[-1].representation = _measured(args[0] if args else named["input"])

    def after(module: nn.Module, _args: tuple[Tensor, ...], output: Tensor) -> None:
        layers.append(_Layer(names[module], type(module).__name__, tuple(output.shape[1:])))

    def rectified(_module: nn.Module, _args: tuple[Tensor, ...], output: Tensor) -> None:
        if layers and layers[-1].dead is None and output.dim() > 1:
            largest = output.detach().amax([d for d in range(output.dim()) if d != 1])  # [units], never below zero
            silent = torch.where(largest.isnan(), math.nan, (largest == 0).double())
            layers[-1].dead = float(silent.mean())

    hooks = [module.register_forward_pre_hook(before, with_kwargs=True) for module in names]
    hooks += [module.register_forward_hook(after) for module in names]
    hooks += [m.register_forward_hook(rectified) for m in model.modules() if isinstance(m, nn.ReLU)]
    try:
        yield layers
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def _measured(representation: Tensor) -> tuple[float, float, float | None]:
    """Mean, variance and mean cosine over the pairs of rows that are not zero (None below two) of ``[B, ...]``.

    In float64: squares of large or small float32 values are beyond float32. The pairs i < j need no product of their
    own: for the n unit rows u_i, |Σ u_i|² = n + 2 Σ u_i·u_j.
    """
    rows = representation.detach().reshape(len(representation), -1).double()
    lengths = torch.linalg.vector_norm(rows, dim=1)
    total = lengths.clamp(min=SMALLEST).reciprocal() @ rows  # a zero row adds nothing
    mean = rows.mean()
    variance = (lengths.square().sum() / rows.numel() - mean.square()).clamp(min=0)
    count = int((lengths != 0).sum())
    cosine = ((total.dot(total) - count) / (count * (count - 1))).clamp(-1, 1) if count >= 2 else None
    return float(mean), float(variance), None if cosine is None else float(cosine)


@torch.no_grad()
def _norms(tensors: Sequence[Tensor]) -> list[float]:
    """Frobenius norms in float64: a tiny gradient has squares that float32 cannot hold."""
    return [float(torch.linalg.vector_norm(tensor, dtype=torch.float64)) for tensor in tensors]
