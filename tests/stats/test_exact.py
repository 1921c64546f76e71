"""Exact tests against brute force, SciPy and values worked out on paper."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from netdepth.errors import BadInput
from netdepth.stats import exact as permutation
from netdepth.stats.exact import (
    failures_p,
    mcnemar,
    permutation_test,
    seeds_to_reach,
    sign_flip_test,
    smallest_p,
    trend_test,
)


def generator(*seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(list(seed)))


def brute_unpaired(a: list[int], b: list[int]) -> Fraction:
    """Every split listed, in whole numbers: no rounding, so ties are ties."""
    pooled, n, m = [*a, *b], len(a), len(b)

    def size(first: tuple[int, ...]) -> int:  # |mean - mean| times n m
        return abs(m * sum(first) - n * (sum(pooled) - sum(first)))

    observed = size(tuple(a))
    found = [size(first) >= observed for first in itertools.combinations(pooled, n)]
    return Fraction(sum(found), len(found))


def brute_paired(differences: list[int]) -> Fraction:
    observed = abs(sum(differences))
    found = [
        abs(sum(sign * d for sign, d in zip(signs, differences, strict=True))) >= observed
        for signs in itertools.product([-1, 1], repeat=len(differences))
    ]
    return Fraction(sum(found), len(found))


@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 4), (4, 1), (2, 3), (3, 3), (5, 2), (4, 6), (6, 5), (7, 7)])
@pytest.mark.parametrize("span", [3, 1000])
def test_the_unpaired_p_is_the_share_of_all_splits(n: int, m: int, span: int) -> None:
    for trial in range(6):  # whole numbers up to 3 are full of ties
        draws = generator(n, m, span, trial).integers(0, span, n + m).tolist()
        expected = brute_unpaired(draws[:n], draws[n:])
        # Divided by 7 and shifted, none of the values or sums is exact in floating point.
        values = [draw / 7 + 0.1 for draw in draws]
        found = permutation_test(values[:n], values[n:])
        assert Fraction(found.as_extreme, found.arrangements) == expected
        assert found.p == pytest.approx(float(expected))


@pytest.mark.parametrize("n", [1, 2, 3, 6, 9, 11])
@pytest.mark.parametrize("span", [3, 1000])
def test_the_paired_p_is_the_share_of_all_signs(n: int, span: int) -> None:
    for trial in range(6):
        draws = generator(n, span, trial).integers(-span, span, n).tolist()
        found = sign_flip_test([draw / 7 for draw in draws])
        assert Fraction(found.as_extreme, found.arrangements) == brute_paired(draws)


def mean_difference(x, y, axis):
    return np.mean(x, axis=axis) - np.mean(y, axis=axis)


def test_scipy_agrees_where_it_means_the_same() -> None:
    """Equal groups (SciPy doubles the smaller tail, which is another p for unequal ones), and signs."""
    a, b = generator(1).normal(size=5), generator(2).normal(0.8, size=5)
    theirs = stats.permutation_test((a, b), mean_difference, vectorized=True, n_resamples=math.inf)
    assert permutation_test(a.tolist(), b.tolist()).p == pytest.approx(theirs.pvalue, rel=1e-12)
    d = generator(3).normal(0.5, size=9)
    theirs = stats.permutation_test(
        (d,), lambda x, axis: np.mean(x, axis=axis), permutation_type="samples", vectorized=True, n_resamples=math.inf
    )
    assert sign_flip_test(d.tolist()).p == pytest.approx(theirs.pvalue, rel=1e-12)


def test_all_equal_gives_one_and_all_apart_gives_the_smallest() -> None:
    assert permutation_test([0.1] * 10, [0.1] * 10).p == 1
    assert sign_flip_test([0.0] * 10).p == 1
    low, high = [0.1 + i / 1000 for i in range(10)], [0.5 + i / 1000 for i in range(10)]
    assert permutation_test(low, high).p == smallest_p(10, "unpaired") == 2 / 184_756
    differences = [x - y for x, y in zip(low, high, strict=True)]
    assert sign_flip_test(differences).p == smallest_p(10, "paired") == 2 / 1024
    assert permutation_test(low, high).difference == pytest.approx(-0.4)


def test_the_largest_exact_sizes_count_every_arrangement() -> None:
    low, high = generator(4).normal(0, 1, 20), generator(5).normal(9, 1, 20)
    found = permutation_test(low.tolist(), high.tolist())
    assert (found.as_extreme, found.arrangements) == (2, math.comb(40, 20))
    halves = [1.0] * 12 + [-1.0] * 8  # |sum| >= 4: the binomial's two tails
    expected = 2 * stats.binom.cdf(8, 20, 0.5)
    assert sign_flip_test(halves).p == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("shift", [0.0, 0.4])
def test_beyond_that_a_stated_monte_carlo_test(monkeypatch: pytest.MonkeyPatch, shift: float) -> None:
    a, b = generator(6).normal(size=9).tolist(), generator(7).normal(shift, size=8).tolist()
    d = [x - y for x, y in zip(a, b, strict=False)]
    exact = permutation_test(a, b).p, sign_flip_test(d).p
    monkeypatch.setattr(permutation, "EXACT_UP_TO", 5)
    monkeypatch.setattr(permutation, "DRAWS", 9_999)
    drawn = permutation_test(a, b), sign_flip_test(d)
    for p, found in zip(exact, drawn, strict=True):
        assert "Monte Carlo" in found.method
        assert "9999 draws" in found.method
        assert found.p == pytest.approx(p, abs=5 * math.sqrt(p * (1 - p) / 9_999))
    assert drawn == (permutation_test(a, b), sign_flip_test(d))
    assert permutation_test([0.0] * 10, [1.0] * 10).p >= 1 / 10_000, "it is never zero"


def test_six_pairs_cannot_go_below_0_031() -> None:
    assert smallest_p(6, "paired") == 0.03125
    assert [seeds_to_reach(0.05 / m, "paired") for m in (1, 12, 13, 26)] == [6, 9, 10, 11]
    assert [seeds_to_reach(0.05 / m, "unpaired") for m in (1, 30, 50)] == [4, 7, 7]
    for design in ("paired", "unpaired"):
        n = seeds_to_reach(0.01, design)
        assert smallest_p(n, design) <= 0.01 < smallest_p(n - 1, design)


# --- failures and trends ---


@pytest.mark.parametrize(
    ("failed", "n", "others_failed", "others"),
    [(7, 10, 0, 10), (0, 10, 7, 10), (3, 10, 2, 9), (1, 6, 0, 6), (10, 10, 10, 10), (5, 5, 0, 1), (1, 1, 0, 6)],
)
def test_failure_counts_are_compared_by_fishers_test(failed: int, n: int, others_failed: int, others: int) -> None:
    """SciPy's p, and the definition: all tables of the same margins that are at most as likely."""
    found = failures_p(failed, n, others_failed, others)
    theirs = stats.fisher_exact([[failed, n - failed], [others_failed, others - others_failed]]).pvalue
    assert found == pytest.approx(theirs, rel=1e-12)
    total, all_failed = n + others, failed + others_failed

    def ways(k: int) -> int:
        return math.comb(n, k) * math.comb(others, all_failed - k) if 0 <= all_failed - k <= others else 0

    likely = [ways(k) for k in range(n + 1)]
    assert found == pytest.approx(sum(w for w in likely if w <= likely[failed]) / math.comb(total, all_failed))


