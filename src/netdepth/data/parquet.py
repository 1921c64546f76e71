"""Image data sets of the Hugging Face Hub as they are stored: ``--dataset parquet:FILE`` or ``parquet:FOLDER``.

    FILE.parquet                                   not divided: validation and test are drawn by seed 0
    FOLDER/**/train-00000-of-00001.parquet         the parts are in the names of the files (or of their folders):
    FOLDER/**/validation-..., test-...             train, validation, test

A row is an encoded picture (bytes, or a struct with ``bytes``) and a label. Names of the classes come from the file's
own description of its features. Nothing is downloaded. It needs the package pyarrow (``netdepth[parquet]``).
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from netdepth.data.decode import Pictures, content_digest
from netdepth.data.fetch import own_source
from netdepth.data.own import Names, Targets, labels_of, memory_limit
from netdepth.data.pictures import Channels, Folder, Size, check_size, picture_splits
from netdepth.data.splits import DATASETS, Splits, TestSize, ValShare
from netdepth.errors import BadInput, choose

__all__ = ["PARQUET", "parquet"]

PARQUET = own_source(
    "parquet",
    "your own parquet files of encoded pictures and labels, as on the Hugging Face Hub",
    "parquet:FILE or parquet:FOLDER",
)

PARTS = {"train": "train", "validation": "val", "valid": "val", "val": "val", "dev": "val", "test": "test"}
LABELS = ("label", "labels", "class", "target", "fine_label")


@dataclass(frozen=True, eq=False)
class _Rows:
    """The rows of one part: the encoded pictures (by position), their labels, names of the classes if the file says."""

    count: int
    read: Callable[[int], bytes]
    labels: np.ndarray
    names: tuple[str, ...] | None


@DATASETS.register("parquet", added=("targets",), unhashed=("path",), package="pyarrow")
def parquet(
    data_dir: Path | None,
    *,
    path: Annotated[str, "FILE.parquet, or a folder of train-*.parquet, test-*.parquet: --dataset parquet:PATH"],
    image: Annotated[str | None, "the column of pictures; null: the one that holds bytes"] = None,
    label: Annotated[str | None, "the column of labels; null: the one with named classes, or label"] = None,
    size: Size = None,
    channels: Channels = 3,
    names: Names = None,
    val_size: ValShare = None,
    test_size: TestSize = None,
    targets: Targets = None,
) -> Splits:
    """Your own parquet files of encoded pictures, as on the Hugging Face Hub: --dataset parquet:FILE."""
    check_size(size)
    if importlib.util.find_spec("pyarrow") is None:
        raise BadInput("parquet files need the package pyarrow, which is not here: pip install 'netdepth[parquet]'")
    root = Path(os.path.expanduser(path))
    files, pooled = _files(root)
    rows = {part: _rows(paths, image, label) for part, paths in files.items()}
    given = {part: (one.labels, f"{part} of {path!r}") for part, one in rows.items()}
    told = _one(one.names for one in rows.values())
    known: Mapping[int | str, str] | None = None if told is None else dict(enumerate(told))
    classes, met, labels, note = labels_of(given, known if names is None else names, targets)
    parts = {part: _pictures(str(root), part, one, labels[part], classes) for part, one in rows.items()}
    contents = {part: one.content for part, one in parts.items()}
    return picture_splits(
        PARQUET.name, f"your own pictures, {root.name}", Folder(classes, parts, note, pooled, met), contents, size=size,
        channels=channels, val_size=val_size, test_size=test_size,
    )  # fmt: skip


def _pictures(place: str, part: str, rows: _Rows, labels: np.ndarray, classes: Sequence[str]) -> Pictures:
    """The rows as picture files. A name is the place in the part, and the class (or the values), as a folder's names
    have it: so the same pictures with other labels are other data."""
    said = [f"{label}: {classes[label]}" for label in labels] if classes else [str(met.tolist()) for met in labels]
    names = [f"{part}/{index:06} ({text})" for index, text in enumerate(said)]
    digests = [hashlib.sha256(rows.read(index)).hexdigest() for index in range(rows.count)]
    return Pictures(place, names, labels, content_digest(names, digests), rows.read)


def _files(root: Path) -> tuple[dict[str, list[Path]], bool]:
    """The files of every part, and whether it is a single file, which is not divided."""
    if root.is_file():
        return {"train": [root]}, True
    found: dict[str, list[Path]] = {}
    for path in sorted(root.rglob("*.parquet")) if root.is_dir() else ():
        words = [word for name in (path.stem, path.parent.name) for word in re.split(r"[^a-z]+", name.lower())]
        part = next((PARTS[word] for word in words if word in PARTS), None)
        if part is None:
            raise BadInput(f"{str(path)!r} says nowhere in its name whether it is train, validation or test data")
        found.setdefault(part, []).append(path)
    if "train" not in found:
        raise BadInput(f"{str(root)!r} holds no train-*.parquet; it takes FILE.parquet, or a folder of such files")
    return {part: found[part] for part in ("train", "val", "test") if part in found}, False


def _rows(paths: Sequence[Path], image: str | None, label: str | None) -> _Rows:
    """The rows of several files, one after another.

    Raises:
        BadInput: a damaged file, more than the memory takes, or columns that hold something else.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables: list[Any] = []
    total, described = 0, []
    for path in paths:
        try:
            with pq.ParquetFile(path) as file:
                groups = [file.metadata.row_group(index) for index in range(file.metadata.num_row_groups)]
                total += sum(max(0, group.total_byte_size) for group in groups)
                if total > memory_limit():
                    raise BadInput(f"it unpacks to {total:,} bytes; at most {memory_limit():,} fit here")
                schema = file.schema_arrow
                columns = [_image_column(schema, image), _label_column(schema, label)]
                tables.append(file.read(columns=columns).select(columns).rename_columns(["image", "label"]))
                described.append(_class_names(schema, columns[1]))
        except (pa.lib.ArrowException, OSError, ValueError, TypeError, MemoryError, BadInput) as reason:
            raise BadInput(f"{str(path)!r} is not acceptable: {' '.join(str(reason).split())[:300]}") from None
    try:
        table = pa.concat_tables(tables)
    except pa.lib.ArrowException:
        raise BadInput(f"the files beside {str(paths[0])!r} hold columns of different types") from None
    chunks = table.column("image").chunks  # they stay in Arrow's memory until a picture is read
    held = [cell for one in chunks for cell in (one.field("bytes") if hasattr(one, "field") else one)]
    labels = np.array(table.column("label").to_pylist())
    return _Rows(len(held), lambda index: held[index].as_py() or b"", labels, _one(described))


