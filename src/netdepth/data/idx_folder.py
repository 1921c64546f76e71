"""A folder of IDX files, the form of MNIST: ``--dataset idx:FOLDER``.

    train-images-idx3-ubyte.gz   train-labels-idx1-ubyte.gz      KMNIST, and anything else in MNIST's form
    t10k-images-idx3-ubyte.gz    t10k-labels-idx1-ubyte.gz       (or test-...); without them there are no test data
    emnist-letters-train-images-idx3-ubyte.gz ...                EMNIST; of several sets dataset.prefix names one
    qmnist-train-images-idx3-ubyte.gz  qmnist-train-labels-idx2-int.gz      QMNIST: the first column is the class

The files may be decompressed. EMNIST's pictures lie transposed in its files; they are turned upright, and the note of
the data says so.
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Annotated

import numpy as np

from netdepth.data.fetch import own_source
from netdepth.data.own import Examples, Names, array_splits, read_file
from netdepth.data.splits import DATASETS, Splits, ValShare
from netdepth.errors import BadInput, choose
from netdepth.files.atomic import reading

__all__ = ["IDX", "idx_folder"]

IDX = own_source("idx", "your own IDX files, the form of MNIST: KMNIST, EMNIST, QMNIST, ...", "idx:FOLDER")

FILE = re.compile(
    r"(?:(?P<prefix>.+)-)?(?P<part>train|t10k|test)-(?P<what>images|labels)[-.]idx[1-4]-(?:ubyte|int)(?:\.gz)?",
    re.ASCII,
)
TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
"""What the third byte of an IDX file says of its values."""


@DATASETS.register("idx", unhashed=("path",))
def idx_folder(
    data_dir: Path | None,
    *,
    path: Annotated[str, "folder of IDX files, train-images-idx3-ubyte.gz and so on: --dataset idx:FOLDER"],
    prefix: Annotated[
        str | None, "what the files' names begin with, such as emnist-letters; null: the folder holds one set"
    ] = None,
    transpose: Annotated[bool | None, "swap rows and columns of each picture; null: for EMNIST alone"] = None,
    names: Names = None,
    val_size: ValShare = None,
) -> Splits:
    """Your own IDX files, such as KMNIST, EMNIST and QMNIST: --dataset idx:FOLDER."""
    root = Path(os.path.expanduser(path))
    found = _files(root)
    prefixes = {key[0] for key in found}
    if prefix is None and len(prefixes) > 1:
        raise BadInput(
            f"{str(root)!r} holds several sets; say which: --set dataset.prefix=NAME, with one of "
            f"{', '.join(sorted(prefixes))}"
        )
    chosen = next(iter(prefixes)) if prefix is None else choose(prefix, prefixes, f"set of IDX files in {str(root)!r}:")
    turned = chosen.lower().startswith("emnist") if transpose is None else transpose
    parts: dict[str, Examples] = {}
    files: dict[str, str] = {}
    notes = ["rows and columns of each picture were swapped: they lie transposed in the files"] if turned else []
    for part in ("train", "test"):
        there = {what: found.get((chosen, part, what)) for what in ("images", "labels")}
        if part == "test" and not any(there.values()):
            continue
        held = {}
        for what, file in there.items():
            if file is None:
                raise BadInput(f"{str(root)!r} has no {part} {what}; it takes {part}-{what}-idx...-ubyte.gz and so on")
            content, files[file.name] = read_file(file, "an IDX file")
            held[what] = _array(content, file)
        labels = held["labels"]
        if labels.ndim == 2 and labels.shape[1] > 1:
            labels = labels[:, 0]
            notes.append("the class is the first column of the labels")
        images = held["images"].swapaxes(-1, -2) if turned and held["images"].ndim > 2 else held["images"]
        parts[part] = Examples(images, labels, f"{part} of {str(root)!r}")
    return array_splits(
        IDX, f"IDX files, {chosen or root.name}", parts, files, values=None, layout=None,
        names=_mapping(root, chosen) if names is None else names, val_size=val_size, test_size=None, pooled=False,
        note="; ".join(dict.fromkeys(notes)),
    )  # fmt: skip


def _files(root: Path) -> dict[tuple[str, str, str], Path]:
    """The IDX files in ``root`` by prefix, part (train or test) and what they hold."""
    with reading(root):
        try:
            entries = sorted(root.iterdir())
        except (FileNotFoundError, NotADirectoryError, ValueError):
            takes = "it takes one of train-images-idx3-ubyte.gz and so on"
            raise BadInput(f"{str(root)!r} is not a folder; {takes}") from None
    found: dict[tuple[str, str, str], Path] = {}
    for entry in entries:
        match = FILE.fullmatch(entry.name)
        if match is not None and not entry.is_dir():
            part = "train" if match["part"] == "train" else "test"
            found.setdefault((match["prefix"] or "", part, match["what"]), entry)  # x before x.gz, t10k before test
    if not found:
        raise BadInput(f"{str(root)!r} holds no IDX files; their names are train-images-idx3-ubyte.gz and so on")
    return found


def _array(content: bytes, file: Path) -> np.ndarray:
    """The array in an IDX file: two zero bytes, the type, the number of dimensions, each dimension in four bytes, then
    the values.

    Raises:
        BadInput: another beginning, or a size that is not that of the dimensions.
    """
    kind = TYPES.get(content[2]) if len(content) >= 4 and content[:2] == b"\0\0" else None
    count = content[3] if kind is not None else 0
    if kind is None or not 1 <= count <= 4 or len(content) < 4 + 4 * count:
        raise BadInput(f"{str(file)!r} is no IDX file: its first bytes are {content[:4].hex(' ') or 'missing'}")
    shape = [int(size) for size in np.frombuffer(content, ">u4", count, offset=4)]
    size, there = math.prod(shape) * np.dtype(kind).itemsize, len(content) - 4 - 4 * count
    if size != there:
        raise BadInput(f"{str(file)!r} says that it has shape {shape}, which takes {size:,} bytes, but has {there:,}")
    values = np.frombuffer(content, kind, offset=4 + 4 * count).reshape(shape)
    return values.astype(values.dtype.newbyteorder("="))


def _mapping(root: Path, prefix: str) -> dict[int | str, str] | None:
    """EMNIST's names of the classes: lines of a label and the code of its character; None where there are none."""
    path = root / f"{prefix}-mapping.txt"
    if not path.is_file() or path.stat().st_size > 2**16:
        return None
    try:
        rows = [line.split() for line in path.read_text("ascii").splitlines() if line.strip()]
        return {int(label): chr(int(code)) for label, code, *_ in rows}
    except (ValueError, OverflowError, OSError):
        return None
