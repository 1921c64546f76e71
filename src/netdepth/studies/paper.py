"""What a paper printed, and how runs of ours are held beside it: numbers in, estimates out; nothing is read here.

A published number says what it is: one run, the best of several, or a mean with its standard deviation.
Each kind is held against the same thing of ours, so that the best of five is never taken for the result:

- one run: the interval in which one more run of ours would fall (Student's t),
- the best of k: the interval in which the best of k more runs of ours would fall (`best_of`),
- mean ± std of n: the interval of the difference of the two means (Welch 1947).

All intervals assume that the errors of runs which differ in their seeds scatter normally.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from netdepth.config import Json, RunConfig, Settings
from netdepth.runs.table import field_of, number_of
from netdepth.stats.intervals import Estimate, mean_interval, prediction_interval
from netdepth.studies.table import StudyRow
from netdepth.studyspec import Reproduced
from netdepth.text import thousands

__all__ = ["HE2016", "PAPERS", "Beside", "Paper", "Published", "beside", "best_of", "error_of", "welch"]

Kind = Literal["one run", "best", "mean"]
Outcome = Literal["agrees", "higher", "lower", "too few"]

ALIKE = {"cifar10-jpeg": "CIFAR-10 (JPEG), compressed with loss"}
"""Data sets that could be taken for another, and what they are called."""

LEVEL = 0.95
"""Of all intervals here."""

STOPPING = ("train.early_stopping", "train.overfitting.action")


@dataclass(frozen=True)
class Published:
    """A number that a paper printed: the test ``error`` (a fraction) of a net of ``depth`` layers.

    ``n`` runs stand behind it; ``std`` is given with a mean alone, and taken as that of a sample (n - 1).
    """

    depth: int
    kind: Kind
    error: float
    n: int = 1
    std: float | None = None


@dataclass(frozen=True)
class Paper:
    """A table of a paper and what it was made with.

    ``model`` is the network it is about, by component name, with its ``settings``; ``dataset`` a component and
    its title, ``images`` how many the paper trained on. ``protocol`` maps a path of ``config.json`` to the
    values that leave a run comparable. ``remark``: what else a reader must know.
    """

    name: str
    where: str
    table: tuple[Published, ...]
    model: str
    settings: Settings
    dataset: tuple[str, str]
    images: int
    protocol: Mapping[str, tuple[Json, ...]]
    remark: str

    def about(self, config: RunConfig, depth: int) -> list[Published]:
        """The numbers printed of the network of ``config``; a setting left out has its default, the paper's."""
        given = config.model.args
        same = config.model.name == self.model and all(given.get(k, v) == v for k, v in self.settings.items())
        return [item for item in self.table if same and item.depth == depth]

    @property
    def fields(self) -> tuple[str, ...]:
        """The ``file:field`` of a run that say whether it is comparable."""
        paths = ("dataset.name", "dataset.args.val_size", *STOPPING, *self.protocol)
        return tuple(f"config.json:{path}" for path in paths)

    def departures(self, config: Settings) -> dict[str, str]:
        """Why the run of ``config`` (its ``config.json``) is not comparable: ``file:field`` and reason in words."""
        found = {}
        name = str(field_of(config, "dataset.name"))
        if name != self.dataset[0]:
            found["config.json:dataset.name"] = f"the data set is {ALIKE.get(name, name)}, not {self.dataset[1]}"
        held_back = number_of(field_of(config, "dataset.args.val_size"))
        if held_back and name in (self.dataset[0], *ALIKE):
            found["config.json:dataset.args.val_size"] = (
                f"trained on {thousands(self.images - held_back)} images, not on all {thousands(self.images)} "
                "(dataset.val_size=0 takes all)"
            )
        for path in STOPPING:
            if field_of(config, path) not in (None, "flag"):
                found[f"config.json:{path}"] = "its runs may stop early, so their last weights differ in age"
        for path, good in self.protocol.items():
            value = field_of(config, path)
            if value not in good:
                shown = "not stated" if value is None else value
                found[f"config.json:{path}"] = f"{path.replace('.args.', '.')} is {shown}, not {good[0]}"
        return found


HE2016 = Paper(
    name="He et al. 2016",
    where="Table 6",
    # "For ResNet-110, we run it 5 times and show best (mean±std)"; the others are single runs.
    table=(
        Published(20, "one run", 0.0875),
        Published(32, "one run", 0.0751),
        Published(44, "one run", 0.0717),
        Published(56, "one run", 0.0697),
        Published(110, "best", 0.0643, n=5),
        Published(110, "mean", 0.0661, n=5, std=0.0016),
    ),
    model="resnet",
    settings={"shortcut": "identity", "block": "basic", "pre_activation": False},
    dataset=("cifar10", "CIFAR-10"),
    images=50_000,
    protocol={
        "model.args.width": (16,),
        "model.args.normalization": ("pixel",),
        "model.args.zero_gamma": (False,),
        "objective.name": ("cross-entropy",),
        "optimizer.name": ("sgd",),
        "optimizer.args.lr": (0.1,),
        "optimizer.args.momentum": (0.9,),
        "optimizer.args.weight_decay": (1e-4,),
        "schedule.name": ("step", "paper-warmup"),
        "schedule.args.at": ([0.5, 0.75],),
        "schedule.args.gamma": (0.1,),
        "augmentation.name": ("crop-flip",),
        "augmentation.args.cutout": (0,),
        "train.budget": ("64000it",),
        "train.batch_size": (128,),
    },
    remark=(
        "The solid lines of the paper's Fig. 6 are test errors, those of the learning curves here validation errors. "
        "Of plain nets the paper prints no numbers but one: with 110 layers the error is above 60 % (Fig. 6)."
    ),
)

