"""The words for one comparison and for one cell, and the names and numbers that all sentences of a study use."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from netdepth.stats.family import spending
from netdepth.stats.intervals import Estimate
from netdepth.studies.cells import CHANCE_SHARE, CellRuns, Scale
from netdepth.studies.comparison import WORSE, Cause, CellVerdict, Contrast, Explanation, Label
from netdepth.studies.reach import more_seeds
from netdepth.studyspec import Family, StudySpec
from netdepth.text import (
    capitalised,
    count,
    interval,
    listed,
    p_equals,
    percent,
    plain,
    points,
    significant,
)  # fmt: skip

__all__ = [
    "CAUSES", "LOSSES", "OUTCOMES", "Quantity", "cell_words", "comparison_words", "failed_words", "margin_words",
    "named", "outcome", "place", "quantity_of", "same_way", "shown_estimate", "versus",
]  # fmt: skip

OUTCOMES: dict[Label, str] = {
    "exploded": "explodes",
    "vanished": "the signal vanishes",
    "at chance": "stays at chance",
    "degraded": "trains worse",
    "helps": "trains better",
    "equivalent": "equivalent",
    "not worse": "not worse",
    "undecided": "undecided",
    "exploratory": "not tested",
}
"""The words for a label of a cell or of a comparison by training loss."""

CAUSES: dict[Cause, str] = {
    "explosion": "a signal that explodes",
    "vanishing": "a gradient that vanishes",
    "stuck": "training that does not begin",
    "instability": "training that is unstable",
    "optimisation": "an optimisation that is harder",
    "overfitting": "overfitting",
}

MEASURES = {
    "f1_weighted": "F1 (weighted)",
    "precision_weighted": "precision (weighted)",
    "recall_weighted": "recall (weighted)",
    "r2": "R²",
}
"""Metrics for people, where they are not called by their own name."""

FAILED = {"exploded": "exploded", "vanished": "lost the signal", "at chance": "stayed at chance"}


@dataclass(frozen=True)
class Quantity:
    """What a comparison is about: its ``name``, how a ``mean`` and a ``difference`` of it are shown, their units."""

    name: str
    mean: Callable[[float | None], str]
    difference: Callable[[float], str]
    unit: str
    difference_unit: str
    per_unit: float = 1.0
    """The number that a margin of 1 is shown as: 100 for fractions."""

    def effect(self, margin: float) -> str:
        """``± 0.02 nats``."""
        return f"± {plain(self.per_unit * margin)} {self.difference_unit}".rstrip()


LOSS = Quantity("training loss", significant, partial(significant, sign=True), " nats", "nats")
VALUE_LOSS = dataclasses.replace(LOSS, unit="", difference_unit="")
"""Where values are learned: in their unit, or its square, which has no name here."""
SHARE = Quantity("training loss", percent, points, " of the loss of guessing", "% of the loss of guessing", 100)
"""Over several data sets."""
LOSSES = (LOSS, VALUE_LOSS, SHARE)
"""The training loss, of which it is said that a network trains better or worse."""
ERROR = Quantity("validation error", percent, points, "", "percentage points", 100)


def quantity_of(family: Family, spec: StudySpec, scale: Scale | None = None) -> Quantity:
    """The quantity that comparisons of ``family`` are decided by; the ``scale`` of the cells has the unit of losses."""
    loss = LOSS if scale is None or scale.constant is None else SHARE if scale.shared else VALUE_LOSS
    if spec.metric is None:
        return ERROR if family == "condition" else loss
    part, _, rest = spec.metric.partition("_")
    measure = rest.partition("_")[2]
    name = f"{ {'train': 'training', 'val': 'validation'}[part] } {MEASURES.get(measure, measure.replace('_', ' '))}"
    if spec.metric.endswith("_loss"):
        return dataclasses.replace(loss, name=name)
    if any(word in spec.metric for word in ("accuracy", "precision", "recall", "f1")):
        return Quantity(name, percent, points, "", "percentage points", 100)
    return Quantity(name, significant, partial(significant, sign=True), "", "")


def outcome(label: Label, contrast: Contrast, spec: StudySpec) -> str:
    """The words for the label of a comparison."""
    average = " on average" if contrast.by_data_set and label in ("helps", "degraded") else ""
    return f"{_outcome(label, contrast, spec)}{average}"


def _outcome(label: Label, contrast: Contrast, spec: StudySpec) -> str:
    quantity = quantity_of(contrast.family, spec, contrast.cell.scale)
    if label == "equivalent":
        return f"equivalent within {margin_words(contrast, spec)}"
    if label == "not worse":
        return f"not worse by more than {margin_words(contrast, spec).removeprefix('± ')}"
    changes: dict[Label, str] = {"helps": "smaller", "degraded": "larger"}
    if contrast.family == "interaction" and label in changes:
        return f"the effect on the {quantity.name} is {_turned(changes, label, contrast.higher)}"
    falls: dict[Label, str] = {"helps": "falls", "degraded": "rises"}
    if contrast.family == "trend" and label in falls:
        return f"the {quantity.name} {_turned(falls, label, contrast.higher)}"
    lower: dict[Label, str] = {"helps": "lower", "degraded": "higher"}
    if quantity not in LOSSES and label in (*WORSE, "helps"):
        change = f"{_turned(lower, 'helps' if label == 'helps' else 'degraded', contrast.higher)} {quantity.name}"
        return change if label in lower else f"{OUTCOMES[label]}, {change}"
    return OUTCOMES[label]


def _turned(words: Mapping[Label, str], label: Label, higher: bool) -> str:
    """The word for ``label`` in the metric's own direction."""
    other: dict[Label, Label] = {"helps": "degraded", "degraded": "helps"}
    return words[other[label] if higher else label]


