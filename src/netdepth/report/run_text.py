"""Runs as text: how one run ended, what the quickstart showed, and a `Comparison` as a table in four formats."""

from __future__ import annotations

import csv
import html
import io
import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

from netdepth.runs.folder import RunDir
from netdepth.runs.naming import SEPARATOR, changed_settings
from netdepth.runs.table import QUANTITIES, Quantity, RunRow, run_row, status_words
from netdepth.text import (
    STATUS_WORDS,
    age,
    capitalised,
    count,
    listed,
    number,
    percent,
    plain,
    points,
    print_table,
    printable,
    size,
    thousands,
)  # fmt: skip

if TYPE_CHECKING:  # a run is shown without NumPy
    from netdepth.runs.compare import ComparedRuns, Comparison
    from netdepth.runs.listing import Configuration
    from netdepth.stats.intervals import Estimate

__all__ = [
    "FORMATS", "cell_of", "class_words", "markdown_table", "markdown_text", "metric_table", "print_comparison",
    "print_listing", "print_next", "print_quickstart", "print_run", "render",
]  # fmt: skip

NAMED = 5
"""Classes that are named where many could be."""
SHARES = {"accuracy": "accuracy", "precision_weighted": "precision", "recall_weighted": "recall", "f1_weighted": "F1"}
"""Metrics that are shares, and what their columns are called."""
FORMATS = ("markdown", "csv", "latex")

# --- one run ---


def print_run(run: RunDir, notes: Sequence[str] = (), figure: Path | None = None) -> None:
    """Train / validation / test with best and last weights, then how the run ended and where its folder is."""
    row = run_row(run)
    network = f": depth {row.depth}, {thousands(row.num_params)} parameters" if row.num_params else ""
    title = f"{row.title}, seed {row.seed}{network}"
    header, lines = metric_table(row)
    print_table(header, lines, right=range(2, len(header)), title=title, ruled=(1, 3), spare=(6, 4, 5))
    print(f"* the weights this run reports ({'the last ones' if row.reported == 'last' else 'best on validation'})")
    if row.objective is not None:
        losses = "the losses here are the plain cross-entropy"
        if row.values and row.split is not None:
            losses = f"that is the loss here; the best constant answer has {number(row.split.constant_loss)} on train"
        print(printable(f"Minimised: {row.objective}; {losses}."))
    for line in class_words(row):
        print(printable(line))
    print(printable(capitalised(status_words(row)) + "."))
    origin = (run.result() or {}).get("continued_from")
    if origin is not None:
        print(
            printable(f"Trained on from {origin.get('run')}, step {origin.get('step')}: a smaller budget of the same.")
        )
    about = () if row.split is None else (*row.split.warnings, *filter(None, [row.split.note]))
    for note in (*about, *notes):
        print(printable(f"note: {note}"))
    print(printable(f"run folder: {run.path}"))
    if figure is not None:
        print(printable(f"learning curves: {figure}"))


def metric_table(row: RunRow) -> tuple[list[str], list[list[str]]]:
    """A header and a line of cells per part of the data and weights; a star marks the reported weights."""
    shown = {"r2": "R²", "mae": "MAE", "mse": "MSE"} if row.values else SHARES
    header = ["data", "weights", "loss", *shown.values(), *map(printable, row.own)]
    lines = []
    for part, name in (("train", "train"), ("val", "validation"), ("test", "test")):
        for weights in ("best", "last"):
            word = number if row.values else percent
            shares = [word(row.scores[f"{part}_{weights}_{metric}"]) for metric in shown]
            star = " *" if weights == row.reported else ""
            own = [number(row.scores[f"{part}_{weights}_{key}"]) for key in row.own]
            lines.append([name, weights + star, number(row.scores[f"{part}_{weights}_loss"]), *shares, *own])
    return header, lines


def class_words(row: RunRow) -> list[str]:
    """What an accuracy hides: the macro recall, the worst class, and the classes that are never found."""
    if not row.classes:
        return []
    part = {"test": "test", "val": "validation"}.get(str(row.evaluated_on), str(row.evaluated_on))
    worst, lost = row.classes[0], [one for one in row.classes if one.recall == 0]
    found = f"{percent(worst.recall)} of its {count(worst.support, 'image')} found"
    words = [f"Worst class on {part}: {worst.name}, {found}. Macro recall: {percent(row.macro_recall)}."]
    if lost:
        names = [f"{one.name} ({count(one.support, 'image')})" for one in lost]
        words.append(f"Never found: {listed(names, most=NAMED)}.")
    return words


def print_quickstart(run: RunDir, figure: Path | None) -> None:
    """What a newcomer has just seen."""
    row = run_row(run)
    split = run.split()
    sizes = {} if split is None else split.sizes
    print(
        f"\nA network with {row.depth} weight layers ({thousands(row.num_params)} numbers to learn) has seen "
        f"{thousands(sizes.get('train', 0))} handwritten digits,\n{plain(row.epochs)} times each. It recognises "
        f"{percent(row.scores['test_best_accuracy'])} of {thousands(sizes.get('test', 0))} digits that it had never "
        "seen."
    )
    if row.status == "stopped_early":
        print(
            f"Training stopped early: after epoch {plain(row.best_epoch)} the loss on the validation digits did not "
            "improve any more,\nand the weights of that epoch are kept."
        )
    if row.overfit_onset_epoch is not None:
        print(
            f"From epoch {plain(row.overfit_onset_epoch)} on it overfitted: it became better on the digits it learns "
            "from and worse on others."
        )
    if figure is not None:
        print(printable(f"The learning curves show both: {figure}"))


