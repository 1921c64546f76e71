"""The end of ``train`` and ``quickstart`` in words and one table, read from the run folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from netdepth.runs.folder import RunDir
from netdepth.runs.table import run_row
from netdepth.text import number, percent, print_table, printable, status_words

__all__ = ["print_next", "print_quickstart", "print_run"]

PARTS = {"train": "train", "val": "validation", "test": "test"}
HEADER = ("data", "weights", "loss", "accuracy", "precision", "recall", "F1")


def print_run(run: RunDir, notes: Sequence[str] = (), figure: Path | None = None) -> None:
    """Train / validation / test with best and last weights, then how the run ended and where it lies."""
    row = run_row(run)
    print_table(HEADER, _metric_lines(row), right=range(2, 7), title=_title(row), ruled=(1, 3))
    print(f"* the weights this run reports ({'the last ones' if row['reported'] == 'last' else 'best on validation'})")
    print(printable(_capitalised(status_words(row)) + "."))
    for note in notes:
        print(printable(f"note: {note}"))
    print(printable(f"run folder: {run.path}"))
    if figure is not None:
        print(printable(f"learning curves: {figure}"))


def print_quickstart(run: RunDir, figure: Path | None) -> None:
    """What a newcomer has just seen, and what to try next."""
    row = run_row(run)
    sizes: dict[str, Any] = (run.read_json("split.json") or {}).get("sizes", {})
    print(
        f"\nA network of {row['depth']} weight layers ({row['num_params']:,} numbers to learn) has looked at "
        f"{sizes.get('train', 0):,} handwritten digits,\n{row['epochs']:g} times each. It names "
        f"{percent(row['test_best_accuracy'])} of {sizes.get('test', 0):,} digits it had never seen."
    )
    if row["status"] == "stopped_early":
        print(
            f"Training ended by itself: after epoch {row['best_epoch']:g} the loss on the validation digits did not "
            "improve any more,\nand the weights of that epoch are the ones kept."
        )
    if row["overfit_onset_epoch"] is not None:
        print(
            f"From epoch {row['overfit_onset_epoch']:g} on it overfitted: better and better on the digits it learns "
            "from, worse on others."
        )
    if figure is not None:
        print(printable(f"Both are marked in the picture of its learning: {figure}"))


def print_next(report: Path | None) -> None:
    """Where to go from the quickstart."""
    print(
        "\nNext:\n"
        + (f"  open {printable(report)} in a browser\n" if report is not None else "")
        + "  netdepth inspect plain-he-depth-32-mnist5k-s0    what gradients and activations do inside a deep network\n"
        "  netdepth train baseline-mlp                  the same on all of MNIST (55,000 digits to learn from)\n"
        "  netdepth study depth-mlp --dry-run           350 networks on all of MNIST: what that would cost here\n"
        "  netdepth list recipes -v                     what else there is"
    )


def _title(row: dict[str, Any]) -> str:
    dataset = str(row["dataset"]).partition(" ")[0]
    network = f": depth {row['depth']}, {row['num_params']:,} parameters" if row["num_params"] else ""
    return f"{row['recipe']} on {dataset}, seed {row['seed']}{network}"


def _metric_lines(row: dict[str, Any]) -> list[list[str]]:
    lines = []
    for part, title in PARTS.items():
        for weights in ("best", "last"):
            values = {m: row[f"{part}_{weights}_{m}"] for m in ("accuracy", "precision_weighted", "recall_weighted")}
            star = " *" if weights == row["reported"] else ""
            loss = number(row[f"{part}_{weights}_loss"])
            f1 = percent(row[f"{part}_{weights}_f1_weighted"])
            lines.append([title, weights + star, loss, *map(percent, values.values()), f1])
    return lines


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]
