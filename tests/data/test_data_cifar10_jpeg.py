"""CIFAR-10 as JPEG files, from the archive and from its extraction."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.folders import splits_of

from netdepth.config import Component
from netdepth.data import Splits, cifar10_jpeg, load, manage
from netdepth.data.decode import content_digest
from netdepth.errors import BadInput, StorageError


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[Path, Path]:
    """A data set of the same make, twelve pictures a class: a folder with its archive, one with its extraction."""
    counts = {"train": 10, "test": 2}
    generator = np.random.default_rng(0)
    files: dict[str, bytes] = {}
    for part, count in counts.items():
        for name in cifar10_jpeg.KINDS:
            for index in range(count):
                buffer = io.BytesIO()
                noise = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(noise).save(buffer, "JPEG", quality=50)
                files[f"{part}/{name}/{index:04}.jpg"] = buffer.getvalue()
    packed, unpacked = tmp_path / "packed/cifar10-jpeg", tmp_path / "unpacked/cifar10-jpeg"
    packed.mkdir(parents=True)
    with tarfile.open(packed / "cifar10-jpeg.tar.gz", "w:gz", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
            (unpacked / name).parent.mkdir(parents=True, exist_ok=True)
            (unpacked / name).write_bytes(content)
    archive = (packed / "cifar10-jpeg.tar.gz").read_bytes()
    file = dataclasses.replace(
        cifar10_jpeg.CIFAR10_JPEG.files[0], sha256=hashlib.sha256(archive).hexdigest(), size=len(archive)
    )
    source = dataclasses.replace(cifar10_jpeg.CIFAR10_JPEG, files=(file,))
    contents = {}
    for part in counts:
        names = [name for name in files if name.startswith(part)]
        contents[part] = content_digest(names, [hashlib.sha256(files[name]).hexdigest() for name in names])
    monkeypatch.setattr(cifar10_jpeg, "PER_CLASS", counts)
    monkeypatch.setattr(cifar10_jpeg, "CONTENTS", contents)
    monkeypatch.setattr(cifar10_jpeg, "CIFAR10_JPEG", source)
    monkeypatch.setitem(manage.SOURCES, "cifar10-jpeg", source)
    monkeypatch.delenv("NETDEPTH_MIRROR")
    return packed.parent, unpacked.parent


def jpegs(data_dir: Path | None, val_size: int = 20) -> Splits:
    return load(Component("cifar10-jpeg", {"val_size": val_size}), data_dir=data_dir)


def test_the_archive_and_its_extraction_are_the_same_data(small: tuple[Path, Path]) -> None:
    one, other = (jpegs(folder) for folder in small)
    assert one.spec == other.spec
    assert one.spec.title == "CIFAR-10 (JPEG)"
    assert "not comparable" in one.spec.note
    assert one.spec.sizes == {"train": 80, "val": 20, "test": 20}
    assert torch.bincount(one.val.labels).tolist() == [2] * 10
    assert one.test is not None
    assert other.test is not None
    opened = one.test.open_test("comparing"), other.test.open_test("comparing")
    for a, b in ((one.train, other.train), (one.val, other.val), opened):
        assert torch.equal(a.inputs, b.inputs)
        assert torch.equal(a.labels, b.labels)
    first = small[1] / "cifar10-jpeg/test/bird/0001.jpg"
    index = 2 * cifar10_jpeg.KINDS.index("bird") + 1
    assert torch.equal(opened[0].inputs[index], torch.from_numpy(np.array(Image.open(first))).permute(2, 0, 1))
    folder = splits_of(small[1] / "cifar10-jpeg", val_size=20)
    assert folder.spec.data_digest == one.spec.data_digest
    assert torch.equal(folder.train.inputs, one.train.inputs)
    assert [row.status for row in manage.verify("cifar10-jpeg", small[1])] == ["wrong"], "val_size 5000 of 100"


def test_what_is_decoded_is_not_unpacked_again(small: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    first = jpegs(small[0])

    def never(*args: object, **settings: object) -> None:
        raise AssertionError("the archive was unpacked again")

    monkeypatch.setattr(cifar10_jpeg, "archive_files", never)
    again = jpegs(small[0])
    assert torch.equal(first.train.inputs, again.train.inputs)
    with pytest.raises(AssertionError, match="unpacked again"):
        jpegs(small[0], val_size=10)


def test_where_it_is_and_where_it_is_not(small: tuple[Path, Path], tmp_path: Path) -> None:
    where = {data: {row.name: row.where for row in manage.list_datasets(data)}["cifar10-jpeg"] for data in small}
    assert where == {folder: str(folder / "cifar10-jpeg") for folder in small}
    assert manage.fetch("cifar10-jpeg", small[1], progress=False) == small[1] / "cifar10-jpeg"
    assert [row.status for row in manage.verify("cifar10-jpeg", small[0])] == ["ok"]
    with pytest.raises(StorageError, match=r"has no download: put cifar10-jpeg\.tar\.gz .* into DIR/cifar10-jpeg"):
        jpegs(tmp_path)
    with pytest.raises(StorageError, match=r"get cifar10-jpeg\.tar\.gz"):
        manage.fetch("cifar10-jpeg", tmp_path, progress=False)


def test_altered_data_are_refused(small: tuple[Path, Path]) -> None:
    archive = small[0] / "cifar10-jpeg/cifar10-jpeg.tar.gz"
    archive.write_bytes(archive.read_bytes()[:-1])
    with pytest.raises(BadInput, match="is not cifar10-jpeg/cifar10-jpeg"):
        jpegs(small[0])
    (small[1] / "cifar10-jpeg/train/dog/0003.jpg").unlink()
    with pytest.raises(BadInput, match=r"train' is not that of cifar10-jpeg: its 99 pictures .* expected 100 with"):
        jpegs(small[1])
