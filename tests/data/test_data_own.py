"""Data of one's own that are no folders of pictures: arrays, tables, IDX files."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.own_data import RNG, X, Y, answer_of, refused, splits_of

import netdepth as nd
from netdepth.api import plan
from netdepth.config import Component, RunConfig, Runtime
from netdepth.conformance import SUITES
from netdepth.data import load, own
from netdepth.data.manage import list_datasets
from netdepth.errors import BadInput


def npz(path: Path, **held: object) -> Path:
    np.savez(path, **held)  # type: ignore[arg-type]
    return path


# --- arrays -----------------------------------------------------------------------------------


def test_an_archive_as_keras_writes_it(tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz", x_train=X[:30], y_train=Y[:30], x_test=X[30:], y_test=Y[30:], unrelated=[1])
    splits = splits_of("arrays", path, val_size=4)
    assert splits.spec.sizes == {"train": 26, "val": 4, "test": 10}
    assert splits.spec.classes == ("0", "1", "2", "3")
    assert splits.spec.input_shape == (1, 6, 6)
    assert splits.spec.note == ""
    assert list(splits.spec.files) == ["a.npz"]
    assert splits.test is not None
    test = splits.test.open_test("a test")
    np.testing.assert_array_equal(test.inputs[:, 0], X[30:])
    assert test.labels.tolist() == Y[30:].tolist()
    both = torch.cat([splits.train.inputs, splits.val.inputs])[:, 0].numpy()
    assert sorted(map(bytes, both)) == sorted(map(bytes, X[:30]))
    assert [f for f in SUITES["dataset"](Component("arrays", {"path": str(path)}), None) if not f[1]] == []
    assert splits_of("arrays", npz(tmp_path / "b.npz", X_train=X, Y_train=Y)).test is None
    medical = {"train_images": X, "train_labels": Y[:, None], "val_images": X[:8], "val_labels": Y[:8, None]}
    spec = splits_of("arrays", npz(tmp_path / "c.npz", **medical)).spec
    assert spec.sizes == {"train": 40, "val": 8}
    assert spec.repeated == {"val": 8}


def test_what_is_not_divided_is_divided_by_a_stated_seed(tmp_path: Path) -> None:
    splits = splits_of("arrays", npz(tmp_path / "a.npz", x=X, y=Y))
    assert splits.spec.sizes == {"train": 32, "val": 4, "test": 4}
    assert splits.spec.note == "4 validation and 4 test pictures were drawn with equal class shares, by seed 0"
    assert splits_of("arrays", tmp_path / "a.npz", test_size=0, val_size=0.5).spec.sizes == {"train": 20, "val": 20}


PLANES = np.stack([X, X // 2, X // 3], 1)


@pytest.mark.parametrize(
    ("images", "settings", "expected"),
    [
        (X / 255, {}, X[:, None]),
        (X.astype(np.float32), {}, X[:, None]),
        (X.astype(np.int64), {}, X[:, None]),
        (X.reshape(40, 36), {}, X[:, None]),
        (X[:, None], {}, X[:, None]),
        (X[..., None], {}, X[:, None]),
        (X > 100, {}, np.where(X > 100, 255, 0)[:, None]),
        ((X > 100).astype(np.uint8), {"values": "0..1"}, np.where(X > 100, 255, 0)[:, None]),
        (X // 16, {"values": "0..255"}, (X // 16)[:, None]),
        (PLANES.transpose(0, 2, 3, 1), {}, PLANES),
        (PLANES.reshape(40, -1), {"layout": "channels-first"}, PLANES),
        (PLANES.transpose(0, 2, 3, 1).reshape(40, -1), {"layout": "channels-last"}, PLANES),
        (np.stack([X] * 4, -1), {"layout": "channels-last"}, np.stack([X] * 4, 1)),
    ],
)
def test_every_clear_form_of_pixels(
    images: np.ndarray, settings: dict[str, Any], expected: np.ndarray, tmp_path: Path
) -> None:
    splits = splits_of("arrays", npz(tmp_path / "a.npz", x_train=images, y_train=Y), val_size=0, **settings)
    np.testing.assert_array_equal(splits.train.inputs, expected)


MANY = {"x_train": np.zeros((300, 2, 2), np.uint8) + 200, "y_train": np.arange(300)}


@pytest.mark.parametrize(
    ("held", "words"),
    [
        ({"x_train": X / 16}, " to 15.9375, which may be"),
        ({"x_train": (X > 100).astype(np.uint8)}, "(uint8) runs from 0 to 1, which may be"),
        ({"x_train": (X / 255 - 0.5) / 0.5}, "runs from -1 to 1, pixels from 0 to 1 or 0 to 255"),
        ({"x_train": X.astype(np.uint16) * 257}, f" to {int(X.max()) * 257}, pixels from"),
        ({"x_train": np.where(X > 250, np.nan, X)}, "holds NaN or infinite values"),
        ({"x_train": np.full((40, 6, 6), "x")}, "images are numbers"),
        ({"x_train": X[..., None].repeat(4, -1)}, "shape [40, 6, 6, 4], which has neither 1 nor 3 channels"),
        ({"x_train": np.zeros((40, 3, 6, 3), np.uint8)}, "channels first or last; say --set dataset.layout"),
        ({"x_train": np.tile(X.reshape(40, 36), 3)}, "rows of 108 numbers, 3 × 6 × 6: three planes"),
        ({"x_train": X.reshape(40, 36)[:, :13]}, "rows of 13 numbers, which are no square picture"),
        ({"x_train": X[None]}, "shape [1, 40, 6, 6], which has neither"),
        ({"x_train": X[:0]}, "is empty"),
        ({"x_train": X[:39]}, "has 39 images and 40 labels"),
        ({"x_train": X / 255, "x_test": X, "y_test": Y}, "runs from 0 to 1, x_test"),
        ({"x_test": X / 255, "y_test": Y}, "0 to 255, x_test"),
        ({"x_train": X / 255, "x_test": X / 16, "y_test": Y}, "runs from 0 to 1, x_test"),
        ({"x_train": X.astype(float), "x_test": X / 255, "y_test": Y}, "0 to 255, x_test"),
        ({"x_test": X[:, :5], "y_test": Y}, "x_test of 'a.npz' has images of shape [1, 5, 6], x_train of 'a.npz' has"),
        ({"y_train": Y / 3}, "has the label 0.333333; labels are classes"),
        ({"y_train": np.zeros(40)}, "has labels of 1 class; it takes 2 or more"),
        ({"y_train": np.ones((40, 4))}, "not one-hot"),
        ({"y_train": np.ones((40, 4, 1))}, "it takes [N], or one-hot"),
        ({"y_train": np.array(["a\n", "b", "c", "d"])[Y]}, "cannot be told apart"),
        ({"x_test": X, "y_test": Y + 1}, "x_test of 'a.npz' has the label 4, of which train has no example"),
        ({"x_test": X, "y_test": np.array(list("abcd"))[Y]}, "are numbers and names"),
        (MANY, "has 300 different labels in 300 examples, which are no classes"),
        ({"y_train": np.array([{}])}, "holds Python objects, which are not loaded"),
        ({"train_images": X, "train_labels": Y}, "holds train data twice"),
    ],
)
def test_what_is_unclear_or_no_data_is_refused(held: dict[str, np.ndarray], words: str, tmp_path: Path) -> None:
    assert words in refused("arrays", npz(tmp_path / "a.npz", **{"x_train": X, "y_train": Y, **held}))


def test_a_dark_test_part_is_no_other_range(tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz", x_train=X, y_train=Y, x_test=X // 200, y_test=Y)
    assert splits_of("arrays", path).spec.sizes["test"] == 40


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"names": ["a", "b"]}, "dataset.names has 2 names, the labels are 4 classes (0, 1, 2, 3)"),
        ({"names": ["a", "b", "c", "a"]}, "cannot be told apart"),
        ({"val_size": 37}, "val_size = 37 is out of range; it takes 0 to 36"),
        ({"test_size": 4}, "is divided already; leave it null"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], words: str, tmp_path: Path) -> None:
    assert words in refused("arrays", npz(tmp_path / "a.npz", x_train=X, y_train=Y), **settings)


@pytest.mark.parametrize(
    ("labels", "classes", "note"),
    [
        (Y + 1, "1234", "labels 1 to 4 are classes 0 to 3"),
        (Y * 10, ("0", "10", "20", "30"), "labels 0, 10, 20, 30 are classes 0 to 3"),
        (np.array(["d", "c", "b", "a"])[Y], "abcd", "labels 'a', 'b', 'c', 'd' are classes 0 to 3"),
        (np.array([b"d", b"c", b"b", b"a"])[Y], "abcd", "labels 'a', 'b', 'c', 'd' are classes 0 to 3"),
        (np.array(["2", "10", "9", "1"])[Y], ("1", "2", "9", "10"), "labels 1, 2, 9, 10 are classes 0 to 3"),
        (np.eye(4)[Y], "0123", ""),
        (Y.astype(np.float32), "0123", ""),
        (Y[:, None], "0123", ""),
        (Y * 2 - 1, ("-1", "1", "3", "5"), "labels -1, 1, 3, 5 are classes 0 to 3"),
        (Y > 1, "01", ""),
    ],
)
def test_labels_become_classes_and_the_note_says_how(
    labels: np.ndarray, classes: object, note: str, tmp_path: Path
) -> None:
    splits = splits_of("arrays", npz(tmp_path / "a.npz", x_train=X, y_train=labels), val_size=0)
    assert splits.spec.classes == tuple(classes)  # type: ignore[arg-type]
    assert splits.spec.note == note
    names = [splits.spec.classes[label] for label in splits.train.labels.tolist()]
    plain = labels.argmax(1) if labels.shape == (40, 4) else labels.reshape(40)
    texts = [one.decode() if isinstance(one, bytes) else one for one in plain.tolist()]
    given = [text if isinstance(text, str) else str(int(text)) for text in texts]
    assert names == given


def lying(shape: tuple[int, ...]) -> bytes:
    """An npz whose array says that it has another shape."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("x_train.npy", header.getvalue() + b"\0" * 100)
        archive.writestr("y_train.npy", header.getvalue() + b"\0" * 100)
    return made.getvalue()


