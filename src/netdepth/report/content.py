"""What stands on the page of a study but the figures: facts, tables, the answer, notes, how it was judged."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property

from netdepth.report import tables
from netdepth.report.answer import Answer, answer_of
from netdepth.report.data import StudyData
from netdepth.report.numbers import Number, Numbers, Shown
from netdepth.report.paper import BesidePaper, beside_paper
from netdepth.studies.cells import CHANCE_SHARE, VANISHING_RATIO
from netdepth.studies.contrasts import LEVEL
from netdepth.studyspec import StudySpec
from netdepth.text import count

__all__ = ["SOURCES_NOTE", "Content", "grid_note", "method"]


@dataclass(frozen=True)
class Content:
    """The same for HTML and Markdown; each part is made when it is asked for."""

    data: StudyData

    @cached_property
    def numbers(self) -> Numbers:
        return Numbers(self.data)

    @cached_property
    def answer(self) -> Answer:
        return answer_of(self.data, self.numbers)

    @cached_property
    def grids(self) -> list[tables.Grid]:
        return tables.grids(self.data, self.numbers)

    @cached_property
    def paper(self) -> BesidePaper:
        return beside_paper(self.data, self.numbers)

    @cached_property
    def tables(self) -> dict[str, tables.Table]:
        """Every table of the page by its name in the template."""
        return {
            "primary": tables.comparison_table(self.data, self.numbers, primary=True),
            "exploratory": tables.comparison_table(self.data, self.numbers, primary=False),
            "cells": tables.cell_table(self.data, self.numbers),
            "paper": self.paper.table,
            "trouble": tables.trouble_table(self.data, self.numbers),
            "made": tables.made_table(self.data),
            "runs": tables.run_table(self.data, self.numbers),
        }

    @cached_property
    def settings(self) -> list[tuple[str, Shown]]:
        return tables.settings(self.data)

    @cached_property
    def incomplete(self) -> Shown:
        """What is missing; nothing if every planned run has a result."""
        data = self.data
        if not data.missing:
            return []
        kinds = Counter(run.row["status"] for run in data.missing)
        words = {"no run": "not begun", "unfinished": "not finished", "failed": "failed", "unreadable": "not readable"}
        shown: list[Number | str] = [
            self.numbers.count(data.missing, data.runs),
            f" of {len(data.runs):,} planned runs have no result (",
        ]
        for position, kind in enumerate(kinds):
            runs = [run for run in data.missing if run.row["status"] == kind]
            shown += [", " if position else "", self.numbers.count(runs, data.runs), f" {words[kind]}"]
        return [*shown, "). What follows is about the others and is preliminary."]

    @cached_property
    def facts(self) -> list[Shown]:
        """The size of the study at a glance."""
        spec, runs = self.data.spec, self.data.runs
        facts: list[Shown] = []
        for status in ("completed", "diverged", "failed"):
            if found := [run for run in runs if run.row["status"] == status]:
                facts.append([self.numbers.count(found, runs), f" run{'s' * (len(found) != 1)} {status}"])
        sizes = [(len(spec.conditions), "condition"), (len(spec.depths), "depth"), (len(spec.seeds), "seed")]
        facts.append([", ".join(count(n, noun) for n, noun in sizes)])
        facts += [[f"{item.path} {item.how}"] for item in spec.nuisance]
        if spec.looks > 1:
            facts.append([f"interim analysis {spec.looks}: p-values are multiplied by {spec.looks}"])
        return facts


SOURCES_NOTE = (
    "Runs are numbered as in this list. Every number on this page that comes from runs says which runs, and which file "
    "and field of their folders it was read from: point at it, or see its data-runs and data-fields in the page's "
    "source. A number marked data-kind=value changes whenever one of them does; a p-value, a label or a sentence "
    "(data-kind=test) depends on them and nothing else. A corrected p-value depends on all comparisons of the family."
)


def grid_note(spec: StudySpec) -> str:
    """What stands in the boxes of the first table."""
    if spec.by_validation:
        number = "the difference of the two mean validation errors"
    else:
        number = (
            "the mean training loss (the geometric mean, in nats) or the difference of two of them; where training "
            "explodes, the median loss as measured"
        )
    depth = any(item.family == "depth" for item in spec.primary)
    reference = "The reference is the depth that the others are compared with. " if depth else ""
    return (
        f"Each box shows {number}. {reference}A box without a word was not tested: its comparison was not named "
        "before the first run, so nothing is claimed about it."
    )


def method(spec: StudySpec) -> list[str]:
    """How the verdict was reached, a paragraph each."""
    if spec.by_validation:
        return _method_of_conditions(spec)
    counts = Counter(item.family for item in spec.primary)
    return [
        "The verdict is about the training loss of the last weights over the whole training split. So worse means "
        "harder to train, not overfitting. The validation error of the same weights is a second question with a "
        "correction of its own.",
        f"Every depth is compared with the smallest one, depth {spec.depths[0]}, by an exact permutation test "
        "(unpaired). Residual and plain networks of the same depth are compared by an exact sign-flip test, paired by "
        f"seed. The comparisons named before the first run ({counts['depth']} of depth, {counts['shortcut']} of "
        f"shortcuts) are corrected by Holm's method, each family at {LEVEL}; all others are exploratory and claim "
        "nothing.",
        "A loss above that of guessing all classes equally often counts as guessing, also if the run diverged. "
        "Intervals are 95 % intervals by Student's t, of losses on a logarithmic scale.",
        "Explodes: at least half of the runs have a loss that is not finite, or more than twice that of guessing. "
        f"Vanishes: at least half have a loss of at least {CHANCE_SHARE} of the entropy of the labels, and at "
        f"initialisation the first layer received less than {VANISHING_RATIO:g} of the last layer's gradient. Worse, "
        f"better: the corrected p-value is at most {LEVEL}. No difference: it is larger, and the interval lies within "
        f"± {spec.smallest_effect:g} nats. Undecided: none of these.",
    ]


def _method_of_conditions(spec: StudySpec) -> list[str]:
    """The same for a study that compares training conditions of one network."""
    return [
        "The verdict is about the validation error of the last weights. All conditions are the same network of the "
        "same depth, trained for the same number of steps, so only the training conditions differ. Test images decide "
        "nothing.",
        "Two conditions are compared by an exact sign-flip test, paired by seed: both runs of a pair see the training "
        f"images in the same order. The p-values of what was named before the first run "
        f"({count(len(spec.primary), 'comparison')}) are corrected by Holm's method at {LEVEL}; all others are "
        "exploratory and claim nothing. Intervals are 95 % intervals by Student's t.",
        f"Better, worse: the corrected p-value is at most {LEVEL}. No difference: it is larger, and the interval lies "
        f"within ± {100 * spec.smallest_effect:g} percentage points. Undecided: none of these.",
        "The notes add McNemar's exact test of each pair of runs on the images that both were tested on. All pairs "
        "share those images, so their p-values are not independent and are not combined.",
    ]
