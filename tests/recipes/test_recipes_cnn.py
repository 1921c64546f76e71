"""The convolutional studies: what they hold fixed, what they vary, and that their docstrings say what they are."""

from __future__ import annotations

import inspect
import math

import pytest

from netdepth import models
from netdepth.config import Component
from netdepth.errors import BadInput
from netdepth.models import Description
from netdepth.recipes import RECIPES, resolve_study
from netdepth.stats.exact import smallest_p
from netdepth.studies.ask import ask
from netdepth.studies.paper import HE2016
from netdepth.studies.reach import out_of_reach
from netdepth.studies.samples import design_of, first_level
from netdepth.studyspec import Cell, Primary
from netdepth.training.resolve import fill_in


def cost(cell: Cell) -> Description:
    """Depth, parameters and multiply-adds of a cell's network for CIFAR-10."""
    return models.describe(models.build(fill_in(cell.config).model, (3, 32, 32), 10))


def words(name: str) -> str:
    """A recipe's docstring on one line."""
    return " ".join((inspect.getdoc(RECIPES.entry(name).function) or "").split())


def test_the_laptops_study_compares_twins() -> None:
    spec = resolve_study("depth-cnn")
    assert (spec.levels, spec.conditions) == (("8", "20", "56"), ("plain", "residual"))
    assert (len(spec.seeds), spec.base.dataset, spec.paper) == (7, Component("cifar10-jpeg"), "he2016")
    for plain, residual in zip(spec.cells[:3], spec.cells[3:], strict=True):
        assert cost(plain) == cost(residual), "the same layers, parameters and multiply-adds"
        assert cost(plain).depth == int(plain.level)
    paired = [item for item in spec.primary if item.family == "shortcut"]
    assert paired == [Primary("shortcut", 56, "residual", "plain")]
    # Five comparisons: seven pairs cannot reach the first step of the correction, seven runs against seven can.
    assert {design_of(item, spec) for item in spec.primary} == {"unpaired"}
    assert smallest_p(7, "unpaired") < first_level(spec)[0] < smallest_p(7, "paired")
    official, _ = ask("depth-cnn", dataset="cifar10")
    assert all(cell.config.dataset == Component("cifar10") for cell in official.cells)


def test_the_simple_and_the_residual_net_are_of_one_size() -> None:
    spec = resolve_study("cnn-small")
    simple, residual = (cost(cell) for cell in spec.cells)
    assert [cell.config.model.name for cell in spec.cells] == ["cnn", "resnet"]
    assert simple.depth == residual.depth == 8
    assert simple.parameters == pytest.approx(residual.parameters, rel=0.01)
    assert "about 75,000 parameters" in words("cnn-small")
    assert round(residual.parameters, -3) == 75_000
    assert spec.primary == (Primary("shortcut", 8, "residual", "simple"),)


def test_the_paper_can_be_made_smaller() -> None:
    spec, notes = ask(
        "he2016-cifar10", depths="20,110", seeds=3, overrides=["train.budget=6400it", "dataset.val_size=0"]
    )
    assert (spec.levels, spec.seeds) == (("20", "110"), (0, 1, 2))
    assert {(cell.config.train.budget, cell.config.dataset.args["val_size"]) for cell in spec.cells} == {("6400it", 0)}
    assert spec.cells[1].config.schedule == Component("paper-warmup")
    assert notes == ["2 of the 3 planned comparisons cannot be made at these depths"]
    with pytest.raises(BadInput, match=r"unknown depth of the study: '26'.*choose from: 110, 20, 32, 44, 56"):
        ask("he2016-cifar10", depths="20,26")
    with pytest.raises(BadInput, match="the study varies schedule itself"):
        ask("he2016-cifar10", overrides=["schedule=cosine"])


def test_the_docstring_promises_what_the_paper_printed() -> None:
    text = words("he2016-cifar10")
    for item in HE2016.table:
        std = "" if item.std is None else f" ± {100 * item.std:.2f}"
        assert f"{100 * item.error:.2f}{std}" in text
    spec = resolve_study("he2016-cifar10")
    assert f"Its {len(spec.cells) * len(spec.seeds)} runs" in text
    assert (spec.max_looks, out_of_reach(spec)) == (1, [])
    assert math.comb(10, 5) == 252, "the arrangements of five runs against five"
    assert smallest_p(5, "unpaired") < first_level(spec)[0] < smallest_p(4, "unpaired")