def test_archives_that_are_damaged_lie_or_hold_objects_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.npz"
    assert "no file" in refused("arrays", path)
    assert "holds x_train without y_train" in refused("arrays", npz(path, x_train=X))
    assert "holds x_test, y_test; it takes x_train" in refused("arrays", npz(path, x_test=X, y_test=Y))
    assert "holds nothing; it takes" in refused("arrays", npz(path, other=X))
    path.write_bytes(lying((2**40, 28, 28)))
    assert "says that it has shape [1099511627776, 28, 28], but holds" in refused("arrays", path)
    npz(path, x_train=X, y_train=Y)
    with monkeypatch.context() as small:
        small.setattr("netdepth.data.arrays.memory_limit", lambda: 1_000)
        assert "bytes; at most 1,000 fit here" in refused("arrays", path)
    whole = path.read_bytes()
    rng = np.random.default_rng(3)
    for turn in range(60):
        broken = bytearray(whole[: rng.integers(len(whole))] if turn % 3 == 0 else whole)
        for _ in range(turn % 3):
            broken[rng.integers(len(broken))] ^= 1 << int(rng.integers(8))
        path.write_bytes(broken)
        assert "\n" not in answer_of("arrays", path)


# --- from Python ------------------------------------------------------------------------------


def test_arrays_and_tensors_in_memory_are_one_data_set(tmp_path: Path) -> None:
    made = nd.dataset(X / 255, Y + 1, val_size=6)
    assert made == nd.dataset(torch.from_numpy(X), torch.from_numpy(Y + 1), val_size=6)
    assert made == nd.dataset(list(X), (Y + 1).tolist(), val_size=6)
    assert made != nd.dataset(255 - X, Y + 1, val_size=6)
    runtime = Runtime(runs_root=tmp_path, probes=False)
    small = {"overrides": ["train.budget=1ep", "model.hidden=[4]"], "runtime": runtime, "progress": False}
    run: Any = nd.train("baseline-mlp", dataset=made, **small)
    assert run.dir.split().sizes == {"train": 30, "val": 6, "test": 4}
    assert "labels 1 to 4 are classes 0 to 3" in run.dir.split().note
    config = RunConfig(dataset=made, model=Component("mlp", {"hidden": [4]}))
    assert plan(config, dataset=made)[1] == [config]
    elsewhere = nd.dataset(X, Y + 1, val_size=6, path=tmp_path / "mine")
    assert (tmp_path / "mine.npz").is_file()
    assert nd.train("baseline-mlp", dataset=elsewhere, **small).dir.path == run.dir.path  # type: ignore[union-attr]


