"""Folders of small pictures by class, for tests."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from netdepth.config import Component
from netdepth.data import Splits, load

CLASSES = ("ant", "bee")


def put(path: Path, value: int, size: tuple[int, int] = (4, 4)) -> Path:
    """A grey picture of one ``value`` at ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, value).save(path, "JPEG" if path.suffix == ".jpg" else "PNG")
    return path


def make(root: Path, **parts: int) -> Path:
    """A folder with so many pictures of each class in each part; a picture's value tells which it is."""
    for start, (part, count) in enumerate(parts.items()):
        for label, name in enumerate(CLASSES):
            for index in range(count):
                put(root / part / name / f"{index:02}.png", 100 * label + 30 * start + index)
    return root


def splits_of(root: Path, **settings: object) -> Splits:
    return load(Component("image-folder", {"path": str(root), **settings}), data_dir=None)


def values(part: object) -> list[int]:
    """The value of every picture of a split, in order."""
    return [int(value) for value in part.inputs[:, 0, 0, 0]]
