"""The page of a study for a repository: ``report.md`` with PNG figures, its sources in ``sources.json``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from netdepth.config import SCHEMA
from netdepth.report.content import Content
from netdepth.report.numbers import Number, Shown, run_ranges, shown_text
from netdepth.report.run_text import markdown_text
from netdepth.report.tables import Chip, Grid, Table

__all__ = ["markdown", "sources"]

SHOWN = {
    "primary": "Comparisons named beforehand",
    "cells": "Every condition at every depth",
    "paper": "Beside the paper",
    "made": "How the runs were made",
}


def markdown(content: Content, pictures: Sequence[tuple[str, Path]]) -> str:
    """``report.md``; ``pictures`` are titles and paths of figures in the folder ``figures`` beside it."""
    data = content.data
    parts = [
        f"# {_text(data.spec.question)}",
        f"{'Study' if data.spec.by_validation else 'Depth study'} {_text(data.spec.name)}.",
    ]
    if content.incomplete:
        parts.append(f"> **Unfinished.** {_shown(content.incomplete)}")
    parts.append(_text(content.answer.short.text))
    parts.append("\n".join(f"- **{_text(line.name)}**: {_text(line.said.text)}" for line in content.answer.lines))
    parts.append("\n".join(f"- {_shown(fact)}" for fact in content.facts))
    parts += [_grid(grid) for grid in content.grids]
    parts.append("\n".join(f"- {_text(note.text)}" for note in content.answer.notes))
    if content.tables["trouble"].rows:
        parts += ["## Runs that failed, are missing, or diverged", _table(content.tables["trouble"])]
    for title, path in pictures:
        parts += [f"## {title}", f"![{title}](figures/{path.name})"]
    if content.answer.same_images:
        said = [f"- {_text(note.text)}" for note in content.answer.same_images]
        parts += ["## Runs on the same test images", "\n".join(said)]
    for name, title in SHOWN.items():
        if content.tables[name].rows:
            parts += [f"## {title}", _table(content.tables[name])]
        if name == "paper":
            parts += ["\n".join(f"- {_text(reason)}" for reason in content.paper.reasons), _text(content.paper.caption)]
    settings = [([label], value) for label, value in content.settings]
    parts += ["## What was run", _table(Table("", ("setting", "value"), tuple(settings)))]
    parts += ["## How this was judged", *map(_text, content.method)]
    parts.append(
        "Each number's runs and fields stand in `sources.json` beside the run folders, the runs with their folders in "
        "`table.csv`."
    )
    return "\n\n".join(part for part in parts if part) + "\n"


def sources(content: Content) -> dict[str, Any]:
    """``sources.json``: the run folders by their numbers, and per number of ``report.md`` where it stands and
    what it was made of."""
    runs = {str(run.number): run.row["folder"] if run.row["run"] else None for run in content.data.runs}
    numbers = [
        {
            "where": where,
            "text": number.text,
            "kind": number.kind,
            "runs": run_ranges(number.runs),
            "fields": list(number.fields),
        }
        for where, number in _numbers(content)
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
    for key in ("trouble", *SHOWN):
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
    lines = [[_text(line.name), *("" if chip is None else _chip(chip) for chip in line.chips)] for line in grid.lines]
    head = ["", *(f"depth {depth}" for depth in grid.depths)]
    return f"{_text(grid.caption)}:\n\n{_lines([head, ['---', *['---'] * len(grid.depths)], *lines])}"


def _chip(chip: Chip) -> str:
    word = _text(chip.word)
    marked = f"**{word}**" if word and chip.label not in ("reference", "missing") else word
    return f"{marked} {_shown(chip.number)}".strip()


def _table(table: Table) -> str:
    rule = ["---:" if index in table.right else "---" for index in range(len(table.header))]
    rows = [[_shown(cell) for cell in row] for row in table.rows]
    return _lines([[_text(title) for title in table.header], rule, *rows])


def _lines(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _shown(cell: Shown) -> str:
    return _text(shown_text(cell))


def _text(text: object) -> str:
    return markdown_text(text)
