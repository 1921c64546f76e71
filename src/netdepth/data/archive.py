"""Tar archives read with suspicion: streamed, in bounded memory, never unpacked to the disk.

A reason why an archive is refused is raised without the archive's name; the caller, who knows it, adds it.
"""

from __future__ import annotations

import io
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PureWindowsPath
from typing import IO, cast

from netdepth.data.idx import is_gzip
from netdepth.errors import BadInput, StorageError

__all__ = ["ENTRIES", "describe", "members"]

ENTRIES = 200_000
"""Entries an archive may have, folders included. CIFAR-10 as single pictures has 60,000 and some folders."""

CHUNK = 1 << 16
GLANCE = 1 << 28
"""Bytes that `describe` unpacks at most."""

KINDS = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}


class _Unfit(Exception):
    """The bytes cannot be what they should; the message says why."""


def members(
    stream_or_path: Path | bytes, *, limit: int, wanted: Callable[[str], bool] | None = None
) -> Iterator[tuple[str, bytes]]:
    """Name and content of the regular files in a tar archive, gzip or not, in the archive's order.

    Every entry is checked, also those that ``wanted`` (called with a name) leaves out. All of
    the archive together may unpack to ``limit`` bytes.

    Raises:
        BadInput: a name that leads out of the folder, a link, a device, more than `ENTRIES`
            entries or ``limit`` bytes, a truncated or corrupted archive. The line names the entry.
            It comes when the entry is reached, so what came before may have been used already.
        StorageError: the file cannot be read.
    """
    if isinstance(stream_or_path, bytes):
        yield from _files(io.BytesIO(stream_or_path), limit, wanted)
        return
    try:
        with open(stream_or_path, "rb") as handle:
            yield from _files(handle, limit, wanted)
    except OSError as error:
        raise StorageError(f"cannot read {str(stream_or_path)!r}: {error.strerror or error}") from error


def describe(data: bytes) -> str:
    """What ``data`` is, in words for an error message."""
    try:
        first = next(members(data, limit=GLANCE), None)
    except BadInput as error:
        return f"{len(data)} bytes and no tar archive: {error}"
    contents = f"that begins with {first[0]!r}" if first else "without files"
    return f"an archive of {len(data)} bytes {contents}"


class _Unpacked:
    """The decompressed bytes of ``handle``, as a file that never gives more than ``limit`` of them."""

    def __init__(self, handle: IO[bytes], limit: int) -> None:
        self.handle, self.limit = handle, limit
        self.waiting = handle.read(CHUNK)
        self.decoder = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16) if is_gzip(self.waiting) else None
        self.count = 0  # bytes given so far
        self.filled = 0  # and how many of them up to the last that is not zero

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes; none only at a proper end."""
        chunk = self._plain() if self.decoder is None else self._decoded(self.decoder, size)
        self.count += len(chunk)
        if self.count > self.limit:
            raise _Unfit(f"it unpacks to more than the {self.limit} bytes expected")
        if solid := len(chunk.rstrip(b"\0")):
            self.filled = self.count - len(chunk) + solid
        return chunk

    def _plain(self) -> bytes:
        chunk, self.waiting = self.waiting or self.handle.read(CHUNK), b""
        return chunk

    def _decoded(self, decoder: zlib._Decompress, size: int) -> bytes:
        chunk = b""
        while not chunk:
            packed = self.waiting or self.handle.read(CHUNK)
            if decoder.eof:
                if packed:
                    raise _Unfit("it has bytes after the end of its gzip stream")
                break
            if not packed:
                raise _Unfit("its gzip stream is truncated")
            try:
                chunk = decoder.decompress(packed, size)
            except zlib.error as error:
                raise _Unfit(f"its gzip stream is corrupted ({error})") from None
            self.waiting = decoder.unconsumed_tail or decoder.unused_data
        return chunk


def _files(handle: IO[bytes], limit: int, wanted: Callable[[str], bool] | None) -> Iterator[tuple[str, bytes]]:
    last = "the beginning"
    try:
        unpacked = _Unpacked(handle, limit)
        with tarfile.open(fileobj=cast(IO[bytes], unpacked), mode="r|", bufsize=CHUNK) as tar:
            count = 0
            while (entry := tar.next()) is not None:
                last, count = repr(entry.name), count + 1
                _check(entry, count)
                if entry.isreg() and (wanted is None or wanted(entry.name)):
                    file = tar.extractfile(entry)
                    yield entry.name, file.read() if file else b""
            while unpacked.read(CHUNK):  # to the checksum of gzip
                pass
            # tarfile takes a damaged header for the end, and a missing end for one.
            if unpacked.filled > tar.offset or unpacked.count - tar.offset < tarfile.BLOCKSIZE:
                raise _Unfit("it is truncated or corrupted")
    except (_Unfit, tarfile.TarError, ValueError, IndexError, OverflowError, RecursionError) as reason:
        line = " ".join(str(reason).split())
        raise BadInput(f"{line} (after {last})") from None


def _check(entry: tarfile.TarInfo, count: int) -> None:
    """Refuse an entry for its name, its kind or its number (from 1)."""
    path = PureWindowsPath(entry.name)  # the strictest reading: knows drives, and both strokes
    if path.anchor or ".." in path.parts:
        raise BadInput(f"its entry {entry.name!r} leads out of the archive's folder")
    if not (entry.isdir() or entry.isreg()) or entry.issparse():
        kind = KINDS.get(entry.type, "a sparse file" if entry.issparse() else "of an unknown kind")
        raise BadInput(f"its entry {entry.name!r} is {kind}, not a plain file or folder")
    if entry.size < 0:
        raise BadInput(f"its entry {entry.name!r} has {entry.size} bytes")
    if count > ENTRIES:
        raise BadInput(f"it has more than {ENTRIES} entries, of which {entry.name!r} is one too many")
