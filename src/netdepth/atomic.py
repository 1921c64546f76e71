"""Files that are whole or not there: write to a temporary one, sync, rename."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from netdepth.errors import StorageError

__all__ = ["fsync_folder", "one_at_a_time", "storage", "write_atomic", "write_synced"]


@contextlib.contextmanager
def storage(path: Path) -> Iterator[None]:
    """Turn an OSError into one line that names the path (exit 74)."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error


def fsync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Only one process at a time is inside, for acts of milliseconds that look around in ``folder`` and add to it.

    The folder itself is what is locked, so nothing is left behind. A system or a disk that cannot do that goes without.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def write_synced(path: Path, data: bytes) -> None:
    with open(path, "wb") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())


def write_atomic(path: Path, data: bytes) -> None:
    """Write ``data`` so that ``path`` holds the old bytes or all of the new ones, even after a kill."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with storage(path):
        try:
            write_synced(temporary, data)
            os.replace(temporary, path)
            fsync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
