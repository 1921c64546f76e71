"""A `Comparison` as text for the terminal, Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import html
import io
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, TextIO

from netdepth.runs.compare import QUANTITIES, ComparedRuns, Comparison, Quantity
from netdepth.stats.intervals import Estimate
from netdepth.text import number, percent, print_table, printable

__all__ = ["FORMATS", "markdown_text", "print_comparison", "render"]

HEADER = ("seed", "epochs", *(q.title for q in QUANTITIES), "status")
FORMATS = ("markdown", "csv", "latex")


def print_comparison(comparison: Comparison, stream: TextIO | None = None) -> None:
    """The comparison as tables on ``stream`` (stdout if None)."""
    for group in comparison.groups:
        lines = _lines(group)
        columns, rule = range(len(HEADER) - 1), [len(lines) - 2]
        print_table(HEADER, lines, right=columns, title=group.label, ruled=rule, stream=stream)


def render(comparison: Comparison, style: Literal["markdown", "csv", "latex"]) -> str:
    """The comparison as a text that ends with a newline.

    Markdown and LaTeX show per cent; CSV holds fractions, one line per run and then the mean,
    its low and high end and n of each group.
    """
    return {"markdown": _markdown, "csv": _csv, "latex": _latex}[style](comparison)


def _lines(group: ComparedRuns) -> list[list[str]]:
    """A line of cells per run, then the line of means."""
    lines = []
    for row in group.rows:
        epochs = "-" if row["epochs"] is None else f"{row['epochs']:g}"
        cells = [_shown(quantity, quantity.of(row)) for quantity in QUANTITIES]
        error = f": {row['error']}" if row["error"] else ""
        lines.append([str(row["seed"]), epochs, *cells, f"{row['status'].replace('_', ' ')}{error}"])
    counts = {estimate.n for estimate in group.estimates.values()}
    total = ", ".join([f"n = {max(counts)} of {len(group.rows)} runs", *group.remarks])
    means = [_interval(quantity, group.estimates[quantity.key], max(counts)) for quantity in QUANTITIES]
    lines.append(["mean ± 95 % t interval", "", *means, total])
    return lines


def _shown(quantity: Quantity, value: float | None) -> str:
    return percent(value) if quantity.percent else number(value)


def _interval(quantity: Quantity, estimate: Estimate, usual: int) -> str:
    """``98.01 ± 0.07 %``; says its own n where that is not the line's."""
    if estimate.value is None:
        return "-"
    own = f" (n = {estimate.n})" if estimate.n != usual else ""
    if estimate.low is None or estimate.high is None:
        return _shown(quantity, estimate.value) + own
    half = (estimate.high - estimate.low) / 2
    if quantity.percent:
        return f"{100 * estimate.value:.2f} ± {100 * half:.2f} %{own}"
    return f"{number(estimate.value)} ± {number(half)}{own}"


def markdown_text(text: object) -> str:
    """``text`` as literal Markdown in a table cell: no pipes, tags or emphasis of its own."""
    safe = html.escape(printable(text), quote=False)
    return "".join(f"\\{c}" if c in "\\|`*_[]~$" else c for c in safe)


def _markdown(comparison: Comparison) -> str:
    parts = []
    for group in comparison.groups:
        *runs, mean = [[markdown_text(cell) for cell in line] for line in _lines(group)]
        bold = [f"**{cell}**" if cell else "" for cell in mean]
        table = [list(HEADER), ["---:"] * (len(HEADER) - 1) + ["---"], *runs, bold]
        parts.append("\n".join([f"**{markdown_text(group.label)}**", "", *(f"| {' | '.join(r)} |" for r in table)]))
    parts += [f"Note: {markdown_text(warning)}." for warning in comparison.warnings]
    return "\n\n".join(parts) + "\n"


LATEX_ESCAPES = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$",
    "<": r"\textless{}", ">": r"\textgreater{}", **{c: f"\\{c}" for c in "&%$#_{}"},
}  # fmt: skip


def _latex_text(text: object) -> str:
    return "".join(LATEX_ESCAPES.get(c, c) for c in printable(text))


def _latex(comparison: Comparison) -> str:
    parts = []
    for group in comparison.groups:
        *runs, mean = [[_latex_text(cell) for cell in line] for line in _lines(group)]
        columns = "r" * (len(HEADER) - 1) + "l"
        parts.append(
            "\n".join(
                [
                    f"% {printable(group.label)}",
                    rf"\begin{{tabular}}{{{columns}}}",
                    r"\hline",
                    _latex_row([_latex_text(title) for title in HEADER]),
                    r"\hline",
                    *(_latex_row(line) for line in runs),
                    r"\hline",
                    _latex_row(mean),
                    r"\hline",
                    r"\end{tabular}",
                ]
            )
        )
    parts += [f"% {printable(warning)}" for warning in comparison.warnings]
    return "\n\n".join(parts) + "\n"


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _csv(comparison: Comparison) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    keys = [quantity.key for quantity in QUANTITIES]
    writer.writerow(["line", "group", "fingerprint", "run", "folder", "seed", "epochs", *keys, "reported", "status"])
    for group in comparison.groups:
        head = [printable(group.label), group.fingerprint]
        for row in group.rows:
            values = [quantity.of(row) for quantity in QUANTITIES]
            place = [row["run"], row["folder"], row["seed"], row["epochs"]]
            writer.writerow(["run", *head, *map(_cell, [*place, *values, row["reported"], row["status"]])])
        wanted: dict[str, Callable[[Estimate], Any]] = {
            "mean": lambda e: e.value, "low": lambda e: e.low, "high": lambda e: e.high, "n": lambda e: e.n,
        }  # fmt: skip
        for line, pick in wanted.items():
            cells = [_cell(pick(group.estimates[key])) for key in keys]
            writer.writerow([line, *head, "", "", "", "", *cells, "", ""])
    return out.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
