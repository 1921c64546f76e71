"""The numbers of a study's page, each made with the runs and fields it rests on."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Literal

from netdepth.report.data import Run, StudyData
from netdepth.report.numbers import Kind, Number, shown_loss, shown_p, shown_percent
from netdepth.stats.intervals import Estimate
from netdepth.studies.cells import ACCURACY, LOSS, RATIO, CellRuns
from netdepth.studies.contrasts import Contrast
from netdepth.studies.table import SOURCES
from netdepth.studies.verdict import CellVerdict
from netdepth.studyspec import Family

__all__ = ["Numbers", "Shown"]

Shown = Sequence["Number | str"]
"""What a cell of a table shows: numbers and the text between them."""

STATUS = SOURCES["status"]
LOSSES, ERRORS, RATIOS = (SOURCES[LOSS], STATUS), (SOURCES[ACCURACY], STATUS), (SOURCES[RATIO],)
NO_BREAK = "\N{NO-BREAK SPACE}"
JUDGED = (SOURCES[LOSS], SOURCES[ACCURACY], SOURCES[RATIO], STATUS)


PREDICTIONS = ("predictions.npz:logits", "predictions.npz:labels")


def _decided_by(contrast: Contrast) -> tuple[str, ...]:
    return ERRORS if contrast.family == "condition" else LOSSES


class Numbers:
    """Makes `Number` of what the verdict of ``data`` holds."""

    def __init__(self, data: StudyData) -> None:
        self.data = data
        self.everything = tuple(run.number for run in data.runs)
        found = data.verdict.contrasts if data.verdict is not None else ()
        self._families: dict[Family, tuple[int, ...]] = {}
        for contrast in found:
            if contrast.primary:
                both = self.compared(contrast)
                self._families[contrast.family] = tuple(sorted({*self._families.get(contrast.family, ()), *both}))

    # --- which runs ---

    def planned(self, condition: str, depth: int) -> tuple[int, ...]:
        """All planned runs of a cell."""
        return tuple(run.number for run in self.data.cells[condition, depth])

    def of_cell(self, cell: CellRuns) -> tuple[int, ...]:
        """The finished runs of a cell."""
        return self.data.numbers(cell.runs)

    def compared(self, contrast: Contrast) -> tuple[int, ...]:
        """The runs of both sides."""
        return self.data.numbers(run for runs in contrast.runs for run in runs)

    def family(self, family: Family) -> tuple[int, ...]:
        """The runs of all comparisons named beforehand in a family: Holm's correction looks at all of them."""
        return self._families.get(family, ())

    # --- numbers ---

    def count(self, of: Iterable[Run], among: Iterable[Run]) -> Number:
        """How many runs ``of`` a status there are ``among`` others: each of them might have had it."""
        n = len(list(of))
        return Number(f"{n:,}", n, tuple(run.number for run in among), (STATUS,), "test")

    def loss(self, cell: CellRuns) -> list[Number | str]:
        """The mean training loss with its interval."""
        return self._estimate(cell.loss, self.of_cell(cell), LOSSES, "loss")

    def measured(self, cell: CellRuns) -> Number:
        """The median training loss as measured, not capped; a run that diverged lies above all others."""
        losses = [run.loss if math.isfinite(run.loss) else math.inf for run in cell.runs]
        value = statistics.median(losses)
        return Number(shown_loss(value), value, self.of_cell(cell), LOSSES, "test")

    def val_error(self, cell: CellRuns) -> list[Number | str]:
        """The mean validation error with its interval."""
        return self._estimate(cell.val_error, self.of_cell(cell), ERRORS, "percent")

    def ratio(self, cell: CellRuns) -> Number:
        """First-to-last gradient ratio at initialisation: the median of the seeds."""
        value = cell.gradient_ratio
        text = "-" if value is None else f"{value:.1e}" if not 0.001 <= value < 1000 else f"{value:.3g}"
        return Number(text, value, self.of_cell(cell), RATIOS, "test")

    def difference(self, contrast: Contrast, sort: Literal["loss", "percent"]) -> list[Number | str]:
        """A difference of training losses, or of validation errors, with its interval."""
        estimate = contrast.difference if sort == "loss" else contrast.val_difference
        fields = LOSSES if sort == "loss" else ERRORS
        return self._estimate(estimate, self.compared(contrast), fields, sort, sign=True)

    def p(self, contrast: Contrast) -> Number:
        """The exact p-value, not corrected."""
        return Number(shown_p(contrast.p), contrast.p, self.compared(contrast), _decided_by(contrast), "test")

    def corrected_p(self, contrast: Contrast, validation: bool = False) -> Number | str:
        """The p-value corrected over its family; of the validation error if asked."""
        value = contrast.val_corrected_p if validation else contrast.corrected_p
        if value is None:
            return "-"
        fields = ERRORS if validation else _decided_by(contrast)
        return Number(shown_p(value), value, self.family(contrast.family), fields, "test")

    def sizes(self, contrast: Contrast) -> list[Number | str]:
        """How many runs, or pairs of runs, are compared."""
        left, right = contrast.runs
        both = self.planned(contrast.cell.condition, contrast.cell.depth)
        both += self.planned(contrast.against.condition, contrast.against.depth)
        numbers = [Number(str(n), n, both, (STATUS,), "test") for n in (len(left), len(right))]
        if contrast.family != "depth":
            return [numbers[0], f"{NO_BREAK}pairs"]
        return [numbers[0], f"{NO_BREAK}+{NO_BREAK}", numbers[1]]

    def said(self, text: str, runs: Iterable[int]) -> Number:
        """Words with numbers in them, which rest on all that a verdict looks at."""
        return Number(text, None, tuple(sorted(set(runs))), JUDGED, "test", "span")

    def predicted(self, text: str, runs: Iterable[int]) -> Number:
        """Words that rest on what runs said of every image they were evaluated on."""
        return Number(text, None, tuple(sorted(set(runs))), PREDICTIONS, "test", "span")

    def label(self, item: CellVerdict, word: str) -> Number:
        """What a cell is called: its own runs, and those of the family that its corrected p-value looks at."""
        return self.said(word, {*self.of_cell(item.cell), *self.family("depth"), *self.family("condition")})

    def contrast_label(self, contrast: Contrast, word: str) -> Number:
        """What a comparison found."""
        return self.said(word, {*self.compared(contrast), *(self.family(contrast.family) if contrast.primary else ())})

    def of_run(self, run: Run, column: str, sort: Literal["loss", "percent", "plain"]) -> Number | str:
        """A column of the table for one run; an ``…accuracy`` is shown as the error that it leaves."""
        value = run.row[column]
        if value is None:
            return "-"
        if column.endswith("accuracy"):
            value = 1 - value
        text = {"loss": shown_loss, "percent": shown_percent, "plain": _plain}[sort](value)
        return Number(text, value, (run.number,), (SOURCES[column],))

    def _estimate(
        self,
        estimate: Estimate,
        runs: tuple[int, ...],
        fields: tuple[str, ...],
        sort: Literal["loss", "percent"],
        sign: bool = False,
        kind: Kind = "value",
    ) -> list[Number | str]:
        """``value [low, high]``."""
        show = shown_loss if sort == "loss" else shown_percent
        if estimate.value is None:
            return ["-"]
        value = Number(show(estimate.value, sign), estimate.value, runs, fields, kind)
        if estimate.low is None or estimate.high is None:
            return [value]
        texts = [show(end, sign).removesuffix(" %") for end in (estimate.low, estimate.high)]
        low, high = (
            Number(text, end, runs, fields, kind)
            for text, end in zip(texts, (estimate.low, estimate.high), strict=True)
        )
        return [value, " [", low, f",{NO_BREAK}", high, "]"]


def _plain(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"
