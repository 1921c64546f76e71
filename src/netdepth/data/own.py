"""Arrays of a user's own as `Splits`: what ``arrays``, ``csv``, ``idx`` and `netdepth.dataset` share.

Nothing is guessed that could be otherwise: pixels must be clearly 0 to 1 or 0 to 255, channels clearly first or last.
Labels may be numbers, names or one-hot rows; how they became classes is in the note of the data.
"""

from __future__ import annotations

import hashlib
import math
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import psutil
import torch

from netdepth.config import digest
from netdepth.data.fetch import Source, gunzip, is_gzip
from netdepth.data.splits import (
    DatasetSpec,
    SealedTest,
    Split,
    Splits,
    array_digest,
    count_of,
    drawn_note,
    repeated,
    set_aside,
    stratified_choice,
)  # fmt: skip
from netdepth.errors import BadInput, StorageError

__all__ = [
    "Examples", "Layout", "Names", "TestSize", "ValShare", "Values", "array_splits", "class_labels", "mapping_note",
    "memory_limit", "pixels", "read_file", "sha256",
]  # fmt: skip

Values = Annotated[
    Literal["0..1", "0..255"] | None, "what black to white is in the numbers; null: seen in them, refused in doubt"
]
Layout = Annotated[
    Literal["channels-first", "channels-last"] | None,
    "where the colours are; null: by the shape, refused in doubt",
]
Names = Annotated[list[str] | None, "names of the classes, in the order of their labels; null: the labels"]
ValShare = Annotated[
    int | float | None,
    "validation taken from train: a count, or a share below 1; null: 0.1 if none is given",
]
TestSize = Annotated[
    int | float | None, "test taken from data that are not divided: a count, or a share below 1; null: 0.1"
]

SAY_LAYOUT = "--set dataset.layout=channels-first or channels-last"
DARK = 128
"""Numbers between 1 and this could be pixels in any range: 0 to 16, 0 to 100, ..."""
MANY_CLASSES = 100
"""From so many on, labels that mostly differ from each other are no classes."""
SHOWN_LABELS = 4
CHUNK = 4096


@dataclass(frozen=True, eq=False)
class Examples:
    """Images and labels as they were given; ``name`` is what errors call them, such as ``x_test of 'a.npz'``."""

    images: np.ndarray
    labels: np.ndarray
    name: str


