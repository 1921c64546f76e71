"""The sentences of a study: each `Sentence` is data (its kind, and the cells and comparisons it is about), worded here.

Their order is: the answer (what depth does, then what one condition does against another), a
sentence per condition, per pair of conditions and per comparison named before the runs, then notes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from netdepth.config import Component
from netdepth.stats.family import spending
from netdepth.studies.cells import CellRuns
from netdepth.studies.comparison import WORSE, CellVerdict, Contrast, Label
from netdepth.studies.contrasts import by_condition, pairs
from netdepth.studies.wording import (
    CAUSES,
    LOSSES,
    OUTCOMES,
    comparison_words,
    failed_words,
    margin_words,
    named,
    outcome,
    place,
    quantity_of,
    same_way,
    shown_estimate,
    versus,
)  # fmt: skip
from netdepth.studyspec import Nuisance, StudySpec
from netdepth.text import SETTINGS, capitalised, count, listed, p_equals, plain, points, significant

__all__ = ["Kind", "Sentence", "answer_of", "sentences_of"]

Kind = Literal[
    "depth harms", "fates", "not overfitting", "depth helps", "depth has no effect", "pair in short",
    "comparison in short", "claims nothing",
    "condition", "pair", "comparison",
    "early stopping", "missing", "interim analysis", "nuisance",
]  # fmt: skip
"""The first line are parts of the answer, the last are notes."""

FATES: dict[Label, str] = {"at chance": "stays at chance", "vanished": "loses its signal", "exploded": "explodes"}
"""How the answer words a failure that is more than worse training."""

FIXED: dict[Kind, str] = {
    "not overfitting": "the training loss itself is higher, so this is not overfitting",
    "claims nothing": "no comparison was named before the runs, so this study shows numbers and claims nothing",
    "early stopping": "no verdict: the runs of this study may stop before their budget, so its networks had different "
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
            return tuple(name for c in self.contrasts for runs in c.runs for run in runs for name in run.folders)
        cells = [*(i.cell for i in self.cells), *(cell for c in self.contrasts for cell in (c.cell, c.against))]
        return tuple(dict.fromkeys(name for cell in cells for run in cell.runs for name in run.folders))

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
        harmed = tuple(item for item in cells if item.label in WORSE)
        deeper = tuple(item for item in harmed if item.cell.level != spec.reference_level)
        helped = tuple(item for item in cells if item.label == "helps")
        tested = tuple(item for item in cells if item.label not in ("reference", "exploratory"))
        found += [say("depth harms", cells=deeper)] if deeper else []
        found += [say("fates", cells=harmed)] if any(item.label in FATES for item in harmed) else []
        found += [say("not overfitting", cells=deeper)] if deeper and spec.metric is None else []
        found += [say("depth helps", cells=helped)] if helped else []
        found += [say("depth has no effect", cells=tested)] if tested and not found else []
    found += [say("pair in short", contrasts=pair) for pair in pairs(contrasts, spec)]
    others = [c for c in contrasts if c.primary and (c.by_data_set or c.family in ("cells", "trend", "interaction"))]
    found += [say("comparison in short", contrasts=(contrast,)) for contrast in others]
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
    found += [note("interim analysis")] if spending(spec.looks, spec.max_looks) > 1 and spec.primary else []
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
        contrast = said.cells[0].contrast
        assert contrast is not None, "a cell is worse by a comparison"
        words = outcome("degraded", contrast, said.spec)
        return f"{name} {words if said.spec.metric is None else f'has a {words}'} {where} than {reference}"
    every = "both" if total == 2 else f"all {total}"
    among = f"in {every if len(conditions) == total else f'{len(conditions)} of {total}'}"
    each = "; ".join(f"{listed(names)} {where}" for where, names in places.items())
    return f"{_judged(said.spec)} is worse than {reference} {among} conditions: {each}"


def _judged(spec: StudySpec) -> str:
    """What is better or worse."""
    return "training" if spec.metric is None else f"the {quantity_of('depth', spec).name}"


def _fates(said: Sentence) -> str:
    """Which conditions explode, lose their signal or stay at chance, and where."""
    parts = []
    for items in by_condition(said.cells).values():
        found = {label: [item for item in items if item.label == label] for label in FATES}
        each = [f"{FATES[label]} {_where(said.spec, own)}" for label, own in found.items() if own]
        parts += [f"{named(items[0].cell)} {listed(each)}"] if each else []
    return "; ".join(parts)


def _depth_helps(said: Sentence) -> str:
    """Where training is better; that more of the factor helps can be said of levels above the reference alone."""
    spec = said.spec
    helped = [f"{named(own[0].cell)} {_where(spec, own)}" for own in by_condition(said.cells).values()]
    if spec.factor_axis.numeric and spec.reference_level == spec.levels[0]:
        by = "" if spec.metric is None else f"by {quantity_of('depth', spec).name}, "
        return f"{by}{spec.factor_name} helps {listed(helped)}"
    if len(helped) == 1 and spec.metric is None:
        return f"{helped[0]}: training is better than {spec.where(spec.reference_level)}"
    return f"{_judged(spec)} is better than {spec.where(spec.reference_level)}: {'; '.join(helped)}"


def _depth_has_no_effect(said: Sentence) -> str:
    factor, reference = said.spec.factor_name, said.spec.where(said.spec.reference_level)
    judged = _judged(said.spec)
    by = "" if said.spec.metric is None else f" to {judged}"
    same = [item for item in said.cells if item.label in ("equivalent", "not worse") and item.contrast is not None]
    if not same:
        everywhere = all(run.kind != "trained" for item in said.cells for run in item.cell.runs)
        failed = f"; every network fails, {reference} too" if everywhere else ""
        return f"it is undecided what {factor} does{by}{failed}"
    places: dict[str, list[CellVerdict]] = {}
    for item in same:
        assert item.contrast is not None, "only a comparison says so"
        words = outcome(item.label, item.contrast, said.spec)
        places.setdefault(f"{words} {'to' if item.label == 'equivalent' else 'than'}", []).append(item)
    parts = []
    for words, items in sorted(places.items()):
        alike = [f"{named(own[0].cell)} {_where(said.spec, own)}" for own in by_condition(items).values()]
        parts.append(f"{words} {judged} {reference}: {listed(alike)}")
    rest = "" if len(same) == len(said.cells) else f"; for the others it is undecided what {factor} does{by}"
    return f"{'; '.join(parts)}{rest}"


def _pair_in_short(said: Sentence) -> str:
    """Which of two conditions is better, and at which levels."""
    contrasts, parts = said.contrasts, []
    left, right = named(contrasts[0].cell), named(contrasts[0].against)
    if contrasts[0].family == "condition":
        return "; ".join(_by_validation_in_short(contrast, said.spec, left, right) for contrast in contrasts)
    loss = quantity_of(contrasts[0].family, said.spec) in LOSSES
    for label in dict.fromkeys(contrast.label for contrast in contrasts if contrast.label != "undecided"):
        own = [contrast for contrast in contrasts if contrast.label == label]
        words = outcome(label, own[0], said.spec)
        if label in FATES:
            words = f"{OUTCOMES[label]} more often than"
        elif label == "equivalent":
            parts.append(
                f"is equivalent to {right} {words.removeprefix('equivalent ')} {_where(said.spec, own)}".rstrip()
            )
            continue
        else:
            words = f"{'is ' if label == 'not worse' else '' if loss else 'has a '}{words} than"
        parts.append(f"{words} {right} {_where(said.spec, own)}".rstrip())
    if parts:
        return f"{left} {listed(parts)}"
    if all(contrast.item.aim == "not worse" for contrast in contrasts):
        margin = margin_words(contrasts[0], said.spec).removeprefix("± ")
        where = _where(said.spec, contrasts)
        return f"it is undecided whether {left} is worse than {right} by more than {margin} {where}".rstrip()
    if not loss:
        better = outcome("helps", contrasts[0], said.spec)
        return f"it is undecided whether {left} has a {better} than {right} {_where(said.spec, contrasts)}".rstrip()
    return f"it is undecided whether {left} trains better than {right} {_where(said.spec, contrasts)}".rstrip()


def _by_validation_in_short(contrast: Contrast, spec: StudySpec, left: str, right: str) -> str:
    quantity = quantity_of("condition", spec, contrast.cell.scale)
    words = {
        "helps": f"{left} has a {outcome('helps', contrast, spec)} than {right}",
        "degraded": f"{left} has a {outcome('degraded', contrast, spec)} than {right}",
        "equivalent": f"in {quantity.name} {left} and {right} are {outcome('equivalent', contrast, spec)}",
        "not worse": f"{left} is {outcome('not worse', contrast, spec)} than {right} in {quantity.name}",
    }
    better = outcome("helps", contrast, spec)
    label = "degraded" if contrast.label in WORSE else contrast.label
    text = words.get(label, f"it is undecided whether {left} has a {better} than {right}")
    p = contrast.p_of("equivalence" if contrast.label == "equivalent" else "difference")
    runs = count(len(contrast.runs[0]), "run" if contrast.design == "unpaired" else "pair")
    number = (
        f"corrected {p_equals(p)}, {runs}"
        + ("" if contrast.design == "unpaired" else " of runs")
        + " each" * (contrast.design == "unpaired")
    )
    return f"{text}: {quantity.mean(contrast.own_means[0])} against {quantity.mean(contrast.own_means[1])} ({number})"


def _comparison_in_short(said: Sentence) -> str:
    """A comparison of another kind, or one of several data sets together."""
    (contrast,) = said.contrasts
    words = outcome(contrast.label, contrast, said.spec)
    text = f"{versus(contrast, said.spec)}: {words} (corrected {p_equals(contrast.corrected_p)})"
    return f"{text}, {same_way(contrast)}" if contrast.by_data_set and contrast.label != "undecided" else text


# --- one cell, one condition, one pair, one comparison ---


def _condition(said: Sentence) -> str:
    """The levels of one condition by their label; the mean losses where no level was tested."""
    if said.spec.by_validation:
        return "; ".join(_reached(item.cell, said) for item in said.cells)
    reference, parts = said.spec.where(said.spec.reference_level), []
    for label in ("exploded", "vanished", "at chance", "degraded", "helps", "equivalent", "not worse", "undecided"):
        own = [item for item in said.cells if item.label == label and item.contrast is not None]
        if not own or own[0].contrast is None:
            continue
        text = f"{outcome(own[0].label, own[0].contrast, said.spec)} {_where(said.spec, own)}"
        if label in FATES:
            some = [f"{len(i.cell.of_kind(label))} of {len(i.cell.runs)}" for i in own]  # type: ignore[arg-type]
            every = all(len(i.cell.of_kind(label)) == len(i.cell.runs) for i in own)  # type: ignore[arg-type]
            text += " (all runs)" if every else f" ({listed(some)} runs)"
        elif label == "degraded" and said.spec.metric is None:
            text += f" (higher training loss than {reference}, so not overfitting)"
        elif label in ("degraded", "helps"):
            text += f" than {reference}"
        parts.append(text)
    overfits = [item for item in said.cells if item.harm == "validation only"]
    parts += [f"overfits {_where(said.spec, overfits)}"] if overfits else []
    failed = [item.cell for item in said.cells if item.label not in FATES and failed_words(item.cell)]
    parts += [f"{failed_words(cell)} {cell.where}".rstrip() for cell in failed]
    if parts:
        return "; ".join(parts)
    quantity = quantity_of("depth", said.spec, said.cells[0].cell.scale)
    if said.spec.metric is None:
        means = [f"{significant(item.cell.loss.value)}{item.cell.scale.unit}" for item in said.cells]
    else:
        means = [f"{quantity.mean(item.cell.metric.value)}{quantity.unit}" for item in said.cells]
    each = [f"{mean} {item.cell.where}".rstrip() for mean, item in zip(means, said.cells, strict=True)]
    return f"mean {quantity.name} {listed(each)}"


def _reached(cell: CellRuns, said: Sentence) -> str:
    """The results of a training condition at one depth, also against guessing all classes alike."""
    place = f" {cell.where}" if len(said.cells) > 1 else ""
    if not cell.runs:
        return f"no finished run{place}"
    error = cell.val_error
    parts = [f"validation error {shown_estimate(error, ' %', partial(points, sign=False))}"]
    if error.value is not None:
        parts.append(f"{points(1 - 1 / cell.scale.classes - error.value, 1, sign=False)} points below guessing")
    parts.append(f"training loss {significant(cell.loss.value)}{cell.scale.unit}")
    return f"{', '.join(parts)}, {count(len(cell.runs), 'run')}{place}"


def _pair(said: Sentence) -> str:
    """One condition against another, with levels of the same label and cause together."""
    parts = []
    for label, cause in dict.fromkeys((contrast.label, _cause_of(contrast)) for contrast in said.contrasts):
        own = [contrast for contrast in said.contrasts if (contrast.label, _cause_of(contrast)) == (label, cause)]
        text = f"{outcome(label, own[0], said.spec)} {_where(said.spec, own)}".rstrip()
        if own[0].family == "condition":
            mean = quantity_of("condition", said.spec).mean
            text += f": {listed([f'{mean(c.own_means[0])} against {mean(c.own_means[1])}' for c in own])}"
        elif cause:
            text += f", consistent with {cause} in {named(own[0].explained_cell)}"
        parts.append(text)
    return "; ".join(parts)


def _cause_of(contrast: Contrast) -> str:
    return CAUSES[contrast.explanation.cause] if contrast.explanation is not None else ""


# --- notes ---


def _missing(said: Sentence) -> str:
    runs = [(item.cell, run) for item in said.cells for run in item.cell.missing]
    each = [f"seed {run.seed} of {place(cell)} ({run.reason})" for cell, run in runs]
    shown = ", ".join(each[:5]) + (f" and {len(each) - 5} more" if len(each) > 5 else "")
    planned = sum(len(said.spec.seeds_for(cell.condition)) for cell in said.spec.cells)
    return f"preliminary: {len(runs)} of {planned} planned runs have no result: {shown}"


def _interim(said: Sentence) -> str:
    """How the analyses of this study share the level."""
    looks, planned = said.spec.looks, said.spec.max_looks
    times = spending(looks, planned)
    if planned is None:
        plan = "no number of analyses was declared (max_looks)"
        return f"this is analysis {looks}, and {plan}, so each p-value is multiplied by {looks} × {looks + 1} = {times}"
    return f"this is analysis {looks} of the {planned} declared, so each p-value is multiplied by {times}"


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
    "comparison in short": _comparison_in_short,
    "condition": _condition,
    "pair": _pair,
    "comparison": lambda said: comparison_words(said.contrasts[0], said.spec),
    "missing": _missing,
    "interim analysis": _interim,
    "nuisance": _nuisance,
}


# --- names and numbers ---


def _where(spec: StudySpec, items: Sequence[CellVerdict | Contrast]) -> str:
    """Where ``items`` are; see `StudySpec.where`."""
    return spec.where(*(item.cell.level for item in items))
