"""Arrays of a user's own as `Splits`: what ``arrays``, ``csv``, ``idx`` and `netdepth.dataset` share.

Nothing is guessed that could be otherwise: pixels must be clearly 0 to 1 or 0 to 255, channels clearly first or last.
Labels may be numbers, names or one-hot rows; how they became classes is in the note of the data. Whether numbers are
classes or values to be met is not seen in them: the objective of the run decides (``dataset.targets``).
"""

from __future__ import annotations

import hashlib
import math
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import psutil
import torch

from netdepth.config import digest
from netdepth.data.fetch import Source, gunzip, is_gzip
from netdepth.data.splits import Split, Splits, array_digest, assembled, drawn_parts, repeated
from netdepth.errors import BadInput
from netdepth.files.atomic import reading

__all__ = [
    "Examples", "Layout", "Names", "Targets", "Values", "array_splits", "class_labels", "few", "labels_of",
    "memory_limit", "pixels", "read_file", "target_values",
]  # fmt: skip

Values = Annotated[
    Literal["0..1", "0..255"] | None, "what black to white is in the numbers; null: seen in them, refused in doubt"
]
Layout = Annotated[
    Literal["channels-first", "channels-last"] | None,
    "where the colours are; null: by the shape, refused in doubt",
]
Names = Annotated[list[str] | None, "names of the classes, in the order of their labels; null: the labels"]
Targets = Annotated[
    Literal["classes", "values"] | None,
    "what the labels are: classes, or numbers to be met (regression); null: what the objective takes",
]

SAY_LAYOUT = "--set dataset.layout=channels-first or channels-last"
DARK = 128
"""Numbers between 1 and this could be pixels in any range: 0 to 16, 0 to 100, ..."""
AS_VALUES = "numbers to be met instead take objective=mse or mae"
LARGE = 20
"""A network's outputs start near 0: values beyond this take it long to reach."""
MANY_CLASSES = 100
"""From so many on, labels that mostly differ from each other are no classes."""
SHOWN = 4
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


def read_file(path: Path, what: str) -> tuple[bytes, str]:
    """The bytes of a file, decompressed if it is a gzip stream, and their sha256.

    Raises:
        BadInput: no such file, not a regular one, or larger than `memory_limit`.
        StorageError: it cannot be read.
    """
    limit = memory_limit()
    with reading(path):
        try:
            found = path.stat()
        except (FileNotFoundError, NotADirectoryError, ValueError):
            raise BadInput(f"no file {str(path)!r}; it takes {what}") from None
        if not stat.S_ISREG(found.st_mode):  # reading a pipe would wait for a writer
            raise BadInput(f"{str(path)!r} is not a file; it takes {what}")
        if found.st_size > limit:
            raise BadInput(f"{str(path)!r} has {found.st_size:,} bytes; at most {limit:,} are read here")
        content = path.read_bytes()
    try:
        content = gunzip(content, limit) if is_gzip(content) else content
    except BadInput as reason:
        raise BadInput(f"{str(path)!r} is not acceptable: {reason}") from None
    return content, hashlib.sha256(content).hexdigest()


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
    targets: str | None = None,
    note: str = "",
) -> Splits:
    """``parts`` (train, and val and test where there are) as `Splits`.

    By `drawn_parts`. ``files`` maps each file to its sha256. The digest of the data is over pixels and labels, so that
    it does not depend on the file that they came in.

    Raises:
        BadInput: what cannot be pictures with classes (or values), or could be understood in two ways.
    """
    images, rounded = pixels(parts, values, layout)
    given = {part: (one.labels, one.name) for part, one in parts.items()}
    classes, met, labels, mapped = labels_of(given, names, targets)
    for part, one in parts.items():
        if len(images[part]) != len(labels[part]):
            raise BadInput(f"{one.name} has {len(images[part]):,} images and {len(labels[part]):,} labels")
    order, drawn = drawn_parts(labels, title, val_size=val_size, test_size=test_size, pooled=pooled)
    splits = {
        part: (Split(torch.from_numpy(images[origin][chosen]), torch.from_numpy(labels[origin][chosen])), chosen)
        for part, (origin, chosen) in order.items()
    }
    shown = {part: one.inputs.numpy() for part, (one, _) in splits.items()}
    return assembled(
        source.name,
        title,
        classes,
        splits,
        files=files,
        data_digest=digest(
            {**{p: array_digest(images[p], labels[p]) for p in parts}, "classes": list(classes)}
            | ({"targets": list(met)} if met else {})
        ),
        notes=[note, drawn, mapped, rounded],
        targets=met,
        again={part: repeated(shown["train"], held) for part, held in shown.items() if part != "train"},
    )


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
        raise BadInput(f"{name} has shape {shape}, which {how}; say {SAY_LAYOUT}")
    return images if layout == "channels-first" or (layout is None and first) else images.transpose(0, 3, 1, 2)


