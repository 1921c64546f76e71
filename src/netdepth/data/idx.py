"""The IDX format of MNIST and its kin, read with suspicion and in bounded memory.

A reason why a file is refused is raised without the file's name; the caller, who knows it, adds it.
"""

from __future__ import annotations

import math
import os
import stat
import zlib
from pathlib import Path

import numpy as np

from netdepth.errors import BadInput, StorageError

__all__ = ["OVERHEAD", "describe", "gunzip", "is_gzip", "parse_images", "parse_labels", "read_content"]

OVERHEAD = 65_536
"""Bytes by which a gzip file may exceed its content: header, a stored file name, incompressible blocks."""

UINT8 = 0x08
"""The type code of unsigned bytes, third byte of the magic number; the fourth is the number of dimensions."""


def is_gzip(head: bytes) -> bool:
    """Whether ``head`` begins a gzip stream; an IDX file begins with two zero bytes."""
    return head[:2] == b"\x1f\x8b"


def read_content(path: Path, size: int, unpack: bool = True) -> bytes:
    """The content of ``path``, decompressed if it is gzip and ``unpack``, never more than ``size`` bytes of it.

    The content may be shorter than ``size``; the caller's digest decides.

    Raises:
        BadInput: not a regular file, longer than ``size``, or a damaged gzip stream.
        StorageError: it cannot be read.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would block, a folder cannot be read
            raise BadInput("it is not a regular file")
        with open(path, "rb") as handle:
            raw = handle.read(size + OVERHEAD + 1)
    except FileNotFoundError:
        raise BadInput("it is a link to a file that does not exist") from None
    except OSError as error:
        raise StorageError(f"cannot read {str(path)!r}: {error.strerror or error}") from error
    if unpack and is_gzip(raw) and len(raw) <= size + OVERHEAD:
        return gunzip(raw, size)
    if len(raw) > size:
        raise BadInput(f"it holds more than the {size} bytes expected")
    return raw


def gunzip(raw: bytes, size: int) -> bytes:
    """The content of the gzip stream ``raw``: at most ``size`` bytes are ever decompressed, and one more.

    Raises:
        BadInput: truncated, corrupted (checksum included), longer than ``size``, or followed by other data.
    """
    decoder = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        content = decoder.decompress(raw, size + 1)
    except zlib.error as error:
        raise BadInput(f"its gzip stream is corrupted ({error})") from None
    if len(content) > size:
        raise BadInput(f"its gzip stream holds more than the {size} bytes expected")
    if not decoder.eof:
        raise BadInput(f"its gzip stream is truncated after {len(content)} of {size} bytes")
    if decoder.unused_data:
        raise BadInput(f"it has {len(decoder.unused_data)} bytes after the end of its gzip stream")
    return content


def describe(data: bytes) -> str:
    """What ``data`` is by its header, in words for an error message."""
    try:
        return f"IDX of shape {list(_shape(data))}"
    except BadInput as error:
        return f"no IDX file: {error}"


def _shape(data: bytes) -> tuple[int, ...]:
    """The dimensions in the header, which together account for every byte of ``data``."""
    magic = int.from_bytes(data[:4], "big")
    dims = magic & 0xFF
    if len(data) < 4 or magic >> 8 != UINT8 or not 1 <= dims <= 4:
        raise BadInput(f"its magic number is 0x{data[:4].hex()}, not 0x000008 and the number of dimensions")
    start = 4 + 4 * dims
    if len(data) < start:
        raise BadInput(f"its header ends after {len(data)} of {start} bytes")
    shape = tuple(int.from_bytes(data[i : i + 4], "big") for i in range(4, start, 4))
    if 0 in shape:
        raise BadInput(f"its shape {list(shape)} has an empty dimension")
    wanted = start + math.prod(shape)  # Python integers do not overflow
    if len(data) != wanted:
        raise BadInput(f"its shape {list(shape)} asks for {wanted} bytes, it has {len(data)}")
    return shape


def _array(data: bytes, dims: int) -> np.ndarray:
    shape = _shape(data)
    if len(shape) != dims:
        raise BadInput(f"its shape {list(shape)} has {len(shape)} dimensions, not {dims}")
    return np.frombuffer(data, dtype=np.uint8, offset=4 + 4 * dims).reshape(shape)


def parse_images(data: bytes) -> np.ndarray:
    """Images as uint8 ``[N, 1, H, W]``, a read-only view of ``data``.

    Raises:
        BadInput: wrong magic number, type, dimensions or length, with the reason.
    """
    images = _array(data, 3)
    return images[:, None]


def parse_labels(data: bytes, count: int, classes: int) -> np.ndarray:
    """Labels as int64 ``[count]``, each from 0 to ``classes`` - 1.

    Raises:
        BadInput: as `parse_images`; another count, or a label out of range.
    """
    labels = _array(data, 1).astype(np.int64)
    if len(labels) != count:
        raise BadInput(f"it holds {len(labels)} labels for {count} images")
    if labels.max() >= classes:
        raise BadInput(f"it holds label {labels.max()}; labels are 0 to {classes - 1}")
    return labels
