"""A user's own pictures: ``--dataset image-folder:PATH``.

    PATH/train/<class>/*.jpg, *.jpeg, *.png
    PATH/val/<class>/...       without it, validation is taken from train, with equal class shares
    PATH/test/<class>/...      without it, there are no test data and the test metrics are null

The classes are train's folders, sorted by name. Names that begin with a dot are skipped; everything else that
is no picture is refused, so that none is left out silently. Links are followed to files and folders. The names
and bytes of the pictures enter the fingerprint, the path of the folder never does.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np

from netdepth.config import SCHEMA, digest, from_json, require, to_json
from netdepth.data.decode import Folder, Pictures, content_digest, picture_splits
from netdepth.data.fetch import Source, publish, user_cache
from netdepth.data.splits import DATASETS, Splits
from netdepth.errors import BadInput, StorageError, choose
from netdepth.files.atomic import storage, write_atomic
from netdepth.files.pictures import MAX_BYTES
from netdepth.progress import CountProgress

__all__ = ["IMAGE_FOLDER", "image_folder", "read_folder"]

PARTS = ("train", "val", "test")
SUFFIXES = (".jpg", ".jpeg", ".png")
MAX_SIZE = 4096
VAL_SHARE = 0.1
"""Validation's share of train by default, where the folder has no val/."""

SETTLED_SECONDS = 2.0
"""Time stamps are rounded. What was read is remembered only if all files are older than this, so that a second change
has another time stamp than the first."""

IMAGE_FOLDER = publish(
    Source(
        name="image-folder",
        title="your own pictures: PATH/train/<class>/*.jpg or *.png",
        sizes={},
        licence="yours",
        origin="--dataset image-folder:PATH",
    )
)


@dataclass(frozen=True)
class _Listed:
    """The files of one part, a line per file that differs once it has changed, and the time of the last change."""

    names: tuple[str, ...]
    labels: np.ndarray
    stamps: tuple[str, ...]
    changed: float


@dataclass(frozen=True)
class _Contents:
    """What was read of a folder: the digest of every part, and a remark on test pictures that are in train too."""

    contents: dict[str, str]
    note: str


@DATASETS.register("image-folder", unhashed=("path",))
def image_folder(
    data_dir: Path | None,
    *,
    path: Annotated[
        str, "folder of train/<class>/*.jpg or *.png, and val/ and test/ likewise: --dataset image-folder:PATH"
    ],
    size: Annotated[int | None, "pictures become size x size (the middle square); null: they have one size"] = None,
    channels: Annotated[Literal[1, 3], "3: RGB, 1: grey"] = 3,
    val_size: Annotated[
        int | float | None, "validation taken from train: a count, or a share below 1; null: val/, or 0.1 without it"
    ] = None,
) -> Splits:
    """Your own pictures, JPEG or PNG, one folder per class: --dataset image-folder:PATH."""
    if size is not None:
        require(1 <= size <= MAX_SIZE, "dataset.size", size, f"1 to {MAX_SIZE}, or null")
    folder = read_folder(Path(os.path.expanduser(path)))
    if val_size is not None and "val" in folder.parts:
        raise BadInput(f"dataset.val_size = {val_size!r}, but {path!r} has a folder val; leave it null")
    count = _count(VAL_SHARE if val_size is None else val_size, len(folder.parts["train"]))
    contents = {part: pictures.content for part, pictures in folder.parts.items()}
    return picture_splits(
        IMAGE_FOLDER.name, "your own pictures", folder, contents, size=size, channels=channels, val_size=count
    )


def _count(val_size: int | float, pictures: int) -> int:
    """The number of ``pictures`` that ``val_size`` stands for: a count, or a share (one picture at least)."""
    if 0 < val_size < 1:
        return max(1, round(val_size * pictures))
    require(isinstance(val_size, int), "dataset.val_size", val_size, "a count, or a share below 1")
    return int(val_size)


# --- the folder -------------------------------------------------------------------------------


