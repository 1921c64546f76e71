"""The correction of a study's family: Holm's method where it is that, and the level in every mix of true and false."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from netdepth.errors import BadInput
from netdepth.stats.family import Question, Questions, corrected, spending


def generator(*seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(list(seed)))


def holm(p: np.ndarray) -> np.ndarray:
    """The definition (Holm 1979): sorted, times m, m - 1, ..., none smaller than the one before."""
    order = np.argsort(p)
    found = np.empty_like(p)
    found[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return found


@pytest.mark.parametrize("m", [1, 2, 5, 36])
def test_one_question_per_comparison_is_holms_method(m: int) -> None:
    for seed in range(5):
        p = generator(seed, m).beta(0.3, 2, m)
        found = [entry["difference"].p for entry in corrected([Questions(value) for value in p])]
        assert found == pytest.approx(holm(p))


def test_the_steps_by_hand() -> None:
    """Three comparisons. 0.94 of the level is for differences, the rest for equivalences."""
    family = [Questions(0.001, 1.0, "failures", 0.004), Questions(0.02, 1.0), Questions(0.9, 0.0001)]
    first, second, third = corrected(family)
    assert first["difference"].p == pytest.approx(0.001 * 3 / 0.94)
    assert first["failures"].p == pytest.approx(0.004 * 3 / 0.94)  # it inherits the share, so three are still open
    assert second["difference"].p == pytest.approx(0.02 * 2 / 0.94)
    assert third["equivalence"].p == pytest.approx(0.0001 * 2 / 0.06)  # one of three is a difference if any is
    assert third["equivalence"].share == pytest.approx(0.06 / 2)
    assert [first["equivalence"].p, third["difference"].p] == [1, pytest.approx(0.9 / 0.94)]


def test_a_second_question_that_is_not_claimed_keeps_its_share() -> None:
    first, second = corrected([Questions(0.001, second="failures", second_p=0.9), Questions(0.03)])
    assert second["difference"].p == pytest.approx(0.06)
    assert first["failures"].p == pytest.approx(0.9)
    (first, second) = corrected([Questions(0.001, second="failures", second_p=0.002), Questions(0.03)])
    assert second["difference"].p == pytest.approx(0.03)
    assert first["failures"].p == pytest.approx(0.004)


def test_what_depends_on_a_claim_is_never_smaller() -> None:
    (only,) = corrected([Questions(0.04, second="failures", second_p=0.0001)])
    assert only["difference"].p == only["failures"].p == pytest.approx(0.04)
    (none,) = corrected([Questions(0.5)], factor=6)
    assert set(none) == {"difference"}
    assert none["difference"].p == 1
    assert corrected([]) == []


def test_one_comparison_has_the_whole_level_for_a_difference_and_for_an_equivalence() -> None:
    (found,) = corrected([Questions(0.5, 0.03, overfitting_if_equivalent=0.04)])
    assert found["equivalence"].p == pytest.approx(0.03)
    assert found["overfitting"].p == pytest.approx(0.04)
    assert found["difference"].p == pytest.approx(0.5)


def test_a_share_and_a_corrected_p_are_the_same_decision() -> None:
    draws = generator(3)
    for _ in range(50):
        p = draws.beta(0.2, 2, (5, 3))
        family = [Questions(d, e, "overfitting", o) for d, e, o in p]
        for (d, e, o), entry in zip(p, corrected(family, factor=2), strict=True):
            for name, raw in (("difference", d), ("equivalence", e), ("overfitting", o)):
                assert entry[name].p > 0.05 or raw <= 0.05 * entry[name].share * (1 + 1e-12)  # type: ignore[index]


NAMES: tuple[Question, ...] = ("difference", "equivalence", "failures", "overfitting")

STATES: tuple[frozenset[Question], ...] = (
    frozenset({"difference", "failures", "overfitting"}),  # nothing is there
    frozenset({"difference"}),
    frozenset({"equivalence", "failures", "overfitting"}),  # a large difference
    frozenset({"failures"}),  # a small one
    frozenset(),
)
"""Which questions of a comparison must not be claimed."""


@pytest.mark.parametrize("states", list(itertools.combinations_with_replacement(range(5), 2)))
def test_the_level_holds_whatever_is_true(states: tuple[int, ...]) -> None:
    """What is false is found for certain, what is true has uniform p-values: the worst case for a step-down method. An
    equivalence is not asked where a difference may be claimed, as in a study."""
    draws, wrong, studies = generator(*states), 0, 1500
    for u in draws.uniform(size=(studies, 2, 4)):
        family = []
        for state, values in zip(states, u, strict=True):
            p = {name: v if name in STATES[state] else 1e-12 for name, v in zip(NAMES, values, strict=True)}
            same = p["equivalence"] if p["difference"] > 0.05 else 1.0
            second = "failures" if values[0] < 0.5 or "failures" not in STATES[state] else "overfitting"
            family.append(Questions(p["difference"], same, second, p[second], p["overfitting"]))
        found = corrected(family)
        wrong += any(
            entry[n].p <= 0.05 for entry, s in zip(found, states, strict=True) for n in STATES[s] if n in entry
        )
    assert wrong / studies <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / studies)


def test_analyses_spend_the_level_once() -> None:
    assert [spending(k, None) for k in (1, 2, 3)] == [2, 6, 12]
    assert sum(1 / spending(k, None) for k in range(1, 10_000)) == pytest.approx(1, abs=1e-3)
    assert [spending(1, 1), spending(2, 3)] == [1, 3]
    with pytest.raises(BadInput, match="analysis 3 is more than the 2 declared"):
        spending(3, 2)


@pytest.mark.parametrize("p", [-0.1, 1.5, math.nan])
def test_a_p_value_out_of_range_is_refused(p: float) -> None:
    with pytest.raises(BadInput, match="out of range"):
        corrected([Questions(0.5, second="failures", second_p=p)])
