"""Picture files as `Splits`: decoded once, in several threads, and kept in the user cache.

    <user cache>/decoded/<key>-<sha256>.npy

``key`` is a digest of the pictures and of the way they are decoded, ``sha256`` that of the array, checked whenever it
is read. The files may be removed at any time: they are decoded again when they are needed.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import math
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import torch

from netdepth.config import digest
from netdepth.data.fetch import user_cache
from netdepth.data.splits import DatasetSpec, SealedTest, Split, Splits, array_digest, set_aside
from netdepth.errors import BadInput, StorageError
from netdepth.files.atomic import fsync_folder, storage
from netdepth.files.pictures import decode_picture, decoder
from netdepth.progress import CountProgress

__all__ = ["Folder", "Pictures", "content_digest", "decoded", "picture_splits"]

BATCH_BYTES = 2**26
"""So many bytes of pixels at most are decoded before they are written (one picture at least)."""

FEW_PICTURES = 16
"""So many are decoded without threads."""

MAPPED_SHARE = 0.25
"""A decoded array that is larger than this share of the machine's memory is memory-mapped, not read."""

FORGOTTEN_SECONDS = 86_400
"""A temporary file of this age was left behind by a process that was killed."""


@dataclass(frozen=True, eq=False)
class Pictures:
    """The picture files of one part: their ``names`` (``train/cat/0001.jpg``) and ``labels`` int64 ``[N]``.

    The names are relative to ``place``, ``content`` is the digest over names and bytes (`content_digest`), and
    ``read(i)`` gives the bytes of the i-th file.
    """

    place: str
    names: Sequence[str]
    labels: np.ndarray
    content: str
    read: Callable[[int], bytes]

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Folder:
    """A folder of pictures: its classes, its parts, and a note to readers of its numbers (or "")."""

    classes: tuple[str, ...]
    parts: Mapping[str, Pictures]
    note: str


def content_digest(names: Iterable[str], digests: Iterable[str]) -> str:
    """One digest over the names of files and the sha256 of each."""
    return digest(dict(zip(names, digests, strict=True)))


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

    Test pictures are decoded with the others, so that a broken one is named before a network trains for hours, not
    after; their pixels are given to nobody before the seal is opened.

    Raises:
        BadInput: a picture that cannot be used, or ``val_size`` out of range.
        StorageError: a file cannot be read, or the cache cannot be written.
    """
    train, val, test = (folder.parts.get(part) for part in ("train", "val", "test"))
    assert train is not None
    if val is None:
        val, (rest, chosen) = train, set_aside(train.labels, val_size)
    else:
        rest, chosen = np.arange(len(train)), np.arange(len(val))
    images = decoded([(train, rest), (val, chosen)], channels=channels, size=size)
    _, _, height, width = images.shape
    sizes = {"train": len(rest), "val": len(chosen)}
    indices, sealed = [rest, chosen], None
    if test is not None:
        order = np.arange(len(test))
        test_split = _split(decoded([(test, order)], channels=channels, size=size, shape=(height, width)), test.labels)
        sealed = SealedTest(lambda: test_split, len(test))
        sizes["test"] = len(test)
        indices.append(order)
    spec = DatasetSpec(
        name=name,
        title=title,
        input_shape=(channels, height, width),
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
    """The arrays as tensors that share their memory; pixels that are mapped read-only must not be written to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return Split(torch.from_numpy(pixels), torch.from_numpy(labels))


# --- the cache --------------------------------------------------------------------------------

File = tuple[Pictures, int]
"""One picture: its part and its place in it."""


def decoded(
    pool: Sequence[tuple[Pictures, np.ndarray]],
    *,
    channels: int,
    size: int | None,
    shape: tuple[int, int] | None = None,
) -> np.ndarray:
    """uint8 ``[N, C, H, W]`` of the pictures in ``pool``, from the cache or decoded now.

    An entry of ``pool`` is a part and the order of its pictures (indices). A part may be divided between entries,
    which together have all of it. ``size`` as in `decode_picture`; where it is None all pictures must have the same
    height and width: ``shape``, or that of the first.

    Raises:
        BadInput: a picture that cannot be decoded or has another size; the line names the file.
        StorageError: a file cannot be read or changed meanwhile, or the cache cannot be written.
    """
    pictures = [[one.content, array_digest(order)] for one, order in pool]
    settings = {"channels": channels, "size": size, "shape": shape and list(shape), "decoder": decoder()}
    key = digest({"layout": 1, "pictures": pictures, **settings})[:32]
    files = [(one, int(index)) for one, order in pool for index in order]
    folder = user_cache() / "decoded"
    for path in sorted(folder.glob(f"{key}-*.npy")):
        array = _verified(path, len(files), channels)
        if array is not None:
            return array
    with warnings.catch_warnings(action="ignore"):  # Pillow's, about odd files
        first, _ = _decode(files[0], channels, size, shape)  # before the threads: an archive is unpacked once
        path = _write(files, folder, key, channels, size, (first.shape[1], first.shape[2]))
    array = _verified(path, len(files), channels)
    if array is None:
        raise StorageError(f"{str(path)!r} does not hold what was written to it")
    return array


