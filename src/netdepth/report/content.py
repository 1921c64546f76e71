"""What stands on the page of a study but the figures: facts, tables, the answer, notes, how it was judged."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import netdepth
from netdepth.report import tables
from netdepth.report.answer import Answer, answer_of
from netdepth.report.data import StudyData
from netdepth.report.numbers import Number, Numbers, Shown
from netdepth.report.paper import BesidePaper, beside_paper
from netdepth.studies.cells import CHANCE_SHARE, VANISHING_RATIO
from netdepth.studies.contrasts import LEVEL
from netdepth.text import count, printable, significant

__all__ = ["Content", "rendered"]


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

    @cached_property
    def method(self) -> list[str]:
        """How the verdict was reached, a paragraph each."""
        spec = self.data.spec
        families = Counter(item.family for item in spec.primary)
        named = count(len(spec.primary), "comparison")
        values = {"level": LEVEL, "chance_share": CHANCE_SHARE, "vanishing": VANISHING_RATIO}
        return rendered("method.txt", spec=spec, families=families, primary=named, **values).strip().split("\n\n")


def rendered(template: str, **values: Any) -> str:
    """A template of this package with ``values``; what they hold is escaped in HTML."""
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    loader = PackageLoader("netdepth.report", "templates")
    environment = Environment(loader=loader, autoescape=select_autoescape(), undefined=StrictUndefined)
    environment.trim_blocks = environment.lstrip_blocks = template.endswith(".md")
    environment.filters |= {"printable": printable, "significant": significant}
    return environment.get_template(template).render(version=netdepth.__version__, **values)
