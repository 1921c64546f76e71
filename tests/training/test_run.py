"""Runs on real (embedded) digits: repeatable, resumable, honest about test data and divergence."""

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess

import numpy as np
import PIL
import pytest
import torch
from support.real_runs import CONFIG, make, same, weights
from support.real_stacks import digits, quickly

from netdepth import data
from netdepth.config import Component, EarlyStopping, Overfitting, RunConfig, TrainConfig
from netdepth.data.augment import AUGMENTATIONS
from netdepth.errors import BadInput
from netdepth.training import process
from netdepth.training.finished import Run
from netdepth.training.resolve import fill_in, fingerprint


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return make(tmp_path_factory.mktemp("reference"))


def test_the_folder_explains_the_run(reference):
    folder, result = reference.run, reference.result
    assert folder.path.name.startswith("test-mnist5k-s0-")
    config = folder.read_json("config.json")
    assert folder.path.name.endswith(config["fingerprint"])
    assert config["optimizer"]["args"]["lr"] == 1e-3
    assert config["model"]["version"] == 1
    environment = folder.read_json("environment.json")
    assert environment["threads"] == 1
    assert environment["torch"] == torch.__version__
    assert environment["pictures"]["pillow"] == PIL.__version__
    assert not any(os.environ["HOME"] in str(value) for value in environment.values())
    assert result["status"] == "completed"
    assert result["reported"] == "last"
    assert result["steps"] == 4 * 47
    assert result["depth"] == 2
    assert result["num_params"] == 784 * 16 + 16 + 16 * 10 + 10
    assert result["weights_sha256"] == hashlib.sha256(weights(folder, result["steps"])).hexdigest()
    records = folder.read_metrics()
    assert [r["step"] for r in records] == [47, 94, 141, 188]
    assert [r["epoch"] for r in records] == [1, 2, 3, 4]
    assert records[-1]["gap"] == records[-1]["val_loss"] - records[-1]["train_loss"]
    assert records[-1]["grad_norm"] == pytest.approx(sum(v**2 for v in records[-1]["layer_grad_norms"].values()) ** 0.5)
    assert result["val"]["last"]["loss"] == pytest.approx(records[-1]["val_loss"], abs=1e-6)
    assert 0.5 < result["test"]["last"]["accuracy"] < 1
    assert sum(map(sum, result["confusion"])) == 1000
    predictions = np.load(folder.path / "predictions.npz", allow_pickle=False)
    assert np.mean(predictions["logits"].argmax(1) == predictions["labels"]) == result["test"]["last"]["accuracy"]
    assert not list(folder.path.rglob("*.tmp"))


def test_the_same_seed_gives_the_same_bits_and_another_does_not(reference, tmp_path):
    again = make(tmp_path / "again")
    same(reference.run, again.run)
    other = make(tmp_path / "other", CONFIG.with_seed(1))
    assert other.result["weights_sha256"] != reference.result["weights_sha256"]
    assert other.run.path.name.split("-")[-1] == reference.run.path.name.split("-")[-1]
    assert other.run.read_json("split.json") == reference.run.read_json("split.json")


def test_fingerprint_changes_with_what_is_computed_only(reference, tmp_path):
    splits = data.load(CONFIG.dataset, data_dir=None)
    mark = fingerprint(fill_in(CONFIG), splits.spec)
    assert mark == reference.run.read_json("config.json")["fingerprint"]
    model = Component("mlp", {"hidden": [16], "dropout": 0.2, "init": "default"}, 1)
    explicit = RunConfig(CONFIG.dataset, model, train=TrainConfig(budget="004ep", batch_size=64), seed=5)
    assert fingerprint(fill_in(explicit), splits.spec) == mark
    changed = RunConfig(dataset=CONFIG.dataset, model=CONFIG.model, train=TrainConfig(budget="5ep", batch_size=64))
    assert fingerprint(fill_in(changed), splits.spec) != mark


OVERFITTING = RunConfig(
    dataset=Component("mnist5k"),
    model=Component("mlp", {"hidden": [128]}),
    optimizer=Component("adam", {"lr": 5e-3}),
    train=TrainConfig(
        budget="40ep",
        batch_size=64,
        early_stopping=EarlyStopping(patience=6),
        overfitting=Overfitting(patience=3),
    ),
)


def test_early_stopping_reports_the_best_weights_and_the_onset(tmp_path):
    finished = make(tmp_path, OVERFITTING)
    result, records = finished.result, finished.run.read_metrics()
    losses = [r["val_loss"] for r in records]
    best = losses.index(min(losses))
    assert result["status"] == "stopped_early"
    assert result["reported"] == "best"
    assert len(records) == best + 1 + 6
    assert result["best_step"] == records[best]["step"]
    assert [r["best"] for r in records].index(True, best) == best
    assert result["val"]["best"]["loss"] == pytest.approx(min(losses), abs=1e-6)
    assert result["val"]["last"]["loss"] == pytest.approx(losses[-1], abs=1e-6)
    assert result["weights_sha256"] == hashlib.sha256(weights(finished.run, result["best_step"])).hexdigest()
    assert result["overfit_onset_epoch"] is not None
    assert result["overfit_onset_epoch"] > result["best_epoch"]
    assert records[-1]["overfit_onset_epoch"] == result["overfit_onset_epoch"]
    assert result["gap"]["last"] == result["val"]["last"]["loss"] - result["train"]["last"]["loss"]

    # What test saw are the best weights: recompute from the checkpoint alone.
    test = data.load(OVERFITTING.dataset, data_dir=None).test.open_test("checking the reported numbers")
    with torch.inference_mode():
        predicted = Run(finished.run).model()(test.inputs).argmax(1)
    assert float((predicted == test.labels).double().mean()) == result["test"]["best"]["accuracy"]


