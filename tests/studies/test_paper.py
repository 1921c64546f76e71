"""Published numbers beside ours: each kind of comparison against a reference, and what is comparable."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import re

import numpy as np
import pytest
from scipy import stats

from netdepth.config import Component, from_json, to_json
from netdepth.errors import BadInput
from netdepth.overrides import apply_overrides
from netdepth.recipes import resolve_study
from netdepth.runs.table import RunRow
from netdepth.studies.folder import PlannedRun
from netdepth.studies.paper import HE2016, Published, beside, best_of, error_of, welch
from netdepth.studies.table import StudyRow
from netdepth.studyspec import StudySpec
from netdepth.training.resolve import fill_in

ERRORS = [0.0891, 0.0868, 0.0874, 0.0902, 0.0859]


# --- each kind of number ------------------------------------------------------------------------


def test_one_run_is_held_against_where_one_more_of_ours_would_fall() -> None:
    found = beside(Published(20, "one run", 0.0875), ERRORS)
    mean, spread = np.mean(ERRORS), np.std(ERRORS, ddof=1) * math.sqrt(1 + 1 / 5)
    low, high = stats.t.interval(0.95, 4, mean, spread)
    assert (found.held.low, found.held.high) == pytest.approx((low, high), abs=1e-12)
    assert (found.outcome, found.p) == ("agrees", None)
    assert beside(Published(20, "one run", low - 1e-6), ERRORS).outcome == "higher"
    assert beside(Published(20, "one run", high + 1e-6), ERRORS).outcome == "lower"


@pytest.mark.parametrize(("n", "k"), [(5, 5), (6, 5), (9, 5), (7, 1), (8, 3)])
def test_the_best_of_k_is_the_mean_over_all_subsets(n: int, k: int) -> None:
    errors = np.random.default_rng(n).normal(0.07, 0.002, n).tolist()
    every = [min(subset) for subset in itertools.combinations(errors, k)]
    assert best_of(errors, k).value == pytest.approx(math.fsum(every) / len(every), rel=1e-13)


@pytest.mark.parametrize(("n", "k"), [(2, 1), (3, 2), (5, 5), (12, 5)])
def test_the_interval_of_the_best_of_k_is_that_of_the_joint_t_distribution(n: int, k: int) -> None:
    errors = np.random.default_rng(n).normal(0.07, 0.002, n)
    found = best_of(errors.tolist(), k)
    # (each of k more runs - mean) / (s sqrt(1 + 1/n)) is a t variable; two of them share 1/n of their variance 1 + 1/n.
    shape = np.full((k, k), 1 / (n + 1)) + np.eye(k) * n / (n + 1)
    joint = stats.multivariate_t(shape=shape, df=n - 1, seed=0)
    for end, above in ((found.low, 0.975), (found.high, 0.025)):
        assert end is not None
        scaled = (end - errors.mean()) / (errors.std(ddof=1) * math.sqrt(1 + 1 / n))
        assert joint.cdf(np.full(k, -scaled)) == pytest.approx(above, abs=2e-3)  # all k above: by symmetry, below


@pytest.mark.parametrize("n", [2, 5, 12])
def test_a_mean_with_its_deviation_is_compared_by_welch(n: int) -> None:
    errors = np.random.default_rng(n).normal(0.068, 0.003, n)
    found, p = welch(errors.tolist(), 0.0661, 0.0016, 5)
    reference = stats.ttest_ind_from_stats(errors.mean(), errors.std(ddof=1), n, 0.0661, 0.0016, 5, equal_var=False)
    assert p == pytest.approx(reference.pvalue, rel=1e-10)
    parts = errors.var(ddof=1) / n, 0.0016**2 / 5
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / (n - 1) + parts[1] ** 2 / 4)
    interval = stats.t.interval(0.95, freedom, errors.mean() - 0.0661, math.sqrt(sum(parts)))
    assert (found.low, found.high) == pytest.approx(interval, abs=1e-10)


def test_equal_errors_have_no_scatter() -> None:
    assert best_of([0.08] * 3, 5).high == pytest.approx(0.08)
    found = beside(HE2016.table[-1], [0.0661] * 4)
    assert (found.outcome, found.p) == ("agrees", pytest.approx(1.0))


def test_few_runs_say_little_and_none_say_nothing() -> None:
    for published in HE2016.table:
        for errors in ([], [0.07]):
            found = beside(published, errors)
            assert (found.outcome, found.held.low, found.held.high, found.p) == ("too few", None, None, None)
            assert found.mean.value == (0.07 if errors else None)
    assert best_of(ERRORS[:4], 5).value is None, "four runs have no best of five"
    assert best_of(ERRORS[:4], 5).low is not None, "but they say where one of five more would fall"


def test_outcomes_follow_the_interval() -> None:
    mean, best = HE2016.table[-1], HE2016.table[-2]
    assert beside(mean, [0.075, 0.076, 0.077]).outcome == "higher"
    assert beside(mean, [0.055, 0.056, 0.057]).outcome == "lower"
    assert beside(mean, [0.065, 0.066, 0.067]).outcome == "agrees"
    assert beside(best, [0.075, 0.0755, 0.076, 0.0752, 0.0758]).outcome == "higher"
    assert beside(best, [0.0643, 0.0661, 0.0655, 0.067, 0.068]).outcome == "agrees"


def test_a_diverged_run_counts_as_guessing() -> None:
    planned = PlannedRun(condition="plain", level="20", levels={"depth": "20"}, seed=0)

    def error(status: str, accuracy: float | None) -> float | None:
        made = RunRow("run", "folder", status, scores={"test_last_accuracy": accuracy})
        return error_of(StudyRow(planned, made, classes=10))

    assert error("completed", 0.92) == pytest.approx(0.08)
    assert error("diverged", math.nan) == pytest.approx(0.9)
    assert error_of(StudyRow(planned)) is None, "no run"
    assert error("completed", None) is None, "a data set without a test part"


# --- what is comparable -------------------------------------------------------------------------


def departures(*overrides: str, depth: int = 20) -> dict[str, str]:
    """Why a run of the paper's recipe with other settings is not comparable."""
    cell = next(cell for cell in resolve_study("he2016-cifar10").cells if cell.level == str(depth))
    return HE2016.departures(to_json(fill_in(apply_overrides(cell.config, overrides)[0])))


