"""The numbers of a study's page, each with where it comes from: the runs and the ``file:field`` it was made of.

Runs are named by their place in the plan, 1, 2, ..., which the page's list of runs translates into
folders. Two kinds are told apart. A ``value`` (a loss, a mean, the end of an interval) moves whenever
one of its sources does. A ``test`` (a p-value, a label, a sentence) depends on its sources and on
nothing else, but may well stay the same when one of them moves.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Literal

from netdepth.report.data import StudyData, StudyRun
from netdepth.stats.intervals import Estimate
from netdepth.studies.cells import ACCURACY, LOSS, RATIO, VAL_LOSS, CellRuns, source_of_score
from netdepth.studies.comparison import CellVerdict, Contrast
from netdepth.studies.sentences import Sentence
from netdepth.studies.table import SOURCES
from netdepth.studies.wording import quantity_of
from netdepth.text import NO_BREAK, gradient_ratio, p_value, percent, points, significant, thousands

__all__ = [
    "PREDICTIONS", "STATUS", "Element", "Number", "Numbers", "Shown", "read_numbers", "run_numbers", "run_ranges",
    "shown_estimate", "shown_interval", "shown_text",
]  # fmt: skip

Kind = Literal["value", "test"]


@dataclass(frozen=True)
class Number:
    """``text`` as shown and ``value`` as computed, made of ``fields`` (``file:field``) of ``runs`` (their numbers)."""

    text: str
    value: float | int | str | None
    runs: tuple[int, ...]
    fields: tuple[str, ...]
    kind: Kind = "value"
    tag: Literal["data", "span"] = "data"

    @property
    def ranges(self) -> str:
        """Its runs as `run_ranges`."""
        return run_ranges(self.runs)

    @property
    def exact(self) -> str:
        """Its value with every digit, so that the smallest change shows."""
        return "" if self.value is None else str(self.value)

    def __str__(self) -> str:
        return self.text


def run_ranges(runs: Iterable[int]) -> str:
    """``1-3,7`` for 7, 3, 1, 2."""
    parts: list[list[int]] = []
    for number in sorted(set(runs)):
        if parts and parts[-1][1] == number - 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in parts)


def run_numbers(ranges: str) -> set[int]:
    """The inverse of `run_ranges`."""
    ends = [part.partition("-") for part in ranges.split(",") if part]
    return {number for low, _, high in ends for number in range(int(low), int(high or low) + 1)}


Shown = Sequence["Number | str"]
"""What a cell of a table shows: numbers and the text between them."""


def shown_text(cell: Shown) -> str:
    """``cell`` as plain text, for a terminal or Markdown."""
    return "".join(map(str, cell)).replace(NO_BREAK, " ")


STATUS = SOURCES["status"]
LOSSES, ERRORS, RATIOS = (SOURCES[LOSS], STATUS), (SOURCES[ACCURACY], STATUS), (SOURCES[RATIO],)
JUDGED = (SOURCES[LOSS], SOURCES[ACCURACY], SOURCES[VAL_LOSS], SOURCES[RATIO], STATUS)
PREDICTIONS = ("predictions.npz:logits", "predictions.npz:labels")


Sort = Literal["loss", "percent", "points"]
FORMATS: dict[Sort, tuple[Callable[..., str], Callable[..., str]]] = {
    "loss": (significant, significant),
    "percent": (percent, points),
    "points": (points, points),
}
"""How a value is shown and how an end of its interval is, which does not repeat the unit."""


def shown_estimate(
    estimate: Estimate,
    runs: tuple[int, ...],
    fields: tuple[str, ...],
    sort: Sort,
    sign: bool = False,
    kind: Kind = "value",
) -> list[Number | str]:
    """``value [low, high]``; ``kind`` is that of the value, the ends of an interval move with every run."""
    shown: list[Number | str] = ["-"]
    if estimate.value is not None:
        shown = [Number(FORMATS[sort][0](estimate.value, sign=sign), estimate.value, runs, fields, kind)]
    return [*shown, *([" ", *ends] if (ends := shown_interval(estimate, runs, fields, sort, sign)) else [])]


def shown_interval(
    estimate: Estimate,
    runs: tuple[int, ...],
    fields: tuple[str, ...],
    sort: Sort,
    sign: bool = False,
    kind: Kind = "value",
) -> list[Number | str]:
    """``[low, high]``; nothing where there is none."""
    if estimate.low is None or estimate.high is None:
        return []
    ends = (estimate.low, estimate.high)
    low, high = (Number(FORMATS[sort][1](end, sign=sign), end, runs, fields, kind) for end in ends)
    return ["[", low, f",{NO_BREAK}", high, "]"]


class Numbers:
    """Makes `Number` of what the verdict of ``data`` holds."""

    def __init__(self, data: StudyData) -> None:
        self.data = data
        self.everything = tuple(run.number for run in data.runs)
        contrasts = data.verdict.contrasts if data.verdict is not None else ()
        metric = data.spec.metric
        self.judged = JUDGED if metric is None else tuple(dict.fromkeys((*JUDGED, _source(metric))))
        """All that labels and corrected p-values look at."""
        self.family = tuple(sorted({n for contrast in contrasts if contrast.primary for n in self.counted(contrast)}))
        """The runs of all comparisons named beforehand: the correction looks at all of them."""

    # --- which runs ---

    def planned(self, condition: str, level: str) -> tuple[int, ...]:
        """All planned runs of a cell."""
        return tuple(run.number for run in self.data.cells[condition, level])

    def of_cell(self, cell: CellRuns) -> tuple[int, ...]:
        """The finished runs of a cell."""
        return self.data.numbers(cell.runs)

    def compared(self, contrast: Contrast) -> tuple[int, ...]:
        """The runs of both sides."""
        return self.data.numbers(run for runs in contrast.runs for run in runs)

    def counted(self, contrast: Contrast) -> tuple[int, ...]:
        """The runs of both cells, also those without a partner: their failures are counted."""
        cells = (*self.of_cell(contrast.cell), *self.of_cell(contrast.against))
        return tuple(sorted({*self.compared(contrast), *cells}))

    def resting_on(self, sentence: Sentence) -> set[int]:
        """The runs of what a sentence is about, and those of the families that its corrected p-values look at."""
        cells = [item.cell for item in sentence.cells]
        found = {number for cell in cells for number in self.planned(cell.condition, cell.level)}
        if sentence.kind == "condition":
            found |= {*self.family}
        for contrast in sentence.contrasts:
            found |= {*self.counted(contrast), *self.family}
        return found

    # --- numbers ---

    def count(self, of: Iterable[StudyRun], among: Iterable[StudyRun]) -> Number:
        """How many runs ``of`` a status there are ``among`` others: each of them might have had it."""
        n = len(list(of))
        return Number(thousands(n), n, tuple(run.number for run in among), (STATUS,), "test")

    def loss(self, cell: CellRuns) -> list[Number | str]:
        """The mean training loss with its interval."""
        return shown_estimate(cell.loss, self.of_cell(cell), LOSSES, "loss")

    def compared_value(self, cell: CellRuns) -> list[Number | str]:
        """The mean of what the levels of a study are judged by, with its interval."""
        spec = self.data.spec
        if spec.metric is None:
            return self.loss(cell)
        sort: Sort = "percent" if quantity_of("depth", spec, cell.scale).per_unit == 100 else "loss"
        return shown_estimate(cell.metric, self.of_cell(cell), (_source(spec.metric), STATUS), sort)

    def measured(self, cell: CellRuns) -> Number:
        """The median training loss as measured, not capped; a run that diverged lies above all others."""
        losses = [run.loss if math.isfinite(run.loss) else math.inf for run in cell.runs]
        value = statistics.median(losses)
        return Number(significant(value), value, self.of_cell(cell), LOSSES, "test")

    def val_error(self, cell: CellRuns) -> list[Number | str]:
        """The mean validation error with its interval."""
        return shown_estimate(cell.val_error, self.of_cell(cell), ERRORS, "percent")

    def ratio(self, cell: CellRuns) -> Number:
        """First-to-last gradient ratio at initialisation: the median of the seeds."""
        value = cell.gradient_ratio
        return Number(gradient_ratio(value), value, self.of_cell(cell), RATIOS, "test")

    def difference(self, contrast: Contrast) -> list[Number | str]:
        """The difference of what is judged, with its 95 % interval."""
        fields, sort = self._decided_by(contrast), self._sort(contrast)
        return shown_estimate(contrast.own(contrast.difference), self.compared(contrast), fields, sort, sign=True)

    def corrected_interval(self, contrast: Contrast) -> list[Number | str]:
        """Its interval at the level that its test was held against, and that level."""
        held = contrast.difference_corrected
        if held is None or held.low is None:
            return ["-"]
        sort = self._sort(contrast)
        ends = shown_interval(contrast.own(held), self.family, self.judged, sort, sign=True, kind="test")
        return [*ends, " at ", Number(f"{100 * held.level:.4g} %", held.level, self.family, self.judged, "test")]

    def val_difference(self, contrast: Contrast) -> list[Number | str]:
        """The difference of the validation errors, with its 95 % interval."""
        return shown_estimate(contrast.val_difference, self.compared(contrast), ERRORS, "points", sign=True)

    def p(self, contrast: Contrast, of: Literal["exact", "t"]) -> Number:
        """The p-value of the exact test or of the t test, not corrected."""
        value = contrast.tests.exact_p if of == "exact" else contrast.tests.t_p
        return Number(p_value(value), value, self.compared(contrast), self._decided_by(contrast), "test")

    def corrected_p(self, contrast: Contrast) -> Number | str:
        """The corrected p-value of what is claimed: of the equivalence, or else of the difference."""
        value = contrast.p_of("equivalence" if contrast.label == "equivalent" else "difference")
        return "-" if value is None else Number(p_value(value), value, self.family, self.judged, "test")

    def failed(self, contrast: Contrast) -> list[Number | str]:
        """The failed runs of both sides; ``-`` where none failed."""
        failures, runs = contrast.failures, self.counted(contrast)
        if not failures.failed and not failures.against_failed:
            return ["-"]
        one, other = (Number(str(n), n, runs, LOSSES, "test") for n in (failures.failed, failures.against_failed))
        return [one, f" of {failures.runs}, ", other, f" of {failures.against_runs}"]

    def _decided_by(self, contrast: Contrast) -> tuple[str, ...]:
        if self.data.spec.metric is not None:
            return (_source(self.data.spec.metric), STATUS)
        return ERRORS if contrast.family == "condition" else LOSSES

    def _sort(self, contrast: Contrast) -> Sort:
        quantity = quantity_of(contrast.family, self.data.spec, contrast.cell.scale)
        return "points" if quantity.per_unit == 100 else "loss"

    def sizes(self, contrast: Contrast) -> list[Number | str]:
        """How many runs, or pairs of runs, are compared."""
        both = self.planned(contrast.cell.condition, contrast.cell.level)
        both += self.planned(contrast.against.condition, contrast.against.level)
        sizes = [Number(str(len(runs)), len(runs), both, (STATUS,), "test") for runs in contrast.runs]
        if contrast.design != "unpaired":
            return [sizes[0], f"{NO_BREAK}pairs" if len(sizes) == 2 else f"{NO_BREAK}seeds"]
        shown: list[Number | str] = [sizes[0]]
        for size in sizes[1:]:
            shown += [f"{NO_BREAK}+{NO_BREAK}", size]
        return shown

    def said(self, text: str, runs: Iterable[int], fields: tuple[str, ...] | None = None) -> Number:
        """Words with numbers in them, which rest on ``fields``: on all that a verdict looks at unless given."""
        return Number(text, None, tuple(sorted(set(runs))), fields or self.judged, "test", "span")

    def label(self, item: CellVerdict, word: str) -> Number:
        """What a cell is called: its own runs, and those of the family that its corrected p-value looks at."""
        return self.said(word, {*self.of_cell(item.cell), *self.family})

    def contrast_label(self, contrast: Contrast, word: str) -> Number:
        """What a comparison found."""
        return self.said(word, {*self.counted(contrast), *(self.family if contrast.primary else ())})

    def of_run(self, run: StudyRun, column: str, sort: Literal["loss", "percent", "plain"]) -> Number | str:
        """A column of numbers for one run; an ``…accuracy`` is shown as the error that it leaves."""
        value = run.row.made.value(column)
        if value is None or isinstance(value, str):
            return "-"
        if column.endswith("accuracy"):
            value = 1 - value
        text = {"loss": significant, "percent": percent, "plain": _plain}[sort](value)
        return Number(text, value, (run.number,), (SOURCES[column],))


def _source(metric: str) -> str:
    return SOURCES.get(metric) or source_of_score(metric)


def _plain(value: float) -> str:
    return thousands(value, 0 if float(value).is_integer() else 1)


@dataclass
class Element:
    """An element of a page that names its sources, as it is read back: a number, words, or a figure."""

    tag: str
    kind: str | None
    value: str | None
    runs: set[int]
    fields: tuple[str, ...]
    text: str = ""


class _Reader(HTMLParser):
    """Collects every element that names its sources, in the order of the page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Element] = []
        self.open: list[tuple[str, Element | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given, element = dict(attrs), None
        if "data-fields" in given:
            runs, fields = run_numbers(given["data-runs"] or ""), tuple((given["data-fields"] or "").split())
            element = Element(tag, given["data-kind"], given.get("value"), runs, fields)
            self.found.append(element)
        self.open.append((tag, element))

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop()[0] != tag:
            pass  # an element without an end, such as <meta>

    def handle_data(self, data: str) -> None:
        for _, element in self.open:
            if element is not None:
                element.text += data


def read_numbers(page: str) -> list[Element]:
    """Every element of a page that names its sources, in the order of the page."""
    reader = _Reader()
    reader.feed(page)
    return reader.found
