"""Picture files as `Splits`: decoded once, in several processes where that pays, and kept in the user cache.

    <user cache>/decoded/<key>-<sha256>.npy

``key`` is a digest of the pictures and of the way they are decoded, ``sha256`` that of the array, checked whenever it
is read. The files may be removed at any time: they are decoded again when they are needed.
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import hashlib
import json
import math
import os
import queue
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from netdepth.config import digest
from netdepth.data.fetch import user_cache
from netdepth.data.splits import DatasetSpec, SealedTest, Split, Splits, array_digest, set_aside
from netdepth.errors import BadInput, RunFailed, StorageError
from netdepth.files.atomic import fsync_folder, storage
from netdepth.files.pictures import decode_picture, decode_pictures, decoder, pillow_rules
from netdepth.progress import CountProgress

__all__ = ["Folder", "Pictures", "content_digest", "decoded", "picture_splits"]

CHUNK_PICTURES, CHUNK_BYTES = 128, 2**23
"""So many pictures or bytes of pixels at most are decoded at a time (one picture at least)."""

TRIED_PICTURES, WORTH_SECONDS = 16, 0.5
"""After the first so many, other processes are started if the rest would take longer than this."""

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
        RunFailed: a decoding process was killed.
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
    shape = (size, size) if size is not None else shape or _shape_of(files[0], channels)
    path = _write(files, folder, key, channels, size, shape)
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
    files: Sequence[File],
    folder: Path,
    key: str,
    channels: int,
    size: int | None,
    shape: tuple[int, int],
) -> Path:
    """Decode ``files`` into a file that gets its name when it is whole; two processes may do so at once."""
    whole = (len(files), channels, *shape)
    sha = hashlib.sha256(f"{np.dtype(np.uint8).str}{whole}".encode())  # `array_digest`, chunk by chunk
    found: dict[Pictures, dict[str, str]] = {pictures: {} for pictures, _ in files}
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
                for chunk, pixels, digests in _chunks(files, channels, size, shape):
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


# --- decoding ---------------------------------------------------------------------------------

File = tuple[Pictures, int]
"""One picture: its part and its place in it."""

Chunk = tuple[Sequence[File], np.ndarray, list[str]]
"""Files, their pixels uint8 ``[n, C, H, W]`` and the sha256 of each."""

Decode = Callable[[int, Iterable[bytes]], tuple[np.ndarray, tuple[int, str] | None]]
"""`decode_pictures` with its settings, here or in another process."""


def _refusal(file: File, reason: str) -> BadInput:
    pictures, index = file
    return BadInput(f"{os.path.join(pictures.place, pictures.names[index])!r} is not acceptable: {reason}")


def _shape_of(file: File, channels: int) -> tuple[int, int]:
    """Height and width of one picture."""
    pictures, index = file
    try:
        with pillow_rules():
            _, height, width = decode_picture(pictures.read(index), channels=channels, size=None).shape
    except BadInput as reason:
        raise _refusal(file, str(reason)) from None
    return height, width


def _chunks(files: Sequence[File], channels: int, size: int | None, shape: tuple[int, int]) -> Iterator[Chunk]:
    """``files`` decoded chunk by chunk, in their order; of several refused pictures the first is named."""
    settings: dict[str, Any] = {"channels": channels, "size": size, "shape": shape}
    here = partial(decode_pictures, **settings)
    began = time.perf_counter()
    tried, rest = files[:TRIED_PICTURES], files[TRIED_PICTURES:]
    yield _chunk(tried, here)
    expected = (time.perf_counter() - began) / len(tried) * len(rest)
    per = max(1, min(CHUNK_PICTURES, CHUNK_BYTES // (channels * math.prod(shape))))
    parts = [rest[start : start + per] for start in range(0, len(rest), per)]
    if expected < WORTH_SECONDS:
        yield from (_chunk(part, here) for part in parts)
    else:
        yield from _in_processes(parts, json.dumps(settings))


def _chunk(files: Sequence[File], decode: Decode) -> Chunk:
    """One chunk: its files are read one at a time, hashed and given to ``decode``."""
    digests: list[str] = []

    def contents() -> Iterator[bytes]:
        for pictures, index in files:
            content = pictures.read(index)
            digests.append(hashlib.sha256(content).hexdigest())
            yield content

    pixels, refused = decode(len(files), contents())
    if refused is not None:
        raise _refusal(files[refused[0]], refused[1])
    return files, pixels, digests


def _in_processes(parts: Sequence[Sequence[File]], settings: str) -> Iterator[Chunk]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = min(cores, len(parts))
    free: queue.SimpleQueue[_Process] = queue.SimpleQueue()

    def elsewhere(part: Sequence[File]) -> Chunk:
        process = free.get()
        try:
            return _chunk(part, process)
        finally:
            free.put(process)

    with contextlib.ExitStack() as held:
        threads = held.enter_context(concurrent.futures.ThreadPoolExecutor(count))
        for _ in range(count):
            free.put(held.enter_context(contextlib.closing(_Process(settings))))
        waiting: collections.deque[concurrent.futures.Future[Chunk]] = collections.deque()
        for part in parts:
            waiting.append(threads.submit(elsewhere, part))
            if len(waiting) > 2 * count:  # pixels must not pile up before a slow disk
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


class _Process:
    """``python -m netdepth.files.pictures``, which decodes for others.

    Threads would wait for each other: a small picture keeps the interpreter's lock. A pool of `concurrent.futures`
    would run the user's script once more in every process that it starts. A file that crashes the decoder
    takes this process with it, not the training.
    """

    def __init__(self, settings: str) -> None:
        command = [sys.executable, "-m", "netdepth.files.pictures", settings]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.jobs, self.answers = self.process.stdin, self.process.stdout

    def close(self) -> None:
        """Kill it, also in the middle of a job."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.jobs, self.answers):
            with contextlib.suppress(OSError):  # bytes that it did not read
                pipe.close()

    def __call__(self, count: int, contents: Iterable[bytes]) -> tuple[np.ndarray, tuple[int, str] | None]:
        try:
            self.jobs.write(count.to_bytes(4, "big"))
            for content in contents:
                self.jobs.write(len(content).to_bytes(8, "big"))
                self.jobs.write(content)
            self.jobs.flush()
            answer = json.loads(self.answers.readline())
            pixels = np.frombuffer(self.answers.read(math.prod(answer["shape"])), np.uint8).reshape(answer["shape"])
        except (OSError, ValueError):  # a pipe without a process, an answer that breaks off
            code = self.process.wait()
            raise RunFailed(f"a process that decodes pictures ended with {code}; is the memory used up?") from None
        return pixels, answer["refused"] and tuple(answer["refused"])
