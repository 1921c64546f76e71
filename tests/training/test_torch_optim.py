"""Optimizers as PyTorch's users write them: classes of torch.optim and a user's own."""

import copy
import dataclasses

import pytest
import torch
from support.real_runs import CONFIG, make, same
from support.real_stacks import quickly, stopping

from netdepth.config import Component, RunConfig, StartFrom, TrainConfig
from netdepth.conformance import check_component
from netdepth.errors import BadInput, Interrupted
from netdepth.models import build
from netdepth.training.optim import OPTIMIZERS, SCHEDULES, elementwise
from netdepth.training.resolve import fill_in
from netdepth.training.stack import FineTuning, Stack
from netdepth.training.torch_optim import trial_parameter


class Lion(torch.optim.Optimizer):
    """Chen et al. 2023, as a user writes it: settings without annotations, a Python number in its state."""

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.99), weight_decay=0):
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay, "updates": 0})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            group["updates"] += 1
            first, second = group["betas"]
            for p in group["params"]:
                if p.grad is not None:
                    state = self.state[p]
                    mean = state.setdefault("exp_avg", torch.zeros_like(p))
                    state["count"] = state.get("count", 0) + 1
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    p.add_(torch.sign(mean * first + p.grad * (1 - first)), alpha=-group["lr"] / state["count"] ** 0.1)
                    mean.mul_(second).add_(p.grad, alpha=1 - second)


def two(params, lr=0.02, rest=0.1):
    """Muon for matrices, SGD for the rest at a share of its rate."""
    matrices, others = ([p for p in params if (p.dim() == 2) == wanted] for wanted in (True, False))
    return torch.optim.Muon(matrices, lr=lr), torch.optim.SGD(others, lr=lr * rest, momentum=0.9)


OWN = {"own-rmsprop": torch.optim.RMSprop, "own-adagrad": torch.optim.Adagrad, "own-muon": torch.optim.Muon,
       "own-lion": Lion, "own-two": two, "own-lbfgs": torch.optim.LBFGS}  # fmt: skip


@pytest.fixture(autouse=True)
def _own():
    for name, kind in OWN.items():
        OPTIMIZERS.register(name)(kind)


@pytest.mark.parametrize(
    ("name", "args", "reference"),
    [
        ("own-rmsprop", {"momentum": 0.9}, lambda ps: [torch.optim.RMSprop(ps, 0.01, momentum=0.9)]),
        ("own-adagrad", {"weight_decay": 0.1}, lambda ps: [torch.optim.Adagrad(ps, 0.01, weight_decay=0.1)]),
        ("own-lion", {"betas": [0.8, 0.9]}, lambda ps: [Lion(ps, 0.01, (0.8, 0.9))]),
        ("own-muon", {}, lambda ps: [torch.optim.Muon([p for p in ps if p.dim() == 2], 0.01),
                                     torch.optim.AdamW([p for p in ps if p.dim() != 2], 0.01)]),
        ("own-two", {"rest": 0.5}, lambda ps: two(ps, 0.01, 0.5)),
    ],
)  # fmt: skip
def test_it_updates_as_it_does_alone_and_a_schedule_moves_the_rate_of_every_group(name, args, reference):
    ours = build(Component("resnet", {"depth": 8, "width": 2}), (3, 8, 8), 5).double()
    theirs = copy.deepcopy(ours)
    others = reference(list(theirs.parameters()))
    rates = [group["lr"] for other in others for group in other.param_groups]
    optimizer = OPTIMIZERS.build(Component(name, {"lr": 0.01, **args}), Stack([ours], channels_last=True).flat)
    for step, factor in enumerate((1.0, 0.5, 0.25)):
        generator = torch.Generator().manual_seed(step)
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            other.grad = torch.randn(mine.shape, dtype=mine.dtype, generator=generator)
            mine.grad.copy_(other.grad)
        optimizer.step(optimizer.lr * factor)
        groups = [group for other in others for group in other.param_groups]
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate * factor
        for other in others:
            other.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-3 if name in ("own-muon", "own-two") else 1e-12, rtol=0)  # Muon is bfloat16


