"""How often a verdict claims what is not there, and how often it finds what is.

    python benchmarks/verdict_simulation.py [--studies 2000] [--only ROW,ROW] [--json FILE]

``tools/publish.py`` makes the tables of docs/statistics.md of ``benchmarks/results/verdict_simulation.json``.

*Level*: whole studies of the shapes of ``depth-mlp`` (35 comparisons, ten seeds) and ``depth-cnn`` (five, seven seeds),
judged by the rules that judge real ones. In each row it is known what is not there; a study is wrong if it claims any
of it: better, worse, exploded, vanished, overfits, or equivalent. The rules promise 5 % at most.

*Power*: how often a real difference is found, by its size in standard deviations of a run, the seeds and the number of
comparisons; and how often two cells that do not differ are told to be equivalent.

The tests run a smaller version of the same functions.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from netdepth.config import Component, RunConfig
from netdepth.studies.cells import CellRun, CellRuns, Missing, Scale, kind_of
from netdepth.studies.comparison import WORSE, Contrast
from netdepth.studies.contrasts import judged_contrasts
from netdepth.studyspec import Axis, Primary, StudySpec

Array = NDArray[np.float64]
SCALE = Scale(10, math.log(10))
LOST = math.inf
"""The loss of a run that exploded."""


# --- the studies ---


def depth_mlp(seeds: int = 10) -> StudySpec:
    """Seven depths in five conditions, and scaled residual against plain at five depths: 35 comparisons."""
    names = ("plain default", "plain he", "residual he", "residual he scaled", "residual default")
    return _study(names, (2, 4, 8, 16, 24, 32, 40), ("residual he scaled", "plain he"), range(seeds), 5)


def depth_cnn(seeds: int = 7) -> StudySpec:
    """Three depths of a plain and a residual network: five comparisons."""
    return _study(("plain", "residual"), (8, 20, 56), ("residual", "plain"), range(seeds), 1)


def pair(seeds: int, comparisons: int) -> StudySpec:
    """Depths 4, 8, ... against depth 2 in one condition: ``comparisons`` of them."""
    return _study(("plain",), tuple(2**k for k in range(1, comparisons + 2)), None, range(seeds), 0)


def _study(
    names: Sequence[str], depths: Sequence[int], twins: tuple[str, str] | None, seeds: Sequence[int], pairs: int
) -> StudySpec:
    shortcut = [Primary("shortcut", depth, *twins) for depth in depths[len(depths) - pairs :]] if twins else []
    return StudySpec(
        name="simulated",
        question="does the verdict claim what is not there?",
        base=RunConfig(Component("mnist"), Component("mlp")),
        scientific=(Axis.of_depths(depths), Axis("condition", {name: {"model.init": name} for name in names})),
        seeds=tuple(seeds),
        primary=(*(Primary("depth", depth, name) for name in names for depth in depths[1:]), *shortcut),
        smallest_effect=0.02,
        max_looks=1,
    )


SHAPES = {"depth-mlp": depth_mlp(), "depth-cnn": depth_cnn()}


# --- their runs ---


@dataclass(frozen=True)
class Drawn:
    """Arrays ``[condition, level, seed]``: training losses (nats, inf: exploded, NaN: no run), by how much the
    validation loss is larger, and validation errors (fractions)."""

    losses: Array
    gaps: Array
    errors: Array


Draw = Callable[[np.random.Generator, tuple[int, int, int]], Drawn]


def _drawn(g: np.random.Generator, losses: Array) -> Drawn:
    return Drawn(losses, g.normal(0.03, 0.01, losses.shape), g.lognormal(-3.5, 0.1, losses.shape))


def lognormal(g: np.random.Generator, shape: tuple[int, int, int]) -> Drawn:
    """Losses around 0.08, scattered by 30 %."""
    return _drawn(g, g.lognormal(-2.5, 0.3, shape))


def tight(g: np.random.Generator, shape: tuple[int, int, int]) -> Drawn:
    """Losses of 0.06, scattered by 3 %."""
    return _drawn(g, g.normal(0.06, 0.002, shape))


def correlated(g: np.random.Generator, shape: tuple[int, int, int]) -> Drawn:
    """Runs of one seed correlate at 0.44."""
    common, own = g.standard_normal((1, 1, shape[2])), g.standard_normal(shape)
    return _drawn(g, np.exp(-2.5 + 0.3 * (math.sqrt(0.44) * common + math.sqrt(0.56) * own)))


def heavy(g: np.random.Generator, shape: tuple[int, int, int]) -> Drawn:
    """Student's t with two degrees of freedom on logarithms; a tenth of the runs at the cap, and many ties."""
    return _drawn(g, np.minimum(np.exp(-2 + 1.2 * g.standard_t(2, shape)), 2.3))


