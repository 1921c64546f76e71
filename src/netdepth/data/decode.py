"""Picture files as pixels: decoded once, in several processes where that pays, and kept in the user cache.

    <user cache>/decoded/<key>-<sha256>.npy

``key`` is a digest of the pictures and of the way they are decoded, ``sha256`` that of the array, checked whenever it
is read. The files may be removed at any time: they are decoded again when they are needed.
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import functools
import hashlib
import json
import math
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from netdepth.config import digest
from netdepth.data.fetch import user_cache
from netdepth.data.splits import array_digest
from netdepth.errors import BadInput, RunFailed, StorageError
from netdepth.files.atomic import fsync_folder, storage
from netdepth.files.pictures import decode_picture, decode_pictures, decoder, pillow_rules
from netdepth.progress import CountProgress
from netdepth.text import printable

__all__ = ["Pictures", "RefusedPictures", "content_digest", "decoded", "listed_faults"]

CHUNK_PICTURES, CHUNK_BYTES = 128, 2**23
"""So many pictures or bytes of pixels at most are decoded at a time (one picture at least)."""

TRIED_PICTURES, WORTH_SECONDS = 16, 0.5
"""After the first so many, other processes are started if the rest would take longer than this."""

MAPPED_SHARE = 0.25
"""A decoded array that is larger than this share of the machine's memory is memory-mapped, not read."""

NAMED, MOST_REFUSED = 10, 1_000
"""So many refused pictures are named; after so many no more are looked for."""

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


def content_digest(names: Iterable[str], digests: Iterable[str]) -> str:
    """One digest over the names of files and the sha256 of each."""
    return digest(dict(zip(names, digests, strict=True)))


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

    A cache that cannot be written costs the cache alone: a note says so, and the pixels are in memory.

    Raises:
        RefusedPictures: pictures that cannot be decoded or have another size; the line names the files.
        StorageError: a file cannot be read or changed meanwhile.
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
    shape = (size, size) if size is not None else shape or _shape_of(files, channels)
    try:
        path = _write(files, folder, key, channels, size, shape)
    except _NoCache as fault:
        _say_once(f"note: {fault}; the decoded pictures are kept in memory, for this run alone")
        return np.concatenate(list(_whole(files, channels, size, shape)))
    array = _verified(path, len(files), channels)
    if array is None:
        raise StorageError(f"{str(path)!r} does not hold what was written to it")
    return array


@functools.cache
def _say_once(text: str) -> None:
    print(printable(text), file=sys.stderr)


class _NoCache(StorageError):
    """The cache cannot be written."""


@contextlib.contextmanager
def _to_cache(path: Path) -> Iterator[None]:
    try:
        with storage(path):
            yield
    except StorageError as error:
        raise _NoCache(str(error)) from error


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
    temporary = folder / f".{key}.{os.getpid()}.{threading.get_ident()}.tmp"
    with _to_cache(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob(".*.tmp"):
            with contextlib.suppress(FileNotFoundError):  # its process has just renamed it
                if time.time() - old.stat().st_mtime > FORGOTTEN_SECONDS:
                    old.unlink()
        handle = open(temporary, "wb")  # noqa: SIM115 - it stays open between the chunks
    try:
        with _to_cache(temporary):
            np.lib.format.write_array_header_1_0(handle, {"descr": "|u1", "fortran_order": False, "shape": whole})
        for pixels in _whole(files, channels, size, shape):
            sha.update(pixels.data)
            with _to_cache(temporary):
                handle.write(pixels.data)
        path = folder / f"{key}-{sha.hexdigest()}.npy"
        with _to_cache(path):
            handle.flush()
            os.fsync(handle.fileno())
            handle.close()
            os.replace(temporary, path)
            fsync_folder(folder)
        return path
    finally:
        with contextlib.suppress(OSError):
            handle.close()
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _whole(files: Sequence[File], channels: int, size: int | None, shape: tuple[int, int]) -> Iterator[np.ndarray]:
    """The pixels of ``files`` chunk by chunk.

    Raises:
        RefusedPictures, StorageError: at the end, pictures that were refused, or that changed meanwhile.
    """
    found: dict[Pictures, dict[str, str]] = {pictures: {} for pictures, _ in files}
    refused: list[tuple[str, str]] = []
    with CountProgress("decoding pictures", len(files)) as report:
        for chunk, pixels, digests, bad in _chunks(files, channels, size, shape):
            refused += [(_place(chunk[position]), reason) for position, reason in bad]
            if len(refused) >= MOST_REFUSED:
                break
            if not refused:
                yield pixels
            for (pictures, index), one in zip(chunk, digests, strict=True):
                found[pictures][pictures.names[index]] = one
            report.add(len(chunk))
    if refused:
        raise RefusedPictures(refused, shape)
    for pictures, digests_of in found.items():
        if digest(digests_of) != pictures.content:
            raise StorageError(f"{pictures.place!r} changed while its pictures were decoded; try again")


# --- decoding ---------------------------------------------------------------------------------

File = tuple[Pictures, int]
"""One picture: its part and its place in it."""

Refused = list[tuple[int, str]]
"""Positions and reasons."""

Chunk = tuple[Sequence[File], np.ndarray, list[str], Refused]
"""Files, their pixels uint8 ``[n, C, H, W]``, the sha256 of each, and those that are refused."""

Decode = Callable[[int, Iterable[bytes]], tuple[np.ndarray, Refused]]
"""`decode_pictures` with its settings, here or in another process."""


class RefusedPictures(BadInput):
    """``pictures`` that cannot be used, by place and reason; the others would have the height and width ``shape``."""

    def __init__(self, pictures: list[tuple[str, str]], shape: tuple[int, int]) -> None:
        super().__init__(listed_faults("pictures", pictures))
        self.pictures, self.shape = pictures, shape


def listed_faults(what: str, found: Sequence[tuple[str, str]]) -> str:
    """One line about files by place and reason: all are counted, the first `NAMED` are named."""
    if len(found) == 1:
        return f"{found[0][0]!r} is not acceptable: {found[0][1]}"
    count = f"{MOST_REFUSED:,} or more" if len(found) >= MOST_REFUSED else f"{len(found):,}"
    named = "; ".join(f"{place!r}: {reason}" for place, reason in found[:NAMED])
    more = f"; and {len(found) - NAMED:,} more" if len(found) > NAMED else ""
    return f"{count} {what} are not acceptable: {named}{more}"


def _place(file: File) -> str:
    pictures, index = file
    return os.path.join(pictures.place, pictures.names[index])


def _shape_of(files: Sequence[File], channels: int) -> tuple[int, int]:
    """Height and width of the first picture that can be decoded; (1, 1) where there is none."""
    for pictures, index in files:
        with contextlib.suppress(BadInput), pillow_rules():
            _, height, width = decode_picture(pictures.read(index), channels=channels, size=None).shape
            return height, width
    return 1, 1


def _chunks(files: Sequence[File], channels: int, size: int | None, shape: tuple[int, int]) -> Iterator[Chunk]:
    """``files`` decoded chunk by chunk, in their order."""
    settings: dict[str, Any] = {"channels": channels, "size": size, "shape": shape}
    here = functools.partial(decode_pictures, **settings)
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
    return files, pixels, digests, refused


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

    def __call__(self, count: int, contents: Iterable[bytes]) -> tuple[np.ndarray, Refused]:
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
        return pixels, [(position, reason) for position, reason in answer["refused"]]
