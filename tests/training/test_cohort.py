"""Several seeds as one stack: each member is the run it would be alone, and none disturbs another."""

import itertools

import pytest
import safetensors.torch
import torch
from support.real_cohorts import ENDING, PER_EPOCH, SEEDS, Watching, changed, digits, files, make_alone, make_cohort
from support.real_runs import timeless, weights

from netdepth import data
from netdepth.config import Overfitting
from netdepth.data.batches import Batches
from netdepth.training import loop
from netdepth.training.fit import Tick, fit
from netdepth.training.gradients import mlp_gradients
from netdepth.training.optim import OPTIMIZERS, SCHEDULES
from netdepth.training.resolve import build_model, fill_in
from netdepth.training.stack import Stack


def final_weights(finished) -> dict[str, torch.Tensor]:
    return safetensors.torch.load(weights(finished.run, finished.result["steps"]))


# --- against runs made alone ----------------------------------------------------------------------


def test_initial_weights_and_batches_are_those_of_runs_made_alone(tmp_path, monkeypatch):
    """Bit for bit, over two epochs with a short last batch, as the engine hands them out."""
    original = loop.choose_gradients
    seen = []

    def noting(stack, objective):
        gradients = original(stack, objective)
        states = [{k: v.clone() for k, v in model.state_dict().items()} for model in stack.models]
        batches = []
        seen.append((states, batches))

        def compute(inputs, labels):
            batches.append((inputs, labels))
            return gradients(inputs, labels)

        return compute

    monkeypatch.setattr(loop, "choose_gradients", noting)
    config = changed(budget="2ep")
    make_cohort(tmp_path / "cohort", config)
    make_alone(tmp_path / "alone", config)
    (states, batches), *alone = seen
    assert [len(labels) // len(SEEDS) for _, labels in batches[10:13]] == [64, 46, 64]
    for lane, (single_states, single_batches) in enumerate(alone):
        for name, value in single_states[0].items():
            assert torch.equal(states[lane][name], value), name
        for stacked, single in zip(batches, single_batches, strict=True):
            for a, b in zip(stacked, single, strict=True):
                assert torch.equal(a.view(len(SEEDS), *b.shape)[lane], b)
    assert not torch.equal(states[0]["hidden.0.weight"], states[1]["hidden.0.weight"])


NETS = [
    {"hidden": [12] * 5, "init": "he"},
    {"hidden": None, "width": 12, "depth": 8, "shortcut": "identity", "branch_scale": "blocks^-1/2", "init": "he"},
    {"hidden": None, "width": 12, "depth": 8, "shortcut": "identity", "block_layers": 2, "init": "he"},
]


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
        assert isinstance(event, Tick) or not any(record.diverged for record in event.values())
    return torch.stack(losses), torch.stack([stack.row(stack.flat.detach(), lane) for lane in range(len(seeds))])


@pytest.mark.parametrize("net", NETS, ids=["plain", "scaled residual", "blocks of two"])
def test_in_float64_a_hundred_steps_differ_by_rounding_alone(net):
    config = fill_in(changed(model=net, budget="100it", precision="float64"))
    losses, together = trained(config, SEEDS)
    assert losses.shape == (100, len(SEEDS))
    for lane, seed in enumerate(SEEDS):
        expected, alone = trained(config, (seed,))
        assert (losses[:, lane] - expected[:, 0]).abs().max() <= 1e-10
        assert (together[lane] - alone[0]).abs().max() <= 1e-10
        assert expected[-10:].mean() < 0.8 * expected[:10].mean(), "it learned something"


@pytest.mark.parametrize("net", NETS, ids=["plain", "scaled residual", "blocks of two"])
def test_in_float32_the_first_steps_agree(net):
    config = fill_in(changed(model=net, budget="5it"))
    losses, _ = trained(config, SEEDS)
    for lane, seed in enumerate(SEEDS):
        expected, _ = trained(config, (seed,))
        error = (losses[:, lane] / expected[:, 0] - 1).abs()
        assert error[0] <= 1e-6
        assert error.max() <= 1e-5


# --- what stands in the folders; each member stops for itself ------------------------------------


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A cohort with early stopping, what happened while it trained, and the same runs made alone."""
    root = tmp_path_factory.mktemp("stopping")
    there = []

    def look(number, record):
        there.append({path.parent.name for path in root.glob("cohort/single/*/result.json")})

    cohort = make_cohort(root / "cohort", ENDING, watch=Watching(look), probes=True)
    return cohort, make_alone(root / "alone", ENDING, probes=True), there


def test_the_folders_are_ordinary_run_folders(pair):
    cohort, alone, _ = pair
    for seed, a, b in zip(SEEDS, cohort, alone, strict=True):
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


def test_each_member_stops_when_it_would_alone(pair):
    cohort, alone, _ = pair
    steps = [member.result["steps"] for member in cohort]
    assert len(set(steps)) > 1, "this is about seeds that stop at different epochs"
    for a, b in zip(cohort, alone, strict=True):
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


def test_a_member_that_stopped_is_finished_before_the_others_end(pair):
    cohort, _, there = pair
    for member in cohort:
        done = member.result["steps"] // PER_EPOCH
        present = [member.run.path.name in names for names in there]
        assert present == [number > done for number in range(1, len(there) + 1)]


def test_a_member_that_stopped_changes_no_bit_of_the_others(pair, tmp_path):
    """What each did until it stopped is what it does in a cohort where nobody stops."""
    endless = make_cohort(tmp_path, changed(ENDING, budget="6ep", early_stopping=None))
    for member, other in zip(pair[0], endless, strict=True):
        mine, theirs = member.run.read_metrics(), other.run.read_metrics()
        shared = min(len(mine), len(theirs))
        assert [timeless(r) for r in mine[:shared]] == [timeless(r) for r in theirs[:shared]]
        assert shared > min(m.result["steps"] for m in pair[0]) / PER_EPOCH or shared == len(mine)


def test_a_member_stops_for_overfitting_alone(tmp_path):
    stop = Overfitting(patience=1, action="stop")
    config = changed(ENDING, budget="4ep", early_stopping=None, overfitting=stop)
    cohort, alone = make_cohort(tmp_path / "cohort", config), make_alone(tmp_path / "alone", config)
    assert [member.result["status"] for member in cohort] == ["stopped_overfit", "stopped_overfit", "completed"]
    assert cohort[1].result["steps"] < cohort[0].result["steps"]
    for a, b in zip(cohort, alone, strict=True):
        for name in ("status", "steps", "overfit_onset_epoch", "best_step"):
            assert a.result[name] == b.result[name], name


def test_gradients_are_clipped_for_each_member(tmp_path):
    config = changed(budget="2ep", precision="float64", grad_clip_norm=0.5)
    cohort, alone = make_cohort(tmp_path / "cohort", config), make_alone(tmp_path / "alone", config)
    for a, b in zip(cohort, alone, strict=True):
        norms = [r["grad_norm"] for r in a.run.read_metrics()]
        assert max(norms) == pytest.approx(0.5, rel=1e-5), "no gradient was clipped; the test lacks its subject"
        assert norms == pytest.approx([r["grad_norm"] for r in b.run.read_metrics()], rel=1e-9)
        mine, other = final_weights(a), final_weights(b)
        assert all(torch.allclose(mine[name], other[name], rtol=0, atol=1e-10) for name in other)


def test_the_last_probe_is_of_the_last_weights(pair):
    """In a stack the lane of a stopped member is overwritten; the probe is made before."""
    for member, alone in zip(*pair[:2], strict=True):
        name = f"probes/step-{member.result['steps']}.json"
        found, expected = member.run.read_json(name), alone.run.read_json(name)
        assert found["loss"] == pytest.approx(expected["loss"], rel=1e-8)
        assert found["gradient_ratio"] == pytest.approx(expected["gradient_ratio"], rel=1e-7)