def test_no_failure_and_no_run_are_no_evidence_of_failures() -> None:
    assert failures_p(0, 10, 0, 10) == failures_p(0, 0, 3, 3) == failures_p(2, 2, 0, 0) == 1
    # One finished run that failed beside six that did not: 1 of 7 ways, whatever became of the six that crashed.
    assert failures_p(1, 1, 0, 6) == pytest.approx(1 / 7)


def brute_trend(groups: list[list[int]]) -> tuple[Fraction, Fraction]:
    """The slope, and the share of all orders whose slope is as steep, in whole numbers."""
    scores = [score for score, group in enumerate(groups) for _ in group]
    pooled = [value for group in groups for value in group]
    n, sums = len(pooled), (sum(scores), sum(pooled))

    def covariance(values: tuple[int, ...]) -> int:
        return n * sum(x * y for x, y in zip(scores, values, strict=True)) - sums[0] * sums[1]

    observed = covariance(tuple(pooled))
    found = [abs(covariance(order)) >= abs(observed) for order in itertools.permutations(pooled)]
    return Fraction(observed, n * sum(x * x for x in scores) - sums[0] ** 2), Fraction(sum(found), len(found))


@pytest.mark.parametrize("groups", [[[1, 3], [2, 5], [4, 6]], [[0, 0], [1, 0], [1, 1]], [[5, 6, 4], [1, 2], [3]]])
def test_the_p_of_a_trend_is_the_share_of_all_orders(groups: list[list[int]]) -> None:
    slope, p = brute_trend(groups)
    # Divided by 7 and shifted, no value is exact in floating point, so ties have to be seen as ties.
    found = trend_test([[value / 7 + 0.1 for value in group] for group in groups], range(len(groups)))
    assert found.difference == pytest.approx(float(slope) / 7)
    assert found.p == pytest.approx(float(p), abs=4 * math.sqrt(p * (1 - p) / permutation.DRAWS))


