"""Estimates with their uncertainty: numbers in, an `Estimate` out."""

from __future__ import annotations

import bisect
import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from netdepth.errors import BadInput

__all__ = [
    "BOOTSTRAP_FROM", "Estimate", "Scale", "bootstrap_interval", "combination_interval", "combination_p",
    "difference_interval", "equivalence_p", "failure_rate_not_excluded", "finite_mean", "mean_interval", "mean_worth",
    "prediction_interval", "seeds_needed",
]  # fmt: skip

Scale = Literal["linear", "log"]

BOOTSTRAP_FROM = 20
"""Fewer values than this resample too little: the 95 % interval of six covers the mean in 87 % of cases."""

T_975 = (
    12.706204736174694, 4.302652729749462, 3.1824463052837078, 2.7764451051977934, 2.5705818356363146,
    2.4469118511449786, 2.364624251592784, 2.306004135204166, 2.262157162798205, 2.228138851986274, 2.200985160091639,
    2.1788128296672284, 2.1603686564627913, 2.144786687917804, 2.131449545559776, 2.1199052992212546,
    2.1098155778333156, 2.1009220402410382, 2.0930240544083087, 2.085963447265864, 2.0796138447276795,
    2.0738730679040254, 2.0686576104190486, 2.0638985616280245, 2.0595385527532972, 2.0555294386428735,
    2.0518305164802846, 2.0484071417952454, 2.045229642132703, 2.0422724563012378,
)  # fmt: skip
"""The 97.5 % quantiles of Student's t for 1, 2, ... degrees of freedom, as SciPy gives them: a table of runs with a few
seeds each needs no import of SciPy, which takes half a second."""


@dataclass(frozen=True)
class Estimate:
    """A statistic of ``n`` values with its interval; ``low`` and ``high`` are None where n gives none."""

    statistic: str
    value: float | None
    low: float | None
    high: float | None
    level: float
    n: int
    method: str


def mean_interval(values: Sequence[float], level: float = 0.95, scale: Scale = "linear") -> Estimate:
    """The mean with Student's t interval, of the values or (for losses) of their logarithms.

    On the log scale the value is the geometric mean and the interval is asymmetric. One value
    has no interval, none have no mean.

    Raises:
        BadInput: a level outside (0, 1), a value that is not finite, one <= 0 on the log scale.
    """
    return _student(values, level, scale, one_more=False)


def finite_mean(values: Sequence[float | None]) -> Estimate:
    """`mean_interval` over the finite ones of ``values``."""
    return mean_interval([value for value in values if value is not None and math.isfinite(value)])


