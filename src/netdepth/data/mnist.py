"""MNIST and Fashion-MNIST: four IDX files each, which differ in their content alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from netdepth.config import digest
from netdepth.data.fetch import OfficialFile, Source, obtain, publish
from netdepth.data.splits import DATASETS, Classes, Split, Splits, ValSize, divide, set_aside, with_classes

__all__ = ["FASHION_MNIST", "MNIST", "fashion_mnist", "idx_splits", "mnist"]

TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"
SIZES = {"train": 55_000, "val": 5_000, "test": 10_000}

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
    """Four IDX files as `Splits`: validation is drawn from the training file, test stays unparsed until opened.

    Raises:
        BadInput: ``val_size`` out of range, or a file that is not the official one.
        StorageError: a file is missing (loading never downloads), or cannot be read.
    """
    contents = obtain(source, data_dir)
    images, labels = _array(contents[TRAIN_IMAGES])[:, None], _array(contents[TRAIN_LABELS]).astype(np.int64)
    train, val = set_aside(labels, val_size)
    # The bytes of the test files are kept, not their paths: files can vanish while a network trains.
    test_images, test_labels = contents[TEST_IMAGES], contents[TEST_LABELS]

    def open_test() -> Split:
        pixels, marks = _array(test_images)[:, None], _array(test_labels).astype(np.int64)
        return Split(torch.from_numpy(pixels.copy()), torch.from_numpy(marks))

    test = np.arange(len(test_labels) - 8)  # one byte a label after a header of eight; known without parsing
    files = {file.name: file.sha256 for file in source.files}
    return divide(
        source, classes, images, labels, (train, val, test), open_test, files=files, data_digest=digest(files)
    )


def _array(content: bytes) -> np.ndarray:
    """The array in an IDX file, whose sha256 was checked: two zero bytes, the type (8: unsigned bytes), the number
    of dimensions, each dimension in four bytes, then the values."""
    count = content[3]
    shape = np.frombuffer(content, ">u4", count, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * count).reshape(shape)
