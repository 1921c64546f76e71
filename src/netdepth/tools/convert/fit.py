"""Which network a set of published weights belongs to, and loading them into one."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netdepth.errors import BadInput

if TYPE_CHECKING:  # it brings PyTorch, and most errors are found before that is needed
    from netdepth.models import Network

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "load_published", "recognise"]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Per channel, of pixels in 0..1: what torchvision's weights were trained with."""

MAX_CHANNELS = 64
COUNTER = "num_batches_tracked"
"""Batch norm's counter, which files from before PyTorch 0.4.1 do not have and nothing here reads."""


def recognise(shapes: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """The network whose tensors have these ``shapes``: ``model``, ``classes``, ``width``, and ``fits``, in words.

    All but ``fits`` are None where there is no such network, ``classes`` also where the last layer is missing.
    """
    from netdepth.models.imagenet import BLOCKS, MAX_WIDTH

    stem, head = shapes.get("conv1.weight", ()), shapes.get("fc.weight", ())
    width, channels = 64, 3
    if len(stem) == 4 and 1 <= stem[0] <= MAX_WIDTH and 1 <= stem[1] <= MAX_CHANNELS:
        width, channels = stem[:2]
    classes = head[0] if len(head) == 2 and 1 <= head[0] < 2**31 else None
    given = {name: tuple(shape) for name, shape in shapes.items() if _tells(name)}
    differing = {}
    for depth in BLOCKS:
        own = {name: shape for name, shape in _shapes(channels, depth, width).items() if _tells(name)}
        if head:
            own |= {"fc.weight": (classes or 1, *own["fc.weight"][1:]), "fc.bias": (classes or 1,)}
        else:
            del own["fc.weight"], own["fc.bias"]
        differing[f"resnet{depth}"] = sum(own.get(name) != given.get(name) for name in own.keys() | given.keys())
    nearest = min(differing, key=differing.__getitem__)
    if differing[nearest]:
        words = f"fits no network of netdepth (nearest: {nearest}; tensors that differ: {differing[nearest]})"
        return {"model": None, "classes": None, "width": None, "fits": words}
    words = f"fits {nearest}{'' if width == 64 else f' of width {width}'}"
    words += f" with {classes} classes" if classes else " without its last layer"
    return {"model": nearest, "classes": classes, "width": width, "fits": words}


@functools.cache
def _shapes(channels: int, depth: int, width: int) -> dict[str, tuple[int, ...]]:
    """What a ResNet's state dict holds, for one class."""
    import torch

    from netdepth.models.imagenet import ImageNetResNet

    with torch.device("meta"):
        model = ImageNetResNet((channels, 224, 224), 1, depth, width)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _tells(name: str) -> bool:
    return not name.startswith("normalize.") and not name.endswith(COUNTER)


def load_published(path: Path, model: Network) -> None:
    """Put the weights of a converted file into ``model``, with ImageNet's normalisation, which they expect.

    All tensors but those of the last layer, ``model.head``, have to fit. Where the file has none, or one for
    another number of classes, the model keeps its own. A file with a normalisation of its own
    (``normalize.mean`` and ``.scale``) keeps that.

    Raises:
        BadInput: the file cannot be read or does not fit: how many names are missing, unexpected or of
            another shape, and the first three of each. The model is then as it was.
    """
    import safetensors.torch
    import torch

    try:
        weights = safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        reason = " ".join(str((isinstance(error, OSError) and error.strerror) or error).split())
        raise BadInput(f"cannot read {str(path)!r} as safetensors (netdepth convert makes them): {reason}") from None
    own = model.state_dict()
    foreign = not any(name.startswith("normalize.") for name in weights)
    if foreign and model.input_shape[0] != len(IMAGENET_MEAN):
        raise BadInput(f"{path} is for pictures of 3 channels; the network takes {model.input_shape[0]}")
    free = {name for name in own if name.endswith(COUNTER) or (foreign and name.startswith("normalize."))}
    head = _head(model)
    if head.isdisjoint(weights) or all(_other_classes(weights.get(name), own[name]) for name in head):
        free |= head
        weights = {name: tensor for name, tensor in weights.items() if name not in head}

    # A file that was halved as a whole has halves of its counters.
    weights = {n: t for n, t in weights.items() if not (n.endswith(COUNTER) and t.is_floating_point())}
    unlike = [
        f"{name} {list(tensor.shape)} for {list(own[name].shape)}"
        for name, tensor in weights.items()
        if name in own
        and (tensor.shape != own[name].shape or tensor.is_floating_point() != own[name].is_floating_point())
    ]
    faults = {
        "missing": [name for name in own if name not in weights and name not in free],
        "unexpected": [name for name in weights if name not in own],
        "of another shape or type": unlike,
    }
    said = [f"{len(names)} {what} ({', '.join(names[:3])})" for what, names in faults.items() if names]
    if said:
        raise BadInput(f"{path} does not fit this network of depth {model.depth}: {'; '.join(said)}")
    model.load_state_dict({**own, **weights})
    if foreign:
        model.normalize.set_statistics(torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD))


def _head(model: Network) -> set[str]:
    """Names of the parameters of ``model.head``; none where a network has no such layer."""
    from torch import nn

    head = getattr(model, "head", None)
    owned = {id(parameter) for parameter in head.parameters()} if isinstance(head, nn.Module) else set()
    return {name for name, parameter in model.named_parameters() if id(parameter) in owned}


def _other_classes(given: Any, own: Any) -> bool:
    """A tensor of a last layer that differs in the number of classes alone."""
    return given is not None and given.shape[1:] == own.shape[1:] and given.shape[:1] != own.shape[:1]
