"""What stands behind ``netdepth data list | fetch | verify``: functions that return rows and print nothing."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from netdepth.config import Component
from netdepth.data.fetch import SOURCES, Source, download, locate, unpacked, user_cache, verified
from netdepth.data.splits import DATASETS
from netdepth.errors import BadInput, StorageError

__all__ = ["DatasetRow", "FileRow", "fetch", "list_datasets", "verify"]


@dataclass(frozen=True)
class DatasetRow:
    """One data set. ``where`` is its folder, ``in the package``, ``not here`` or ``2 of 4 files``;
    ``digests`` maps each official file, in every form it comes in, to its expected sha256."""

    name: str
    title: str
    sizes: dict[str, int]
    where: str
    licence: str
    source: str
    digests: dict[str, str]


@dataclass(frozen=True)
class FileRow:
    """One file. ``digest`` is the expected sha256; ``message`` says what is wrong."""

    file: str
    status: Literal["ok", "missing", "wrong"]
    digest: str
    path: Path | None
    message: str


def _where(source: Source, data_dir: Path | None) -> str:
    if not source.files:
        return "yours" if _yours(source.name) else "in the package"
    if folder := _extraction(source, data_dir):
        return str(folder)
    paths = [path for path in locate(source, data_dir).values() if path is not None]
    if len(paths) < len(source.files):
        return f"{len(paths)} of {len(source.files)} files" if paths else "not here"
    return ", ".join(dict.fromkeys(str(path.parent) for path in paths))


def _extraction(source: Source, data_dir: Path | None) -> Path | None:
    """The folder that stands in for an archive that is not here, if there is one."""
    return unpacked(source, data_dir) if None in locate(source, data_dir).values() else None


def _yours(name: str) -> bool:
    """Whether the data set is whatever a setting without a default names."""
    return any(setting.default is inspect.Parameter.empty for setting in DATASETS.entry(name).fields)


def list_datasets(data_dir: Path | None) -> list[DatasetRow]:
    """Every registered data set, sorted by name; files are looked for, not read."""
    rows = []
    for name in DATASETS.names():
        source = SOURCES.get(name)
        if source is None:  # registered by a user's own file
            rows.append(DatasetRow(name, DATASETS.entry(name).summary, {}, "in your own file", "", "", {}))
            continue
        digests = {form.name: form.sha256 for file in source.files for form in file.forms}
        where = _where(source, data_dir)
        rows.append(DatasetRow(name, source.title, source.sizes, where, source.licence, source.origin, digests))
    return rows


def _source(name: str) -> Source | None:
    """What is known of ``name``; BadInput with the nearest match if no such data set is registered."""
    return SOURCES.get(DATASETS.entry(name).name)


def fetch(name: str, data_dir: Path | None = None, progress: bool = True) -> Path | None:
    """Have every file of ``name`` here and verified; what is missing goes to ``data_dir``, else to the user cache.

    Returns:
        The folder the data lie in; None for a data set that comes with a package or from a user's file.

    Raises:
        BadInput: unknown name, or a local file that is not the official one (it is left as it is).
        StorageError: no mirror delivers, or the disk fails.
    """
    source = _source(name)
    if source is None or not source.files:
        if _yours(name):
            raise BadInput(f"data set {name!r} is your own; there is nothing to fetch")
        return None
    if data_dir is not None:
        try:
            data_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"cannot make --data {str(data_dir)!r}: {error.strerror or error}") from error
    if folder := _extraction(source, data_dir):
        return folder
    download(source, data_dir, into=(data_dir or user_cache()) / source.name, progress=progress)
    last = list(locate(source, data_dir).values())[-1]
    return last.parent if last is not None else None


def verify(name: str, data_dir: Path | None = None) -> list[FileRow]:
    """Each file of ``name`` with its state; nothing is downloaded or changed.

    Raises:
        BadInput: unknown name, or ``data_dir`` is not a folder.
    """
    source = _source(name)
    if source is None or not source.files or _extraction(source, data_dir):
        return _verify_loaded(name, data_dir)
    rows = []
    for file, path in zip(source.files, locate(source, data_dir).values(), strict=True):
        if path is None:
            message = f"get it with: netdepth data fetch {name}"
            rows.append(FileRow(file.name, "missing", file.sha256, None, message))
            continue
        file = file.form_at(path)
        try:
            verified(path, file, source)
        except (BadInput, StorageError) as error:
            rows.append(FileRow(file.name, "wrong", file.sha256, path, str(error)))
        else:
            rows.append(FileRow(file.name, "ok", file.sha256, path, ""))
    return rows


def _verify_loaded(name: str, data_dir: Path | None) -> list[FileRow]:
    """Data without official files, and unpacked ones, are verified by loading them."""
    try:
        files = DATASETS.build(Component(name), data_dir).spec.files
    except (BadInput, StorageError) as error:
        return [FileRow(name, "wrong", "", None, str(error))]
    return [FileRow(file, "ok", sha256, None, "") for file, sha256 in files.items()]