def missing(g: np.random.Generator, shape: tuple[int, int, int]) -> Drawn:
    """A tenth of the runs exploded, a tenth crashed or were not made."""
    losses = g.lognormal(-2.5, 0.3, shape)
    losses[g.random(shape) < 0.1] = LOST
    losses[g.random(shape) < 0.1] = np.nan
    return _drawn(g, losses)


def failing(g: np.random.Generator, shape: tuple[int, int, int], rate: float = 0.25) -> Drawn:
    """A quarter of the runs explodes, at every depth."""
    losses = g.lognormal(-2.5, 0.3, shape)
    losses[g.random(shape) < rate] = LOST
    return _drawn(g, losses)


def scattered(
    g: np.random.Generator, shape: tuple[int, int, int], lost: float = 0.0, deep: str = "half", skewed: bool = False
) -> Drawn:
    """Equal means, and six times the scatter at depth: in the deeper half, or everywhere but at the reference.

    ``lost``: the share of deep runs that is missing. ``skewed``: lognormal losses of equal arithmetic means.
    """
    first = 1 if deep == "all" else (shape[1] + 1) // 2
    scatter = np.where(np.arange(shape[1]) < first, 1.0, 6.0)[:, None] * 0.05
    z = g.standard_normal(shape)
    losses = np.exp(-2.5 - scatter**2 / 2 + scatter * z) if skewed else 0.08 * np.maximum(1 + scatter * z, 0.01)
    gone = g.random(shape) < lost
    gone[:, :first] = False
    losses[gone] = np.nan
    return _drawn(g, losses)


def at_the_margin(g: np.random.Generator, shape: tuple[int, int, int], sd: float = 0.004) -> Drawn:
    """Every other depth is worse by exactly the smallest effect, 0.02 nats."""
    worse = np.where(np.arange(shape[1]) > 0, 0.02, 0.0)[:, None]
    return _drawn(g, g.normal(0.06, sd, shape) + worse)


def rarely_failing(g: np.random.Generator, shape: tuple[int, int, int]) -> Drawn:
    """Five in a hundred runs explode, but never at the smallest depth; the others do not differ."""
    losses = g.normal(0.06, 0.004, shape)
    lost = g.random(shape) < 0.05
    lost[:, 0] = False
    losses[lost] = LOST
    return _drawn(g, losses)


def worse_everywhere(g: np.random.Generator, shape: tuple[int, int, int]) -> Drawn:
    """Training loss and validation error of all other depths are a little worse, the gap between the losses is not."""
    deep = np.arange(shape[1]) > 0
    losses = g.normal(0.06, 0.004, shape) + np.where(deep, 0.005, 0.0)[:, None]
    errors = g.lognormal(-3.5, 0.1, shape) * np.where(deep, 1.3, 1.0)[:, None]
    return Drawn(losses, g.normal(0.03, 0.01, shape), errors)


# --- what is wrong to claim ---

Wrong = Callable[[Contrast], bool]


def any_difference(contrast: Contrast) -> bool:
    """Nothing differs: only "equivalent" is true."""
    return contrast.label in (*WORSE, "helps") or contrast.harm is not None


def equivalent_or_better(contrast: Contrast) -> bool:
    """The deep ones are worse by the margin or more; residual and plain do not differ."""
    if contrast.family != "depth":
        return any_difference(contrast)
    return contrast.label in ("equivalent", "helps") or contrast.harm == "validation only"


def equivalent_although_failed(contrast: Contrast) -> bool:
    """More of the deep ones fail; those that train do not differ. No ten runs exclude a failure rate of 5 %, and the
    sentence says so; but where a run failed, "equivalent" is wrong."""
    failed = contrast.failures.failed + contrast.failures.against_failed > 0
    return (
        (contrast.label == "equivalent" and failed) or contrast.label == "helps" or contrast.harm == "validation only"
    )


def overfits_or_better(contrast: Contrast) -> bool:
    """The deep ones are worse by less than the margin, and do not overfit."""
    if contrast.family != "depth":
        return any_difference(contrast)
    return contrast.label == "helps" or contrast.harm == "validation only"


