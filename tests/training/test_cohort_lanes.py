"""What happens to one member of a cohort, its divergence, its test data, its probes, is no matter of the others."""

import dataclasses

import pytest
from support.real_cohorts import (
    CONFIG,
    ENDING,
    PER_EPOCH,
    SEEDS,
    changed,
    make_cohort,
    poison,
    stackable,
)
from support.real_runs import same, timeless

from netdepth import data
from netdepth.config import Component, RunConfig, TrainConfig
from netdepth.errors import BadInput

# --- divergence -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    return make_cohort(tmp_path_factory.mktemp("healthy"), probes=True)


@pytest.mark.parametrize("step", [0, PER_EPOCH, 3 * PER_EPOCH - 1])
def test_one_lane_diverges_and_the_others_keep_every_bit(healthy, tmp_path, monkeypatch, step):
    with monkeypatch.context() as patch:
        poison(patch, lane=1, step=step)
        cohort = make_cohort(tmp_path, probes=True)
    same(healthy[0].run, cohort[0].run)
    same(healthy[2].run, cohort[2].run)
    lost = cohort[1]
    assert [member.result["status"] for member in cohort] == ["completed", "diverged", "completed"]
    *before, last = lost.run.read_metrics()
    expected = healthy[1].run.read_metrics()
    assert [timeless(r) for r in before] == [timeless(r) for r in expected[: step // PER_EPOCH]]
    assert (last["step"], last["diverged"], last["val_loss"]) == (step, True, None)
    assert lost.result["steps"] == step // PER_EPOCH * PER_EPOCH, "the last weights that were evaluated"
    assert lost.run.checkpoints() == sorted({r["step"] for r in (before[-1:] + [r for r in before if r["best"]][-1:])})
    assert lost.run.result()["test"]["last"]["loss"] is None
    assert make_cohort(tmp_path)[1].cached


def test_a_cohort_of_which_all_diverge_ends_at_once(tmp_path):
    config = dataclasses.replace(changed(budget="20ep"), optimizer=Component("sgd", {"lr": 1e30}))
    cohort = make_cohort(tmp_path, config, probes=True)
    assert [member.result["status"] for member in cohort] == ["diverged"] * len(SEEDS)
    for member in cohort:
        (record,) = member.run.read_metrics()
        assert record["step"] <= 3
        assert record["nonfinite"]


def test_a_period_may_hold_the_divergence_of_several_lanes_at_several_steps(healthy, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        poison(patch, lane=0, step=14)
        poison(patch, lane=2, step=17)
        cohort = make_cohort(tmp_path, probes=True)
    assert [member.run.read_metrics()[-1]["step"] for member in cohort] == [14, 4 * PER_EPOCH, 17]
    same(healthy[1].run, cohort[1].run)


# --- test data, probes, what cannot be stacked ----------------------------------------------------


def test_the_test_set_is_opened_once_for_each_member_after_its_training(tmp_path, monkeypatch):
    original = data.SealedTest.open_test
    opened = []

    def open_test(self, purpose, on_open=None):
        ends = [len(p.read_text().splitlines()) for p in sorted(tmp_path.glob("single/*/metrics.jsonl"))]
        opened.append(ends)
        return original(self, purpose, on_open)

    monkeypatch.setattr(data.SealedTest, "open_test", open_test)
    cohort = make_cohort(tmp_path, ENDING)
    assert len(opened) == len(SEEDS)
    for member in cohort:
        assert member.run.read_json("test_access.json")["opened"] == [
            "final evaluation of the best and the last weights"
        ]
    lengths = [len(member.run.read_metrics()) for member in cohort]
    for ends, length in zip(opened, sorted(lengths), strict=True):
        assert length in ends, "test was opened before the training of that member had ended"
    make_cohort(tmp_path, ENDING)
    assert len(opened) == len(SEEDS), "cached runs opened test again"


def test_a_sealed_cohort_never_opens_test_and_lies_apart(tmp_path, monkeypatch):
    def refuse(self, purpose):
        raise AssertionError("test was opened")

    monkeypatch.setattr(data.SealedTest, "open_test", refuse)
    for member in make_cohort(tmp_path, changed(budget="1ep"), sealed=True):
        assert member.run.path.parent.name == "tuning"
        assert member.result["test"] is None
        assert member.result["evaluated_on"] == "val"
        assert member.run.read_json("test_access.json") is None


def test_probes_are_made_on_time_and_change_no_bit(healthy, tmp_path):
    config = changed(budget="5ep")
    looked = make_cohort(tmp_path / "probes", config, probes=True)
    for member, blind in zip(looked, make_cohort(tmp_path / "none", config, probes=False), strict=True):
        same(blind.run, member.run)
        assert not (blind.run.path / "probes").exists()
        names = {path.name for path in (member.run.path / "probes").iterdir()}
        assert names == {"init.json", *(f"step-{epoch * PER_EPOCH}.json" for epoch in (1, 2, 4, 5))}
        for name in names:
            found = member.run.read_json(f"probes/{name}")
            assert found["step"] == (0 if name == "init.json" else int(name[5:-5]))
            assert found["epoch"] == found["step"] / PER_EPOCH
            assert [layer["name"] for layer in found["layers"]] == ["hidden.0", "hidden.1", "head"]
    assert {p.name for p in (healthy[0].run.path / "probes").iterdir()} == {
        "init.json", "step-12.json", "step-24.json", "step-48.json"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "can"),
    [
        ({}, True),
        ({"shortcut": "identity"}, True),
        ({"shortcut": "identity", "branch_scale": "blocks^-1/2", "init": "lsuv"}, True),
        ({"dropout": 0.1}, False),
        ({"norm": "batch"}, False),
        ({"shortcut": "identity", "branch_scale": "rezero"}, False),
        ({"pre_activation": True}, False),
        ({"activation": "tanh"}, False),
    ],
    ids=str,
)
def test_what_can_be_stacked_follows_from_the_config(change, can):
    assert stackable(changed(model=change)) == can


def test_what_cannot_be_a_cohort_is_refused_in_one_line(tmp_path):
    with pytest.raises(BadInput, match="make its seeds alone"):
        make_cohort(tmp_path, changed(model={"dropout": 0.1}))
    assert not list(tmp_path.glob("single/*/failure.json"))
    with pytest.raises(BadInput, match="differ in their seeds"):
        make_cohort(tmp_path, seeds=(0, 1, 0))
    from netdepth.config import Runtime
    from netdepth.training.run import run_stack

    mixed = [CONFIG, changed(budget="5ep").with_seed(1)]
    with pytest.raises(BadInput, match="and in nothing else"):
        run_stack(mixed, Runtime(runs_root=tmp_path / "mixed"), name="test", study="single")
    assert not (tmp_path / "mixed").exists()
    train = TrainConfig(budget="2ep")
    assert stackable(RunConfig(CONFIG.dataset, Component("mlp", {"width": 8, "depth": 4}), train=train))
