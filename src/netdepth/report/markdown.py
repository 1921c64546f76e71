"""The page of a study for a repository: ``report.md`` with PNG figures, its sources in ``sources.json``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from netdepth.config import SCHEMA
from netdepth.report.content import Content, rendered
from netdepth.report.numbers import Number, Shown, shown_text
from netdepth.report.run_text import markdown_table, markdown_text
from netdepth.report.tables import Chip, Grid, Table

__all__ = ["markdown", "sources"]

TITLES = {
    "primary": "Comparisons named beforehand",
    "cells": "Every condition at every depth",
    "paper": "Beside the paper",
    "made": "How the runs were made",
}


def markdown(content: Content, pictures: Sequence[tuple[str, Path]]) -> str:
    """``report.md``; ``pictures`` are titles and paths of figures in the folder ``figures`` beside it."""
    words = {"text": _text, "table": _table, "grid": _grid, "titles": TITLES}
    page = rendered("study.md", content=content, spec=content.data.spec, pictures=pictures, **words)
    return re.sub(r"\n{3,}", "\n\n", page).strip() + "\n"


def sources(content: Content) -> dict[str, Any]:
    """``sources.json``: the run folders by their numbers, and per number of ``report.md`` where it stands and
    what it was made of."""
    runs = {str(run.number): run.row["folder"] if run.row["run"] else None for run in content.data.runs}
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
            for depth, chip in zip(grid.depths, line.chips, strict=True):
                if chip is not None:
                    yield from _of(f"{grid.caption} / {line.name} / depth {depth}", [chip.word, *chip.number])
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
    return markdown_table(["", *(f"depth {depth}" for depth in grid.depths)], rows)


def _chip(chip: Chip) -> str:
    word = _text(chip.word)
    marked = f"**{word}**" if word and chip.label not in ("reference", "missing") else word
    return f"{marked} {_text(chip.number)}".strip()


def _table(table: Table) -> str:
    return markdown_table([*map(_text, table.header)], [[*map(_text, row)] for row in table.rows], table.right)


def _text(shown: Number | Shown) -> str:
    """A name, a number or a cell as literal Markdown."""
    return markdown_text(shown_text([shown] if isinstance(shown, Number) else shown))