@pytest.mark.parametrize("name", ["own-rmsprop", "own-adagrad", "own-muon", "own-lion", "own-two"])
def test_a_stopped_run_continues_to_the_same_bits(name, tmp_path):
    config = RunConfig(CONFIG.dataset, Component("mlp", {"hidden": [16, 12]}), optimizer=Component(name),
                       train=TrainConfig("2ep", batch_size=64, eval_every="1ep"))  # fmt: skip
    assert not elementwise(config.optimizer), "a stack would be one vector"
    with quickly():
        whole = make(tmp_path / "whole", config)
        with pytest.raises(Interrupted):
            make(tmp_path / "parts", config, watch=stopping(1))
        parts = make(tmp_path / "parts", config)
    assert parts.notes == ["continued from step 12 (epoch 1)"]
    same(whole.run, parts.run)
    assert [f.promise for f in check_component("optimizer", name) if not f.kept] == []


def test_frozen_stages_stay_as_they_are_and_others_have_their_own_rate():
    network = build("mlp", (1, 4, 4), 5, hidden=[6, 6])
    stack = Stack([network])
    stages = list(network.stage_paths())
    start = StartFrom("parent", freeze=(stages[0],), lr_scale={stages[-1]: 0.5})
    stack.tuning = FineTuning(stack, start, per_epoch=10, eval_every="1ep")
    before = {key: value.clone() for key, value in network.state_dict().items()}
    optimizer = OPTIMIZERS.build(Component("own-lion", {"lr": 0.1}), stack.flat)
    stack.train(0)
    stack.gradient.fill_(1.0)
    optimizer.step(0.1)
    for key, parameter in network.named_parameters():
        moved = {stages[0]: 0.0, stages[-1]: 0.05}.get(network.stage_of(key), 0.1)
        assert torch.allclose(before[key] - parameter, torch.full_like(parameter, moved)), key
        assert parameter.grad is not None


def test_what_cannot_work_is_refused_in_one_line():
    with pytest.raises(BadInput, match=r"RMSprop cannot be made: Invalid learning rate: -1\.0"):
        OPTIMIZERS.build(Component("own-rmsprop", {"lr": -1.0}), trial_parameter())
    with pytest.raises(BadInput, match=r"LBFGS cannot take a step from gradients alone: .*closure"):
        OPTIMIZERS.build(Component("own-lbfgs"), trial_parameter()).step(0.1)
    with pytest.raises(BadInput, match=r"setting of optimizer 'own-rmsprop': 'alhpa'.*alpha"):
        OPTIMIZERS.build(Component("own-rmsprop", {"alhpa": 0.9}), trial_parameter())
    OPTIMIZERS.register("own-broken")(Broken)
    with pytest.raises(BadInput, match=r"'own-broken' failed at line \d+ of .*test_torch_optim\.py: .*nothing"):
        fill_in(dataclasses.replace(CONFIG, optimizer=Component("own-broken")))
    assert "foreach" not in OPTIMIZERS.resolve(Component("own-rmsprop")).args
    two_seeds = Stack([build("mlp", (1, 4, 4), 5, seed=seed, hidden=[6]) for seed in (0, 1)])
    with pytest.raises(BadInput, match="train its seeds one at a time"):
        OPTIMIZERS.build(Component("own-rmsprop"), two_seeds.flat)


class Broken(torch.optim.SGD):
    def step(self):
        self.nothing.add_(1)


class Mean:
    """Moves every weight by the mean gradient: in a stack the seeds would move each other."""

    def __init__(self, flat, lr):
        self.flat, self.lr, self.state = flat, lr, {}

    def step(self, lr):
        self.flat.data.sub_(lr * self.flat.grad.mean())


def test_an_optimizer_of_the_flat_vector_is_stacked_only_if_it_is_elementwise():
    OPTIMIZERS.register("own-mean")(lambda flat, lr=0.1: Mean(flat, lr))
    assert not elementwise(Component("own-mean"))
    assert elementwise(Component("adam"))


def test_a_schedule_of_ones_own_is_a_function_of_the_step():
    @SCHEDULES.register("own-root")
    def root(step, total_steps, warmup=4):
        return min((step + 1) / warmup, (total_steps - step) / total_steps)

    rates = [SCHEDULES.build(Component("own-root", {"warmup": 2}), 10, 5)(step) for step in range(10)]
    assert rates[:3] == [0.5, 0.9, 0.8]
    with pytest.raises(BadInput, match=r"asks for rate; it is given step.*settings need defaults"):
        SCHEDULES.register("own-bad")(lambda step, rate: rate)