def mean_worth(values: Sequence[float | None]) -> float | None:
    """The mean by which groups of runs are sorted, less is better: what is not finite counts as infinitely bad.

    None where there is no value.
    """
    known = [value if math.isfinite(value) else math.inf for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def prediction_interval(values: Sequence[float], level: float = 0.95, scale: Scale = "linear") -> Estimate:
    """Where one more run would fall, with probability ``level``: mean ± t · s · sqrt(1 + 1/n).

    Of the values or of their logarithms, as `mean_interval`. This is what a single run of one's
    own is to be held against; the interval of the mean is narrower.

    Raises:
        BadInput: as `mean_interval`.
    """
    return _student(values, level, scale, one_more=True)


def difference_interval(
    a: Sequence[float], b: Sequence[float], level: float = 0.95, scale: Scale = "linear"
) -> Estimate:
    """Mean of ``a`` minus mean of ``b``, unpaired, with Welch's t interval (1947: unequal variances).

    On the log scale the value is the ratio of the geometric means. A group of one value or
    none gives no interval.

    Raises:
        BadInput: as `mean_interval`.
    """
    found = combination_interval([a, b], [1, -1], level, scale)
    statistic = "ratio of geometric means" if scale == "log" else "difference of means"
    return dataclasses.replace(found, statistic=statistic)


def combination_interval(
    samples: Sequence[Sequence[float]], weights: Sequence[float], level: float = 0.95, scale: Scale = "linear"
) -> Estimate:
    """The sum of ``weights`` times the means of independent ``samples``, with a t interval for unequal variances.

    The degrees of freedom are Welch's and Satterthwaite's (Satterthwaite 1946; Welch 1947). Weights 1, -1 give a
    difference, 1, -1, -1, 1 the difference of two differences. On the log scale the value is the product of
    the geometric means, each to the power of its weight.

    Raises:
        BadInput: as `mean_interval`.
    """
    statistic, method = "combination of means", "Welch t" if len(samples) > 1 else "Student t"
    if scale == "log":
        statistic, method = "product of powers of geometric means", f"{method} on logarithms"
    n = min(map(len, samples))
    if n == 0:
        return Estimate(statistic, None, None, None, level, 0, "none: no value in a group")
    value, error, freedom = _combined(samples, weights, level, scale)
    back = math.exp if scale == "log" else float
    if n == 1:
        return Estimate(statistic, back(value), None, None, level, 1, "none: one value in a group")
    half = _t_quantile(freedom, (1 + level) / 2) * error if error > 0 else 0.0
    return Estimate(statistic, back(value), back(value - half), back(value + half), level, n, method)


def combination_p(
    samples: Sequence[Sequence[float]],
    weights: Sequence[float],
    scale: Scale = "linear",
    beyond: float | None = None,
) -> float:
    """The p-value that belongs to `combination_interval`: two-sided, that the combination is another than 0; or with
    ``beyond`` one-sided, that it is smaller than ``beyond`` (nats, or whatever the values are in).

    Fewer than two values in a sample give no evidence: 1. Values that do not scatter at all decide by themselves.

    Raises:
        BadInput: as `mean_interval`.
    """
    if min(map(len, samples)) < 2:
        return 1.0
    value, error, freedom = _combined(samples, weights, 0.95, scale)
    distance = value if beyond is None else beyond - value
    size = max((abs(x) for sample in samples for x in sample), default=0.0)
    if error <= 1e-12 * size:  # nothing but rounding
        return float(abs(distance) <= 1e-12 * size) if beyond is None else float(distance <= 1e-12 * size)
    from scipy.special import stdtr

    t = distance / error
    return float(2 * stdtr(freedom, -abs(t)) if beyond is None else stdtr(freedom, -t))


def equivalence_p(samples: Sequence[Sequence[float]], weights: Sequence[float], margin: float) -> float:
    """The p-value of "the combination lies within ± ``margin``": the larger of two one-sided tests (Schuirmann 1987).

    Raises:
        BadInput: a margin that is not above 0, or as `mean_interval`.
    """
    if not margin > 0:
        raise BadInput(f"margin = {margin!r} is out of range; it takes a number above 0")
    return max(
        combination_p(samples, weights, beyond=margin), combination_p(samples, [-w for w in weights], beyond=margin)
    )


def failure_rate_not_excluded(n: int, level: float = 0.95) -> float:
    """The largest failure rate at which ``n`` runs without a failure are still as likely as 1 - ``level`` (Clopper and
    Pearson 1934, one-sided): 26 % for ten."""
    return 1 - (1 - level) ** (1 / n) if n else 1.0


def bootstrap_interval(values: Sequence[float], level: float = 0.95) -> Estimate:
    """The mean with a percentile bootstrap interval (Efron 1979): 9,999 resamples, fixed seed.

    Raises:
        BadInput: fewer than 20 values (Student's t serves there), or as `mean_interval`.
    """
    points = _points(values, level, "linear")
    n = len(points)
    if n < BOOTSTRAP_FROM:
        raise BadInput(
            f"{n} values are too few for a bootstrap; it takes {BOOTSTRAP_FROM} or more (Student's t serves)"
        )
    import numpy as np

    resamples = np.random.Generator(np.random.PCG64(0)).choice(sorted(points), size=(9_999, n))
    low, high = np.quantile(resamples.mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return Estimate("mean", fmean(points), float(low), float(high), level, n, "percentile bootstrap, 9999 resamples")


def seeds_needed(
    margin: float, variances: Sequence[float], level: float = 0.05, power: float = 0.8, most: int = 1000
) -> int | None:
    """The fewest seeds per cell for which a t test at ``level`` (two-sided) finds a difference of ``margin``
    with probability ``power``, if the runs scatter with ``variances``: one of paired differences, or
    one per unpaired cell. None if more than ``most``.

    It is the n at which (t at 1 - level/2 + t at power) standard errors fit into the margin, a
    usual approximation (Julious 2004, with t for z): ten pairs for one standard deviation.

    Raises:
        BadInput: a margin that is not above 0.
    """
    if not margin > 0:
        raise BadInput(f"margin = {margin!r} is out of range; it takes a number above 0")
    total = math.fsum(variances)
    if total <= 0:
        return 2
    groups = 1 / math.fsum((v / total) ** 2 for v in variances)  # 1 if paired, 2 with two equal variances

    def enough(n: int) -> bool:
        freedom = (n - 1) * groups
        errors = _t_quantile(freedom, 1 - level / 2) + _t_quantile(freedom, power)
        return errors * math.sqrt(total / n) <= margin

    n = 2 + bisect.bisect_left(range(2, most + 1), True, key=enough)
    return n if n <= most else None


def _student(values: Sequence[float], level: float, scale: Scale, one_more: bool) -> Estimate:
    statistic, method = ("mean", "Student t") if scale == "linear" else ("geometric mean", "Student t on logarithms")
    if one_more:
        method += ", of one more run"
    points = _points(values, level, scale)
    n = len(points)
    if n == 0:
        return Estimate(statistic, None, None, None, level, 0, "none: no value")
    back = math.exp if scale == "log" else float
    mean = fmean(points)
    if n == 1:
        return Estimate(statistic, back(mean), None, None, level, 1, "none: one value")
    spread = math.sqrt(_variance(points) * (1 / n + one_more))
    half = _t_quantile(n - 1, (1 + level) / 2) * spread
    return Estimate(statistic, back(mean), back(mean - half), back(mean + half), level, n, method)


def _points(values: Sequence[float], level: float, scale: Scale) -> list[float]:
    """The values on their scale, checked."""
    if not 0 < level < 1:
        raise BadInput(f"level = {level!r} is out of range; it takes a number between 0 and 1")
    for value in values:
        if not math.isfinite(value) or (scale == "log" and value <= 0):
            raise BadInput(f"value {value!r} has no mean on the {scale} scale; leave such runs out and count them")
    return [math.log(value) for value in values] if scale == "log" else [float(value) for value in values]


def _combined(
    samples: Sequence[Sequence[float]], weights: Sequence[float], level: float, scale: Scale
) -> tuple[float, float, float]:
    """The combination of the means, its standard error, and the degrees of freedom of that."""
    groups = [_points(sample, level, scale) for sample in samples]
    parts = [w * fmean(points) for w, points in zip(weights, groups, strict=True)]
    value = math.fsum(parts)
    if abs(value) <= 1e-14 * math.fsum(map(abs, parts)):
        value = 0.0  # equal means, but for rounding
    if min(map(len, groups)) < 2:
        return value, 0.0, 1.0
    parts = [w**2 * _variance(points) / len(points) for w, points in zip(weights, groups, strict=True)]
    total = math.fsum(parts)
    if total <= 0:
        return value, 0.0, 1.0
    shares = math.fsum((part / total) ** 2 / (len(points) - 1) for part, points in zip(parts, groups, strict=True))
    return value, math.sqrt(total), 1 / shares


def _variance(points: Sequence[float]) -> float:
    mean = fmean(points)
    return math.fsum((point - mean) ** 2 for point in points) / (len(points) - 1)


def _t_quantile(freedom: float, probability: float) -> float:
    if probability == 0.975 and 1 <= freedom <= len(T_975) and freedom == int(freedom):
        return T_975[int(freedom) - 1]
    from scipy.special import stdtrit  # the t quantile alone: scipy.stats takes a second to import

    return float(stdtrit(freedom, probability))
