"""A user's own pictures: ``--dataset image-folder:PATH``.

    PATH/train/<class>/*.jpg, *.png, ...
    PATH/val/<class>/...       without it, validation is taken from train, with equal class shares
    PATH/test/<class>/...      without it, there are no test data and the test metrics are null
    PATH/<class>/...           without train/, val/ and test/, validation and test are drawn by seed 0

The classes are train's folders, sorted by name, and compared in Unicode's composed form (NFC), since macOS and Linux
write accents differently. Names that begin with a dot, and what systems leave behind (`LEFT_BEHIND`), are skipped;
everything else that is no picture is refused, so that none is left out silently. Links are followed to files and
folders. The names and bytes of the pictures enter the fingerprint, the path of the folder never does.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np

from netdepth.config import SCHEMA, digest
from netdepth.data.decode import Pictures, content_digest, listed_faults
from netdepth.data.fetch import own_source, user_cache
from netdepth.data.pictures import Channels, Folder, Size, check_size, picture_splits
from netdepth.data.splits import DATASETS, Splits, TestSize, ValShare
from netdepth.errors import BadInput, choose
from netdepth.files.atomic import reading, write_if_possible
from netdepth.files.pictures import MAX_BYTES, SUFFIXES
from netdepth.progress import CountProgress

__all__ = ["IMAGE_FOLDER", "image_folder", "read_folder"]

PARTS = ("train", "val", "test")
LIKE_PARTS = ("training", "valid", "validation", "testing")
"""No class is called so: a folder with such names is asked to call them `PARTS`."""
LEFT_BEHIND = frozenset({"thumbs.db", "desktop.ini", "__macosx", "icon\r"})
"""What Windows and macOS put into folders and archives, in small letters; .DS_Store begins with a dot."""
LAYOUT = "train/<class>/*.jpg or *.png, or <class>/*.jpg"

SETTLED_SECONDS = 2.0
"""Time stamps are rounded. What was read is remembered only if all files are older than this, so that a second change
has another time stamp than the first."""

IMAGE_FOLDER = own_source(
    "image-folder", "your own pictures: PATH/<class>/*.jpg, or PATH/train/<class>/*.jpg and so on", "image-folder:PATH"
)


@dataclass(frozen=True)
class _Listed:
    """The files of one part, a line per file that differs once it has changed, and the time of the last change."""

    names: tuple[str, ...]
    labels: np.ndarray
    stamps: tuple[str, ...]
    changed: float


@DATASETS.register("image-folder", unhashed=("path",), added=("test_size",))
def image_folder(
    data_dir: Path | None,
    *,
    path: Annotated[
        str,
        "folder of <class>/*.jpg, or of train/, val/ and test/ with such folders: --dataset image-folder:PATH",
    ],
    size: Size = None,
    channels: Channels = 3,
    val_size: ValShare = None,
    test_size: TestSize = None,
) -> Splits:
    """Your own pictures (JPEG, PNG, TIFF, BMP, WebP, GIF), one folder per class: --dataset image-folder:PATH."""
    check_size(size)
    folder = read_folder(Path(os.path.expanduser(path)))
    contents = {part: pictures.content for part, pictures in folder.parts.items()}
    return picture_splits(
        IMAGE_FOLDER.name, "your own pictures", folder, contents, size=size, channels=channels, val_size=val_size,
        test_size=test_size,
    )  # fmt: skip


# --- the folder -------------------------------------------------------------------------------


def read_folder(root: Path) -> Folder:
    """The pictures below ``root``, with the digests of their contents.

    The bytes are read once: not again while names, sizes, inodes and times of all files are the same
    (``<user cache>/folders``).

    Raises:
        BadInput: another layout than the one above; the line names the file.
        StorageError: a file or folder cannot be read.
    """
    entries = _entries(root)
    flat = not any(entry.name.lower() in (*PARTS, *LIKE_PARTS) for entry in entries)
    for entry in () if flat else entries:
        if os.path.isdir(entry.path):
            choose(entry.name, PARTS, f"folder in {str(root)!r}:")
        elif entry.name in PARTS:
            raise BadInput(f"{entry.path!r} is no folder; it takes <class>/*.jpg or *.png")
    folders = {"train": root} if flat else {part: root / part for part in PARTS if (root / part).is_dir()}
    if "train" not in folders:
        raise BadInput(f"{str(root)!r} has no folder train; it takes {LAYOUT}")
    classes = tuple(_composed(entry.name) for entry in _class_folders(folders["train"], flat))
    if len(classes) < 2:
        raise BadInput(f"{str(folders['train'])!r} holds {len(classes)} folders of classes; it takes 2 or more")
    if twice := [name for name, number in Counter(classes).items() if number > 1]:
        raise BadInput(f"{str(folders['train'])!r} has two folders {twice[0]!r}, encoded differently")
    started = time.time()
    faults: list[tuple[str, str]] = []
    listed = {part: _listed(root, folder, part, classes, faults, flat) for part, folder in folders.items()}
    if faults:
        raise BadInput(listed_faults("files", faults))
    lines = [str(root.resolve()), *(line for one in listed.values() for line in one.stamps)]
    stamp = user_cache() / "folders" / f"{digest(lines)}.json"
    found = _remembered(stamp, listed)
    if found is None:
        found = _contents(root, listed)
        if max(one.changed for one in listed.values()) < started - SETTLED_SECONDS:
            write_if_possible(stamp, json.dumps({"schema": SCHEMA, "contents": found}).encode())

    def pictures(part: str, one: _Listed) -> Pictures:
        return Pictures(str(root), one.names, one.labels, found[part], lambda i: _read(root / one.names[i]))

    return Folder(classes, {part: pictures(part, one) for part, one in listed.items()}, pooled=flat)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of ``folder``, sorted by name, without names that begin with a dot and what systems leave behind."""
    with reading(folder):
        try:
            with os.scandir(folder) as entries:
                kept = (one for one in entries if not one.name.startswith(".") and one.name.lower() not in LEFT_BEHIND)
                return sorted(kept, key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError, ValueError):
            raise BadInput(f"{str(folder)!r} is not a folder; it takes a folder that holds {LAYOUT}") from None


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _class_folders(part: Path, flat: bool = False) -> list[os.DirEntry[str]]:
    """The folders in ``part``; beside those of a ``flat`` one there may be files that are no pictures (a README)."""
    entries = _entries(part)
    if flat:
        entries = [one for one in entries if os.path.isdir(one.path) or one.name.lower().endswith(SUFFIXES)]
    for entry in entries:
        if not os.path.isdir(entry.path):
            raise BadInput(f"{entry.path!r} is no folder; {str(part)!r} takes one folder per class")
        if not entry.name.isprintable():
            raise BadInput(f"{entry.path!r} cannot be a class: its name must be printable, for tables")
    return entries


