"""From the measured numbers to the table: benchmarks/results/first_hour.md."""

from __future__ import annotations

from typing import Any

from goals import ROWS, Row

__all__ = ["render", "standing"]

MARGIN = 1.1
"""Seconds of two single turns within a tenth of each other are called even."""


def standing(netdepth: dict[str, Any], lightning: dict[str, Any]) -> str:
    """Where netdepth stands in a row: behind if it is in any of the three numbers, or reached less."""
    if not netdepth["reached"]:
        return "**not reached**"
    behind = [name for name in ("commands", "lines") if netdepth[name] > lightning[name]]
    if netdepth["seconds"] > MARGIN * lightning["seconds"]:
        behind.append("seconds")
    if behind:
        return f"**behind** in {' and '.join(behind)}"
    ahead = [name for name in ("commands", "lines") if netdepth[name] < lightning[name]]
    if netdepth["seconds"] * MARGIN < lightning["seconds"]:
        ahead.append("seconds")
    if not lightning["reached"]:
        ahead.append("what is reached")
    return f"ahead in {', '.join(ahead)}" if ahead else "even"


def render(document: dict[str, Any]) -> str:
    """The table, how often netdepth is ahead, and what each side reached."""
    rows = [(row, document["rows"][row.name]) for row in ROWS if row.name in document["rows"]]
    loads = [sides["load"] for _, sides in rows]
    lines = [
        "<!-- Made by benchmarks/first_hour/measure.py; no number is typed. -->",
        "",
        "# The first hour: netdepth beside Lightning with TensorBoard",
        "",
        "| To do | commands, netdepth | Lightning | own lines, netdepth | Lightning | seconds, netdepth | Lightning "
        "| Lightning's seconds / netdepth's | netdepth is |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
        *(_line(row.title, sides, standing(sides["netdepth"], sides["lightning"])) for row, sides in rows),
        _line("**All**", _total([sides for _, sides in rows]), ""),
        "",
        f"{document['system']}; load before a row {min(loads):.1f} to {max(loads):.1f}.",
        "",
        "What was reached:",
        "",
        *(_reached(row, sides) for row, sides in rows),
    ]
    return "\n".join(lines) + "\n"


def _line(title: str, sides: dict[str, dict[str, Any]], said: str) -> str:
    ours, theirs = sides["netdepth"], sides["lightning"]
    ratio = f"{theirs['seconds'] / ours['seconds']:.1f}" if ours["seconds"] else "–"
    cells = [title]
    for name, form in (("commands", "d"), ("lines", "d"), ("seconds", ".1f")):
        cells += [f"{ours[name]:{form}}", f"{theirs[name]:{form}}"]
    return f"| {' | '.join([*cells, ratio, said])} |"


def _total(rows: list[dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    return {
        side: {name: sum(row[side][name] for row in rows) for name in ("commands", "lines", "seconds")}
        for side in ("netdepth", "lightning")
    }


def _reached(row: Row, sides: dict[str, dict[str, Any]]) -> str:
    said = [
        f"{name}: {'' if sides[side]['reached'] else 'not reached; '}{sides[side]['found']}"
        for side, name in (("netdepth", "netdepth"), ("lightning", "Lightning"))
    ]
    return f"- **{row.title}**: {row.goal}. {'. '.join(said)}."
