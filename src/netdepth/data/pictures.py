"""Folders and files of pictures as `Splits`: what ``image-folder``, ``parquet`` and ``cifar10-jpeg`` share."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch

from netdepth.config import digest, require
from netdepth.data.decode import Pictures, RefusedPictures, decoded
from netdepth.data.splits import Split, Splits, assembled, drawn_parts, repeated
from netdepth.files.pictures import few_levels

__all__ = ["Channels", "Folder", "Size", "check_size", "picture_splits"]

Size = Annotated[int | None, "pictures become size x size (the middle square); null: they have one size"]
Channels = Annotated[Literal[1, 3], "3: RGB, 1: grey"]
MAX_SIZE = 4096


@dataclass(frozen=True)
class Folder:
    """Pictures by part; their classes; a note to readers of the numbers (or ""); whether validation and test are drawn
    from train, since whoever they come from did not divide them (``pooled``); the names of the values, where the labels
    are such (``targets``)."""

    classes: tuple[str, ...]
    parts: Mapping[str, Pictures]
    note: str = ""
    pooled: bool = False
    targets: tuple[str, ...] = ()


def check_size(size: int | None) -> None:
    """Refuse a `Size` out of range."""
    require(size is None or 1 <= size <= MAX_SIZE, "dataset.size", size, f"1 to {MAX_SIZE}, or null")


def picture_splits(
    name: str,
    title: str,
    folder: Folder,
    files: Mapping[str, str],
    *,
    size: int | None,
    channels: int,
    val_size: int | float | None,
    test_size: int | float | None = None,
    compared: bool = True,
) -> Splits:
    """The parts of ``folder`` as `Splits`, by `drawn_parts`.

    Test pictures are decoded with the others, so that a broken one is named before a network trains for hours, not
    after; their pixels are given to nobody before the seal is opened. ``compared``: count those of validation and test
    that have the pixels of a training picture.

    Raises:
        BadInput: pictures that cannot be used (ten are named, all are counted), or a size out of range.
        StorageError: a file cannot be read.
    """
    held = folder.parts
    labels, place = {part: pictures.labels for part, pictures in held.items()}, held["train"].place
    order, drawn = drawn_parts(labels, repr(place), val_size=val_size, test_size=test_size, pooled=folder.pooled)
    apart = [part for part, (origin, _) in order.items() if origin == "test"]  # decoded, and kept, on its own
    pixels: dict[str, np.ndarray] = {}
    refused: list[tuple[str, str]] = []
    shape: tuple[int, int] | None = None
    for together in filter(None, ([part for part in order if part not in apart], apart)):
        pool = [(held[order[part][0]], order[part][1]) for part in together]
        try:
            images = decoded(pool, channels=channels, size=size, shape=shape)
        except RefusedPictures as found:
            refused, shape = [*refused, *found.pictures], found.shape
            continue
        shape = images.shape[2:]
        ends = np.cumsum([len(indices) for _, indices in pool])
        pixels |= zip(together, np.split(images, ends[:-1]), strict=True)
    assert shape is not None
    if refused:
        raise RefusedPictures(refused, shape)
    parts = {
        part: (_split(pixels[part], labels[origin][indices]), indices) for part, (origin, indices) in order.items()
    }
    again = {part: repeated(pixels["train"], pixels[part]) for part in order if part != "train" and compared}
    first = [held[order[part][0]].names[order[part][1][found[0]]] for part, found in again.items() if len(found)]
    return assembled(
        name,
        title,
        folder.classes,
        parts,
        files=files,
        data_digest=digest({part: pictures.content for part, pictures in held.items()}),
        notes=[
            drawn,
            folder.note,
            *(f"{name!r} has the pixels of a training picture" for name in first),
            few_levels(pixels["train"]),
        ],
        again=again,
        targets=folder.targets,
    )


def _split(pixels: np.ndarray, labels: np.ndarray) -> Split:
    """The arrays as tensors that share their memory; pixels that are mapped read-only must not be written to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return Split(torch.from_numpy(pixels), torch.from_numpy(labels))
