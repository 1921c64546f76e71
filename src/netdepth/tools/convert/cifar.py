"""CIFAR ResNets under the names that others gave their layers, as netdepth's ``resnet``: names, order of channels.

    stem    conv1 or conv, bn1 or bn                           conv, norm
    block   layer1.0.conv1, .bn1, .conv2, .bn2                 stages.0.0.convs.0, .norms.0, .convs.1, .norms.1
    skip    layer2.0.shortcut.0, .1 or .downsample.0, .1       stages.1.0.projection.0, .1
    head    linear, fc or classifier                           head

A file does not say what has no weights: how the skips get their missing channels (option A of He et al. 2016, §3.3),
and how pixels are normalised. `Assumed` says it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from netdepth.config import Component, to_json
from netdepth.models.cnn import CifarResNet, Shortcut
from netdepth.training.published import COUNTER, Fit

__all__ = ["NORMALIZATIONS", "Assumed", "Mapped", "Skip", "mapped"]

Skip = Literal["both", "end", "none"]
Normalization = Literal["cifar10", "cifar100", "imagenet", "mnist", "none"]

NORMALIZATIONS: Mapping[Normalization, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": ((0.5070, 0.4865, 0.4409), (0.2673, 0.2564, 0.2761)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "mnist": ((0.1307,), (0.3081,)),
    "none": ((0.0,), (1.0,)),
}
"""Mean and deviation per channel, of pixels in 0..1, that training scripts use. Those of CIFAR-10 are the mean of the
images' deviations; most scripts have them (kuangliu/pytorch-cifar, chenyaofo/pytorch-cifar-models), and
akamaster/pytorch_resnet_cifar10 has ImageNet's."""

STEM = re.compile(r"(?:(conv1?)|(bn1?))\.(.+)")
BLOCK = re.compile(r"(?:layer|stage|block)_?(\d)\.(\d+)\.(?:conv([12])|bn([12])|(?:shortcut|downsample)\.([01]))\.(.+)")
HEAD = re.compile(r"(?:linear|fc|classifier)\.(weight|bias)")
STAGES, MOST_BLOCKS, MOST_WIDTH = 3, 400, 4096


@dataclass(frozen=True)
class Assumed:
    """What a file of weights does not say.

    ``skip``: where skips have no weights, they get their missing channels as zeros on ``both`` sides
    (akamaster/pytorch_resnet_cifar10) or at the ``end`` (the authors' code), or there are ``none``: a plain net.
    ``normalization`` is one of `NORMALIZATIONS`; None: cifar10, cifar100 for 100 classes, or mnist for one channel.
    """

    skip: Skip = "both"
    normalization: Normalization | None = None


@dataclass(frozen=True)
class Mapped:
    """The ``resnet`` that some weights are: the tensors of its state dict, what it is in words, and for the metadata of
    a file."""

    tensors: dict[str, Tensor]
    fit: Fit
    metadata: dict[str, str]


