"""Exact tests by counting every arrangement of the data.

If depth (or the shortcut) made no difference, the labels "deep" and "shallow" could be dealt out
to the runs in any other way just as well. The p-value is the share of all ways whose difference
of means is at least as large as the observed one (Fisher 1935; Pitman 1937; for the sign flips
of paired differences Fisher's "act of mathematical randomisation", 1935, §21). It needs no normal
distribution and no large sample; nothing is drawn at random.

Ten runs against ten have 184,756 splits, twenty against twenty 1.4e11. They are counted, not
listed: the sums of one half of the values are sorted, and each sum of the other half is looked
up in them ("meet in the middle", Horowitz and Sahni 1974). SciPy's `permutation_test` lists the
splits one by one in Python (a second for ten against ten) and, for unequal groups, doubles the
smaller tail instead of counting |difference|; the tests compare with it where both agree.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from netdepth.errors import BadInput

__all__ = [
    "ExactTest", "McNemar", "failures_p", "mcnemar", "permutation_test", "seeds_to_reach", "sign_flip_test",
    "smallest_p", "trend_test",
]  # fmt: skip

Array = NDArray[np.float64]
Design = Literal["unpaired", "paired"]

EXACT_UP_TO = 40
"""Values (both groups together) or pairs up to which all arrangements are counted: 2^20 sums per half."""

DRAWS = 99_999
"""Random arrangements beyond that, from a generator with a fixed seed."""

TOLERANCE = 1e-12
"""Differences that are equal up to this share of the sum of all |values| are ties: adding the same
numbers in another order moves a float64 sum by less than 1e-14 of it."""


@dataclass(frozen=True)
class ExactTest:
    """``p`` = ``as_extreme`` / ``arrangements``, two-sided; ``difference`` is that of the means."""

    difference: float
    p: float
    as_extreme: int
    arrangements: int
    method: str


def permutation_test(a: Sequence[float], b: Sequence[float]) -> ExactTest:
    """Unpaired: is the mean of ``a`` another than the mean of ``b``? All C(n+m, n) splits count.

    Beyond 40 values together, a Monte Carlo test of 99,999 splits, which counts the observed
    one as a draw and so never gives 0 (Phipson and Smyth 2010).

    Raises:
        BadInput: an empty group, a value that is not finite.
    """
    first, second = _values(a, "the first group"), _values(b, "the second group")
    n, size = len(first), len(first) + len(second)
    difference = float(first.mean() - second.mean())
    # With the pooled mean taken off, |difference of means| is proportional to |sum of the first group|.
    pooled = np.concatenate([first, second])
    centre = pooled.mean()
    values = np.sort(pooled - centre)
    bound = abs(float((first - centre).sum())) - TOLERANCE * float(np.abs(pooled).sum())
    if size > EXACT_UP_TO:
        generator = np.random.Generator(np.random.PCG64(0))
        draws = (generator.permuted(rows, axis=1)[:, :n].sum(axis=1) for rows in _chunks(values))
        return _monte_carlo(difference, draws, bound, "permutation test")
    left, right = _sums_by_size(values[::2]), _sums_by_size(values[1::2])
    sizes = range(max(0, n - len(right) + 1), min(n, len(left) - 1) + 1)
    count = sum(_count(left[k], right[n - k], bound) for k in sizes)
    total = math.comb(size, n)
    return ExactTest(difference, count / total, count, total, "exact permutation test")


def sign_flip_test(differences: Sequence[float]) -> ExactTest:
    """Paired: is the mean of ``differences`` another than 0? All 2^n choices of signs count.

    Beyond 40 pairs a Monte Carlo test, as in `permutation_test`.

    Raises:
        BadInput: no differences, one that is not finite.
    """
    given = _values(differences, "the list of differences")
    size = np.abs(given)  # flipping every sign leaves the set of all choices as it is
    size.sort()
    bound = abs(float(given.sum())) - TOLERANCE * float(size.sum())
    mean = float(given.mean())
    if len(given) > EXACT_UP_TO:
        generator = np.random.Generator(np.random.PCG64(0))
        draws = (generator.choice([-1.0, 1.0], rows.shape) @ size for rows in _chunks(size))
        return _monte_carlo(mean, draws, bound, "sign-flip test")
    count = _count(_signed_sums(size[::2]), _signed_sums(size[1::2]), bound)
    return ExactTest(mean, count / 2 ** len(given), count, 2 ** len(given), "exact sign-flip test")


@dataclass(frozen=True)
class McNemar:
    """Of ``n`` images the first classifier alone is right on ``first``, the second alone on ``second``. If neither were
    better, each of these would fall to either with probability 1/2; ``p`` is two-sided and exact (McNemar 1947)."""

    n: int
    first: int
    second: int
    p: float


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> McNemar:
    """The test for two arrays bool ``[N]``: which images each classifier gets right.

    Raises:
        BadInput: they are not about equally many images, or about none.
    """
    from scipy.stats import binomtest

    if first.shape != second.shape or first.ndim != 1 or not len(first):
        raise BadInput(
            f"McNemar's test takes answers to the same images, not {list(first.shape)}, {list(second.shape)}"
        )
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    discordant = only_first + only_second
    p = float(binomtest(only_first, discordant).pvalue) if discordant else 1.0
    return McNemar(len(first), only_first, only_second, p)


def failures_p(failed: int, n: int, others_failed: int, others: int) -> float:
    """Fisher's exact test (1934), two-sided: do ``failed`` of ``n`` runs and ``others_failed`` of ``others`` differ?"""
    if not failed + others_failed or not n or not others:
        return 1.0
    from scipy.stats import fisher_exact

    table = [[failed, n - failed], [others_failed, others - others_failed]]
    return min(1.0, float(fisher_exact(table).pvalue))


