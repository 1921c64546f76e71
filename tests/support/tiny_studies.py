"""Studies that take seconds: two depths of a tiny net on the embedded digits."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pandas as pd

from netdepth.config import Component, RunConfig, Runtime, TrainConfig
from netdepth.studies.folder import StudyDir
from netdepth.studies.run import StudyOutcome, run_study
from netdepth.studies.table import study_table
from netdepth.studyspec import Axis, Primary, StudySpec

CONDITIONS = {"plain": {"model.shortcut": "none"}, "residual": {"model.shortcut": "identity"}}


def tiny_spec(**changes: Any) -> StudySpec:
    """Depths 2 and 4 of a plain net, three seeds, four steps; ``conditions`` gives others."""
    conditions = changes.pop("conditions", {"plain": CONDITIONS["plain"]})
    base = RunConfig(
        dataset=Component("mnist5k"),
        model=Component("mlp", {"width": 4}),
        train=TrainConfig(budget="4it", eval_every="2it", batch_size=32),
    )
    fields: dict[str, Any] = {
        "name": "tiny",
        "question": "does it work?",
        "base": base,
        "scientific": (Axis.of_depths((2, 4)), Axis("condition", conditions)),
        "seeds": (0, 1, 2),
        "primary": (Primary("depth", 4, "plain"),),
        "smallest_effect": 0.02,
    }
    return StudySpec(**{**fields, **changes})


def set_in(spec: StudySpec, **train: Any) -> StudySpec:
    """``spec`` with other training settings."""
    return dataclasses.replace(
        spec, base=dataclasses.replace(spec.base, train=dataclasses.replace(spec.base.train, **train))
    )


def make(root: Path, spec: StudySpec, workers: int = 0, **runtime: Any) -> StudyOutcome:
    """Run ``spec`` under ``root``, in this process unless ``workers`` says otherwise."""
    own = Runtime(runs_root=root, device="cpu", probes=False, **runtime)
    return run_study(spec, own, workers=workers, progress=False)


def finished(study: StudyDir) -> dict[str, int]:
    """When the result of each finished run was written, by folder."""
    return {path.parent.name: path.stat().st_mtime_ns for path in study.path.glob("*/result.json")}


def timeless(study: StudyDir) -> pd.DataFrame:
    """The study's table without wall-clock columns."""
    table = study_table(study)
    return table.drop(columns=[name for name in table.columns if "seconds" in name])


RECIPE = """
from netdepth.config import Component, RunConfig, TrainConfig
from netdepth.studyspec import Axis, StudySpec

def tiny():
    "My own study."
    base = RunConfig(
        Component("mnist5k"),
        Component("mlp", {"width": 4}),
        train=TrainConfig(budget="2it", eval_every="2it", batch_size=32),
    )
    axes = (Axis.of_depths((2, 3)),)
    return StudySpec("mine", "does it work?", base, axes, seeds=(0, 1), primary=(), smallest_effect=0.1)

def run():
    return tiny().base
"""
"""A user's file with a study and a run."""