def memory_limit() -> int:
    """Bytes that a file of data may have once unpacked: half of the machine's memory."""
    return int(psutil.virtual_memory().total // 2)


def read_file(path: Path, what: str) -> bytes:
    """The bytes of a file, decompressed if it is a gzip stream.

    Raises:
        BadInput: no such file, not a regular one, or larger than `memory_limit`.
        StorageError: it cannot be read.
    """
    limit = memory_limit()
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # reading a pipe would wait for a writer
            raise BadInput(f"{str(path)!r} is not a file; it takes {what}")
        if found.st_size > limit:
            raise BadInput(f"{str(path)!r} has {found.st_size:,} bytes; at most {limit:,} are read here")
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise BadInput(f"no file {str(path)!r}; it takes {what}") from None
    except OSError as error:
        raise StorageError(f"cannot read {str(path)!r}: {error.strerror or error}") from None
    if not is_gzip(content):
        return content
    try:
        return gunzip(content, limit)
    except BadInput as reason:
        raise BadInput(f"{str(path)!r} is not acceptable: {reason}") from None


def array_splits(
    source: Source,
    title: str,
    parts: Mapping[str, Examples],
    files: Mapping[str, str],
    *,
    values: str | None,
    layout: str | None,
    names: Sequence[str] | Mapping[int | str, str] | None,
    val_size: int | float | None,
    test_size: int | float | None,
    pooled: bool,
    note: str = "",
) -> Splits:
    """``parts`` (train, and val and test where there are) as `Splits`.

    Validation is drawn from train unless it is a part; test as well if the data are ``pooled`` (not divided by whom
    they come from). ``files`` maps each file to its sha256. The digest of the data is over pixels and labels, so that
    it does not depend on the file that they came in.

    Raises:
        BadInput: what cannot be pictures with classes, or could be understood in two ways.
    """
    if test_size is not None and not pooled:
        raise BadInput(f"dataset.test_size = {test_size!r}, but {title} is divided already; leave it null")
    if val_size is not None and "val" in parts:
        raise BadInput(f"dataset.val_size = {val_size!r}, but {title} has validation data; leave it null")
    images, rounded = pixels(parts, values, layout)
    classes, labels, mapped = class_labels({part: (one.labels, one.name) for part, one in parts.items()}, names)
    for part, one in parts.items():
        if len(images[part]) != len(labels[part]):
            raise BadInput(f"{one.name} has {len(images[part]):,} images and {len(labels[part]):,} labels")
    count, tested = len(labels["train"]), 0
    order = {part: np.arange(len(held)) for part, held in labels.items()}
    origin = dict(zip(parts, parts, strict=True))
    if pooled:
        tested = count_of("test_size", test_size, count, len(classes))
        if tested:
            order["test"], origin["test"] = stratified_choice(labels["train"], tested, stream=1), "train"
            order["train"] = np.setdiff1d(order["train"], order["test"], assume_unique=True)
    if "val" not in parts:
        rest = order["train"]
        wanted = count_of("val_size", val_size, len(rest), len(classes))
        kept, chosen = set_aside(labels["train"][rest], wanted)
        order["train"], order["val"], origin["val"] = rest[kept], rest[chosen], "train"
        if pooled:
            note = "; ".join(filter(None, [note, drawn_note(wanted, tested)]))
    order = {part: order[part] for part in ("train", "val", "test") if part in order}

    def split(part: str) -> Split:
        chosen = order[part]
        own = images[origin[part]][chosen], labels[origin[part]][chosen]
        return Split(*map(torch.from_numpy, own))

    splits = {part: split(part) for part in order}
    first = splits["train"].inputs.numpy()
    again = {part: len(repeated(first, one.inputs.numpy())) for part, one in splits.items() if part != "train"}
    channels, height, width = first.shape[1:]
    spec = DatasetSpec(
        name=source.name,
        title=title,
        input_shape=(channels, height, width),
        classes=classes,
        sizes={part: len(one) for part, one in splits.items()},
        files=dict(files),
        data_digest=digest({**{p: array_digest(images[p], labels[p]) for p in parts}, "classes": list(classes)}),
        split_digest=array_digest(*order.values()),
        note="; ".join(filter(None, [note, mapped, rounded])),
        repeated={part: number for part, number in again.items() if number},
    )
    test = splits.get("test")
    return Splits(spec, splits["train"], splits["val"], None if test is None else SealedTest(lambda: test, len(test)))


# --- pixels -----------------------------------------------------------------------------------


def pixels(parts: Mapping[str, Examples], values: str | None, layout: str | None) -> tuple[dict[str, np.ndarray], str]:
    """The images of every part as uint8 ``[N, C, H, W]``, and a note if numbers had to be rounded."""
    shaped = {part: _shaped(one, layout) for part, one in parts.items()}
    first, shape = parts["train"].name, list(shaped["train"].shape[1:])
    scale = _scale(shaped["train"], first, values)
    if scale is None:
        held = shaped["train"]
        raise BadInput(
            f"{first} ({held.dtype.name}) runs from {held.min():g} to {held.max():g}, which may be 0 to 1, 0 to 255 or "
            "another range; scale it to one of these, or say --set dataset.values=0..1 or 0..255"
        )
    made, worst = {}, 0.0
    for part, one in parts.items():
        held = shaped[part]
        if list(held.shape[1:]) != shape:
            raise BadInput(f"{one.name} has images of shape {list(held.shape[1:])}, {first} has {shape}")
        own = _scale(held, one.name, values)
        if own not in (scale, None) or (scale == "0..1" and held.max() > 1):
            raise BadInput(f"{first} runs from {scale.replace('..', ' to ')}, {one.name} does not; scale one of them")
        made[part], off = _eight_bits(held, 255 if scale == "0..1" else 1)
        worst = max(worst, off)
    return made, "pixels were rounded to 256 levels" if worst > 0.01 else ""


def _shaped(one: Examples, layout: str | None) -> np.ndarray:
    """The images as ``[N, C, H, W]``, without a copy."""
    images, name, shape = one.images, one.name, list(one.images.shape)
    if images.dtype.kind not in "buif":
        raise BadInput(f"{name} holds {images.dtype.name}; images are numbers")
    if 0 in shape:
        raise BadInput(f"{name} is empty: its shape is {shape}")
    if images.ndim == 2:
        return _from_rows(images, name, layout)
    if images.ndim == 3:
        return images[:, None]
    if images.ndim != 4:
        raise BadInput(f"{name} has shape {shape}; images are [N, H, W], [N, H, W, C], [N, C, H, W] or [N, pixels]")
    first, last = shape[1] in (1, 3), shape[3] in (1, 3)
    if layout is None and first == last:
        how = "could have its channels first or last" if first else "has neither 1 nor 3 channels, first or last"
        raise BadInput(
            f"{name} has shape {shape}, which {how}; say --set dataset.layout=channels-first or channels-last"
        )
    return images if layout == "channels-first" or (layout is None and first) else images.transpose(0, 3, 1, 2)


def _from_rows(images: np.ndarray, name: str, layout: str | None) -> np.ndarray:
    """Rows of pixels as square images."""
    count, length = images.shape
    for channels in (1, 3):
        side = math.isqrt(length // channels)
        if channels * side * side != length:
            continue
        if channels == 1:
            return images.reshape(count, 1, side, side)
        if layout is None:
            raise BadInput(
                f"{name} has rows of {length:,} numbers, 3 × {side} × {side}: three planes one after another, or three "
                f"numbers per pixel? say {SAY_LAYOUT}"
            )
        if layout == "channels-first":
            return images.reshape(count, 3, side, side)
        return images.reshape(count, side, side, 3).transpose(0, 3, 1, 2)
    raise BadInput(f"{name} has rows of {length:,} numbers, which are no square picture, grey or in colour")


def _scale(images: np.ndarray, name: str, values: str | None) -> str | None:
    """Whether the numbers are ``0..1`` or ``0..255``; None if they leave it open."""
    if images.dtype.kind == "b":
        return "0..1"
    low, high = images.min(), images.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise BadInput(f"{name} holds NaN or infinite values")
    if low < 0 or high > 255 or (values == "0..1" and high > 1):
        takes = "0 to 1" if values == "0..1" else "0 to 1 or 0 to 255"
        raise BadInput(
            f"{name} runs from {low:g} to {high:g}, pixels from {takes}; bring them there, such as by "
            "(x - x.min()) / (x.max() - x.min())"
        )
    if values is not None:
        return values
    if images.dtype.kind == "f" and 0 < high <= 1:
        return "0..1"
    return "0..255" if high >= DARK or (images.dtype == np.uint8 and high > 1) else None


def _eight_bits(images: np.ndarray, factor: int) -> tuple[np.ndarray, float]:
    """``factor`` times the images as uint8, and by how much rounding changed a pixel at most."""
    if images.dtype == np.uint8 and factor == 1:
        return np.ascontiguousarray(images), 0.0
    made, worst = np.empty(images.shape, np.uint8), 0.0
    for start in range(0, len(images), CHUNK):  # not all of them in float64 at once
        exact = images[start : start + CHUNK].astype(np.float64) * factor
        near = np.rint(exact)
        worst = max(worst, float(np.abs(exact - near).max()))
        made[start : start + CHUNK] = near
    return made, worst


# --- labels -----------------------------------------------------------------------------------


def class_labels(
    parts: Mapping[str, tuple[np.ndarray, str]], names: Sequence[str] | Mapping[int | str, str] | None
) -> tuple[tuple[str, ...], dict[str, np.ndarray], str]:
    """Classes, and int64 labels ``[N]`` of every part, from the labels of ``parts`` and what errors call each; and a
    note on how they were mapped, unless they are 0 to K - 1.

    The classes are the labels of train, sorted. ``names`` are other names for them, in that order or by label.

    Raises:
        BadInput: no classes: fractions, too many, fewer than two, or a class that train does not have.
    """
    plain = {part: _plain(given, name) for part, (given, name) in parts.items()}
    known, name = plain["train"], parts["train"][1]
    if len({found.dtype.kind for found in plain.values()}) > 1:
        raise BadInput(f"the labels of {' and '.join(called for _, called in parts.values())} are numbers and names")
    found = np.unique(known)
    if len(found) < 2:
        raise BadInput(f"{name} has labels of {len(found)} class; it takes 2 or more")
    if len(found) >= MANY_CLASSES and len(found) > len(known) / 2:
        raise BadInput(f"{name} has {len(found):,} different labels in {len(known):,} examples, which are no classes")
    made = {}
    for part, labels in plain.items():
        place = np.minimum(np.searchsorted(found, labels), len(found) - 1)
        unknown = labels[found[place] != labels]
        if len(unknown):
            raise BadInput(f"{parts[part][1]} has the label {unknown[0].item()!r}, of which train has no example")
        made[part] = place.astype(np.int64)
    keys = found.tolist()
    if isinstance(names, Mapping):
        classes = tuple(names.get(key, str(key)) for key in keys)
    else:
        classes = tuple(map(str, keys)) if names is None else tuple(names)
    if len(classes) != len(keys):
        raise BadInput(f"dataset.names has {len(classes)} names, the labels are {len(keys)} classes ({_few(keys)})")
    if len(set(classes)) < len(classes) or not all(one.isprintable() and one.strip() for one in classes):
        raise BadInput(
            f"the classes {_few(list(classes))} cannot be told apart in a table; each takes a printable name"
        )
    return classes, made, mapping_note(keys)


def mapping_note(keys: Sequence[int | str]) -> str:
    """How labels became classes, or nothing where they are 0 to K - 1."""
    last, first = len(keys) - 1, keys[0]
    if isinstance(first, int) and keys[-1] == first + last:
        if first == 0:
            return ""
        return f"labels {keys[0]} to {keys[-1]} are classes 0 to {last}"
    return f"labels {_few(list(keys))} are classes 0 to {last}"


def _few(items: Sequence[Any]) -> str:
    shown = list(map(repr, items))
    if len(shown) > SHOWN_LABELS + 1:
        shown = [*shown[:SHOWN_LABELS], "...", shown[-1]]
    return ", ".join(shown)


def _plain(given: np.ndarray, name: str) -> np.ndarray:
    """Labels as int64 or str ``[N]``."""
    labels = given
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2 and labels.dtype.kind in "buif":
        if not (np.isin(labels, (0, 1)).all() and (labels.sum(axis=1) == 1).all()):
            raise BadInput(
                f"{name} has labels of shape {list(given.shape)} that are not one-hot; it takes one per image"
            )
        labels = labels.argmax(axis=1)
    if labels.ndim != 1 or not len(labels):
        raise BadInput(f"{name} has labels of shape {list(given.shape)}; it takes [N], or one-hot [N, classes]")
    if labels.dtype.kind == "O" and all(isinstance(one, str) for one in labels):
        labels = labels.astype(str)
    if labels.dtype.kind == "S":
        labels = np.char.decode(labels, "utf-8", "backslashreplace")
    if labels.dtype.kind == "U":
        # Numbers in quotes would be sorted as 1, 10, 2.
        texts: list[str] = np.unique(labels).tolist()
        whole = all(len(text) < 19 and text.removeprefix("-").isdecimal() and str(int(text)) == text for text in texts)
        return labels.astype(np.int64) if whole else labels
    if labels.dtype.kind not in "buif":
        raise BadInput(f"{name} has labels of type {labels.dtype.name}; it takes whole numbers or texts")
    if labels.dtype.kind == "f":
        broken = labels[~np.isfinite(labels) | (labels != np.rint(labels))]
        if len(broken):
            raise BadInput(f"{name} has the label {broken[0]:g}; labels are classes: whole numbers or texts")
    return labels.astype(np.int64)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
