"""``netdepth train`` of a finished run answers without torch, the same as with it, and never from what has changed."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.cli_world import answer

from netdepth import api
from netdepth.config import Component, EarlyStopping, RunConfig, Runtime, StartFrom, TrainConfig, to_json
from netdepth.owncode import Origin
from netdepth.runs import asked
from netdepth.runs.asked import find, keys_of
from netdepth.runs.folder import RunDir

CONFIG = RunConfig(
    dataset=Component("mnist5k"),
    model=Component("mlp", {"hidden": [4]}),
    train=TrainConfig(budget="2it", eval_every="2it"),
)


def key_of(config: RunConfig, runtime: Runtime) -> str | None:
    (key,) = keys_of([config], runtime)
    return key


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RunDir | None]:
    """Train `CONFIG`; then ask for it again, with another config or runtime."""
    monkeypatch.chdir(tmp_path)
    runtime = Runtime(runs_root=Path("runs"))
    api.train_runs(CONFIG, runtime, progress=False)

    def ask(config: RunConfig = CONFIG, **changes: object) -> RunDir | None:
        changed = dataclasses.replace(runtime, **changes)  # type: ignore[arg-type]
        return find(key_of(config, changed), changed)

    return ask


Ask = Callable[..., RunDir | None]

OTHER_CONFIGS = (
    CONFIG.with_seed(1),
    dataclasses.replace(CONFIG, model=Component("mlp", {"hidden": [5]})),
    dataclasses.replace(CONFIG, optimizer=Component("adam", {"lr": 0.01})),
    dataclasses.replace(CONFIG, dataset=Component("mnist5k", {"val_size": 500})),
    dataclasses.replace(CONFIG, train=TrainConfig(budget="4it", eval_every="2it")),
    dataclasses.replace(CONFIG, train=dataclasses.replace(CONFIG.train, early_stopping=EarlyStopping())),
    dataclasses.replace(CONFIG, start_from=StartFrom("other")),
)


def test_only_the_run_that_was_asked_for_is_found(finished: Ask, tmp_path: Path) -> None:
    run = finished()
    assert run is not None
    assert run.status() == "completed"
    assert finished(threads=2, trackers=("tensorboard",)) is not None, "what is no part of the numbers"
    assert [finished(config) for config in OTHER_CONFIGS] == [None] * len(OTHER_CONFIGS)
    shutil.copytree("runs", "others")
    for changes in ({"fresh": True}, {"sealed": True}, {"device": "cuda"}, {"data_dir": tmp_path}):
        assert finished(**changes) is None
    assert finished(runs_root=Path("others")) is None


def test_a_run_folder_that_is_not_as_it_was_is_looked_up_the_slow_way(finished: Ask, tmp_path: Path) -> None:
    run = finished()
    assert run is not None
    for name in ("result.json", "config.json", "split.json", "environment.json"):
        path, content = run.path / name, (run.path / name).read_bytes()
        path.unlink()
        assert finished() is None
        path.write_bytes(content + b" ")
        assert finished() is None
        path.write_bytes(content)
    (run.path / "failure.json").touch()
    assert finished() is None
    (run.path / "failure.json").unlink()
    (run.path / "linked").symlink_to(tmp_path)
    assert finished() is None
    (run.path / "linked").unlink()
    assert finished() is not None
    shutil.rmtree(run.path)
    assert finished() is None


def test_other_data_or_another_release_is_another_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "data" / "mnist5k"
    folder.mkdir(parents=True)
    file = folder / "images.gz"
    keys = set()
    for content in (b"one", b"two"):
        file.write_bytes(content)
        keys.add(key_of(CONFIG, Runtime(data_dir=tmp_path / "data")))
    source = tmp_path / "source" / "runs"
    source.mkdir(parents=True)
    for version in ("1", "2"):  # a default, a version or any other line of the package
        (tmp_path / "source" / "models.py").write_text(f"version = {version}")
        with monkeypatch.context() as changed:
            changed.setattr(asked, "__file__", str(source / "asked.py"))
            keys.add(key_of(CONFIG, Runtime()))
    with monkeypatch.context() as changed:
        changed.setattr(asked, "_torch_version", lambda: "0.0")
        keys.add(key_of(CONFIG, Runtime()))
    keys.add(key_of(CONFIG, Runtime()))
    assert len(keys) == 6
    assert None not in keys


def test_names_that_are_no_data_sets_of_ours_have_no_key(tmp_path: Path) -> None:
    for dataset in (Component(".."), Component("image-folder", {"path": str(tmp_path)})):
        assert key_of(dataclasses.replace(CONFIG, dataset=dataset), Runtime()) is None
    (tmp_path / "mnist5k").mkdir()
    (tmp_path / "mnist5k" / "linked").symlink_to(tmp_path)
    assert key_of(CONFIG, Runtime(data_dir=tmp_path)) is None


def test_a_run_with_a_users_component_is_not_kept(tmp_path: Path) -> None:
    from netdepth.training.optim import SCHEDULES

    mine = Origin("mine", {}, tmp_path / "mine.py", sha256="of a file")
    SCHEDULES._entries["constant"] = dataclasses.replace(SCHEDULES.entry("constant"), origin=mine)
    runtime = Runtime(runs_root=tmp_path)
    api.train_runs(CONFIG, runtime, progress=False)
    assert find(key_of(CONFIG, runtime), runtime) is None


def test_the_answer_is_the_same_and_needs_no_torch(
    finished: Ask, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(to_json(CONFIG)))
    command = ["train", "config.json", "--runs", "runs", "--track", "none"]
    code = "import sys; from netdepth.cli import main; main(sys.argv[1:]); sys.exit('torch' in sys.modules)"
    fast = subprocess.run([sys.executable, "-c", code, *command], env=os.environ, capture_output=True, text=True)
    assert fast.returncode == 0, fast.stderr
    assert "already finished: runs/single/" in fast.stdout
    # Here torch is imported, so the run is found by its fingerprint.
    code, out, err = answer(command, capsys)
    assert (code, out, err) == (0, fast.stdout, fast.stderr)
