"""The first screen of a study's page: the answer, then a sentence per condition and per pair, then notes."""

from __future__ import annotations

from dataclasses import dataclass

from netdepth.errors import BadInput
from netdepth.report.data import StudyData
from netdepth.report.numbers import PREDICTIONS, Number, Numbers
from netdepth.runs.compare import mcnemar_of_runs
from netdepth.runs.folder import RunDir
from netdepth.stats.exact import McNemar
from netdepth.studies.comparison import Contrast
from netdepth.studies.judgements import said_of
from netdepth.studies.wording import named
from netdepth.text import count, listed, p_value, percent, thousands

__all__ = ["Line", "PageAnswer", "answer_of"]

MCNEMAR_LEVEL = 0.05


@dataclass(frozen=True)
class Line:
    """What is said of one condition (with its number, for its colour) or of one pair."""

    name: str
    index: int | None
    said: Number


@dataclass(frozen=True)
class PageAnswer:
    """``short``: the answer. ``lines``: depth per condition, then pairs. ``primary``: the comparisons named
    beforehand, in full. ``notes``: what a reader must know beside them. ``same_images``: pairs of runs on them."""

    short: Number
    lines: tuple[Line, ...] = ()
    primary: tuple[Number, ...] = ()
    notes: tuple[Number, ...] = ()
    same_images: tuple[Number, ...] = ()


def answer_of(data: StudyData, numbers: Numbers) -> PageAnswer:
    """The verdict's sentences in the order of the page, each with the runs it rests on."""
    found = data.verdict
    if found is None:
        nothing = "No run of this study has begun, so there is no answer yet."
        return PageAnswer(numbers.said(nothing, numbers.everything))
    lines = [
        Line(it.subject, index if it.kind == "condition" else None, numbers.said(it.words, numbers.resting_on(it)))
        for index, it in enumerate((*found.of_kind("condition"), *found.of_kind("pair")))
    ]
    primary = [numbers.said(s.text, numbers.resting_on(s)) for s in found.of_kind("comparison")]
    texts = [sentence.text for sentence in found.of_kind("missing", "interim analysis", "nuisance")]
    notes = [
        numbers.said(text, numbers.everything)
        for text in (*texts, *said_of(data.earlier, data.spec), *found.warnings, *_of_data(data), *_other_run(data))
    ]
    short = numbers.said(found.answer, numbers.everything)
    return PageAnswer(short, tuple(lines), tuple(primary), tuple(notes), tuple(_same_images(data, numbers)))


def _of_data(data: StudyData) -> list[str]:
    """What makes the numbers on the study's data look better, or other, than they are."""
    splits = [run.row.made.split for run in data.runs]
    return list(dict.fromkeys(f"{text}." for split in splits if split is not None for text in split.warnings))


def _other_run(data: StudyData) -> list[str]:
    """The run that the networks of the study started from or learned from."""
    run = data.study.document.source
    if run is None:
        return []
    taught = any("teacher" in cell.config.objective.args for cell in data.spec.cells)
    tested = "" if run.test_error is None else f", test error {percent(run.test_error)}"
    sizes = sorted({int(count) for run in data.runs if (count := run.row.made.num_params) is not None})
    size = f"; the networks of this study have {listed([thousands(n) for n in sizes], 'or')}" if sizes else ""
    return [
        f"The {'teacher' if taught else 'parent run'} is {run.run} on {run.dataset} ({run.weights} weights, "
        f"validation error {percent(run.val_error)}{tested}), with {thousands(run.num_params)} parameters{size}."
    ]


def _same_images(data: StudyData, numbers: Numbers) -> list[Number]:
    """McNemar's exact test of every pair of runs on the same test images, from their ``predictions.npz``."""
    contrasts = data.verdict.contrasts if data.verdict is not None else ()
    said = []
    for contrast in contrasts:
        if contrast.primary and contrast.family == "condition" and (tests := _mcnemar(data, contrast)):
            said.append(numbers.said(_mcnemar_words(contrast, tests), numbers.compared(contrast), PREDICTIONS))
    return said


def _mcnemar(data: StudyData, contrast: Contrast) -> list[McNemar]:
    found = []
    sides = [{(run.seed, i): name for run in runs for i, name in enumerate(run.folders)} for runs in contrast.runs]
    for key in [key for key in sides[0] if key in sides[1]]:
        left, right = (RunDir(data.study.path / side[key]) for side in sides[:2])
        try:
            found.append(mcnemar_of_runs(left, right))
        except BadInput:  # a run that diverged has no predictions, a published folder keeps none
            continue
    return found


def _mcnemar_words(contrast: Contrast, tests: list[McNemar]) -> str:
    left, right = named(contrast.cell), named(contrast.against)
    more, less = [t for t in tests if t.first > t.second], [t for t in tests if t.second > t.first]
    clear_more, clear_less = (sum(test.p <= MCNEMAR_LEVEL for test in some) for some in (more, less))
    ends = list(dict.fromkeys([p_value(min(test.p for test in tests)), p_value(max(test.p for test in tests))]))
    p_values = f"the p-values range from {' to '.join(ends)}" if len(ends) > 1 else f"every p-value is {ends[0]}"
    return (
        f"On the same {thousands(tests[0].n)} images, {left} is right more often than {right} in {len(more)} of "
        f"{count(len(tests), 'pair')} of runs. By McNemar's exact test (p <= {MCNEMAR_LEVEL}) it is clearly better in "
        f"{clear_more} and clearly worse in {clear_less}; {p_values}."
    )
