"""Where in a picture the evidence for a class lies: class activation maps, Grad-CAM, input gradients.

`find_evidence` looks at one forward pass and says which of the three a network allows:

- **"cam"**: its logits are a linear layer of the mean over positions of its last feature maps A, so that the
  logit of class c is, exactly, the mean over positions of M_c = Σ_k w_ck A_k, plus a bias (Zhou et al. 2016,
  "Learning Deep Features for Discriminative Localization", §2, eq. 2);
- **"grad-cam"**: it has feature maps, and anything behind them. The weight of map k is the mean over positions
  of the logit's gradient (Selvaraju et al. 2017, "Grad-CAM", §3, eq. 1). Where "cam" holds, both are the same
  map up to the number of positions (there, §3.1);
- **"saliency"**: it has none, as an MLP. |∂ logit / ∂ pixel|, the largest of the channels (Simonyan et al.
  2014, "Deep Inside Convolutional Networks", §3.1): where the logit is sensitive, which is not the same as
  where the evidence is.

Maps are signed: the ReLU of Grad-CAM's eq. 2 is left to whoever shows them, since a deletion needs the order
below zero too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Evidence", "Maps", "Method", "class_activation", "evidence_maps", "find_evidence", "grad_cam", "upsampled"]

Method = Literal["cam", "grad-cam", "saliency"]

# Without a common public base; a pooled map is coarser than the one before it and says nothing more.
POOLINGS = (
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.LPPool2d,
    nn.FractionalMaxPool2d,
    nn.AdaptiveMaxPool2d,
    nn.AdaptiveAvgPool2d,
)


@dataclass(frozen=True)
class Evidence:
    """How maps of a network are made: the ``layer`` whose output they are, and the linear ``head`` of a "cam"."""

    method: Method
    layer: str | None = None
    head: str | None = None


@dataclass(frozen=True)
class Maps:
    """``values`` ``[B, h, w]``, signed, for ``classes`` ``[B]``; and the ``logits`` ``[B, num_classes]``."""

    values: Tensor
    logits: Tensor
    classes: Tensor


def class_activation(features: Tensor, weight: Tensor, classes: Tensor) -> Tensor:
    """M_c ``[B, h, w]`` of ``features`` ``[B, K, h, w]`` under a head's ``weight`` ``[num_classes, K]``, for
    ``classes`` ``[B]``, in units of the logit (Zhou et al. 2016, eq. 2)."""
    return torch.einsum("bkhw,bk->bhw", features, weight[classes])


def grad_cam(features: Tensor, gradients: Tensor) -> Tensor:
    """Σ_k α_k A_k ``[B, h, w]``, α_k the mean over positions of ``gradients`` ``[B, K, h, w]``, those of the logit with
    respect to ``features`` (Selvaraju et al. 2017, eq. 1 and 2, without the ReLU)."""
    return torch.einsum("bkhw,bk->bhw", features, gradients.mean((2, 3)))


def upsampled(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """``maps`` ``[B, h, w]`` at the picture's ``size`` (H, W), bilinear (Zhou et al. 2016, §2)."""
    if maps.shape[1:] == size:
        return maps
    return F.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0]


@torch.no_grad()
def find_evidence(model: nn.Module, inputs: Tensor) -> Evidence:
    """Which maps ``model`` allows, told from one forward pass of ``inputs`` ``[B, C, H, W]`` in eval mode.

    The maps are the last output of more than one position that any module gives from the first convolution
    on and that no pooling made. The method is "cam" where the last linear layer takes in their mean and puts out
    the logits: told by the numbers, whatever the modules are called.
    """
    seen = _Seen()
    with _evaluating(model), _watched(model, seen):
        logits = model(inputs)
    if seen.maps is None:
        return Evidence("saliency")
    if seen.head is not None and seen.taken is not None and seen.given is not None:
        means = seen.maps.mean((2, 3))
        pooled = seen.taken.shape == means.shape and torch.allclose(seen.taken, means, rtol=1e-4, atol=1e-6)
        if pooled and torch.equal(seen.given, logits):
            return Evidence("cam", seen.layer, seen.head)
    return Evidence("grad-cam", seen.layer)


def evidence_maps(model: nn.Module, evidence: Evidence, inputs: Tensor, classes: Tensor | None = None) -> Maps:
    """Maps of ``inputs`` ``[B, C, H, W]`` (0..255) for ``classes`` ``[B]``; None: for the class each is answered with.

    In eval mode; modes and gradients of ``model`` are afterwards what they were. "saliency" has the size of the
    picture, the others that of the layer.
    """
    with contextlib.ExitStack() as held:
        held.enter_context(torch.set_grad_enabled(evidence.method != "cam"))
        held.enter_context(_evaluating(model))
        kept: list[Tensor] = []
        if evidence.layer is not None:
            hook = model.get_submodule(evidence.layer).register_forward_hook(lambda _m, _a, output: kept.append(output))
            held.callback(hook.remove)
        pixels = inputs.to(torch.get_default_dtype())
        if evidence.method != "cam":
            pixels.requires_grad_()  # a graph that does not hang on which weights are frozen
        logits: Tensor = model(pixels)
        if classes is None:
            classes = logits.detach().argmax(1)
        if evidence.method == "cam":
            assert evidence.head is not None
            weight = model.get_submodule(evidence.head).get_parameter("weight")
            values = class_activation(kept[-1], weight, classes)
        else:
            target = pixels if evidence.method == "saliency" else kept[-1]
            (gradients,) = torch.autograd.grad(logits.gather(1, classes[:, None]).sum(), target)
            values = gradients.abs().amax(1) if evidence.method == "saliency" else grad_cam(target, gradients)
    return Maps(values.detach(), logits.detach(), classes)


@dataclass
class _Seen:
    """What a forward pass went through: the last maps, and the last linear layer with what it took and gave."""

    layer: str | None = None
    maps: Tensor | None = None
    head: str | None = None
    taken: Tensor | None = None
    given: Tensor | None = None


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode; every module's own mode afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextlib.contextmanager
def _watched(model: nn.Module, seen: _Seen) -> Iterator[None]:
    """``seen`` is filled by a forward pass of ``model``."""
    names = {module: name for name, module in model.named_modules() if name}
    convolved = False
    pooled: Tensor | None = None

    def after(module: nn.Module, args: tuple[Tensor, ...], named: dict[str, Tensor], output: object) -> None:
        nonlocal convolved, pooled
        if not isinstance(output, Tensor):
            return
        if isinstance(module, nn.Linear):
            seen.head, seen.taken, seen.given = names[module], args[0] if args else named["input"], output
        convolved |= isinstance(module, nn.Conv2d)
        if isinstance(module, POOLINGS):
            pooled = output
        elif convolved and output.dim() == 4 and output is not pooled and output[0, 0].numel() > 1:
            seen.layer, seen.maps = names[module], output

    hooks = [module.register_forward_hook(after, with_kwargs=True) for module in names]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
