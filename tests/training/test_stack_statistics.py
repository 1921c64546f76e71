"""Where float32 makes a stack and runs made alone drift apart, they stay two draws of one distribution."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import pytest
from support.real_stacks import digits

from netdepth import models
from netdepth.config import Component, TrainConfig, derive_seed
from netdepth.data import Split
from netdepth.data.augment import Batches
from netdepth.stats.intervals import mean_interval
from netdepth.training.evaluate import scores_at_evaluation
from netdepth.training.fit import Tick, fit
from netdepth.training.gradients import mlp_gradients
from netdepth.training.optim import OPTIMIZERS, SCHEDULES
from netdepth.training.stack import Stack

pytestmark = pytest.mark.slow

STEPS = 400


def trained(train: Split, few: Split, seeds: Sequence[int]) -> list[float]:
    """Training losses of a plain net of seven layers whose ``seeds`` train as one stack in float32."""
    networks = []
    for seed in seeds:
        net = Component("mlp", {"width": 12, "depth": 7, "init": "he"})
        networks.append(models.build(net, (1, 14, 14), 10, seed=derive_seed(seed, "init")))
        networks[-1].normalize.set_statistics(*digits().statistics)
    stack = Stack(networks)
    config = TrainConfig(budget=f"{STEPS}it", eval_every=f"{STEPS}it", batch_size=32)
    optimizer = OPTIMIZERS.build(Component("adam", {"lr": 3e-3}), stack.flat)
    schedule = SCHEDULES.build(Component("constant"), STEPS, 1)
    for event in fit(stack, mlp_gradients(stack), optimizer, schedule, Batches(train, 32, seeds), few, config):
        assert isinstance(event, Tick) or not any(record["diverged"] for record in event.values())
    scores = scores_at_evaluation(stack, range(len(seeds)), train)
    return [score["loss"] for score in scores]


def test_over_twenty_seeds_the_mean_difference_is_small_against_the_seeds() -> None:
    """Two stacks of ten as a study makes them, on 750 digits at half the resolution."""
    train, few = (
        Split(part.inputs[:, :, ::2, ::2].contiguous(), part.labels) for part in (digits().train, digits().val)
    )
    seeds = range(20)
    alone = [loss for seed in seeds for loss in trained(train, few, [seed])]
    stacked = [loss for part in (seeds[:10], seeds[10:]) for loss in trained(train, few, part)]
    differences = [a - b for a, b in zip(alone, stacked, strict=True)]
    scatter = statistics.stdev(alone)
    interval = mean_interval(differences, level=0.90)
    assert max(map(abs, differences)) > 0, "to the bit the same: nothing to test"  # how far they drift is the CPU's
    assert interval.low is not None
    assert interval.high is not None
    assert -0.5 < interval.low / scatter < interval.high / scatter < 0.5