def margin_words(contrast: Contrast, spec: StudySpec) -> str:
    """``± 0.02 nats``, ``± 5 % of the reference``."""
    margin = spec.smallest_effect if contrast.item.margin is None else contrast.item.margin
    if spec.effect == "relative":
        return f"± {plain(100 * margin)} % of {place(contrast.against)}"
    return quantity_of(contrast.family, spec, contrast.cell.scale).effect(margin)


# --- one comparison ---


def comparison_words(contrast: Contrast, spec: StudySpec) -> str:
    """The outcome of one comparison with its numbers, and what it is consistent with."""
    said = f"{capitalised(versus(contrast, spec))}: {outcome(contrast.label, contrast, spec)}"
    if not all(contrast.runs):
        return f"{said}; there are no runs to compare."
    parts = [f"{said}.", f"{_measured(contrast, spec)}; {_tested(contrast, spec)}."]
    if contrast.by_data_set:
        return " ".join([*parts, *_by_data_set(contrast, spec), *_left_out(contrast)])
    parts += [_failures(contrast)] if contrast.failures.failed or contrast.failures.against_failed else []
    if contrast.label == "equivalent":
        rate = percent(contrast.failure_rate_not_excluded, 0)
        parts.append(
            f"Two one-sided t tests: corrected {p_equals(contrast.p_of('equivalence'))}. No run failed; so few runs "
            f"do not exclude a failure rate of up to {rate}."
        )
    if contrast.label == "undecided":
        parts.append(_undecided(contrast, spec))
    parts += [_cause(contrast, contrast.explanation, spec)] if contrast.explanation is not None else []
    return " ".join([*parts, *_left_out(contrast)])


def _left_out(contrast: Contrast) -> list[str]:
    if not contrast.left_out:
        return []
    seeds = f"seed{'s' * (len(contrast.left_out) > 1)} {listed(contrast.left_out)}"
    return [f"Left out, because one run of the pair is missing: {seeds}."]


def _by_data_set(contrast: Contrast, spec: StudySpec) -> list[str]:
    """What the mean over several data sets is made of, whether they disagree, and what does not follow."""
    shown, apart = quantity_of(contrast.family, spec, contrast.cell.scale).difference, contrast.apart
    each = [
        f"{'-' if estimate.value is None else shown(contrast.own(estimate).value or 0.0)} on {name}"
        for name, estimate in contrast.by_data_set
    ]
    if contrast.contradictory:
        alike = "The data sets contradict each other, so the mean says little: read each on its own."
    elif apart is not None:
        alike = f"Its size differs: the 95 % intervals of {listed(apart)} do not overlap."
    else:
        alike = "That its size differs between them is not shown: their 95 % intervals overlap."
    return [
        f"It is the mean of {listed(each)}; {same_way(contrast)}. {alike}",
        "This is about these data sets; it does not say what happens on others.",
    ]


