"""A nuisance setting tuned per cell, on validation and on seeds that the study does not use."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from netdepth.errors import BadInput, RunFailed
from netdepth.runs.folder import RunDir
from netdepth.studyspec import Nuisance, StudySpec

__all__ = ["RULE", "choose_values", "chosen_values", "grid_of", "tuned_nuisance"]

RULE = (
    "per cell the value with the smallest mean of the last validation loss over the tuning seeds; a diverged run "
    "counts as infinite; among equals the smallest value; the test part stays sealed"
)


def tuned_nuisance(spec: StudySpec) -> Nuisance | None:
    """The setting of ``spec`` that is tuned, if one is.

    Raises:
        BadInput: more than one is, or the study has no validation images to tune on.
    """
    tuned = [item for item in spec.nuisance if item.how == "tuned"]
    if len(tuned) > 1:
        names = ", ".join(item.path for item in tuned)
        raise BadInput(f"study {spec.name!r} tunes {names}; one setting can be tuned, state the others as fixed")
    return tuned[0] if tuned else None


def grid_of(spec: StudySpec, nuisance: Nuisance) -> dict[tuple[str, int], tuple[float, ...]]:
    """The values that every cell is tried at."""
    return {(cell.condition, cell.depth): nuisance.values for cell in spec.cells}


def choose_values(study: Path, runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The chosen ``value`` of every cell, with the mean loss of each (None: a seed diverged); see `RULE`.

    ``runs`` are the tuning runs as ``study.json`` lists them, in the folder ``study``.

    Raises:
        RunFailed: a run is not finished.
        BadInput: a run has no validation loss, because its data have no validation images.
    """
    losses: dict[tuple[str, int], dict[float, list[float]]] = {}
    for item in runs:
        loss = _last_loss(study / item["folder"])
        losses.setdefault((item["condition"], item["depth"]), {}).setdefault(item["value"], []).append(loss)
    chosen = []
    for (condition, depth), by_value in losses.items():
        means = {value: math.fsum(found) / len(found) for value, found in sorted(by_value.items())}
        best = min(means, key=lambda value: (means[value], value))
        shown = [{"value": v, "val_loss": mean if math.isfinite(mean) else None} for v, mean in means.items()]
        chosen.append({"condition": condition, "depth": depth, "value": best, "means": shown})
    return chosen


def chosen_values(chosen: Sequence[Mapping[str, Any]]) -> dict[tuple[str, int], tuple[float, ...]]:
    """What `choose_values` found, as the one value of each cell."""
    return {(item["condition"], item["depth"]): (item["value"],) for item in chosen}


def _last_loss(folder: Path) -> float:
    result = RunDir(folder).result()
    if result is None:
        raise RunFailed(f"tuning run {folder} is not finished, so no value can be chosen; the same command retries it")
    if result["status"] == "diverged":
        return math.inf
    last = (result["val"] or {}).get("last") or {}
    if "loss" not in last:
        raise BadInput(f"tuning run {folder} has no validation loss to choose by; give the data set validation images")
    return math.inf if last["loss"] is None else float(last["loss"])
