"""Studies and tables of runs made by hand, with known numbers, for tests of the verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from netdepth.config import Component, RunConfig
from netdepth.studies.comparison import CellVerdict, Contrast
from netdepth.studies.verdict import Verdict, verdict
from netdepth.studies.wording import cell_words
from netdepth.studyspec import Axis, Primary, StudySpec

CHANCE = math.log(10)
CONDITIONS = {
    "plain": {"model.shortcut": "none"},
    "residual": {"model.shortcut": "identity"},
}
DEPTHS = (2, 8, 32)
PRIMARY = (
    *(Primary("depth", depth, name) for name in CONDITIONS for depth in DEPTHS[1:]),
    *(Primary("shortcut", depth, "residual", "plain") for depth in DEPTHS[1:]),
)

Place = tuple[str, int | str]
"""A condition and a level."""
Losses = Mapping[Place, Sequence[float | None]]


def make_spec(**changes: Any) -> StudySpec:
    """Plain and residual nets of 2, 8 and 32 layers, ten seeds, everything primary, one analysis."""
    base = RunConfig(dataset=Component("mnist"), model=Component("mlp", {"width": 64}))
    fields: dict[str, Any] = {
        "name": "made",
        "question": "does depth help?",
        "base": base,
        "scientific": (Axis.of_depths(DEPTHS), Axis("condition", CONDITIONS)),
        "seeds": tuple(range(10)),
        "primary": PRIMARY,
        "smallest_effect": 0.02,
        "max_looks": 1,
    }
    return StudySpec(**{**fields, **changes})


def around(mean: float, n: int = 10, sd: float = 0.002, stream: int = 0) -> list[float]:
    """``n`` losses with exactly this mean and standard deviation."""
    draws = np.random.Generator(np.random.PCG64([n, stream])).normal(size=n)
    return (mean + sd * (draws - draws.mean()) / draws.std(ddof=1)).tolist()


def make_table(
    spec: StudySpec,
    losses: Losses | None = None,
    *,
    errors: Losses | None = None,
    gaps: Losses | None = None,
    ratios: Mapping[Place, float] | None = None,
    status: Mapping[tuple[str, int, int], str] | None = None,
    classes: int = 10,
) -> pd.DataFrame:
    """A row per cell and seed. A place not named has losses around 0.1, validation errors around 0.03 and validation
    losses larger by 0.05.

    A loss of None makes no row; an infinite or NaN one makes a diverged run.
    """
    given = [{(name, str(level)): v for (name, level), v in (by or {}).items()} for by in (losses, errors, gaps)]
    ratio_of = {(name, str(level)): ratio for (name, level), ratio in (ratios or {}).items()}
    rows = []
    for index, cell in enumerate(spec.cells):
        place, seeds = (cell.condition, cell.level), spec.seeds_for(cell.condition)
        usual = (0.1, 0.002, index), (0.03, 0.001, 100 + index), (0.05, 0.01, 200 + index)
        values = [
            by.get(place) or around(mean, len(seeds), sd, stream)
            for by, (mean, sd, stream) in zip(given, usual, strict=True)
        ]
        for seed, loss, error, gap in zip(seeds, *values, strict=True):
            if loss is None:
                continue
            run = f"{cell.condition or 'run'}-{cell.level}-s{seed}"
            finite = math.isfinite(loss)
            depth = int(cell.level) if cell.level.isdecimal() else 0
            rows.append(
                {
                    "run": run,
                    "folder": f"runs/{spec.name}/{run}",
                    "status": (status or {}).get((cell.condition, depth, seed), "completed" if finite else "diverged"),
                    "seed": seed,
                    **cell.levels,
                    "train_last_loss": loss,
                    "val_last_loss": loss + gap if finite and gap is not None else None,
                    "val_last_accuracy": 1 - error if finite and error is not None else None,
                    "gradient_ratio": ratio_of.get(place),
                    "classes": classes,
                }
            )
    return pd.DataFrame(rows)


def judged(losses: Losses | None = None, spec: StudySpec | None = None, **table: Any) -> Verdict:
    """The verdict on the table that `make_table` makes of ``losses`` and ``table``."""
    spec = spec or make_spec()
    return verdict(make_table(spec, losses, **table), spec)


def renamed(frame: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    """The same runs under other names of conditions."""
    new = frame.copy()
    new["condition"] = [names[name] for name in frame["condition"]]
    return new


def cell(found: Verdict, condition: str, level: int | str) -> CellVerdict:
    """The verdict on one place of the grid."""
    return next(c for c in found.cells if (c.cell.condition, c.cell.level) == (condition, str(level)))


def contrast(found: Verdict, family: str, condition: str, level: int | str) -> Contrast:
    """The comparison of one place."""
    return next(
        c for c in found.contrasts if (c.family, c.cell.condition, c.cell.level) == (family, condition, str(level))
    )


def cause_of(item: CellVerdict | Contrast) -> str | None:
    """What the claim about a cell, or of a comparison, is consistent with."""
    found = item.contrast if isinstance(item, CellVerdict) else item
    return found.explanation.cause if found is not None and found.explanation is not None else None


def words_of(found: Verdict, item: CellVerdict) -> str:
    """What is said of one cell, and of the comparison that judged it."""
    return cell_words(item, found.spec)


def said(found: Verdict) -> str:
    """Every sentence, a line each."""
    return "\n".join(sentence.text for sentence in found.sentences)
