"""Several seeds as one stack: each replica is the run it would be alone, and none disturbs another."""

import dataclasses
import itertools

import pytest
import safetensors.torch
import torch
from support.real_runs import same, timeless, weights
from support.real_stacks import (
    CONFIG,
    ENDING,
    PER_EPOCH,
    SEEDS,
    Watching,
    changed,
    digits,
    files,
    make_alone,
    make_stack,
    poison,
    stackable,
)

from netdepth import data
from netdepth.config import Component, Overfitting
from netdepth.data.augment import Batches
from netdepth.errors import BadInput
from netdepth.training.fit import Tick, fit
from netdepth.training.gradients import mlp_gradients
from netdepth.training.optim import OPTIMIZERS, SCHEDULES
from netdepth.training.resolve import build_model, fill_in
from netdepth.training.stack import Stack


def final_weights(finished) -> dict[str, torch.Tensor]:
    return safetensors.torch.load(weights(finished.run, finished.result["steps"]))


# --- against runs made alone ----------------------------------------------------------------------


RESIDUAL = {"hidden": None, "width": 12, "depth": 8, "shortcut": "identity"}
NETS = pytest.mark.parametrize(
    "net",
    [{"hidden": [12] * 5}, {**RESIDUAL, "branch_scale": "blocks^-1/2"}, {**RESIDUAL, "block_layers": 2}],
    ids=["plain", "scaled residual", "blocks of two"],
)


def trained(config, seeds):
    """The loss of every step ``[steps, S]`` and the final weights ``[S, P]`` of one stack."""
    splits = digits()
    stack = Stack([build_model(config.with_seed(seed), splits) for seed in seeds])
    batches = Batches(splits.train, config.train.batch_size, seeds)
    optimizer = OPTIMIZERS.build(config.optimizer, stack.flat)
    losses = []
    compute = mlp_gradients(stack)

    def noting(inputs, labels):
        loss, right = compute(inputs, labels)
        losses.append(loss.clone())
        return loss, right

    few = data.Split(splits.val.inputs[:20], splits.val.labels[:20])
    for event in fit(stack, noting, optimizer, SCHEDULES.build(config.schedule, 1, 1), batches, few, config.train):
        assert isinstance(event, Tick) or not any(record["diverged"] for record in event.values())
    return torch.stack(losses), torch.stack([stack.row(stack.flat.detach(), index) for index in range(len(seeds))])


@NETS
@pytest.mark.parametrize(("precision", "budget", "tolerance"), [("float64", "100it", 1e-10), ("float32", "5it", 1e-5)])
def test_a_hundred_steps_in_float64_and_the_first_in_float32_differ_by_rounding_alone(
    net, precision, budget, tolerance
):
    config = fill_in(changed(model=net, budget=budget, precision=precision, grad_clip_norm=0.5))
    losses, together = trained(config, SEEDS)
    for index, seed in enumerate(SEEDS):
        expected, alone = trained(config, (seed,))
        assert (losses[:, index] - expected[:, 0]).abs().max() <= tolerance
        assert (together[index] - alone[0]).abs().max() <= 10 * tolerance
        assert precision == "float32" or expected[-10:].mean() < 0.8 * expected[:10].mean(), "it learned something"


