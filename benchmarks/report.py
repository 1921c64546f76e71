"""From the measured seconds to tables: on the terminal and in docs/benchmarks.md."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMPARED_EPOCH = 5
"""All baselines' validation accuracy is shown after this many epochs."""
BEGIN, END = "<!-- benchmark: begin -->", "<!-- benchmark: end -->"

WORDS = {
    "limit": "the limit: operations over the best measured rate",
    "products": "the matrix products alone",
    "products-onednn": 'the matrix products alone, precision "medium"',
    "jax-scan": "JAX, one `lax.scan` per epoch",
    "netdepth": "**netdepth**, metrics, run folder and progress on",
    "bare": "PyTorch, tensors in memory, fused Adam",
    "bare-onednn": 'PyTorch, the same, precision "medium"',
    "keras-jax": "Keras 3 on JAX",
    "lightning": "Lightning, TensorDataset, fused Adam; bar, logger and checkpoints off",
    "lightning-default": "Lightning, the same with the default Adam",
    "notebook": "notebook: PIL, transforms per sample, DataLoader",
}


@dataclass(frozen=True)
class Row:
    """One baseline at one batch size; ratios and accuracy are None where they have no meaning."""

    name: str
    median: float
    low: float
    high: float
    to_limit: float | None
    to_netdepth: float | None
    val_accuracy: float | None


def summarise(turns: dict[str, list[dict[str, Any]]]) -> list[Row]:
    """``turns[name]`` is every reply in order, the warm-up first; rows come fastest first.

    The ratio to netdepth is the median of the ratios of each round, so a slow stretch of the
    machine, which hits both, cancels. The limit is its fastest turn.
    netdepth starts afresh each turn, so its accuracy is a mean over seeds.
    """
    seconds = {name: [turn["seconds"] for turn in replies[1:]] for name, replies in turns.items()}
    limit = min(seconds["limit"]) if "limit" in seconds else None
    rows = []
    for name, values in seconds.items():
        median = statistics.median(values)
        paired = None
        if "netdepth" in seconds and name != "limit":
            paired = statistics.median(a / b for a, b in zip(values, seconds["netdepth"], strict=True))
        compared = [turn["val_accuracy"] for turn in turns[name] if turn["epochs"] == COMPARED_EPOCH]
        reached = [accuracy for accuracy in compared if accuracy is not None]
        rows.append(
            Row(
                name=name,
                median=median,
                low=min(values),
                high=max(values),
                to_limit=median / limit if limit is not None and name != "limit" else None,
                to_netdepth=paired,
                val_accuracy=statistics.mean(reached) if reached else None,
            )
        )
    return sorted(rows, key=lambda row: (row.name != "limit", row.median))


HEADINGS = (
    "median s",
    "min s",
    "max s",
    "× limit",
    "× netdepth",
    f"val. accuracy after {COMPARED_EPOCH} epochs",
)


def cells(row: Row) -> list[str]:
    """A row as text, in the order of `HEADINGS`."""
    return [
        f"{row.median:.2f}",
        f"{row.low:.2f}",
        f"{row.high:.2f}",
        "–" if row.to_limit is None else f"{row.to_limit:.1f}",
        "–" if row.to_netdepth is None else f"{row.to_netdepth:.2f}",
        "–" if row.val_accuracy is None else f"{100 * row.val_accuracy:.2f} %",
    ]


def show(batch_size: int, turns: dict[str, list[dict[str, Any]]]) -> None:
    """Print one batch size's table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"batch {batch_size}: seconds per epoch", title_justify="left")
    table.add_column("way", no_wrap=True)
    for heading in HEADINGS:
        table.add_column(heading, justify="right")
    for row in summarise(turns):
        table.add_row(row.name, *cells(row))
    console = Console()
    console.print(table)
    for name, replies in turns.items():
        if replies[-1]["idle_cpu"] > 0.02:
            console.print(f"{name} used {replies[-1]['idle_cpu']:.0%} of a core while it should have slept")


def markdown(results: dict[str, Any]) -> str:
    """The generated part of docs/benchmarks.md."""
    machine = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    parts = [
        f"Measured on {results['date']}: {machine['cpu']}, {machine['cores']} cores, {machine['capability']}; "
        f"{results['threads']} threads, {results['rounds']} rounds, load before them {results['load_before']}. "
        f"Python {machine['python']}, {versions}.",
    ]
    for size, turns in results["batches"].items():
        rows = summarise(turns)
        parts += [
            f"### Batch {size}",
            "\n".join(
                [
                    f"| Implementation | {' | '.join(HEADINGS)} |",
                    f"| --- |{' ---: |' * len(HEADINGS)}",
                    *(f"| {WORDS[row.name]} | {' | '.join(cells(row))} |" for row in rows),
                ]
            ),
        ]
    return "\n\n".join(parts)


def summary(results: dict[str, Any], batch_size: str) -> str:
    """A short table of one batch size, for the README."""
    rows = [row for row in summarise(results["batches"][batch_size]) if row.to_netdepth is not None]
    lines = [f"| One epoch at batch {batch_size} | median s | × netdepth |", "| --- | ---: | ---: |"]
    lines += [f"| {WORDS[row.name]} | {row.median:.2f} | {row.to_netdepth:.2f} |" for row in rows]
    return "\n".join(lines)


def rendered(page: str, results: dict[str, Any]) -> str:
    """``page`` with the tables of ``results`` between its markers.

    Raises:
        SystemExit: the page lacks its markers.
    """
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        raise SystemExit(f"the page must hold {BEGIN} and {END} once each")
    head, rest = page.split(BEGIN)
    return f"{head}{BEGIN}\n\n{markdown(results)}\n\n{END}{rest.split(END)[1]}"


def render(results: Path, page: Path) -> bool:
    """Write the tables of ``results`` into ``page``; True if the page changed.

    Raises:
        SystemExit: the page lacks its markers, or there are no results.
    """
    if not results.exists():
        raise SystemExit(f"{results} is missing; measure with --json {results}")
    before = page.read_text(encoding="utf-8")
    after = rendered(before, json.loads(results.read_text(encoding="utf-8")))
    page.write_text(after, encoding="utf-8")
    return after != before