def test_a_trend_is_scipys_permutation_test_of_the_correlation(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = [generator(8, level).normal(0.05 * level, 0.2, 3 + level % 2).tolist() for level in range(4)]
    scores = np.repeat([2.0, 4.0, 8.0, 16.0], [len(group) for group in groups])
    pooled = np.concatenate(groups)
    monkeypatch.setattr(permutation, "DRAWS", 19_999)
    found = trend_test(groups, [2, 4, 8, 16])
    line = stats.linregress(scores, pooled)
    assert found.difference == pytest.approx(line.slope)
    theirs = stats.permutation_test(
        (pooled,),
        lambda x, axis: np.tensordot(x, scores - scores.mean(), (axis, 0)),
        permutation_type="pairings",
        vectorized=True,
        n_resamples=19_999,
        random_state=0,
    )
    assert found.p == pytest.approx(theirs.pvalue, abs=5 * math.sqrt(found.p / 19_999))
    assert "permutation test of a trend, 19999 draws" in found.method
    assert found == trend_test([group[::-1] for group in groups], [2, 4, 8, 16]), "the order in a group is no matter"


def test_all_equal_has_no_trend_and_a_steep_one_is_never_0() -> None:
    assert trend_test([[0.1] * 5, [0.1] * 5, [0.1] * 5], [0, 1, 2]).p == 1
    steep = trend_test([[level + seed / 100 for seed in range(8)] for level in range(4)], [0, 1, 2, 3])
    assert steep.p == 1 / (permutation.DRAWS + 1)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: permutation_test([], [1.0]), "the first group is empty"),
        (lambda: permutation_test([1.0], [math.inf]), "second group has a value that is not finite: inf"),
        (lambda: sign_flip_test([]), "differences is empty"),
        (lambda: sign_flip_test([math.nan]), "not finite: nan"),
        (lambda: trend_test([[1.0], [2.0]], [3, 3]), r"scores = \[3, 3\] are all the same"),
        (lambda: trend_test([[1.0], []], [1, 2]), "a group is empty"),
        (lambda: mcnemar(np.array([True]), np.array([True, False])), "the same images"),
    ],
)
def test_what_cannot_be_tested_is_refused_in_one_line(call, words) -> None:
    with pytest.raises(BadInput, match=words) as error:
        call()
    assert "\n" not in str(error.value)


def answers(both: int, first: int, second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    a = np.repeat([True, True, False, False], [both, first, second, neither])
    b = np.repeat([True, False, True, False], [both, first, second, neither])
    return a, b


@pytest.mark.parametrize(
    ("first", "second", "p"),
    [
        (9, 1, 2 * (1 + 10) / 2**10),
        (0, 6, 2 / 2**6),
        (5, 5, 1.0),
        (0, 0, 1.0),
        # Agresti 2002, "Categorical Data Analysis", §10.1: 150 and 86 changed their mind; his z is 4.17.
        (150, 86, 2 * sum(math.comb(236, k) for k in range(87)) / 2**236),
    ],
)
def test_mcnemars_p_is_the_binomials(first: int, second: int, p: float) -> None:
    found = mcnemar(*answers(3, first, second, 4))
    assert (found.n, found.first, found.second) == (7 + first + second, first, second)
    assert found.p == pytest.approx(min(1.0, p), rel=1e-9)
    assert mcnemar(*reversed(answers(3, first, second, 4))).p == pytest.approx(found.p)
