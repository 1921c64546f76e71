"""Where in a picture the evidence for a class lies, and whether that place matters.

**Maps.** `find_evidence` reads from one forward pass which of three kinds of map a network allows:

- **"cam"**: its logits are a linear layer of the mean over positions of its last feature maps A. Then the
  logit of class c is exactly the mean over positions of M_c = Σ_k w_ck A_k, plus a bias (Zhou et al. 2016,
  "Learning Deep Features for Discriminative Localization", §2, eq. 2);
- **"grad-cam"**: it has feature maps, and anything behind them. The weight of map k is the mean over positions
  of the logit's gradient (Selvaraju et al. 2017, "Grad-CAM", §3, eq. 1). Where "cam" is possible, both give the
  same map up to the number of positions (§3.1 there);
- **"saliency"**: it has none, as an MLP. |∂ logit / ∂ pixel|, the largest of the channels (Simonyan et al.
  2014, "Deep Inside Convolutional Networks", §3.1): where the logit is sensitive, which is not the same as
  where the evidence is.

Maps are signed. The ReLU of Grad-CAM's eq. 2 is applied when a map is shown: a deletion needs the order below zero too.

**Deletion and insertion.** Pixels are removed, or added, in the order of a map, and the probability of the answer is
recorded (Petsiuk et al. 2018, "RISE", §4.2): it falls fast when the pixels that carry it are deleted first, and rises
fast when they are inserted first. Deleted pixels become the network's own mean, which is zero after its normalisation;
insertion begins from the blurred picture, as theirs does.

Alone these curves say little, since the probability falls whatever is deleted. So each is compared with two
controls: `moved`, the same map in another place, which removes a region of the same size and shape; and `scattered`,
pixels drawn one by one, which damages the whole picture at once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

__all__ = [
    "FRACTIONS", "Evidence", "Maps", "Method", "area", "blurred", "curves", "evidence_maps", "find_evidence", "moved",
    "ranks", "scattered", "upsampled",
]  # fmt: skip

Method = Literal["cam", "grad-cam", "saliency"]

FRACTIONS = tuple(i / 10 for i in range(11))
"""Shares of the pixels that are deleted or inserted."""

# They have no common public base. A pooled map is coarser than the one before it and adds nothing.
POOLINGS = (
    nn.MaxPool2d, nn.AvgPool2d, nn.LPPool2d, nn.FractionalMaxPool2d, nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d,
)  # fmt: skip


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


def upsampled(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """``maps`` ``[B, h, w]`` at the picture's ``size`` (H, W), bilinear (Zhou et al. 2016, §2)."""
    if maps.shape[1:] == size:
        return maps
    return F.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0]


@torch.no_grad()
def find_evidence(model: nn.Module, inputs: Tensor) -> Evidence:
    """Which maps ``model`` allows, read from one forward pass of ``inputs`` ``[B, C, H, W]`` in eval mode.

    The maps are the last output of more than one position that a module after the first convolution (or that
    convolution) gives, pooling excepted. The method is "cam" if the last linear layer receives their mean and gives the
    logits. The values decide this, not the names of the modules.
    """
    with _evaluating(model), _watched(model) as seen:
        logits = model(inputs)
    if seen.maps is None:
        return Evidence("saliency")
    if seen.head is not None and seen.head_input is not None and seen.head_output is not None:
        means = seen.maps.mean((2, 3))
        pooled = seen.head_input.shape == means.shape and torch.allclose(seen.head_input, means, rtol=1e-4, atol=1e-6)
        if pooled and torch.equal(seen.head_output, logits):
            return Evidence("cam", seen.layer, seen.head)
    return Evidence("grad-cam", seen.layer)