def _listed(
    root: Path, place: Path, part: str, classes: Sequence[str], faults: list[tuple[str, str]], flat: bool
) -> _Listed:
    """The pictures of ``part``, which lies in ``place``, class by class, each sorted by name; files that cannot be
    pictures are added to ``faults``."""
    names: list[str] = []
    labels: list[int] = []
    stamps: list[str] = []
    changed = 0.0
    for folder in _class_folders(place, flat):
        label = classes.index(choose(_composed(folder.name), classes, f"class in {str(place)!r}:"))
        before = len(names)
        for entry in _entries(Path(folder.path)):
            found = _checked(entry)
            if isinstance(found, str):
                faults.append((entry.path, found))
                continue
            name = os.path.relpath(entry.path, root)
            names.append(name)
            labels.append(label)
            marks = (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev)
            stamps.append(f"{name}\0{marks}")
            changed = max(changed, found.st_mtime, found.st_ctime)
        if part == "train" and len(names) == before and not faults:
            raise BadInput(f"{folder.path!r} holds no pictures; a class takes one training picture or more")
    if not names and not faults:
        raise BadInput(f"{str(place)!r} holds no pictures; it takes <class>/*.jpg or *.png")
    return _Listed(tuple(names), np.array(labels, dtype=np.int64), tuple(stamps), changed)


def _checked(entry: os.DirEntry[str]) -> os.stat_result | str:
    """The size and times of a picture file, or why it cannot be a picture."""
    if os.path.isdir(entry.path):
        return "it is a folder; the folder of a class takes pictures and nothing else"
    if not entry.name.lower().endswith(SUFFIXES):
        return f"its name ends in none of {', '.join(SUFFIXES)}; move it away, or turn it into one"
    with reading(entry.path):
        try:
            found = entry.stat()
        except FileNotFoundError:
            return "it is a link to a file that does not exist"
    if not stat.S_ISREG(found.st_mode):  # reading a pipe would wait for a writer
        return "it is not a file; the folder of a class takes pictures and nothing else"
    if found.st_size > MAX_BYTES:
        return f"it has {found.st_size} bytes; a picture has {MAX_BYTES} at most"
    return found


def _read(path: Path) -> bytes:
    with reading(path):
        return path.read_bytes()


def _remembered(stamp: Path, listed: Mapping[str, _Listed]) -> dict[str, str] | None:
    """What an earlier `_contents` of the same files found."""
    try:
        document = json.loads(stamp.read_bytes())
        found: dict[str, str] = document["contents"]
        whole = document["schema"] == SCHEMA and all(isinstance(content, str) for content in found.values())
        return found if whole and set(found) == set(listed) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # not there, or damaged
        return None


def _contents(root: Path, listed: Mapping[str, _Listed]) -> dict[str, str]:
    """The digest of every part, whose files are read one by one."""
    digests: dict[str, list[str]] = {part: [] for part in listed}
    with CountProgress("reading pictures", sum(len(one.names) for one in listed.values())) as report:
        for part, one in listed.items():
            for name in one.names:
                digests[part].append(hashlib.sha256(_read(root / name)).hexdigest())
                report.add(1)
    return {part: content_digest(one.names, digests[part]) for part, one in listed.items()}
