"""Small archives in the two official forms of CIFAR-10 and CIFAR-100, made from the same pictures."""

from __future__ import annotations

import gzip
import hashlib
import io
import struct
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from netdepth.config import Component
from netdepth.data import Splits, cifar, load
from netdepth.data.fetch import SOURCES, Source
from netdepth.errors import BadInput

PIXELS = 3072


@dataclass(frozen=True)
class Shape:
    """What is alike in the batches of a data set: names, kinds of labels with their number of classes."""

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
        "cifar-10-batches-bin",
        "cifar-10-batches-py",
        tuple(f"data_batch_{i}" for i in range(1, 6)),
        "test_batch",
        {"labels": 10},
        train_size=100,
        test_size=20,
    ),
    "cifar100": Shape(
        "cifar-100-binary",
        "cifar-100-python",
        ("train",),
        "test",
        {"coarse_labels": 20, "fine_labels": 100},
        train_size=200,
        test_size=100,
    ),
}


@dataclass(frozen=True)
class Batch:
    """``images`` uint8 [N, 3072], ``labels`` by kind."""

    images: np.ndarray
    labels: dict[str, list[int]]


def batches(name: str) -> dict[str, Batch]:
    """The batches of a small data set, by official name: what the archives are made of."""
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
    columns = [np.array(values, dtype=np.uint8)[:, None] for values in batch.labels.values()]
    return np.concatenate([*columns, batch.images], axis=1).tobytes()


class Python2Pickler:
    """What Python 2's cPickle wrote with protocol 2: byte strings, a memo that begins at 1, lists by the thousand."""

    def __init__(self) -> None:
        self.parts: list[bytes] = [b"\x80\x02"]
        self.stored = 0

    def put(self) -> None:
        self.stored += 1
        self.parts.append(b"q" + bytes([self.stored]) if self.stored < 256 else b"r" + struct.pack("<I", self.stored))

    def write(self, value: Any) -> None:
        if isinstance(value, dict):
            self.parts.append(b"}")
            self.put()
            self.parts.append(b"(")
            for pair in value.items():
                for item in pair:
                    self.write(item)
            self.parts.append(b"u")
        elif isinstance(value, list):
            self.parts.append(b"]")
            self.put()
            for start in range(0, len(value), 1000):
                self.parts.append(b"(")
                for item in value[start : start + 1000]:
                    self.write(item)
                self.parts.append(b"e")
        elif isinstance(value, str | bytes):
            raw = value.encode("latin-1") if isinstance(value, str) else value
            short = len(raw) < 256
            self.parts.append((b"U" + bytes([len(raw)]) if short else b"T" + struct.pack("<i", len(raw))) + raw)
            self.put()
        elif isinstance(value, np.ndarray):
            self.write_array(value)
        elif isinstance(value, bool):
            self.parts.append(b"\x88" if value else b"\x89")
        elif 0 <= value < 256:
            self.parts.append(b"K" + bytes([value]))
        elif 0 <= value < 65536:
            self.parts.append(b"M" + struct.pack("<H", value))
        else:
            self.parts.append(b"J" + struct.pack("<i", value))

    def write_array(self, array: np.ndarray) -> None:
        by_column = not array.flags.c_contiguous
        for part in (b"cnumpy.core.multiarray\n_reconstruct\n", b"cnumpy\nndarray\n", b"K\x00\x85"):
            self.parts.append(part)
            self.put()
        self.write("b")
        self.parts.append(b"\x87")
        self.put()
        self.parts.append(b"R")
        self.put()
        self.parts.append(b"(K\x01")
        for length in array.shape:
            self.write(length)
        self.parts.append(b"\x86")
        self.put()
        self.parts.append(b"cnumpy\ndtype\n")
        self.put()
        self.write(array.dtype.str[1:])
        self.parts.append(b"K\x00K\x01\x87")
        self.put()
        self.parts.append(b"R")
        self.put()
        self.parts.append(b"(K\x03")
        self.write("|")
        self.parts.append(b"NNN" + b"J\xff\xff\xff\xff" * 2 + b"K\x00t")
        self.put()
        self.parts.append(b"b")
        self.write(by_column)
        self.write(array.tobytes(order="F" if by_column else "C"))
        self.parts.append(b"t")
        self.put()
        self.parts.append(b"b")


