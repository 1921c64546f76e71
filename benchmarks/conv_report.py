"""From the measured seconds of `conv.py` to a table: on the terminal and as Markdown."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WORDS = {
    "limit": "the limit: operations of the convolutions over the best rate of float32 products",
    "convolutions": "the convolutions alone, float32",
    "convolutions-bf16": "the convolutions alone, bf16",
    "notebook": "notebook: PIL transforms in a DataLoader, float32, NCHW",
    "eager": "PyTorch, tensors in memory, float32, NCHW",
    "channels-last": "PyTorch, tensors in memory, float32, channels_last",
    "channels-last-pages": "the same with large pages",
    "bf16": "PyTorch, tensors in memory, channels_last, bf16 autocast",
    "bf16-pages": "the same with large pages",
    "compiled-bf16": "PyTorch, channels_last, bf16 autocast, `torch.compile`",
    "jax": "JAX, NHWC, float32, compiled step",
    "netdepth": "**netdepth**, float32",
    "netdepth-pages": "**netdepth**, float32, with large pages, as in a study's workers",
    "netdepth-bf16": "**netdepth**, bf16",
    "netdepth-bf16-pages": "**netdepth**, bf16, with large pages, as in a study's workers",
    "airbench": "the loader and loop of cifar10-airbench: epochs augmented on the GPU, float16",
}
REFERENCE = "notebook"
HEADINGS = ("images/s", "min", "max", "× notebook", "share of the limit", "GPU busy", "start-up s")


@dataclass(frozen=True)
class Row:
    """One way of training; rates in images per second, ``times``, ``share`` and ``busy`` (the share of the time in
    which a GPU had a kernel) None where there is no reference."""

    name: str
    median: float
    low: float
    high: float
    times: float | None
    share: float | None
    startup: float
    busy: float | None

    def cells(self) -> list[str]:
        """As text, in the order of `HEADINGS`."""
        return [
            f"{self.median:,.0f}",
            f"{self.low:,.0f}",
            f"{self.high:,.0f}",
            "–" if self.times is None else f"{self.times:.2f}",
            *("–" if part is None else f"{part:.0%}" for part in (self.share, self.busy)),
            f"{self.startup:.1f}",
        ]


def summarise(baselines: Mapping[str, Any]) -> list[Row]:
    """The rows, fastest first.

    A ratio is the median of the ratios of each round, so a slow stretch of the machine, which hits both,
    cancels. The limit is the best rate of any turn.
    """
    rates = {name: [turn["images"] / turn["seconds"] for turn in m["turns"]] for name, m in baselines.items()}
    limit = max(rates["limit"]) if "limit" in rates else None
    rows = []
    for name, values in rates.items():
        times = None
        if REFERENCE in rates:
            times = statistics.median(a / b for a, b in zip(values, rates[REFERENCE], strict=True))
        median = statistics.median(values)
        share = median / limit if limit is not None else None
        seen = [turn["gpu_busy"] for turn in baselines[name]["turns"] if "gpu_busy" in turn]
        busy = statistics.fmean(seen) if seen else None
        rows.append(Row(name, median, min(values), max(values), times, share, baselines[name]["startup"], busy))
    return sorted(rows, key=lambda row: -row.median)


def _columns(rows: Sequence[Row]) -> tuple[list[str], dict[str, list[str]]]:
    """Headings and, by name, the cells of those columns in which something stands."""
    cells = {row.name: row.cells() for row in rows}
    used = [i for i in range(len(HEADINGS)) if any(line[i] != "–" for line in cells.values())]
    return [HEADINGS[i] for i in used], {name: [line[i] for i in used] for name, line in cells.items()}


def show(results: Mapping[str, Any]) -> None:
    """Print the table."""
    from rich.console import Console
    from rich.table import Table

    depth, batch = results["settings"]["depth"], results["settings"]["batch_size"]
    table = Table(title=f"ResNet-{depth}, batch {batch}: training images per second", title_justify="left")
    table.add_column("way", no_wrap=True)
    headings, rows = _columns(summarise(results["contestants"]))
    for heading in headings:
        table.add_column(heading, justify="right")
    for name, cells in rows.items():
        table.add_row(name, *cells)
    Console(width=120).print(table)


def markdown(results: Mapping[str, Any]) -> str:
    """The table with what it was measured on."""
    machine, settings = results["machine"], results["settings"]
    gpu = f"{machine['gpu']}; " if settings.get("device") == "cuda" else ""
    headings, rows = _columns(summarise(results["contestants"]))
    versions = ", ".join(f"{name} {machine['versions'][name]}" for name in ("netdepth", "torch", "jax"))
    lines = [
        f"Measured on {results['date']}: {gpu}{machine['cpu']}, {machine['cores']} cores, {machine['capability']}; "
        f"{settings['threads']} threads, rounds: {settings['rounds']}, load before them {results['load_before']}. "
        f"Python {machine['python']}, {versions}. ResNet-{settings['depth']} on {settings['dataset']}, "
        f"batch {settings['batch_size']}, {settings['images']:,} images per turn.",
        "",
        f"| Implementation | {' | '.join(headings)} |",
        f"| --- |{' ---: |' * len(headings)}",
    ]
    lines += [f"| {WORDS[name]} | {' | '.join(cells)} |" for name, cells in rows.items()]
    losses = [t["train_loss"] for m in results["contestants"].values() for t in m["turns"] if "train_loss" in t]
    if losses:
        lines += [
            "",
            "Mean training loss of the epoch, over all implementations and rounds: "
            f"{min(losses):.3f} to {max(losses):.3f}.",
        ]
    return "\n".join(lines)


def block(path: Path) -> str:
    """The table of a file that `conv.py` wrote.

    Raises:
        SystemExit: there is none.
    """
    if not path.exists():
        raise SystemExit(f"{path} is missing; measure with: python benchmarks/conv.py --json {path}")
    return markdown(json.loads(path.read_text(encoding="utf-8")))
