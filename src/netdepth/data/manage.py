"""The commands ``netdepth data list | fetch | verify`` as functions, which return rows and print nothing."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from netdepth.config import Component
from netdepth.data.fetch import SOURCES, Source, download, locate, unpacked, user_cache, verified
from netdepth.data.splits import DATASETS
from netdepth.errors import BadInput, StorageError
from netdepth.files.atomic import storage

__all__ = ["DatasetRow", "FileRow", "fetch", "list_datasets", "verify"]


@dataclass(frozen=True)
class DatasetRow:
    """One data set. ``where`` is its folder, ``in the package``, ``not here`` or ``2 of 4 files``;
    ``digests`` maps each official file, in all its forms, to its expected sha256; ``mirrors`` are base addresses of the
    files, ``cache`` is the folder that a download would put them into, ``measured`` says of what the digests are."""

    name: str
    title: str
    sizes: dict[str, int]
    where: str
    licence: str
    source: str
    digests: dict[str, str]
    mirrors: tuple[str, ...] = ()
    cache: str = ""
    measured: str = ""


@dataclass(frozen=True)
class FileRow:
    """One file. ``digest`` is the expected sha256; ``message`` says what is wrong."""

    file: str
    status: Literal["ok", "missing", "wrong"]
    digest: str
    path: Path | None
    message: str


def _unpacked_instead(source: Source, data_dir: Path | None) -> Path | None:
    """The unpacked folder of an archive that is not here itself."""
    return unpacked(source, data_dir) if None in locate(source, data_dir).values() else None


def _users_own(name: str) -> bool:
    """Whether a setting without a default says where the data are."""
    return any(setting.default is inspect.Parameter.empty for setting in DATASETS.entry(name).fields)


def _where(source: Source, data_dir: Path | None) -> str:
    if not source.files:
        return "yours" if _users_own(source.name) else "in the package"
    if folder := _unpacked_instead(source, data_dir):
        return str(folder)
    paths = [path for path in locate(source, data_dir).values() if path is not None]
    if len(paths) < len(source.files):
        return f"{len(paths)} of {len(source.files)} files" if paths else "not here"
    return ", ".join(dict.fromkeys(str(path.parent) for path in paths))


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
        measured = source.files[0].measured if source.files else ""
        about = source.licence, source.origin, digests, source.mirrors, str(user_cache() / name), measured
        rows.append(DatasetRow(name, source.title, source.sizes, where, *about))
    return rows


def fetch(name: str, data_dir: Path | None = None, progress: bool = True) -> Path | None:
    """Download the missing files of ``name`` to ``data_dir``, else to the user cache, and verify all of them.

    Returns:
        The folder of the data; None for a data set that comes with a package or from a user's file.

    Raises:
        BadInput: unknown name, or a local file that is not the official one (it is left as it is).
        StorageError: no mirror delivers, or the disk fails.
    """
    source = SOURCES.get(DATASETS.entry(name).name)
    if source is None or not source.files:
        if _users_own(name):
            raise BadInput(f"data set {name!r} is your own; there is nothing to fetch")
        return None
    if data_dir is not None:
        with storage(data_dir):
            data_dir.mkdir(parents=True, exist_ok=True)
    if folder := _unpacked_instead(source, data_dir):
        return folder
    download(source, data_dir, progress=progress)
    last = list(locate(source, data_dir).values())[-1]
    return last.parent if last is not None else None


def verify(name: str, data_dir: Path | None = None) -> list[FileRow]:
    """Each file of ``name`` with its state; nothing is downloaded or changed.

    Data without official files, and unpacked ones, are verified by loading them.

    Raises:
        BadInput: unknown name, or ``data_dir`` is not a folder.
    """
    source = SOURCES.get(DATASETS.entry(name).name)
    if source is None or not source.files or _unpacked_instead(source, data_dir):
        try:
            files = DATASETS.build(Component(name), data_dir).spec.files
        except (BadInput, StorageError) as error:
            return [FileRow(name, "wrong", "", None, str(error))]
        return [FileRow(file, "ok", sha256, None, "") for file, sha256 in files.items()]
    rows = []
    for file, path in zip(source.files, locate(source, data_dir).values(), strict=True):
        if path is None:
            message = f"get it with: netdepth data fetch {name}"
            rows.append(FileRow(file.name, "missing", file.sha256, None, message))
            continue
        form = file.form_at(path)
        try:
            verified(path, file, source)
        except (BadInput, StorageError) as error:
            rows.append(FileRow(form.name, "wrong", form.sha256, path, str(error)))
        else:
            rows.append(FileRow(form.name, "ok", form.sha256, path, ""))
    return rows
