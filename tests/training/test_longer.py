"""More epochs: a run with a larger budget trains on from the finished one, to the bits of a run from the start."""

import dataclasses
import re

import pytest
from support.real_runs import CONFIG, make, timeless, weights
from support.real_stacks import quickly

from netdepth.config import Component, EarlyStopping
from netdepth.runs.folder import drop_optimizer_states

PER_EPOCH = 12


def of(budget, schedule="constant", optimizer=None, **train):
    train = dataclasses.replace(CONFIG.train, budget=budget, **train)
    optimizer = optimizer or Component("adam", {"lr": 3e-3})
    return dataclasses.replace(CONFIG, train=train, schedule=Component(schedule), optimizer=optimizer)


def finish(tmp_path, config, **kept):
    with quickly():
        return make(tmp_path, config, **kept)


@pytest.fixture(scope="module")
def anew(tmp_path_factory):
    """``anew(config)`` is its run from the start, in a folder where nothing else lies; made once."""
    made = {}
    return lambda config: (
        made.get(repr(config)) or made.setdefault(repr(config), finish(tmp_path_factory.mktemp("anew"), config))
    )


def same(on, other):
    assert {**timeless(other.result), "continued_from": on.result["continued_from"]} == timeless(on.result)
    assert "continued_from" not in other.result
    first, second = ([timeless(record) for record in made.run.read_metrics()] for made in (on, other))
    assert first == second
    for step in {on.result["steps"], on.result["best_step"]}:
        assert weights(on.run, step) == weights(other.run, step)
    names = [sorted(path.name for path in (made.run.path / "probes").iterdir()) for made in (on, other)]
    assert names[0] == names[1]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"schedule": "multi-step"},
        {"optimizer": Component("sgd", {"lr": 0.3}), "early_stopping": EarlyStopping(patience=50)},
        {"eval_every": "5it"},
    ],
)
def test_a_larger_budget_goes_on_bit_for_bit_and_says_so(settings, tmp_path, anew):
    short_config = of("20it" if "eval_every" in settings else "2ep", **settings)
    short = finish(tmp_path, short_config)
    on = finish(tmp_path, of("3ep", **settings))
    step = short.result["steps"]
    assert on.result["continued_from"] == {"run": short.run.path.name, "step": step}
    assert on.notes == [f"continued from step {step} (epoch {step / PER_EPOCH:.4g})"]
    same(on, anew(of("3ep", **settings)))
    assert finish(tmp_path, short_config).notes == [f"already finished: {short.run.path}"], "it stays as it is"


def test_a_run_that_stopped_or_diverged_does_so_again(tmp_path, anew):
    stops = {"early_stopping": EarlyStopping(patience=1, min_delta=0.5)}
    early = finish(tmp_path, of("6ep", **stops))
    assert early.result["status"] == "stopped_early"
    on = finish(tmp_path, of("9ep", **stops))
    assert "stopped early within its smaller budget, so a larger one changes nothing" in on.notes[0]
    same(on, anew(of("9ep", **stops)))
    wild = {"optimizer": Component("sgd", {"lr": 1e6}), "eval_every": "1it"}
    lost = finish(tmp_path / "wild", of("3ep", **wild))
    assert lost.result["status"] == "diverged"
    on = finish(tmp_path / "wild", of("5ep", **wild))
    assert on.result["status"] == "diverged"
    assert timeless(on.result)["steps"] == anew(of("5ep", **wild)).result["steps"]


@pytest.mark.parametrize(
    ("budget", "settings", "reason"),
    [
        ("2ep", {"schedule": "cosine"}, "with schedule cosine the learning rate of every step depends on the budget"),
        ("2ep", {"schedule": "paper-warmup"}, "schedule paper-warmup follows the training of one run"),
        ("7it", {}, r"no sound checkpoint at an evaluation that this run makes too \(every 12 steps\)"),
        ("2ep", {"gc": True}, r"its optimizer state was removed \(netdepth runs gc\)"),
        ("2ep", {"threads": 2}, "that run was started with threads = 2, not 1, which changes its bits"),
    ],
)
def test_where_it_cannot_go_on_it_begins_anew_and_says_why(budget, settings, reason, tmp_path, anew):
    train = {key: value for key, value in settings.items() if key == "schedule"}
    short = finish(tmp_path, of(budget, **train))
    if "gc" in settings:
        assert drop_optimizer_states(short.run) > 0
    if "threads" in settings:
        short.run.write_json("environment.json", {**short.run.read_json("environment.json"), **settings})
    on = finish(tmp_path, of("3ep", **train))
    (note,) = on.notes
    assert re.fullmatch(f"this run begins anew, not from {short.run.path.name} with its {budget}: .*{reason}.*", note)
    assert timeless(on.result) == timeless(anew(of("3ep", **train)).result)


def test_other_runs_and_other_questions_are_never_gone_on_from(tmp_path):
    finish(tmp_path, of("3ep", optimizer=Component("adam", {"lr": 1e-3})))
    finish(tmp_path, of("3ep").with_seed(1))
    on = finish(tmp_path, of("4ep"))
    assert "continued_from" not in on.result
    assert on.notes == []
    assert finish(tmp_path, of("5ep"), fresh=True).notes == []
