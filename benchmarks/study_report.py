"""From the measured seconds of `study.py` to tables: on the terminal and as Markdown."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WORDS = {
    "eager-foreach": "PyTorch, eager, one run after another, default Adam (foreach)",
    "eager-fused": "PyTorch, eager, one run after another, `Adam(fused=True)`",
    "eager-one-thread": "PyTorch, eager, fused Adam, one thread",
    "eager-processes": "PyTorch, eager, fused Adam, two processes of one thread, one run at a time",
    "vmap": "`torch.func.vmap` over the seeds, fused Adam",
    "baddbmm": "seeds stacked by hand: `baddbmm`, autograd, fused Adam",
    "jax-scan": "JAX, one `lax.scan` per epoch, one run after another",
    "jax-vmap": "JAX, one `lax.scan` per epoch, `vmap` over the seeds",
    "jax-processes": "JAX, one `lax.scan` per epoch, two processes, each pinned to a core",
    "netdepth": "**`netdepth study`**, without start-up",
    "netdepth-command": "**`netdepth study --no-report`**, the whole command",
    "netdepth-report": "**`netdepth study`**, the whole command, report included",
    "notebook": "notebook: PIL, transforms per sample, DataLoader; extrapolated from one seed",
}
REFERENCES = ("eager-foreach", "eager-fused")


@dataclass(frozen=True)
class Row:
    """One way of making a study; ``faster`` are ratios to the reference, None where there is none."""

    name: str
    median: float
    low: float
    high: float
    faster: float | None
    faster_at: Mapping[str, float]
    startup: float


def seconds_of(baselines: Mapping[str, Any], seeds: int) -> dict[str, list[float]]:
    """Seconds of each way in each round; netdepth's command is a way of its own, one seed is taken times ``seeds``."""
    found: dict[str, list[float]] = {}
    for name, measured in baselines.items():
        turns, times = measured["turns"], seeds / measured["seeds_trained"]
        if name != "netdepth-report":
            found[name] = [turn["seconds"] * times for turn in turns]
        if "whole" in turns[0]:
            found["netdepth-command" if name == "netdepth" else name] = [turn["whole"] for turn in turns]
    return found


def reference_of(seconds: Mapping[str, Sequence[float]]) -> str | None:
    """The faster of the two eager loops."""
    there = [name for name in REFERENCES if name in seconds]
    return min(there, key=lambda name: statistics.median(seconds[name])) if there else None


def summarise(baselines: Mapping[str, Any], seeds: int) -> list[Row]:
    """The rows of a study, fastest first.

    A ratio is the median of the ratios of each round, so a slow stretch of the machine, which hits
    both, cancels.
    """
    seconds = seconds_of(baselines, seeds)
    reference = reference_of(seconds)
    rows = []
    for name, values in seconds.items():
        measured = baselines["netdepth" if name == "netdepth-command" else name]
        startup = measured["startup"]
        if name.startswith("netdepth"):
            startup = statistics.median(turn["whole"] - turn["seconds"] for turn in measured["turns"])
        faster, faster_at = None, {}
        if reference is not None:
            faster = _ratio(seconds[reference], values)
            if name not in ("netdepth-command", "netdepth-report"):
                times = seeds / measured["seeds_trained"]
                faster_at = {
                    depth: _ratio(
                        [turn["depths"][depth] for turn in baselines[reference]["turns"]],
                        [turn["depths"][depth] * times for turn in measured["turns"]],
                    )
                    for depth in measured["turns"][0]["depths"]
                }
        rows.append(Row(name, statistics.median(values), min(values), max(values), faster, faster_at, startup))
    return sorted(rows, key=lambda row: row.median)


def _ratio(reference: Sequence[float], values: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(reference, values, strict=True))


def headings(depths: Sequence[int]) -> list[str]:
    return ["times faster", "median s", "min s", "max s", *(f"depth {depth}" for depth in depths), "start-up s"]


def cells(row: Row, depths: Sequence[int]) -> list[str]:
    """A row as text, in the order of `headings`."""
    return [
        "–" if row.faster is None else f"{row.faster:.2f}",
        f"{row.median:.1f}",
        f"{row.low:.1f}",
        f"{row.high:.1f}",
        *(f"{row.faster_at[str(depth)]:.2f}" if str(depth) in row.faster_at else "–" for depth in depths),
        f"{row.startup:.1f}",
    ]


def remedies(measured: Mapping[str, Any]) -> list[list[str]]:
    """Rows of remedy, whether it has the fast path, steps per second, times plain; medians over the rounds."""
    turns = measured["turns"]
    rows = []
    for name, fast in turns[0]["fast_path"].items():
        rates = [turn["steps_per_second"][name] for turn in turns]
        plain = [turn["steps_per_second"]["plain"] for turn in turns]
        median = f"{statistics.median(rates):,.0f}"
        rows.append([name, "yes" if fast else "no", median, f"{_ratio(rates, plain):.2f}"])
    return rows


