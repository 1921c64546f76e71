"""Small archives in the two official forms of CIFAR-10 and CIFAR-100, made from the same pictures."""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import struct
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from netdepth.config import Component
from netdepth.data import Splits, cifar, load
from netdepth.data.fetch import SOURCES
from netdepth.errors import BadInput

PIXELS = 3072


@dataclass(frozen=True)
class Shape:
    """The batches of a data set: their names, and the kinds of labels with their number of classes."""

    binary_folder: str
    python_folder: str
    train: tuple[str, ...]
    test: str
    kinds: dict[str, int]
    train_size: int
    test_size: int

    @property
    def sizes(self) -> dict[str, int]:
        return {"train": self.train_size - 20, "val": 20, "test": self.test_size}


SHAPES = {
    "cifar10": Shape(
        "cifar-10-batches-bin", "cifar-10-batches-py",
        tuple(f"data_batch_{i}" for i in range(1, 6)), "test_batch", {"labels": 10}, train_size=100, test_size=20,
    ),
    "cifar100": Shape(
        "cifar-100-binary", "cifar-100-python",
        ("train",), "test", {"coarse_labels": 20, "fine_labels": 100}, train_size=200, test_size=100,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Batch:
    """``images`` uint8 [N, 3072], ``labels`` by kind."""

    images: np.ndarray
    labels: dict[str, list[int]]


def batches(name: str) -> dict[str, Batch]:
    """The batches of a small data set, by official name; the archives hold them."""
    shape, generator = SHAPES[name], np.random.default_rng(1)
    made = {}
    for batch in (*shape.train, shape.test):
        count = shape.test_size if batch == shape.test else shape.train_size // len(shape.train)
        images = generator.integers(0, 256, (count, PIXELS), dtype=np.uint8)
        order = generator.permutation(count)
        labels = {kind: (order % classes).tolist() for kind, classes in shape.kinds.items()}
        made[batch] = Batch(images, labels)
    return made


# --- the two forms -----------------------------------------------------------------------------


def binary_rows(batch: Batch) -> bytes:
    """A batch of the binary version: label bytes and pixels, picture after picture."""
    return np.column_stack([*batch.labels.values(), batch.images]).astype(np.uint8).tobytes()


class Python2Pickler(pickle._Pickler):
    """Writes what Python 2 wrote with protocol 2: text as byte strings, numpy's names and arguments of that time."""

    dispatch = dict(pickle._Pickler.dispatch)  # noqa: RUF012

    def save_text(self, value: str | bytes) -> None:
        raw = value.encode("latin-1") if isinstance(value, str) else value
        length = b"U" + bytes([len(raw)]) if len(raw) < 256 else b"T" + struct.pack("<i", len(raw))
        self.write(length + raw)
        self.memoize(value)

    dispatch[str] = dispatch[bytes] = save_text

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, np.dtype):
            return np.dtype, (value.str[1:], 0, 1), (3, "|", None, None, None, -1, -1, 0)
        return NotImplemented

    def save_global(self, value: Any, name: str | None = None) -> None:
        if value is np.empty(0).__reduce__()[0]:
            self.write(b"cnumpy.core.multiarray\n_reconstruct\n")
        else:
            super().save_global(value, name)


def python2_pickle(value: Any) -> bytes:
    sink = io.BytesIO()
    Python2Pickler(sink, 2).dump(value)
    return sink.getvalue()


def batch_dictionary(batch: Batch, name: str = "data_batch_1") -> dict[str, Any]:
    """A batch as the dictionary of the Python version."""
    files = [f"{name}_s_{i:06d}.png" for i in range(len(batch.images))]
    return {"batch_label": name, **batch.labels, "data": batch.images, "filenames": files}


# --- archives ----------------------------------------------------------------------------------


def entry(name: str, content: bytes = b"", **changes: Any) -> tuple[tarfile.TarInfo, bytes]:
    """A tar entry with whatever header fields are asked for."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in changes.items():
        setattr(info, key, value)
    return info, content


def tar(entries: Iterable[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """A tar archive of ``entries``."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for info, content in entries:
            archive.addfile(info, io.BytesIO(content))
    return sink.getvalue()


def packed(archive: bytes) -> bytes:
    return gzip.compress(archive, 1, mtime=0)


def files_of(name: str, form: str) -> dict[str, bytes]:
    """The files in an archive of form "binary" or "python", by path, in another order than they are read in."""
    shape, made = SHAPES[name], batches(name)
    if form == "binary":
        files = {f"{shape.binary_folder}/{key}.bin": binary_rows(batch) for key, batch in made.items()}
        return {f"{shape.binary_folder}/batches.meta.txt": b"names\n", **dict(reversed(files.items()))}
    files = {
        f"{shape.python_folder}/{key}": python2_pickle(batch_dictionary(batch, key)) for key, batch in made.items()
    }
    return {f"{shape.python_folder}/readme.html": b"<html>", **dict(reversed(files.items()))}


def archive_of(files: Mapping[str, bytes]) -> bytes:
    """``files`` as an official archive: a folder first, compressed."""
    folder = next(iter(files)).partition("/")[0]
    first = entry(folder, type=tarfile.DIRTYPE, mode=0o755)
    return packed(tar([first, *(entry(path, content) for path, content in files.items())]))


# --- a data folder -----------------------------------------------------------------------------

FORMS = ("binary", "python")
NAMES = tuple(SHAPES)
ARCHIVES = {(name, form): archive_of(files_of(name, form)) for name in NAMES for form in FORMS}
FILE = {(name, form): f"{name.replace('cifar', 'cifar-')}-{form}.tar.gz" for name in NAMES for form in FORMS}


@dataclass
class World:
    """A data folder, and the table of digests, in which small archives are the official ones."""

    root: Path
    patch: pytest.MonkeyPatch

    def sign(self, name: str, binary: bytes, python: bytes) -> None:
        """Make ``binary`` and ``python`` the official archives of ``name``."""
        (file,) = SOURCES[name].files
        first, other = (
            replace(form, sha256=hashlib.sha256(data).hexdigest(), size=len(data), alternatives=())
            for form, data in zip(file.forms, (binary, python), strict=True)
        )
        files = (replace(first, alternatives=(other,)),)
        source = replace(SOURCES[name], files=files, sizes=SHAPES[name].sizes)
        self.patch.setitem(SOURCES, name, source)
        self.patch.setattr(cifar, name.upper(), source)

    def put(self, name: str, form: str, data: bytes | None = None) -> Path:
        """Put an archive (None: the good one) where it is looked for."""
        path = self.root / name / FILE[name, form]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(ARCHIVES[name, form] if data is None else data)
        return path

    def changed(self, name: str, form: str, files: dict[str, bytes]) -> None:
        """Put an archive of ``files`` there and make it the official one."""
        data = archive_of(files)
        self.sign(name, data, data)
        self.put(name, form, data)

    def load(self, name: str, **settings: Any) -> Splits:
        return load(Component(name, {"val_size": 20, **settings}), data_dir=self.root)

    def refused(self, name: str) -> str:
        """The line that refuses the data of ``name``."""
        with pytest.raises(BadInput) as caught:
            self.load(name)
        line = str(caught.value)
        assert "\n" not in line
        assert line.isprintable()
        return line


def make_world(root: Path, patch: pytest.MonkeyPatch) -> World:
    """A world at ``root`` where `ARCHIVES` are the official ones; none is there yet."""
    root.mkdir()
    made = World(root, patch)
    for name in NAMES:
        made.sign(name, ARCHIVES[name, "binary"], ARCHIVES[name, "python"])
    return made


def parts(splits: Splits) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    opened = {"train": splits.train, "val": splits.val, "test": splits.test.open_test("a test")}
    return {name: (split.inputs, split.labels) for name, split in opened.items()}
