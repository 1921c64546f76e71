"""Pictures as uint8 arrays, decoded once and kept in the user cache; and a folder of them as `Splits`.

    <user cache>/decoded/<key>-<sha256>.npy

``key`` is a digest of what the pictures are and how they are decoded, ``sha256`` that of the array, checked
whenever it is read. The files may be removed at any time: they are made again when they are wanted.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from netdepth.config import digest
from netdepth.data.decode import File, Pictures, chunks, shape_of
from netdepth.data.fetch import user_cache
from netdepth.data.splits import DatasetSpec, SealedTest, Split, Splits, array_digest, stratified_choice
from netdepth.errors import StorageError
from netdepth.files.atomic import fsync_folder, storage
from netdepth.files.pictures import decoder
from netdepth.progress import CountProgress

__all__ = ["MAPPED_SHARE", "Folder", "decoded", "picture_splits"]

MAPPED_SHARE = 0.25
"""A decoded array that is larger than this share of the machine's memory is memory-mapped, not read."""

FORGOTTEN_SECONDS = 86_400
"""A temporary file so old was left behind by a process that was killed."""


@dataclass(frozen=True)
class Folder:
    """A folder of pictures: its classes, its parts, and what a reader of numbers should know (or "")."""

    classes: tuple[str, ...]
    parts: Mapping[str, Pictures]
    note: str


def picture_splits(
    name: str,
    title: str,
    folder: Folder,
    files: dict[str, str],
    *,
    size: int | None,
    channels: int,
    val_size: int,
) -> Splits:
    """The parts of ``folder`` as `Splits`; validation is its own part, or ``val_size`` pictures of train.

    Test pictures are decoded with the others, so that a broken one is named before a network has trained
    for hours, not after; nobody is given their pixels before the seal is opened.

    Raises:
        BadInput: a picture that cannot be used, or ``val_size`` out of range.
        StorageError: a file cannot be read, or the cache cannot be written.
    """
    train, val, test = (folder.parts.get(part) for part in ("train", "val", "test"))
    assert train is not None
    if val is None:
        chosen = stratified_choice(train.labels, val_size)
        rest = np.setdiff1d(np.arange(len(train)), chosen, assume_unique=True)
        val = train
    else:
        rest, chosen = np.arange(len(train)), np.arange(len(val))
    images = decoded([(train, rest), (val, chosen)], channels=channels, size=size)
    shape = (channels, images.shape[2], images.shape[3])
    sizes = {"train": len(rest), "val": len(chosen)}
    indices, sealed = [rest, chosen], None
    if test is not None:
        order = np.arange(len(test))
        pixels, labels = decoded([(test, order)], channels=channels, size=size, shape=shape[1:]), test.labels
        sealed = SealedTest(lambda: _split(pixels, labels), len(test))
        sizes["test"] = len(test)
        indices.append(order)
    spec = DatasetSpec(
        name=name,
        title=title,
        input_shape=shape,
        classes=folder.classes,
        sizes=sizes,
        files=files,
        data_digest=digest({part: pictures.content for part, pictures in folder.parts.items()}),
        split_digest=array_digest(*indices),
        note=folder.note,
    )
    first = _split(images[: len(rest)], train.labels[rest])
    return Splits(spec, first, _split(images[len(rest) :], val.labels[chosen]), sealed)


def _split(pixels: np.ndarray, labels: np.ndarray) -> Split:
    return Split(_as_tensor(pixels), _as_tensor(labels))


