"""The pictures that are explained: a run's validation images, or files that somebody names. Never test images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from netdepth import data
from netdepth.config import RunConfig, from_json
from netdepth.errors import BadInput, StorageError
from netdepth.files.pictures import read_picture
from netdepth.progress import CountProgress
from netdepth.runs.folder import RunDir
from netdepth.training.run import resolve

__all__ = ["Subjects", "given_pictures", "spread", "validation_pictures"]

SUFFIXES = (".jpg", ".jpeg", ".png")
MAX_GIVEN = 10_000
"""Files named by a person; all of them are held in memory."""


@dataclass(frozen=True)
class Subjects:
    """Pictures to explain: ``inputs`` uint8 ``[N, C, H, W]``, ``labels`` int64 ``[N]`` with -1 where none is known.

    ``names`` says which each is (a file, or a place in the validation part), ``source`` in plain values where
    they come from, ``kind`` in words. ``notes`` is what was done to them.
    """

    inputs: Tensor
    labels: Tensor
    names: Sequence[str]
    kind: str
    source: dict[str, Any]
    notes: Sequence[str] = ()

    @property
    def labelled(self) -> bool:
        return bool((self.labels >= 0).any())


def spread(indices: Sequence[int], count: int) -> list[int]:
    """At most ``count`` of ``indices``, evenly spread over them: always the same ones, and none picked by eye."""
    count = min(count, len(indices))
    return [indices[i * len(indices) // count] for i in range(count)]


def validation_pictures(run: RunDir, data_dir: Path | None, classes: Sequence[int], most: int) -> Subjects:
    """At most ``most`` validation images of ``run``'s ``classes``, evenly spread. The test part stays sealed.

    Raises:
        BadInput: the data here are others than those of the run, or hold no such validation image.
        StorageError: the data are not here.
    """
    saved, split = run.read_json("config.json") or {}, run.read_json("split.json") or {}
    names = {field.name for field in dataclasses.fields(RunConfig)}
    config = resolve(from_json(RunConfig, {key: value for key, value in saved.items() if key in names}))
    hint = "name pictures of your own with --images"
    try:
        splits = data.load(config.dataset, data_dir=data_dir)
    except StorageError as error:
        raise StorageError(f"explaining run {run.path.name} takes its validation images, or {hint}: {error}") from None
    for key, found in (("data_digest", splits.spec.data_digest), ("split_digest", splits.spec.split_digest)):
        if split.get(key) != found:
            raise BadInput(
                f"{config.dataset.name} here has another {key} than the data of run {run.path.name}; "
                f"give those with --data, or {hint}"
            )
    places = torch.isin(splits.val.labels, torch.tensor(classes)).nonzero()[:, 0].tolist()
    if not places:
        raise BadInput(f"run {run.path.name} has no validation images of these classes; {hint}")
    chosen = spread(places, most)
    source = {"part": "val", "dataset": splits.spec.name, "split_digest": splits.spec.split_digest}
    return Subjects(
        inputs=splits.val.inputs[chosen],
        labels=splits.val.labels[chosen],
        names=[f"val {place}" for place in chosen],
        kind="validation images",
        source=source,
    )


def given_pictures(
    paths: Sequence[Path],
    shape: tuple[int, int, int],
    classes: Sequence[str],
    *,
    only: Sequence[int] | None = None,
    invert: bool = False,
) -> Subjects:
    """Picture files, and the pictures in folders, turned to ``shape`` (C, H, W) as ``image-folder`` turns its own.

    A picture that lies in a folder called as one of ``classes`` has that class; others have none. With ``only``
    the pictures of other classes than these are left out.

    Raises:
        BadInput: a file that is not there or no picture, a folder without any, too many files, none of ``only``.
    """
    known = {name: index for index, name in enumerate(classes)}
    files = [file for path in paths for file in (_pictures_below(path) if path.is_dir() else [path])]
    found = [known.get(file.absolute().parent.name, -1) for file in files]
    if only is not None:
        files = [file for file, label in zip(files, found, strict=True) if label in only]
        found = [label for label in found if label in only]
        if not files:
            names = ", ".join(classes[label] for label in only)
            raise BadInput(f"none of the --images lies in a folder called as one of the --classes: {names}")
    if len(files) > MAX_GIVEN:
        raise BadInput(f"--images names {len(files):,} pictures; at most {MAX_GIVEN:,} are taken")
    pixels, notes = [], []
    with CountProgress("reading pictures", len(files)) as report:
        for file in files:
            array, note = read_picture(file, shape)
            pixels.append(torch.tensor(255 - array if invert else array))
            notes += [] if note is None else [f"{file}: {note}"]
            report.add(1)
    return Subjects(
        inputs=torch.stack(pixels),
        labels=torch.tensor(found),
        names=[str(file) for file in files],
        kind="picture" if len(files) == 1 else "pictures",
        source={"files": [str(file) for file in files]},
        notes=notes,
    )


def _pictures_below(folder: Path) -> list[Path]:
    """The pictures in ``folder`` and in its folders, sorted, without names that begin with a dot."""
    try:
        found = sorted(p for pattern in ("*", "*/*") for p in folder.glob(pattern) if p.suffix.lower() in SUFFIXES)
    except OSError as error:
        raise BadInput(f"cannot read {str(folder)!r}: {error.strerror or error}") from None
    found = [path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    if not found:
        raise BadInput(f"folder {str(folder)!r} holds no picture ({', '.join(SUFFIXES)}), nor do its folders")
    return found
