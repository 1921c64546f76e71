"""The verdict of a study: a pure function of its table and of its `StudySpec`.

1. The runs are sorted into cells; losses are capped, exploded and vanished runs are counted (`cells`).
2. Every comparison named before the runs is tested (`contrasts`). All of a study's tests are one family, corrected
   together (`stats.family`): the probability that it claims anything false is 0.05 at most.
3. A label follows from the tests, what it is consistent with from the numbers (`causes`), and `sentences` words them.
   All other comparisons are shown without a claim.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from netdepth.config import SCHEMA, Json
from netdepth.files.atomic import jsonable
from netdepth.studies import sentences as words
from netdepth.studies.causes import explained
from netdepth.studies.cells import ACCURACY, LOSS, RATIO, CellRun, CellRuns, Scale, cells_of, fields_of
from netdepth.studies.combined import combined_cells
from netdepth.studies.comparison import CLAIMS, CellVerdict, Contrast
from netdepth.studies.contrasts import contrasts_of, judge_cell
from netdepth.studies.reach import more_seeds, out_of_reach
from netdepth.studies.samples import LEVEL
from netdepth.studies.sentences import Kind, Sentence
from netdepth.studies.wording import cell_words, comparison_words
from netdepth.studyspec import DEPTH, StudySpec, level_json

if TYPE_CHECKING:
    import pandas

__all__ = ["Verdict", "verdict"]


@dataclass(frozen=True)
class Verdict:
    """The verdict on ``spec``: a label per cell, the comparisons with their tests, and sentences.

    ``scale`` is None where cells have different data; each has its own.
    ``fields`` has for each column of the table the ``file:field`` of a run's folder that it comes from.
    """

    spec: StudySpec
    scale: Scale | None
    fields: Mapping[str, str]
    cells: tuple[CellVerdict, ...]
    contrasts: tuple[Contrast, ...]
    sentences: tuple[Sentence, ...]

    @property
    def judged(self) -> bool:
        """False for a study with early stopping."""
        return not self.spec.early_stopping

    @property
    def complete(self) -> bool:
        """Whether every planned run has a result."""
        return not any(item.cell.missing for item in self.cells)

    @property
    def claims(self) -> tuple[Contrast, ...]:
        """The comparisons that claim something."""
        return tuple(contrast for contrast in self.contrasts if contrast.label in CLAIMS)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the planned seeds cannot show, for any results."""
        return tuple(out_of_reach(self.spec))

    @property
    def answer(self) -> str:
        """The answer to the study's question in a few sentences."""
        parts = [part.text for part in words.answer_of(self.cells, self.contrasts, self.spec)]
        return " ".join(parts if self.complete else ["So far:", *parts])

    def of_kind(self, *kinds: Kind) -> tuple[Sentence, ...]:
        """The sentences of some kinds, in their order."""
        return tuple(sentence for sentence in self.sentences if sentence.kind in kinds)

    def as_json(self) -> Mapping[str, Json]:
        """``verdict.json``: plain values; NaN and Inf as null, named under ``nonfinite``."""
        spec = self.spec
        content = {
            "study": spec.name,
            "question": spec.question,
            **({} if spec.factor == DEPTH else {"factor": spec.factor}),
            "judged": self.judged,
            "complete": self.complete,
            "looks": spec.looks,
            "max_looks": spec.max_looks,
            "smallest_effect": spec.smallest_effect,
            "level": LEVEL,
            **_scale_json(self.scale),
            "fields": dict(self.fields),
            "sentences": [{"text": s.text, "runs": s.runs, "fields": s.fields} for s in self.sentences],
            "warnings": self.warnings,
            "cells": [self._cell_json(item) for item in self.cells],
            "comparisons": [self._contrast_json(item) for item in self.contrasts],
        }
        return {"schema": SCHEMA, **jsonable(content)}

    def _cell_json(self, item: CellVerdict) -> Mapping[str, Json]:
        cell, bootstrap = item.cell, item.cell.bootstrap
        return {
            **self._place_json(cell),
            **({} if self.scale is not None else _scale_json(cell.scale)),
            **{name: getattr(item, name) for name in ("label", "harm")},
            "cause": item.cause,
            "words": cell_words(item, self.spec),
            "n": len(cell.runs),
            "planned": len(cell.runs) + len(cell.missing),
            "counts": cell.counts,
            **{kind.replace(" ", "_"): len(cell.of_kind(kind)) for kind in ("exploded", "vanished", "at chance")},
            "train_loss": {**asdict(cell.loss), "field": self.fields[LOSS]},
            "one_run": {**asdict(cell.one_run), "field": self.fields[LOSS]},
            "bootstrap": bootstrap and {**asdict(bootstrap), "field": self.fields[LOSS]},
            "val_error": {**asdict(cell.val_error), "field": self.fields[ACCURACY]},
            "gradient_ratio": {"statistic": "median", "value": cell.gradient_ratio, "field": self.fields[RATIO]},
            "runs": [self._run_json(run) for run in cell.runs],
            "missing": [asdict(missing) for missing in cell.missing],
        }

    def _place_json(self, cell: CellRuns) -> Mapping[str, Json]:
        return level_json({"condition": cell.condition, "level": cell.level}, self.spec.factor)

    def _run_json(self, run: CellRun) -> Mapping[str, Json]:
        columns = {"loss": LOSS, "val_error": ACCURACY, "gradient_ratio": RATIO}
        shown = asdict(run)
        del shown["parts"]
        if self.spec.metric is None:
            del shown["metric"]
        sources = {name: [f"{folder}/{self.fields[c]}" for folder in run.folders] for name, c in columns.items()}
        return {**shown, "sources": sources if run.parts else {name: found for name, (found,) in sources.items()}}

    def _contrast_json(self, item: Contrast) -> Mapping[str, Json]:
        spec, failures = self.spec, item.failures
        seeds = more_seeds(item, spec)[0] if item.label == "undecided" else None
        held = item.difference_corrected
        judged = spec.metric or (ACCURACY if item.family == "condition" else LOSS)
        return {
            "family": item.family,
            "aim": item.item.aim,
            **self._place_json(item.cell),
            "against": self._place_json(item.against),
            **{name: getattr(item, name) for name in ("primary", "label", "harm", "design", "left_out")},
            "cause": item.cause,
            "isolated": item.explanation and item.explanation.isolated and asdict(item.explanation.isolated),
            "more_seeds": seeds,
            "metric": judged,
            "means": item.own_means,
            "difference": asdict(item.own(item.difference)),
            "difference_corrected": held and asdict(item.own(held)),
            "p": item.tests.p,
            "corrected_p": item.corrected_p,
            "tests": asdict(item.tests),
            "questions": {name: {"corrected_p": it.p, "share": it.share} for name, it in item.corrected.items()},
            "failures": asdict(failures),
            "equivalence_p": item.equivalence_p,
            "overfitting_p": item.overfitting_p,
            "failure_rate_not_excluded": item.failure_rate_not_excluded if item.label == "equivalent" else None,
            "val_means": item.val_means,
            "val_difference": asdict(item.val_difference),
            **(_data_sets_json(item, spec.by_loss) if item.by_data_set else {}),
            "n": tuple(map(len, item.runs)),
            "words": comparison_words(item, spec),
            "runs": [name for run in item.runs[0] for name in run.folders],
            "against_runs": [name for runs in item.runs[1:] for run in runs for name in run.folders],
            "field": self.fields[judged],
            "val_field": self.fields[ACCURACY],
        }


