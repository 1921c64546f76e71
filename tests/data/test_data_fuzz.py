"""Mutated IDX and gzip files: refused in one line, in bounded memory, and never touched.

A tiny data set of the same four files stands for MNIST. In half of the cases the table of
digests is that of the mutated content, so that the parsers behind the digests meet it too.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import random
import subprocess
import sys
import textwrap
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from netdepth.data import Splits
from netdepth.data.fetch import OfficialFile, Source
from netdepth.data.mnist import TEST_IMAGES, TEST_LABELS, TRAIN_IMAGES, TRAIN_LABELS, idx_splits
from netdepth.errors import BadInput, StorageError

NAMES = (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS)
CLASSES = ("zero", "one", "two", "three")
CASES = 500


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
    splits = idx_splits(what, CLASSES, folder, val_size=8)
    assert splits.test is not None
    test = splits.test.open_test("fuzz")
    for part in (splits.train, splits.val, test):
        assert part.inputs.shape[2:] == splits.spec.input_shape[1:]
        assert len(part.inputs) == len(part.labels)
        assert part.labels.max() < len(CLASSES)
    return splits


# --- the mutations: bytes of one file in, other bytes out --------------------------------------


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


def magic(data: bytes, rng: random.Random) -> bytes:
    return (
        rng.choice((bytes([0, 0, rng.choice((9, 11, 13)), 3]), bytes([0, 0, 8, rng.randrange(256)]), b"\x1f\x8b\x08\0"))
        + data[4:]
    )


def count(data: bytes, rng: random.Random) -> bytes:
    wrong = rng.choice((0, 1, 7, 2**31, 2**32 - 1, rng.randrange(2**32)))
    at = rng.choice(range(4, 4 + 4 * data[3], 4))
    return data[:at] + wrong.to_bytes(4, "big") + data[at + 4 :]


def label(data: bytes, rng: random.Random) -> bytes:
    return data[:-1] + bytes([rng.randrange(len(CLASSES), 256)])


def noise(data: bytes, rng: random.Random) -> bytes:
    return rng.randbytes(rng.randrange(200))


def other(data: bytes, rng: random.Random) -> bytes:
    return rng.choice([content for content in CONTENTS.values() if content != data])


Mutation = Callable[[bytes, random.Random], bytes]
INSIDE: tuple[Mutation, ...] = (flip_bits, truncate, append, cut_out, magic, count, label, noise, other)
OUTSIDE: tuple[Mutation, ...] = (flip_bits, truncate, append, cut_out, noise)


def mutated_case(folder: Path, case: int, rng: random.Random) -> str:
    """One file of the four is mutated and all are loaded; what became of it. Raises where that is not right."""
    name = rng.choice(NAMES)
    where = ("plain", "inside", "outside", "resigned", "resigned")[case % 5]
    contents = dict(CONTENTS)
    mutation = rng.choice(OUTSIDE if where == "outside" else INSIDE)
    changed = mutation(contents[name], rng) if where != "outside" else contents[name]
    if where == "resigned":
        contents[name] = changed
    files = {key: gzip.compress(value, mtime=0) for key, value in CONTENTS.items()}
    files[name] = gzip.compress(changed, mtime=0)
    if where == "outside":
        files[name] = mutation(files[name], rng)
    if where == "plain":
        files[name] = changed
    put(folder, files)
    told = f"case {case}: {mutation.__name__} {where} of {name}"
    try:
        splits = load(folder, source(contents))
    except (BadInput, StorageError) as error:
        line = str(error)
        assert "\n" not in line, told
        assert line.isprintable(), told
        assert name.partition("-")[0] in line, told
        outcome = f"{where} refused"
    else:
        # Harmless: bits of the gzip header that say nothing of the content, or pixels the table agrees with.
        assert where in ("outside", "resigned"), told
        assert splits.spec.files == {key: hashlib.sha256(contents[key]).hexdigest() for key in NAMES}, told
        outcome = f"{where} loaded"
    for key, value in files.items():
        assert (folder / "tiny" / key).read_bytes() == value, told
    assert sorted(os.listdir(folder / "tiny")) == sorted(NAMES), told
    return outcome


def test_500_mutated_files_are_refused_in_one_line_or_hold_the_official_content(tmp_path: Path) -> None:
    rng = random.Random(20)
    outcomes = Counter(mutated_case(tmp_path / str(case), case, rng) for case in range(CASES))
    assert sum(outcomes.values()) == CASES
    assert outcomes["plain refused"] == outcomes["inside refused"] == CASES // 5
    assert outcomes["outside refused"] > CASES // 10
    assert outcomes["resigned refused"] > CASES // 5
    assert outcomes["resigned loaded"] > 0


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
        assert load(tmp_path, source(CONTENTS)).spec.sizes == {"train": 32, "val": 8, "test": 12}
        return
    with pytest.raises((BadInput, StorageError), match=good) as caught:
        load(tmp_path, source(CONTENTS))
    assert "\n" not in str(caught.value)


def test_swapped_files_are_refused(tmp_path: Path) -> None:
    files = {name: gzip.compress(data) for name, data in CONTENTS.items()}
    files[TRAIN_IMAGES], files[TEST_IMAGES] = files[TEST_IMAGES], files[TRAIN_IMAGES]
    put(tmp_path, files)
    with pytest.raises(BadInput, match=r"is not tiny/train-images.*found sha256 .*shape \[12, 6, 5\]; expected sha256"):
        load(tmp_path, source(CONTENTS))


# --- bounded memory ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bomb", "long gzip", "long plain"])
def test_what_is_too_long_costs_no_more_than_what_was_expected(kind: str, tmp_path: Path) -> None:
    """The bomb, 30 kB, is stopped while it unpacks; the long files, with a hole of 500 MB, before."""
    start = {"bomb": gzip.compress(bytes(30_000_000), 9), "long gzip": b"\x1f\x8b\x08", "long plain": b"\0\0\x08"}
    put(tmp_path, dict.fromkeys(NAMES, start[kind]))
    if kind != "bomb":
        os.truncate(tmp_path / "tiny" / NAMES[0], 500_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(BadInput, match=r"holds more than the \d+ bytes expected"):
            load(tmp_path, source(CONTENTS))
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_a_bomb_in_the_place_of_mnist_stays_under_a_gigabyte(tmp_path: Path) -> None:
    """A process of its own may not grow by more: 4 GB of zeros named as MNIST's training images."""
    code = """
        import resource, sys, zlib
        from pathlib import Path
        import netdepth.data as data
        from netdepth.config import Component
        from netdepth.errors import BadInput
        folder = Path(sys.argv[1]) / "mnist"
        folder.mkdir()
        packer, zeros = zlib.compressobj(9, zlib.DEFLATED, 31), bytes(1 << 20)
        head = packer.compress(zeros * 4) + packer.flush(zlib.Z_FULL_FLUSH)
        block = packer.compress(zeros * 16) + packer.flush(zlib.Z_FULL_FLUSH)
        with open(folder / "train-images-idx3-ubyte.gz", "wb") as handle:
            handle.write(head + block * 256)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            data.load(Component("mnist"), data_dir=Path(sys.argv[1]))
        except BadInput as error:
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    grown, _, line = done.stdout.partition(" ")
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(grown) * unit < 400_000_000
    assert "holds more than the 47040016 bytes expected" in line