def print_next(report: Path | None, study: str) -> None:
    """What to do after the quickstart, whose runs are in ``study``."""
    print(
        "\nNext:\n"
        + (f"  open {printable(report)} in a browser\n" if report is not None else "")
        + "  netdepth runs list                           all runs, with what differs; --best 3 names the best\n"
        f"  netdepth inspect {study}/plain-he-depth-32-mnist5k-s0\n"
        "                                               gradients and activations inside a deep network\n"
        "  netdepth train baseline-mlp                  the same on all of MNIST (55,000 digits to learn from)\n"
        "  netdepth study depth-mlp --dry-run           what a study of 350 networks on MNIST would cost here\n"
        "  netdepth list recipes -v                     all recipes"
    )


# --- several runs ---


def print_listing(found: Sequence[Configuration]) -> None:
    """``netdepth runs list``: a line per configuration."""
    from netdepth.runs.listing import status_of

    now, cells = time.time(), []
    loss = next(quantity for quantity in QUANTITIES if quantity.key == "val_loss")
    for one in found:
        first, dataset = one.runs[0].kept, (one.runs[0].kept.dataset or "").partition(" ")[0]
        name = one.name if first.name or not dataset else f"{one.name} on {dataset}"
        differs = {path: value for path, value in one.differs.items() if path != "dataset" or first.name}
        cells.append(
            [
                name,
                SEPARATOR.join(changed_settings(differs)),
                str(first.seed) if len(one.runs) == 1 else f"{len(one.runs)} seeds",
                status_of(one, STATUS_WORDS),
                _interval(loss, one.estimate(loss.key), len(one.runs)),
                age(now - one.changed),
                size(one.size),
                first.fingerprint or first.error or "-",
            ]
        )
    header = ("run", "what differs", "seed", "status", loss.title, "age", "size", "fingerprint")
    print_table(header, cells, right=(2, 4, 5, 6), spare=(7, 6, 5, 2))


SPARE = ("weighted precision", "epochs", "test MSE", "val loss", "test loss", "macro recall")
"""Columns that a narrow terminal does without, the first of them first."""


DIFFERS = re.compile(f", |{SEPARATOR}")
"""What stands in a label between what is alike in a recipe's runs and what is not."""


@dataclass(frozen=True)
class _Table:
    """Lines of cells; the columns ``left`` are aligned to the left, and the last line is a mean where ``mean``."""

    title: str
    header: tuple[str, ...]
    lines: list[list[str]]
    left: tuple[int, ...]
    mean: bool

    @property
    def right(self) -> tuple[int, ...]:
        return tuple(index for index in range(len(self.header)) if index not in self.left)


def _tables(comparison: Comparison, flat: bool) -> list[_Table]:
    """One table of a line per configuration, the best validation loss first; of a single configuration, or of each if
    ``flat``, one of a line per run."""
    quantities, groups = comparison.quantities, comparison.groups
    if flat or len(groups) == 1:
        header = ("seed", "epochs", *(printable(q.title) for q in quantities), "status")
        return [_Table(group.label, header, _lines(group, quantities), (len(header) - 1,), True) for group in groups]
    parts = {group.label: DIFFERS.split(group.label, maxsplit=1) for group in groups}
    heads = {head for head, *_ in parts.values()}
    lines = []
    for group in sorted(groups, key=lambda group: group.worth("val_loss")):
        means = [group.estimates[quantity.key] for quantity in quantities]
        n = max(mean.n for mean in means)
        cells = [_interval(quantity, mean, n) for quantity, mean in zip(quantities, means, strict=True)]
        label = parts[group.label][-1] if len(heads) == 1 else group.label
        lines.append([label, str(n), *cells, ", ".join(group.remarks)])
    header = ("configuration", "n", *(printable(q.title) for q in quantities), "remarks")
    title = f"{count(len(groups), 'configuration')}, means ± 95 % t intervals, the smallest validation loss first"
    title = f"{heads.pop()}: {title}" if len(heads) == 1 else title
    return [_Table(title, header, lines, (0, len(header) - 1), False)]


def print_comparison(comparison: Comparison, stream: TextIO | None = None, *, flat: bool = False) -> None:
    """The comparison as tables on ``stream`` (stdout if None); ``flat``: with a line per run."""
    for table in _tables(comparison, flat):
        names = [name for name in SPARE if name in table.header and (table.mean or name != "val loss")]  # sorted by it
        spare = [table.header.index(name) for name in names]
        ruled = [len(table.lines) - 2] if table.mean else []
        print_table(
            table.header, table.lines, right=table.right, title=table.title, ruled=ruled, spare=spare, stream=stream
        )


