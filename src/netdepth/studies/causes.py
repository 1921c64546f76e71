"""Why a network is worse: what the numbers are consistent with, and what an arm of the study isolates.

That two cells differ is tested; why they do is not, unless two cells of the study differ in one setting alone and a
planned comparison of the two found a difference.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence

from netdepth.config import Json, to_json
from netdepth.stats.intervals import mean_interval
from netdepth.studies.cells import CellRuns
from netdepth.studies.comparison import WORSE, Cause, Contrast, Explanation, Isolated, Label, Others
from netdepth.studies.contrasts import failed_as
from netdepth.studies.samples import samples_of, sides_of
from netdepth.studyspec import DEPTH, StudySpec
from netdepth.text import SETTINGS

__all__ = ["explained"]

FAILED: dict[Label, Cause] = {"exploded": "explosion", "vanished": "vanishing", "at chance": "stuck"}


def explained(
    contrasts: Sequence[Contrast], cells: Mapping[tuple[str, str], CellRuns], spec: StudySpec
) -> list[Contrast]:
    """The comparisons with what their claims are consistent with."""
    settings = {(cell.condition, cell.level): dict(_flat(to_json(cell.config))) for cell in spec.cells}
    found = []
    for contrast in contrasts:
        cause = _cause(contrast, spec, settings)
        if cause is None:
            found.append(contrast)
            continue
        others = _others(contrast, spec, cells) if cause == "instability" else None
        # What is compared isolates why a network trains worse, not why it overfits.
        isolated = None if cause == "overfitting" else _isolated(contrast, contrasts, settings)
        explanation = Explanation(cause, others, isolated)
        found.append(dataclasses.replace(contrast, explanation=explanation))
    return found


Settings = Mapping[tuple[str, str], Mapping[str, Json]]
"""By condition and level the paths and values of a configuration."""

SAME_SIZE = ("model.args.shortcut", "model.args.branch_scale", "model.args.init")
"""Settings that leave a network able to compute as much as before; `shortcut` adds at most a few parameters."""


def _cause(contrast: Contrast, spec: StudySpec, settings: Settings) -> Cause | None:
    """None where nothing was claimed, of several data sets together, or where the numbers suggest nothing.

    That training is harder is suggested only where the worse network could do as well: a deeper one against another,
    or two that differ in shortcut, branch scale or initialisation. Any other may be worse because it is smaller.
    """
    if contrast.by_data_set:
        return None
    if contrast.label in (*WORSE, "helps") and contrast.claims("failures"):  # of the worse one, whichever that is
        better = contrast.cell if contrast.worse is contrast.against else contrast.against
        return FAILED[failed_as(contrast.worse.runs, better.runs)]
    if contrast.harm == "validation only":
        return "overfitting"
    if contrast.label not in ("degraded", "helps") or contrast.family == "condition" or len(contrast.runs) != 2:
        return None
    if any(run.kind != "trained" for run in contrast.worse.runs):
        return "instability"
    if spec.metric is not None:
        return None
    deeper = contrast.family == "depth" and spec.factor == DEPTH and contrast.label == "degraded"
    alike = contrast.family == "shortcut" and {*_differences(settings, contrast.cell, contrast.against)} <= {*SAME_SIZE}
    return "optimisation" if deeper or alike else None


def _others(contrast: Contrast, spec: StudySpec, cells: Mapping[tuple[str, str], CellRuns]) -> Others:
    sides = sides_of(contrast.item, cells, spec)
    trained = samples_of(contrast.item, sides, lambda run: run.loss if run.kind == "trained" else None, spec)
    exact = trained.exact()
    first, second = (mean_interval(values).value for values in trained.values)
    return Others(len(trained.runs[0]), first, second, max(exact.p if exact else 1.0, trained.t_test()[0]))


def _isolated(contrast: Contrast, contrasts: Iterable[Contrast], settings: Settings) -> Isolated | None:
    """The planned comparison that shows which setting the worse cell of ``contrast`` suffers from, if there is one."""
    for other in contrasts:
        if other.label not in (*WORSE, "helps") or other.family not in ("shortcut", "cells"):
            continue
        better = other.cell if other.label == "helps" else other.against
        p, worse = other.corrected_p, other.worse
        if p is None or worse is not contrast.worse:
            continue
        found = _differences(settings, better, worse)
        if len(found) == 1:
            ((path, (mine, theirs)),) = found.items()
            path = path.replace(".args.", ".")
            return Isolated(SETTINGS.get(path, path), _shown(mine), _shown(theirs), p)
    return None


def _differences(settings: Settings, one: CellRuns, other: CellRuns) -> dict[str, tuple[Json, Json]]:
    """The settings that differ between two cells, and both their values."""
    mine, theirs = (settings[cell.condition, cell.level] for cell in (one, other))
    paths = dict.fromkeys((*mine, *theirs))
    return {path: (mine.get(path), theirs.get(path)) for path in paths if mine.get(path) != theirs.get(path)}


def _flat(part: Json, path: str = "") -> Iterable[tuple[str, Json]]:
    if isinstance(part, Mapping):
        for name, value in part.items():
            yield from _flat(value, f"{path}.{name}" if path else name)
    else:
        yield path, part


def _shown(value: Json) -> str:
    return value if isinstance(value, str) else "the default" if value is None else json.dumps(value)
