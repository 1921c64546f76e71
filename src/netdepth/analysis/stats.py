"""Estimates with their uncertainty: numbers in, an `Estimate` out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from netdepth.errors import BadInput

__all__ = ["Estimate", "mean_interval"]


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


def mean_interval(values: Sequence[float], level: float = 0.95, scale: Literal["linear", "log"] = "linear") -> Estimate:
    """The mean with Student's t interval, of the values or (for losses) of their logarithms.

    On the log scale the value is the geometric mean and the interval is asymmetric. One value
    has no interval, none have no mean.

    Raises:
        BadInput: a level outside (0, 1), a value that is not finite, one <= 0 on the log scale.
    """
    if not 0 < level < 1:
        raise BadInput(f"level = {level!r} is out of range; it takes a number between 0 and 1")
    for value in values:
        if not math.isfinite(value) or (scale == "log" and value <= 0):
            raise BadInput(f"value {value!r} has no mean on the {scale} scale; leave such runs out and count them")
    statistic, method = ("mean", "Student t") if scale == "linear" else ("geometric mean", "Student t on logarithms")
    n = len(values)
    if n == 0:
        return Estimate(statistic, None, None, None, level, 0, "none: no value")
    points = [math.log(value) for value in values] if scale == "log" else [float(value) for value in values]
    back = math.exp if scale == "log" else float
    mean = math.fsum(points) / n
    if n == 1:
        return Estimate(statistic, back(mean), None, None, level, 1, "none: one value")
    from scipy.special import stdtrit  # the t quantile alone: scipy.stats takes a second to import

    variance = math.fsum((point - mean) ** 2 for point in points) / (n - 1)
    half = float(stdtrit(n - 1, (1 + level) / 2)) * math.sqrt(variance / n)
    return Estimate(statistic, back(mean), back(mean - half), back(mean + half), level, n, method)