def _one(described: Iterable[tuple[str, ...] | None]) -> tuple[str, ...] | None:
    """The names of the classes, which are the same in every file that has some: a number would mean two classes."""
    known = {names for names in described if names is not None}
    if len(known) > 1:
        raise BadInput(
            "its files name the classes differently: " + "; ".join(", ".join(one[:5]) for one in sorted(known))
        )
    return next(iter(known), None)


def _image_column(schema: Any, image: str | None) -> str:
    import pyarrow as pa

    def holds_bytes(kind: Any) -> bool:
        inner = kind.field("bytes").type if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 else kind
        return bool(pa.types.is_binary(inner) or pa.types.is_large_binary(inner))

    able = [field.name for field in schema if holds_bytes(field.type)]
    if image is not None:
        return choose(image, able, "column of encoded pictures:")
    if len(able) != 1:
        raise BadInput(f"{len(able)} of its columns {', '.join(schema.names)} hold bytes; say --set dataset.image=NAME")
    return str(able[0])


def _label_column(schema: Any, label: str | None) -> str:
    if label is not None:
        return choose(label, schema.names, "column of labels:")
    named = [str(name) for name in schema.names if _class_names(schema, name) is not None]
    able = named or [name for name in LABELS if name in schema.names]
    if len(able) == 1 or "label" in able:
        return able[0] if len(able) == 1 else "label"
    found = "none" if not able else f"{len(able)} ({', '.join(able)})"
    raise BadInput(f"{found} of its columns {', '.join(schema.names)} may be the labels; say --set dataset.label=NAME")


def _class_names(schema: Any, column: str) -> tuple[str, ...] | None:
    """The names of the classes of a column, from the description that the library ``datasets`` writes."""
    try:
        about: Mapping[str, Any] = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][column]
        names = tuple(about["names"])
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    return names if names and all(isinstance(name, str) for name in names) else None