def test_arrays_in_memory_that_are_refused_are_refused_at_once() -> None:
    for given, words in (
        ((X / 16, Y), "x (float64) runs from"),
        ((X, Y[:-1] / 3), "x has 40 images and 39 labels"),
        ((None, None), "x and y are None"),
        ((X, Y, X), "x_val and y_val come together"),
        (("train.npz", Y), "dataset='arrays:FILE.npz'"),
        (([X[0], X[0, :3]], Y), "x is no array"),
    ):
        with pytest.raises(BadInput) as caught:
            nd.dataset(given[0], given[1], **({"x_val": given[2]} if len(given) > 2 else {}))
        assert words in str(caught.value)


def test_a_cache_that_cannot_be_written_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr("netdepth.data.arrays.user_cache", lambda: tmp_path / "file")
    made = nd.dataset(X, Y)
    assert "the arrays are in " in capsys.readouterr().err
    assert load(made, data_dir=None).spec.sizes == {"train": 32, "val": 4, "test": 4}


# --- tables -----------------------------------------------------------------------------------


def table(path: Path, labels: object, header: bool = True, **columns: object) -> Path:
    import pandas

    frame = pandas.DataFrame(X.reshape(40, -1), columns=[f"pixel{index}" for index in range(36)])
    frame.insert(0, "Label", labels)
    for name, values in columns.items():
        frame[name] = values
    frame.to_csv(path, index=False, header=header)
    return path


