"""Files and folders that are whole or not there: write to a temporary one, sync, rename. JSON records as such files."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

from netdepth.config import SCHEMA, Json
from netdepth.errors import BadInput, Locked, StorageError

__all__ = [
    "fsync_file", "fsync_folder", "jsonable", "locked", "one_at_a_time", "read_json", "reading", "remove_folder",
    "restored", "storage", "write_atomic", "write_folder", "write_if_possible", "write_synced",
]  # fmt: skip


@contextlib.contextmanager
def storage(path: Path, size: int | None = None) -> Iterator[None]:
    """Turn an OSError into one line that names the path, and the bytes that were to be written if given (exit 74)."""
    try:
        yield
    except OSError as error:
        what = path if size is None else f"{size:,} bytes to {path}"
        raise StorageError(f"cannot write {what}: {error.strerror or error}") from error


@contextlib.contextmanager
def reading(path: Path | str) -> Iterator[None]:
    """Turn an OSError into one line that names the path (exit 74)."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"cannot read {str(path)!r}: {error.strerror or error}") from None


def fsync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def locked(folder: Path, in_use: str) -> Iterator[None]:
    """Hold ``folder/.lock``; the lock dies with its process.

    Raises:
        Locked: another process holds it; ``in_use`` says so.
    """
    import filelock

    lock = filelock.FileLock(folder / ".lock")
    with storage(folder / ".lock"):
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise Locked(in_use) from None
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Only one process at a time is inside: for short work that looks for something in ``folder`` and adds it.

    The folder itself is locked, so no file is left behind. Without effect on a system or disk without such locks.
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


def fsync_file(path: Path) -> None:
    """Sync a file that was appended to, and the folder that names it."""
    with open(path, "rb+") as handle:
        os.fsync(handle.fileno())
    fsync_folder(path.parent)


def write_synced(path: Path, data: bytes) -> None:
    with open(path, "wb") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())


def write_atomic(path: Path, data: bytes, *, parents: bool = False) -> None:
    """Write ``data`` so that ``path`` holds the old bytes or all of the new ones, even after a kill. With ``parents``
    its folder is made if it is missing."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    if parents:
        with storage(path):
            path.parent.mkdir(parents=True, exist_ok=True)
    with storage(path, len(data)):
        try:
            write_synced(temporary, data)
            os.replace(temporary, path)
            fsync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def write_if_possible(path: Path, data: bytes) -> None:
    """As `write_atomic`, for a file of the user cache, which would save time later and nothing else: a place that
    cannot be written is no fault."""
    with contextlib.suppress(StorageError):
        write_atomic(path, data, parents=True)


def write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Make the folder ``path`` hold ``files``, all of them at once.

    A folder that already holds them stays. Another one is removed first, in one step, so a reader finds a whole folder
    or none.
    """
    with contextlib.suppress(OSError):
        if all((path / name).read_bytes() == data for name, data in files.items()):
            return
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with storage(path, sum(map(len, files.values()))):
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            for name, data in files.items():
                write_synced(temporary / name, data)
            fsync_folder(temporary)
            if path.exists():
                remove_folder(path)
            os.rename(temporary, path)
            fsync_folder(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Remove the folder ``path``; no part of it is ever seen under its name."""
    doomed = path.with_name(f".{path.name}.{os.getpid()}.old.tmp")
    os.rename(path, doomed)
    shutil.rmtree(doomed, ignore_errors=True)


# --- JSON records ---

Document = TypeVar("Document", bound=Mapping[str, object])


def jsonable(record: Mapping[str, object]) -> dict[str, Json]:
    """``record`` with NaN and infinities as null, named with their kind under ``nonfinite``."""
    nonfinite: dict[str, str] = {}

    def clean(value: Any, path: str) -> Any:
        if isinstance(value, float) and not math.isfinite(value):
            nonfinite[path] = str(value)
            return None
        if isinstance(value, Mapping):
            return {k: clean(v, f"{path}.{k}" if path else str(k)) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [clean(v, f"{path}[{i}]") for i, v in enumerate(value)]
        return value

    cleaned = {key: clean(value, key) for key, value in record.items() if key != "nonfinite"}
    before: Any = record.get("nonfinite", {})
    return {**cleaned, "nonfinite": {**before, **nonfinite}}


def restored(record: Document) -> Document:
    """The record of a file with NaN and infinities again, the inverse of `jsonable`; its flags and schema are gone."""
    nonfinite: Any = record.get("nonfinite", {})

    def value(item: Any, path: str) -> Any:
        if item is None and path in nonfinite:
            return float(nonfinite[path])
        if isinstance(item, Mapping):
            return {k: value(v, f"{path}.{k}" if path else str(k)) for k, v in item.items()}
        if isinstance(item, list):
            return [value(v, f"{path}[{i}]") for i, v in enumerate(item)]
        return item

    found: Any = {key: value(item, key) for key, item in record.items() if key not in ("nonfinite", "schema")}
    return cast(Document, found)


def read_json(path: Path, remedy: str) -> dict[str, Any] | None:
    """The parsed file, or None where there is none; ``remedy`` says what to do about a damaged one.

    Raises:
        BadInput: it is not JSON, or of another schema. StorageError: the disk does not give it.
    """
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} is not readable JSON ({error}); {remedy}") from None
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
    if not isinstance(value, dict) or value.get("schema") != SCHEMA:
        found = value.get("schema") if isinstance(value, dict) else None
        raise BadInput(f"{path} has schema {found!r}; this netdepth reads schema {SCHEMA}")
    return value
