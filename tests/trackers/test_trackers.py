"""Every tracker mirrors the run folder exactly: read back with TensorBoard's and wandb's own tools."""

from __future__ import annotations

import io
import json
import math
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.tracked_runs import (
    CLASSES,
    FINGERPRINT,
    STEPS_PER_EPOCH,
    finish_run,
    new_run,
    read_events,
    record,
    silent_server,
    wandb_history,
    wandb_records,
)

from netdepth.errors import StorageError
from netdepth.runs.folder import RunDir
from netdepth.trackers import TRACKERS, Mirrors, sync
from netdepth.trackers.base import Values, tracker_record
from netdepth.trackers.wandb import require_complete

EPOCHS = 6
NAN_EPOCH = 4
KEY = "0123456789" * 4
GENEROUS = 60.0
"""Seconds; these tests are about content. What a fault may cost is tested beside."""


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run followed live by every tracker: interrupted after three epochs, resumed from the second, finished."""
    run = new_run(tmp_path_factory.mktemp("live"))
    begun = time.perf_counter()
    mirrors = Mirrors.start(run.path, TRACKERS.names())
    assert time.perf_counter() - begun < 0.5, "the training does not wait for its trackers to start"
    for epoch in (1, 2, 3):
        run.append_metrics(record(epoch))
    assert mirrors.finish(time.monotonic() + GENEROUS) == []
    assert all(any((run.path / name).iterdir()) for name in TRACKERS.names())

    mirrors = Mirrors.start(run.path, TRACKERS.names())
    run.truncate_metrics(2 * STEPS_PER_EPOCH)

    for epoch in range(3, EPOCHS + 1):
        line = record(epoch, train_loss=math.nan if epoch == NAN_EPOCH else None)
        if epoch == NAN_EPOCH:
            line["layer_grad_norms"]["layers.0.weight"] = math.inf
        run.append_metrics(line)
    deadline = time.monotonic() + GENEROUS
    while EPOCHS * STEPS_PER_EPOCH not in steps_on_the_board(run):  # while the run is still going on
        assert time.monotonic() < deadline
        time.sleep(0.1)
    finish_run(run, EPOCHS)
    assert mirrors.finish(time.monotonic() + GENEROUS) == []
    assert not list(run.path.glob("tracker-*.log"))
    return run


@pytest.fixture(scope="module")
def rebuilt(live: RunDir, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunDir, list[socket.socket]]]:
    """The same folder moved elsewhere, its mirrors rebuilt by `sync` where a key for W&B is stored; who was asked."""
    root = tmp_path_factory.mktemp("rebuilt")
    (root / "home").write_text("a home that cannot be written to")
    run = RunDir(root / "single" / live.path.name)
    shutil.copytree(live.path, run.path)
    with silent_server() as (url, taken), pytest.MonkeyPatch.context() as patch:
        (root / "netrc").write_text(f"machine {url.removeprefix('http://')} login user password {KEY}\n")
        stored = {"HOME": root / "home", "NETRC": root / "netrc", "WANDB_API_KEY": KEY, "WANDB_BASE_URL": url}
        for name, value in {**stored, "WANDB_MODE": "online", "WANDB_PROJECT": "other"}.items():
            patch.setenv(name, str(value))
        for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
            patch.delenv(name, raising=False)
        for name in TRACKERS.names():
            assert sync(run, name) == run.path / name
        yield run, taken


def steps_on_the_board(run: RunDir) -> list[int]:
    from tensorboard.backend.event_processing.directory_watcher import DirectoryDeletedError
    from tensorboard.compat.tensorflow_stub.errors import NotFoundError

    if not (run.path / "tensorboard").exists():
        return []
    try:
        events = read_events(run)
    except (DirectoryDeletedError, NotFoundError):  # a resumed run's board is made anew, at any moment
        return []
    return [event.step for event in events.Scalars("val/loss")] if "val/loss" in events.Tags()["scalars"] else []


def expected(run: RunDir) -> dict[int, dict[str, Any]]:
    """Step -> tracker name -> scalar, straight from ``metrics.jsonl``."""
    records = {line["step"]: Values.of(tracker_record(line)).scalars for line in run.read_metrics()}
    assert list(records) == [STEPS_PER_EPOCH * epoch for epoch in range(1, EPOCHS + 1)]
    return records


@pytest.fixture(params=["live", "rebuilt"])
def run(request: pytest.FixtureRequest) -> RunDir:
    found = request.getfixturevalue(request.param)
    return found if request.param == "live" else found[0]


def test_tensorboard_scalars_are_the_metrics(run: RunDir) -> None:
    events = read_events(run)
    records = expected(run)
    names = {name for values in records.values() for name in values}
    assert {"train/loss", "val/accuracy", "lr", "gradients/norm", "overfitting/gap", "overfitting/count"} <= names
    for name in names:
        found = [(event.step, event.value) for event in events.Scalars(name)]
        wanted = [(step, float(np.float32(values[name]))) for step, values in records.items() if name in values]
        np.testing.assert_array_equal(found, wanted, err_msg=name)
    times = [event.wall_time for event in events.Scalars("train/loss")]
    np.testing.assert_allclose(np.diff(times), 0.25, atol=1e-6)  # the records' own seconds


def test_tensorboard_final_metrics_and_figures(live: RunDir) -> None:
    events = read_events(live)
    result = live.result()
    for name, value in result["test"]["best"].items():
        (event,) = events.Scalars(f"test/{name}")
        assert (event.step, event.value) == (result["steps"], np.float32(value))
    (image,) = events.Images("confusion")
    from PIL import Image

    picture = Image.open(io.BytesIO(image.encoded_image_string))
    picture.load()
    assert picture.size == (image.width, image.height)
    assert len(picture.getcolors(1 << 20) or ()) > 10


def test_tensorboard_histogram_holds_the_layer_norms(live: RunDir) -> None:
    from tensorboard.util.tensor_util import make_ndarray

    events = read_events(live).Tensors("gradients/layer_norms")
    assert [event.step for event in events] == list(expected(live))
    for event, line in zip(events, live.read_metrics(), strict=True):
        norms = [norm for norm in line["layer_grad_norms"].values() if norm is not None]
        left, right, count = make_ndarray(event.tensor_proto).T
        assert (left[0], right[-1], count.sum()) == (min(norms), max(norms), len(norms))
    assert count.sum() == 4
    assert make_ndarray(events[NAN_EPOCH - 1].tensor_proto)[:, 2].sum() == 3  # infinity fits no bucket


def test_tensorboard_hyperparameters(live: RunDir) -> None:
    from tensorboard.plugins.hparams.metadata import SESSION_END_INFO_TAG, SESSION_START_INFO_TAG
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    events = read_events(live)

    def plugin_data(tag: str) -> HParamsPluginData:
        return HParamsPluginData.FromString(events.SummaryMetadata(tag).plugin_data.content)

    start = plugin_data(SESSION_START_INFO_TAG).session_start_info
    values = {name: getattr(value, value.WhichOneof("kind")) for name, value in start.hparams.items()}
    assert values["model"] == "mlp"
    assert values["model.hidden"] == "[256, 128]"
    assert values["optimizer.lr"] == 1e-3
    assert values["train.budget"] == "5ep"
    assert values["model.bias"] is True
    assert values["seed"] == 3
    assert start.group_name == live.path.name
    assert plugin_data(SESSION_END_INFO_TAG).session_end_info.status == 1  # STATUS_SUCCESS


def test_a_stored_key_alone_uploads_nothing(rebuilt: tuple[RunDir, list[socket.socket]]) -> None:
    run, taken = rebuilt
    assert taken == []
    for path in (run.path / "wandb").rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes()


def test_wandb_history_is_the_metrics(run: RunDir) -> None:
    history = wandb_history(run)
    records = expected(run)
    assert list(history) == list(records)
    for step, values in records.items():
        np.testing.assert_equal({name: history[step][name] for name in values}, values)
    for line in run.read_metrics():
        norms = [norm for norm in line["layer_grad_norms"].values() if norm is not None]
        assert sum(history[line["step"]]["gradients/layer_norms.values"]) == len(norms)


def test_wandb_config_summary_and_artifact(live: RunDir) -> None:
    kinds: dict[str, list[Any]] = {}
    for message in wandb_records(live):
        kind = message.WhichOneof("record_type")
        kinds.setdefault(kind, []).append(getattr(message, kind))
    (start,) = kinds["run"]
    assert (start.run_id, start.project) == (f"{FINGERPRINT}-s3", "netdepth")
    assert (start.host, start.git.remote_url) == ("", "")
    config = {item.key: json.loads(item.value_json) for item in start.config.update}
    assert config["model"] == {"name": "mlp", "args": {"hidden": [256, 128], "init": "he", "bias": True}, "version": 1}
    assert config["split"]["classes"] == CLASSES
    assert config["environment"]["threads"] == 2

    result = live.result()
    summary = {}
    for update in kinds["summary"]:
        summary.update({item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in update.update})
    for name, value in result["test"]["best"].items():
        assert summary[f"test/{name}"] == value
    wanted = {"status": "completed", "best_step": 80, "best_epoch": 2.0, "num_params": 235_146}
    assert {name: summary[name] for name in wanted} == wanted

    (artifact,) = kinds["artifact"]
    (entry,) = artifact.manifest.contents
    weights = live.path / "checkpoints" / "80" / "model.safetensors"
    assert (artifact.type, entry.path, entry.size) == ("model", weights.name, weights.stat().st_size)
    assert Path(entry.local_path).read_bytes() == weights.read_bytes()

    (files,) = kinds["files"]
    (picture,) = live.path.glob("wandb/*-run-*/files/media/images/confusion_*.png")
    assert [item.path for item in files.files] == [str(picture.relative_to(picture.parents[2]))]
    assert len(kinds["exit"]) == 1
    assert "environment" not in kinds  # nothing of the machine, its user or its variables
    assert not set(kinds) & {"stats", "output", "output_raw"}


def test_wandb_log_that_is_cut_off_is_told(live: RunDir, tmp_path: Path) -> None:
    (path,) = live.path.glob("wandb/*-run-*/run-*.wandb")
    require_complete(path, list(expected(live)))
    data = path.read_bytes()
    for size in (0, 5, len(data) // 2, len(data) - 5):
        cut = tmp_path / "cut.wandb"
        cut.write_bytes(data[:size])
        with pytest.raises(StorageError, match=r"cut\.wandb"):
            require_complete(cut, list(expected(live)))
    with pytest.raises(StorageError, match="1 evaluations missing"):
        require_complete(path, [*expected(live), 999_999])