def test_divergence_is_a_result_caught_within_one_step(tmp_path):
    model, optimizer = Component("mlp", {"hidden": [16]}), Component("sgd", {"lr": 1e30})
    config = RunConfig(CONFIG.dataset, model, optimizer=optimizer, train=TrainConfig(budget="3ep", batch_size=64))
    finished = make(tmp_path, config)
    result = finished.result
    assert result["status"] == "diverged"
    (record,) = finished.run.read_metrics()
    # Step 1 is finite and made; the first non-finite loss is the next step's, and ends the run.
    assert 1 <= record["step"] <= 3
    assert record["val_loss"] is None
    assert "val_loss" in record["nonfinite"]
    stored = json.loads((finished.run.path / "result.json").read_text())
    assert stored["test"]["last"]["loss"] is None
    assert "test.last.loss" in stored["nonfinite"]
    assert stored["weights_sha256"] is None
    assert finished.run.status() == "diverged"
    assert make(tmp_path, config).cached


def test_evaluation_periods_in_steps_clipping_and_float64(tmp_path):
    train = TrainConfig(budget="100it", eval_every="30it", batch_size=64, grad_clip_norm=0.05, precision="float64")
    finished = make(tmp_path, RunConfig(CONFIG.dataset, CONFIG.model, train=train))
    records = finished.run.read_metrics()
    assert [r["step"] for r in records] == [30, 60, 90, 100]
    assert all(r["grad_norm"] <= 0.05 * (1 + 1e-5) for r in records)
    assert np.load(finished.run.path / "predictions.npz", allow_pickle=False)["logits"].dtype == np.float64


def test_without_validation_images_there_is_nothing_to_stop_on(tmp_path, monkeypatch):
    nothing = data.Split(digits().val.inputs[:0], digits().val.labels[:0])
    monkeypatch.setattr(data, "load", lambda *_, **__: dataclasses.replace(digits(), val=nothing))
    stopping = dataclasses.replace(CONFIG, train=TrainConfig(budget="20it", early_stopping=EarlyStopping()))
    with pytest.raises(BadInput, match="no validation images"):
        make(tmp_path, stopping)
    finished = make(tmp_path, dataclasses.replace(CONFIG, train=TrainConfig(budget="20it")))
    kept = finished.run.result()
    assert finished.result["val"]["last"]["loss"] is None
    assert (kept["val"]["last"], kept["gap"]) == (finished.result["val"]["last"], finished.result["gap"])
    assert "nonfinite" not in kept, "nothing was NaN: there was nothing to look at"
    assert 0 < finished.result["test"]["last"]["accuracy"] < 1


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
@pytest.mark.parametrize(
    ("part", "component"),
    [
        ("optimizer", Component("adam", {"lr": -1})),
        ("schedule", Component("cosine", {"warmup": 2})),
        ("model", Component("mlp", {"hidden": [8], "dropout": 2})),
    ],
)
def test_a_setting_out_of_range_leaves_no_run_folder(tmp_path, part, component):
    (setting,) = component.args.keys() - {"hidden"}
    with pytest.raises(BadInput, match=rf"{part}\.{setting} = .* takes 0"):
        make(tmp_path, dataclasses.replace(CONFIG, **{part: component}))
    assert not list(tmp_path.glob("single/*"))


def test_asking_for_the_code_version_leaves_the_checkout_alone(tmp_path):
    """`git status` would write its index anew, under a lock that stays if the run is interrupted then."""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    (tmp_path / "file").write_text("content")
    for command in (["init", "-q"], ["add", "file"], ["commit", "-q", "-m", "x"]):
        subprocess.run([*git, *command], check=True)
    os.utime(tmp_path / "file", (10**9, 10**9))  # the index no longer knows that the file is unchanged
    index = (tmp_path / ".git" / "index").read_bytes()
    commit, changed = process._code_version(tmp_path)
    assert len(commit) == 40
    assert changed is False
    assert (tmp_path / ".git" / "index").read_bytes() == index


def test_no_image_but_those_of_training_steps_is_altered(tmp_path, monkeypatch):
    """Neither the evaluations along training nor the final ones, which see the training images as they are."""
    build, seen = AUGMENTATIONS.build, []

    def counting(*context):
        augment = build(*context)
        return lambda images, seed: (seen.append(len(images)), augment(images, seed))[1]

    monkeypatch.setattr(AUGMENTATIONS, "build", counting)
    with quickly():
        result = make(tmp_path, dataclasses.replace(CONFIG, augmentation=Component("crop-flip"))).result
    assert sum(seen) == 4 * len(digits().train)
    assert len(seen) == result["steps"]
