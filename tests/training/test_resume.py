"""A stopped or damaged stack continues to the bits of the uninterrupted one."""

import dataclasses
import functools
import shutil

import pytest
from support.real_stacks import (
    CONFIG,
    ENDING,
    PER_EPOCH,
    SEEDS,
    SIGTERM,
    Killed,
    changed,
    folders,
    make_alone,
    make_stack,
    notes,
    same_stack,
    stopping,
)

from netdepth.config import Component, TrainConfig
from netdepth.errors import Interrupted
from netdepth.runs.folder import RunDir
from netdepth.training import layers


@pytest.mark.parametrize(("evaluations", "error", "code"), [(1, KeyboardInterrupt, 130), (3, SIGTERM, 143)])
def test_a_stopped_stack_continues_to_the_same_bits(reference, tmp_path, evaluations, error, code):
    with pytest.raises(Interrupted, match=f"saved up to step {evaluations * PER_EPOCH}; the same command") as stopped:
        make_stack(tmp_path, probes=True, watch=stopping(evaluations, error))
    assert stopped.value.exit_code == code
    assert [folder.status() for folder in folders(tmp_path)] == ["unfinished"] * len(SEEDS)
    made = make_stack(tmp_path, probes=True)
    assert notes(made) == [f"continued from step {12 * evaluations} (epoch {evaluations})"] * len(SEEDS)
    same_stack(reference, made)


@pytest.mark.slow
def test_stopped_again_and_again_also_where_a_replica_has_ended(ending, tmp_path):
    for _ in range(20):
        try:
            made = make_stack(tmp_path, ENDING, probes=True, watch=stopping(1))
            break
        except Interrupted:
            pass
    same_stack(ending, made)


def test_a_signal_while_the_replicas_are_finished_loses_nothing(reference, tmp_path, monkeypatch):
    written = iter(range(100))
    original = RunDir.write_json

    def write_json(self, name, value):
        if name == "result.json" and next(written) == 1:
            raise SIGTERM
        original(self, name, value)

    with monkeypatch.context() as patch:
        patch.setattr(RunDir, "write_json", write_json)
        with pytest.raises(Interrupted, match="saved up to step 48"):
            make_stack(tmp_path, probes=True)
    assert [folder.status() for folder in folders(tmp_path)] == ["completed", "unfinished", "unfinished"]
    made = make_stack(tmp_path, probes=True)
    assert [replica.cached for replica in made] == [True, False, False]
    same_stack(reference, made)


def test_a_signal_during_a_probe_does_not_lose_the_probe(reference, tmp_path, monkeypatch):
    calls = iter(range(100))
    original = layers.probe

    def probe(*args):
        if next(calls) == len(SEEDS) + 1:  # of the second replica, after its first evaluation
            raise SIGTERM
        return original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(layers, "probe", probe)
        with pytest.raises(Interrupted):
            make_stack(tmp_path, probes=True)
    same_stack(reference, make_stack(tmp_path, probes=True))


OTHERS = {
    "momentum and one cycle": dataclasses.replace(
        CONFIG,
        optimizer=Component("sgd", {"lr": 0.05, "weight_decay": 1e-4}),
        schedule=Component("one-cycle"),
        train=TrainConfig(budget="40it", eval_every="9it", batch_size=64, grad_clip_norm=1.0),
    ),
    "residual, adamw, cosine": dataclasses.replace(
        CONFIG,
        model=Component("mlp", {"width": 12, "depth": 6, "shortcut": "identity", "block_layers": 2}),
        optimizer=Component("adamw"),
        schedule=Component("cosine", {"warmup": 0.2}),
        train=TrainConfig(budget="3ep", batch_size=64),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_other_optimizers_schedules_and_periods_continue_too(tmp_path, name):
    expected = make_stack(tmp_path / "whole", OTHERS[name])
    with pytest.raises(Interrupted):
        make_stack(tmp_path / "parts", OTHERS[name], watch=stopping(2))
    same_stack(expected, make_stack(tmp_path / "parts", OTHERS[name]))


SGD = Component("sgd", {"lr": 0.05})
STEPS = {"budget": "24it", "eval_every": "4it"}
ALONE = {
    "batch norm and dropout": changed(model={"norm": "batch", "dropout": 0.3}, budget="3ep"),
    "a schedule that watches": dataclasses.replace(
        changed(**STEPS), optimizer=SGD, schedule=Component("paper-warmup", {"error": 0.75, "at": [0.75]})
    ),
    "channels-last, bf16, augmented": dataclasses.replace(
        changed(budget="6it", eval_every="2it", batch_size=32, precision="bf16"),
        model=Component("resnet", {"depth": 8, "width": 2}),
        optimizer=SGD,
        augmentation=Component("crop-flip", {"pad": 2}),
    ),
}


@pytest.mark.parametrize("name", ALONE)
def test_a_run_that_is_not_stacked_continues_to_the_same_bits(tmp_path, name):
    (expected,) = make_alone(tmp_path / "whole", ALONE[name], (3,), probes=True)
    with pytest.raises(Interrupted):
        make_stack(tmp_path / "parts", ALONE[name], (3,), probes=True, watch=stopping(2))
    (continued,) = make_alone(tmp_path / "parts", ALONE[name], (3,), probes=True)
    assert any("continued from step" in note for note in continued.notes)
    same_stack([expected], [continued])
    precision = continued.run.read_json("config.json")["train"]["precision"]
    assert precision == ("bf16" if "bf16" in name else "float32")


def flip_a_bit(path):
    content = bytearray((path / "36" / "optimizer.safetensors").read_bytes())
    content[-5] ^= 1
    (path / "36" / "optimizer.safetensors").write_bytes(content)


def remove_the_newest(path):
    shutil.rmtree(path / "36")


def leave_no_checkpoint(path):
    shutil.rmtree(path)


def cut_a_record(path, line):
    """A checkpoint whose records are not there cannot tell which evaluation was the best."""
    records = path.parent / "metrics.jsonl"
    lines = records.read_bytes().splitlines(keepends=True)
    lines[line] = lines[line][:20] + b"\n"
    records.write_bytes(b"".join(lines))


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize(
    ("damage", "step"),
    [
        (flip_a_bit, 24),
        (remove_the_newest, 24),
        (leave_no_checkpoint, 0),
        (functools.partial(cut_a_record, line=0), 0),
        (functools.partial(cut_a_record, line=2), 24),
    ],
    ids=["flipped bit", "removed", "no checkpoint", "first record", "last record"],
)
def test_a_replica_with_a_damaged_checkpoint_takes_all_back_to_the_newest_common_one(reference, tmp_path, damage, step):
    """What the others measured after it, metrics and layer statistics, is made again and not kept twice."""
    with pytest.raises(Killed):
        make_stack(tmp_path, probes=True, watch=stopping(3, Killed))
    made = folders(tmp_path)
    assert [folder.checkpoints()[-1] for folder in made] == [36] * len(SEEDS)
    made[0].write_json("probes/step-36.json", {"step": 36, "left": "over"})
    damage(made[1].path / "checkpoints")
    continued = make_stack(tmp_path, probes=True)
    said = notes(continued)
    assert sum("is damaged" in note for note in said) == (damage is flip_a_bit)
    assert said.count("continued from step 24 (epoch 2)") == (len(SEEDS) if step else 0)
    assert any("continued" in note for note in said) == (step > 0)
    same_stack(reference, continued)
    for replica in continued:
        assert all(replica.run.load_checkpoint(step) for step in replica.run.checkpoints())
