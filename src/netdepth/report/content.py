"""What stands on the page of a study but the figures, and the same as Markdown (``report.md``, ``sources.json``)."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import netdepth
from netdepth.config import SCHEMA, Json, to_json
from netdepth.report import tables
from netdepth.report.answer import PageAnswer, answer_of
from netdepth.report.data import StudyData
from netdepth.report.numbers import Number, Numbers, Shown, shown_text
from netdepth.report.paper import BesidePaper, beside_paper
from netdepth.report.run_text import markdown_table, markdown_text
from netdepth.report.tables import Chip, Grid, Table
from netdepth.runs.table import minimised
from netdepth.stats.family import spending
from netdepth.studies.cells import CHANCE_SHARE, VANISHING_RATIO
from netdepth.studies.samples import LEVEL
from netdepth.studies.wording import quantity_of
from netdepth.text import SETTINGS, STATUS_WORDS, count, listed, percent, plain, printable, significant, thousands

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["Content", "markdown", "rendered", "sources"]


@dataclass(frozen=True)
class Content:
    """The same for HTML and Markdown; each part is made when it is asked for."""

    data: StudyData

    @cached_property
    def numbers(self) -> Numbers:
        return Numbers(self.data)

    @cached_property
    def answer(self) -> PageAnswer:
        return answer_of(self.data, self.numbers)

    @property
    def compared(self) -> str:
        """What the levels are judged by, with its unit."""
        return tables.compared(self.data)

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

    @property
    def titles(self) -> Mapping[str, str]:
        """The titles of the tables of ``report.md``, by name."""
        factor = self.data.spec.factor_name
        return TITLES | {"cells": f"{TITLES['cells']}{factor and f' at every {factor}'}"}

    @cached_property
    def settings(self) -> list[tuple[str, Shown]]:
        return tables.settings(self.data)

    @cached_property
    def incomplete(self) -> Shown:
        """What is missing; nothing if every planned run has a result."""
        data = self.data
        if not data.missing:
            return []
        kinds = Counter(run.row.made.status for run in data.missing)
        shown: list[Number | str] = [
            self.numbers.count(data.missing, data.runs),
            f" of {thousands(len(data.runs))} planned runs have no result (",
        ]
        for position, kind in enumerate(kinds):
            runs = [run for run in data.missing if run.row.made.status == kind]
            shown += [", " if position else "", self.numbers.count(runs, data.runs), f" {STATUS_WORDS[kind]}"]
        return [*shown, "). This page is about the other runs and is preliminary."]

    @cached_property
    def facts(self) -> list[Shown]:
        """The size of the study at a glance."""
        spec, runs = self.data.spec, self.data.runs
        facts: list[Shown] = []
        for word, known in (("completed", COMPLETED), ("diverged", ("diverged",)), ("failed", ("failed",))):
            if found := [run for run in runs if run.row.made.status in known]:
                facts.append([self.numbers.count(found, runs), f" run{'s' * (len(found) != 1)} {word}"])
        sizes = [(len(spec.conditions), "condition"), (len(spec.levels), spec.factor_name)]
        numbers = sorted({len(spec.seeds_for(condition)) for condition in spec.conditions})
        seeds = f"{numbers[0]} to " * (len(numbers) > 1) + count(numbers[-1], "seed")
        facts.append([", ".join([*(count(n, noun) for n, noun in sizes if noun), seeds])])
        for item in spec.nuisance:
            name = SETTINGS.get(item.path, item.path)
            if item.values:
                facts.append([f"{name} tuned for each network"])
            elif values := tables.values_at(self.data, item.path):
                facts.append([f"{name} ", *values, " in every condition"])
            else:
                facts.append([f"the same {name} in every condition"])
        others = {minimised(to_json(cell.config)) for cell in spec.cells if cell.config.objective.name != "distill"}
        if self.data.values:
            facts.append([f"values are learned; the loss is {listed(sorted(map(str, others)))}"])
        elif others - {None}:  # a study with a teacher says so in its conditions
            facts.append(["another loss was minimised; all losses here are plain cross-entropy"])
        if (times := spending(spec.looks, spec.max_looks)) > 1 and spec.primary:
            facts.append([f"analysis {spec.looks}: p-values are multiplied by {times}"])
        return facts

    @cached_property
    def method(self) -> list[str]:
        """How the verdict was reached, a paragraph each."""
        spec = self.data.spec
        named = count(len(spec.primary), "comparison")
        family = spec.primary[0].family if spec.primary else "depth"
        quantity = quantity_of(family, spec, None if self.data.verdict is None else self.data.verdict.scale)
        share = f"± {plain(100 * spec.smallest_effect)} % of the reference"
        values = {
            "level": LEVEL,
            "chance_share": CHANCE_SHARE,
            "vanishing": VANISHING_RATIO,
            "values": self.data.values,
            "quantity": quantity.name,
            "effect": share if spec.effect == "relative" else quantity.effect(spec.smallest_effect),
            "times": spending(spec.looks, spec.max_looks),
        }
        text = rendered("method.txt", spec=spec, primary=named, **values)
        return [paragraph.strip() for paragraph in text.split("\n\n") if paragraph.strip()]


def rendered(template: str, **values: Any) -> str:
    """A template of this package with ``values``; what they hold is escaped in HTML."""
    trimmed = template.endswith(".md")
    return _environment(trimmed).get_template(template).render(version=netdepth.__version__, **values)


@functools.cache
def _environment(trimmed: bool) -> Environment:
    """Of the templates, which are compiled once; ``trimmed`` takes the lines of statements out."""
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    loader = PackageLoader("netdepth.report", "templates")
    environment = Environment(loader=loader, autoescape=select_autoescape(), undefined=StrictUndefined)
    environment.trim_blocks = environment.lstrip_blocks = trimmed
    environment.filters |= {
        "printable": printable,
        "share": percent,
        "significant": significant,
        "thousands": thousands,
    }
    return environment


COMPLETED = ("completed", "stopped_early", "stopped_overfit")
"""The status of a run whose training came to its end, by its budget or by a stopping rule."""

TITLES = {
    "primary": "Comparisons planned before the runs",
    "cells": "Every condition",
    "paper": "Beside the paper",
    "made": "How the runs were made",
}


def markdown(content: Content, pictures: Sequence[tuple[str, Path]]) -> str:
    """``report.md``; ``pictures`` are titles and paths of figures in the folder ``figures`` beside it."""
    words = {"text": _text, "table": _table, "grid": _grid, "titles": content.titles}
    page = rendered("study.md", content=content, spec=content.data.spec, pictures=pictures, **words)
    return re.sub(r"\n{3,}", "\n\n", page).strip() + "\n"


def sources(content: Content) -> Mapping[str, Json]:
    """``sources.json``: the run folders by their numbers, and per number of ``report.md`` where it stands and
    what it was made of."""
    runs = {str(run.number): run.row.planned.folder for run in content.data.runs}
    numbers = [
        {"where": where, "text": it.text, "kind": it.kind, "runs": it.ranges, "fields": list(it.fields)}
        for where, it in _numbers(content)
    ]
    return {"schema": SCHEMA, "runs": runs, "numbers": numbers}


def _numbers(content: Content) -> Iterator[tuple[str, Number]]:
    """Every number of ``report.md`` with its place, in order."""
    answer = content.answer
    yield from _of("unfinished", content.incomplete)
    yield "answer", answer.short
    for answered in answer.lines:
        yield f"answer / {answered.name}", answered.said
    for fact in content.facts:
        yield from _of("facts", fact)
    for grid in content.grids:
        for line in grid.lines:
            for place, chip in zip(grid.places, line.chips, strict=True):
                if chip is not None:
                    where = " / ".join(filter(None, [grid.caption, line.name, place]))
                    yield from _of(where, [chip.word, *chip.number])
    for note in (*answer.notes, *answer.same_images):
        yield "notes", note
    for key in ("trouble", *TITLES):
        table = content.tables[key]
        for row in table.rows:
            for title, cell in zip(table.header, row, strict=True):
                yield from _of(f"{table.caption} / {shown_text(row[0])} / {title}", cell)
    for reason in content.paper.reasons:
        yield "paper / not comparable", reason
    for label, value in content.settings:
        yield from _of(f"settings / {label}", value)


def _of(where: str, cell: Shown) -> Iterator[tuple[str, Number]]:
    yield from ((where, part) for part in cell if isinstance(part, Number))


def _grid(grid: Grid) -> str:
    """A table with a word in bold where a comparison was tested."""
    rows = [[_text(line.name), *("" if chip is None else _chip(chip) for chip in line.chips)] for line in grid.lines]
    return markdown_table(["", *grid.places], rows)


def _chip(chip: Chip) -> str:
    word = _text(chip.word)
    marked = f"**{word}**" if word and chip.label not in ("reference", "missing") else word
    return f"{marked} {_text(chip.number)}".strip()


def _table(table: Table) -> str:
    return markdown_table([*map(_text, table.header)], [[*map(_text, row)] for row in table.rows], table.right)


def _text(shown: Number | Shown) -> str:
    """A name, a number or a cell as literal Markdown."""
    return markdown_text(shown_text([shown] if isinstance(shown, Number) else shown))