def python2_pickle(value: Any) -> bytes:
    """``value`` as Python 2 would have pickled it."""
    pickler = Python2Pickler()
    pickler.write(value)
    return b"".join(pickler.parts) + b"."


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


def tar(entries: Iterable[tuple[tarfile.TarInfo, bytes]], format: int = tarfile.GNU_FORMAT) -> bytes:
    """A tar archive of ``entries``, headers taken as they are."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=format) as archive:
        for info, content in entries:
            archive.addfile(info, io.BytesIO(content))
    return sink.getvalue()


def packed(archive: bytes) -> bytes:
    return gzip.compress(archive, 1, mtime=0)


def files_of(name: str, form: str, made: Mapping[str, Batch] | None = None) -> dict[str, bytes]:
    """The files in an archive of form "binary" or "python", by path, in a different order than they are read in."""
    shape, made = SHAPES[name], batches(name) if made is None else made
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


def signed(source: Source, archives: Sequence[bytes], sizes: dict[str, int]) -> Source:
    """``source`` as if ``archives`` were the official ones, preferred form first."""
    (file,) = source.files
    forms = [
        replace(form, sha256=hashlib.sha256(data).hexdigest(), size=len(data), alternatives=())
        for form, data in zip(file.forms, archives, strict=True)
    ]
    return replace(source, files=(replace(forms[0], alternatives=tuple(forms[1:])),), sizes=sizes)


# --- a data folder -----------------------------------------------------------------------------

FORMS = ("binary", "python")
NAMES = tuple(SHAPES)
ARCHIVES = {(name, form): archive_of(files_of(name, form)) for name in NAMES for form in FORMS}
FILE = {(name, form): f"{name.replace('cifar', 'cifar-')}-{form}.tar.gz" for name in NAMES for form in FORMS}


@dataclass
class World:
    """A data folder in which small archives pass for the official ones."""

    root: Path
    patch: pytest.MonkeyPatch

    def sign(self, name: str, binary: bytes, python: bytes) -> None:
        """Make ``binary`` and ``python`` the official archives of ``name``."""
        source = signed(SOURCES[name], [binary, python], SHAPES[name].sizes)
        self.patch.setitem(SOURCES, name, source)
        self.patch.setattr(cifar, name.upper(), source)

    def put(self, name: str, form: str, data: bytes | None = None) -> Path:
        """Lay an archive (the good one, if none is given) where it is looked for."""
        path = self.root / name / FILE[name, form]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(ARCHIVES[name, form] if data is None else data)
        return path

    def changed(self, name: str, form: str, files: dict[str, bytes]) -> None:
        """Lay an archive of ``files``, which is the official one by its digest."""
        data = archive_of(files)
        self.sign(name, data, data)
        self.put(name, form, data)

    def load(self, name: str, **settings: Any) -> Splits:
        return load(Component(name, {"val_size": 20, **settings}), data_dir=self.root)

    def refused(self, name: str) -> str:
        """The line that refuses what lies there for ``name``."""
        with pytest.raises(BadInput) as caught:
            self.load(name)
        line = str(caught.value)
        assert "\n" not in line
        assert line.isprintable()
        return line


def make_world(root: Path, patch: pytest.MonkeyPatch) -> World:
    """A world at ``root`` where the archives of `ARCHIVES` are the official ones; none lies there yet."""
    root.mkdir()
    made = World(root, patch)
    for name in NAMES:
        made.sign(name, ARCHIVES[name, "binary"], ARCHIVES[name, "python"])
    return made


def parts(splits: Splits) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    assert splits.test is not None
    opened = {"train": splits.train, "val": splits.val, "test": splits.test.open_test("a test")}
    return {name: (split.inputs, split.labels) for name, split in opened.items()}
