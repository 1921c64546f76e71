"""Mutated IDX and gzip files: refused in one line, in bounded memory, and never touched.

A tiny data set of the same four files stands for MNIST.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import random
from pathlib import Path

import numpy as np
import pytest

from netdepth.data import Splits
from netdepth.data.fetch import OfficialFile, Source
from netdepth.data.mnist import TEST_IMAGES, TEST_LABELS, TRAIN_IMAGES, TRAIN_LABELS, idx_splits
from netdepth.data.splits import stratified_choice
from netdepth.errors import BadInput, StorageError

NAMES = (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS)
CLASSES = ("zero", "one", "two", "three")


def idx(array: np.ndarray, type_code: int = 8) -> bytes:
    """``array`` as an IDX file."""
    dims = b"".join(length.to_bytes(4, "big") for length in array.shape)
    return bytes([0, 0, type_code, array.ndim]) + dims + array.astype(np.uint8).tobytes()


def tiny() -> dict[str, bytes]:
    """Four small IDX files: 40 images to train on, 12 to test, 6 × 5 pixels."""
    generator = np.random.default_rng(0)
    contents = {}
    for images, labels, count in ((TRAIN_IMAGES, TRAIN_LABELS, 40), (TEST_IMAGES, TEST_LABELS, 12)):
        contents[images] = idx(generator.integers(0, 256, (count, 6, 5)))
        contents[labels] = idx(np.arange(count) % len(CLASSES))
    return contents


CONTENTS = tiny()


def source(contents: dict[str, bytes]) -> Source:
    files = tuple(OfficialFile(name, hashlib.sha256(contents[name]).hexdigest(), len(contents[name])) for name in NAMES)
    return Source("tiny", "", {}, "", "", files)


def put(folder: Path, files: dict[str, bytes]) -> None:
    (folder / "tiny").mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / "tiny" / name).write_bytes(data)


def load(folder: Path, what: Source) -> Splits:
    return idx_splits(what, CLASSES, folder, val_size=8)


def assert_official(splits: Splits) -> None:
    """The three parts hold `CONTENTS`."""
    images = np.frombuffer(CONTENTS[TRAIN_IMAGES], np.uint8, offset=16).reshape(40, 1, 6, 5)
    labels = np.arange(40) % len(CLASSES)
    chosen = stratified_choice(labels, 8)
    rest = np.setdiff1d(np.arange(40), chosen)
    for split, part in ((splits.train, rest), (splits.val, chosen)):
        assert np.array_equal(split.inputs.numpy(), images[part])
        assert split.labels.tolist() == labels[part].tolist()
    assert splits.test is not None
    test = splits.test.open_test("fuzz")
    assert test.inputs.shape == (12, 1, 6, 5)
    assert test.inputs.numpy().tobytes() == CONTENTS[TEST_IMAGES][16:]
    assert test.labels.tolist() == [0, 1, 2, 3] * 3


def flip_bits(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def truncate(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def append(data: bytes, rng: random.Random) -> bytes:
    return data + rng.choice((b"\0", rng.randbytes(rng.randrange(1, 40)), data))


def cut_out(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    return data[:start] + data[start + rng.randrange(1, 9) :]


def noise(data: bytes, rng: random.Random) -> bytes:
    return rng.randbytes(rng.randrange(200))


def other(data: bytes, rng: random.Random) -> bytes:
    return rng.choice([content for content in CONTENTS.values() if content != data])


OUTSIDE = (flip_bits, truncate, append, cut_out, noise)


def mutated_case(folder: Path, case: int, rng: random.Random) -> str:
    """One file of the four is mutated and all are loaded; the outcome. Raises where that is not right."""
    name = rng.choice(NAMES)
    where = ("plain", "inside", "outside")[case % 3]
    files = {key: gzip.compress(value, mtime=0) for key, value in CONTENTS.items()}
    if where == "outside":
        mutation = rng.choice(OUTSIDE)
        files[name] = mutation(files[name], rng)
    else:
        mutation = rng.choice((*OUTSIDE, other))
        changed = mutation(CONTENTS[name], rng)
        files[name] = changed if where == "plain" else gzip.compress(changed, mtime=0)
    put(folder, files)
    told = f"case {case}: {mutation.__name__} {where} of {name}"
    try:
        splits = load(folder, source(CONTENTS))
    except (BadInput, StorageError) as error:
        line = str(error)
        assert "\n" not in line, told
        assert line.isprintable(), told
        assert name.partition("-")[0] in line, told
        outcome = f"{where} refused"
    else:
        # Harmless: bits of the gzip header that say nothing of the content.
        assert where == "outside", told
        assert_official(splits)
        outcome = f"{where} loaded"
    for key, value in files.items():
        assert (folder / "tiny" / key).read_bytes() == value, told
    assert sorted(os.listdir(folder / "tiny")) == sorted(NAMES), told
    return outcome


@pytest.mark.parametrize("make", ["folder", "broken link", "pipe", "circle", "missing", "link"])
def test_what_is_no_plain_file(make: str, tmp_path: Path) -> None:
    put(tmp_path, {name: gzip.compress(data) for name, data in CONTENTS.items()})
    path = tmp_path / "tiny" / TRAIN_LABELS
    path.rename(tmp_path / "elsewhere")
    good = r"is not tiny/train-labels-idx1-ubyte\.gz: it is"
    if make == "folder":
        path.mkdir()
    elif make == "broken link":
        path.symlink_to("nowhere")
    elif make == "pipe":
        os.mkfifo(path)
    elif make == "circle":
        path.symlink_to(path)
        good = "cannot read"
    elif make == "missing":
        good = r"tiny/train-labels-idx1-ubyte\.gz is not on this machine"
    elif make == "link":
        path.symlink_to(tmp_path / "elsewhere")
        assert_official(load(tmp_path, source(CONTENTS)))
        return
    with pytest.raises((BadInput, StorageError), match=good) as caught:
        load(tmp_path, source(CONTENTS))
    assert "\n" not in str(caught.value)