def read_folder(root: Path) -> Folder:
    """The pictures below ``root``, with the digests of their contents.

    The bytes are read once: not again while names, sizes, inodes and times of all files are the same
    (``<user cache>/folders``).

    Raises:
        BadInput: another layout than the one above; the line names the file.
        StorageError: a file or folder cannot be read.
    """
    for entry in _entries(root):
        if os.path.isdir(entry.path):
            choose(entry.name, PARTS, f"folder in {str(root)!r}:")
        elif entry.name in PARTS:
            raise BadInput(f"{entry.path!r} is no folder; it takes <class>/*.jpg or *.png")
    if not (root / "train").is_dir():
        raise BadInput(f"{str(root)!r} has no folder train; it takes train/<class>/*.jpg or *.png")
    classes = tuple(entry.name for entry in _class_folders(root / "train"))
    if len(classes) < 2:
        raise BadInput(f"{str(root / 'train')!r} holds {len(classes)} folders of classes; it takes 2 or more")
    started = time.time()
    listed = {part: _listed(root, part, classes) for part in PARTS if (root / part).is_dir()}
    lines = [str(root.resolve()), *(line for one in listed.values() for line in one.stamps)]
    stamp = user_cache() / "folders" / f"{digest(lines)}.json"
    found = _remembered(stamp, listed)
    if found is None:
        found = _contents(root, listed)
        if max(one.changed for one in listed.values()) < started - SETTLED_SECONDS:
            with storage(stamp):
                stamp.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(stamp, json.dumps({"schema": SCHEMA, **to_json(found)}).encode())

    def pictures(part: str, one: _Listed) -> Pictures:
        return Pictures(str(root), one.names, one.labels, found.contents[part], lambda i: _read(root / one.names[i]))

    return Folder(classes, {part: pictures(part, one) for part, one in listed.items()}, found.note)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of ``folder``, sorted by name, without names that begin with a dot."""
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise BadInput(
            f"{str(folder)!r} is not a folder; it takes a folder that holds train/<class>/*.jpg or *.png"
        ) from None
    except OSError as error:
        raise StorageError(f"cannot read {str(folder)!r}: {error.strerror or error}") from None


def _class_folders(part: Path) -> list[os.DirEntry[str]]:
    entries = _entries(part)
    for entry in entries:
        if not os.path.isdir(entry.path):
            raise BadInput(f"{entry.path!r} is no folder; {str(part)!r} takes one folder per class")
        if not entry.name.isprintable():
            raise BadInput(f"{entry.path!r} cannot be a class: its name must be printable, for tables")
    return entries


def _listed(root: Path, part: str, classes: Sequence[str]) -> _Listed:
    """The pictures of ``part``, class by class, each sorted by name."""
    names: list[str] = []
    labels: list[int] = []
    stamps: list[str] = []
    changed = 0.0
    for folder in _class_folders(root / part):
        choose(folder.name, classes, f"class in {str(root / part)!r}:")
        before = len(names)
        for entry in _entries(Path(folder.path)):
            found = _checked(entry)
            name = f"{part}/{folder.name}/{entry.name}"
            names.append(name)
            labels.append(classes.index(folder.name))
            marks = (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev)
            stamps.append(f"{name}\0{marks}")
            changed = max(changed, found.st_mtime, found.st_ctime)
        if part == "train" and len(names) == before:
            raise BadInput(f"{folder.path!r} holds no pictures; a class takes one training picture or more")
    if not names:
        raise BadInput(f"{str(root / part)!r} holds no pictures; it takes <class>/*.jpg or *.png")
    return _Listed(tuple(names), np.array(labels, dtype=np.int64), tuple(stamps), changed)


def _checked(entry: os.DirEntry[str]) -> os.stat_result:
    """The size and times of a picture file, which is refused if it cannot be a picture."""
    if not entry.name.lower().endswith(SUFFIXES):
        raise BadInput(f"{entry.path!r} is none of {', '.join(SUFFIXES)}; move it away, or turn it into one")
    try:
        found = entry.stat()
    except FileNotFoundError:
        raise BadInput(f"{entry.path!r} is a link to a file that does not exist") from None
    except OSError as error:
        raise StorageError(f"cannot read {entry.path!r}: {error.strerror or error}") from None
    if not stat.S_ISREG(found.st_mode):  # reading a pipe would wait for a writer
        raise BadInput(f"{entry.path!r} is not a file; a class's folder takes pictures and nothing else")
    if found.st_size > MAX_BYTES:
        raise BadInput(f"{entry.path!r} has {found.st_size} bytes; a picture has {MAX_BYTES} at most")
    return found


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StorageError(f"cannot read {str(path)!r}: {error.strerror or error}") from None


def _remembered(stamp: Path, listed: Mapping[str, _Listed]) -> _Contents | None:
    """What an earlier `_contents` of the same files found."""
    try:
        document = json.loads(stamp.read_bytes())
        known = document.pop("schema") == SCHEMA
        found = from_json(_Contents, document, str(stamp))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, BadInput):  # not there, or damaged
        return None
    return found if known and set(found.contents) == set(listed) else None


def _contents(root: Path, listed: Mapping[str, _Listed]) -> _Contents:
    """Read file by file."""
    digests: dict[str, list[str]] = {part: [] for part in listed}
    with CountProgress("reading pictures", sum(len(one.names) for one in listed.values())) as report:
        for part, one in listed.items():
            for name in one.names:
                digests[part].append(hashlib.sha256(_read(root / name)).hexdigest())
                report.add(1)
    train = set(digests["train"])
    remarks = []
    for part, one in listed.items():
        again = [name for name, sha in zip(one.names, digests[part], strict=True) if sha in train]
        if part != "train" and again:
            remarks.append(f"{len(again)} of {len(one.names)} {part} pictures are in train too, such as {again[0]!r}")
    contents = {part: content_digest(one.names, digests[part]) for part, one in listed.items()}
    return _Contents(contents, "; ".join(remarks))
