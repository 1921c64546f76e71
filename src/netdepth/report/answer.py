"""The first screen of a study's page: the answer in one sentence, then per condition, then what to know beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from netdepth.report.data import StudyData
from netdepth.report.mcnemar import answers_compared
from netdepth.report.numbers import Number
from netdepth.report.sources import Numbers
from netdepth.studies.contrasts import Cause, Contrast, Label
from netdepth.studies.verdict import CellVerdict, Verdict

__all__ = ["Answer", "Line", "answer_of", "in_short"]

HARMED: tuple[Label, ...] = ("exploded", "vanished", "degraded")
REASONS: dict[Cause, str] = {
    "explosion": "explodes {0}",
    "vanishing": "loses its signal {0}",
    "stuck": "stays at chance {0}",
    "mixed": "loses some of its runs {0}",
    "optimisation": "is harder to train {0}",
}


@dataclass(frozen=True)
class Line:
    """What is said of one condition (with its number, for its colour) or of one pair."""

    name: str
    index: int | None
    said: Number


@dataclass(frozen=True)
class Answer:
    """``short``: one sentence. ``lines``: depth per condition, then shortcuts. ``primary``: the comparisons named
    beforehand, in full. ``notes``: what a reader must know beside them."""

    short: Number
    lines: tuple[Line, ...]
    primary: tuple[Number, ...]
    notes: tuple[Number, ...]


def answer_of(data: StudyData, numbers: Numbers) -> Answer:
    """The verdict's sentences in the order of the page, each with the runs it rests on."""
    found = data.verdict
    if found is None:
        nothing = "No run of this study has begun, so there is no answer yet."
        return Answer(numbers.said(nothing, numbers.everything), (), (), ())
    short = numbers.said(in_short(found), numbers.everything)
    texts = [sentence.text for sentence in found.sentences]
    if not found.judged:
        return Answer(short, (), (), tuple(numbers.said(text, numbers.everything) for text in texts))
    conditions = data.spec.conditions
    named = [contrast for contrast in found.contrasts if contrast.primary]
    paired = [contrast for contrast in named if contrast.family != "depth"]
    pairs = list(dict.fromkeys((c.cell.condition, c.against.condition) for c in paired))
    depth_runs, pair_runs = numbers.family("depth"), (*numbers.family("shortcut"), *numbers.family("condition"))
    lines = []
    for index, name in enumerate(conditions):
        own = [run.number for depth in data.spec.depths for run in data.cells[name, depth]]
        text = texts.pop(0).removeprefix(f"{name or 'depth'}: ")
        lines.append(Line(name or "depth", index, numbers.said(text, {*own, *depth_runs})))
    for left, right in pairs:
        title = f"{left} against {right}"
        lines.append(Line(title, None, numbers.said(texts.pop(0).removeprefix(f"{title}: "), pair_runs)))
    primary = [
        numbers.said(texts.pop(0), {*numbers.compared(contrast), *numbers.family(contrast.family)})
        for contrast in named
    ]
    notes = [numbers.said(text, numbers.everything) for text in (*texts, *found.warnings, *_of_source(data))]
    notes += [numbers.predicted(said.text, said.runs) for said in answers_compared(data)]
    return Answer(short, tuple(lines), tuple(primary), tuple(notes))


def in_short(found: Verdict) -> str:
    """What the study claims, in a sentence or three: what depth does and why, then what the shortcut does."""
    if not found.judged:
        return "No verdict: the runs of this study may stop early, so its depths had different budgets."
    said = _of_ways(found) if found.by_validation else [*_of_depth(found), *_of_shortcuts(found)]
    parts = said or ["no comparison was named beforehand, so nothing is claimed"]
    first, *others = parts if not found.complete else [_capital(parts[0]), *parts[1:]]
    lead = "" if found.complete else "So far: "
    return f"{lead}{'. '.join([first, *map(_capital, others)])}."


