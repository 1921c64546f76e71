"""A file of published weights as a network that can be asked: what ``predict`` and ``explain`` take beside a run."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from netdepth.errors import BadInput
from netdepth.tools.convert.fit import load_published, recognise

if TYPE_CHECKING:
    from netdepth.models import Network

__all__ = ["SIDE", "Published", "open_published"]

SIDE = 224
"""Pixels of a picture's side: what ImageNet's networks were trained with (He et al. 2016, §3.4)."""


@dataclass(frozen=True)
class Published:
    """The network that the weights in ``path`` fit, in eval mode, its classes, and the ``sha256`` of the file."""

    path: Path
    model: Network
    classes: tuple[str, ...]
    sha256: str


def open_published(path: Path, names: Sequence[str] | None = None) -> Published:
    """The ResNet whose weights ``path`` (safetensors, such as `convert` writes) holds.

    A file of weights has no names for its classes: they are ``names``, else ``class 0`` and so on.

    Raises:
        BadInput: no such file, no network that fits, no last layer, or another number of ``names``.
    """
    from safetensors import SafetensorError, safe_open

    from netdepth import models

    try:
        with safe_open(path, "np") as there:
            shapes = {key: there.get_slice(key).get_shape() for key in there.keys()}  # noqa: SIM118, not a dict
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    except (OSError, SafetensorError) as error:
        reason = " ".join(str((isinstance(error, OSError) and error.strerror) or error).split())
        raise BadInput(f"cannot read {str(path)!r} as safetensors (netdepth convert makes them): {reason}") from None
    fit = recognise(shapes)
    if fit["model"] is None:
        raise BadInput(f"{path} {fit['fits']}; weights of a run are used by naming its folder")
    if fit["classes"] is None:
        raise BadInput(f"{path} {fit['fits']}, so it has no answers; take weights with their last layer")
    if names is not None and len(names) != fit["classes"]:
        raise BadInput(f"{len(names)} names of classes for {path}, which {fit['fits']}")
    shape = (int(shapes["conv1.weight"][1]), SIDE, SIDE)
    model = models.build(fit["model"], shape, fit["classes"], width=fit["width"])
    load_published(path, model)
    return Published(path, model.eval(), tuple(names or (f"class {i}" for i in range(fit["classes"]))), sha256)