def trend_test(groups: Sequence[Sequence[float]], scores: Sequence[float]) -> ExactTest:
    """Do the values rise or fall with the ``scores`` of their groups (1, 2, 3, ... for ordered levels)?

    The statistic is the slope of the values against the centred scores, as in the test of Armitage (1955) and in
    Pitman's of a correlation (1937); ``difference`` is that slope. All values are dealt out to the groups anew,
    99,999 times and with a fixed seed; the observed order counts as one more (Phipson and Smyth 2010).

    Raises:
        BadInput: an empty group, a value that is not finite, scores that are all the same.
    """
    values = [_values(group, "a group") for group in groups]
    x = np.repeat(np.asarray(scores, dtype=np.float64), [len(group) for group in values])
    x = x - x.mean()
    spread = float(x @ x)
    if spread <= 0:
        raise BadInput(f"scores = {list(scores)!r} are all the same; a trend takes two levels or more")
    pooled = np.concatenate(values)
    centred = pooled - pooled.mean()
    observed = float(x @ centred)
    bound = abs(observed) - TOLERANCE * float(np.abs(x).max() * np.abs(pooled).sum())
    generator = np.random.Generator(np.random.PCG64(0))
    # Sorted, so that the same values give the same draws in whatever order they come.
    draws = (generator.permuted(rows, axis=1) @ x for rows in _chunks(np.sort(centred)))
    return _monte_carlo(observed / spread, draws, bound, "permutation test of a trend")


def smallest_p(n: int, design: Design) -> float:
    """The smallest p that ``n`` runs against ``n``, or ``n`` pairs, can give: the observed order and its mirror."""
    return 2 / (math.comb(2 * n, n) if design == "unpaired" else 2**n)


def seeds_to_reach(level: float, design: Design) -> int:
    """The fewest seeds whose smallest p does not exceed ``level``."""
    n = 1
    while smallest_p(n, design) > level:
        n += 1
    return n


def _values(values: Sequence[float], what: str) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise BadInput(f"{what} is empty; a test takes one value or more")
    if not np.isfinite(array).all():
        raise BadInput(f"{what} has a value that is not finite: {array[~np.isfinite(array)][0]}; cap or leave it out")
    return array


def _count(left: Array, right: Array, bound: float) -> int:
    """How many pairs (one sum of ``left``, one of ``right``) add up to ``bound`` or more in absolute value."""
    if bound <= 0:
        return left.size * right.size
    left, ordered = np.sort(left), np.sort(right)  # looking up in order is several times faster
    above = ordered.size - np.searchsorted(ordered, bound - left, side="left")
    below = np.searchsorted(ordered, -bound - left, side="right")
    return int(above.sum() + below.sum())


def _sums_by_size(values: Array) -> list[Array]:
    """Entry k holds the sums of all subsets of k ``values``."""
    sums = [np.zeros(1), *(np.zeros(0) for _ in values)]
    for value in values:
        sums = [sums[0], *(np.concatenate([sums[k], sums[k - 1] + value]) for k in range(1, len(sums)))]
    return sums


def _signed_sums(values: Array) -> Array:
    """The sums of ``values`` under every choice of signs."""
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums - value, sums + value])
    return sums


def _chunks(values: Array) -> Iterator[Array]:
    """``values`` as the rows of arrays that have `DRAWS` rows together and few at a time."""
    for start in range(0, DRAWS, 10_000):
        yield np.broadcast_to(values, (min(10_000, DRAWS - start), len(values)))


def _monte_carlo(difference: float, draws: Iterable[Array], bound: float, name: str) -> ExactTest:
    count = 1 + sum(int((np.abs(sums) >= bound).sum()) for sums in draws)
    return ExactTest(difference, count / (DRAWS + 1), count, DRAWS + 1, f"Monte Carlo {name}, {DRAWS} draws")