def same_way(contrast: Contrast) -> str:
    """In how many data sets the difference has the direction of their mean."""
    names = [name for name, _ in contrast.by_data_set]
    others = [name for name in names if name not in contrast.agreeing]
    if not others:
        return f"in the same direction on {'both' if len(names) == 2 else f'all {len(names)}'} data sets"
    return f"in the same direction on {len(contrast.agreeing)} of {len(names)} data sets, not on {listed(others)}"


def _measured(contrast: Contrast, spec: StudySpec) -> str:
    """The means, their difference with its intervals, and the number of runs."""
    quantity = quantity_of(contrast.family, spec, contrast.cell.scale)
    difference = shown_estimate(
        contrast.own(contrast.difference), f" {quantity.difference_unit}".rstrip(), quantity.difference
    )
    corrected = contrast.difference_corrected
    if corrected is not None and corrected.low is not None and corrected.level > contrast.difference.level + 1e-9:
        held = contrast.own(corrected)
        ends = interval(held.low, held.high, quantity.difference)
        level = f"{100 * held.level:.4g} %"
        difference = difference.replace(
            "95 % interval", f"{level} interval {ends} at the level of its test, 95 % interval"
        )
    n = [len(runs) for runs in contrast.runs]
    if contrast.design == "unpaired":
        runs = f"{listed(n)} runs" if len(set(n)) > 1 or len(n) == 2 else f"{n[0]} runs each"
    else:
        runs = f"{count(n[0], 'pair')} of runs by seed" if len(n) == 2 else f"{n[0]} runs each, paired by seed"
        if contrast.design == "paired within conditions":
            runs = f"{n[0]} and {n[-1]} pairs of runs by seed"
    means = " against ".join(quantity.mean(mean) for mean in contrast.own_means)
    if contrast.family == "trend":
        means = f"from {quantity.mean(contrast.own_means[0])} to {quantity.mean(contrast.own_means[-1])}"
        return f"Mean {quantity.name} {means}{quantity.unit}, slope per level {difference}, {runs}"
    if contrast.family == "interaction":
        a, b, c, d = (quantity.mean(mean) for mean in contrast.own_means)
        means = f"{a} against {b}{quantity.unit} in the one, {c} against {d}{quantity.unit} in the other"
        return f"Mean {quantity.name} {means}, difference of the differences {difference}, {runs}"
    return f"Mean {quantity.name} {means}{quantity.unit}, difference {difference}, {runs}"


def _tested(contrast: Contrast, spec: StudySpec) -> str:
    tests = contrast.tests
    if contrast.item.aim == "not worse":
        how = "one-sided t test against the margin"
    else:
        how = f"{tests.exact} {p_equals(tests.exact_p)}, {tests.t} {p_equals(tests.t_p)}; the larger counts"
    if contrast.corrected_p is None:
        claim = "not named before the runs, so it claims nothing"
        return f"{p_equals(tests.p)}, not corrected ({how}): {claim}"
    times = f" and for {_analyses(spec)}" if spending(spec.looks, spec.max_looks) > 1 else ""
    family = count(len(spec.primary), "comparison")
    return f"corrected {p_equals(contrast.corrected_p)} in one family of {family}{times} ({how})"


def _analyses(spec: StudySpec) -> str:
    """The analyses that a p-value is corrected for."""
    if spec.max_looks is None:
        return f"analysis {spec.looks} of an open number"
    return count(spec.max_looks, "analysis", "analyses")


def failed_words(cell: CellRuns) -> str:
    """``9 of 10 runs exploded``; "" where all trained."""
    kinds = Counter(run.kind for run in cell.runs if run.kind != "trained")
    each = [f"{n} of {len(cell.runs)} runs {FAILED[kind]}" for kind, n in kinds.items()]
    return listed(each) if each else ""


