"""Parquet files of pictures, as on the Hugging Face Hub."""

from __future__ import annotations

import importlib.util
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import lacking
from PIL import Image
from support.own_data import RNG, X, Y, answer_of, refused, splits_of


def parquet(path: Path, which: slice, **changes: Any) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def png(array: np.ndarray) -> bytes:
        made = io.BytesIO()
        Image.fromarray(array).save(made, "PNG")
        return made.getvalue()

    classes = changes.pop("names", list("abcd"))
    columns = {"image": [{"bytes": png(one), "path": None} for one in X[which]], "label": Y[which].tolist(), **changes}
    named = {"label": {"names": classes, "_type": "ClassLabel"}}
    described = {"info": {"features": named}}
    made = pa.table(columns).replace_schema_metadata({"huggingface": json.dumps(described)})
    path.parent.mkdir(exist_ok=True, parents=True)
    pq.write_table(made, path)
    return path


@pytest.mark.slow
def test_parquet_labels_and_names_of_classes_are_part_of_what_makes_it_the_same_data(tmp_path: Path) -> None:
    if importlib.util.find_spec("pyarrow") is None:
        lacking("parquet", "pyarrow is not installed; get it with: pip install netdepth[parquet]")
    files: dict[str, dict[str, Any]] = {
        "digits": {},
        "others": {"label": Y[::-1].tolist()},
        "renamed": {"names": list("dcba")},
    }
    made = [splits_of("parquet", parquet(tmp_path / f"{name}.parquet", slice(None), **files[name])) for name in files]
    assert len({one.spec.data_digest for one in made}) == len(files)
    parquet(tmp_path / "hub" / "train-0.parquet", slice(0, 20))
    parquet(tmp_path / "hub" / "test-0.parquet", slice(20, 40), names=list("dcba"))
    assert "name the classes differently: a, b, c, d; d, c, b, a" in refused("parquet", tmp_path / "hub")


@pytest.mark.slow
def test_parquet_columns_of_numbers_are_values_where_the_objective_learns_them(tmp_path: Path) -> None:
    if importlib.util.find_spec("pyarrow") is None:
        lacking("parquet", "pyarrow is not installed; get it with: pip install netdepth[parquet]")
    ages, pairs = RNG.normal(40, 9, 40), RNG.normal(0, 1, (40, 2))
    path = parquet(tmp_path / "a.parquet", slice(None), label=ages.tolist())
    splits = splits_of("parquet", path, targets="values", val_size=0, test_size=0)
    assert splits.spec.targets == ("target",)
    np.testing.assert_allclose(splits.train.labels[:, 0], ages, rtol=1e-6)
    both = parquet(tmp_path / "b.parquet", slice(None), label=pairs.tolist())
    splits = splits_of("parquet", both, targets="values", val_size=4)
    assert splits.train.labels.shape == (32, 2)
    assert splits.spec.outputs == 2
    assert "labels are classes: whole numbers or texts" in refused("parquet", path)


def pq_without_label(path: Path, columns: dict[str, Any]) -> Path:
    import pyarrow.parquet as pq

    made = pq.read_table(parquet(path, slice(None), **columns)).drop_columns(["label"]).replace_schema_metadata(None)
    pq.write_table(made, path)
    return path


@pytest.mark.slow
def test_parquet_files_of_the_hugging_face_hub(tmp_path: Path) -> None:
    if importlib.util.find_spec("pyarrow") is None:
        lacking("parquet", "pyarrow is not installed; get it with: pip install netdepth[parquet]")
    single = parquet(tmp_path / "one.parquet", slice(None))
    splits = splits_of("parquet", single, channels=1)
    assert splits.spec.sizes == {"train": 32, "val": 4, "test": 4}
    assert splits.spec.classes == tuple("abcd")
    root = tmp_path / "hub" / "data"
    for number, part in enumerate((slice(0, 10), slice(10, 20))):
        parquet(root / f"train-0000{number}-of-00002.parquet", part)
    parquet(root / "validation-00000-of-00001.parquet", slice(20, 30))
    parquet(root / "test-00000-of-00001.parquet", slice(28, 40))
    splits = splits_of("parquet", tmp_path / "hub", channels=1)
    np.testing.assert_array_equal(splits.train.inputs[:, 0], X[:20])
    np.testing.assert_array_equal(splits.val.inputs[:, 0], X[20:30])
    assert splits.train.labels.tolist() == Y[:20].tolist()
    assert splits.spec.sizes == {"train": 20, "val": 10, "test": 12}
    (root / "other.parquet").touch()
    assert "says nowhere in its name whether" in refused("parquet", tmp_path / "hub")
    assert "no train-*.parquet" in refused("parquet", tmp_path / "nowhere")
    parquet(single, slice(None), label=["x", "y"] * 20)
    assert splits_of("parquet", single).spec.classes == ("x", "y")
    parquet(single, slice(None), image=[{"bytes": b"?", "path": None}] * 40)
    assert "40 pictures are not acceptable" in refused("parquet", single)
    parquet(single, slice(None), fine_label=Y.tolist(), coarse_label=Y.tolist())
    assert splits_of("parquet", single).spec.classes == tuple("abcd")
    both = {"fine_label": Y.tolist(), "labels": Y.tolist()}
    no_label = pq_without_label(single, both)
    assert "2 (labels, fine_label) of its columns" in refused("parquet", no_label)
    parquet(single, slice(None), image=[1] * 40)
    assert "0 of its columns image, label hold bytes" in refused("parquet", single)
    whole = parquet(single, slice(None)).read_bytes()
    for turn in range(40):
        broken = bytearray(whole if turn % 2 else whole[: RNG.integers(len(whole))])
        if turn % 2:
            broken[-RNG.integers(1, 400)] ^= 1 << int(RNG.integers(8))
        single.write_bytes(broken)
        assert "\n" not in answer_of("parquet", single)


def test_without_pyarrow_the_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install 'netdepth[parquet]'" in refused("parquet", tmp_path / "a.parquet")
