"""Studies and tables of runs made by hand, with known numbers, for tests of the verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from netdepth.config import Component, RunConfig
from netdepth.studies.contrasts import CellVerdict, Contrast
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

Losses = Mapping[tuple[str, int], Sequence[float | None]]


def make_spec(**changes: Any) -> StudySpec:
    """Plain and residual nets of 2, 8 and 32 layers, ten seeds, everything primary."""
    base = RunConfig(dataset=Component("mnist"), model=Component("mlp", {"width": 64}))
    fields: dict[str, Any] = {
        "name": "made",
        "question": "does depth help?",
        "base": base,
        "scientific": (Axis.of_depths(DEPTHS), Axis("condition", CONDITIONS)),
        "seeds": tuple(range(10)),
        "primary": PRIMARY,
        "smallest_effect": 0.02,
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
    ratios: Mapping[tuple[str, int], float] | None = None,
    status: Mapping[tuple[str, int, int], str] | None = None,
    classes: int = 10,
) -> pd.DataFrame:
    """A row per cell and seed. A place not named has losses around 0.1 and validation errors around 0.03.

    A loss of None makes no row; an infinite or NaN one makes a diverged run.
    """
    rows = []
    for index, cell in enumerate(spec.cells):
        place = (cell.condition, int(cell.level))
        values = (losses or {}).get(place) or around(0.1, len(spec.seeds), stream=index)
        wrong = (errors or {}).get(place) or around(0.03, len(spec.seeds), sd=0.001, stream=100 + index)
        for seed, loss, error in zip(spec.seeds, values, wrong, strict=True):
            if loss is None:
                continue
            run = f"{cell.condition or 'run'}-{cell.level}-s{seed}"
            finite = math.isfinite(loss)
            rows.append(
                {
                    "run": run,
                    "folder": f"runs/{spec.name}/{run}",
                    "status": (status or {}).get((*place, seed), "completed" if finite else "diverged"),
                    "seed": seed,
                    **cell.levels,
                    "train_last_loss": loss,
                    "val_last_accuracy": 1 - error if finite and error is not None else None,
                    "gradient_ratio": (ratios or {}).get(place),
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


def cell(found: Verdict, condition: str, depth: int) -> CellVerdict:
    """The verdict on one place of the grid."""
    return next(c for c in found.cells if (c.cell.condition, c.cell.level) == (condition, str(depth)))


def contrast(found: Verdict, family: str, condition: str, depth: int) -> Contrast:
    """The comparison of one place."""
    return next(
        c for c in found.contrasts if (c.family, c.cell.condition, c.cell.level) == (family, condition, str(depth))
    )


def words_of(found: Verdict, item: CellVerdict) -> str:
    """What is said of one cell, and of the comparison that judged it."""
    return cell_words(item, found.spec)


def said(found: Verdict) -> str:
    """Every sentence, a line each."""
    return "\n".join(sentence.text for sentence in found.sentences)
