"""Weights in a safetensors file: which network they fit, and that network with the weights loaded.

Three kinds: torchvision's names for a ResNet; what `netdepth convert` made of a CIFAR ResNet; what `netdepth export`
wrote. The last two say in their metadata which network they are.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from netdepth import models
from netdepth.config import Component, StartFrom, from_json
from netdepth.errors import BadInput
from netdepth.models import Network
from netdepth.models.imagenet import BLOCKS, MAX_WIDTH, ImageNetResNet

__all__ = [
    "IMAGENET_MEAN", "IMAGENET_STD", "SUFFIX", "Fit", "Published", "load_published", "open_published", "pinned_file",
    "recognise",
]  # fmt: skip

SUFFIX = ".safetensors"
"""What ends so names a file of weights; any other text names a run."""

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Per channel, of pixels in 0..1: what torchvision's weights were trained with."""
SIDE = 224
"""Pixels of a picture's side in training on ImageNet (He et al. 2016, §3.4)."""

MAX_CHANNELS = 64
MOST_PIXELS = 2**14
"""Along a side of an image, or channels, in metadata that are believed."""
About = tuple[Component, tuple[int, int, int], tuple[str, ...]]
"""A network in a file: its model, the shape (C, H, W) of its images, the names of its classes."""
COUNTER = "num_batches_tracked"
"""Batch norm's counter. Files from before PyTorch 0.4.1 lack it, and nothing here reads it."""


@dataclass(frozen=True)
class Fit:
    """The ``model`` that some weights fit, its number of ``classes`` and its ``width``; ``fits`` says so in words.

    The first three are None if no network fits, ``classes`` also if the last layer is missing.
    """

    model: str | None
    classes: int | None
    width: int | None
    fits: str


@dataclass(frozen=True)
class Published:
    """The network that the weights in ``path`` fit, in eval mode, its classes, the ``sha256`` of the file, and how a
    config names the network."""

    path: Path
    model: Network
    classes: tuple[str, ...]
    sha256: str
    component: Component

    def sized(self, shape: tuple[int, int, int]) -> Network:
        """The network for images of ``shape`` (C, H, W), where its weights take any size; else as it is."""
        if self.model.any_size and shape[0] == self.model.input_shape[0]:
            self.model.input_shape = shape
        return self.model


def recognise(shapes: Mapping[str, Sequence[int]]) -> Fit:
    """The network whose tensors have these ``shapes``."""
    stem, head = shapes.get("conv1.weight", ()), shapes.get("fc.weight", ())
    width, channels = 64, 3
    if len(stem) == 4 and 1 <= stem[0] <= MAX_WIDTH and 1 <= stem[1] <= MAX_CHANNELS:
        width, channels = stem[:2]
    classes = head[0] if len(head) == 2 and 1 <= head[0] < 2**31 else None
    given = {name: tuple(shape) for name, shape in shapes.items() if _characteristic(name)}
    differing = {}
    for depth in BLOCKS:
        own = dict(_shapes(channels, depth, width))
        if head:
            own |= {"fc.weight": (classes or 1, *own["fc.weight"][1:]), "fc.bias": (classes or 1,)}
        else:
            del own["fc.weight"], own["fc.bias"]
        differing[f"resnet{depth}"] = sum(own.get(name) != given.get(name) for name in own.keys() | given.keys())
    nearest = min(differing, key=differing.__getitem__)
    if differing[nearest]:
        words = f"fits no network of netdepth (nearest: {nearest}; tensors that differ: {differing[nearest]})"
        return Fit(None, None, None, words)
    words = f"fits {nearest}{'' if width == 64 else f' of width {width}'}"
    words += f" with {classes} classes" if classes else " without its last layer"
    return Fit(nearest, classes, width, words)


@functools.cache
def _shapes(channels: int, depth: int, width: int) -> Mapping[str, tuple[int, ...]]:
    """The characteristic part of a ResNet's state dict, for one class."""
    with torch.device("meta"):
        model = ImageNetResNet((channels, SIDE, SIDE), 1, depth, width)
    return {name: shape for name, shape in _shapes_of(model.state_dict()).items() if _characteristic(name)}


def _characteristic(name: str) -> bool:
    return not name.startswith("normalize.") and not name.endswith(COUNTER)