REMEDY_HEADINGS = ("network", "fast path", "steps/s", "times plain")


def show(results: Mapping[str, Any]) -> None:
    """Print every table."""
    from rich.console import Console
    from rich.table import Table

    console, depths = Console(width=120), results["settings"]["depths"]
    for seeds, baselines in results["studies"].items():
        table = Table(title=f"{seeds} seeds: seconds per study", title_justify="left")
        table.add_column("way", no_wrap=True)
        for heading in headings(depths):
            table.add_column(heading, justify="right")
        for row in summarise(baselines, int(seeds)):
            table.add_row(row.name, *cells(row, depths))
        console.print(table)
    if results["remedies"]:
        depth = results["settings"]["remedies_depth"]
        table = Table(*REMEDY_HEADINGS, title=f"depth {depth}: one network alone, one thread", title_justify="left")
        for cell in remedies(results["remedies"]):
            table.add_row(*cell)
        console.print(table)


def _table(first: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {first} | {' | '.join(columns)} |", f"| --- |{' ---: |' * len(columns)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def notes(baselines: Mapping[str, Any], seeds: int) -> str:
    """What the numbers of one study rest on."""
    seconds = seconds_of(baselines, seeds)
    losses = [turn["train_loss"] for measured in baselines.values() for turn in measured["turns"]]
    said = [
        "Training loss of the shallowest network, first seed, over all implementations and rounds: "
        f"{min(losses):.4f} to {max(losses):.4f}."
    ]
    if (reference := reference_of(seconds)) is not None:
        said.insert(0, f"Compared with {WORDS[reference]}.")
    if "netdepth" in baselines:
        last = baselines["netdepth"]["turns"][-1]
        stacks = "; ".join(f"depth {d}: {' + '.join(map(str, sizes))}" for d, sizes in last["stacks"].items())
        said.append(f"netdepth's stacks of seeds: {stacks}. It wrote {last['megabytes']:.0f} MB.")
    return " ".join(said)


def markdown(results: Mapping[str, Any]) -> str:
    """Every table with what it was measured on."""
    machine, settings = results["machine"], results["settings"]
    versions = ", ".join(f"{name} {machine['versions'][name]}" for name in ("netdepth", "torch", "jax", "numpy"))
    depths = settings["depths"]
    parts = [
        f"Measured on {results['date']}: {machine['cpu']}, {machine['cores']} cores, {machine['capability']}; "
        f"{settings['threads']} threads, rounds: {settings['rounds']}, load before them {results['load_before']}. "
        f"Python {machine['python']}, {versions}. {settings['dataset']}, width {settings['width']}, "
        f"batch {settings['batch_size']}, epochs: {settings['epochs']}.",
    ]
    for seeds, baselines in results["studies"].items():
        rows = [[WORDS[row.name], *cells(row, depths)] for row in summarise(baselines, int(seeds))]
        parts.append(f"### {len(depths)} depths × {seeds} seeds")
        parts += [_table("Implementation", headings(depths), rows), notes(baselines, int(seeds))]
    if results["remedies"]:
        parts.append(f"### Remedies: one network of depth {settings['remedies_depth']} alone, one thread")
        parts.append(_table(REMEDY_HEADINGS[0], REMEDY_HEADINGS[1:], remedies(results["remedies"])))
    return "\n\n".join(parts)


def summary(results: Mapping[str, Any], seeds: str) -> str:
    """A short table of one study, for the README."""
    depths = ", ".join(map(str, results["settings"]["depths"]))
    rows = summarise(results["studies"][seeds], int(seeds))
    shown = [[WORDS[row.name], f"{row.median:.1f}", "–" if row.faster is None else f"{row.faster:.1f}"] for row in rows]
    table = _table(f"Depths {depths} × {seeds} seeds", ("median s", "times faster"), shown)
    median = {row.name: row.median for row in rows}
    if not {"notebook", "netdepth-command"} <= set(median):
        return table
    times = median["notebook"] / median["netdepth-command"]
    return (
        f"{table}\n\nThe notebook style would take {times:.0f} times as long as `netdepth study --no-report`: "
        "extrapolated from one seed per depth to all of them."
    )


def block(path: Path, which: str) -> str:
    """What stands between the markers ``<!-- study-benchmark: WHICH -->``: ``all``, or a number of seeds.

    Raises:
        SystemExit: there are no results, or none for that number of seeds.
    """
    if not path.exists():
        raise SystemExit(f"{path} is missing; measure with: python benchmarks/study.py --json {path}")
    results = json.loads(path.read_text(encoding="utf-8"))
    if which == "all":
        return markdown(results)
    if which not in results["studies"]:
        raise SystemExit(f"{path.name} has no study of {which} seeds; it has {', '.join(results['studies'])}")
    return summary(results, which)
