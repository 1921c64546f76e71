"""How often a verdict claims what is not there, and how often it finds what is.

    python benchmarks/verdict_simulation.py [--studies 1000] [--trials 20000] [--json FILE]

*Null*: whole studies of the shape of ``depth-mlp`` (seven depths, five conditions, ten seeds) in
which neither depth nor shortcut makes a difference. The two families at 0.025 each allow a claim
in 5 % of the studies: 50 of 1,000, and with chance's two standard deviations no more than 64.

*Power*: ten pairs that differ by one standard deviation of their difference. One exact sign-flip
test at 0.05 finds it with probability 0.80; Holm's correction costs what the other lines show.

The tests run a smaller version of the same functions.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from netdepth.config import Component, RunConfig
from netdepth.stats.exact import holm, sign_flip_test
from netdepth.studies.contrasts import LEVEL
from netdepth.studies.verdict import verdict
from netdepth.studyspec import Axis, Primary, StudySpec

DEPTHS = (2, 4, 8, 16, 24, 32, 40)
CONDITIONS = ("plain-default", "plain-he", "residual-he", "residual-he-scaled", "residual-default")


def study_spec(seeds: int = 10) -> StudySpec:
    """The shape of ``depth-mlp``: depth in every condition, scaled residual against plain at every depth."""
    return StudySpec(
        name="null",
        question="does the verdict claim what is not there?",
        base=RunConfig(Component("mnist"), Component("mlp")),
        scientific=(Axis.of_depths(DEPTHS), Axis("condition", {name: {"model.init": name} for name in CONDITIONS})),
        seeds=tuple(range(seeds)),
        primary=(
            *(Primary("depth", depth, name) for name in CONDITIONS for depth in DEPTHS[1:]),
            *(Primary("shortcut", depth, "residual-he-scaled", "plain-he") for depth in DEPTHS[1:]),
        ),
        smallest_effect=0.05,  # most cells are told to be without a difference, so overfitting may be claimed
    )


def null_table(spec: StudySpec, generator: np.random.Generator) -> pd.DataFrame:
    """A study in which every run's loss and error come from the same two distributions."""
    places = [(cell, seed) for cell in spec.cells for seed in spec.seeds]
    return pd.DataFrame(
        {
            "run": [f"{cell.condition}-{cell.level}-s{seed}" for cell, seed in places],
            "folder": "",
            "status": "completed",
            "seed": [seed for _, seed in places],
            "depth": [int(cell.level) for cell, _ in places],
            "condition": [cell.condition for cell, _ in places],
            "train_last_loss": generator.lognormal(-2.5, 0.3, len(places)),
            "val_last_accuracy": 1 - generator.lognormal(-3.5, 0.1, len(places)),
            "classes": 10,
        }
    )


def null(studies: int) -> dict[str, int]:
    """How many of ``studies`` null studies claim anything, how many claims that is, and how many overfit."""
    spec = study_spec()
    found = {"studies": studies, "studies_with_a_claim": 0, "claims": 0, "studies_said_to_overfit": 0}
    for index in range(studies):
        it = verdict(null_table(spec, np.random.Generator(np.random.PCG64([0, index]))), spec)
        found["studies_with_a_claim"] += bool(it.claims)
        found["claims"] += len(it.claims)
        found["studies_said_to_overfit"] += any(c.harm == "validation only" for c in it.contrasts)
    return found


def power(trials: int, seeds: int = 10, family: int = 6) -> dict[str, float]:
    """The share of ``trials`` in which a paired effect of one standard deviation is found."""
    generator = np.random.Generator(np.random.PCG64(1))
    effect = [sign_flip_test(d).p for d in generator.normal(1, 1, (trials, seeds)).tolist()]
    nothing = [sign_flip_test(d).p for d in generator.normal(0, 1, (trials, seeds)).tolist()]
    groups = range(0, trials - family + 1, family)
    alone = [holm([effect[i], *nothing[i + 1 : i + family]])[0] <= LEVEL for i in groups]
    together = [p <= LEVEL for i in groups for p in holm(effect[i : i + family])]
    return {
        "one comparison at 0.05": float(np.mean(np.array(effect) <= 0.05)),
        f"one comparison at {LEVEL}": float(np.mean(np.array(effect) <= LEVEL)),
        f"one real effect among {family}, Holm at {LEVEL}": float(np.mean(alone)),
        f"each of {family} real effects, Holm at {LEVEL}": float(np.mean(together)),
        "false alarm of one comparison at 0.05": float(np.mean(np.array(nothing) <= 0.05)),
    }


def main() -> None:
    """Run both and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--trials", type=int, default=20_000)
    parser.add_argument("--json", type=Path, help="write the results there")
    given = parser.parse_args()
    start = time.perf_counter()
    results: dict[str, Any] = {"null": null(given.studies), "power": power(given.trials)}
    results["seconds"] = round(time.perf_counter() - start, 1)
    for part in ("null", "power"):
        for name, value in results[part].items():
            print(f"{part:6} {name:46} {value:.3f}" if isinstance(value, float) else f"{part:6} {name:46} {value}")
    print(f"{results['seconds']} s")
    if given.json is not None:
        given.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
