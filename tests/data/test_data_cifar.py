"""CIFAR-10 and CIFAR-100 from small archives in both official forms; nothing but the sizes and digests differs."""

from __future__ import annotations

import gzip
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import BESIDE, GIVEN_DATA
from support.cifar_archives import (
    ARCHIVES,
    FILE,
    FORMS,
    NAMES,
    SHAPES,
    World,
    batches,
    files_of,
    make_world,
    parts,
)

from netdepth.config import Component
from netdepth.data import cifar, load, manage
from netdepth.data.fetch import SOURCES, download, locate, user_cache
from netdepth.data.splits import array_digest, stratified_choice
from netdepth.errors import BadInput, StorageError


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return make_world(tmp_path / "data", monkeypatch)


# --- what is read ------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "kind"), [("cifar10", "labels"), ("cifar100", "fine"), ("cifar100", "coarse")])
@pytest.mark.parametrize("form", FORMS)
def test_the_splits_hold_the_pictures_the_archives_were_made_of(name: str, kind: str, form: str, world: World) -> None:
    world.put(name, form)
    splits = world.load(name, **({} if name == "cifar10" else {"coarse": kind == "coarse"}))
    made, shape = batches(name), SHAPES[name]
    key = kind if name == "cifar10" else f"{kind}_labels"
    images = np.concatenate([made[batch].images for batch in shape.train]).reshape(-1, 3, 32, 32)
    labels, finest = (
        np.concatenate([made[batch].labels[k] for batch in shape.train]) for k in (key, list(shape.kinds)[-1])
    )
    val = stratified_choice(finest, 20)
    train = np.setdiff1d(np.arange(len(labels)), val)
    found = parts(splits)
    for part, rows in (("train", train), ("val", val)):
        assert np.array_equal(found[part][0].numpy(), images[rows])
        assert found[part][1].tolist() == labels[rows].tolist()
    assert np.array_equal(found["test"][0].numpy(), made[shape.test].images.reshape(-1, 3, 32, 32))
    assert found["test"][1].tolist() == made[shape.test].labels[key]
    for inputs, marks in found.values():
        assert inputs.dtype == torch.uint8
        assert inputs.is_contiguous()
        assert marks.dtype == torch.int64
    spec = splits.spec
    assert (spec.name, spec.input_shape, spec.sizes) == (name, (3, 32, 32), shape.sizes)
    assert len(spec.classes) == shape.kinds[key]
    assert spec.split_digest == array_digest(train, val, np.arange(shape.test_size))
    assert spec.data_digest == array_digest(images, labels.astype(np.int64))
    assert list(spec.files) == [FILE[name, form]]


@pytest.mark.parametrize("val_size", [-1, 100, 10**12])
def test_a_validation_size_out_of_range_names_the_range(val_size: int, world: World) -> None:
    world.put("cifar10", "binary")
    with pytest.raises(BadInput, match=rf"val_size = {val_size} is out of range; it takes 0 to 90"):
        world.load("cifar10", val_size=val_size)


@pytest.mark.parametrize("form", FORMS)
def test_the_test_batch_is_not_parsed_before_it_is_opened(form: str, world: World) -> None:
    files = files_of("cifar10", form)
    test = next(path for path in files if "test_batch" in path)
    files[test] = b"neither rows nor a pickle"
    world.changed("cifar10", form, files)
    splits = world.load("cifar10")
    assert splits.spec.sizes["test"] == 20
    assert splits.test is not None
    with pytest.raises((BadInput, ValueError)):
        splits.test.open_test("a look")


# --- what is refused ---------------------------------------------------------------------------


def never(*_: object, **__: object) -> None:
    raise AssertionError("bytes that are not official were interpreted")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", FORMS)
