"""The page of a study, ``report.html``: one file without scripts, which asks the network for nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import netdepth
from netdepth.report import figures as figures
from netdepth.report import tables as tables
from netdepth.report.answer import Answer, answer_of
from netdepth.report.data import StudyData
from netdepth.report.gradient_figures import band_names
from netdepth.report.paper import BesidePaper, beside_paper
from netdepth.report.sources import Numbers, Shown
from netdepth.studies.cells import CHANCE_SHARE, VANISHING_RATIO
from netdepth.studies.contrasts import LEVEL
from netdepth.studyspec import StudySpec

__all__ = ["Content", "page"]


@dataclass(frozen=True)
class Content:
    """What stands on the page but the figures, for HTML and Markdown alike."""

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
        words = {"no run": "not there", "unfinished": "begun", "failed": "failed", "unreadable": "unreadable"}
        shown: list[Any] = [
            self.numbers.count(data.missing, data.runs),
            f" of {len(data.runs):,} planned runs have no result (",
        ]
        for place, kind in enumerate(kinds):
            runs = [run for run in data.missing if run.row["status"] == kind]
            shown += [", " if place else "", self.numbers.count(runs, data.runs), f" {words[kind]}"]
        return [*shown, "). What follows is about the others and is preliminary."]

    @cached_property
    def facts(self) -> list[Shown]:
        """The size of the study at a glance."""
        spec, runs = self.data.spec, self.data.runs
        facts: list[Shown] = []
        statuses = Counter(run.row["status"] for run in runs)
        for status, word in (("completed", "completed"), ("diverged", "diverged"), ("failed", "failed")):
            if statuses[status]:
                those = [run for run in runs if run.row["status"] == status]
                facts.append([self.numbers.count(those, runs), f" run{'s' * (len(those) != 1)} {word}"])
        facts.append([f"{_count(len(spec.conditions), 'condition')}, {_count(len(spec.depths), 'depth')}, "
                      f"{_count(len(spec.seeds), 'seed')}"])  # fmt: skip
        facts += [[f"{item.path} {item.how}"] for item in spec.nuisance]
        facts.append(
            [f"look {spec.looks}: p-values multiplied by {spec.looks}" if spec.looks > 1 else "seeds as planned"]
        )
        return facts


def page(content: Content, drawn: bool = True) -> str:
    """``report.html``; without its figures if they are not to be ``drawn``."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    data = content.data
    environment = Environment(
        loader=PackageLoader("netdepth.report", "templates"), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template("study.html").render(
        title=("Unfinished: " if content.incomplete else "") + f"{data.spec.name}: {data.spec.question}",
        name=data.spec.name,
        question=data.spec.question,
        version=netdepth.__version__,
        incomplete=content.incomplete,
        answer=content.answer,
        facts=content.facts,
        grids=content.grids,
        grid_note=WAYS_NOTE if data.spec.by_validation else GRID_NOTE,
        legend=figures.legend(data),
        depth_figures=figures.depth_group(data) if drawn else None,
        curve_figures=figures.curve_groups(data) if drawn else [],
        flow_figures=figures.flow_groups(data) if drawn else [],
        bands=band_names(),
        settings=content.settings,
        beside=content.paper,
        method=method(data),
        sources_note=SOURCES_NOTE,
        **content.tables,
    )


GRID_NOTE = (
    "Below each label the geometric mean of the training loss in nats, or the difference of two means; where it "
    "explodes, the median as measured. Not tested: not among the comparisons named beforehand, so nothing is claimed."
)

WAYS_NOTE = (
    "Below each label the difference of the two mean validation errors. Not tested: not among the comparisons named "
    "beforehand, so nothing is claimed."
)

SOURCES_NOTE = (
    "Runs are numbered as in this list. Every number on this page that comes from runs says which, and the file and "
    "field of their folders it was read from: point at it, or see its data-runs and data-fields in the page's source. "
    "A number marked data-kind=value moves whenever one of them does; a p-value, a label or a sentence "
    "(data-kind=test) depends on them and nothing else. A corrected p-value rests on all comparisons of its family."
)


def method(data: StudyData) -> list[str]:
    """How the verdict was reached, a paragraph each."""
    spec = data.spec
    if spec.by_validation:
        return _method_of_ways(spec)
    counts = Counter(item.family for item in spec.primary)
    return [
        "Judged is the training loss of the last weights over the whole training split, so that worse means harder to "
        "train and not overfitting; the validation error of the same weights is a second question, corrected apart.",
        f"Depth is compared with the shallowest of the grid, depth {spec.depths[0]}, by an exact permutation test, "
        "unpaired; residual and plain nets at equal depth by an exact sign-flip test, paired by seed. The comparisons "
        f"named before the first run ({counts['depth']} of depth, {counts['shortcut']} of shortcuts) are corrected by "
        f"Holm's method, each family at {LEVEL}; all others are exploratory and claim nothing.",
        "A loss counts as that of guessing all classes alike at most, also if the run diverged. Intervals are "
        "Student's t at 95 %, of losses on their logarithms.",
        "Explodes: at least half of the runs have a loss that is not finite, or above twice that of guessing. "
        f"Vanishes: at least half have a loss of {CHANCE_SHARE} of the entropy of the labels or more, and at "
        f"initialisation the first layer received less than {VANISHING_RATIO:g} of the last layer's gradient. Worse "
        f"and better: the corrected p-value is at most {LEVEL}. No difference: it is not, and the interval lies inside "
        f"± {spec.smallest_effect:g} nats. Undecided: none of these.",
    ]


def _method_of_ways(spec: StudySpec) -> list[str]:
    """The same for a study of ways of training."""
    return [
        "Judged is the validation error of the last weights: all conditions are the same network at equal depth, "
        "trained for equally many steps, so that only the way of training differs. Test images decide nothing.",
        "Two conditions are compared by an exact sign-flip test, paired by seed: both runs of a pair see the training "
        "images in the same order. The p-values of what was named before the first run "
        f"({_count(len(spec.primary), 'comparison')}) are corrected by Holm's method at {LEVEL}; all others are "
        "exploratory and claim nothing. Intervals are Student's t at 95 %.",
        f"Better and worse: the corrected p-value is at most {LEVEL}. No difference: it is not, and the interval lies "
        f"inside ± {100 * spec.smallest_effect:g} percentage points. Undecided: none of these.",
        "Beside it stands McNemar's exact test of each pair of runs on the images both were tested on. All pairs share "
        "those images, so their p-values are not independent and are not put together.",
    ]


def _count(n: int, word: str) -> str:
    return f"{n} {word}{'s' * (n != 1)}"
