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
from netdepth.trackers.base import Values, run_id, tracker_record
from netdepth.trackers.tensorboard import SINGLE, TAGS
from netdepth.trackers.wandb import require_complete

EPOCHS = 6
NAN_EPOCH = 4
KEY = "0123456789" * 4
BELONGS = {
    "WANDB_PROJECT": "digits", "WANDB_ENTITY": "our-lab", "WANDB_TAGS": "first, deep", "WANDB_RUN_GROUP": "tuesday",
    "WANDB_NAME": "mine",
}  # fmt: skip
GENEROUS = 60.0
"""Seconds; these tests are about content. What a fault may cost is tested beside."""


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run followed live by every tracker: interrupted after three epochs, resumed from the second, finished."""
    run = new_run(tmp_path_factory.mktemp("live"))
    mirrors = Mirrors.start(run.path, TRACKERS.names())
    assert not list(run.path.glob("wandb/*-run-*")), "the training does not wait for its trackers to start"
    for epoch in (1, 2, 3):
        run.append_metrics(record(epoch))
    assert mirrors.finish(time.monotonic() + GENEROUS) == []
    assert list(run.path.glob("events.out.tfevents.*"))
    assert list(run.path.glob("wandb/*-run-*"))

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
        for name, value in {**stored, "WANDB_MODE": "online", **BELONGS}.items():
            patch.setenv(name, str(value))
        for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
            patch.delenv(name, raising=False)
        assert sync(run, "tensorboard") == run.path  # TensorBoard names a run after the folder of its events
        assert sync(run, "wandb") == run.path / "wandb"
        yield run, taken


def steps_on_the_board(run: RunDir) -> list[int]:
    from tensorboard.backend.event_processing.directory_watcher import DirectoryDeletedError
    from tensorboard.compat.tensorflow_stub.errors import NotFoundError

    try:
        events = read_events(run)
    except (DirectoryDeletedError, NotFoundError):  # a resumed run's board is made anew, at any moment
        return []
    return [event.step for event in events.Scalars("loss/val")] if "loss/val" in events.Tags()["scalars"] else []


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
    assert names - set(TAGS) == {"overfitting/gap", "overfitting/count", *SINGLE}
    for name in names - set(SINGLE):
        found = [(event.step, event.value) for event in events.Scalars(TAGS.get(name, name))]
        wanted = [(step, float(np.float32(values[name]))) for step, values in records.items() if name in values]
        np.testing.assert_array_equal(found, wanted, err_msg=name)
    times = [event.wall_time for event in events.Scalars("loss/train")]
    np.testing.assert_allclose(np.diff(times), 0.25, atol=1e-6)  # the records' own seconds


def test_tensorboard_opens_on_accuracy_and_loss_and_draws_no_single_points(live: RunDir) -> None:
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer

    board = EventMultiplexer().AddRunsFromDirectory(str(live.path.parent.parent)).Reload()
    (name,) = board.Runs()
    assert name == f"single/{live.path.name}"
    events = read_events(live)
    scalars = events.Tags()["scalars"]
    assert all(len(events.Scalars(tag)) == EPOCHS for tag in scalars)
    everything = sorted([*scalars, *events.Tags()["images"], "optimizer/gradient_norms_of_layers"])
    assert everything[:4] == ["accuracy/train", "accuracy/val", "loss/train", "loss/val"]
    assert [tag.partition("/")[0] for tag in everything[4:]] == sorted(
        ["optimizer"] * 3 + ["overfitting"] * 2 + ["pictures"] + ["time"] * 2
    )


def test_tensorboard_result_and_figures(live: RunDir) -> None:
    from tensorboard.util.tensor_util import make_ndarray

    events = read_events(live)
    (event,) = events.Tensors("result")
    text = make_ndarray(event.tensor_proto).item().decode()
    for name, value in live.result()["test"]["best"].items():
        assert f"| test/{name} | {value} |" in text
    assert "| overfit_onset_epoch | 3.0 |" in text
    (image,) = events.Images("pictures/confusion")
    from PIL import Image

    picture = Image.open(io.BytesIO(image.encoded_image_string))
    picture.load()
    assert picture.size == (image.width, image.height)
    assert len(picture.getcolors(1 << 20) or ()) > 10


def test_tensorboard_histogram_holds_the_layer_norms(live: RunDir) -> None:
    from tensorboard.util.tensor_util import make_ndarray

    events = read_events(live).Tensors("optimizer/gradient_norms_of_layers")
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


def test_the_environment_says_where_a_wandb_run_belongs(rebuilt: tuple[RunDir, list[socket.socket]]) -> None:
    (start,) = (message.run for message in wandb_records(rebuilt[0]) if message.WhichOneof("record_type") == "run")
    found = (start.project, start.entity, list(start.tags), start.run_group, start.display_name)
    assert found == ("digits", "our-lab", ["first", "deep"], "tuesday", "mine")


def test_the_same_run_of_two_people_has_two_ids_and_keeps_its_own(
    live: RunDir, rebuilt: tuple[RunDir, list[socket.socket]], tmp_path: Path
) -> None:
    assert run_id(rebuilt[0].path) == run_id(live.path), "a folder that was moved is the same run"
    assert run_id(new_run(tmp_path).path) != run_id(live.path)
    assert (live.path / "mirror.json").is_file()


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
    assert start.run_id == f"{FINGERPRINT}-s3-{run_id(live.path)}"
    assert (start.project, start.entity, start.run_group, start.display_name) == (
        "netdepth", "", "single", live.path.name,
    )  # fmt: skip
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