def test_an_altered_archive_is_refused_before_a_byte_is_interpreted(
    form: str, name: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = ARCHIVES[name, form]
    altered = [good[:at] + bytes([good[at] ^ 4]) + good[at + 1 :] for at in range(0, len(good), len(good) // 20)]
    altered += [b"", good[:100], good[:-1], good + b"\0", gzip.decompress(good), b"<html>please log in</html>"]
    for module, function in (("tarfile", "open"), ("zlib", "decompressobj"), ("gzip", "open"), ("pickle", "Unpickler")):
        monkeypatch.setattr(f"{module}.{function}", never)
    monkeypatch.setattr(cifar, "archive_files", never)
    for data in altered:
        path = world.put(name, form, data)
        line = world.refused(name)
        file = next(one for one in SOURCES[name].files[0].forms if one.name == FILE[name, form])
        assert f"is not {name}/{FILE[name, form]}: found sha256 {hashlib.sha256(data).hexdigest()[:12]}" in line
        assert f"which is {len(data)} bytes; expected sha256 {file.sha256[:12]} (of the archive as it is)" in line
        assert path.read_bytes() == data
    world.put(name, form)
    with pytest.raises(AssertionError, match="interpreted"):
        world.load(name)


def test_batches_in_a_folder_have_no_pinned_digest_and_are_not_read(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path, data in files_of("cifar10", "python").items():
        file = world.root / "cifar10" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    monkeypatch.setattr("pickle.Unpickler", never)
    with pytest.raises(StorageError, match=r"cifar-10-binary\.tar\.gz is not on this machine"):
        world.load("cifar10")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("other", [("cifar10", "binary"), ("cifar10", "python"), ("cifar100", "binary")])
def test_another_known_archive_under_this_name_is_recognised(other: tuple[str, str], form: str, world: World) -> None:
    name = "cifar100" if other[0] == "cifar10" else "cifar10"
    world.put(name, form, ARCHIVES[other])
    line = world.refused(name)
    assert f"is not {name}/{FILE[name, form]}: found sha256" in line
    assert f"which is the content of {other[0]}/{FILE[other]}; expected sha256" in line


@pytest.mark.parametrize(
    "name",
    [
        "numpy\nload",
        "numpy.core.multiarray\nscalar",
        "numpy\nndarray.tofile",
        "copy_reg\n_reconstructor",
        "builtins\ngetattr",
    ],
)  # fmt: skip
def test_no_other_name_is_known(name: str) -> None:
    with pytest.raises(BadInput, match=f"it asks for {name.replace(chr(10), '.')}; only arrays of bytes"):
        cifar._pickled("a batch", f"c{name}\n.".encode(), ["labels"])


# --- which archive -----------------------------------------------------------------------------


def test_the_binary_form_goes_first_and_a_nearer_folder_before_it(world: World) -> None:
    far = user_cache() / "cifar10" / FILE["cifar10", "binary"]
    far.parent.mkdir(parents=True)
    far.write_bytes(ARCHIVES["cifar10", "binary"])
    assert locate(cifar.CIFAR10, world.root) == {FILE["cifar10", "binary"]: far}
    near = world.put("cifar10", "python")
    assert locate(cifar.CIFAR10, world.root) == {FILE["cifar10", "binary"]: near}
    both = world.put("cifar10", "binary")
    assert locate(cifar.CIFAR10, world.root) == {FILE["cifar10", "binary"]: both}


def test_list_and_verify_know_both_forms(world: World) -> None:
    rows = {row.name: row for row in manage.list_datasets(world.root)}
    assert rows["cifar10"].where == "not here"
    assert set(rows["cifar10"].digests) == {FILE["cifar10", form] for form in FORMS}
    (row,) = manage.verify("cifar10", world.root)
    assert (row.file, row.status) == (FILE["cifar10", "binary"], "missing")
    path = world.put("cifar10", "python")
    assert {row.name: row.where for row in manage.list_datasets(world.root)}["cifar10"] == str(path.parent)
    (row,) = manage.verify("cifar10", world.root)
    assert (row.file, row.status, row.path) == (FILE["cifar10", "python"], "ok", path)
    assert row.digest == cifar.CIFAR10.files[0].alternatives[0].sha256


def serve(monkeypatch: pytest.MonkeyPatch, delivers: Callable[[str], bytes | None]) -> list[str]:
    """Downloads come from ``delivers``; returns the addresses asked for."""
    asked: list[str] = []

    def received(url: str, limit: int) -> Iterator[bytes]:
        asked.append(url)
        content = delivers(url)
        if content is None:
            raise BadInput("answers HTTP 404")
        yield content

    monkeypatch.setattr("netdepth.data.fetch._received", received)
    monkeypatch.delenv("NETDEPTH_MIRROR")
    return asked


def test_where_no_mirror_has_the_first_form_the_other_is_downloaded_and_else_both_are_named(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = FILE["cifar100", "python"]
    asked = serve(monkeypatch, lambda url: ARCHIVES["cifar100", "python"] if url.endswith(python) else None)
    manage.fetch("cifar100", progress=False)
    assert world.load("cifar100").spec.files.keys() == {python}
    assert [url.rpartition("/")[2] for url in asked] == [FILE["cifar100", "binary"]] * 3 + [python]
    with pytest.raises(StorageError, match=r"cifar-10-binary\.tar\.gz .*cifar-10-python.*answers HTTP 404") as caught:
        download(cifar.CIFAR10, world.root, progress=False)
    assert "\n" not in str(caught.value)
    assert os.listdir(world.root / "cifar10") == []


# --- what is published -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "count"), [(cifar.KINDS, 10), (cifar.SUPERCLASSES, 20), (cifar.CLASSES, 100)], ids=["10", "20", "100"]
)
def test_the_classes_are_in_the_order_of_their_labels(names: tuple[str, ...], count: int) -> None:
    """The official files list them alphabetically."""
    assert len(set(names)) == count
    assert list(names) == sorted(names)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_official_archives_agree(name: str, tmp_path: Path) -> None:
    """With the real files: both forms, where both are here."""
    root = Path(GIVEN_DATA).absolute() if GIVEN_DATA else BESIDE
    paths = [root / name / FILE[name, form] for form in FORMS]
    if not all(path.exists() for path in paths):
        pytest.skip(f"needs both official archives of {name} in {root / name}")
    loaded = []
    for path in paths:
        (tmp_path / path.stem / name).mkdir(parents=True)
        (tmp_path / path.stem / name / path.name).symlink_to(path)
        loaded.append(load(Component(name), data_dir=tmp_path / path.stem))
    binary, python = loaded
    assert replace(python.spec, files=binary.spec.files) == binary.spec
    for ours, theirs in zip(parts(binary).values(), parts(python).values(), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    classes = len(binary.spec.classes)
    assert torch.bincount(binary.train.labels).tolist() == [45_000 // classes] * classes