def _failures(contrast: Contrast) -> str:
    """Failed runs on both sides, with Fisher's test where it was asked."""
    failures = contrast.failures
    sides = (
        f"{failures.failed} of {failures.runs} runs failed against {failures.against_failed} of {failures.against_runs}"
    )
    p = contrast.p_of("failures")
    if p is None:
        return f"{sides} (Fisher's exact test {p_equals(failures.p)}, not corrected)."
    return f"{sides} (Fisher's exact test, corrected {p_equals(p)})."


def _undecided(contrast: Contrast, spec: StudySpec) -> str:
    seeds, again = more_seeds(contrast, spec)
    if contrast.failures.failed or contrast.failures.against_failed:
        reason = "Where runs fail, no equivalence is claimed. "
    else:
        reason = _excluded(contrast, spec)
    if contrast.samples.n < 2:
        needed = f"{count(seeds or 2, 'more seed')}" if again else f"a new study with {count(seeds or 2, 'seed')}"
        return f"{reason}One run shows no scatter: to decide it takes {needed} or more."
    if seeds is None:
        return f"{reason}Not even a thousand seeds would decide it, if difference and scatter stay as measured."
    if again:
        return f"{reason}About {count(seeds, 'more seed')} would decide it, if difference and scatter stay as measured."
    return (
        f"{reason}A new study with about {count(seeds, 'seed')} would decide it, if difference and scatter stay as "
        "measured; the analyses declared for this one are used up."
    )


def _excluded(contrast: Contrast, spec: StudySpec) -> str:
    """Why an interval without 0 stands beside "undecided"."""
    if contrast.item.aim == "not worse":
        return ""
    held = contrast.difference_corrected
    if held is not None and _without_0(held):
        return "The interval excludes 0, but a difference needs the other tests too, and not all of them agree. "
    if not _without_0(contrast.difference):
        return ""
    many = [count(len(spec.primary), "comparison")] if len(spec.primary) > 1 else []
    many += [_analyses(spec)] if spending(spec.looks, spec.max_looks) > 1 else []
    return f"The 95 % interval excludes 0, but it is not corrected{f' for {listed(many)}' if many else ''}. "


def _without_0(estimate: Estimate) -> bool:
    return estimate.low is not None and estimate.high is not None and not estimate.low <= 0 <= estimate.high


def _cause(contrast: Contrast, explanation: Explanation, spec: StudySpec) -> str:
    """What the worse cell is consistent with and why, and the cause that another comparison isolates."""
    worse, others, because = contrast.explained_cell, explanation.others, explanation.isolated
    trained = "lower" if contrast.label == "helps" else f"equivalent within {margin_words(contrast, spec)}"
    reasons: dict[Cause, str] = {
        "explosion": failed_words(worse),
        "vanishing": f"{failed_words(worse)}, and at initialisation the first layer receives "
        f"{significant(worse.gradient_ratio)} of the last layer's gradient (median)",
        "stuck": f"{failed_words(worse)}, and no vanishing gradient was measured",
        "instability": failed_words(worse),
        "optimisation": "its training loss itself is higher, and none of its runs failed",
        "overfitting": "the validation error is higher "
        f"({percent(contrast.val_means[0])} against {percent(contrast.val_means[1])}), the gap between validation and "
        f"training loss is larger (by {significant(contrast.gap_difference.value)}{worse.scale.unit}, corrected "
        f"{p_equals(contrast.p_of('overfitting'))}), and the training loss is {trained}",
    }
    where = "" if worse is contrast.cell else f" in {place(worse)}"
    text = f"Consistent with {CAUSES[explanation.cause]}{where}, because {reasons[explanation.cause]}."
    if others is not None:
        losses = f"{significant(others.mean)} against {significant(others.against_mean)}{worse.scale.unit}"
        text += f" The runs that trained reach {losses} alone ({p_equals(others.p)}, not planned)."
    if because is not None:
        text += (
            f" The study isolates a cause: with {because.setting} {because.value} instead of {because.other} and all "
            f"else equal it is better (corrected {p_equals(because.p)})."
        )
    return text


