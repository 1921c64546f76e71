"""What a folder of pictures is known by: its content, not its place."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
from support.folders import make, put, splits_of

from netdepth.api import ask, plan
from netdepth.config import Component, Runtime
from netdepth.data import DATASETS, image_folder, manage
from netdepth.errors import BadInput
from netdepth.overrides import dataset_overrides
from netdepth.recipes import resolve as recipe
from netdepth.training.resolve import fill_in, fingerprint
from netdepth.training.run import Finished, run


def mark(path: Path, **settings: object) -> str:
    """The fingerprint of a run on the folder."""
    _, config = recipe("baseline-mlp")
    config = dataclasses.replace(config, dataset=Component("image-folder", {"path": str(path), **settings}))
    return fingerprint(fill_in(config), splits_of(path, **settings).spec)


def test_the_content_enters_the_fingerprint_and_the_path_does_not(tmp_path: Path) -> None:
    root = make(tmp_path / "a", train=3, test=1)
    known = mark(root)
    assert splits_of(root).spec.data_digest == digest_by_hand(root)
    shutil.copytree(root, tmp_path / "elsewhere")
    assert mark(tmp_path / "elsewhere") == known
    assert splits_of(tmp_path / "elsewhere").spec == splits_of(root).spec
    others = {known, mark(root, size=3), mark(root, channels=1), mark(root, val_size=2)}
    put(root / "train/ant/00.png", 99)
    others.add(mark(root))
    (root / "train/ant/00.png").rename(root / "train/ant/0.png")
    others.add(mark(root))
    put(root / "test/ant/more.png", 98)
    others.add(mark(root))
    assert len(others) == 7


def digest_by_hand(root: Path) -> str:
    """sha256 of the sorted, compact JSON of {part: sha256 of that of {name: sha256 of the bytes}}."""

    def packed(value: object) -> str:
        return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    files = {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in root.glob("*/*/*")}
    parts = {name.partition("/")[0] for name in files}
    return packed({part: packed({k: v for k, v in files.items() if k.startswith(part)}) for part in parts})


def test_what_did_not_change_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make(tmp_path, train=3, test=1)
    read: list[str] = []
    original = image_folder._read
    monkeypatch.setattr(image_folder, "_read", lambda path: (read.append(path.name), original(path))[1])
    splits_of(root)
    splits_of(root)
    assert len(read) == 8 + 8 + 8 + 2, (
        "hashed twice because it is new, decoded once, and the first of each part to know the size"
    )
    monkeypatch.setattr(image_folder, "SETTLED_SECONDS", -60.0)  # as if it were old
    first = splits_of(root).spec
    read.clear()
    assert splits_of(root).spec == first
    assert read == []
    path = root / "train/ant/00.png"
    before = path.stat()
    path.write_bytes(path.read_bytes()[:-1] + b"?")  # of the same length
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert splits_of(root).spec.data_digest != first.data_digest
    for stamp in (tmp_path.parent, image_folder.user_cache() / "folders"):
        for file in stamp.glob("*.json"):
            file.write_bytes(b'{"schema": 1, "contents": {}}')
    assert splits_of(root).spec.data_digest != first.data_digest


def test_a_run_without_test_data_and_the_same_folder_elsewhere(tmp_path: Path) -> None:
    root = make(tmp_path / "here", train=6, val=2)
    runtime = Runtime(runs_root=tmp_path / "runs", probes=False)

    def trained(path: Path) -> Finished:
        settings = ["train.budget=2ep", "model.hidden=[4]", "train.batch_size=4"]
        name, (config,), _ = plan("baseline-mlp", dataset=f"image-folder:{path}", overrides=settings)
        return run(config, runtime, name=name, study="single")

    first = trained(root)
    assert first.result["test"] is None
    assert first.result["evaluated_on"] == "val"
    assert (first.run.read_json("config.json") or {})["dataset"]["args"]["path"] == str(root)
    assert (first.run.read_json("split.json") or {})["sizes"] == {"train": 12, "val": 4}
    root.rename(tmp_path / "there")
    again = trained(tmp_path / "there")
    assert again.cached
    assert again.run.path == first.run.path
    with pytest.raises(BadInput, match="here' is not a folder"):
        trained(root)


def test_the_path_behind_a_colon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    here = os.path.abspath(".")
    assert dataset_overrides(None) == []
    assert dataset_overrides("mnist") == ["dataset=mnist"]
    assert dataset_overrides("image-folder:7") == ["dataset=image-folder", f'dataset.path="{here}/7"']
    assert dataset_overrides("image-folder:a:b=c")[1] == f'dataset.path="{here}/a:b=c"'
    assert dataset_overrides("image-folder:~/x")[1] == f'dataset.path="{os.environ["HOME"]}/x"'
    with pytest.raises(BadInput, match="names no folder; write image-folder:PATH"):
        dataset_overrides("image-folder:")
    with pytest.raises(BadInput, match="unknown setting of dataset 'mnist5k': 'path'"):
        fill_in(plan("baseline-mlp", dataset="mnist5k:there")[1][0])
    base = ask("depth-mlp", dataset="image-folder:there")[0].base
    assert base.dataset == Component("image-folder", {"path": f"{here}/there"})


def test_how_it_is_listed() -> None:
    (row,) = [row for row in manage.list_datasets(None) if row.name == "image-folder"]
    assert row.where == "yours"
    with pytest.raises(BadInput, match="nothing to fetch"):
        manage.fetch("image-folder")
    assert "needs path" in manage.verify("image-folder")[0].message
    assert DATASETS.entry("image-folder").unhashed == {"path"}
