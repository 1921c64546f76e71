"""Intervals against SciPy's own."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from netdepth.errors import BadInput
from netdepth.stats.intervals import mean_interval


@pytest.mark.parametrize("n", [2, 3, 10, 50])
@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
def test_the_interval_is_scipys(n: int, level: float) -> None:
    values = np.random.Generator(np.random.PCG64(n)).normal(0.97, 0.01, n)
    low, high = stats.t.interval(level, n - 1, loc=values.mean(), scale=stats.sem(values))
    found = mean_interval(values.tolist(), level)
    assert (found.n, found.level, found.method) == (n, level, "Student t")
    assert [found.value, found.low, found.high] == pytest.approx([values.mean(), low, high], rel=1e-12)


def test_the_log_scale_is_the_interval_of_the_logarithms() -> None:
    values = [0.01, 0.03, 0.2, 0.5]
    logs = np.log(values)
    low, high = stats.t.interval(0.95, 3, loc=logs.mean(), scale=stats.sem(logs))
    found = mean_interval(values, scale="log")
    assert found.statistic == "geometric mean"
    assert [found.value, found.low, found.high] == pytest.approx([stats.gmean(values), np.exp(low), np.exp(high)])


def test_one_value_has_no_interval_and_none_has_no_mean() -> None:
    one, none = mean_interval([0.5]), mean_interval([])
    assert (one.value, one.low, one.high, one.n) == (0.5, None, None, 1)
    assert (none.value, none.low, none.high, none.n) == (None, None, None, 0)


def test_equal_values_have_an_interval_without_width() -> None:
    found = mean_interval([0.25] * 4)
    assert (found.low, found.value, found.high) == (0.25, 0.25, 0.25)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(BadInput, match="has no mean"):
        mean_interval([1.0, value])


def test_a_loss_of_zero_has_no_logarithm_and_a_level_is_a_share() -> None:
    with pytest.raises(BadInput, match="log scale"):
        mean_interval([0.0, 1.0], scale="log")
    with pytest.raises(BadInput, match="between 0 and 1"):
        mean_interval([1.0, 2.0], level=95)