def open_published(path: Path, names: Sequence[str] | None = None) -> Published:
    """The network whose weights ``path`` (safetensors, such as `convert` and `export` write) holds.

    The names of its classes are ``names``, else those in the file, else ``class 0`` and so on.

    Raises:
        BadInput: no such file, no network that fits, no last layer, or another number of ``names``.
    """
    content, weights = _read(path)
    described = _described(path, content)
    component, shape, classes = described or _recognised(path, weights)
    if names is not None and len(names) != len(classes):
        raise BadInput(f"{len(names)} names of classes for {path}, which has {len(classes)} classes")
    if described:
        model = _built(path, component, shape, len(classes), weights)
    else:
        model = models.build(component, shape, len(classes))
        _load(weights, path, model)
    return Published(path, model.eval(), tuple(names or classes), hashlib.sha256(content).hexdigest(), component)


def _recognised(path: Path, weights: Mapping[str, Tensor]) -> About:
    """The same as `_described` of the ResNet that ``weights`` are of.

    Raises:
        BadInput: they are of none, or lack its last layer.
    """
    shapes = _shapes_of(weights)
    fit = recognise(shapes)
    if fit.model is None:
        raise BadInput(
            f"{path} {fit.fits}; to use the weights of a run, name its folder; netdepth convert knows other names"
        )
    if fit.classes is None:
        raise BadInput(f"{path} {fit.fits}, so it cannot predict; take weights with their last layer")
    names = tuple(f"class {i}" for i in range(fit.classes))
    return Component(fit.model, {"width": fit.width}), (shapes["conv1.weight"][1], SIDE, SIDE), names


def _described(path: Path, content: bytes) -> About | None:
    """Model, images' shape and classes in the metadata of a safetensors file; None if they do not say so.

    Raises:
        BadInput: they are not what `export` and `convert` write.
    """
    metadata = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")]).get("__metadata__", {})
    if "input_shape" not in metadata:
        return None
    try:
        component: Component = from_json(Component, json.loads(metadata["model"]), "model")
        classes: tuple[str, ...] = from_json(tuple[str, ...], json.loads(metadata["classes"]), "classes")
        channels, height, width = from_json(tuple[int, ...], json.loads(metadata["input_shape"]), "input_shape")
        if not classes or not all(0 < size <= MOST_PIXELS for size in (channels, height, width)):
            raise ValueError("input_shape or classes")
    except (BadInput, KeyError, TypeError, ValueError) as error:
        raise BadInput(f"{path} does not say what its network is: its metadata are damaged ({error})") from None
    return component, (channels, height, width), classes


def _built(
    path: Path, component: Component, shape: tuple[int, int, int], classes: int, weights: Mapping[str, Tensor]
) -> Network:
    """The network with ``weights``. Without memory first: the metadata may ask for any size."""
    try:
        with torch.device("meta"):
            empty = models.build(component, shape, classes).state_dict()
        if _shapes_of(empty) != _shapes_of(weights):
            raise BadInput("its tensors are not those of the network in its metadata")
        model = models.build(component, shape, classes)
        if any(tensor.dtype == torch.float64 for tensor in weights.values()):
            model = model.to(torch.float64)
        model.load_state_dict(dict(weights))
    except BadInput as error:
        raise BadInput(f"{path} cannot be loaded: {error}") from None
    return model


def _shapes_of(weights: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in weights.items()}


def pinned_file(start: StartFrom) -> StartFrom:
    """``start``, which names a file of weights, with its absolute path and the digest of what it holds.

    Raises:
        BadInput: no such file, another content than ``start.sha256``, or ``start.weights`` of a file.
    """
    if start.weights is not None:
        raise BadInput(f"start_from.weights = {start.weights!r} is for a run; a file holds one set of weights: null")
    path = Path(start.run).expanduser().absolute()
    sha256 = hashlib.sha256(_read(path)[0]).hexdigest()
    if start.sha256 not in (None, sha256):
        raise BadInput(f"start_from: {path} is {sha256[:10]}, not {str(start.sha256)[:10]} as this config says")
    return dataclasses.replace(start, run=str(path), sha256=sha256)


