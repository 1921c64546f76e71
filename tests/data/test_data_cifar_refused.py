"""Archives in the place of CIFAR's that are others, damaged or made up: refused in one line that says what."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.cifar_archives import (
    ARCHIVES,
    FILE,
    FORMS,
    SHAPES,
    Batch,
    World,
    batch_dictionary,
    batches,
    binary_rows,
    entry,
    files_of,
    make_world,
    packed,
    python2_pickle,
    tar,
)

from netdepth.data import cifar


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return make_world(tmp_path / "data", monkeypatch)


# --- archives that are not the official ones ---------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("other", [("cifar10", "binary"), ("cifar10", "python"), ("cifar100", "binary")])
def test_another_known_archive_under_this_name_is_recognised(other: tuple[str, str], form: str, world: World) -> None:
    name = "cifar100" if other[0] == "cifar10" else "cifar10"
    world.put(name, form, ARCHIVES[other])
    line = world.refused(name)
    assert f"is not {name}/{FILE[name, form]}: found sha256" in line
    assert f"which is the content of {other[0]}/{FILE[other]}; expected sha256" in line


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (packed(tar([entry("photos/cat.jpg", b"x")])), r"an archive of \d+ bytes that begins with 'photos/cat.jpg'"),
        (packed(tar([])), r"an archive of \d+ bytes without files"),
        (packed(tar([entry("../x", b"x")])), r"no tar archive: its entry '../x' leads out"),
        (b"<html>please log in</html>", "26 bytes and no tar archive"),
        (b"", "0 bytes and no tar archive"),
        (gzip.compress(b"\0\0\x08\x01\0\0\0\x01x", mtime=0), "no tar archive"),
        (ARCHIVES["cifar10", "binary"][:5000], r"an archive of 5000 bytes that begins with 'cifar-10-b"),
        (ARCHIVES["cifar10", "binary"][:100], "100 bytes and no tar archive: its gzip stream is truncated"),
        (gzip.decompress(ARCHIVES["cifar10", "binary"]), r"an archive of \d+ bytes that begins with 'cifar-10-b"),
        (ARCHIVES["cifar10", "binary"] + b"\0", r"an archive of \d+ bytes that begins with 'cifar-10-batches-bin/"),
    ],
)
def test_what_is_no_official_archive_is_told_before_anything_is_read(data: bytes, what: str, world: World) -> None:
    path = world.put("cifar10", "binary", data)
    line = world.refused("cifar10")
    assert re.search(what, line), line
    assert "expected sha256 " + cifar.CIFAR10.files[0].sha256[:12] + " (of the archive as it is)" in line
    assert path.read_bytes() == data


def test_a_flipped_bit_anywhere_is_noticed(world: World) -> None:
    good = ARCHIVES["cifar10", "python"]
    for at in range(0, len(good), len(good) // 20):
        world.put("cifar10", "python", good[:at] + bytes([good[at] ^ 4]) + good[at + 1 :])
        assert "found sha256" in world.refused("cifar10")


# --- official by digest, and yet not acceptable ------------------------------------------------


def broken(name: str, form: str, change: Callable[[Batch, dict[str, Any]], Any]) -> dict[str, bytes]:
    """The files of an archive with ``change`` made to its first batch: it returns bytes, or a dictionary to pickle."""
    files, key = files_of(name, form), SHAPES[name].train[0]
    batch = batches(name)[key]
    made = change(batch, batch_dictionary(batch, key))
    path = next(path for path in files if path.rpartition("/")[2].removesuffix(".bin") == key)
    return {**files, path: made if isinstance(made, bytes) else python2_pickle(made)}


def without(dictionary: dict[str, Any], key: str) -> dict[str, Any]:
    return {k: v for k, v in dictionary.items() if k != key}


CHANGES: list[tuple[str, Callable[[Batch, dict[str, Any]], Any], str]] = [
    ("binary", lambda b, d: binary_rows(b)[:-1], r"data_batch_1\.bin .*61459 bytes, which are not rows of 3073"),
    ("binary", lambda b, d: b"", r"it has 0 bytes"),
    ("binary", lambda b, d: binary_rows(b)[:-3073], r"99 pictures, expected 100"),
    ("binary", lambda b, d: binary_rows(b) * 2, r"120 pictures, expected 100"),
    ("binary", lambda b, d: b"\x0a" + binary_rows(b)[1:], r"data_batch_1\.bin .*it holds label 10; labels are 0 to 9"),
    ("python", lambda b, d: without(d, "data"), r"data_batch_1 is not acceptable: its 'data' are not rows of 3072"),
    ("python", lambda b, d: d | {"data": b.images[:, :-1].copy()}, r"its 'data' are not rows of 3072 bytes"),
    ("python", lambda b, d: d | {"data": b.images.tobytes()}, r"its 'data' are not rows of 3072 bytes"),
    ("python", lambda b, d: d | {"data": b.images[:4].astype(np.float32)}, r"calls 'numpy.dtype' with other"),
    ("python", lambda b, d: without(d, "labels"), r"its 'labels' are not 20 small numbers"),
    ("python", lambda b, d: d | {"labels": [1] * 19}, r"its 'labels' are not 20 small numbers"),
    ("python", lambda b, d: d | {"labels": 20}, r"its 'labels' are not 20 small numbers"),
    ("python", lambda b, d: d | {"labels": [300] * 20}, r"its 'labels' are not 20 small numbers"),
    ("python", lambda b, d: d | {"labels": [-1] * 20}, r"its 'labels' are not 20 small numbers"),
    ("python", lambda b, d: d | {"labels": ["a"] * 20}, r"its 'labels' are not 20 small numbers"),
    ("python", lambda b, d: d | {"labels": [10] * 20}, r"it holds label 10; labels are 0 to 9"),
    ("python", lambda b, d: [1], r"it holds a list, not a dictionary"),
    ("python", lambda b, d: b"cos\nsystem\n(S'true'\ntR.", r"it asks for 'os.system'; only an array of bytes is read"),
]


@pytest.mark.parametrize(("form", "change", "reason"), CHANGES)
def test_a_batch_that_is_none_is_named(form: str, change: Callable[..., Any], reason: str, world: World) -> None:
    world.changed("cifar10", form, broken("cifar10", form, change))
    line = world.refused("cifar10")
    assert line.startswith("cifar10/data_batch_1"), line
    assert re.search(reason, line), line


def test_labels_of_a_hundred_classes_are_checked_kind_by_kind(world: World) -> None:
    world.changed("cifar100", "binary", broken("cifar100", "binary", lambda b, d: b"\x14" + binary_rows(b)[1:]))
    assert "cifar100/train.bin is not acceptable: it holds label 20; labels are 0 to 19" in world.refused("cifar100")
    world.changed("cifar100", "binary", broken("cifar100", "binary", lambda b, d: b"\0\x64" + binary_rows(b)[2:]))
    assert "it holds label 100; labels are 0 to 99" in world.refused("cifar100")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda files: dict(list(files.items())[:3]),
            r"it holds data_batch_5\.bin, test_batch\.bin of the batches data",
        ),
        (lambda files: {"a/readme": b"x"}, r"it holds none of the batches data_batch_1\.bin, "),
        (lambda files: files | {"b/test_batch.bin": b"again"}, r"it holds 'test_batch\.bin' twice"),
        (lambda files: files | {"b/data_batch_1": b"x"}, r"it holds data_batch_1, data_batch_1\.bin"),
        (lambda files: files | {"../test": b"x"}, r"its entry '\.\./test' leads out of the archive's folder"),
        (lambda files: files | {"/etc/passwd": b"x"}, r"its entry '/etc/passwd' leads out"),
    ],
)
def test_an_archive_with_other_files_is_refused(change: Callable[..., Any], reason: str, world: World) -> None:
    world.changed("cifar10", "binary", change(files_of("cifar10", "binary")))
    line = world.refused("cifar10")
    assert line.startswith("cifar10/cifar-10-binary.tar.gz is not acceptable: ")
    assert re.search(reason, line), line


def test_a_bomb_in_an_archive_is_stopped(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar, "UNPACKED", 500_000)
    world.changed("cifar10", "binary", files_of("cifar10", "binary") | {"cifar-10-batches-bin/zeros": bytes(10**6)})
    assert "unpacks to more than the 500000 bytes expected" in world.refused("cifar10")