def _of_depth(found: Verdict) -> list[str]:
    """In how many conditions depth does harm, why, and in how many it helps."""
    conditions: dict[str, list[CellVerdict]] = {}
    for item in found.cells:
        conditions.setdefault(item.cell.condition, []).append(item)
    harmed = [items for items in conditions.values() if any(item.label in HARMED for item in items)]
    helped = [items for items in conditions.values() if any(item.label == "helps" for item in items)]
    if not harmed and not helped:
        labels = {item.label for items in conditions.values() for item in items} - {"reference", "exploratory"}
        if not labels:
            return []
        return [
            "depth makes no difference that matters" if labels == {"no_evidence"} else "what depth does is undecided"
        ]
    total = len(conditions)
    parts = [f"depth does harm {_in(len(harmed), total)}"] if harmed else []
    parts += [f"{'it' if harmed else 'depth'} helps {_in(len(helped), total)}"] if helped else []
    text = " and ".join(part.strip() for part in parts)
    hits = {
        cause: sum(any(item.cause == cause and item.label in HARMED for item in items) for items in harmed)
        for cause in REASONS
    }
    places = {cause: _in(n, total).removesuffix(" conditions") for cause, n in hits.items()}
    reasons = [words.format(places[cause]).strip() for cause, words in REASONS.items() if hits[cause]]
    if reasons:
        text += f": the network {_listed(reasons)}"
    return [text, "the harm is on the training data, so it is not overfitting"] if harmed else [text]


def _of_shortcuts(found: Verdict) -> list[str]:
    """Where one condition trains better or worse than its twin."""
    pairs: dict[tuple[str, str], list[Contrast]] = {}
    for contrast in found.contrasts:
        if contrast.primary and contrast.family == "shortcut":
            pairs.setdefault((contrast.cell.condition, contrast.against.condition), []).append(contrast)
    said = []
    for (left, right), contrasts in pairs.items():
        for label, word in (("helps", "better"), ("degraded", "worse")):
            depths = [str(contrast.cell.depth) for contrast in contrasts if contrast.label == label]
            if depths:
                where = f"depth{'s' * (len(depths) > 1)} {_listed(depths)}"
                said.append(f"at {where}, {left} trains {word} than {right}")
        if not any(contrast.label in ("helps", "degraded") for contrast in contrasts):
            if all(contrast.label == "no_evidence" for contrast in contrasts):
                said.append(f"{left} is no different from {right}")
            else:
                said.append(f"whether {left} trains better than {right} is undecided")
    return said


def _of_ways(found: Verdict) -> list[str]:
    """Which way of training wins against which."""
    said = []
    words = {"helps": "beats", "degraded": "loses to", "no_evidence": "is no different from"}
    for contrast in found.contrasts:
        if contrast.primary and contrast.family == "condition":
            left, right = contrast.cell.condition, contrast.against.condition
            word = words.get(contrast.label)
            text = f"{left} {word} {right}" if word else f"whether {left} beats {right} is undecided"
            a, b = (f"{100 * mean:.2f} %" if mean is not None else "unknown" for mean in contrast.means)
            said.append(
                f"{text} (validation error {a} against {b}, p {_p(contrast.corrected_p)}, n {len(contrast.runs[0])})"
            )
    return said


def _of_source(data: StudyData) -> list[str]:
    """The run that others started from or learned from."""
    source = data.study.document.source
    if source is None:
        return []
    tested = "" if source.test_error is None else f", test error {100 * source.test_error:.2f} %"
    sizes = sorted({int(run.row["num_params"]) for run in data.runs if run.row["num_params"] is not None})
    size = f"; the networks of this study have {' or '.join(f'{n:,}' for n in sizes)}" if sizes else ""
    return [
        f"The source is {source.run} on {source.dataset} ({source.weights} weights, validation error "
        f"{100 * source.val_error:.2f} %{tested}), with {source.num_params:,} parameters{size}."
    ]


def _p(p: float | None) -> str:
    return "unknown" if p is None else "< 0.0001" if p < 0.0001 else f"= {p:.2g}"


def _in(n: int, total: int) -> str:
    if total == 1:
        return ""
    return (
        f"in {'both' if total == 2 else f'all {total}'} conditions" if n == total else f"in {n} of {total} conditions"
    )


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
