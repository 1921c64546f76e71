"""Intervals against SciPy's own, and the number of seeds against the exact power."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from netdepth.errors import BadInput
from netdepth.stats import intervals
from netdepth.stats.intervals import (
    bootstrap_interval,
    combination_interval,
    combination_p,
    difference_interval,
    equivalence_p,
    failure_rate_not_excluded,
    mean_interval,
    prediction_interval,
    seeds_needed,
)


def draws(seed: int, n: int, mean: float = 0.1, sd: float = 0.02) -> list[float]:
    return np.random.Generator(np.random.PCG64(seed)).normal(mean, sd, n).tolist()


@pytest.mark.parametrize("n", [2, 3, 10, 50])
@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
def test_the_intervals_of_the_mean_and_of_one_more_run_are_scipys(n: int, level: float) -> None:
    values = np.array(draws(n, n, 0.97, 0.01))
    for interval, scale, method in (
        (mean_interval, stats.sem(values), "Student t"),
        (prediction_interval, values.std(ddof=1) * math.sqrt(1 + 1 / n), "Student t, of one more run"),
    ):
        low, high = stats.t.interval(level, n - 1, loc=values.mean(), scale=scale)
        found = interval(values.tolist(), level)
        assert (found.n, found.level, found.method) == (n, level, method)
        assert [found.value, found.low, found.high] == pytest.approx([values.mean(), low, high], rel=1e-12)


def test_values_too_few_or_without_scatter() -> None:
    for found, expected in (
        (mean_interval([0.5]), (0.5, None, None, 1)),
        (mean_interval([]), (None, None, None, 0)),
        (mean_interval([0.25] * 4), (0.25, 0.25, 0.25, 4)),
        (difference_interval([], [1.0]), (None, None, None, 0)),
        (difference_interval([0.5], [0.25, 0.75]), (0.0, None, None, 1)),
        (difference_interval([0.5] * 3, [0.25] * 4), (0.25, 0.25, 0.25, 3)),
    ):
        assert (found.value, found.low, found.high, found.n) == expected


@pytest.mark.parametrize("scale", ["linear", "log"])
@pytest.mark.parametrize(("n", "m"), [(2, 2), (10, 10), (6, 9)])
def test_intervals_of_a_mean_and_of_a_difference_are_scipys_on_both_scales(n: int, m: int, scale: str) -> None:
    """On the log scale the mean is the geometric one and the difference a ratio."""
    a, b = draws(1, n), draws(2, m, 0.5, 0.1)
    x, y, back = (a, b, float) if scale == "linear" else (np.log(a), np.log(b), np.exp)
    theirs = stats.ttest_ind(x, y, equal_var=False).confidence_interval(0.95)
    found = difference_interval(a, b, scale=scale)
    expected = [np.mean(x) - np.mean(y), theirs.low, theirs.high]
    assert [found.value, found.low, found.high] == pytest.approx([back(value) for value in expected], rel=1e-10)
    assert found.n == min(n, m)
    low, high = stats.t.interval(0.95, n - 1, loc=np.mean(x), scale=stats.sem(x))
    found = mean_interval(a, scale=scale)
    assert found.statistic == ("mean" if scale == "linear" else "geometric mean")
    assert [found.value, found.low, found.high] == pytest.approx([back(v) for v in (np.mean(x), low, high)], rel=1e-10)


# --- combinations of means, their tests, and equivalence ---


@pytest.mark.parametrize("scale", ["linear", "log"])
@pytest.mark.parametrize(("n", "m"), [(2, 2), (10, 10), (6, 9)])
@pytest.mark.parametrize("beyond", [None, 0.0, 0.02, -0.4])
def test_a_difference_is_tested_as_scipys_welch(n: int, m: int, scale: str, beyond: float | None) -> None:
    a, b = draws(1, n, 0.2), draws(2, m, 0.25, 0.04)
    x, y = (np.array(a), np.array(b)) if scale == "linear" else (np.log(a), np.log(b))
    if beyond is None:
        theirs = stats.ttest_ind(x, y, equal_var=False)
    else:
        theirs = stats.ttest_ind(x - beyond, y, equal_var=False, alternative="less")
    assert combination_p([a, b], [1, -1], scale, beyond) == pytest.approx(theirs.pvalue, rel=1e-10)


def test_paired_values_are_tested_as_scipys_pairs() -> None:
    a, b = draws(1, 8, 0.11), draws(2, 8, 0.1)
    differences = [x - y for x, y in zip(a, b, strict=True)]
    assert combination_p([differences], [1]) == pytest.approx(stats.ttest_rel(a, b).pvalue, rel=1e-10)
    theirs = stats.ttest_1samp(differences, 0.02, alternative="less").pvalue
    assert combination_p([differences], [1], beyond=0.02) == pytest.approx(theirs, rel=1e-10)
    found, theirs = combination_interval([differences], [1], 0.99), stats.ttest_rel(a, b).confidence_interval(0.99)
    assert [found.low, found.high] == pytest.approx([theirs.low, theirs.high], rel=1e-10)


def test_a_difference_of_differences_has_welchs_and_satterthwaites_freedom() -> None:
    samples = [draws(k, n, 0.1 * k, 0.01 * k) for k, n in ((1, 4), (2, 7), (3, 5), (4, 9))]
    weights = [1, -1, -1, 1]
    parts = [w**2 * np.var(s, ddof=1) / len(s) for w, s in zip(weights, samples, strict=True)]
    value = sum(w * np.mean(s) for w, s in zip(weights, samples, strict=True))
    freedom = sum(parts) ** 2 / sum(part**2 / (len(s) - 1) for part, s in zip(parts, samples, strict=True))
    half = stats.t.ppf(0.975, freedom) * math.sqrt(sum(parts))
    found = combination_interval(samples, weights)
    assert (found.n, found.level, found.method) == (4, 0.95, "Welch t")
    assert [found.value, found.low, found.high] == pytest.approx([value, value - half, value + half], rel=1e-10)
    p = 2 * stats.t.sf(abs(value) / math.sqrt(sum(parts)), freedom)
    assert combination_p(samples, weights) == pytest.approx(p, rel=1e-10)


@pytest.mark.parametrize("level", [0.9, 0.95, 1 - 0.05 * 0.94 / 35])
def test_an_interval_excludes_0_exactly_where_the_p_is_below_its_level(level: float) -> None:
    sides = set()
    for k in range(60):
        samples = [draws(k, 5, 0.1 + 0.002 * k), draws(1000 + k, 8, 0.1, 0.01)]
        found, p = combination_interval(samples, [1, -1], level), combination_p(samples, [1, -1])
        sides.add(excludes := not found.low <= 0 <= found.high)
        assert excludes == (p < 1 - level)
    assert sides == {True, False}


@pytest.mark.parametrize("margin", [0.005, 0.02, 0.05])
def test_equivalence_is_two_one_sided_tests(margin: float) -> None:
    a, b = draws(3, 7, 0.1), draws(4, 10, 0.105)
    x, y = np.array(a), np.array(b)
    one = stats.ttest_ind(x - margin, y, equal_var=False, alternative="less").pvalue
    other = stats.ttest_ind(x + margin, y, equal_var=False, alternative="greater").pvalue
    found = equivalence_p([a, b], [1, -1], margin)
    assert found == pytest.approx(max(one, other), rel=1e-10)
    assert equivalence_p([b, a], [1, -1], margin) == pytest.approx(found, rel=1e-10)
    # The same decision as the 90 % interval inside the margin at a level of 5 %.
    inside = combination_interval([a, b], [1, -1], 0.9)
    assert (found < 0.05) == (-margin < inside.low and inside.high < margin)


def test_what_does_not_scatter_decides_by_itself_and_one_value_decides_nothing() -> None:
    same, other = [[0.1] * 5, [0.1] * 6], [[0.1] * 5, [0.3] * 6]
    assert (combination_p(same, [1, -1]), combination_p(other, [1, -1])) == (1, 0)
    assert (combination_p(other, [1, -1], beyond=0.0), combination_p(other, [-1, 1], beyond=0.1)) == (0, 1)
    assert (equivalence_p(same, [1, -1], 0.02), equivalence_p(other, [1, -1], 0.02)) == (0, 1)
    rounding = [[0.1 + 0.2] * 5, [0.3] * 5]  # 0.30000000000000004 is no evidence
    assert combination_p(rounding, [1, -1]) == 1
    for few in ([[0.1], [0.5, 0.6]], [[], [0.5, 0.6]]):
        assert combination_p(few, [1, -1]) == combination_p(few, [1, -1], beyond=9.0) == equivalence_p(few, [1, -1], 9)
        assert combination_p(few, [1, -1]) == 1
    assert combination_interval([[0.5], [0.25, 0.75]], [1, -1]).method == "none: one value in a group"


@pytest.mark.parametrize("n", [1, 5, 7, 10, 15])
def test_the_failure_rate_that_n_runs_do_not_exclude_is_clopper_and_pearsons(n: int) -> None:
    theirs = stats.binomtest(0, n, alternative="less").proportion_ci(0.95, method="exact")
    assert failure_rate_not_excluded(n) == pytest.approx(theirs.high)
    assert failure_rate_not_excluded(10) == pytest.approx(0.2589, abs=1e-4)
    assert failure_rate_not_excluded(0) == 1


# --- what has none ---


@pytest.mark.parametrize(
    ("values", "settings", "words"),
    [
        ([1.0, math.nan], {}, "has no mean"),
        ([1.0, math.inf], {}, "has no mean"),
        ([0.0, 1.0], {"scale": "log"}, "log scale"),
        ([1.0, 2.0], {"level": 95}, "between 0 and 1"),
    ],
)
def test_what_has_no_interval_is_refused(values: list[float], settings: dict, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        mean_interval(values, **settings)
    with pytest.raises(BadInput, match=words):
        combination_interval([values, [1.0, 2.0]], [1, -1], **settings)


@pytest.mark.parametrize("margin", [0, -1.0, math.nan])
def test_equivalence_takes_a_margin(margin: float) -> None:
    with pytest.raises(BadInput, match=r"margin = .* takes a number above 0"):
        equivalence_p([[1.0, 2.0], [1.0, 2.0]], [1, -1], margin)


def test_a_prediction_interval_holds_one_more_run_as_often_as_it_says() -> None:
    made = np.random.Generator(np.random.PCG64(0)).lognormal(size=(2000, 6))
    hits = 0
    for *known, new in made.tolist():
        found = prediction_interval(known, 0.9, scale="log")
        hits += found.low <= new <= found.high
    assert hits / 2000 == pytest.approx(0.9, abs=0.02)


def test_the_bootstrap_is_near_scipys_and_refuses_fewer_than_20() -> None:
    values = draws(3, 20)
    theirs = stats.bootstrap((np.array(values),), np.mean, method="percentile", n_resamples=9999).confidence_interval
    found = bootstrap_interval(values)
    width = theirs.high - theirs.low
    assert [found.low, found.high] == pytest.approx([theirs.low, theirs.high], abs=0.05 * width)
    assert found == bootstrap_interval(values[::-1])
    with pytest.raises(BadInput, match="19 values are too few"):
        bootstrap_interval(values[:19])


def power_of_t(n: int, margin: float, variances: list[float], level: float) -> float:
    """Exact power of a two-sided t test with equal variances, from the noncentral t distribution."""
    freedom = (n - 1) * len(variances)
    shift = margin / math.sqrt(sum(variances) / n)
    edge = stats.t.ppf(1 - level / 2, freedom)
    return stats.nct.sf(edge, freedom, shift) + stats.nct.cdf(-edge, freedom, shift)


@pytest.mark.parametrize("variances", [[1.0], [1.0, 1.0]])
@pytest.mark.parametrize("margin", [0.3, 0.6, 1.0, 2.0])
@pytest.mark.parametrize("level", [0.05, 0.025 / 6])
def test_the_seeds_needed_have_the_power_asked_for(variances: list[float], margin: float, level: float) -> None:
    n = seeds_needed(margin, variances, level)
    assert power_of_t(n + 1, margin, variances, level) >= 0.8
    assert power_of_t(n - 2, margin, variances, level) < 0.8


def test_one_standard_deviation_takes_ten_pairs_and_nothing_takes_too_many() -> None:
    assert seeds_needed(1.0, [1.0]) == 10
    assert seeds_needed(0.001, [1.0]) is None
    assert seeds_needed(0.001, [0.0]) == 2
    with pytest.raises(BadInput, match="margin = 0"):
        seeds_needed(0, [1.0])


def test_the_quantiles_that_are_written_down_are_scipys() -> None:
    found = [intervals._t_quantile(freedom, (1 + 0.95) / 2) for freedom in range(1, 40)]
    assert found == pytest.approx(stats.t.ppf(0.975, np.arange(1, 40)), rel=1e-13)
