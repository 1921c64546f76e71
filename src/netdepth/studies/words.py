"""What a verdict says, in plain words; every number with its interval and n."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from netdepth.config import Component
from netdepth.studies.cells import CHANCE_SHARE, CellRuns, Scale
from netdepth.studies.contrasts import Cause, Contrast
from netdepth.studies.phrases import (
    OUTCOMES,
    WAYS,
    Sentence,
    capital,
    depths_of,
    fields_used,
    folders_of,
    interval,
    more_seeds,
    number,
    p_value,
    percent,
    signed,
    versus,
)
from netdepth.studies.ways import of_way
from netdepth.studyspec import StudySpec

if TYPE_CHECKING:
    from netdepth.studies.verdict import CellVerdict

__all__ = ["notes", "of_cell", "of_conditions", "of_contrast", "of_primary", "of_twins"]

CAUSES: dict[Cause, str] = {
    "explosion": "{0} explodes",
    "vanishing": "the signal of {0} vanishes",
    "stuck": "{0} stays at chance, and no vanishing gradient was measured",
    "mixed": "some runs of {0} explode or stay at chance",
    "optimisation": "{0} neither explodes nor stays at chance: it is harder to train",
}


# --- one cell, one comparison ---


def of_cell(cell: CellRuns, scale: Scale) -> str:
    """The training loss a cell reached, and what kept its runs from training."""
    n = len(cell.runs)
    if n == 0:
        return f"{capital(cell.place)}: no finished run."
    loss = f"{number(cell.loss.value)} nats{interval(cell.loss.low, cell.loss.high)}"
    text = f"{capital(cell.place)}: training loss {loss}, {n} run{'s' * (n > 1)}"
    text += f" of {n + len(cell.missing)} planned." if cell.missing else "."
    exploded, vanished, chance = (cell.of_kind(kind) for kind in ("exploded", "vanished", "at chance"))
    if exploded:
        finite = [run.loss for run in exploded if math.isfinite(run.loss)]
        largest = f"; the largest finite one is {number(max(finite))}" if finite else ""
        text += (
            f" {len(exploded)} of {n} exploded: the loss is not finite or above 2 ln {scale.classes} = "
            f"{number(2 * scale.chance)}{largest}."
        )
    if vanished or chance:
        text += (
            f" {len(vanished) + len(chance)} of {n} stayed at chance: the loss is at least {CHANCE_SHARE} of the "
            f"entropy of the labels, {number(scale.entropy)}."
        )
    if vanished:
        ratio = f"{number(cell.gradient_ratio)} of the last layer's gradient (median)"
        text += f" In {len(vanished)} of them the signal vanishes: at initialisation the first layer receives {ratio}."
    if any(run.capped < run.loss or not math.isfinite(run.loss) for run in cell.runs):
        text += f" Losses above ln {scale.classes} = {number(scale.chance)} count as that."
    return text


def of_contrast(contrast: Contrast, scale: Scale, smallest_effect: float, looks: int) -> str:
    """The outcome of one comparison with its numbers, its cause and whether it is overfitting."""
    if contrast.family == "condition":
        return of_way(contrast, smallest_effect, looks)
    cell, against = contrast.cell, contrast.against
    other = f"depth {against.depth}" if contrast.family == "depth" else against.condition
    left, right = contrast.runs
    if not left or not right:
        return f"{capital(versus(contrast))}: {OUTCOMES[contrast.label]}; there are no runs to compare."
    difference = contrast.difference
    count = f"{len(left)} and {len(right)} runs"
    if contrast.family == "shortcut":
        count = f"{len(left)} pair{'s' * (len(left) > 1)} of runs by seed"
    text = (
        f"{capital(versus(contrast))}: {OUTCOMES[contrast.label]}. Mean training loss {number(contrast.means[0])} "
        f"against {number(contrast.means[1])} nats, difference {signed(difference.value)}"
        f"{interval(difference.low, difference.high)}, {count}; "
    )
    if contrast.corrected_p is None:
        text += f"p {p_value(contrast.p)}, not corrected ({contrast.test}): exploratory, it claims nothing."
    else:
        times = f" and for {looks} looks" if looks > 1 else ""
        text += f"p {p_value(contrast.corrected_p)}, corrected by Holm's method{times} ({contrast.test})."
    if contrast.label == "no_evidence":
        text += f" The interval lies inside ± {number(smallest_effect)} nats, the smallest effect of interest."
    if contrast.label == "undecided":
        text += f" {more_seeds(contrast)}."
    if contrast.cause in CAUSES and contrast.label in ("helps", "degraded"):
        place = contrast.worse.place
        text += f" Cause: {CAUSES[contrast.cause].format(place)}."
    errors = f"{percent(contrast.val_means[0])} against {percent(contrast.val_means[1])}"
    if contrast.harm == "training":
        beside = "" if contrast.val_means[0] is None else f" (validation error {errors})"
        text += f" The harm is on the training data, so it is not overfitting{beside}."
    if contrast.harm == "validation only":
        p = f"corrected p {p_value(contrast.val_corrected_p or 0.0)}"
        text += f" Only the validation error is worse, {errors} ({p}): overfitting."
    if contrast.left_out:
        seeds = ", ".join(map(str, contrast.left_out))
        text += f" Left out, for want of a partner at {cell.depth} layers in {other}: seed {seeds}."
    return text


# --- the study ---


def of_conditions(cells: Iterable[CellVerdict], fields: Mapping[str, str]) -> list[Sentence]:
    """What depth does: a sentence per condition."""
    conditions: dict[str, list[CellVerdict]] = {}
    for cell in cells:
        conditions.setdefault(cell.cell.condition, []).append(cell)
    return [_of_condition(name, found, fields) for name, found in conditions.items()]


def _of_condition(name: str, cells: Sequence[CellVerdict], fields: Mapping[str, str]) -> Sentence:
    """The depths of one condition, gathered by their label."""
    shallowest = cells[0].cell.depth
    parts = []
    for label, outcome in OUTCOMES.items():
        found = [item for item in cells if item.label == label]
        if not found:
            continue
        text = f"{outcome} at {depths_of(item.cell.depth for item in found)}"
        if label == "exploded" or label == "vanished":
            text += f" ({', '.join(f'{len(i.cell.of_kind(label))} of {len(i.cell.runs)}' for i in found)} runs)"
        if label == "degraded":
            text += f" than at depth {shallowest}, on the training data: not overfitting"
        if label == "helps":
            text += f" than at depth {shallowest}"
        parts.append(text)
    overfits = [item.cell.depth for item in cells if item.harm == "validation only"]
    parts += [f"overfits at {depths_of(overfits)}: only the validation error is worse"] if overfits else []
    text = "; ".join(parts) or f"only depth {shallowest}, nothing to compare"
    return Sentence(f"{name or 'depth'}: {text}.", folders_of(i.cell for i in cells), fields_used(fields))


def of_twins(contrasts: Iterable[Contrast], fields: Mapping[str, str]) -> list[Sentence]:
    """What the shortcut does: a sentence per pair of conditions compared."""
    twins: dict[tuple[str, str], list[Contrast]] = {}
    for contrast in contrasts:
        if contrast.family != "depth" and contrast.primary:
            twins.setdefault((contrast.cell.condition, contrast.against.condition), []).append(contrast)
    made = []
    for (name, other), found in twins.items():
        found.sort(key=lambda contrast: contrast.cell.depth)
        parts = []
        for label, cause in dict.fromkeys((c.label, c.cause) for c in found):
            same = [c for c in found if (c.label, c.cause) == (label, cause)]
            text = f"{OUTCOMES[label]} at {depths_of(c.cell.depth for c in same)}"
            if same[0].family == "condition":
                shown = [f"{percent(c.means[0])} against {percent(c.means[1])}" for c in same]
                text = f"{WAYS[label]} with a validation error of {', '.join(shown)}"
            if cause in CAUSES and label in ("helps", "degraded"):
                text += f" ({CAUSES[cause].format(same[0].worse.condition)})"
            parts.append(text)
        runs = folders_of(cell for c in found for cell in (c.cell, c.against))
        made.append(Sentence(f"{name} against {other}: {'; '.join(parts)}.", runs, fields_used(fields)))
    return made


def of_primary(
    contrasts: Iterable[Contrast], scale: Scale, spec: StudySpec, fields: Mapping[str, str]
) -> list[Sentence]:
    """The comparisons named beforehand, one sentence group each."""
    return [
        Sentence(
            of_contrast(contrast, scale, spec.smallest_effect, spec.looks),
            tuple(run.folder for runs in contrast.runs for run in runs),
            fields_used(fields),
        )
        for contrast in contrasts
        if contrast.primary
    ]


def notes(cells: Iterable[CellRuns], spec: StudySpec, fields: Mapping[str, str]) -> list[Sentence]:
    """What a reader must know beside the results: missing runs, looks, the nuisance settings, early stopping."""
    made = []
    if spec.early_stopping:
        made.append(
            "No verdict: the runs of this study may stop before their budget, so their depths had different "
            "budgets; use a fixed one (train.early_stopping=null, train.overfitting.action=flag)."
        )
    missing = [(cell, item) for cell in cells for item in cell.missing]
    if missing:
        planned = len(spec.cells) * len(spec.seeds)
        listed = [f"seed {item.seed} of {cell.place} ({item.reason})" for cell, item in missing]
        shown = ", ".join(listed[:5]) + (f" and {len(listed) - 5} more" if len(listed) > 5 else "")
        made.append(f"Preliminary: {len(missing)} of {planned} planned runs have no result: {shown}.")
    if spec.looks > 1:
        made.append(
            f"The seeds were extended: this is look {spec.looks}, so each p-value is multiplied by {spec.looks}."
        )
    for item in spec.nuisance:
        tried = ", ".join(f"{value:g}" for value in item.values)
        how = f"tuned among {tried} on other seeds" if tried else f"{_fixed(spec, item.path)} everywhere"
        made.append(f"{item.path} is not what is compared: it was {how}.")
    folders = tuple(item.folder for _, item in missing if item.folder is not None)
    return [Sentence(text, folders if text.startswith("Preliminary") else (), ()) for text in made]


def _fixed(spec: StudySpec, path: str) -> str:
    """The value of a fixed setting, where the base names it."""
    room, _, name = path.partition(".")
    part = getattr(spec.base, room, None)
    value = part.args.get(name) if isinstance(part, Component) else getattr(part, name, None)
    return "the same" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
