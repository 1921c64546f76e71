"""A table of pixels, as on Kaggle: ``--dataset csv:FILE.csv``.

    label,pixel0,pixel1,...        one picture per line; the label may be a number or a text
    5,0,0,...
    0.25,0,0,...                   or, for an objective that learns values, any number

One file is not divided: validation and test are drawn by seed 0, unless ``dataset.test`` names another table.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
import warnings
from collections import Counter
from pathlib import Path
from typing import Annotated

import numpy as np

from netdepth.data.fetch import own_source
from netdepth.data.own import Examples, Layout, Names, Targets, Values, array_splits, few, read_file
from netdepth.data.splits import DATASETS, Splits, TestSize, ValShare
from netdepth.errors import BadInput

__all__ = ["CSV", "csv_table"]

CSV = own_source("csv", "your own table: a label and the pixels of a picture per line", "csv:FILE.csv")

LABELS = ("label", "class", "target", "y")
"""What the column of labels is called, in small letters."""

NUMBER = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*")


@DATASETS.register("csv", added=("targets",), unhashed=("path", "test"))
def csv_table(
    data_dir: Path | None,
    *,
    path: Annotated[str, "FILE.csv or FILE.csv.gz, a label and pixels per line: --dataset csv:FILE.csv"],
    test: Annotated[str | None, "a table of test pictures, beside the first or an absolute path; null: drawn"] = None,
    label: Annotated[
        str | int | list[str] | None,
        "the column of labels: its name or place (0: first, -1: last); of several values a list of names; null: label, "
        "class, target, y",
    ] = None,
    drop: Annotated[list[str] | None, "columns that are no pixels, such as id"] = None,
    values: Values = None,
    layout: Layout = None,
    names: Names = None,
    val_size: ValShare = None,
    test_size: TestSize = None,
    targets: Targets = None,
) -> Splits:
    """Your own table of pixels with a column of labels: --dataset csv:FILE.csv."""
    file = Path(os.path.expanduser(path))
    parts, files = {}, {}
    columns: list[str] | None = None
    for part, place in {"train": file, **({} if test is None else {"test": file.parent / test})}.items():
        content, files[place.name] = read_file(place, "FILE.csv")
        parts[part], columns = _table(content, repr(place.name), label, drop or [])
    if targets == "values" and names is None:
        names = columns
    return array_splits(
        CSV, f"your own table, {file.name}", parts, files, values=values, layout=layout, names=names,
        val_size=val_size, test_size=test_size, pooled=test is None, targets=targets,
    )  # fmt: skip


def _table(
    content: bytes, name: str, label: str | int | list[str] | None, drop: list[str]
) -> tuple[Examples, list[str] | None]:
    """Pixels ``[N, columns]`` and labels of a table, ``[N]``, or ``[N, K]`` of several columns; and the names of these
    columns, where they have names.

    Raises:
        BadInput: not a table of numbers, or a column of labels that cannot be told.
    """
    import pandas

    head = content[: 2**20].decode("utf-8-sig", "replace").split("\n", 1)[0]
    separator = max(",;\t", key=head.count)
    cells = [cell.strip().strip('"') for cell in head.rstrip("\r").split(separator)]
    headed = not all(NUMBER.fullmatch(cell) for cell in cells[1:-1] or cells)
    columns = cells if headed else [str(index) for index in range(len(cells))]
    wanted = label if isinstance(label, list) else [label]
    chosen = [columns[_label_column(columns, one, name, headed)] for one in wanted]
    if not chosen or len(set(chosen)) < len(chosen):
        raise BadInput(f"dataset.label = {label!r} is not acceptable; it takes one name or more, each once")
    for column in drop:
        if column not in columns:
            raise BadInput(f"dataset.drop names {column!r}, but {name} has the columns {few(columns)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # such as of lines that are longer than the first
            frame = pandas.read_csv(
            io.BytesIO(content), sep=separator, header=0 if headed else None, names=columns,
            dtype=dict.fromkeys(chosen, str), keep_default_na=False, na_values={one: [""] for one in columns},
            encoding="utf-8-sig", index_col=False, low_memory=False,
        )  # fmt: skip
    except (ValueError, OverflowError, UnicodeError, MemoryError, Warning) as reason:
        raise BadInput(f"{name} is no table: {' '.join(str(reason).split())[:200]}") from None
    labels = frame[chosen]
    frame = frame.drop(columns=[*chosen, *drop])
    if headed:
        _check_pixels(list(frame.columns), name)
    if not len(frame) or not len(frame.columns):
        raise BadInput(f"{name} has {len(frame):,} lines with {len(frame.columns)} pixels; it takes a picture per line")
    for column, kind in frame.dtypes.items():
        if kind.kind not in "biuf":
            raise BadInput(
                f"column {column!r} of {name} holds more than numbers; say --set 'dataset.drop=[\"{column}\"]'"
            )
    for held, what in ((labels, "a label"), (frame, "a pixel")):
        empty = held.isna().to_numpy()
        if empty.any():
            line = int(np.flatnonzero(empty.any(axis=1))[0]) + 1 + headed
            raise BadInput(f"line {line} of {name} lacks {what}")
    texts = labels.apply(lambda column: column.str.strip()).to_numpy(dtype=str)
    labelled = Examples(frame.to_numpy(), texts if isinstance(label, list) else texts[:, 0], name)
    return labelled, chosen if headed else None


def _check_pixels(columns: list[str], name: str) -> None:
    """Refuses numbered columns in another order than that of their numbers, as sorting by name makes them (pixel1,
    pixel10, pixel2): pixels are read by place, and the picture would be scrambled without a word. Names a column beside
    them that leaves no square."""
    stems = [re.sub("[0-9]{1,9}", "#", column) for column in columns]
    usual, count = Counter(stems).most_common(1)[0] if columns else ("", 0)
    numbered = [column for column, stem in zip(columns, stems, strict=True) if stem == usual]
    places = [tuple(map(int, re.findall("[0-9]{1,9}", column))) for column in numbered]
    if count > len(columns) / 2 and places != sorted(places):
        raise BadInput(
            f"the pixels of {name} are not in the order of their numbers ({few(numbered)}); "
            "they are read by place, so bring the columns into order"
        )
    others = [column for column in columns if column not in numbered]
    if 0 < len(others) < 7 and _is_square(count) and not _is_square(len(columns)):
        raise BadInput(
            f"{name} has {', '.join(map(repr, others))} beside its {count:,} pixels ({few(numbered)}); say --set "
            f"'dataset.drop={json.dumps(others, ensure_ascii=False)}'"
        )


def _is_square(pixels: int) -> bool:
    return any(planes * math.isqrt(pixels // planes) ** 2 == pixels for planes in (1, 3))


def _label_column(columns: list[str], label: str | int | None, name: str, headed: bool) -> int:
    """The place of the column of labels."""
    if len(set(columns)) < len(columns):
        raise BadInput(f"{name} has two columns of the same name among {few(columns)}")
    if isinstance(label, int):
        if not -len(columns) <= label < len(columns):
            raise BadInput(f"dataset.label = {label}, but {name} has {len(columns)} columns")
        return label
    found = [place for place, one in enumerate(columns) if one == label or (label is None and one.lower() in LABELS)]
    if len(found) == 1:
        return found[0]
    known = f"has the columns {few(columns)}" if headed else f"has {len(columns)} columns without names"
    raise BadInput(
        f"{name} {known}; say which one holds the labels: --set dataset.label=NAME, or its place: 0 (first), -1 (last)"
    )