# --- one cell ---


def cell_words(item: CellVerdict, spec: StudySpec) -> str:
    """The training loss of a cell, why its runs did not train, and the comparison that judged it."""
    cell, scale = item.cell, item.cell.scale
    n, planned = len(cell.runs), len(cell.runs) + len(cell.missing)
    runs = f"mean of {count(n, 'run')}" + (f" of {planned} planned" if cell.missing else "")
    reached = f"training loss {shown_estimate(cell.loss, scale.unit)}, {runs}" if n else "no finished run"
    parts = [f"{capitalised(place(cell))}: {reached}."]
    exploded, vanished, chance = (cell.of_kind(kind) for kind in ("exploded", "vanished", "at chance"))
    if exploded:
        finite = [run.loss for run in exploded if math.isfinite(run.loss)]
        largest = f"; the largest finite one is {significant(max(finite))}" if finite else ""
        limit = f"2 {scale.guess} = {significant(2 * scale.chance)}"
        if scale.constant is not None:
            limit = f"twice {scale.guess}, {significant(scale.chance)}"
        parts.append(f"{len(exploded)} of {n} exploded: the loss is not finite or above {limit}{largest}.")
    if vanished or chance:
        guess = "the entropy of the labels" if scale.constant is None else scale.guess
        limit = f"at least {CHANCE_SHARE} of {guess}, {significant(scale.entropy)}"
        parts.append(f"{len(vanished) + len(chance)} of {n} stayed at chance: the loss is {limit}.")
    if vanished:
        ratio = f"the first layer receives {significant(cell.gradient_ratio)} of the last layer's gradient (median)"
        parts.append(f"In {len(vanished)} of them the signal vanishes: at initialisation {ratio}.")
    if any(run.capped < run.loss or not math.isfinite(run.loss) for run in cell.runs):
        parts.append(f"Losses above {scale.guess} = {significant(scale.chance)} count as that.")
    if item.contrast is not None:
        parts.append(comparison_words(item.contrast, spec))
    return " ".join(parts)


# --- names and numbers ---


def named(cell: CellRuns) -> str:
    """A condition inside a sentence: ``residual (He init, scaled branches)``; ``the network`` if there is only one."""
    name, _, rest = cell.label.partition(", ")
    return (f"{name} ({rest})" if rest else name) or "the network"


def versus(contrast: Contrast, spec: StudySpec) -> str:
    """The two sides of a comparison."""
    if contrast.by_data_set:
        return f"over {listed([name for name, _ in contrast.by_data_set])} together, {_versus(contrast, spec)}"
    return _versus(contrast, spec)


def _versus(contrast: Contrast, spec: StudySpec) -> str:
    if contrast.family == "depth":
        return f"{place(contrast.cell)} against {contrast.against.place}"
    if contrast.family == "trend":
        return f"{named(contrast.cell)} over all levels of the {spec.factor_name}"
    if contrast.family == "interaction":
        reference = spec.place(spec.reference_level)
        sides = f"in {named(contrast.cell)} against {named(contrast.against)}"
        return f"what {contrast.cell.place} changes against {reference}, {sides}"
    if contrast.family == "cells" and contrast.cell.level != contrast.against.level:
        return f"{place(contrast.cell)} against {place(contrast.against)}"
    return f"{named(contrast.cell)} against {named(contrast.against)} {contrast.cell.where}".rstrip()


def place(cell: CellRuns) -> str:
    """A cell inside a sentence: ``plain (He init) at depth 8``."""
    return f"{named(cell)} {cell.where}".rstrip() if cell.label else cell.place or "the network"


def shown_estimate(estimate: Estimate, unit: str = "", shown: Callable[[float], str] = significant) -> str:
    """``0.12 nats (95 % interval [0.11, 0.13])``."""
    ends = interval(estimate.low, estimate.high, shown)
    value = "-" if estimate.value is None else shown(estimate.value)
    return f"{value}{unit} (95 % interval {ends})" if ends else f"{value}{unit}"
