"""The conductor on real (embedded) digits: repeatable, resumable, honest about test data and divergence."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from netdepth import data
from netdepth.config import Component, EarlyStopping, Overfitting, RunConfig, Runtime, TrainConfig, to_json
from netdepth.engine import checkpoint
from netdepth.engine import run as conductor
from netdepth.engine.run import run
from netdepth.errors import BadInput, Interrupted, Locked
from netdepth.launch import exit_code, launch
from netdepth.store import RunDir

CONFIG = RunConfig(
    dataset=Component("mnist5k"),
    model=Component("mlp", {"hidden": [16], "dropout": 0.2}),
    train=TrainConfig(budget="4ep", batch_size=64),
)


def make(tmp_path, config=CONFIG, name="test", **runtime):
    runtime = Runtime(runs_root=tmp_path, threads=1, device="cpu", **runtime)
    return run(config, runtime, name=name, quiet=True)


def weights(folder: RunDir, step: int) -> bytes:
    return (folder.path / "checkpoints" / str(step) / "model.safetensors").read_bytes()


def timeless(value):
    """A result or record without its wall-clock fields."""
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k not in ("seconds", "total_seconds")}
    return value


def same(a: RunDir, b: RunDir) -> None:
    result, other = a.result(), b.result()
    assert result is not None
    assert timeless(result) == timeless(other)
    assert [timeless(r) for r in a.read_metrics()] == [timeless(r) for r in b.read_metrics()]
    for name in ("model.safetensors", "optimizer.safetensors"):
        for step in {result["steps"], result["best_step"]}:
            path = Path("checkpoints") / str(step) / name
            assert (a.path / path).read_bytes() == (b.path / path).read_bytes(), path
    first, second = (np.load(x.path / "predictions.npz", allow_pickle=False) for x in (a, b))
    assert np.array_equal(first["logits"], second["logits"])


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


def test_the_split_and_the_data_are_the_same_for_every_seed(reference, tmp_path):
    other = make(tmp_path, CONFIG.with_seed(7))
    assert other.run.read_json("split.json") == reference.run.read_json("split.json")


def test_a_finished_run_is_returned_at_once_also_under_another_name(reference):
    root = reference.run.path.parents[1]
    before = {p: p.stat().st_mtime_ns for p in reference.run.path.rglob("*") if p.name != ".lock"}
    again = make(root, name="renamed")
    assert again.cached
    assert again.run.path == reference.run.path
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_fingerprint_changes_with_what_is_computed_only(reference, tmp_path):
    splits = data.load(CONFIG.dataset, data_dir=None)
    mark = conductor.fingerprint(conductor.resolve(CONFIG), splits.spec)
    assert mark == reference.run.read_json("config.json")["fingerprint"]
    explicit = RunConfig(
        dataset=CONFIG.dataset,
        model=Component("mlp", {"hidden": [16], "dropout": 0.2, "init": "default"}, 1),
        train=TrainConfig(budget="004ep", batch_size=64),
        seed=5,
    )
    assert conductor.fingerprint(conductor.resolve(explicit), splits.spec) == mark
    changed = RunConfig(dataset=CONFIG.dataset, model=CONFIG.model, train=TrainConfig(budget="5ep", batch_size=64))
    assert conductor.fingerprint(conductor.resolve(changed), splits.spec) != mark


# --- resume -------------------------------------------------------------------------------------


def interrupted_after(monkeypatch, evaluations, error=KeyboardInterrupt):
    """Make the run stop as if a signal came after so many evaluations."""
    seen = []
    original = conductor.TrainProgress.evaluated

    def evaluated(self, record):
        original(self, record)
        seen.append(record)
        if len(seen) == evaluations:
            raise error

    monkeypatch.setattr(conductor.TrainProgress, "evaluated", evaluated)


@pytest.mark.parametrize("evaluations", [1, 2, 3])
def test_a_stopped_run_continues_to_the_same_bits(reference, tmp_path, monkeypatch, evaluations):
    with monkeypatch.context() as patch:
        interrupted_after(patch, evaluations)
        with pytest.raises(Interrupted) as stopped:
            make(tmp_path)
    assert stopped.value.exit_code == 130
    folder = next((tmp_path / "single").iterdir())
    assert RunDir(folder).status() == "unfinished"
    finished = make(tmp_path)
    assert any(f"continued from step {47 * evaluations}" in note for note in finished.notes)
    same(reference.run, finished.run)


def test_a_killed_run_continues_from_its_newest_checkpoint(reference, tmp_path, monkeypatch):
    class Killed(BaseException):
        """Nothing the conductor could handle, as after SIGKILL."""

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "WRITE_EVERY_SECONDS", 0.0)
        interrupted_after(patch, 3, Killed)
        with pytest.raises(Killed):
            make(tmp_path)
    folder = RunDir(next((tmp_path / "single").iterdir()))
    with open(folder.path / "metrics.jsonl", "ab") as handle:
        handle.write(b'{"schema": 1, "step": 188, "half a li')
    finished = make(tmp_path)
    assert any("continued from step 141" in note for note in finished.notes)
    same(reference.run, finished.run)


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_damaged_checkpoint_is_announced_and_the_one_before_used(reference, tmp_path, monkeypatch, damage):
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "WRITE_EVERY_SECONDS", 0.0)
        interrupted_after(patch, 3)
        with pytest.raises(Interrupted):
            make(tmp_path)
    folder = RunDir(next((tmp_path / "single").iterdir()))
    assert folder.checkpoints() == [94, 141]
    path = folder.path / "checkpoints" / "141" / "optimizer.safetensors"
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[-5] ^= 1
        path.write_bytes(content)
    elif damage == "truncate":
        path.write_bytes(content[:100])
    else:
        path.unlink()
    finished = make(tmp_path)
    assert any("141 is damaged" in note for note in finished.notes)
    assert any("continued from step 94" in note for note in finished.notes)
    same(reference.run, finished.run)


@pytest.mark.parametrize("damaged", [[141], [94, 141]])
def test_what_was_damaged_is_written_anew(tmp_path, monkeypatch, damaged):
    """The run ends at step 141, whose damaged checkpoint must not stay; with both gone it starts from scratch."""
    config = RunConfig(CONFIG.dataset, CONFIG.model, train=TrainConfig(budget="3ep", batch_size=64))
    expected = make(tmp_path / "whole", config)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "WRITE_EVERY_SECONDS", 0.0)
        interrupted_after(patch, 3)
        with pytest.raises(Interrupted):
            make(tmp_path, config)
    folder = RunDir(next((tmp_path / "single").iterdir()))
    assert folder.checkpoints() == [94, 141]
    for step in damaged:
        path = folder.path / "checkpoints" / str(step) / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-1])
    finished = make(tmp_path, config)
    assert sum("is damaged" in note for note in finished.notes) == len(damaged)
    same(expected.run, finished.run)
    assert all(finished.run.load_checkpoint(step) for step in finished.run.checkpoints())


def test_a_run_begun_elsewhere_is_refused_in_one_line(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        interrupted_after(patch, 2)
        with pytest.raises(Interrupted):
            make(tmp_path)
    with pytest.raises(BadInput, match=r"begun with threads = 1, not 2.*--fresh"):
        run(CONFIG, Runtime(runs_root=tmp_path, threads=2), name="test", quiet=True)
    folder = RunDir(next((tmp_path / "single").iterdir()))
    environment = folder.read_json("environment.json")
    folder.write_json("environment.json", {**environment, "torch": "2.0.0"})
    with pytest.raises(BadInput, match=r"begun with torch = 2\.0\.0"):
        make(tmp_path)
    assert make(tmp_path, fresh=True).result["status"] == "completed"


def test_sigterm_saves_and_the_same_command_continues(reference, tmp_path):
    path = tmp_path / "config.json"
    slow = RunConfig(dataset=CONFIG.dataset, model=CONFIG.model, train=TrainConfig(budget="600ep", batch_size=64))
    path.write_text(json.dumps(to_json(slow)))
    code = (
        "import sys; from netdepth import recipes; from netdepth.config import Runtime;"
        "from netdepth.engine.run import run; from netdepth.errors import NetdepthError\n"
        f"name, config = recipes.resolve({str(path)!r})\n"
        f"try: run(config, Runtime(runs_root={str(tmp_path)!r}, threads=1), name=name)\n"
        "except NetdepthError as error: print(error); sys.exit(error.exit_code)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "single"
    until = time.monotonic() + 60
    while not any(p.stat().st_size > 2000 for p in metrics.glob("*/metrics.jsonl")):
        assert time.monotonic() < until, "no evaluation within a minute"
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 143, output
    folder = RunDir(next(metrics.iterdir()))
    (newest, _) = folder.newest_checkpoint()
    assert f"saved up to step {newest}" in output
    assert newest >= 47
    # The weights of that moment are those of an uninterrupted run of the same length.
    expected = make(tmp_path / "whole", RunConfig(
        dataset=CONFIG.dataset, model=CONFIG.model, train=TrainConfig(budget=f"{newest}it", batch_size=64)
    ))  # fmt: skip
    assert weights(expected.run, newest) == weights(folder, newest)


def test_two_processes_never_train_in_one_folder(reference, tmp_path):
    path = reference.run.path
    code = (
        "import sys, time; from pathlib import Path; from netdepth.store import RunDir\n"
        f"with RunDir(Path({str(path)!r})).lock(): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(Locked, match="in use by another process"):
            make(path.parents[1])
    finally:
        holder.kill()
        holder.communicate()
    assert make(path.parents[1]).cached  # the lock died with its holder


def test_a_crash_is_recorded_retried_and_does_not_stop_the_other_seeds(tmp_path, monkeypatch):
    original = conductor.choose_gradients

    def crashing(model, flat, objective):
        raise RuntimeError("out of\nluck")

    runtime = Runtime(runs_root=tmp_path, threads=1)
    monkeypatch.setattr(conductor, "choose_gradients", crashing)
    (outcome,) = launch("test", [CONFIG], runtime, progress=False)
    assert (outcome.status, outcome.exit_code) == ("failed", 1)
    assert "RuntimeError: out of luck" in outcome.error
    assert outcome.path == next((tmp_path / "single").iterdir())
    folder = RunDir(next((tmp_path / "single").iterdir()))
    assert folder.status() == "failed"
    assert folder.read_json("failure.json")["message"] == "out of\nluck"

    first = iter([crashing])
    monkeypatch.setattr(conductor, "choose_gradients", lambda *args: next(first, original)(*args))
    outcomes = launch("test", [CONFIG.with_seed(1), CONFIG], runtime, progress=False)
    assert [o.status for o in outcomes] == ["failed", "completed"]
    assert exit_code(outcomes) == 1
    assert folder.status() == "completed"
    assert not (folder.path / "failure.json").exists()


BROKEN = """
from netdepth.trackers import TRACKERS

