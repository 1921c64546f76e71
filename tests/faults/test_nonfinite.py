"""NaN and Inf in the input, the weights or the gradient: caught at once, called diverged, counted in every table."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path

import pytest
from support import tiny_studies
from support.cli_world import answer
from support.real_runs import CONFIG, make
from support.real_stacks import digits, few, poison

from faults.record import Faults
from netdepth import data
from netdepth.config import Component, RunConfig, TrainConfig
from netdepth.data.augment import Batches
from netdepth.report.content import Content
from netdepth.report.data import read_study
from netdepth.studies.table import study_table
from netdepth.training import loop

PERIOD, BUDGET = 6, 24
PLACES = ("input", "weights", "gradient")
TRAIN = TrainConfig(budget=f"{BUDGET}it", eval_every=f"{PERIOD}it", batch_size=32)
MLP = dataclasses.replace(CONFIG, model=Component("mlp", {"hidden": [16]}), train=TRAIN)
CNN = RunConfig(
    CONFIG.dataset, Component("resnet", {"depth": 8, "width": 4}), optimizer=Component("sgd", {"lr": 0.1}), train=TRAIN
)
STEPS = (0, 1, PERIOD - 1, PERIOD, 2 * PERIOD + 3, BUDGET - 1)
"""The first, the last of a period, the first of the next, one within, and the last of all."""

WITHIN_A_STEP, HIDDEN = "within one step", "at the period's end: hidden behind a unit it switched off"


def plant(monkeypatch: pytest.MonkeyPatch, place: str, step: int, value: float) -> None:
    """Put ``value`` into the input or the weights before the gradient of ``step``, or into that gradient."""
    choose, draw_batch = loop.choose_gradients, Batches.__call__

    def batch(self, number):
        inputs, labels = draw_batch(self, number)
        if place == "input" and number == step:
            inputs = inputs.float()
            inputs[0, 0, 14, 14] = value
        return inputs, labels

    def chosen(stack, objective):
        gradients, steps = choose(stack, objective), itertools.count()

        def compute(inputs, labels):
            now = next(steps) == step
            middle = len(stack.flat) // 3
            if now and place == "weights":
                stack.flat.data[middle] = value
            found = gradients(inputs, labels)
            if now and place == "gradient":
                stack.gradient[middle] = value
            return found

        return compute

    monkeypatch.setattr(Batches, "__call__", batch)
    monkeypatch.setattr(loop, "choose_gradients", chosen)


@pytest.mark.faults
def test_nan_and_inf_at_any_step(
    faults: Faults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(data, "load", lambda component, data_dir: few() if component.name == "few" else digits())
    cases = itertools.cycle(itertools.product((MLP, CNN), PLACES, (math.nan, math.inf)))
    steps = itertools.cycle(STEPS)
    with faults.drill(9, "NaN or Inf in input, weights or gradient", quick=12) as drill:
        for number in range(drill.count):
            (config, place, value), step = next(cases), next(steps)
            if number % 12 == 0 and number:
                next(steps)  # other steps for the same faults
            root = tmp_path / str(number)
            what = f"{value} in the {place} of the {config.model.name} at step {step}"
            with drill.injection(what) as fell:
                with monkeypatch.context() as patch:
                    plant(patch, place, step, value)
                    made = make(root, config, probes=False)
                assert made.result["status"] == "diverged"
                last = made.run.read_metrics()[-1]
                assert last["diverged"]
                allowed = {step, min(step + 1, BUDGET)} if place != "gradient" else {min(step + 1, BUDGET)}
                within = last["step"] in allowed
                assert within or (value == math.inf and last["step"] == (step // PERIOD + 1) * PERIOD), last["step"]
                fell.append(WITHIN_A_STEP if within else HIDDEN)
                for checkpoint in made.run.checkpoints():
                    assert checkpoint <= step
                make(root, config.with_seed(1), probes=False)
                runs = [str(path) for path in (root / "single").iterdir()]
                code, out, _ = answer(["compare", *runs], capsys)
                assert code == 0
                assert "1 diverged" in out


@pytest.mark.parametrize("place", ["gradient", "hidden"])
def test_weights_that_only_the_end_of_a_period_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Made NaN by the very last update; and infinite where that switches a unit off, which no loss shows."""
    monkeypatch.setattr(data, "load", lambda component, data_dir: digits())
    if place == "gradient":
        plant(monkeypatch, place, BUDGET - 1, math.nan)
    else:
        choose = loop.choose_gradients

        def chosen(stack, objective):
            stack.views("hidden.0.bias")[0][0] = -math.inf
            return choose(stack, objective)

        monkeypatch.setattr(loop, "choose_gradients", chosen)
    made = make(tmp_path, MLP, probes=False)
    assert made.result["status"] == "diverged"
    assert made.run.read_metrics()[-1]["step"] == (BUDGET if place == "gradient" else PERIOD)
    assert all(step < BUDGET for step in made.run.checkpoints())


def test_a_diverged_run_is_counted_in_the_tables_of_its_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch, index=1, step=2)
    made = tiny_studies.make(tmp_path, tiny_studies.tiny_spec())
    assert list(study_table(made.study)["status"]).count("diverged") == 2, "one of the stack of each depth"
    trouble = Content(read_study(made.study)).tables["trouble"]
    assert len(trouble.rows) == 2
