"""Many picture files to pixels, in several processes where that pays, with progress."""

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
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any

import numpy as np

from netdepth.config import digest
from netdepth.errors import BadInput, RunFailed
from netdepth.files.pictures import decode_picture, decode_pictures, pillow_rules

__all__ = ["File", "Pictures", "chunks", "content_digest", "shape_of"]

CHUNK_PICTURES, CHUNK_BYTES = 128, 2**23
"""What is decoded at a time: no more pictures than this, nor more bytes of pixels (one picture at least)."""

TRIED_PICTURES, WORTH_SECONDS = 16, 0.5
"""After the first so many, other processes are started if the rest would take longer than this."""

Refused = tuple[int, str] | None
Decode = Callable[[int, Iterable[bytes]], tuple[np.ndarray, Refused]]
"""`decode_pictures` with its settings, here or in another process."""


@dataclass(frozen=True, eq=False)
class Pictures:
    """The picture files of one part: their ``names`` (``train/cat/0001.jpg``) and ``labels`` int64 ``[N]``.

    ``place`` is what the names are relative to, ``content`` the digest over names and bytes (`content_digest`),
    and ``read(i)`` gives the bytes of the i-th.
    """

    place: str
    names: Sequence[str]
    labels: np.ndarray
    content: str
    read: Callable[[int], bytes]

    def __len__(self) -> int:
        return len(self.names)


File = tuple[Pictures, int]
"""One picture: its part and its place in it."""


def content_digest(names: Iterable[str], digests: Iterable[str]) -> str:
    """One digest over the names of files and the sha256 of each."""
    return digest(dict(zip(names, digests, strict=True)))


def shape_of(file: File, channels: int) -> tuple[int, int]:
    """Height and width of one picture."""
    pictures, index = file
    try:
        with pillow_rules():
            _, height, width = decode_picture(pictures.read(index), channels=channels, size=None).shape
    except BadInput as reason:
        raise _refusal(file, str(reason)) from None
    return height, width


def _refusal(file: File, reason: str) -> BadInput:
    pictures, index = file
    return BadInput(f"{os.path.join(pictures.place, pictures.names[index])!r} is not acceptable: {reason}")


Chunk = tuple[Sequence[File], np.ndarray, list[str]]
"""Files, their pixels uint8 ``[n, C, H, W]`` and the sha256 of each."""


def chunks(files: Sequence[File], *, channels: int, size: int | None, shape: tuple[int, int]) -> Iterator[Chunk]:
    """``files`` decoded chunk by chunk, in their order; of several that are refused it is the first that is named.

    Raises:
        BadInput: a picture that cannot be decoded or has another height and width than ``shape``.
        StorageError: a file that cannot be read.
        RunFailed: a process that decodes was ended.
    """
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
        yield from _in_processes(parts, settings)


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


def _in_processes(parts: Sequence[Sequence[File]], settings: dict[str, Any]) -> Iterator[Chunk]:
    free: queue.SimpleQueue[_Process] = queue.SimpleQueue()

    def elsewhere(part: Sequence[File]) -> Chunk:
        process = free.get()
        try:
            return _chunk(part, process)
        finally:
            free.put(process)

    count = min(_cores(), len(parts))
    with contextlib.ExitStack() as held:
        threads = held.enter_context(concurrent.futures.ThreadPoolExecutor(count))
        for _ in range(count):
            free.put(held.enter_context(_Process(settings)))
        waiting: collections.deque[concurrent.futures.Future[Chunk]] = collections.deque()
        for part in parts:
            waiting.append(threads.submit(elsewhere, part))
            if len(waiting) > 2 * count:  # a slow disk must not heap up pixels
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


class _Process:
    """``python -m netdepth.files.pictures``: a small picture keeps the interpreter's lock, so threads would wait.

    A file that brings the decoder down takes this process with it, not the training.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        command = [sys.executable, "-m", "netdepth.files.pictures", json.dumps(settings)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)

    def __enter__(self) -> _Process:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()  # it waits for a job, or its answer is of no use any more
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):  # what it did not read is lost with it
                assert pipe is not None
                pipe.close()

    def __call__(self, count: int, contents: Iterable[bytes]) -> tuple[np.ndarray, Refused]:
        jobs, answers = self.process.stdin, self.process.stdout
        assert jobs is not None
        assert answers is not None
        try:
            jobs.write(count.to_bytes(4, "big"))
            for content in contents:
                jobs.write(len(content).to_bytes(8, "big"))
                jobs.write(content)
            jobs.flush()
            answer = json.loads(answers.readline())
            pixels = np.frombuffer(answers.read(math.prod(answer["shape"])), np.uint8).reshape(answer["shape"])
        except (OSError, ValueError):  # a pipe without a process, an answer that breaks off
            code = self.process.wait()
            raise RunFailed(f"a process that decodes pictures ended with {code}; is the memory used up?") from None
        refused = answer["refused"]
        return pixels, None if refused is None else (refused[0], refused[1])


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