def test_a_table_of_pixels_as_on_kaggle(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", Y)
    splits = splits_of("csv", path, val_size=0, test_size=0)
    np.testing.assert_array_equal(splits.train.inputs[:, 0], X)
    assert splits.train.labels.tolist() == Y.tolist()
    packed = tmp_path / "b.csv.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert splits_of("csv", packed).spec.sizes == {"train": 32, "val": 4, "test": 4}
    assert splits_of("csv", path, test="b.csv.gz").spec.repeated == {"test": 36}, "4 are for validation"
    text = table(tmp_path / "c.csv", np.array(["NA", "x", "null", "d"])[Y], id=range(40), kind="train")
    assert """'dataset.drop=["id", "kind"]'""" in refused("csv", text)
    assert "column 'kind' of 'c.csv' holds more than numbers" in refused("csv", text, drop=["id", "pixel35"])
    assert "has 'id' beside its 36 pixels" in refused("csv", text, drop=["kind"])
    assert splits_of("csv", text, drop=["kind", "id"]).spec.classes == ("NA", "d", "null", "x")
    text.write_bytes(text.read_bytes().replace(b",", b";"))
    assert splits_of("csv", text, drop=["kind", "id"]).spec.sizes["train"] == 32


def test_pixels_that_are_not_in_the_order_of_their_numbers_are_refused(tmp_path: Path) -> None:
    import pandas

    path = tmp_path / "a.csv"
    pandas.read_csv(table(path, Y)).sort_index(axis=1).to_csv(path, index=False)
    words = refused("csv", path)
    assert "not in the order of their numbers ('pixel0', 'pixel1', 'pixel10', " in words
    frame = pandas.read_csv(table(path, Y))
    places = {f"pixel{number}": f"{number // 6 + 1}x{number % 6 + 1}" for number in range(36)}
    frame.rename(columns=places).to_csv(path, index=False)
    assert splits_of("csv", path, val_size=0, test_size=0).train.inputs[:, 0].tolist() == X.tolist()


def test_tables_that_are_refused(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", Y, header=False)
    assert "has 37 columns without names; say which one holds the labels" in refused("csv", path)
    assert splits_of("csv", path, label=0, val_size=0, test_size=0).train.labels.tolist() == Y.tolist()
    assert "dataset.label = 99, but" in refused("csv", path, label=99)
    assert "say which one holds" in refused("csv", table(path, Y), label="klass")
    assert "dataset.drop names 'id', but" in refused("csv", path, drop=["id"])
    lines = path.read_text().splitlines()
    for at, line, words in (
        (5, lines[5].rpartition(",")[0], "line 6 of 'a.csv' lacks a pixel"),
        (5, lines[5] + ",1,2", "is no table"),
        (5, "," + lines[5].partition(",")[2], "line 6 of 'a.csv' lacks a label"),
        (5, lines[5].rpartition(",")[0] + ",?", "column 'pixel35' of 'a.csv' holds more than numbers"),
        (0, lines[0].replace("pixel7", "pixel8"), "two columns of the same name"),
    ):
        path.write_text("\n".join([*lines[:at], line, *lines[at + 1 :]]))
        assert words in refused("csv", path)
    broken = (b"", b"\0\0\0", b"\x1f\x8b\x08broken", RNG.bytes(3_000), b"label\n1\n", b"\xff\xfe" * 50)
    for content in (*broken, lines[0].encode()):
        path.write_bytes(content)
        refused("csv", path)


# --- IDX files --------------------------------------------------------------------------------


def idx(path: Path, array: np.ndarray, code: int = 8) -> Path:
    content = bytes([0, 0, code, array.ndim]) + b"".join(struct.pack(">I", n) for n in array.shape) + array.tobytes()
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def test_the_forms_of_kmnist_qmnist_and_emnist(tmp_path: Path) -> None:
    kmnist, qmnist, emnist = (tmp_path / name for name in ("k", "q", "e"))
    labels = Y.astype(np.uint8)
    for part in ("train", "t10k"):
        idx(kmnist / f"{part}-images-idx3-ubyte.gz", X)
        idx(kmnist / f"{part}-labels.idx1-ubyte", labels)
    splits = splits_of("idx", kmnist, val_size=0)
    np.testing.assert_array_equal(splits.train.inputs[:, 0], X)
    assert splits.spec.sizes == {"train": 40, "val": 0, "test": 40}
    assert splits.spec.note == ""
    assert list(splits.spec.files) == [
        "train-images-idx3-ubyte.gz", "train-labels.idx1-ubyte", "t10k-images-idx3-ubyte.gz", "t10k-labels.idx1-ubyte",
    ]  # fmt: skip
    idx(qmnist / "qmnist-train-images-idx3-ubyte.gz", X)
    wide = np.concatenate([Y[:, None], RNG.integers(0, 9_999, (40, 7))], 1).astype(">i4")
    idx(qmnist / "qmnist-train-labels-idx2-int.gz", wide, 12)
    splits = splits_of("idx", qmnist, val_size=0)
    assert splits.train.labels.tolist() == Y.tolist()
    assert splits.spec.note == "the class is the first column of the labels"
    assert splits.test is None
    for kind, shift in (("letters", 1), ("digits", 0)):
        idx(emnist / f"emnist-{kind}-train-images-idx3-ubyte", X.transpose(0, 2, 1).copy())
        idx(emnist / f"emnist-{kind}-train-labels-idx1-ubyte", labels + shift)
    (emnist / "emnist-letters-mapping.txt").write_text("1 65 97\n2 66 98\n3 67 99\n4 68 100\n")
    assert "holds several sets; say which" in refused("idx", emnist)
    splits = splits_of("idx", emnist, prefix="emnist-letters", val_size=0)
    np.testing.assert_array_equal(splits.train.inputs[:, 0], X)
    assert splits.spec.classes == tuple("ABCD")
    assert "rows and columns of each picture were swapped" in splits.spec.note
    assert "labels 1 to 4 are classes 0 to 3" in splits.spec.note
    turned = splits_of("idx", emnist, prefix="emnist-digits", transpose=False, val_size=0)
    np.testing.assert_array_equal(turned.train.inputs[:, 0], X.transpose(0, 2, 1))


def test_idx_files_that_are_refused(tmp_path: Path) -> None:
    assert "is not a folder" in refused("idx", tmp_path / "none")
    assert "holds no IDX files" in refused("idx", tmp_path)
    path = idx(tmp_path / "train-images-idx3-ubyte", X)
    assert "has no train labels" in refused("idx", tmp_path)
    idx(tmp_path / "train-labels-idx1-ubyte", Y.astype(np.uint8))
    whole = path.read_bytes()
    for content, words in (
        (b"", "is no IDX file: its first bytes are missing"),
        (b"\x89PNG", "is no IDX file: its first bytes are 89 50 4e 47"),
        (whole[:-1], "says that it has shape [40, 6, 6], which takes 1,440 bytes, but has 1,439"),
        (whole[:4] + b"\xff" * 12 + whole[16:], "which takes"),
        (b"\0\0\x08\xff" + whole[4:], "is no IDX file"),
        (b"\x1f\x8b" + whole, "gzip stream is damaged"),
    ):
        path.write_bytes(content)
        assert words in refused("idx", tmp_path)
    for _ in range(40):
        broken = bytearray(whole)
        broken[RNG.integers(20)] = RNG.integers(256)
        path.write_bytes(broken)
        assert "\n" not in answer_of("idx", tmp_path)


# --- all of them ------------------------------------------------------------------------------


def test_a_file_that_would_fill_the_memory_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own, "memory_limit", lambda: 10_000)
    path = tmp_path / "a.csv"
    path.write_bytes(b"0" * 20_000)
    assert "has 20,000 bytes; at most 10,000 are read here" in refused("csv", path)
    path.write_bytes(gzip.compress(b"0" * 10**6))
    assert "holds more than the 10000 bytes" in refused("csv", path)
    assert "is not a file" in refused("csv", tmp_path)


def test_how_they_are_listed() -> None:
    rows = {row.name: row for row in list_datasets(None)}
    assert {rows[name].where for name in ("arrays", "csv", "idx", "parquet")} == {"yours"}
