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
    """Three comparisons. The first differs: of its part a quarter stays for its equivalence and an eighth for its
    failures, so the others are held against 0.05 / 2.375."""
    family = [Questions(0.001, 1.0, failures=1.0), Questions(0.02, 1.0), Questions(0.9, 0.001)]
    first, second, third = corrected(family)
    assert (first["difference"].p, first["difference"].share) == (pytest.approx(0.003), pytest.approx(1 / 3))
    assert third["equivalence"].share == pytest.approx(0.25 / (0.375 + 1 + 0.25))  # D of the third cannot be true, too
    assert third["equivalence"].p == pytest.approx(0.001 * 1.625 / 0.25)
    assert second["difference"].p == pytest.approx(0.02 * 2.375)
    assert [first["failures"].p, first["equivalence"].p, third["difference"].p] == [1, 1, 1]


def test_what_depends_on_a_claim_is_never_smaller() -> None:
    (only,) = corrected([Questions(0.04, None, failures=0.0001, overfitting=0.0)])
    assert only["difference"].p == pytest.approx(0.04)
    assert only["failures"].p == only["overfitting"].p == only["difference"].p
    (none,) = corrected([Questions(0.5)], factor=6)
    assert set(none) == {"difference"}
    assert none["difference"].p == 1
    assert corrected([]) == []


def test_a_share_and_a_corrected_p_are_the_same_decision() -> None:
    draws = generator(3)
    for _ in range(50):
        family = [Questions(*draws.beta(0.2, 2, 4)) for _ in range(5)]
        for questions, entry in zip(family, corrected(family, factor=2), strict=True):
            for name, found in entry.items():
                p = questions.p(name)
                assert p is not None
                if found.p <= 0.05:
                    assert p <= 0.05 * found.share * (1 + 1e-12)


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
    draws, wrong, studies = generator(*states), 0, 1000
    for _ in range(studies):
        family = []
        for state in states:
            p = {
                name: float(draws.uniform()) if name in STATES[state] else 1e-12
                for name in ("difference", "equivalence", "failures", "overfitting")
            }
            p["equivalence"] = p["equivalence"] if p["difference"] > 0.05 else 1.0
            family.append(Questions(**p))
        found = corrected(family)
        wrong += any(
            entry[name].p <= 0.05 for entry, s in zip(found, states, strict=True) for name in STATES[s] if name in entry
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
        corrected([Questions(0.5, failures=p)])
