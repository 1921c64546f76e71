"""Objectives: class weights and label smoothing as PyTorch has them, and a function of the user's own."""

import dataclasses

import pytest
import torch
from support.real_runs import CONFIG, make
from support.real_stacks import digits, quickly
from torch.nn import functional as F

from netdepth.config import Component, RunConfig, Runtime, TrainConfig
from netdepth.errors import BadInput
from netdepth.models import build
from netdepth.runs.table import minimised
from netdepth.training.gradients import choose_gradients, has_handwritten_pass
from netdepth.training.objectives import OBJECTIVES, prepare
from netdepth.training.resolve import fingerprint, resolve
from netdepth.training.stack import Stack


def rare(splits):
    """``splits`` with a tenth of the zeros."""
    train = splits.train
    kept = (train.labels != 0) | (torch.arange(len(train)) % 10 == 0)
    return dataclasses.replace(
        splits, train=dataclasses.replace(train, inputs=train.inputs[kept], labels=train.labels[kept])
    )


def counts_of(splits):
    return torch.bincount(splits.train.labels, minlength=10).double()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, "balanced", [0.5, 2.0, *[1.0] * 8]])
def test_loss_and_gradients_equal_pytorchs(weights, smoothing):
    splits = rare(digits())
    args = {"class_weights": weights, "label_smoothing": smoothing}
    objective = OBJECTIVES.build(Component("cross-entropy", args))
    prepare(objective, CONFIG, splits, Runtime(device="cpu"))
    counts = counts_of(splits)
    expected = {"balanced": counts.sum() / (10 * counts)}.get(weights) if isinstance(weights, str) else weights
    expected = None if expected is None else torch.as_tensor(expected, dtype=torch.float64)
    network = build("mlp", splits.spec.input_shape, 10, hidden=[6]).double()
    assert has_handwritten_pass(network, objective) == (weights is None and smoothing == 0)
    stack, inputs, labels = Stack([network]), splits.train.inputs[:64], splits.train.labels[:64]
    loss, _ = choose_gradients(stack, objective)(inputs, labels)
    found = [p.grad.clone() for p in network.parameters()]
    reference = F.cross_entropy(network(inputs), labels, weight=expected, label_smoothing=smoothing)
    assert torch.allclose(loss, reference, atol=1e-12)
    for mine, theirs in zip(found, torch.autograd.grad(reference, list(network.parameters())), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-12)


def test_weights_are_hashed_where_they_are_given_and_such_runs_are_trained_alone():
    def of(**args):
        config = RunConfig(CONFIG.dataset, Component("mlp", {"hidden": [8]}), Component("cross-entropy", args))
        return resolve(config, Runtime(device="cpu"), digits())

    plain = of()
    assert plain.config.objective.args["class_weights"] is None
    old = dataclasses.replace(plain.config, objective=Component("cross-entropy", {"label_smoothing": 0.0}, 1))
    assert plain.fingerprint == fingerprint(old, digits().spec), "that of runs from before there were weights"
    balanced, given = of(class_weights="balanced"), of(class_weights=[1.0] * 10)
    assert len({plain.fingerprint, balanced.fingerprint, given.fingerprint}) == 3
    assert plain.stackable
    assert not balanced.stackable


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ("balanecd", "did you mean 'balanced'"),
        (3, "it takes list of float or 'balanced'"),
        ([1.0, -1.0], "numbers of 0 or more"),
        ([0.0, 0.0], "numbers of 0 or more, not all 0"),
        ([1.0, 2.0], "has 2 numbers; mnist5k has 10 classes: 0, 1, 2"),
    ],
)
def test_bad_weights_are_refused_and_nothing_is_written(weights, words, tmp_path):
    config = dataclasses.replace(CONFIG, objective=Component("cross-entropy", {"class_weights": weights}))
    with quickly(), pytest.raises(BadInput, match=words):
        make(tmp_path, config)
    assert list(tmp_path.glob("*/*/*")) == []


def test_evaluations_stay_plain_cross_entropy_and_say_what_was_minimised(tmp_path):
    @OBJECTIVES.register("own-focal")
    def focal(logits, labels, gamma=2.0):
        """Lin et al. 2017."""
        log_p = logits.log_softmax(1).gather(1, labels[:, None]).squeeze(1)
        return (-((1 - log_p.exp()) ** gamma) * log_p).mean()

    train = TrainConfig("1ep", batch_size=64)
    config = dataclasses.replace(CONFIG, train=train, objective=Component("own-focal", {"gamma": 1}))
    with quickly():
        run = make(tmp_path, config).run
    assert minimised(run.read_json("config.json")) == "own-focal gamma=1.0"
    assert minimised({"objective": {"name": "cross-entropy", "args": {"label_smoothing": 0.0}}}) is None
    record, result = run.read_metrics()[-1], run.result()
    assert record["val_loss"] == pytest.approx(result["val"]["last"]["loss"], rel=1e-6)

    OBJECTIVES.register("own-unreduced")(lambda logits, labels: F.cross_entropy(logits, labels, reduction="none"))
    with quickly(), pytest.raises(BadInput, match=r"returned a tensor \[64\]; it must be one number"):
        make(tmp_path / "vector", dataclasses.replace(config, objective=Component("own-unreduced")))