def test_the_papers_recipe_on_all_images_is_comparable_at_every_depth() -> None:
    for depth in (20, 32, 44, 56, 110):
        assert departures("dataset.val_size=0", depth=depth) == {}
        assert list(departures(depth=depth)) == ["config.json:dataset.args.val_size"]
    assert "trained on 45,000 images, not on all 50,000" in departures()["config.json:dataset.args.val_size"]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("dataset=cifar10-jpeg", r"the data set is CIFAR-10 \(JPEG\), compressed with loss, not CIFAR-10"),
        ("model.width=8", "model.width is 8, not 16"),
        ("train.budget=6400it", "train.budget is 6400it, not 64000it"),
        ("optimizer.lr=0.05", "optimizer.lr is 0.05, not 0.1"),
        ("schedule=cosine", "schedule.name is cosine, not step"),
        ("augmentation=none", "augmentation.name is none, not crop-flip"),
        ("train.early_stopping.patience=3", "stop early"),
    ],
)
def test_what_departs_from_the_paper_is_named(override: str, words: str) -> None:
    found = departures("dataset.val_size=0", override)
    assert any(re.search(words, reason) for reason in found.values())
    assert set(found) <= set(HE2016.fields)


def test_only_the_papers_network_is_beside_its_numbers() -> None:
    spec = resolve_study("he2016-cifar10")
    about = {(cell.condition, int(cell.level)): HE2016.about(cell.config, int(cell.level)) for cell in spec.cells}
    assert all(not found for (condition, _), found in about.items() if condition == "plain")
    assert [len(about["residual", depth]) for depth in map(int, spec.levels)] == [1, 1, 1, 1, 2]
    cell = next(cell for cell in spec.cells if cell.condition == "residual")
    for other in (Component("mlp", {"depth": 20}), Component("resnet", {"shortcut": "projection"})):
        assert HE2016.about(dataclasses.replace(cell.config, model=other), 20) == []


def test_a_study_names_a_paper_that_there_is() -> None:
    spec = dataclasses.replace(resolve_study("depth-mlp5k"), paper="he2016")
    assert from_json(StudySpec, json.loads(json.dumps(to_json(spec)))) == spec
    assert spec.fingerprint() != resolve_study("depth-mlp5k").fingerprint() == "4553d29f87"
    with pytest.raises(BadInput, match=r"unknown study.paper 'he2015' \(did you mean 'he2016'\?\)"):
        dataclasses.replace(spec, paper="he2015")
