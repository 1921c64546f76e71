"""Where float32 makes a stack and runs made alone drift apart, they stay two draws of one distribution."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Sequence

import pytest
from support.made_studies import make_spec, make_table
from support.real_stacks import digits

from netdepth import models
from netdepth.config import Component, TrainConfig, derive_seed
from netdepth.data import Split
from netdepth.data.batches import Batches
from netdepth.stats.intervals import mean_interval
from netdepth.studies.verdict import verdict
from netdepth.studyspec import Axis, Primary
from netdepth.training.evaluate import losses_and_accuracies
from netdepth.training.fit import Tick, fit
from netdepth.training.gradients import mlp_gradients
from netdepth.training.optim import OPTIMIZERS, SCHEDULES
from netdepth.training.stack import Stack

pytestmark = pytest.mark.slow

Reached = list[tuple[float, float]]
"""Training loss (nats) and validation accuracy of the last weights, a pair per seed."""


@pytest.fixture(scope="module")
def parts() -> tuple[Split, Split]:
    """750 training and 250 validation digits at half the resolution."""
    train, val = digits().train, digits().val
    return (
        Split(train.inputs[:, :, ::2, ::2].contiguous(), train.labels),
        Split(val.inputs[:, :, ::2, ::2].contiguous(), val.labels),
    )


def train_stack(parts: tuple[Split, Split], seeds: Sequence[int], steps: int, lr: float, **args: object) -> Reached:
    """Train the seeds as one stack, in float32, with Adam and batches of 32."""
    train, val = parts
    networks = []
    for seed in seeds:
        network = models.build(Component("mlp", args), (1, 14, 14), 10, seed=derive_seed(seed, "init"))
        network.normalize.set_statistics(*digits().statistics)
        networks.append(network)
    stack = Stack(networks)
    config = TrainConfig(budget=f"{steps}it", eval_every=f"{steps}it", batch_size=32)
    optimizer = OPTIMIZERS.build(Component("adam", {"lr": lr}), stack.flat)
    schedule = SCHEDULES.build(Component("constant"), steps, 1)
    few = Split(val.inputs[:1], val.labels[:1])
    for event in fit(stack, mlp_gradients(stack), optimizer, schedule, Batches(train, 32, seeds), few, config):
        assert isinstance(event, Tick) or not any(record.diverged for record in event.values())
    replicas = range(len(seeds))
    losses, found = losses_and_accuracies(stack, replicas, train), losses_and_accuracies(stack, replicas, val)
    return [(loss, accuracy) for (loss, _), (_, accuracy) in zip(losses, found, strict=True)]


def train_alone(parts: tuple[Split, Split], seeds: Sequence[int], steps: int, lr: float, **args: object) -> Reached:
    """The same seeds, a stack of one each."""
    return [train_stack(parts, (seed,), steps, lr, **args)[0] for seed in seeds]


def test_over_twenty_seeds_the_mean_difference_is_small_against_the_seeds(parts: tuple[Split, Split]) -> None:
    """A plain net of seven layers, two stacks of ten as a study makes them."""
    net = {"width": 12, "depth": 7, "init": "he"}
    seeds, steps, lr = range(20), 400, 3e-3
    alone = [loss for loss, _ in train_alone(parts, seeds, steps, lr, **net)]
    stacked = [loss for part in (seeds[:10], seeds[10:]) for loss, _ in train_stack(parts, part, steps, lr, **net)]
    differences = [a - b for a, b in zip(alone, stacked, strict=True)]
    scatter = statistics.stdev(alone)
    interval = mean_interval(differences, level=0.90)
    low, high = ((bound or 0) / scatter for bound in (interval.low, interval.high))
    print(
        f"\ntraining loss {statistics.fmean(alone):.4f}, seed standard deviation {scatter:.4f} nats; alone minus "
        f"stacked: 90 % interval {low:+.4f} to {high:+.4f} seed standard deviations, "
        f"single pairs {statistics.stdev(differences) / scatter:.4f} of one apart"
    )
    assert max(map(abs, differences)) > 0, "to the bit the same: nothing to test"  # how far they drift is the CPU's
    assert interval.low is not None
    assert -0.5 < low < high < 0.5


STUDIES, SEEDS = 50, 7
DEPTHS = (3, 8)
CONDITIONS = {"plain": {"shortcut": "none"}, "residual": {"shortcut": "identity", "branch_scale": "blocks^-1/2"}}
SETTINGS = [(24, 1e-2, "he"), (32, 1e-2, "default"), (40, 5e-3, "he"), (40, 2e-2, "default"), (48, 4e-2, "default")]
"""(steps, learning rate, initialisation) of the studies in turn: some comparisons are clear, others close."""
SPEC = make_spec(
    scientific=(
        Axis.of_depths(DEPTHS),
        Axis("condition", {name: {f"model.{k}": v for k, v in args.items()} for name, args in CONDITIONS.items()}),
    ),
    seeds=tuple(range(SEEDS)),
    primary=(
        *(Primary("depth", DEPTHS[1], name) for name in CONDITIONS),
        Primary("shortcut", DEPTHS[1], "residual", "plain"),
    ),
)


def judged(
    parts: tuple[Split, Split], number: int, train: Callable[..., Reached]
) -> tuple[list[str], dict[tuple[str, int], list[float]]]:
    """The labels of the three comparisons of study ``number``, whose seeds are its own, and its training losses."""
    steps, lr, init = SETTINGS[number % len(SETTINGS)]
    seeds = range(SEEDS * number, SEEDS * (number + 1))
    made = {
        (name, depth): train(parts, seeds, steps, lr, width=8, depth=depth, init=init, **args)
        for name, args in CONDITIONS.items()
        for depth in DEPTHS
    }
    losses = {place: [loss for loss, _ in found] for place, found in made.items()}
    errors = {place: [1 - accuracy for _, accuracy in found] for place, found in made.items()}
    found = verdict(make_table(SPEC, losses, errors=errors), SPEC)
    return [contrast.label for contrast in found.contrasts if contrast.primary], losses


def compared(ones: Sequence[Sequence[str]], others: Sequence[Sequence[str]]) -> tuple[int, int]:
    """How many comparisons have different labels, and how many opposite ones."""
    pairs = [pair for a, b in zip(ones, others, strict=True) for pair in zip(a, b, strict=True)]
    return sum(a != b for a, b in pairs), sum({a, b} == {"helps", "degraded"} for a, b in pairs)


def test_over_fifty_studies_a_stack_changes_no_more_labels_than_fresh_seeds_do(parts: tuple[Split, Split]) -> None:
    """The rerun of a study on fresh seeds is the next one with the same settings."""
    alone, losses = zip(*(judged(parts, number, train_alone) for number in range(STUDIES)), strict=True)
    stacked, others = zip(*(judged(parts, number, train_stack) for number in range(STUDIES)), strict=True)
    rerun = alone[len(SETTINGS) :] + alone[: len(SETTINGS)]
    different, opposite = compared(alone, stacked)
    between, _ = compared(alone, rerun)
    drift = [
        abs(a / b - 1)
        for one, other in zip(losses, others, strict=True)
        for p in one
        for a, b in zip(one[p], other[p], strict=True)
    ]
    counts = Counter(label for study in alone for label in study)
    print(
        f"\n{STUDIES} studies, {sum(counts.values())} comparisons: {dict(counts)}; relative drift of a run's loss: "
        f"median {statistics.median(drift):.1e}, largest {max(drift):.1e}; alone against stacked {different} "
        f"different, {opposite} opposite labels; alone against alone on fresh seeds {between} different"
    )
    assert counts["helps"] > 0
    assert counts["degraded"] > 0
    assert opposite == 0
    assert different <= between
    assert between > 0, "labels that are always the same could not differ"
