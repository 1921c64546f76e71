"""The warm-up of He et al. 2016 for ResNet-110: its whole trace, its resumption, and who may use it."""

import dataclasses
import itertools

import pytest
from support.real_cohorts import quickly, stackable
from support.real_runs import make, same

from netdepth.config import Component, RunConfig, Runtime, TrainConfig
from netdepth.errors import BadInput, Interrupted
from netdepth.progress import TrainProgress
from netdepth.training.optim import SCHEDULES, WatchingSchedule
from netdepth.training.run import run_stack

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


def test_the_papers_steps_are_at_32k_and_48k_of_64k():
    assert runs_of(rates("step")) == [(0.1, 32_000), (0.01, 16_000), (0.001, 16_000)]


def test_the_rate_is_a_tenth_until_the_error_is_below_80_percent_and_then_the_papers():
    trace = runs_of(rates("paper-warmup", [0.12, 0.2, 0.31, 0.15]))
    warm = 3 * PER_EPOCH  # an error of 80 % is not below it
    assert trace == [(0.01, warm), (0.1, 32_000 - warm), (0.01, 16_000), (0.001, 16_000)]


def test_a_network_that_never_learns_keeps_the_low_rate_and_still_decays():
    assert runs_of(rates("paper-warmup", [float("nan")] + 200 * [0.1])) == [(0.01, 48_000), (0.001, 16_000)]


def test_the_trace_is_a_function_of_the_records():
    schedules = [SCHEDULES.build(Component("paper-warmup"), 100, 10) for _ in range(2)]
    for step, accuracy in ((10, 0.1), (20, 0.5), (30, 0.05)):
        for schedule in schedules:
            schedule.observe(step, accuracy)
    asked_backwards = [schedules[0](step) for step in reversed(range(100))][::-1]
    assert asked_backwards == [schedules[1](step) for step in range(100)]
    assert asked_backwards[19] < asked_backwards[20] == 1.0


@pytest.mark.parametrize("args", [{"start": 0.0}, {"start": 1.5}, {"error": 0.0}, {"error": 80}, {"at": [0.5, 0.5]}])
def test_bad_settings_are_refused(args):
    with pytest.raises(BadInput, match=f"schedule.{next(iter(args))}"):
        SCHEDULES.build(Component("paper-warmup", args), 100, 10)


def test_no_other_schedule_watches():
    watching = [n for n in SCHEDULES.names() if isinstance(SCHEDULES.build(Component(n), 100, 10), WatchingSchedule)]
    assert watching == ["paper-warmup"]


# --- in a run -----------------------------------------------------------------------------------

CONFIG = RunConfig(
    dataset=Component("mnist5k"),
    model=Component("mlp", {"hidden": [16]}),
    optimizer=Component("sgd", {"lr": 0.05}),
    schedule=Component("paper-warmup", {"error": 0.75, "at": [0.75]}),
    train=TrainConfig(budget="24it", eval_every="4it", batch_size=64),
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    with quickly():
        return make(tmp_path_factory.mktemp("whole"), CONFIG).run


def test_a_run_leaves_the_warmup_after_the_first_record_below_the_error(whole):
    records = whole.read_metrics()
    ended = next(i for i, record in enumerate(records) if 1 - record["train_accuracy"] < 0.75)
    assert 0 < ended < 4, "this is about a warm-up that ends between evaluations"
    assert [r["lr"] for r in records[: ended + 1]] == pytest.approx([0.005] * (ended + 1), rel=1e-12)
    assert records[ended + 1]["lr"] == pytest.approx(0.05, rel=1e-12)
    assert records[-1]["lr"] == pytest.approx(0.005, rel=1e-12)


@pytest.mark.parametrize("evaluations", [1, 2, 3, 4])
def test_a_stopped_run_repeats_the_trace_to_the_bit(whole, tmp_path, monkeypatch, evaluations):
    seen = []
    original = TrainProgress.evaluated

    def evaluated(self, record):
        original(self, record)
        seen.append(record)
        if len(seen) == evaluations:
            raise KeyboardInterrupt

    with quickly():
        with monkeypatch.context() as patch:
            patch.setattr(TrainProgress, "evaluated", evaluated)
            with pytest.raises(Interrupted):
                make(tmp_path, CONFIG)
        same(whole, make(tmp_path, CONFIG).run)


def test_its_runs_are_made_alone(tmp_path):
    assert not stackable(CONFIG)
    assert stackable(dataclasses.replace(CONFIG, schedule=Component("step")))
    runtime = Runtime(runs_root=tmp_path, threads=1, device="cpu")
    with quickly(), pytest.raises(BadInput, match=r"^schedule 'paper-warmup' follows one run's training error"):
        run_stack([CONFIG, CONFIG.with_seed(1)], runtime, name="test", study="single", watch=quiet)


def quiet(title, total_steps, steps_per_epoch):
    return TrainProgress(title, total_steps, steps_per_epoch, shown=False)
