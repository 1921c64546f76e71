"""MNIST and Fashion-MNIST: four IDX files each, alike in everything but content."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch

from netdepth.config import digest
from netdepth.data.fetch import OfficialFile, Source, obtain, publish
from netdepth.data.idx import parse_images, parse_labels
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

__all__ = ["FASHION_MNIST", "MNIST", "fashion_mnist", "idx_splits", "mnist"]

TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"
SIZES = {"train": 55_000, "val": 5_000, "test": 10_000}

ValSize = Annotated[int, "training images set aside for validation, drawn with equal class shares"]

MNIST = publish(
    Source(
        name="mnist",
        title="MNIST: handwritten digits, 28 × 28, grey",
        sizes=SIZES,
        licence="CC BY-SA 3.0",
        origin="http://yann.lecun.com/exdb/mnist/",
        files=(
            OfficialFile(TRAIN_IMAGES, "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db", 47_040_016),
            OfficialFile(TRAIN_LABELS, "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5", 60_008),
            OfficialFile(TEST_IMAGES, "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7", 7_840_016),
            OfficialFile(TEST_LABELS, "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2", 10_008),
        ),
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist",
            "https://storage.googleapis.com/cvdf-datasets/mnist",
            "https://azureopendatastorage.blob.core.windows.net/mnist",
            "http://yann.lecun.com/exdb/mnist",
        ),
    )
)

FASHION_MNIST = publish(
    Source(
        name="fashion-mnist",
        title="Fashion-MNIST: articles of clothing, 28 × 28, grey",
        sizes=SIZES,
        licence="MIT",
        origin="https://github.com/zalandoresearch/fashion-mnist",
        files=(
            OfficialFile(TRAIN_IMAGES, "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888", 47_040_016),
            OfficialFile(TRAIN_LABELS, "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9", 60_008),
            OfficialFile(TEST_IMAGES, "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b", 7_840_016),
            OfficialFile(TEST_LABELS, "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34", 10_008),
        ),
        mirrors=(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
            "https://storage.googleapis.com/tensorflow/tf-keras-datasets",
        ),
    )
)

DIGITS = tuple("0123456789")
ARTICLES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip


@DATASETS.register("mnist", added=("classes",))
def mnist(data_dir: Path | None, *, val_size: ValSize = SIZES["val"], classes: Classes = None) -> Splits:
    """MNIST: 70,000 handwritten digits (LeCun, Cortes and Burges 1998)."""
    return with_classes(idx_splits(MNIST, DIGITS, data_dir, val_size), classes)


@DATASETS.register("fashion-mnist", added=("classes",))
def fashion_mnist(data_dir: Path | None, *, val_size: ValSize = SIZES["val"], classes: Classes = None) -> Splits:
    """Fashion-MNIST: 70,000 articles of clothing (Xiao, Rasul and Vollgraf 2017)."""
    return with_classes(idx_splits(FASHION_MNIST, ARTICLES, data_dir, val_size), classes)


def idx_splits(source: Source, classes: tuple[str, ...], data_dir: Path | None, val_size: int) -> Splits:
    """Four IDX files as `Splits`: validation comes out of the training file, test stays unparsed until opened.

    Raises:
        BadInput: ``val_size`` out of range, or a file that is not what its name says.
        StorageError: a file is missing (loading never downloads), or cannot be read.
    """
    contents = obtain(source, data_dir, download=False)
    images, labels = _parse(source, contents, TRAIN_IMAGES, TRAIN_LABELS, len(classes))
    chosen = stratified_choice(labels, val_size)
    rest = np.setdiff1d(np.arange(len(labels)), chosen, assume_unique=True)
    # The bytes of the test files are kept, not their paths: files can vanish while a network trains.
    sealed = {name: contents[name] for name in (TEST_IMAGES, TEST_LABELS)}
    test_size = len(contents[TEST_LABELS]) - 8  # one byte a label after a header of eight; known without parsing

    def open_test() -> Split:
        test_images, test_labels = _parse(source, sealed, TEST_IMAGES, TEST_LABELS, len(classes))
        return Split(torch.from_numpy(test_images.copy()), torch.from_numpy(test_labels))

    files = {file.name: file.sha256 for file in source.files}
    channels, height, width = images.shape[1:]
    spec = DatasetSpec(
        name=source.name,
        title=source.title,
        input_shape=(channels, height, width),
        classes=classes,
        sizes={"train": len(rest), "val": len(chosen), "test": test_size},
        files=files,
        data_digest=digest(files),
        split_digest=array_digest(rest, chosen, np.arange(test_size)),
    )
    train, val = (Split(torch.from_numpy(images[part]), torch.from_numpy(labels[part])) for part in (rest, chosen))
    return Splits(spec, train, val, SealedTest(open_test, test_size))


def _parse(
    source: Source, contents: dict[str, bytes], images_name: str, labels_name: str, classes: int
) -> tuple[np.ndarray, np.ndarray]:
    name = images_name
    try:
        images = parse_images(contents[images_name])
        name = labels_name
        return images, parse_labels(contents[labels_name], len(images), classes)
    except BadInput as reason:
        raise BadInput(f"{source.name}/{name} is not acceptable: {reason}") from None
