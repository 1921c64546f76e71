"""Optimizers and the whole trace of every schedule, against PyTorch's own."""

import copy
import itertools

import pytest
import torch
from support.real_runs import make
from support.real_stacks import quickly
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, MultiStepLR, OneCycleLR

from netdepth.config import Component, RunConfig, TrainConfig
from netdepth.errors import BadInput
from netdepth.models import build
from netdepth.training.optim import OPTIMIZERS, SCHEDULES
from netdepth.training.stack import Stack

STEPS = 400


def trace(name, total=STEPS, **args):
    schedule = SCHEDULES.build(Component(name, args), total, 40)
    return [schedule(step) for step in range(total)]


def pytorch_trace(make):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer)
    rates = []
    for _ in range(STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(
    ("name", "args", "make"),
    [
        ("constant", {}, lambda o: MultiStepLR(o, [])),
        ("step", {"at": [0.5, 0.75]}, lambda o: MultiStepLR(o, [200, 300], 0.1)),
        ("step", {"at": [0.3], "gamma": 0.5}, lambda o: MultiStepLR(o, [120], 0.5)),
        ("multi-step", {"at": ["3ep", "300it"]}, lambda o: MultiStepLR(o, [120, 300], 0.1)),
        ("cosine", {}, lambda o: CosineAnnealingLR(o, STEPS)),
        ("cosine", {"floor": 0.1}, lambda o: CosineAnnealingLR(o, STEPS, eta_min=0.1)),
        ("one-cycle", {}, lambda o: OneCycleLR(o, 1.0, STEPS, cycle_momentum=False)),
        ("one-cycle", {"rise": 0.5, "start": 0.1, "end": 1e-3},
         lambda o: OneCycleLR(o, 1.0, STEPS,
             pct_start=0.5, div_factor=10, final_div_factor=100, cycle_momentum=False)),
    ],
)  # fmt: skip
def test_every_schedule_traces_pytorchs(name, args, make):
    assert trace(name, **args) == pytest.approx(pytorch_trace(make), abs=1e-12)


def test_warmup_ends_at_the_full_rate_and_stays_there():
    rates = trace("warmup", steps=50)
    assert rates[:50] == pytest.approx([(i + 1) / 50 for i in range(50)])
    assert set(rates[49:]) == {1.0}


def test_cosine_with_warmup_rises_then_falls():
    rates = trace("cosine", warmup=0.1)
    assert rates[:40] == pytest.approx([(i + 1) / 40 for i in range(40)])
    assert all(a >= b for a, b in itertools.pairwise(rates[39:]))


@pytest.mark.parametrize(
    ("kind", "name", "args"),
    [
        ("optimizer", "adam", {"lr": -1.0}),
        ("optimizer", "adam", {"beta1": 1.0}),
        ("optimizer", "sgd", {"nesterov": True, "momentum": 0.0}),
        ("optimizer", "adamw", {"weight_decay": -1.0}),
        ("schedule", "step", {"at": [1.5]}),
        ("schedule", "step", {"at": [0.5, 0.5]}),
        ("schedule", "step", {"gamma": 0.0}),
        ("schedule", "multi-step", {"at": ["300it", "3ep"]}),
        ("schedule", "cosine", {"warmup": 1.0}),
        ("schedule", "one-cycle", {"rise": -0.1}),
        ("schedule", "warmup", {"steps": 0}),
        ("schedule", "paper-warmup", {"start": 0.0}),
        ("schedule", "paper-warmup", {"start": 1.5}),
        ("schedule", "paper-warmup", {"error": 0.0}),
        ("schedule", "paper-warmup", {"error": 80}),
        ("schedule", "paper-warmup", {"at": [0.5, 0.5]}),
    ],
)
def test_settings_out_of_range_are_refused_by_their_name(kind, name, args):
    registry = OPTIMIZERS if kind == "optimizer" else SCHEDULES
    context = [nn.Parameter(torch.zeros(1))] if kind == "optimizer" else [100, 10]
    with pytest.raises(BadInput, match=rf"^{kind}\.{next(iter(args))} = "):
        registry.build(Component(name, args), *context)


NETS = {
    "resnet": (Component("resnet", {"depth": 8, "width": 2}), (3, 8, 8)),
    "pre-activated": (Component("resnet", {"depth": 8, "width": 2, "pre_activation": True}), (3, 8, 8)),
    "mlp": (Component("mlp", {"hidden": [6, 5], "norm": "layer"}), (1, 4, 4)),
    "none": (Component("mlp", {"hidden": [6, 5]}), (1, 4, 4)),
}
NORMS = nn.BatchNorm2d | nn.BatchNorm1d | nn.LayerNorm
UPDATES = [
    ("adam", {}, torch.optim.Adam, {}),
    ("adamw", {"beta1": 0.8}, torch.optim.AdamW, {"betas": (0.8, 0.999)}),
    ("adamw", {"decay_norms": False}, torch.optim.AdamW, {}),
    ("sgd", {"momentum": 0.0}, torch.optim.SGD, {}),
    ("sgd", {"nesterov": True}, torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    ("sgd", {"decay_norms": False}, torch.optim.SGD, {"momentum": 0.9}),
]
"""Ours with its settings, PyTorch's with the same ones."""


@pytest.mark.parametrize(("name", "args", "kind", "settings"), UPDATES)
@pytest.mark.parametrize("net", NETS)
def test_one_flat_update_equals_pytorchs_per_parameter_with_a_group_for_the_norms(net, name, args, kind, settings):
    component, shape = NETS[net]
    ours = build(component, shape, 5).double()
    theirs = copy.deepcopy(ours)
    norms = [p for module in theirs.modules() if isinstance(module, NORMS) for p in module.parameters()]
    others = [p for p in theirs.parameters() if all(p is not norm for norm in norms)]
    assert bool(norms) == (net != "none")
    groups = [{"params": others, "weight_decay": 0.1}]
    groups += [{"params": norms, "weight_decay": 0.1 if args.get("decay_norms", True) else 0.0}] if norms else []
    reference = kind(groups, 0.1, **settings)
    flat = Stack([ours], channels_last=True).flat
    optimizer = OPTIMIZERS.build(Component(name, {"lr": 0.1, "weight_decay": 0.1, **args}), flat)
    for step in range(6):
        generator = torch.Generator().manual_seed(step)
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            other.grad = torch.randn(mine.shape, dtype=mine.dtype, generator=generator)
            mine.grad.copy_(other.grad)
        optimizer.step(0.1)
        reference.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-12, rtol=0)


def test_spans_of_norms_hold_exactly_their_parameters_in_every_replica():
    models = [build("mlp", (1, 4, 4), 5, seed=seed, hidden=[6, 5], norm="layer") for seed in (0, 1)]
    stack = Stack(models)
    inside = torch.zeros_like(stack.flat.data)
    for start, end in stack.flat.norms:
        inside[start:end] = 1
    stack.flat.data.copy_(inside)
    for model in models:
        for name, parameter in model.named_parameters():
            assert bool((parameter == 1).all()) == name.startswith("norms."), name
    assert len(stack.flat.norms) == 1, "scales and shifts of layers that lie side by side are one span"
    assert inside.sum() == 2 * 2 * (6 + 5)


BUDGET, PER_EPOCH = 64_000, 352
RATE = 0.1


def rates(name, accuracies=(), **args):
    """The learning rate of all 64,000 steps, an evaluation shown after each epoch."""
    schedule = SCHEDULES.build(Component(name, args), BUDGET, PER_EPOCH)
    shown = dict(zip(itertools.count(PER_EPOCH, PER_EPOCH), accuracies, strict=False))
    found = []
    for step in range(BUDGET):
        if step in shown:
            schedule.observe(step, shown[step])
        found.append(RATE * schedule(step))
    return found


def runs_of(values):
    """``values`` as (value, how often running)."""
    return [(pytest.approx(value, rel=1e-12), len(list(same))) for value, same in itertools.groupby(values)]


WARM = 3 * PER_EPOCH


@pytest.mark.parametrize(
    ("name", "accuracies", "expected"),
    [
        ("step", [], [(0.1, 32_000), (0.01, 16_000), (0.001, 16_000)]),
        # An error of 80 % is not below it.
        ("paper-warmup", [0.12, 0.2, 0.31, 0.15],
         [(0.01, WARM), (0.1, 32_000 - WARM), (0.01, 16_000), (0.001, 16_000)]),
        ("paper-warmup", [float("nan")] + 200 * [0.1], [(0.01, 48_000), (0.001, 16_000)]),
    ],
    ids=["without a warm-up", "a tenth until the error is below 80 percent", "a network that never learns"],
)  # fmt: skip
def test_the_papers_rates_for_64k_steps(name, accuracies, expected):
    assert runs_of(rates(name, accuracies)) == expected


def test_the_trace_is_a_function_of_the_records():
    schedules = [SCHEDULES.build(Component("paper-warmup"), 100, 10) for _ in range(2)]
    for step, accuracy in ((10, 0.1), (20, 0.5), (30, 0.05)):
        for schedule in schedules:
            schedule.observe(step, accuracy)
    asked_backwards = [schedules[0](step) for step in reversed(range(100))][::-1]
    assert asked_backwards == [schedules[1](step) for step in range(100)]
    assert asked_backwards[19] < asked_backwards[20] == 1.0


CONFIG = RunConfig(
    dataset=Component("mnist5k"),
    model=Component("mlp", {"hidden": [16]}),
    optimizer=Component("sgd", {"lr": 0.05}),
    schedule=Component("paper-warmup", {"error": 0.75, "at": [0.75]}),
    train=TrainConfig(budget="24it", eval_every="4it", batch_size=64),
)


def test_a_run_leaves_the_warmup_after_the_first_record_below_the_error(tmp_path):
    with quickly():
        records = make(tmp_path, CONFIG).run.read_metrics()
    ended = next(i for i, record in enumerate(records) if 1 - record["train_accuracy"] < 0.75)
    assert 0 < ended < 3, "this is about a warm-up that ends between evaluations"
    expected = [0.005] * (ended + 1) + [0.05] * (3 - ended) + [0.005] * 2  # it decays at step 18
    assert [record["lr"] for record in records] == pytest.approx(expected, rel=1e-12)