def mapped(tensors: Mapping[str, Tensor], assumed: Assumed) -> Mapped | None:
    """``tensors`` as a ``resnet``; None if they are no CIFAR ResNet of basic blocks in three stages."""
    renamed = _renamed(tensors)
    stem, head = renamed.get("conv.weight"), renamed.get("head.weight")
    if stem is None or head is None or stem.dim() != 4 or head.dim() != 2:
        return None
    (width, channels), classes = stem.shape[:2], head.shape[0]
    blocks = {name.rpartition(".convs.")[0] for name in renamed if ".convs." in name}
    per_stage, rest = divmod(len(blocks), STAGES)
    fine = 1 <= per_stage <= MOST_BLOCKS and 1 <= width <= MOST_WIDTH and channels in (1, 3) and classes > 0
    if rest or not fine:
        return None
    projected = {name.rpartition(".projection.")[0] for name in renamed if ".projection." in name}
    shortcut: Shortcut = "none" if assumed.skip == "none" else "identity"
    if projected:
        shortcut = "projection_all" if projected == blocks else "projection"
    shape = (channels, 32, 32) if channels == 3 else (1, 28, 28)
    with torch.device("meta"):
        expected = CifarResNet(shape, classes, per_stage, width, shortcut=shortcut).state_dict()
    needed = {name: tensor.shape for name, tensor in expected.items() if not name.startswith("normalize.")}
    counters = {name: torch.tensor(0) for name in needed if name.endswith(COUNTER)}
    renamed = {**counters, **renamed}
    if {name: tensor.shape for name, tensor in renamed.items()} != needed:
        return None
    if shortcut == "identity" and assumed.skip == "both":
        if width % 2:
            return None  # zeros cannot be shared out evenly
        renamed = _zeros_at_the_end(renamed, width)
    given = assumed.normalization or ("mnist" if channels == 1 else "cifar100" if classes == 100 else "cifar10")
    mean, std = (torch.tensor(values).double() for values in NORMALIZATIONS[given])
    if len(mean) not in (1, channels):
        return None
    mean, std = (values.expand(channels).reshape(channels, 1, 1) for values in (mean, std))
    normalize = {"normalize.mean": (255 * mean).float(), "normalize.scale": (1 / (255 * std)).float()}
    zeros = "on both sides" if assumed.skip == "both" else "at the end"
    skips = {"none": "a plain net", "identity": f"option A with zeros {zeros}"}
    depth = 2 + 6 * per_stage
    words = (
        f"fits resnet of depth {depth} and width {width} with {classes} classes. The file does not say: "
        f"{skips[shortcut] + ' (--skip) and ' if shortcut in skips else ''}{given}'s normalisation (--normalization) "
        f"{'are' if shortcut in skips else 'is'} assumed: mean {_listed(given, 0)}, deviation {_listed(given, 1)}"
    )
    component = Component("resnet", {"depth": depth, "width": width, "shortcut": shortcut})
    metadata = {
        "model": json.dumps(to_json(component)),
        "input_shape": json.dumps(shape),
        "classes": json.dumps([f"class {i}" for i in range(classes)]),
    }
    return Mapped({**renamed, **normalize}, Fit("resnet", classes, width, words), metadata)


def _listed(name: Normalization, part: int) -> str:
    return ", ".join(f"{value:.4g}" for value in NORMALIZATIONS[name][part])


def _renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``tensors`` by the names of `CifarResNet`; empty if one of them has no place there, or two have the same."""
    first = min((int(found[1]) for name in tensors if (found := BLOCK.fullmatch(name))), default=0)
    renamed = {}
    for name, tensor in tensors.items():
        if found := BLOCK.fullmatch(name):
            stage, block, conv, norm, skip, rest = found.groups()
            part = f"convs.{int(conv) - 1}" if conv else f"norms.{int(norm) - 1}" if norm else f"projection.{skip}"
            renamed[f"stages.{int(stage) - first}.{int(block)}.{part}.{rest}"] = tensor
        elif found := HEAD.fullmatch(name):
            renamed[f"head.{found[1]}"] = tensor
        elif found := STEM.fullmatch(name):
            renamed[f"{'conv' if found[1] else 'norm'}.{found[3]}"] = tensor
        else:
            return {}
    return renamed if len(renamed) == len(tensors) else {}


def _zeros_at_the_end(tensors: Mapping[str, Tensor], width: int) -> dict[str, Tensor]:
    """The same function with another order of channels: the skips' zeros come after the channels, not on both sides.

    ``order[s]`` says which channel of the file is at each place of stage s; what a stage puts out is in that order, so
    the layers that read it take their inputs in that order.
    """
    order = [torch.arange(width)]
    for stage in range(1, STAGES):
        before, zeros = width * 2 ** (stage - 1), width * 2 ** (stage - 1) // 2
        ends = torch.arange(zeros), torch.arange(zeros + before, 2 * before)
        order.append(torch.cat([zeros + order[-1], *ends]))
    moved = dict(tensors)
    for name, tensor in tensors.items():
        if name == "head.weight":
            moved[name] = tensor[:, order[-1]]
        elif name.startswith("stages.") and not name.endswith(COUNTER):
            _, number, block, kind, place, _ = name.split(".")
            if kind == "convs" and place == "0":
                moved[name] = tensor[:, order[max(0, int(number) - (block == "0"))]]
            elif place == "1":
                moved[name] = tensor[order[int(number)]]
    return moved