def _from_rows(images: np.ndarray, name: str, layout: str | None) -> np.ndarray:
    """Rows of pixels as square images."""
    count, length = images.shape
    grey, colour = math.isqrt(length), math.isqrt(length // 3)
    if grey**2 == length:
        return images.reshape(count, 1, grey, grey)
    if 3 * colour**2 != length:
        raise BadInput(f"{name} has rows of {length:,} numbers, which are no square picture, grey or in colour")
    if layout is None:
        raise BadInput(
            f"{name} has rows of {length:,} numbers, 3 × {colour} × {colour}: three planes one after another, or three "
            f"numbers per pixel? say {SAY_LAYOUT}"
        )
    if layout == "channels-first":
        return images.reshape(count, 3, colour, colour)
    return images.reshape(count, colour, colour, 3).transpose(0, 3, 1, 2)


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


def labels_of(
    given: Mapping[str, tuple[np.ndarray, str]],
    names: Sequence[str] | Mapping[int | str, str] | None,
    targets: str | None,
) -> tuple[tuple[str, ...], tuple[str, ...], dict[str, np.ndarray], str]:
    """Names of the classes and of the values (one of them is empty), the labels of every part, a note: `class_labels`,
    or where ``targets`` is ``"values"`` `target_values`."""
    if targets == "values":
        met, labels = target_values(given, None if isinstance(names, Mapping) else names)
        return (), met, labels, _range_note(labels["train"])
    classes, labels, note = class_labels(given, names)
    return classes, (), labels, note


def target_values(
    parts: Mapping[str, tuple[np.ndarray, str]], names: Sequence[str] | None
) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Names of the K values, and float32 ``[N, K]`` of every part, from its numbers ``[N]`` or ``[N, K]`` and what
    errors call it. Without ``names`` they are ``target``, or ``target 1`` to ``target K``.

    Raises:
        BadInput: what is no finite number, or another K than that of train.
    """
    made: dict[str, np.ndarray] = {}
    for part, (given, name) in parts.items():
        held = given[:, None] if given.ndim == 1 else given
        if held.ndim != 2 or not held.size:
            raise BadInput(f"{name} has labels of shape {list(given.shape)}; values are [N] or [N, K]")
        if held.dtype.kind in "OSU":
            held = _numbers(held, name)
        elif held.dtype.kind not in "buif":
            raise BadInput(f"{name} has labels of type {held.dtype.name}; values are numbers")
        with np.errstate(over="ignore"):
            made[part] = np.ascontiguousarray(held.astype(np.float32))
        broken = held[~np.isfinite(made[part])]
        if len(broken):
            raise BadInput(f"{name} has the value {broken[0]:g}; values are finite float32 numbers")
    first, count = parts["train"][1], made["train"].shape[1]
    for part, held in made.items():
        if held.shape[1] != count:
            raise BadInput(f"{parts[part][1]} has {held.shape[1]} values per image, {first} has {count}")
    default = ["target"] if count == 1 else [f"target {index + 1}" for index in range(count)]
    met = tuple(default if names is None else names)
    if len(met) != count:
        raise BadInput(f"dataset.names has {len(met)} names, {first} has {count} values per image")
    if len(set(met)) < count or not all(one.isprintable() and one.strip() for one in met):
        raise BadInput(f"the values {few(met)} cannot be told apart in a table; each takes a printable name")
    return met, made


def _range_note(held: np.ndarray) -> str:
    """From where to where values ``[N, K]`` run, and a warning of large ones."""
    low, high = float(held.min()), float(held.max())
    slow = "; such large ones are learned slowly: scale them (docs/data.md)" if max(-low, high) > LARGE else ""
    return f"values run from {low:.4g} to {high:.4g}{slow}"


def _numbers(given: np.ndarray, name: str) -> np.ndarray:
    """Texts as the numbers that they say, float64."""
    try:
        return given.astype(np.float64)
    except (ValueError, TypeError):
        for one in given.ravel().tolist():
            try:
                float(one)
            except (ValueError, TypeError):
                shown = one.decode("utf-8", "backslashreplace") if isinstance(one, bytes) else one
                raise BadInput(f"{name} has the label {shown!r}, which is no number; values are numbers") from None
        raise BadInput(f"{name} has labels that are no numbers") from None


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
        raise BadInput(
            f"{name} has {len(found):,} different labels in {len(known):,} examples, which are no classes; {AS_VALUES}"
        )
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
        raise BadInput(f"dataset.names has {len(classes)} names, the labels are {len(keys)} classes ({few(keys)})")
    if len(set(classes)) < len(classes) or not all(one.isprintable() and one.strip() for one in classes):
        raise BadInput(f"the classes {few(classes)} cannot be told apart in a table; each takes a printable name")
    return classes, made, _mapping_note(keys)


def _mapping_note(keys: Sequence[int | str]) -> str:
    """How labels became classes, or nothing where they are 0 to K - 1."""
    last, first = len(keys) - 1, keys[0]
    if not isinstance(first, int) or keys[-1] != first + last:
        return f"labels {few(keys)} are classes 0 to {last}"
    return f"labels {first} to {keys[-1]} are classes 0 to {last}" if first else ""


def few(items: Sequence[object]) -> str:
    """The first ``items`` and the last, for a message."""
    shown = list(map(repr, items))
    return ", ".join(shown if len(shown) <= SHOWN + 1 else [*shown[:SHOWN], "...", shown[-1]])


def _plain(given: np.ndarray, name: str) -> np.ndarray:
    """Labels as int64 or str ``[N]``."""
    labels = given
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2 and labels.dtype.kind in "buif":
        if not (np.isin(labels, (0, 1)).all() and (labels.sum(axis=1) == 1).all()):
            raise BadInput(
                f"{name} has labels of shape {list(given.shape)} that are not one-hot; it takes one per image; "
                f"{AS_VALUES}"
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
            raise BadInput(
                f"{name} has the label {broken[0]:g}; labels are classes: whole numbers or texts; {AS_VALUES}"
            )
    return labels.astype(np.int64)