def render(comparison: Comparison, style: Literal["markdown", "csv", "latex"], *, flat: bool = False) -> str:
    """The comparison as a text that ends with a newline.

    Markdown and LaTeX show what `print_comparison` shows, in per cent; CSV holds fractions, one line per run and then
    the mean, its low and high end and n of each group.
    """
    return _csv(comparison) if style == "csv" else {"markdown": _markdown, "latex": _latex}[style](comparison, flat)


def _lines(group: ComparedRuns, quantities: Sequence[Quantity]) -> list[list[str]]:
    """A line of cells per run, then the line of means."""
    lines = []
    for row in group.rows:
        epochs = plain(row.epochs)
        cells = [quantity.of_run(row) for quantity in quantities]
        error = f": {row.error}" if row.error else ""
        lines.append([str(row.seed), epochs, *cells, f"{STATUS_WORDS.get(row.status, row.status)}{error}"])
    counts = {estimate.n for estimate in group.estimates.values()}
    total = ", ".join([f"n = {max(counts)} of {len(group.rows)} runs", *group.remarks])
    means = [_interval(quantity, group.estimates[quantity.key], max(counts)) for quantity in quantities]
    lines.append(["mean ± 95 % t interval", "", *means, total])
    return lines


def _interval(quantity: Quantity, estimate: Estimate, usual: int) -> str:
    """``98.01 ± 0.07 %``; says its own n where that is not the line's."""
    if estimate.value is None:
        return "-"
    own = f" (n = {estimate.n})" if estimate.n != usual else ""
    if estimate.low is None or estimate.high is None:
        return quantity.shown(estimate.value) + own
    half = (estimate.high - estimate.low) / 2
    if quantity.percent:
        return f"{points(estimate.value, sign=False)} ± {percent(half)}{own}"
    return f"{number(estimate.value)} ± {number(half)}{own}"


def markdown_text(text: object) -> str:
    """``text`` as literal Markdown in a table cell: no pipes, tags or emphasis of its own."""
    safe = html.escape(printable(text), quote=False)
    return "".join(f"\\{c}" if c in "\\|`*_[]~$" else c for c in safe)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """A table of cells that are Markdown already; the columns ``right`` are aligned to the right."""
    rule = ["---:" if index in right else "---" for index in range(len(header))]
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, rule, *rows))


def _markdown(comparison: Comparison, flat: bool) -> str:
    parts = []
    for table in _tables(comparison, flat):
        lines = [[markdown_text(cell) for cell in line] for line in table.lines]
        if table.mean:
            lines[-1] = [f"**{cell}**" if cell else "" for cell in lines[-1]]
        header = [markdown_text(title) for title in table.header]
        parts += [f"**{markdown_text(table.title)}**", markdown_table(header, lines, table.right)]
    parts += [f"Note: {markdown_text(warning)}." for warning in comparison.warnings]
    return "\n\n".join(parts) + "\n"


LATEX_ESCAPES = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$",
    "<": r"\textless{}", ">": r"\textgreater{}", **{c: f"\\{c}" for c in "&%$#_{}"},
}  # fmt: skip


def _latex(comparison: Comparison, flat: bool) -> str:
    parts = []
    for table in _tables(comparison, flat):
        rows = [" & ".join(map(_latex_text, line)) + r" \\" for line in (table.header, *table.lines)]
        body = [*rows[1:-1], r"\hline", rows[-1]] if table.mean else rows[1:]
        columns = "".join("l" if index in table.left else "r" for index in range(len(table.header)))
        begin = rf"\begin{{tabular}}{{{columns}}}"
        lines = [begin, r"\hline", rows[0], r"\hline", *body, r"\hline", r"\end{tabular}"]
        parts.append("\n".join([f"% {printable(table.title)}", *lines]))
    parts += [f"% {printable(warning)}" for warning in comparison.warnings]
    return "\n\n".join(parts) + "\n"


def _latex_text(text: str) -> str:
    return "".join(LATEX_ESCAPES.get(c, c) for c in printable(text))


def _csv(comparison: Comparison) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    keys = [quantity.key for quantity in comparison.quantities]
    names = map(printable, keys)
    writer.writerow(["line", "group", "fingerprint", "run", "folder", "seed", "epochs", *names, "reported", "status"])
    for group in comparison.groups:
        head = [printable(group.label), group.fingerprint]
        for row in group.rows:
            values = [quantity.of(row) for quantity in comparison.quantities]
            place = [row.run, row.folder, row.seed, row.epochs]
            writer.writerow(["run", *head, *map(cell_of, [*place, *values, row.reported, row.status])])
        means = [group.estimates[key] for key in keys]
        ends: dict[str, list[Any]] = {
            "mean": [mean.value for mean in means], "low": [mean.low for mean in means],
            "high": [mean.high for mean in means], "n": [mean.n for mean in means],
        }  # fmt: skip
        for line, values in ends.items():
            writer.writerow([line, *head, "", "", "", "", *map(cell_of, values), "", ""])
    return out.getvalue()


def cell_of(value: Any) -> Any:
    """A cell of a CSV file: without control characters, NaN and Inf as words."""
    if isinstance(value, str):
        return printable(value)
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
