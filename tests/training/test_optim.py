"""Optimizers and the whole trace of every schedule, against PyTorch's own."""

import itertools

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, MultiStepLR, OneCycleLR

from netdepth.config import Component
from netdepth.errors import BadInput
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


@pytest.mark.parametrize("name", SCHEDULES.names())
@pytest.mark.parametrize("total", [1, 2, 3, 17])
def test_every_schedule_is_positive_and_bounded_on_short_budgets(name, total):
    assert all(0 < rate <= 1 for rate in trace(name, total=total))


@pytest.mark.parametrize(
    ("name", "args"),
    [("step", {"at": [1.5]}), ("step", {"at": [0.5, 0.5]}), ("step", {"gamma": 0.0}), ("cosine", {"warmup": 1.0}),
     ("one-cycle", {"rise": -0.1}), ("warmup", {"steps": 0})],
)  # fmt: skip
def test_bad_schedules_are_refused(name, args):
    with pytest.raises(BadInput):
        trace(name, **args)


@pytest.mark.parametrize(
    ("name", "args", "reference"),
    [
        ("adam", {"lr": 0.01, "weight_decay": 0.1}, lambda p: torch.optim.Adam(p, 0.01, weight_decay=0.1)),
        ("adamw", {"lr": 0.01, "beta1": 0.8}, lambda p: torch.optim.AdamW(p, 0.01, (0.8, 0.999))),
        ("sgd", {"lr": 0.1, "nesterov": True, "weight_decay": 1e-3},
         lambda p: torch.optim.SGD(p, 0.1, 0.9, nesterov=True, weight_decay=1e-3)),
    ],
)  # fmt: skip
def test_one_flat_update_equals_pytorchs_per_layer_update(name, args, reference):
    def network():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()

    ours, theirs = network(), network()
    flat = Stack([ours]).flat
    mine, other = OPTIMIZERS.build(Component(name, args), flat), reference(theirs.parameters())
    for step in range(20):
        x = torch.randn(8, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(step))
        flat.grad.zero_()
        other.zero_grad()
        for model in (ours, theirs):
            model(x).square().mean().backward()
        mine.step(mine.lr)
        other.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("name", "args"),
    [("adam", {"lr": -1.0}), ("adam", {"beta1": 1.0}), ("sgd", {"momentum": 0.0, "nesterov": True}),
     ("adamw", {"weight_decay": -1.0})],
)  # fmt: skip
def test_bad_optimizers_are_refused(name, args):
    with pytest.raises(BadInput):
        OPTIMIZERS.build(Component(name, args), nn.Parameter(torch.zeros(1)))