ROWS: dict[str, tuple[Draw, Wrong]] = {
    "tight": (tight, any_difference),
    "lognormal": (lognormal, any_difference),
    "correlated seeds": (correlated, any_difference),
    "heavy tails, ties at the cap": (heavy, any_difference),
    "exploded and missing runs": (missing, any_difference),
    "a quarter fails at every depth": (failing, any_difference),
    "six times the scatter at depth": (scattered, any_difference),
    "the same, 30 % of the deep runs missing": (partial(scattered, lost=0.3), any_difference),
    "six times the scatter but at the reference": (partial(scattered, deep="all"), any_difference),
    "the same, 40 % missing": (partial(scattered, deep="all", lost=0.4), any_difference),
    "six times the scatter, skewed": (partial(scattered, skewed=True), any_difference),
    "worse by the margin": (at_the_margin, equivalent_or_better),
    "worse by the margin, much scatter": (partial(at_the_margin, sd=0.02), equivalent_or_better),
    "one in twenty explodes at depth": (rarely_failing, equivalent_although_failed),
    "worse, but no overfitting": (worse_everywhere, overfits_or_better),
}


def cells_of(spec: StudySpec, drawn: Drawn) -> dict[tuple[str, str], CellRuns]:
    """The runs as the table of a study would give them."""
    cells = {}
    for c, condition in enumerate(spec.conditions):
        for d, level in enumerate(spec.levels):
            runs, lost = [], []
            for seed in spec.seeds:
                loss = float(drawn.losses[c, d, seed])
                if math.isnan(loss):
                    lost.append(Missing(seed, "failed", None))
                    continue
                kind = kind_of(loss, None, SCALE)
                name = f"{condition}-{level}-s{seed}"
                runs.append(
                    CellRun(
                        run=name,
                        folder=name,
                        seed=seed,
                        status="diverged" if loss == LOST else "completed",
                        loss=loss,
                        capped=min(loss, SCALE.chance),
                        val_error=float(drawn.errors[c, d, seed]),
                        val_loss=loss + float(drawn.gaps[c, d, seed]),
                        metric=None,
                        gradient_ratio=None,
                        kind=kind,
                    )
                )
            cells[condition, level] = CellRuns(
                condition, condition, level, f"depth {level}", f"at depth {level}", SCALE, tuple(runs), tuple(lost)
            )
    return cells


def judged(spec: StudySpec, draw: Draw, seed: Sequence[int]) -> list[Contrast]:
    """The primary comparisons of one simulated study."""
    g = np.random.Generator(np.random.PCG64(list(seed)))
    drawn = draw(g, (len(spec.conditions), len(spec.levels), len(spec.seeds)))
    return judged_contrasts(cells_of(spec, drawn), spec, labels_only=True)


# --- level ---


@dataclass(frozen=True)
class LevelRow:
    """Of ``studies`` of a shape, how many claim anything false, and what."""

    shape: str
    row: str
    studies: int
    wrong: int
    labels: dict[str, int]

    @property
    def rate(self) -> float:
        """The share of studies with a false claim."""
        return self.wrong / self.studies


def level_row(shape: str, row: str, studies: int) -> LevelRow:
    """One row of the table of levels."""
    spec, (draw, wrong) = SHAPES[shape], ROWS[row]
    number, count, labels = list(ROWS).index(row), 0, {}
    for index in range(studies):
        false = [c for c in judged(spec, draw, (0, number, index)) if wrong(c)]
        count += bool(false)
        for name in {"overfits" if c.harm == "validation only" else c.label for c in false}:
            labels[name] = labels.get(name, 0) + 1
    return LevelRow(shape, row, studies, count, labels)


# --- power ---


@dataclass(frozen=True)
class PowerRow:
    """``found``: the share of ``studies`` that claim the one thing that is there."""

    what: str
    comparisons: int
    seeds: int
    found: float


def shifted(g: np.random.Generator, shape: tuple[int, int, int], sds: float, rho: float = 0.0) -> Drawn:
    """All depths but the smallest are worse by ``sds`` standard deviations; runs of one seed correlate at ``rho``."""
    common, own = g.standard_normal((1, 1, shape[2])), g.standard_normal(shape)
    noise = math.sqrt(rho) * common + math.sqrt(1 - rho) * own
    deep = np.arange(shape[1])[:, None] > 0
    return _drawn(g, 0.1 + 0.004 * (noise + sds * deep))


def exploding(g: np.random.Generator, shape: tuple[int, int, int], rate: float) -> Drawn:
    """All depths but the smallest explode at a ``rate``."""
    losses = g.normal(0.1, 0.004, shape)
    lost = g.random(shape) < rate
    lost[:, 0] = False
    losses[lost] = LOST
    return _drawn(g, losses)