def begin_with_file(model: Network, start: StartFrom) -> None:
    """Give ``model`` the weights of the file that ``start`` names, in place; ``reset_head`` leaves its head as drawn.

    Raises:
        BadInput: the file holds another network.
    """
    path = Path(start.run)
    content, weights = _read(path)
    own = model.state_dict()
    try:
        needed = set() if start.reset_head else _head(model)
        if any(name not in weights or _other_classes(weights[name], own[name]) for name in needed):
            raise BadInput(
                f"{path} has no last layer for {model.num_classes} classes; start_from.reset_head=true draws it anew"
            )
        _load(weights, path, model, start.reset_head)
    except BadInput as error:
        described = _described(path, content)
        if described is None:
            words = recognise(_shapes_of(weights)).fits
        else:
            words = f"holds model={described[0].name} with {described[0].args}"
        raise BadInput(f"start_from: {error}; the file {words}") from None


def load_published(path: Path, model: Network, *, reset_head: bool = False) -> None:
    """Put the weights of a converted file into ``model``, with ImageNet's normalisation, which they expect.

    All tensors but those of the last layer, ``model.head``, have to fit. If the file has none, or one for
    another number of classes, or with ``reset_head``, the model keeps its own. A file with a normalisation of its own
    (``normalize.mean`` and ``.scale``) keeps that.

    Raises:
        BadInput: the file cannot be read or does not fit: how many names are missing, unexpected or of
            another shape, and the first three of each. The model is then unchanged.
    """
    _load(_read(path)[1], path, model, reset_head)


def _read(path: Path) -> tuple[bytes, dict[str, Tensor]]:
    try:
        content = path.read_bytes()
        return content, dict(sorted(safetensors.torch.load(content).items()))
    except (OSError, safetensors.SafetensorError) as error:
        reason = " ".join(str((isinstance(error, OSError) and error.strerror) or error).split())
        raise BadInput(f"cannot read {str(path)!r} as safetensors (netdepth convert makes them): {reason}") from None


def _load(weights: dict[str, Tensor], path: Path, model: Network, reset_head: bool = False) -> None:
    own = model.state_dict()
    foreign = not any(name.startswith("normalize.") for name in weights)
    if foreign and model.input_shape[0] != len(IMAGENET_MEAN):
        raise BadInput(f"{path} is for pictures of 3 channels; the network takes {model.input_shape[0]}")
    optional = {name for name in own if name.endswith(COUNTER) or (foreign and name.startswith("normalize."))}
    head = _head(model)
    if reset_head or head.isdisjoint(weights) or all(_other_classes(weights.get(name), own[name]) for name in head):
        optional |= head
        weights = {name: tensor for name, tensor in weights.items() if name not in head}

    # A file that was converted to half precision as a whole has counters in half precision too.
    weights = {n: t for n, t in weights.items() if not (n.endswith(COUNTER) and t.is_floating_point())}
    unlike = [
        f"{name} {list(tensor.shape)} for {list(own[name].shape)}"
        for name, tensor in weights.items()
        if name in own
        and (tensor.shape != own[name].shape or tensor.is_floating_point() != own[name].is_floating_point())
    ]
    faults = {
        "missing": [name for name in own if name not in weights and name not in optional],
        "unexpected": [name for name in weights if name not in own],
        "of another shape or type": unlike,
    }
    listed = [f"{len(names)} {what} ({', '.join(names[:3])})" for what, names in faults.items() if names]
    if listed:
        raise BadInput(f"{path} does not fit this network of depth {model.depth}: {'; '.join(listed)}")
    model.load_state_dict({**own, **weights})
    if foreign:
        model.normalize.set_statistics(torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD))


def _head(model: Network) -> set[str]:
    """Names of the parameters of ``model.head``; none if the network has no such layer."""
    head = getattr(model, "head", None)
    owned = {id(parameter) for parameter in head.parameters()} if isinstance(head, nn.Module) else set()
    return {name for name, parameter in model.named_parameters() if id(parameter) in owned}


def _other_classes(given: Tensor | None, own: Tensor) -> bool:
    """``given``, a tensor of a last layer, differs from ``own`` in the number of classes alone."""
    return given is not None and given.shape[1:] == own.shape[1:] and given.shape[:1] != own.shape[:1]