def evidence_maps(model: nn.Module, evidence: Evidence, inputs: Tensor, classes: Tensor | None = None) -> Maps:
    """Maps of ``inputs`` ``[B, C, H, W]`` (0..255) for ``classes`` ``[B]``; None: for the predicted class of each.

    In eval mode; afterwards the modes and gradients of ``model`` are as before. "saliency" maps have the size of the
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
            pixels.requires_grad_()  # the graph exists even if all weights are frozen
        logits: Tensor = model(pixels)
        if classes is None:
            classes = logits.detach().argmax(1)
        if evidence.method == "cam":
            assert evidence.head is not None
            weight = model.get_submodule(evidence.head).get_parameter("weight")
            values = torch.einsum("bkhw,bk->bhw", kept[-1], weight[classes])
        else:
            target = pixels if evidence.method == "saliency" else kept[-1]
            (gradients,) = torch.autograd.grad(logits.gather(1, classes[:, None]).sum(), target)
            if evidence.method == "saliency":
                values = gradients.abs().amax(1)
            else:
                values = torch.einsum("bkhw,bk->bhw", target, gradients.mean((2, 3)))
    return Maps(values.detach(), logits.detach(), classes)


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


@dataclass
class _Seen:
    """From a forward pass: the last maps, and the last linear layer with its input and output."""

    layer: str | None = None
    maps: Tensor | None = None
    head: str | None = None
    head_input: Tensor | None = None
    head_output: Tensor | None = None


@contextlib.contextmanager
def _watched(model: nn.Module) -> Iterator[_Seen]:
    """A forward pass of ``model`` fills the `_Seen` that is yielded."""
    seen = _Seen()
    names = {module: name for name, module in model.named_modules() if name}
    convolved = False
    pooled: Tensor | None = None

    def after(module: nn.Module, args: tuple[Tensor, ...], named: dict[str, Tensor], output: object) -> None:
        nonlocal convolved, pooled
        if not isinstance(output, Tensor):
            return
        if isinstance(module, nn.Linear):
            seen.head, seen.head_input, seen.head_output = names[module], args[0] if args else named["input"], output
        convolved |= isinstance(module, nn.Conv2d)
        if isinstance(module, POOLINGS):
            pooled = output
        elif convolved and output.dim() == 4 and output is not pooled and output[0, 0].numel() > 1:
            seen.layer, seen.maps = names[module], output

    hooks = [module.register_forward_hook(after, with_kwargs=True) for module in names]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


# --- deletion and insertion ---


def ranks(maps: Tensor, generator: Generator) -> Tensor:
    """The rank of each pixel, ``[B, H, W]``, by decreasing value of ``maps`` ``[B, H, W]``; ties in random order."""
    values = maps.flatten(1)
    shuffled = torch.rand(values.shape, generator=generator).argsort(1).to(values.device)
    order = shuffled.gather(1, values.gather(1, shuffled).argsort(dim=1, descending=True, stable=True))
    return order.argsort(1).view(maps.shape)


def scattered(maps: Tensor, generator: Generator) -> Tensor:
    """The values of each of ``maps`` ``[B, H, W]`` in random order."""
    values = maps.flatten(1)
    order = torch.rand(values.shape, generator=generator).argsort(1).to(values.device)
    return values.gather(1, order).view(maps.shape)


def moved(maps: Tensor, generator: Generator) -> Tensor:
    """Each of ``maps`` ``[B, H, W]`` in another place: mirrored or not along each axis, and shifted around the edges.

    Its values and its smoothness stay, so the region it marks has the same size and shape. All shifts are equally
    likely, so some maps end close to where they were: the control is a little too good, never too bad.
    """
    _, height, width = maps.shape
    draws = torch.stack(
        [torch.randint(high, (len(maps),), generator=generator) for high in (2, 2, height, width)], dim=1
    ).tolist()
    others = []
    for values, (down, across, rows, columns) in zip(maps, draws, strict=True):
        mirrored = values.flip([axis for axis, flip in ((0, down), (1, across)) if flip])
        others.append(mirrored.roll((rows, columns), (0, 1)))
    return torch.stack(others)


def blurred(images: Tensor, sigma: float) -> Tensor:
    """uint8 ``[B, C, H, W]`` blurred by a Gaussian of ``sigma`` pixels, mirrored at the edges."""
    pixels = images.to(torch.get_default_dtype())
    channels = pixels.shape[1]
    for axis, length in ((2, pixels.shape[2]), (3, pixels.shape[3])):
        reach = min(round(3 * sigma), length - 1)
        kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=pixels.device) / sigma) ** 2)
        kernel = (kernel / kernel.sum()).view(1, 1, *((-1, 1) if axis == 2 else (1, -1)))
        padded = F.pad(pixels, (0, 0, reach, reach) if axis == 2 else (reach, reach, 0, 0), mode="reflect")
        pixels = F.conv2d(padded, kernel.expand(channels, 1, -1, -1), groups=channels)
    return pixels.round().to(torch.uint8)


def curves(
    model: nn.Module,
    images: Tensor,
    classes: Tensor,
    orders: list[Tensor],
    *,
    blank: Tensor,
    blur: Tensor,
    report: Callable[[int], None] = lambda images: None,
) -> Tensor:
    """Probability of ``classes`` ``[B]`` as pixels are deleted and inserted in steps, float64 ``[2, orders, B, 11]``.

    Args:
        model: in eval mode; maps uint8 ``[B, C, H, W]`` to logits.
        images: uint8 ``[B, C, H, W]``.
        orders: `ranks` ``[B, H, W]``, one per map that is compared.
        blank: uint8, to broadcast to ``images``: what a deleted pixel becomes.
        blur: uint8 ``[B, C, H, W]``: what insertion begins from.
        report: called with the number of pictures the network has just seen.

    Returns:
        First index 0: deletion, from the picture (0 %) to ``blank`` (100 %); 1: insertion, from ``blur`` to the
        picture. Last index: `FRACTIONS`.
    """
    total = images.shape[2] * images.shape[3]
    empty = blank.expand_as(images)

    @torch.inference_mode()
    def probability(pixels: Tensor) -> Tensor:
        shares: Tensor = model(pixels).double().softmax(1).gather(1, classes[:, None])[:, 0]
        report(len(pixels))
        return shares

    whole, all_deleted, none_inserted = probability(images), probability(empty), probability(blur)
    found = torch.empty(2, len(orders), len(images), len(FRACTIONS), dtype=torch.float64, device=images.device)
    for number, order in enumerate(orders):
        found[0, number, :, 0], found[0, number, :, -1] = whole, all_deleted
        found[1, number, :, 0], found[1, number, :, -1] = none_inserted, whole
        for index, fraction in list(enumerate(FRACTIONS))[1:-1]:
            chosen = (order < round(fraction * total))[:, None]
            found[0, number, :, index] = probability(torch.where(chosen, empty, images))
            found[1, number, :, index] = probability(torch.where(chosen, images, blur))
    return found


def area(curves: Tensor) -> Tensor:
    """Area under ``curves`` ``[..., 11]`` over `FRACTIONS` by the trapezoid rule: a mean probability."""
    return torch.trapezoid(curves, torch.tensor(FRACTIONS, dtype=curves.dtype, device=curves.device))
