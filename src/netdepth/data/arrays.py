"""Arrays of one's own: ``--dataset arrays:FILE.npz``, and `dataset` for those in memory.

    x_train, y_train, x_val, y_val, x_test, y_test      as Keras writes them; val and test may be missing
    train_images, train_labels, ...                     the same, as MedMNIST calls them
    x, y                                                not divided: validation and test are drawn by seed 0

Images are ``[N, H, W]``, ``[N, H, W, C]``, ``[N, C, H, W]`` or ``[N, pixels]``. No pickle is loaded.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from netdepth.config import Component, Json, require
from netdepth.data.fetch import own_source, user_cache
from netdepth.data.own import (
    Examples,
    Layout,
    Names,
    Targets,
    Values,
    array_splits,
    class_labels,
    memory_limit,
    pixels,
    target_values,
)
from netdepth.data.splits import DATASETS, Splits, TestSize, ValShare, array_digest
from netdepth.errors import BadInput, StorageError
from netdepth.files.atomic import reading, write_atomic
from netdepth.text import printable

__all__ = ["ARRAYS", "arrays", "dataset"]

ARRAYS = own_source(
    "arrays", "your own arrays: FILE.npz with x_train, y_train, x_test, y_test, or x and y", "arrays:FILE.npz"
)

PAIRS = {
    "train": (("x_train", "y_train"), ("train_images", "train_labels")),
    "val": (("x_val", "y_val"), ("val_images", "val_labels"), ("x_valid", "y_valid")),
    "test": (("x_test", "y_test"), ("test_images", "test_labels")),
    "all": (("x", "y"), ("images", "labels"), ("data", "target")),
}
"""Names of images and labels, in small letters, by part."""

DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, KeyError, RuntimeError, MemoryError)


@DATASETS.register("arrays", added=("targets",), unhashed=("path",))
def arrays(
    data_dir: Path | None,
    *,
    path: Annotated[str, "FILE.npz with x_train and y_train, or x and y: --dataset arrays:FILE.npz"],
    values: Values = None,
    layout: Layout = None,
    names: Names = None,
    val_size: ValShare = None,
    test_size: TestSize = None,
    targets: Targets = None,
) -> Splits:
    """Your own arrays in a file of NumPy: --dataset arrays:FILE.npz."""
    file = Path(os.path.expanduser(path))
    held, sha = _read(file)
    parts, pooled = _parts(held, file.name)
    return array_splits(
        ARRAYS, f"your own arrays, {file.name}", parts, {file.name: sha}, values=values, layout=layout, names=names,
        val_size=val_size, test_size=test_size, pooled=pooled, targets=targets,
    )  # fmt: skip


def _parts(held: Mapping[str, np.ndarray], file: str) -> tuple[dict[str, Examples], bool]:
    """The parts by the names of the arrays, and whether they are not divided yet."""
    parts: dict[str, Examples] = {}
    for part, pairs in PAIRS.items():
        for images, labels in pairs:
            if images not in held and labels not in held:
                continue
            for has, lacks in ((images, labels), (labels, images)):
                if lacks not in held:
                    raise BadInput(f"{file!r} holds {has} without {lacks}; pictures and labels come together")
            if part in parts:
                raise BadInput(f"{file!r} holds {part} data twice: {images}, and {parts[part].name}; keep one")
            parts[part] = Examples(held[images], held[labels], f"{images} of {file!r}")
    if ("all" in parts) == ("train" in parts) or ("all" in parts and len(parts) > 1):
        has = ", ".join(held) or "nothing"
        raise BadInput(f"{file!r} holds {has}; it takes x_train and y_train (x_val, x_test likewise), or x and y alone")
    if "all" in parts:
        return {"train": parts["all"]}, True
    return parts, False


def _read(path: Path) -> tuple[dict[str, np.ndarray], str]:
    """The arrays of an npz file by name, in small letters, and the file's sha256.

    Raises:
        BadInput: no such file, damaged, larger than the memory takes, or with Python objects in it.
        StorageError: it cannot be read.
    """
    held: dict[str, np.ndarray] = {}
    with reading(path):
        if not path.is_file():
            raise BadInput(f"no file {str(path)!r}; it takes FILE.npz")
        with open(path, "rb") as handle:
            sha = hashlib.file_digest(handle, "sha256").hexdigest()
        try:
            with zipfile.ZipFile(path) as archive:
                entries = [info for info in archive.infolist() if info.filename.endswith(".npy")]
                total = sum(info.file_size for info in entries)
                if total > memory_limit():
                    raise BadInput(f"it holds {total:,} bytes; at most {memory_limit():,} fit here")
                for info in entries:
                    name = info.filename.removesuffix(".npy").lower()
                    if any(name in pair for pairs in PAIRS.values() for pair in pairs):
                        held[name] = _array(archive, info)
        except (BadInput, *DAMAGED) as reason:
            words = " ".join(str(reason).split()) or type(reason).__name__
            raise BadInput(f"{str(path)!r} is not acceptable: {words}") from None
    return held, sha


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    """One array, whose header is believed only as far as there are bytes for it."""
    with archive.open(info) as stream:
        version = np.lib.format.read_magic(stream)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, kind = header(stream)
    if kind.hasobject:
        raise BadInput(f"{info.filename} holds Python objects, which are not loaded; save numbers, or texts as str")
    size = math.prod(shape) * kind.itemsize
    if size > info.file_size or min(shape, default=0) < 0:
        raise BadInput(f"{info.filename} says that it has shape {list(shape)}, but holds {info.file_size:,} bytes")
    with archive.open(info) as stream:
        found: np.ndarray = np.lib.format.read_array(stream, allow_pickle=False)
    return found


# --- arrays in memory -------------------------------------------------------------------------


def dataset(
    x: Any,
    y: Any,
    *,
    x_val: Any = None,
    y_val: Any = None,
    x_test: Any = None,
    y_test: Any = None,
    names: Sequence[str] | None = None,
    values: str | None = None,
    layout: str | None = None,
    val_size: int | float | None = None,
    test_size: int | float | None = None,
    path: str | Path | None = None,
    targets: str | None = None,
) -> Component:
    """Arrays in memory as a data set: ``nd.train("baseline-mlp", dataset=nd.dataset(x, y))``.

    ``x``: images ``[N, H, W]``, ``[N, H, W, C]``, ``[N, C, H, W]`` or ``[N, pixels]``, NumPy arrays or tensors, uint8,
    or floats from 0 to 1 or from 0 to 255. ``y``: labels ``[N]``, whole numbers or texts, or one-hot rows; for an
    objective such as ``mse``, which learns values, any numbers ``[N]`` or ``[N, K]``. Without test arrays, validation
    and test are drawn from ``x`` by seed 0, with equal class shares (values: at random).

    The pixels are written as uint8 to ``path``, else to the user cache, under a name that is the digest of their
    content. So a run can be continued or looked at by another process, and the same arrays are the same data set.

    Args:
        names: of the classes, in the order of their labels; of values: of the K of them.
        values: ``"0..1"`` or ``"0..255"``, where the numbers leave it open.
        layout: ``"channels-first"`` or ``"channels-last"``, where the shape leaves it open.
        val_size: validation examples: a count, or a share below 1; None: 0.1.
        test_size: test examples, likewise, if there are no test arrays.
        targets: ``"classes"`` or ``"values"``: what ``y`` is; None: the objective of the run decides.

    Raises:
        BadInput: what cannot be pictures with classes or values, or could be understood in two ways.
    """
    given = {"train": (x, y, ""), "val": (x_val, y_val, "_val"), "test": (x_test, y_test, "_test")}
    parts = {}
    if x is None:
        raise BadInput("x and y are None; they take the training images and their labels")
    for part, (images, labels, end) in given.items():
        if (images is None) != (labels is None):
            raise BadInput(f"x{end} and y{end} come together; one of them is None")
        if images is not None:
            parts[part] = Examples(_numpy(images, f"x{end}"), _numpy(labels, f"y{end}"), f"x{end}")
    made, _ = pixels(parts, values, layout)
    for one in parts.values():
        if len(one.images) != len(one.labels):
            raise BadInput(f"{one.name} has {len(one.images):,} images and {len(one.labels):,} labels")
    _refuse_labels({part: (one.labels, one.name) for part, one in parts.items()}, names, targets)
    pooled = list(parts) == ["train"]
    held: dict[str, np.ndarray] = {}
    for part, one in parts.items():
        ending = "" if pooled else f"_{part}"
        labels = one.labels.astype(str) if one.labels.dtype.kind == "O" else one.labels
        held |= {f"x{ending}": made[part], f"y{ending}": labels}
    settings: dict[str, Json] = {
        "path": str(_written(held, path)), "values": "0..255", "layout": "channels-first",
        "names": None if names is None else list(names), "val_size": val_size, "test_size": test_size,
        "targets": targets,
    }  # fmt: skip
    return Component("arrays", {key: value for key, value in settings.items() if value is not None})


def _refuse_labels(
    given: Mapping[str, tuple[np.ndarray, str]], names: Sequence[str] | None, targets: str | None
) -> None:
    """Refuse here, not in a run, what can be neither classes nor values, or not what ``targets`` says."""
    require(targets in (None, "classes", "values"), "targets", targets, "'classes', 'values' or None")
    if targets == "values":
        target_values(given, names)
        return
    try:
        class_labels(given, names)
    except BadInput as refused:
        if targets == "classes":
            raise
        try:
            target_values(given, names)
        except BadInput:
            raise refused from None


def _numpy(given: Any, name: str) -> np.ndarray:
    """A NumPy array, or a tensor on any device, or a list of either, as an array."""
    if isinstance(given, str | Path):
        raise BadInput(f"{name} = {str(given)!r} is a text; it takes an array (a file: dataset='arrays:FILE.npz')")
    try:
        return np.asarray(given.detach().cpu() if hasattr(given, "detach") else given)
    except (ValueError, TypeError, RuntimeError) as reason:
        raise BadInput(f"{name} is no array ({' '.join(str(reason).split())[:200]})") from None


def _written(held: Mapping[str, np.ndarray], path: str | Path | None) -> Path:
    """The file that holds the arrays; where the cache cannot be written, one in the folder for temporary files."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **held)
    key = hashlib.sha256(" ".join([*held, array_digest(*held.values())]).encode()).hexdigest()[:32]
    target = user_cache() / "arrays" / key if path is None else Path(path).expanduser().absolute()
    target = target if target.suffix == ".npz" else target.with_name(f"{target.name}.npz")
    try:
        write_atomic(target, buffer.getvalue(), parents=True)
    except StorageError as fault:
        if path is not None:
            raise
        target = Path(tempfile.mkdtemp(prefix="netdepth-")) / target.name
        print(printable(f"note: {fault}; the arrays are in {target}"), file=sys.stderr)
        write_atomic(target, buffer.getvalue())
    return target