PAPERS: Mapping[Reproduced, Paper] = {"he2016": HE2016}
"""By the name that a study gives (`StudySpec.paper`)."""


@dataclass(frozen=True)
class Beside:
    """Runs of ours beside a published number.

    ``mean`` is of our test errors. ``held`` is what the published one is held against: the interval for one
    run or for the best of n runs, or the difference of the means, ours minus the paper's, with its ``p``.
    ``outcome``: ``higher`` if the interval says that ours is, ``too few`` if there is none.
    """

    published: Published
    errors: tuple[float, ...]
    mean: Estimate
    held: Estimate
    p: float | None
    outcome: Outcome


def beside(published: Published, errors: Sequence[float]) -> Beside:
    """Hold test ``errors`` (fractions, a run each) beside a published one, by its kind.

    Raises:
        BadInput: an error that is not finite.
    """
    p, target = None, published.error
    if published.kind == "one run":
        held = prediction_interval(errors)
    elif published.kind == "best":
        held = best_of(errors, published.n)
    else:
        assert published.std is not None, "a mean is published with its standard deviation"
        held, p = welch(errors, published.error, published.std, published.n)
        target = 0.0
    outcome: Outcome = "agrees"
    if held.low is None or held.high is None:
        outcome = "too few"
    elif not held.low <= target <= held.high:
        outcome = "higher" if held.low > target else "lower"
    return Beside(published, tuple(errors), mean_interval(errors), held, p, outcome)


def error_of(row: StudyRow) -> float | None:
    """The test error of the last weights of a run, a fraction, from its row of the study's table.

    A diverged run counts as guessing: leaving it out would flatter the mean. None: the run has no
    result, or its data set no test part.
    """
    if row.made.status == "diverged":
        return None if row.classes is None else 1 - 1 / row.classes
    accuracy = row.made.scores["test_last_accuracy"]
    return None if accuracy is None or not math.isfinite(accuracy) else 1 - accuracy


def best_of(errors: Sequence[float], k: int) -> Estimate:
    """The best of ``k`` runs: its mean over all subsets of ``k`` of ours, and where that of ``k`` more would fall.

    The value needs k errors: sorted, the i-th from below is the best of C(n-i, k-1) of the C(n, k)
    subsets. The interval needs two, and is the exact one of a normal sample: with mean m and standard deviation
    s of n runs, (best of k more - m) / s has the distribution of the smallest of k Student t variables
    that share m and s. For k = 1 it is `prediction_interval`.

    Raises:
        BadInput: an error that is not finite.
    """
    found = mean_interval(errors)  # checks its input
    n, name = len(errors), f"best of {k}"
    value = None
    if n >= k:
        ways = (error * math.comb(n - i, k - 1) for i, error in enumerate(sorted(errors), 1))
        value = math.fsum(ways) / math.comb(n, k)
    if found.value is None or n < 2:
        return Estimate(name, value, None, None, LEVEL, n, "none: fewer than two values")
    spread = statistics.stdev(errors)
    low, high = (found.value + spread * _best_quantile(q, n, k) for q in ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Estimate(name, value, low, high, LEVEL, n, f"order statistics of a normal sample, of {k} more runs")


def welch(errors: Sequence[float], mean: float, std: float, n: int) -> tuple[Estimate, float | None]:
    """Mean of ``errors`` minus a published ``mean`` of ``n`` runs with ``std``, by Welch's t, and its two-sided p.

    Raises:
        BadInput: an error that is not finite.
    """
    ours, name = mean_interval(errors), "difference of means"
    difference = None if ours.value is None else ours.value - mean
    if difference is None or ours.n < 2:
        return Estimate(name, difference, None, None, LEVEL, ours.n, "none: fewer than two values"), None
    from scipy.special import stdtr, stdtrit

    parts = statistics.variance(errors) / ours.n, std**2 / n
    error = math.sqrt(sum(parts))
    freedom = error**4 / (parts[0] ** 2 / (ours.n - 1) + parts[1] ** 2 / (n - 1))  # Welch and Satterthwaite
    half = float(stdtrit(freedom, (1 + LEVEL) / 2)) * error
    p = 2 * float(stdtr(freedom, -abs(difference) / error))
    return Estimate(name, difference, difference - half, difference + half, LEVEL, ours.n, "Welch t"), p


def _best_quantile(probability: float, n: int, k: int) -> float:
    """The quantile of (best of k more runs - mean) / standard deviation, both of n runs.

    With u = s / sigma and z the standardised error of the mean, one more run lies above m + c s with
    probability Phi(-(c u + z / sqrt n)), and all k do with its k-th power; u and z are integrated out.
    """
    import numpy as np
    from scipy.optimize import brentq
    from scipy.special import chdtri, ndtr, roots_hermitenorm, roots_legendre

    freedom = n - 1
    z, z_weights = roots_hermitenorm(40)
    nodes, weights = roots_legendre(200)
    top = math.sqrt(chdtri(freedom, 1e-15) / freedom)
    u = (nodes + 1) * top / 2
    density = np.exp((freedom - 1) * np.log(u) - freedom * u**2 / 2 + freedom / 2)  # of u, up to a factor
    shares = np.outer(weights * density, z_weights)
    shares /= shares.sum()

    def missing(c: float) -> float:
        above = ndtr(-(c * u[:, None] + z / math.sqrt(n))) ** k
        return float(1 - (shares * above).sum()) - probability

    reach = 8.0
    while missing(-reach) > 0 or missing(reach) < 0:
        reach *= 2
    return float(brentq(missing, -reach, reach, xtol=1e-10))
