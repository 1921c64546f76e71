"""A user's own pictures by class; a folder is known by its content, not its place."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.folders import CLASSES, make, put, splits_of, values

from netdepth.api import plan
from netdepth.config import Component, Runtime
from netdepth.conformance import SUITES
from netdepth.data import DATASETS, image_folder, load, manage
from netdepth.errors import BadInput, NetdepthError
from netdepth.overrides import dataset_overrides
from netdepth.recipes import resolve as recipe
from netdepth.studies.ask import ask
from netdepth.training.resolve import fill_in, fingerprint
from netdepth.training.run import Finished, run

# --- layouts ----------------------------------------------------------------------------------


def test_all_three_parts(tmp_path: Path) -> None:
    assert splits_of(make(tmp_path / "without test", train=3, val=2)).test is None
    splits = splits_of(make(tmp_path / "all", train=3, val=2, test=1))
    assert splits.spec.classes == CLASSES
    assert splits.spec.input_shape == (3, 4, 4)
    assert splits.spec.sizes == {"train": 6, "val": 4, "test": 2}
    assert values(splits.train) == [0, 1, 2, 100, 101, 102]
    assert values(splits.val) == [30, 31, 130, 131]
    assert splits.val.labels.tolist() == [0, 0, 1, 1]
    assert splits.test is not None
    test = splits.test.open_test("a test")
    assert values(test) == [60, 160]
    assert test.labels.tolist() == [0, 1]
    assert splits.spec.note == ""
    for split in (splits.train, splits.val, test):
        assert split.inputs.is_contiguous()
        assert split.inputs.dtype == torch.uint8
        assert split.labels.dtype == torch.int64
    findings = SUITES["dataset"](Component("image-folder", {"path": str(tmp_path / "all")}), None)
    assert [promise for promise, kept, _ in findings if not kept] == []


def test_without_val_it_is_drawn_from_train_with_equal_class_shares(tmp_path: Path) -> None:
    make(tmp_path, train=10, test=1)
    everything = {*range(10), *range(100, 110)}
    for val_size, count in ((None, 2), (0.3, 6), (4, 4), (0, 0), (0.001, 1)):
        splits = splits_of(tmp_path, val_size=val_size)
        assert len(splits.val) == splits.spec.sizes["val"] == count
        assert torch.bincount(splits.val.labels, minlength=2).diff().abs() <= count % 2
        train, val = values(splits.train), values(splits.val)
        assert set(train) | set(val) == everything
        assert len(train) + len(val) == 20
        assert all((value >= 100) == label for value, label in zip(train, splits.train.labels.tolist(), strict=True))
        assert splits_of(tmp_path, val_size=val_size).spec == splits.spec


def test_size_channels_and_kinds_of_files(tmp_path: Path) -> None:
    put(tmp_path / "train/ant/a.JPEG", 10, (9, 4))
    put(tmp_path / "train/ant/b.jpg", 20, (4, 9))
    put(tmp_path / "train/bee/c.PNG", 30, (5, 5))
    put(tmp_path / "train/bee/named-wrongly.jpg", 40).write_bytes((tmp_path / "train/bee/c.PNG").read_bytes())
    splits = splits_of(tmp_path, size=6, channels=1, val_size=0)
    assert splits.spec.input_shape == (1, 6, 6)
    assert values(splits.train) == [10, 20, 30, 30]
    with pytest.raises(BadInput, match=r"b\.jpg': it is 4 × 9 pixels where others are 9 × 4.*size=4"):
        splits_of(tmp_path, val_size=0)


def test_unusual_names_links_and_hidden_files(tmp_path: Path) -> None:
    make(tmp_path / "real", train=2, test=1)
    root = tmp_path / "root"
    root.mkdir()
    (root / "train").symlink_to(tmp_path / "real/train")
    for name in ("new\nline.png", "\x1b[31mred.png", "ü  .png", os.fsdecode(b"\xff.png")):
        put(root / "train" / "ant" / name, 50)
    (root / "train" / "bee" / "link.png").symlink_to(root / "train/ant/00.png")
    (root / "train" / "bee" / ".DS_Store").write_bytes(b"x")
    (root / ".hidden").mkdir()
    (root / "README.txt").write_bytes(b"pictures of insects")
    (root / "test").mkdir()
    (root / "test" / "ant").mkdir()
    put(root / "test" / "bee" / "0.png", 3)
    splits = splits_of(root, val_size=0)
    assert sorted(values(splits.train)) == [0, 0, 1, 50, 50, 50, 50, 100, 101]
    assert splits.spec.sizes["test"] == 1


def test_pixels_that_are_in_two_parts_are_counted(tmp_path: Path) -> None:
    make(tmp_path, train=3, val=1, test=2)
    put(tmp_path / "test/bee/01.png", 102).rename(tmp_path / "test/bee/01.bmp")  # other bytes
    Image.new("L", (4, 4), 102).save(tmp_path / "test/bee/01.bmp", "BMP")
    spec = splits_of(tmp_path).spec
    assert spec.repeated == {"test": 1}
    assert spec.note == "'test/bee/01.bmp' has the pixels of a training picture"


def test_class_folders_without_train_are_divided_by_a_stated_seed(tmp_path: Path) -> None:
    for label, name in enumerate(("caf\u00e9", "bee")):
        for index in range(20):
            put(tmp_path / name / f"{index:02}.png", 100 * label + index)
    (tmp_path / "README.txt").touch()
    for junk in ("Thumbs.db", "desktop.ini", ".DS_Store"):
        (tmp_path / "bee" / junk).write_bytes(b"x")
    (tmp_path / "__MACOSX").mkdir()
    splits = splits_of(tmp_path)
    assert splits.spec.sizes == {"train": 32, "val": 4, "test": 4}
    assert splits.spec.note == "4 validation and 4 test pictures were drawn with equal class shares, by seed 0"
    assert splits.test is not None
    parts = [values(part) for part in (splits.train, splits.val, splits.test.open_test("a test"))]
    assert sorted(value for part in parts for value in part) == [*range(20), *range(100, 120)]
    assert [sum(value >= 100 for value in part) for part in parts] == [16, 2, 2]
    assert splits_of(tmp_path).spec == splits.spec
    assert splits_of(tmp_path, test_size=0).test is None
    assert splits_of(tmp_path, test_size=0.5, val_size=0).spec.sizes == {"train": 20, "val": 0, "test": 20}
    with pytest.raises(BadInput, match="is divided already; leave it null"):
        splits_of(make(tmp_path / "other", train=3), test_size=2)


def test_classes_without_a_test_picture_are_named(tmp_path: Path) -> None:
    for place in [*np.ndindex(2, 20), (2, 0)]:
        path = tmp_path / f"class-{place[0]}" / f"{place[1]}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((8, 8), 20 * place[1] % 255 + place[0], np.uint8)).save(path)
    assert "test has no picture of 1 of 3 classes ('class-2')" in splits_of(tmp_path).spec.note


def test_pictures_of_16_bits_that_hold_12_are_noted(tmp_path: Path) -> None:
    given = np.random.default_rng(0).integers(0, 4096, (2, 4, 8, 8), np.uint16)
    for factor, words in ((1, "no pixel is above 15 of 255"), (16, "")):
        for place in np.ndindex(2, 4):
            path = tmp_path / str(factor) / f"class-{place[0]}" / f"{place[1]}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(given[place] * factor).save(path)
        note = splits_of(tmp_path / str(factor)).spec.note
        assert ("no pixel is above" in note) == bool(words)
        assert words in note


def test_class_names_are_compared_in_their_composed_form(tmp_path: Path) -> None:
    put(tmp_path / "train/caf\u00e9/0.png", 1)
    put(tmp_path / "train/bee/0.png", 2)
    put(tmp_path / "test/cafe\u0301/0.png", 3)
    assert splits_of(tmp_path).spec.sizes == {"train": 2, "val": 0, "test": 1}


# --- what is refused --------------------------------------------------------------------------


def refused(root: Path, **settings: object) -> str:
    """The one line that a folder is answered with."""
    with pytest.raises(NetdepthError) as caught:
        splits_of(root, **settings)
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    return str(caught.value)


ALTERATIONS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (shutil.rmtree, "is not a folder; it takes a folder that holds train"),
    "no train": (lambda root: shutil.rmtree(root / "train"), "has no folder train"),
    "valid": (lambda root: make(root, valid=1), "unknown folder in '.*': 'valid' .did you mean 'val'"),
    "val is a file": (lambda root: put(root / "val", 1), "val' is no folder"),
    "val is a dangling link": (lambda root: (root / "val").symlink_to(root / "nowhere"), "val' is no folder"),
    "empty class": (lambda root: (root / "train/cow").mkdir(), "cow' holds no pictures"),
    "one class": (lambda root: shutil.rmtree(root / "train/bee"), "holds 1 folders of classes; it takes 2"),
    "unknown class": (lambda root: put(root / "test/bea/0.png", 1), "unknown class .* 'bea' .did you mean 'bee'"),
    "empty test": (lambda root: [shutil.rmtree(root / "test" / name) for name in CLASSES], "test' holds no pictures"),
    "file for class": (lambda root: put(root / "train/x.png", 1), r"x\.png' is no folder"),
    "file for class in test": (lambda root: put(root / "test/x.png", 1), r"x\.png' is no folder"),
    "class name": (lambda root: put(root / "train/\x1b[31m\n/x.png", 1), r"\\x1b\[31m\\n' cannot be a class"),
    "text": (
        lambda root: put(root / "train/ant/x.png", 1).rename(root / "train/ant/x.txt"),
        r"x\.txt' is not acceptable: its name ends in none of \.jpg",
    ),
    "several": (
        lambda root: [(root / f"{part}/ant/{i}.txt").touch() for i in range(6) for part in ("train", "test")],
        r"^12 files are not acceptable: '.*train/ant/0\.txt': its name .*'.*test/ant/3\.txt': .*; and 2 more$",
    ),
    "broken in two parts": (
        lambda root: [(root / f"{part}/ant/00.png").write_bytes(b"?") for part in ("train", "test")],
        r"^2 pictures are not acceptable: '.*train/ant/00\.png': .*; '.*test/ant/00\.png': it is none of",
    ),
    "one name twice": (
        lambda root: [(root / "train" / name).mkdir() for name in ("caf\u00e9", "cafe\u0301")],
        "has two folders 'caf\u00e9', encoded differently",
    ),
    "deeper": (lambda root: (root / "train/ant/x.png").mkdir(), r"x\.png' is not acceptable: it is a folder"),
    "Train": (
        lambda root: (root / "train").rename(root / "Train"),
        "unknown folder in .*'Train' .did you mean 'train'",
    ),
    "training alone": (
        lambda root: [(root / "train").rename(root / "Training"), shutil.rmtree(root / "test")],
        "unknown folder in .*'Training' .did you mean 'train'",
    ),
    "pipe": (lambda root: os.mkfifo(root / "train/ant/x.png"), r"x\.png' is not acceptable: it is not a file"),
    "dangling": (
        lambda root: (root / "train/ant/x.png").symlink_to("nowhere"),
        r"x\.png' is not acceptable: it is a link to a file that",
    ),
    "loop": (lambda root: (root / "train/ant/x.png").symlink_to("x.png"), r"cannot read .*x\.png.*symbolic links"),
    "broken": (
        lambda root: (root / "train/ant/x\n.png").write_bytes(b"?"),
        r"x\\n\.png' is not acceptable: it is none of",
    ),
    "empty": (lambda root: (root / "test/ant/x.png").write_bytes(b""), r"x\.png' is not acceptable: it is empty"),
    "large": (
        lambda root: os.truncate(put(root / "test/ant/x.png", 1), 2**40),
        r"x\.png' is not acceptable: it has 1099511627776 bytes",
    ),
}


@pytest.mark.parametrize("name", ALTERATIONS)
def test_a_folder_of_another_layout_is_refused_in_one_line_that_names_the_place(name: str, tmp_path: Path) -> None:
    alter, words = ALTERATIONS[name]
    root = make(tmp_path / "pictures", train=2, test=1)
    alter(root)
    assert re.search(words, refused(root)), refused(root)


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    make(tmp_path, train=2)
    monkeypatch.setattr(Path, "read_bytes", broken)
    assert refused(tmp_path).endswith("train/ant/00.png': Permission denied")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"val_size": -1}, "val_size = -1 is out of range"),
        ({"val_size": 4}, "val_size = 4 is out of range"),
        ({"val_size": 1.0}, "dataset.val_size = 1.0 is out of range; it takes a count, or a share below 1"),
        ({"val_size": "many"}, "dataset.val_size = 'many' is not acceptable"),
        ({"size": 0}, "dataset.size = 0 is out of range"),
        ({"size": 10**9}, "dataset.size = 1000000000 is out of range"),
        ({"channels": 4}, "dataset.channels = 4 is not acceptable; it takes 1 | 3"),
        ({"path": "nul\0"}, "is not a folder"),
        ({"path": "~nobody-of-that-name/pictures"}, "is not a folder"),
    ],
)
def test_settings_out_of_range(settings: dict[str, object], words: str, tmp_path: Path) -> None:
    assert words in refused(make(tmp_path, train=2), **settings)


def test_val_size_beside_a_folder_val_and_no_path(tmp_path: Path) -> None:
    assert "has validation data; leave it null" in refused(make(tmp_path, train=2, val=1), val_size=1)
    with pytest.raises(BadInput, match="dataset 'image-folder' needs path"):
        load(Component("image-folder"), data_dir=None)


# --- identity ----------------------------------------------------------------------------------


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
    assert len(read) == 8 + 8 + 8 + 1, "hashed twice because it is new, decoded once, and its first to know the size"
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
    with pytest.raises(BadInput, match="names no file or folder; write image-folder:PATH"):
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