class Broken:
    def start(self, config): pass
    def log(self, record, step): raise RuntimeError("no luck")
    def artifact(self, path): pass
    def finish(self, result): pass

@TRACKERS.register("broken")
def broken(run_dir):
    "Raises at the first record."
    return Broken()
"""


def test_a_tracker_that_raises_changes_no_bit_of_the_run(reference, tmp_path, monkeypatch):
    from netdepth.recipes import import_user
    from netdepth.trackers import TRACKERS

    monkeypatch.setattr(TRACKERS, "_entries", dict(TRACKERS._entries))  # other tests see the built-in ones
    path = tmp_path / "mine.py"
    path.write_text(BROKEN)
    import_user(str(path))
    finished = make(tmp_path / "runs", trackers=("broken",), imports=(str(path),))
    notes = finished.mirrors.finish(time.monotonic() + 20)
    assert len(notes) == 1
    assert "tracker broken: RuntimeError: no luck; rebuild it with: netdepth sync" in notes[0]
    same(reference.run, finished.run)


# --- stopping, test data, divergence ------------------------------------------------------------

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
    from netdepth import api

    run_ = api.Run(finished.run)
    test = data.load(OVERFITTING.dataset, data_dir=None).test.open_test("checking the reported numbers")
    with torch.inference_mode():
        predicted = run_.model()(test.inputs).argmax(1)
    assert float((predicted == test.labels).double().mean()) == result["test"]["best"]["accuracy"]


def test_overfitting_stops_where_asked_to(tmp_path):
    train = TrainConfig(budget="40ep", batch_size=64, overfitting=Overfitting(patience=2, action="stop"))
    config = RunConfig(OVERFITTING.dataset, OVERFITTING.model, optimizer=OVERFITTING.optimizer, train=train)
    finished = make(tmp_path, config)
    assert finished.result["status"] == "stopped_overfit"
    records = finished.run.read_metrics()
    assert records[-1]["overfit_count"] == 2
    assert finished.result["overfit_onset_epoch"] == records[-2]["epoch"]


def test_the_test_set_is_opened_once_per_run_and_never_while_training(tmp_path, monkeypatch):
    opened = []
    original = data.SealedTest.open_test

    def open_test(self, purpose):
        folder = next((tmp_path / "single").iterdir())
        opened.append((purpose, len(RunDir(folder).read_metrics())))
        return original(self, purpose)

    monkeypatch.setattr(data.SealedTest, "open_test", open_test)
    finished = make(tmp_path, OVERFITTING)
    assert len(opened) == 1
    assert opened[0][1] == len(finished.run.read_metrics()), "test was opened before training had ended"
    log = finished.run.read_json("test_access.json")
    assert log["opened"] == ["final evaluation of the best and the last weights"]
    make(tmp_path, OVERFITTING)
    assert len(opened) == 1, "a cached run opened test again"


def test_a_sealed_run_never_opens_test_and_lies_apart(tmp_path, monkeypatch):
    def refuse(self, purpose):
        raise AssertionError("test was opened")

    monkeypatch.setattr(data.SealedTest, "open_test", refuse)
    finished = make(tmp_path, sealed=True)
    assert finished.run.path.parent.name == "tuning"
    assert finished.result["test"] is None
    assert finished.result["evaluated_on"] == "val"
    assert sum(map(sum, finished.result["confusion"])) == 1000
    assert finished.run.read_json("test_access.json") is None


def exploding(lr=1e30):
    return RunConfig(
        dataset=CONFIG.dataset,
        model=Component("mlp", {"hidden": [16]}),
        optimizer=Component("sgd", {"lr": lr}),
        train=TrainConfig(budget="3ep", batch_size=64),
    )


def test_divergence_is_a_result_caught_within_one_step(tmp_path):
    finished = make(tmp_path, exploding())
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
    assert make(tmp_path, exploding()).cached


@pytest.mark.parametrize("step", [0, 46, 47, 100])
def test_a_nan_at_any_step_is_caught_at_that_step(tmp_path, monkeypatch, step):
    original = conductor.choose_gradients
    calls = iter(range(10**6))

    def poisoned(model, flat, objective):
        gradients = original(model, flat, objective)

        def compute(inputs, labels):
            loss, right = gradients(inputs, labels)
            return (loss * float("nan") if next(calls) == step else loss), right

        return compute

    monkeypatch.setattr(conductor, "choose_gradients", poisoned)
    finished = make(tmp_path)
    assert finished.result["status"] == "diverged"
    assert finished.run.read_metrics()[-1]["step"] == step
    best = finished.result["val"]["best"]["loss"]
    assert (best is not None and np.isfinite(best)) == (step >= 47), "the best weights before it are kept"


def test_evaluation_periods_in_steps_and_clipping(tmp_path):
    train = TrainConfig(budget="100it", eval_every="30it", batch_size=64, grad_clip_norm=0.05)
    finished = make(tmp_path, RunConfig(CONFIG.dataset, CONFIG.model, train=train))
    records = finished.run.read_metrics()
    assert [r["step"] for r in records] == [30, 60, 90, 100]
    assert all(r["grad_norm"] <= 0.05 * (1 + 1e-5) for r in records)


def test_float64_is_float64(tmp_path):
    train = TrainConfig(budget="50it", batch_size=64, precision="float64")
    finished = make(tmp_path, RunConfig(CONFIG.dataset, CONFIG.model, train=train))
    assert np.load(finished.run.path / "predictions.npz", allow_pickle=False)["logits"].dtype == np.float64


@pytest.mark.data("mnist")
def test_without_validation_images_there_is_nothing_to_stop_on(tmp_path, real_data):
    everything = Component("mnist", {"val_size": 0})
    config = RunConfig(everything, CONFIG.model, train=TrainConfig(budget="20it", early_stopping=EarlyStopping()))
    with pytest.raises(BadInput, match="no validation images"):
        make(tmp_path, config, data_dir=real_data("mnist"))
    finished = make(
        tmp_path, RunConfig(everything, CONFIG.model, train=TrainConfig(budget="20it")), data_dir=real_data("mnist")
    )
    assert finished.result["val"]["last"]["loss"] != finished.result["val"]["last"]["loss"]  # NaN
    assert finished.run.result()["val"]["last"]["loss"] is None
    assert 0 < finished.result["test"]["last"]["accuracy"] < 1