# --- what stands in the folders; each replica stops for itself ------------------------------------


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A stack with early stopping, what happened while it trained, and the same runs made alone."""
    root = tmp_path_factory.mktemp("stopping")
    there = []

    def look(number, record):
        there.append({path.parent.name for path in root.glob("stack/single/*/result.json")})

    stack = make_stack(root / "stack", ENDING, watch=Watching(look), probes=True)
    return stack, make_alone(root / "alone", ENDING, probes=True), there


def test_the_folders_are_ordinary_run_folders(pair):
    stack, alone, _ = pair
    for seed, a, b in zip(SEEDS, stack, alone, strict=True):
        assert a.run.path.name == b.run.path.name
        assert f"-s{seed}-" in a.run.path.name
        assert a.run.read_json("config.json") == b.run.read_json("config.json")
        assert a.run.read_json("split.json") == b.run.read_json("split.json")
        assert files(a.run) == files(b.run)
        made, single = a.run.read_json("environment.json"), b.run.read_json("environment.json")
        assert (made["made"], made["stack"], made["seeds"]) == ("cohort", len(SEEDS), list(SEEDS))
        assert (single["made"], single["stack"], single["seeds"]) == ("alone", 1, [seed])
        assert set(made) == set(single)
        assert a.result.keys() == b.result.keys()
        assert not list(a.run.path.rglob("*.tmp"))


def test_each_replica_stops_when_it_would_alone(pair):
    stack, alone, _ = pair
    steps = [replica.result["steps"] for replica in stack]
    assert len(set(steps)) > 1, "this is about seeds that stop at different epochs"
    for a, b in zip(stack, alone, strict=True):
        for name in ("status", "steps", "best_step", "best_epoch", "reported", "depth", "num_params"):
            assert a.result[name] == b.result[name], name
        for part, which in itertools.product(("train", "val", "test"), ("best", "last")):
            assert a.result[part][which] == pytest.approx(b.result[part][which], rel=1e-8)
        records, expected = a.run.read_metrics(), b.run.read_metrics()
        assert [(r["step"], r["best"]) for r in records] == [(r["step"], r["best"]) for r in expected]
        for name in ("train_loss", "val_loss", "grad_norm", "lr"):
            assert [r[name] for r in records] == pytest.approx([r[name] for r in expected], rel=1e-8)
        mine, other = final_weights(a), final_weights(b)
        assert all(torch.allclose(mine[name], other[name], rtol=0, atol=1e-8) for name in other)
        last = f"probes/step-{a.result['steps']}.json"  # made before the weights of a stopped replica are overwritten
        found, wanted = a.run.read_json(last), b.run.read_json(last)
        assert found["loss"] == pytest.approx(wanted["loss"], rel=1e-8)
        assert found["gradient_ratio"] == pytest.approx(wanted["gradient_ratio"], rel=1e-7)


def test_a_replica_that_stopped_is_finished_before_the_others_end(pair):
    stack, _, there = pair
    for replica in stack:
        done = replica.result["steps"] // PER_EPOCH
        present = [replica.run.path.name in names for names in there]
        assert present == [number > done for number in range(1, len(there) + 1)]


def test_a_replica_stops_for_overfitting_alone(tmp_path):
    stop = Overfitting(patience=1, action="stop")
    config = changed(ENDING, budget="4ep", early_stopping=None, overfitting=stop)
    stack, alone = make_stack(tmp_path / "stack", config), make_alone(tmp_path / "alone", config)
    assert [replica.result["status"] for replica in stack] == ["stopped_overfit", "stopped_overfit", "completed"]
    assert stack[1].result["steps"] < stack[0].result["steps"]
    for a, b in zip(stack, alone, strict=True):
        for name in ("status", "steps", "overfit_onset_epoch", "best_step"):
            assert a.result[name] == b.result[name], name


# --- divergence -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("step", "other"), [(0, 0), (3 * PER_EPOCH - 1, 3 * PER_EPOCH - 4)])
def test_replicas_diverge_also_in_one_period_and_the_others_keep_every_bit(
    reference, tmp_path, monkeypatch, step, other
):
    poison(monkeypatch, index=1, step=step)
    poison(monkeypatch, index=0, step=other)
    stack = make_stack(tmp_path, probes=True)
    same(reference[2].run, stack[2].run)
    lost = stack[1]
    assert [replica.result["status"] for replica in stack] == ["diverged", "diverged", "completed"]
    assert stack[0].run.read_metrics()[-1]["step"] == other
    *before, last = lost.run.read_metrics()
    expected = reference[1].run.read_metrics()
    assert [timeless(r) for r in before] == [timeless(r) for r in expected[: step // PER_EPOCH]]
    assert (last["step"], last["diverged"], last["val_loss"]) == (step, True, None)
    assert lost.result["steps"] == step // PER_EPOCH * PER_EPOCH, "the last weights that were evaluated"
    assert lost.run.checkpoints() == sorted({r["step"] for r in (before[-1:] + [r for r in before if r["best"]][-1:])})
    assert lost.run.result()["test"]["last"]["loss"] is None
    assert make_stack(tmp_path)[1].cached


def test_a_stack_of_which_all_diverge_ends_at_once(tmp_path):
    config = dataclasses.replace(changed(budget="20ep"), optimizer=Component("sgd", {"lr": 1e30}))
    stack = make_stack(tmp_path, config, probes=True)
    assert [replica.result["status"] for replica in stack] == ["diverged"] * len(SEEDS)
    for replica in stack:
        (record,) = replica.run.read_metrics()
        assert record["step"] <= 3
        assert record["nonfinite"]


# --- test data, probes, what cannot be stacked ----------------------------------------------------


def test_the_test_set_is_opened_once_for_each_replica_after_its_training(tmp_path, monkeypatch):
    original = data.SealedTest.open_test
    opened = []

    def open_test(*given):
        opened.append([len(path.read_text().splitlines()) for path in tmp_path.glob("single/*/metrics.jsonl")])
        return original(*given)

    monkeypatch.setattr(data.SealedTest, "open_test", open_test)
    stack = make_stack(tmp_path, ENDING)
    assert len(opened) == len(SEEDS)
    for replica in stack:
        assert len(replica.run.read_json("test_access.json")["opened"]) == 1
    lengths = sorted(len(replica.run.read_metrics()) for replica in stack)
    for ends, length in zip(opened, lengths, strict=True):
        assert length in ends, "test was opened before the training of that replica had ended"


def test_a_sealed_stack_never_opens_test_and_lies_apart(tmp_path, monkeypatch):
    def refuse(self, purpose):
        raise AssertionError("test was opened")

    monkeypatch.setattr(data.SealedTest, "open_test", refuse)
    for replica in make_stack(tmp_path, changed(budget="1ep"), sealed=True):
        assert replica.run.path.parent.name == "tuning"
        assert replica.result["test"] is None
        assert replica.result["evaluated_on"] == "val"
        assert replica.run.read_json("test_access.json") is None


def test_probes_are_made_on_time_and_change_no_bit(reference, tmp_path):
    for replica, blind in zip(reference, make_stack(tmp_path), strict=True):
        same(blind.run, replica.run)
        assert not (blind.run.path / "probes").exists()
        names = {path.name for path in (replica.run.path / "probes").iterdir()}
        assert names == {"init.json", *(f"step-{epoch * PER_EPOCH}.json" for epoch in (1, 2, 4))}
        for name in names:
            found = replica.run.read_json(f"probes/{name}")
            assert found["step"] == (0 if name == "init.json" else int(name[5:-5]))
            assert found["epoch"] == found["step"] / PER_EPOCH
            assert [layer["name"] for layer in found["layers"]] == ["hidden.0", "hidden.1", "head"]


def test_what_cannot_be_a_stack_is_refused_in_one_line(tmp_path):
    with pytest.raises(BadInput, match="one at a time"):
        make_stack(tmp_path, changed(model={"dropout": 0.1}))
    assert not list(tmp_path.glob("single/*/failure.json"))
    watching = dataclasses.replace(CONFIG, schedule=Component("paper-warmup"))
    with pytest.raises(BadInput, match=r"^schedule 'paper-warmup' follows one run's training error"):
        make_stack(tmp_path, watching)
    assert [stackable(config) for config in (CONFIG, watching)] == [True, False]