POWER: dict[str, tuple[Draw, tuple[str, ...]]] = {
    "a difference of 1 sd": (partial(shifted, sds=1.0), WORSE),
    "a difference of 2 sd": (partial(shifted, sds=2.0), WORSE),
    "a difference of 2 sd, seeds correlated at 0.44": (partial(shifted, sds=2.0, rho=0.44), WORSE),
    "a difference of 3 sd": (partial(shifted, sds=3.0), WORSE),
    "half of the runs explode": (partial(exploding, rate=0.5), ("exploded",)),
    "all runs explode": (partial(exploding, rate=1.0), ("exploded",)),
    "no difference: equivalent within 5 sd": (partial(shifted, sds=0.0), ("equivalent",)),
}
SEEDS = (5, 7, 10, 15)
COMPARISONS = (1, 5, 30)


def power_row(what: str, comparisons: int, seeds: int, studies: int) -> PowerRow:
    """The mean share of the comparisons that find it."""
    draw, labels = POWER[what]
    spec, found = pair(seeds, comparisons), 0
    for index in range(studies):
        found += sum(
            c.label in labels for c in judged(spec, draw, (1, list(POWER).index(what), comparisons, seeds, index))
        )
    return PowerRow(what, comparisons, seeds, found / studies / comparisons)


# --- the tables ---


def _level_text(rows: Sequence[LevelRow]) -> Iterator[str]:
    shapes = list(SHAPES)
    yield "| what is simulated | " + " | ".join(f"{name}, n = {len(SHAPES[name].seeds)}" for name in shapes) + " |"
    yield "| --- |" + " ---: |" * len(shapes)
    for name in dict.fromkeys(row.row for row in rows):
        found = {row.shape: row for row in rows if row.row == name}
        yield f"| {name} | " + " | ".join(f"{100 * found[s].rate:.1f} %" if s in found else "" for s in shapes) + " |"


def _power_text(rows: Sequence[PowerRow]) -> Iterator[str]:
    yield "| what is there | comparisons | " + " | ".join(f"n = {n}" for n in SEEDS) + " |"
    yield "| --- | ---: |" + " ---: |" * len(SEEDS)
    for what, m in dict.fromkeys((row.what, row.comparisons) for row in rows):
        found = {row.seeds: row.found for row in rows if (row.what, row.comparisons) == (what, m)}
        yield f"| {what} | {m} | " + " | ".join(f"{100 * found[n]:.0f} %" if n in found else "" for n in SEEDS) + " |"


def table(results: Path, name: str) -> str:
    """The table ``level`` or ``power`` of measured results, as Markdown."""
    measured = json.loads(results.read_text())
    if name == "level":
        return "\n".join(_level_text([LevelRow(**row) for row in measured["level"]]))
    return "\n".join(_power_text([PowerRow(**row) for row in measured["power"]]))


def main() -> None:
    """Run all rows on all cores and print them as they end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--power-studies", type=int, default=400)
    parser.add_argument("--only", help="rows whose names contain one of these, separated by commas")
    parser.add_argument("--json", type=Path, help="write the results there")
    given = parser.parse_args()
    start = time.perf_counter()

    def wanted(name: str) -> bool:
        return given.only is None or any(part in name for part in given.only.split(","))

    levels, powers = [], []
    with ProcessPoolExecutor() as pool:
        asked = [pool.submit(level_row, s, row, given.studies) for row in ROWS if wanted(row) for s in SHAPES]
        more = [
            pool.submit(power_row, what, m, n, max(given.power_studies // m, 50))
            for what in POWER if wanted(what) for m in COMPARISONS for n in SEEDS
        ]  # fmt: skip
        for job in asked:
            levels.append(row := job.result())
            bound = 0.05 + 2 * math.sqrt(0.05 * 0.95 / row.studies)
            print(f"{row.shape:10} {row.row:44} {row.rate:.4f} (at most {bound:.4f}) {row.labels or ''}", flush=True)
        for job in more:
            powers.append(power := job.result())
            print(
                f"power      {power.what:48} m = {power.comparisons:2} n = {power.seeds:2} {power.found:.3f}",
                flush=True,
            )
    print(f"{time.perf_counter() - start:.0f} s")
    if given.json is not None:
        rows = {"level": [vars(row) for row in levels], "power": [vars(row) for row in powers]}
        given.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
