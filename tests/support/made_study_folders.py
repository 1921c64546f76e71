"""Study folders on disk, made by hand with known numbers, for tests of whatever reads study folders.

`make_study` writes what a study leaves: ``study.json`` and a run folder per planned run with
config, split, environment, metrics, probes and result. Nothing trains.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from netdepth.config import SCHEMA, Component, RunConfig, TrainConfig, to_json
from netdepth.files.atomic import jsonable
from netdepth.runs import SplitRecord
from netdepth.runs.folder import RunDir, slug
from netdepth.runs.seal import EVALUATION
from netdepth.studies.folder import StudyDir, StudyDocument
from netdepth.studies.plan import Plan
from netdepth.studyspec import Axis, Cell, Nuisance, Primary, StudySpec
from support.made_runs import metrics

CLASSES = tuple("0123456789")
CHANCE = math.log(len(CLASSES))
STEPS_PER_EPOCH = 430
"""Of 128 images, for `SPLIT`."""
SPLIT = {
    "name": "mnist",
    "classes": list(CLASSES),
    "sizes": {"train": 55_000, "val": 5_000, "test": 10_000},
    "data_digest": "d",
    "split_digest": "s",
}


@dataclasses.dataclass(frozen=True)
class Ending:
    """What a made run comes to: training loss and error, validation error, gradient ratio at initialisation.

    ``state`` is a status of a finished run, or ``no run``, ``unfinished``, ``failed``.
    """

    loss: float = 0.05
    error: float = 0.01
    val_error: float = 0.03
    ratio: float = 0.5
    state: str = "completed"


Endings = Callable[[str, int, int], Ending]
"""The ending of (condition, depth, seed)."""


def small_spec(**changes: Any) -> StudySpec:
    """Plain and residual nets of 2, 4 and 8 layers, four seeds, five comparisons named before the runs."""
    conditions = {"plain": {"model.shortcut": "none"}, "residual": {"model.shortcut": "identity"}}
    primary = [Primary("depth", depth, name) for name in conditions for depth in (4, 8)]
    fields: dict[str, Any] = {
        "name": "made",
        "question": "Does depth help here?",
        "base": RunConfig(Component("mnist"), Component("mlp", {"width": 64}), train=TrainConfig(budget="5ep")),
        "scientific": (Axis.of_depths((2, 4, 8)), Axis("condition", conditions)),
        "seeds": (0, 1, 2, 3),
        "primary": (*primary, Primary("shortcut", 8, "residual", "plain")),
        "smallest_effect": 0.02,
        "nuisance": (Nuisance("optimizer.lr"),),
    }
    return StudySpec(**{**fields, **changes})


def telling(condition: str, depth: int, seed: int) -> Ending:
    """Endings that tell the causes apart: vanishing, degradation, explosion, and no harm."""
    noise = np.random.Generator(np.random.PCG64([depth, seed, sum(map(ord, condition))])).normal(size=3)
    deep = max(0.0, math.log2(depth) - 1)
    if condition == "plain default" and depth >= 24:
        ratio = 10 ** (-0.28 * depth + 0.2 * noise[2])
        return Ending(CHANCE + 0.001 * abs(noise[0]), 0.887 + 0.001 * noise[1], 0.888, ratio)
    if condition == "residual he" and depth >= 24:
        if seed % 4 == 0:
            return Ending(math.nan, math.nan, math.nan, 10 ** (0.2 * depth), "diverged")
        return Ending(6 * 1.12**depth * math.exp(0.6 * noise[0]), 0.8, 0.81, 10 ** (0.2 * depth + 0.1 * noise[2]))
    slope = 0.5 if "plain" in condition else 0.06
    loss = 0.05 * math.exp(slope * deep**1.2 + 0.12 * noise[0])
    ratio = 10 ** (-(0.28 if "default" in condition else 0.03) * depth + 0.1 * noise[2])
    return Ending(loss, loss / 4, loss / 5 + 0.02 * math.exp(0.1 * noise[1]), ratio)


def unbegun_study(root: Path, spec: StudySpec | None = None) -> StudyDir:
    """The folder of a study whose runs are not planned yet."""
    spec = spec or small_spec()
    study = StudyDir.locate(root, spec)
    study.path.mkdir(parents=True)
    study.write(StudyDocument.unplanned(spec))
    return study


def make_study(root: Path, spec: StudySpec | None = None, endings: Endings | None = None, epochs: int = 5) -> StudyDir:
    """A study folder under ``root`` with a run folder per planned run that has one."""
    spec = spec or small_spec()
    folder = root / spec.name
    folder.mkdir(parents=True)
    cells = {(cell.condition, cell.level): cell for cell in spec.cells}
    planned = []
    document = StudyDocument.unplanned(spec)
    for run in document.runs:
        cell = cells[run.condition, run.level]
        fingerprint = fingerprint_of(cell.config)
        name = f"{slug(spec.name)}-{cell.config.dataset.name}-s{run.seed}-{fingerprint}"
        planned.append(dataclasses.replace(run, folder=name, fingerprint=fingerprint))
        ending = (endings or telling)(cell.condition, int(cell.level) if cell.level.isdecimal() else 4, run.seed)
        if ending.state != "no run":
            make_study_run(folder / name, cell, run.seed, fingerprint, ending, epochs)
    study = StudyDir(folder)
    study.write(dataclasses.replace(document, plan=Plan(cores=1, groups=()), runs=tuple(planned)))
    return study


def fingerprint_of(config: RunConfig) -> str:
    """The fingerprint of a run on the data that every made run has."""
    from netdepth.training import resolve

    parts = {name: registry.resolve(getattr(config, name)) for name, registry in resolve.COMPONENTS.items()}
    return resolve.fingerprint(dataclasses.replace(config, **parts), SplitRecord.from_json(SPLIT))


def make_study_run(path: Path, cell: Cell, seed: int, fingerprint: str, ending: Ending, epochs: int) -> RunDir:
    """One run folder, finished, unfinished or failed as ``ending`` says."""
    depth = int(cell.levels.get("depth", "3"))
    path.mkdir(parents=True)
    run = RunDir(path)
    config = to_json(cell.config.with_seed(seed))
    config["optimizer"]["args"] = {"lr": 0.001, **config["optimizer"]["args"]}
    put(run, "config.json", {"fingerprint": fingerprint, "recipe": "made", **config})
    put(run, "split.json", SPLIT)
    environment = {"netdepth": "0.1.0", "torch": "2.11.0", "python": "3.11.2", "device": "cpu", "threads": 1}
    put(run, "environment.json", {**environment, "matmul": "mkl", "stack": 10, "made": "cohort", "cores": 2})
    write_probe(run, "init", 0, depth, ending.ratio)
    partly = ending.state in ("unfinished", "failed")
    write_curve(run, ending, epochs, epochs // 2 if partly else epochs)
    if ending.state == "failed":
        put(run, "failure.json", {"error": "OSError", "message": "no space left on device"})
    if partly:
        return run
    put(run, "test_access.json", {"opened": [EVALUATION]})
    write_probe(run, f"step-{epochs * STEPS_PER_EPOCH}", epochs * STEPS_PER_EPOCH, depth, ending.ratio**0.5)
    put(run, "result.json", result_of(ending, depth, epochs))
    return run


def result_of(ending: Ending, depth: int, epochs: int) -> dict[str, Any]:
    """``result.json`` of a finished run; a diverged one has no last weights."""
    parts = {
        "train": metrics(ending.loss, 1 - ending.error),
        "val": metrics(ending.loss + 0.02, 1 - ending.val_error),
        "test": metrics(ending.loss + 0.03, 1 - ending.val_error - 0.001),
    }
    lost = ending.state == "diverged"
    return {
        "status": ending.state,
        "steps": epochs * STEPS_PER_EPOCH,
        "best_step": None if lost else epochs * STEPS_PER_EPOCH,
        "best_epoch": None if lost else float(epochs),
        "depth": depth,
        "num_params": 50_890 + 4_160 * (depth - 2),
        "seconds": 2.0 * depth,
        "reported": "last",
        **{part: {"best": values, "last": values} for part, values in parts.items()},
        "overfit_onset_epoch": None,
    }


def write_curve(run: RunDir, ending: Ending, epochs: int, until: int) -> None:
    """Losses and errors that fall from chance to the ending at ``epochs``; NaN in the last record of a diverged run."""
    for epoch in range(1, until + 1):
        left = (math.exp(-5.0 * epoch / epochs) - math.exp(-5.0)) / (1 - math.exp(-5.0))
        values = {
            "train_loss": _between(CHANCE, ending.loss, left),
            "train_accuracy": 1 - _between(0.9, ending.error, left),
            "val_loss": _between(CHANCE, ending.loss + 0.02, left),
            "val_accuracy": 1 - _between(0.9, ending.val_error, left),
        }
        place = {"step": epoch * STEPS_PER_EPOCH, "epoch": float(epoch), "lr": 0.001, "seconds": 1.0}
        run.append_metrics({**place, **values, "diverged": epoch == epochs and ending.state == "diverged"})


def write_probe(run: RunDir, name: str, step: int, depth: int, ratio: float) -> None:
    """Gradient norms that go geometrically from ``ratio`` at the first layer to 1 at the last."""
    (run.path / "probes").mkdir(exist_ok=True)
    shares = [1.0 - layer / (depth - 1) for layer in range(depth)]
    layers = [
        {
            "name": f"hidden.{layer}" if layer < depth - 1 else "head",
            "kind": "Linear",
            "grad_norm": 0.1 * ratio**share,
            "weight_norm": 5.0,
            "grad_to_weight": 0.02 * ratio**share,
            "activation_mean": 0.3,
            "activation_var": 0.2,
            "dead_fraction": 0.1,
            "cosine": 0.8,
        }
        for layer, share in enumerate(shares)
    ]
    content = {"step": step, "epoch": step / STEPS_PER_EPOCH, "batch": 256, "loss": 2.3, "gradient_ratio": ratio}
    put(run, f"probes/{name}.json", {**content, "layers": layers})


def alter(run: Path, file: str, field: str, value: object) -> None:
    """Put ``value`` into one ``field`` (dotted path) of one ``file`` of a run folder."""
    content = json.loads((run / file).read_text())
    *parents, last = field.split(".")
    inner = content
    for key in parents:
        inner = inner[key]
    assert inner.get(last) != value
    inner[last] = value
    (run / file).write_text(json.dumps(content))


def put(run: RunDir, name: str, value: Mapping[str, Any]) -> None:
    """As `RunDir.write_json`, without waiting for the disk."""
    cleaned = jsonable(value)
    if not cleaned["nonfinite"]:
        del cleaned["nonfinite"]
    (run.path / name).write_text(json.dumps({"schema": SCHEMA, **cleaned}, allow_nan=False))


def _between(start: float, end: float, left: float) -> float:
    """From ``start`` (left = 1) to ``end`` (left = 0); what does not end in a number goes up instead."""
    if not math.isfinite(end):
        return start * (2 - left) if left else end
    return end + (start - end) * left