def _scale_json(scale: Scale | None) -> Mapping[str, Json]:
    values = (None, None, None) if scale is None else (scale.classes, scale.chance, scale.entropy)
    if scale is not None and scale.constant is not None:
        return {"classes": None, "chance_loss": scale.chance, "constant_loss": scale.constant}
    return dict(zip(("classes", "chance_loss", "label_entropy"), values, strict=True))


def _data_sets_json(item: Contrast, by_loss: bool) -> Mapping[str, Json]:
    return {
        "unit": "loss of guessing" if by_loss else "fraction",
        "data_sets": [{"data_set": name, **asdict(item.own(estimate))} for name, estimate in item.by_data_set],
        "same_direction": item.agreeing,
        "contradictory": item.contradictory,
    }


def verdict(table: pandas.DataFrame, spec: StudySpec) -> Verdict:
    """Judge the runs of ``table`` (its columns: `cells_of`) by the tests that ``spec`` plans.

    The order of rows and seeds, and the names of the conditions, do not change the result.

    Raises:
        BadInput: a column that is missing, a row outside the plan, a run in two rows.
    """
    cells, scale = cells_of(table, spec)
    cells |= combined_cells(cells, spec)
    contrasts = [] if spec.early_stopping else explained(contrasts_of(cells, spec), cells, spec)
    fields = fields_of(table, spec)
    family = "condition" if spec.by_validation else "depth"
    judging = {(c.cell.condition, c.cell.level): c for c in reversed(contrasts) if c.family == family}
    judged = [judge_cell(cell, judging.get(place), spec) for place, cell in cells.items() if not cell.parts]
    said = words.sentences_of(judged, contrasts, spec, fields)
    return Verdict(spec, scale, fields, tuple(judged), tuple(contrasts), tuple(said))
