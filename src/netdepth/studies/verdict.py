"""The verdict of a study: a pure function of its table and of what was asked beforehand.

1. The runs are put into cells, capped and told apart (`labels`).
2. Every comparison named beforehand gets an exact p-value (`permutation`), Holm-corrected within
   its family, each family at 0.025 (`contrasts`): over the whole study, a difference that is not
   there is claimed with probability 0.05 at most.
3. Label, cause and words follow (`words`). All other comparisons are shown and claim nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from netdepth.config import SCHEMA
from netdepth.files.records import jsonable
from netdepth.studies import words
from netdepth.studies.cells import ACCURACY, LOSS, RATIO, CellRun, CellRuns, Scale, cells_of, fields_of
from netdepth.studies.contrasts import LEVEL, Cause, Contrast, Harm, Label, contrasts_of, out_of_reach
from netdepth.studies.phrases import Sentence
from netdepth.studies.ways import of_ways
from netdepth.studyspec import StudySpec

if TYPE_CHECKING:
    import pandas

__all__ = ["CellVerdict", "Verdict", "verdict"]


@dataclass(frozen=True)
class CellVerdict:
    """What became of one condition at one depth."""

    cell: CellRuns
    label: Label
    cause: Cause | None
    harm: Harm | None
    words: str


@dataclass(frozen=True)
class Verdict:
    """Labels per cell, the comparisons with their tests, and sentences.

    ``judged`` is False for a study with early stopping; ``complete``: no planned run is missing.
    ``fields`` says for each column of the table which ``file:field`` of a run's folder it is.
    """

    study: str
    question: str
    judged: bool
    complete: bool
    looks: int
    smallest_effect: float
    scale: Scale
    fields: Mapping[str, str]
    cells: tuple[CellVerdict, ...]
    contrasts: tuple[Contrast, ...]
    sentences: tuple[Sentence, ...]
    warnings: tuple[str, ...]

    @property
    def by_validation(self) -> bool:
        """Whether ways of training were compared, by their validation error, and not depths."""
        return any(contrast.family == "condition" for contrast in self.contrasts)

    @property
    def claims(self) -> tuple[Contrast, ...]:
        """The comparisons that found a difference."""
        return tuple(contrast for contrast in self.contrasts if contrast.label in ("helps", "degraded"))

    def as_json(self) -> dict[str, Any]:
        """``verdict.json``: plain values; NaN and Inf as null, named under ``nonfinite``."""
        content = {
            **{name: getattr(self, name) for name in ("study", "question", "judged", "complete", "looks")},
            "smallest_effect": self.smallest_effect,
            "level": LEVEL,
            "classes": self.scale.classes,
            "chance_loss": self.scale.chance,
            "label_entropy": self.scale.entropy,
            "fields": dict(self.fields),
            "sentences": [asdict(sentence) for sentence in self.sentences],
            "warnings": list(self.warnings),
            "cells": [self._cell_json(item) for item in self.cells],
            "comparisons": [self._contrast_json(item) for item in self.contrasts],
        }
        return {"schema": SCHEMA, **jsonable(content)}

    def _cell_json(self, item: CellVerdict) -> dict[str, Any]:
        cell = item.cell
        bootstrap = cell.bootstrap
        return {
            **{name: getattr(cell, name) for name in ("condition", "depth")},
            **{name: getattr(item, name) for name in ("label", "cause", "harm", "words")},
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

    def _run_json(self, run: CellRun) -> dict[str, Any]:
        columns = {"loss": LOSS, "val_error": ACCURACY, "gradient_ratio": RATIO}
        return {**asdict(run), "sources": {name: f"{run.folder}/{self.fields[c]}" for name, c in columns.items()}}

    def _contrast_json(self, item: Contrast) -> dict[str, Any]:
        plain = ("family", "primary", "label", "cause", "harm", "more_seeds", "p", "corrected_p", "test")
        left, right = item.runs
        return {
            **{name: getattr(item, name) for name in plain},
            "condition": item.cell.condition,
            "depth": item.cell.depth,
            "against": {"condition": item.against.condition, "depth": item.against.depth},
            "n": [len(left), len(right)],
            "left_out": list(item.left_out),
            "means": list(item.means),
            "difference": asdict(item.difference),
            "ratio": asdict(item.ratio),
            "val_means": list(item.val_means),
            "val_difference": asdict(item.val_difference),
            "val_p": item.val_p,
            "val_corrected_p": item.val_corrected_p,
            "words": words.of_contrast(item, self.scale, self.smallest_effect, self.looks),
            "runs": [run.folder for run in left],
            "against_runs": [run.folder for run in right],
            "field": self.fields[LOSS],
            "val_field": self.fields[ACCURACY],
        }


def verdict(table: pandas.DataFrame, spec: StudySpec) -> Verdict:
    """Judge the runs of ``table`` (its columns: `cells_of`) by what ``spec`` asked beforehand.

    The order of rows and seeds changes nothing, the names of the conditions only those names.

    Raises:
        BadInput: a column that is missing, a row outside the plan, a run in two rows.
    """
    cells, scale = cells_of(table, spec)
    contrasts = [] if spec.early_stopping else contrasts_of(cells, spec)
    fields = fields_of(table)
    own = "condition" if spec.by_validation else "depth"
    depth_contrasts = {(c.cell.condition, c.cell.depth): c for c in reversed(contrasts) if c.family == own}
    judged = [_cell(cell, depth_contrasts.get(place), scale, spec) for place, cell in cells.items()]
    said = words.notes(cells.values(), spec, fields)
    if not spec.early_stopping:
        said = [
            *(of_ways(judged, scale, fields) if spec.by_validation else words.of_conditions(judged, fields)),
            *words.of_twins(contrasts, fields),
            *words.of_primary(contrasts, scale, spec, fields),
            *said,
        ]
    return Verdict(
        study=spec.name,
        question=spec.question,
        judged=not spec.early_stopping,
        complete=not any(cell.missing for cell in cells.values()),
        looks=spec.looks,
        smallest_effect=spec.smallest_effect,
        scale=scale,
        fields=fields,
        cells=tuple(judged),
        contrasts=tuple(contrasts),
        sentences=tuple(said),
        warnings=tuple(out_of_reach(spec)),
    )


def _cell(cell: CellRuns, contrast: Contrast | None, scale: Scale, spec: StudySpec) -> CellVerdict:
    """Exploded and vanished are seen in the runs; degraded and helps need the test against the shallowest."""
    text = words.of_cell(cell, scale)
    if spec.early_stopping:
        return CellVerdict(cell, "not judged", None, None, text)
    if cell.fate == "exploded":
        return CellVerdict(cell, "exploded", "explosion", "training", text)
    if cell.fate == "vanished":
        return CellVerdict(cell, "vanished", "vanishing", "training", text)
    if contrast is None:
        return CellVerdict(cell, "reference", None, None, text)
    tested = words.of_contrast(contrast, scale, spec.smallest_effect, spec.looks)
    return CellVerdict(cell, contrast.label, contrast.cause, contrast.harm, f"{text} {tested}")
