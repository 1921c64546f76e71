"""Runs that start from another: what is frozen stays to the bit, rates follow PyTorch's groups, the source is held."""

import copy
import dataclasses

import pytest
import safetensors.torch
import torch
from support.real_runs import make, same, weights
from support.real_stacks import stopping

from netdepth import data
from netdepth.config import Component, RunConfig, StartFrom, TrainConfig, derive_seed
from netdepth.errors import BadInput, Interrupted
from netdepth.models import MODELS, build
from netdepth.overrides import apply_overrides
from netdepth.runs.folder import RunDir
from netdepth.training import loop
from netdepth.training.optim import OPTIMIZERS
from netdepth.training.resolve import fill_in, fingerprint
from netdepth.training.stack import FineTuning, Stack

FIRST, SECOND = list("01234"), list("98765")
SOURCE = RunConfig(
    dataset=Component("mnist5k", {"classes": FIRST}),
    model=Component("mlp", {"hidden": [12, 8], "norm": "batch"}),
    train=TrainConfig(budget="2ep", batch_size=64),
)
TARGET = dataclasses.replace(
    SOURCE, dataset=Component("mnist5k", {"classes": SECOND}), train=TrainConfig(budget="3ep", batch_size=64), seed=3
)


def starting(path, **settings):
    return dataclasses.replace(TARGET, start_from=StartFrom(str(path), **settings))


def state(finished, step):
    return safetensors.torch.load(weights(finished.run, step))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return make(tmp_path_factory.mktemp("source"), SOURCE)


def test_what_is_frozen_stays_as_it_was_and_the_rest_moves(source, tmp_path):
    begun = state(source, source.result["steps"])
    decay = Component("adamw", {"lr": 0.01, "weight_decay": 0.5})
    config = dataclasses.replace(starting(source.run.path, freeze=("layer1",)), optimizer=decay)
    made = make(tmp_path, config)
    ended = state(made, made.result["steps"])
    for name, tensor in ended.items():
        frozen = name.startswith(("hidden.0.", "norms.0.", "normalize."))
        assert torch.equal(tensor, begun[name]) == frozen, name
    assert "norms.0.running_mean" in ended
    assert "norms.1.running_mean" in ended


def test_the_network_keeps_the_sources_normalisation_and_draws_its_own_head(source, tmp_path):
    begun = state(source, source.result["steps"])

    def unmoved(name, **settings):  # a rate of 1e-30 moves nothing
        config = starting(source.run.path, freeze=("layer1", "layer2"), **settings)
        made = make(tmp_path / name, dataclasses.replace(config, optimizer=Component("sgd", {"lr": 1e-30})))
        return state(made, 72)

    ended = unmoved("drawn")
    assert torch.equal(ended["normalize.mean"], begun["normalize.mean"])
    mean, _ = data.load(TARGET.dataset, data_dir=None).statistics
    assert not torch.allclose(mean.float().flatten(), begun["normalize.mean"].float().flatten())
    drawn = build(TARGET.model, (1, 28, 28), 5, seed=derive_seed(3, "init"))
    assert torch.equal(ended["head.weight"], drawn.head.weight)
    assert torch.equal(unmoved("kept", reset_head=False)["head.weight"], begun["head.weight"])