def decoded(
    pool: Sequence[tuple[Pictures, np.ndarray]],
    *,
    channels: int,
    size: int | None,
    shape: tuple[int, int] | None = None,
    progress: bool = True,
) -> np.ndarray:
    """uint8 ``[N, C, H, W]`` of the pictures in ``pool``, from the cache or decoded now.

    An entry of ``pool`` is a part and the order of its pictures (indices); a part may be divided between
    entries, and all of it is asked for. ``size`` as in `decode_picture`; where it is None every picture must
    have the same one, ``shape`` (H, W) or that of the first.

    Raises:
        BadInput: a picture that cannot be decoded or has another size; the line names the file.
        StorageError: a file cannot be read or changed meanwhile, or the cache cannot be written.
        RunFailed: a process that decodes was ended.
    """
    asked = [[pictures.content, array_digest(order)] for pictures, order in pool]
    settings = {"channels": channels, "size": size, "shape": shape and list(shape), "decoder": decoder()}
    key = digest({"layout": 1, "pictures": asked, **settings})[:32]
    files = [(pictures, int(index)) for pictures, order in pool for index in order]
    folder = user_cache() / "decoded"
    for path in sorted(folder.glob(f"{key}-*.npy")):
        array = _verified(path, len(files), channels)
        if array is not None:
            return array
    path = _write(files, folder, key, channels, size, shape, progress)
    array = _verified(path, len(files), channels)
    if array is None:
        raise StorageError(f"{str(path)!r} does not hold what was written to it")
    return array


def _as_tensor(array: np.ndarray) -> Tensor:
    """``array`` as a tensor that shares its memory; one that is mapped read-only must not be written to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return torch.from_numpy(array)


def _verified(path: Path, count: int, channels: int) -> np.ndarray | None:
    """The array in ``path`` if it is whole, else None."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        mapped = path.stat().st_size > MAPPED_SHARE * memory
        array: np.ndarray = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except (OSError, ValueError, EOFError):  # gone meanwhile, cut short, no array
        return None
    right = array.dtype == np.uint8 and array.ndim == 4 and array.shape[:2] == (count, channels)
    return array if right and array_digest(array) == path.stem.partition("-")[2] else None


def _write(
    files: Sequence[File],
    folder: Path,
    key: str,
    channels: int,
    size: int | None,
    shape: tuple[int, int] | None,
    progress: bool,
) -> Path:
    """Decode ``files`` into a file that gets its name when it is whole; two processes at it harm neither."""
    shape = (size, size) if size is not None else shape or shape_of(files[0], channels)
    whole = (len(files), channels, *shape)
    sha = hashlib.sha256(f"{np.dtype(np.uint8).str}{whole}".encode())  # `array_digest`, chunk by chunk
    found: dict[Pictures, dict[str, str]] = {pictures: {} for pictures, _ in files}
    temporary = folder / f".{key}.{os.getpid()}.{threading.get_ident()}.tmp"
    with storage(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _forget(folder)
    try:
        with storage(temporary), open(temporary, "wb") as handle:
            np.lib.format.write_array_header_1_0(handle, {"descr": "|u1", "fortran_order": False, "shape": whole})
            with CountProgress("decoding pictures", len(files), shown=progress) as report:
                for chunk, pixels, digests in chunks(files, channels=channels, size=size, shape=shape):
                    handle.write(pixels.data)
                    sha.update(pixels.data)
                    for (pictures, index), one in zip(chunk, digests, strict=True):
                        found[pictures][pictures.names[index]] = one
                    report.add(len(chunk))
            handle.flush()
            os.fsync(handle.fileno())
        for pictures, digests_of in found.items():
            if digest(digests_of) != pictures.content:
                raise StorageError(f"{pictures.place!r} changed while its pictures were decoded; try again")
        path = folder / f"{key}-{sha.hexdigest()}.npy"
        with storage(path):
            os.replace(temporary, path)
            fsync_folder(folder)
        return path
    finally:
        with storage(temporary):
            temporary.unlink(missing_ok=True)


def _forget(folder: Path) -> None:
    """Remove what processes that were killed left half written."""
    for path in folder.glob(".*.tmp"):
        with contextlib.suppress(FileNotFoundError):  # its process lives and was done just now
            if time.time() - path.stat().st_mtime > FORGOTTEN_SECONDS:
                path.unlink()
