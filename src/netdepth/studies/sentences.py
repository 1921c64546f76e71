"""The sentences of a study: each `Sentence` is data (its kind, and the cells and comparisons it is about), worded here.

Their order is: the answer (what depth does, then what one condition does against another), a
sentence per condition, per pair of conditions and per comparison named before the runs, then notes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from netdepth.config import Component
from netdepth.stats.intervals import Estimate
from netdepth.studies.cells import CHANCE_SHARE, CellRuns
from netdepth.studies.contrasts import Cause, CellVerdict, Contrast, Label, by_condition, pairs
from netdepth.studyspec import Nuisance, StudySpec
from netdepth.text import SETTINGS, capitalised, count, interval, listed, p_equals, percent, plain, points, significant

__all__ = [
    "Kind", "Sentence", "answer_of", "cell_words", "comparison_words", "named", "sentences_of", "versus",
]  # fmt: skip

Kind = Literal[
    "depth harms", "fates", "not overfitting", "depth helps", "depth has no effect", "pair in short", "claims nothing",
    "condition", "pair", "comparison",
    "early stopping", "missing", "interim analysis", "nuisance",
]  # fmt: skip
"""The first line are parts of the answer, the last are notes."""

HARMED: tuple[Label, ...] = ("exploded", "vanished", "degraded")

OUTCOMES: dict[Label, str] = {
    "exploded": "explodes",
    "vanished": "the signal vanishes",
    "degraded": "trains worse",
    "helps": "trains better",
    "no_evidence": "no evidence of a difference",
    "undecided": "undecided",
    "exploratory": "not tested",
}
"""The words for a label of a cell or of a comparison by training loss."""

BY_VALIDATION = OUTCOMES | {"degraded": "higher validation error", "helps": "lower validation error"}
"""The same for two training conditions, which are compared by validation error."""

CAUSES: dict[Cause, str] = {
    "explosion": "{0} explodes",
    "vanishing": "the signal of {0} vanishes",
    "stuck": "{0} stays at chance, and no vanishing gradient was measured",
    "mixed": "some runs of {0} explode or stay at chance",
    "optimisation": "{0} is harder to train, but neither explodes nor stays at chance",
}

FATES: dict[Cause, str] = {
    "stuck": "stays at chance",
    "vanishing": "loses its signal",
    "mixed": "has runs that explode or stay at chance",
    "explosion": "explodes",
}
"""How the answer words a failure that is more than worse training."""

ADDED_SEEDS = "seeds were added after a first analysis: this is analysis {0}, so each p-value is multiplied by {0}"

FIXED: dict[Kind, str] = {
    "not overfitting": "the training loss itself is higher, so this is not overfitting",
    "claims nothing": "no comparison was named before the runs, so this study shows numbers and claims nothing",
    "early stopping": "no verdict: the runs of this study may stop before their budget, so its depths had different "
    "budgets; use a fixed one (train.early_stopping=null, train.overfitting.action=flag)",
}
"""Sentences without numbers or names."""


@dataclass(frozen=True)
class Sentence:
    """A sentence of a study: its ``kind``, and the ``cells``, ``contrasts`` or ``nuisance`` setting that it is about.

    It is based on the ``fields`` (``file:field``) in the folders of its `runs`.
    """

    kind: Kind
    spec: StudySpec
    fields: tuple[str, ...] = ()
    cells: tuple[CellVerdict, ...] = ()
    contrasts: tuple[Contrast, ...] = ()
    nuisance: Nuisance | None = None

    @property
    def runs(self) -> tuple[str, ...]:
        """The folders of its runs; for a sentence about missing runs, those folders that exist."""
        if self.kind == "missing":
            return tuple(run.folder for item in self.cells for run in item.cell.missing if run.folder is not None)
        if self.kind == "comparison":
            return tuple(run.folder for contrast in self.contrasts for runs in contrast.runs for run in runs)
        cells = [*(i.cell for i in self.cells), *(cell for c in self.contrasts for cell in (c.cell, c.against))]
        return tuple(dict.fromkeys(run.folder for cell in cells for run in cell.runs))

    @property
    def subject(self) -> str:
        """Its title in a list: the label of its condition, or of both."""
        if self.kind == "condition":
            return self.cells[0].cell.label or self.spec.factor_name or "the network"
        if self.kind == "pair":
            return f"{named(self.contrasts[0].cell)} against {named(self.contrasts[0].against)}"
        return ""

    @property
    def words(self) -> str:
        """The statement about its subject, with a full stop at the end."""
        text = FIXED.get(self.kind) or WORDING[self.kind](self)
        return text if text.endswith(".") else f"{text}."

    @property
    def text(self) -> str:
        """The whole sentence."""
        return f"{self.subject}: {self.words}" if self.subject else capitalised(self.words)


# --- which sentences there are ---


def answer_of(cells: Sequence[CellVerdict], contrasts: Sequence[Contrast], spec: StudySpec) -> list[Sentence]:
    """The answer in a few sentences: where depth makes training worse, how networks fail, what a shortcut changes."""
    say = partial(Sentence, spec=spec)
    if spec.early_stopping:
        return [say("early stopping")]
    found = []
    if not spec.by_validation:
        harmed = tuple(item for item in cells if item.label in HARMED)
        deeper = tuple(item for item in harmed if item.cell.level != spec.reference_level)
        helped = tuple(item for item in cells if item.label == "helps")
        tested = tuple(item for item in cells if item.label not in ("reference", "exploratory"))
        found += [say("depth harms", cells=deeper)] if deeper else []
        found += [say("fates", cells=harmed)] if harmed else []
        found += [say("not overfitting", cells=deeper)] if deeper else []
        found += [say("depth helps", cells=helped)] if helped else []
        found += [say("depth has no effect", cells=tested)] if tested and not found else []
    found += [say("pair in short", contrasts=pair) for pair in pairs(contrasts, spec)]
    return found or [say("claims nothing")]


def sentences_of(
    cells: Sequence[CellVerdict],
    contrasts: Sequence[Contrast],
    spec: StudySpec,
    fields: Mapping[str, str],
) -> list[Sentence]:
    """Everything below the answer: conditions, pairs of conditions, comparisons named before the runs, notes."""
    note = partial(Sentence, spec=spec)
    say = partial(note, fields=tuple(fields.values()))
    found = []
    if spec.early_stopping:
        found.append(note("early stopping"))
    else:
        found += [say("condition", cells=tuple(own)) for own in by_condition(cells).values()]
        found += [say("pair", contrasts=pair) for pair in pairs(contrasts, spec)]
        found += [say("comparison", contrasts=(contrast,)) for contrast in contrasts if contrast.primary]
    missing = tuple(item for item in cells if item.cell.missing)
    found += [note("missing", cells=missing)] if missing else []
    found += [note("interim analysis")] if spec.looks > 1 else []
    return found + [note("nuisance", nuisance=item) for item in spec.nuisance]


# --- the answer ---


def _depth_harms(said: Sentence) -> str:
    """Where training gets worse with depth, conditions with the same depths together."""
    conditions = by_condition(said.cells)
    total, reference = len(said.spec.conditions), said.spec.where(said.spec.reference_level)
    places: dict[str, list[str]] = {}
    for items in conditions.values():
        places.setdefault(_where(said.spec, items), []).append(named(items[0].cell))
    if len(conditions) == 1:
        ((where, (name,)),) = places.items()
        return f"{name} trains worse {where} than {reference}"
    every = "both" if total == 2 else f"all {total}"
    among = f"in {every if len(conditions) == total else f'{len(conditions)} of {total}'}"
    each = "; ".join(f"{listed(names)} {where}" for where, names in places.items())
    return f"training is worse than {reference} {among} conditions: {each}"


def _fates(said: Sentence) -> str:
    """Which conditions explode, lose their signal or stay at chance, and where."""
    parts = []
    for items in by_condition(said.cells).values():
        found = {cause: [item for item in items if item.cause == cause] for cause in FATES}
        each = [f"{FATES[cause]} {_where(said.spec, own)}" for cause, own in found.items() if own]
        parts += [f"{named(items[0].cell)} {listed(each)}"] if each else []
    return "; ".join(parts) or "no network explodes or loses its signal: the deeper ones are harder to train"


def _depth_helps(said: Sentence) -> str:
    spec = said.spec
    helped = [f"{named(own[0].cell)} {_where(spec, own)}" for own in by_condition(said.cells).values()]
    if not spec.factor_axis.numeric:
        return f"training is better than {spec.where(spec.reference_level)}: {'; '.join(helped)}"
    return f"{said.spec.factor_name} helps {listed(helped)}"


def _depth_has_no_effect(said: Sentence) -> str:
    none = all(item.label == "no_evidence" for item in said.cells)
    factor = said.spec.factor_name
    return f"{factor} makes no difference that matters" if none else f"it is undecided what {factor} does"


def _pair_in_short(said: Sentence) -> str:
    """Which of two conditions is better, and at which depths."""
    contrasts = said.contrasts
    left, right = named(contrasts[0].cell), named(contrasts[0].against)
    if contrasts[0].family == "condition":
        return "; ".join(_by_validation_in_short(contrast, left, right) for contrast in contrasts)
    found = {label: [c for c in contrasts if c.label == label] for label in ("helps", "degraded")}
    words = {"helps": "better", "degraded": "worse"}
    each = [f"{words[label]} than {right} {_where(said.spec, own)}" for label, own in found.items() if own]
    if each:
        return f"{left} trains {listed(each)}"
    if all(contrast.label == "no_evidence" for contrast in contrasts):
        return f"no evidence of a difference between {left} and {right}"
    return f"it is undecided whether {left} trains better than {right}"


def _by_validation_in_short(contrast: Contrast, left: str, right: str) -> str:
    words = {
        "helps": f"{left} has a lower validation error than {right}",
        "degraded": f"{left} has a higher validation error than {right}",
        "no_evidence": f"no evidence of a difference in validation error between {left} and {right}",
    }
    text = words.get(contrast.label, f"it is undecided whether {left} has a lower validation error than {right}")
    number = f"{p_equals(contrast.corrected_p)}, {count(len(contrast.runs[0]), 'pair')} of runs"
    return f"{text}: {percent(contrast.means[0])} against {percent(contrast.means[1])} ({number})"


# --- one cell, one condition, one pair, one comparison ---


def cell_words(item: CellVerdict, spec: StudySpec) -> str:
    """The training loss of a cell, why its runs did not train, and the comparison that judged it."""
    cell, scale = item.cell, item.cell.scale
    n, planned = len(cell.runs), len(cell.runs) + len(cell.missing)
    runs = f"{cell.loss.statistic} of {count(n, 'run')}" + (f" of {planned} planned" if cell.missing else "")
    reached = f"training loss {_estimate(cell.loss, ' nats')}, {runs}" if n else "no finished run"
    parts = [f"{capitalised(_place(cell))}: {reached}."]
    exploded, vanished, chance = (cell.of_kind(kind) for kind in ("exploded", "vanished", "at chance"))
    if exploded:
        finite = [run.loss for run in exploded if math.isfinite(run.loss)]
        largest = f"; the largest finite one is {significant(max(finite))}" if finite else ""
        limit = f"2 ln {scale.classes} = {significant(2 * scale.chance)}"
        parts.append(f"{len(exploded)} of {n} exploded: the loss is not finite or above {limit}{largest}.")
    if vanished or chance:
        limit = f"at least {CHANCE_SHARE} of the entropy of the labels, {significant(scale.entropy)}"
        parts.append(f"{len(vanished) + len(chance)} of {n} stayed at chance: the loss is {limit}.")
    if vanished:
        ratio = f"the first layer receives {significant(cell.gradient_ratio)} of the last layer's gradient (median)"
        parts.append(f"In {len(vanished)} of them the signal vanishes: at initialisation {ratio}.")
    if any(run.capped < run.loss or not math.isfinite(run.loss) for run in cell.runs):
        parts.append(f"Losses above ln {scale.classes} = {significant(scale.chance)} count as that.")
    if item.contrast is not None:
        parts.append(comparison_words(item.contrast, spec))
    return " ".join(parts)


def _condition(said: Sentence) -> str:
    """The depths of one condition by their label; the mean losses where no depth was tested."""
    if said.spec.by_validation:
        return "; ".join(_reached(item.cell, said) for item in said.cells)
    reference, parts = said.spec.where(said.spec.reference_level), []
    for label, outcome in OUTCOMES.items():
        own = [item for item in said.cells if item.label == label]
        if not own or label == "exploratory":
            continue
        text = f"{outcome} {_where(said.spec, own)}"
        if label == "exploded" or label == "vanished":
            some = [f"{len(i.cell.of_kind(label))} of {len(i.cell.runs)}" for i in own]
            every = all(len(i.cell.of_kind(label)) == len(i.cell.runs) for i in own)
            text += " (all runs)" if every else f" ({listed(some)} runs)"
        elif label == "degraded":
            text += f" (higher training loss than {reference}, so not overfitting)"
        elif label == "helps":
            text += f" than {reference}"
        parts.append(text)
    overfits = [item for item in said.cells if item.harm == "validation only"]
    parts += [f"overfits {_where(said.spec, overfits)}: only the validation error is worse"] if overfits else []
    if parts:
        return "; ".join(parts)
    losses = [f"{significant(item.cell.loss.value)} {item.cell.where}".rstrip() for item in said.cells]
    return f"training loss {listed(losses)}"


def _reached(cell: CellRuns, said: Sentence) -> str:
    """The results of a training condition at one depth, also against guessing all classes alike."""
    place = f" {cell.where}" if len(said.cells) > 1 else ""
    if not cell.runs:
        return f"no finished run{place}"
    error = cell.val_error
    parts = [f"validation error {_estimate(error, ' %', partial(points, sign=False))}"]
    if error.value is not None:
        parts.append(f"{points(1 - 1 / cell.scale.classes - error.value, 1, sign=False)} points below guessing")
    parts.append(f"training loss {significant(cell.loss.value)} nats")
    return f"{', '.join(parts)}, {count(len(cell.runs), 'run')}{place}"


def _pair(said: Sentence) -> str:
    """One condition against another, with depths of the same label and cause together."""
    parts = []
    for label, cause in dict.fromkeys((contrast.label, contrast.cause) for contrast in said.contrasts):
        own = [contrast for contrast in said.contrasts if (contrast.label, contrast.cause) == (label, cause)]
        text = f"{OUTCOMES[label]} {_where(said.spec, own)}".rstrip()
        if own[0].family == "condition":
            errors = [f"{percent(c.means[0])} against {percent(c.means[1])}" for c in own]
            text = f"{BY_VALIDATION[label]} {_where(said.spec, own)}".rstrip() + f": {listed(errors)}"
        elif cause in CAUSES and label in ("helps", "degraded"):
            text += f": {CAUSES[cause].format(named(own[0].worse))}"
        parts.append(text)
    return "; ".join(parts)


def comparison_words(contrast: Contrast, spec: StudySpec) -> str:
    """The outcome of one comparison with its numbers, its cause and whether it is overfitting."""
    by_validation = contrast.family == "condition"
    outcome = f"{capitalised(versus(contrast))}: {(BY_VALIDATION if by_validation else OUTCOMES)[contrast.label]}"
    left, right = contrast.runs
    if not left or not right:
        return f"{outcome}; there are no runs to compare."
    parts = [f"{outcome}.", f"{_measured(contrast)}; {_tested(contrast, spec.looks)}."]
    if contrast.label == "no_evidence":
        value, unit = (100, "percentage points") if by_validation else (1, "nats")
        effect = f"{plain(value * spec.smallest_effect)} {unit}"
        parts.append(f"The interval lies inside ± {effect}, the smallest effect of interest.")
    if contrast.label == "undecided":
        more = contrast.more_seeds
        seeds = "Not even a thousand seeds" if more is None else f"About {count(more, 'more seed')}"
        parts.append(f"{seeds} would decide it, if difference and scatter stay as measured.")
    if contrast.cause in CAUSES and contrast.label in ("helps", "degraded"):
        parts.append(f"Cause: {CAUSES[contrast.cause].format(_place(contrast.worse))}.")
    errors = f"{percent(contrast.val_means[0])} against {percent(contrast.val_means[1])}"
    if contrast.harm == "training":
        beside = "" if contrast.val_means[0] is None else f" (validation error {errors})"
        parts.append(f"The training loss is higher, so it is not overfitting{beside}.")
    if contrast.harm == "validation only":
        errors += f" (corrected {p_equals(contrast.val_corrected_p)})"
        parts.append(f"Only the validation error is worse, {errors}: overfitting.")
    if contrast.left_out:
        seeds = f"seed{'s' * (len(contrast.left_out) > 1)} {listed(contrast.left_out)}"
        parts.append(f"Left out, because one run of the pair is missing: {seeds}.")
    return " ".join(parts)


def _measured(contrast: Contrast) -> str:
    """The two means, their difference with its interval, and the number of runs."""
    if contrast.family == "condition":
        quantity, mean, unit = "validation error", percent, ""
        difference = _estimate(contrast.difference, " percentage points", points)
    else:
        quantity, mean, unit = "training loss", significant, " nats"
        difference = _estimate(contrast.difference, shown=partial(significant, sign=True))
    left, right = map(len, contrast.runs)
    runs = f"{left} and {right} runs" if contrast.family == "depth" else f"{count(left, 'pair')} of runs by seed"
    means = f"{mean(contrast.means[0])} against {mean(contrast.means[1])}{unit}"
    return f"Mean {quantity} {means}, difference {difference}, {runs}"


def _tested(contrast: Contrast, looks: int) -> str:
    if contrast.corrected_p is None:
        claim = "not named before the runs, so it claims nothing"
        return f"{p_equals(contrast.p)}, not corrected ({contrast.test}): {claim}"
    times = f" and for {looks} interim analyses" if looks > 1 else ""
    return f"{p_equals(contrast.corrected_p)}, corrected by Holm's method{times} ({contrast.test})"


# --- notes ---


def _missing(said: Sentence) -> str:
    runs = [(item.cell, run) for item in said.cells for run in item.cell.missing]
    each = [f"seed {run.seed} of {_place(cell)} ({run.reason})" for cell, run in runs]
    shown = ", ".join(each[:5]) + (f" and {len(each) - 5} more" if len(each) > 5 else "")
    planned = sum(len(said.spec.seeds_for(cell.condition)) for cell in said.spec.cells)
    return f"preliminary: {len(runs)} of {planned} planned runs have no result: {shown}"


def _nuisance(said: Sentence) -> str:
    """The value, in all networks, of a setting that is not compared."""
    item = said.nuisance
    assert item is not None, "a sentence about a setting names it"
    name = SETTINGS.get(item.path, item.path)
    if item.values:
        tried = listed([plain(value) for value in item.values], "or")
        return f"{name} was tuned for each network: {tried}, whichever gave the lowest validation loss on other seeds"
    part = getattr(said.spec.base, item.path.partition(".")[0], None)
    field = item.path.partition(".")[2]
    value = part.args.get(field) if isinstance(part, Component) else getattr(part, field, None)
    shown = "" if value is None else f" {plain(value)}" if isinstance(value, float) else f" {value}"
    return f"all networks used {name}{shown}" if shown else f"all networks used the same {name}"


WORDING: dict[Kind, Callable[[Sentence], str]] = {
    "depth harms": _depth_harms,
    "fates": _fates,
    "depth helps": _depth_helps,
    "depth has no effect": _depth_has_no_effect,
    "pair in short": _pair_in_short,
    "condition": _condition,
    "pair": _pair,
    "comparison": lambda said: comparison_words(said.contrasts[0], said.spec),
    "missing": _missing,
    "interim analysis": lambda said: ADDED_SEEDS.format(said.spec.looks),
    "nuisance": _nuisance,
}


# --- names and numbers ---


def named(cell: CellRuns) -> str:
    """A condition inside a sentence: ``residual (He init, scaled branches)``; ``the network`` if there is only one."""
    name, _, rest = cell.label.partition(", ")
    return (f"{name} ({rest})" if rest else name) or "the network"


def versus(contrast: Contrast) -> str:
    """The two sides of a comparison."""
    if contrast.family == "depth":
        return f"{_place(contrast.cell)} against {contrast.against.place}"
    return f"{named(contrast.cell)} against {named(contrast.against)} {contrast.cell.where}".rstrip()


def _place(cell: CellRuns) -> str:
    return f"{named(cell)} {cell.where}".rstrip() if cell.label else cell.place or "the network"


def _where(spec: StudySpec, items: Sequence[CellVerdict | Contrast]) -> str:
    """Where ``items`` are; see `StudySpec.where`."""
    return spec.where(*(item.cell.level for item in items))


def _estimate(estimate: Estimate, unit: str = "", shown: Callable[[float], str] = significant) -> str:
    """``0.12 nats (95 % interval [0.11, 0.13])``."""
    ends = interval(estimate.low, estimate.high, shown)
    value = "-" if estimate.value is None else shown(estimate.value)
    return f"{value}{unit} (95 % interval {ends})" if ends else f"{value}{unit}"