def test_stages_thaw_one_by_one_from_the_head_down(source, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "WRITE_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(RunDir, "drop_checkpoints", lambda self, keep: None)
    begun = state(source, source.result["steps"])
    made = make(tmp_path, starting(source.run.path, freeze=("layer1", "layer2"), unfreeze_every="1ep"))
    moved = [
        [not torch.equal(state(made, step)[f"hidden.{i}.weight"], begun[f"hidden.{i}.weight"]) for i in (0, 1)]
        for step in (24, 48, 72)
    ]
    assert moved == [[False, False], [False, True], [True, True]]
    norms = [r["layer_grad_norms"]["hidden.0.weight"] for r in made.run.read_metrics()]
    assert norms[0] == norms[1] == 0 < norms[2]


def test_a_stopped_run_continues_to_the_same_bits(source, tmp_path):
    config = starting(source.run.path, freeze=("layer1", "layer2"), unfreeze_every="1ep", lr_scale={"layer1": 0.1})
    whole = make(tmp_path / "whole", config)
    with pytest.raises(Interrupted):
        make(tmp_path / "stopped", config, watch=stopping(2))
    same(whole.run, make(tmp_path / "stopped", config).run)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_rates_per_stage_and_thawing_equal_pytorchs_groups(name):
    ours = build("resnet", (3, 8, 8), 4, depth=8, width=2).double()
    theirs, scale = copy.deepcopy(ours), {"stem": 0.1, "stage2": 0.5}
    decay = {"weight_decay": 0.1, **({} if name == "adam" else {"decay_norms": False})}
    groups = []
    for stage in ours.stage_paths():
        for norm in (False, True):
            chosen = [p for n, p in theirs.named_parameters() if ours.stage_of(n) == stage and ("norm" in n) == norm]
            wd = 0.0 if norm and name != "adam" else 0.1
            groups += [{"params": chosen, "lr": 0.1 * scale.get(stage, 1.0), "weight_decay": wd}] if chosen else []
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
    reference = kinds[name](groups, **({"momentum": 0.9} if name == "sgd" else {}))
    stack = Stack([ours])
    start = StartFrom("x", freeze=("stem", "stage1"), unfreeze_every="2it", lr_scale=scale)
    stack.tuning = FineTuning(stack, start, per_epoch=10, eval_every="1it")
    optimizer = OPTIMIZERS.build(Component(name, {"lr": 0.1, **decay}), stack.flat)
    for step in range(6):
        stack.train(step)
        frozen = {stage for stage, thaw in (("stem", 4), ("stage1", 2)) if step < thaw}
        generator = torch.Generator().manual_seed(step)
        for (key, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            gradient = torch.randn(mine.shape, dtype=mine.dtype, generator=generator)
            assert mine.requires_grad == (ours.stage_of(key) not in frozen)
            mine.grad.copy_(gradient)
            other.grad = None if ours.stage_of(key) in frozen else gradient
        optimizer.step(0.1)
        reference.step()
        for (key, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            assert torch.allclose(mine, other, rtol=1e-12, atol=1e-14), (step, key)
    assert ours.training
    assert all(m.training for m in ours.modules())


@pytest.mark.parametrize("name", [name for name in MODELS.names() if MODELS.entry(name).source is None])
def test_every_parameter_and_statistic_is_in_one_stage(name):
    model = build(Component(name, MODELS.entry(name).example), (3, 32, 32), 7)
    stages = list(model.stage_paths())
    homes = {key: model.stage_of(key) for key in model.state_dict() if not key.startswith("normalize")}
    assert set(homes.values()) == set(stages)
    other = build(Component(name, MODELS.entry(name).example), (3, 32, 32), 5)
    sizes = {key: value.shape for key, value in other.state_dict().items()}
    differ = {homes[key] for key, value in model.state_dict().items() if value.shape != sizes[key]}
    assert differ == {stages[-1]}  # the head and nothing else depends on the number of classes


def test_the_path_is_not_hashed_and_the_digest_is(source, tmp_path, monkeypatch):
    spec = data.load(TARGET.dataset, data_dir=None).spec
    found = fill_in(starting(source.run.path))
    assert found.start_from.sha256 == source.result["weights_sha256"]
    assert found.start_from.weights == "last"
    assert fill_in(found) == found
    monkeypatch.setenv("NETDEPTH_RUNS", str(source.run.path.parent.parent))
    short = fill_in(starting(source.run.path.name[:12]))
    assert short.start_from.run == f"single/{source.run.path.name}"
    other = fill_in(starting(source.run.path, freeze=("layer1",)))
    marks = [fingerprint(config, spec) for config in (found, short, other, fill_in(TARGET))]
    assert marks[0] == marks[1]
    assert len(set(marks)) == 3


WIDER = Component("mlp", {"hidden": [12, 9], "norm": "batch"})


@pytest.mark.parametrize(
    ("changes", "settings", "message"),
    [
        ({}, {"run": "nowhere"}, "start_from: no run 'nowhere'"),
        ({}, {"sha256": "0" * 64}, "was altered or made again"),
        ({}, {"freeze": ("layer9",)}, "freeze names 'layer9'; the stages of this network are layer1, layer2, head"),
        ({}, {"lr_scale": {"stem": 0.1}}, "start_from.lr_scale names 'stem'"),
        ({}, {"freeze": ("layer1", "layer2", "head")}, "nothing is left to train"),
        ({}, {"freeze": ("layer1",), "unfreeze_every": "5it"}, "no multiple of train.eval_every"),
        ({"model": WIDER}, {}, r"another network: hidden.1.weight is \[8, 12\] there and \[9, 12\] here"),
        ({"dataset": Component("mnist5k")}, {"reset_head": False}, "reset_head=true draws the last stage anew"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(source, tmp_path, changes, settings, message):
    config = dataclasses.replace(TARGET, start_from=StartFrom(**{"run": str(source.run.path), **settings}), **changes)
    with pytest.raises(BadInput, match=message) as refused:
        make(tmp_path, config)
    assert "\n" not in str(refused.value)


def test_an_altered_source_is_refused(tmp_path):
    made = make(tmp_path, SOURCE)
    path = made.run.path / "checkpoints" / str(made.result["steps"]) / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(BadInput, match=r"start_from: run .* no intact checkpoint"):
        make(tmp_path, starting(made.run.path.name))


def test_settings_are_typed_one_by_one():
    texts = ["start_from=abc", 'start_from.freeze=["layer1"]', "start_from.lr_scale.head=2", "start_from.weights=best"]
    config, _ = apply_overrides(SOURCE, texts)
    assert config.start_from == StartFrom("abc", "best", freeze=("layer1",), lr_scale={"head": 2})
    assert apply_overrides(config, ["start_from=null"])[0] == SOURCE
    for text, message in (
        ("start_from.freeze=stem", "a list of stages"),
        ("start_from.lr_scale.head=0", "above 0"),
        ("start_from.run.x=1", "no settings of its own"),
    ):
        with pytest.raises(BadInput, match=message):
            apply_overrides(config, [text])