def _verified(path: Path, count: int, channels: int) -> np.ndarray | None:
    """The array in ``path`` if it is whole, else None."""
    try:
        mapped = path.stat().st_size > MAPPED_SHARE * psutil.virtual_memory().total
        array: np.ndarray = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except (OSError, ValueError, EOFError):  # removed meanwhile, cut short, no array
        return None
    right = array.dtype == np.uint8 and array.ndim == 4 and array.shape[:2] == (count, channels)
    return array if right and array_digest(array) == path.stem.partition("-")[2] else None


def _write(
    files: Sequence[File], folder: Path, key: str, channels: int, size: int | None, shape: tuple[int, int]
) -> Path:
    """Decode ``files`` into a file that gets its name when it is whole; two processes may do so at once."""
    whole = (len(files), channels, *shape)
    sha = hashlib.sha256(f"{np.dtype(np.uint8).str}{whole}".encode())  # `array_digest`, picture by picture
    digests: dict[Pictures, dict[str, str]] = {pictures: {} for pictures, _ in files}
    temporary = folder / f".{key}.{os.getpid()}.{threading.get_ident()}.tmp"
    with storage(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob(".*.tmp"):
            with contextlib.suppress(FileNotFoundError):  # its process has just renamed it
                if time.time() - old.stat().st_mtime > FORGOTTEN_SECONDS:
                    old.unlink()
    try:
        with storage(temporary), open(temporary, "wb") as handle:
            np.lib.format.write_array_header_1_0(handle, {"descr": "|u1", "fortran_order": False, "shape": whole})
            with CountProgress("decoding pictures", len(files)) as report:
                each = zip(files, _decode_all(files, channels, size, shape), strict=True)
                for (pictures, index), (pixels, sha256) in each:
                    digests[pictures][pictures.names[index]] = sha256
                    content = pixels.tobytes()
                    handle.write(content)
                    sha.update(content)
                    report.add(1)
            handle.flush()
            os.fsync(handle.fileno())
        for pictures, found in digests.items():
            if digest(found) != pictures.content:
                raise StorageError(f"{pictures.place!r} changed while its pictures were decoded; try again")
        path = folder / f"{key}-{sha.hexdigest()}.npy"
        with storage(path):
            os.replace(temporary, path)
            fsync_folder(folder)
        return path
    finally:
        with storage(temporary):
            temporary.unlink(missing_ok=True)


# --- decoding ---------------------------------------------------------------------------------


def _decode_all(
    files: Sequence[File], channels: int, size: int | None, shape: tuple[int, int]
) -> Iterator[tuple[np.ndarray, str]]:
    """`_decode` of all ``files``, in their order; of several that are refused the first is named.

    Threads decode side by side, as Pillow holds the interpreter's lock for a small part of the work. A few pictures
    are decoded one after the other: each thread keeps memory, up to half a gigabyte for the largest pictures.
    """
    if len(files) <= FEW_PICTURES:
        yield from (_decode(file, channels, size, shape) for file in files)
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    count = max(1, BATCH_BYTES // (channels * math.prod(shape)))
    with concurrent.futures.ThreadPoolExecutor(cores) as threads:
        for start in range(0, len(files), count):  # pixels must not pile up before a slow disk
            yield from threads.map(lambda file: _decode(file, channels, size, shape), files[start : start + count])


def _decode(file: File, channels: int, size: int | None, shape: tuple[int, int] | None) -> tuple[np.ndarray, str]:
    """The pixels of one picture, uint8 ``[C, H, W]``, and the sha256 of its file; ``shape`` None allows any size."""
    pictures, index = file
    content = pictures.read(index)
    try:
        pixels = decode_picture(content, channels=channels, size=size)
        _, height, width = pixels.shape
        if shape is not None and shape != (height, width):
            raise BadInput(
                f"it is {width} × {height} pixels where others are {shape[1]} × {shape[0]}; bring all to one size, "
                f"such as --set dataset.size={min(shape)}"
            )
    except BadInput as reason:
        path = os.path.join(pictures.place, pictures.names[index])
        raise BadInput(f"{path!r} is not acceptable: {reason}") from None
    return pixels, hashlib.sha256(content).hexdigest()
