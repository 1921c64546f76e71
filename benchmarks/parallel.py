"""The same run in one process and in several under torchrun: its losses side by side, as a Markdown table.

    python benchmarks/parallel.py --data DIR                      # the table of docs/scaling.md
    python benchmarks/parallel.py --data DIR --case mlp --ranks 4

Nothing is timed. The means of the training losses lie `eval_every` steps apart, the first after one such period.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SGD = ("optimizer=sgd", "optimizer.lr=0.05", "optimizer.momentum=0.9", "optimizer.weight_decay=1e-4")
CONVOLUTIONAL = (*SGD, "augmentation=crop-flip", "train.batch_size=128")
CASES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "mlp": ("MLP 784-256-128-10, no batch norm", "mnist", ()),
    "mlp-float64": ("the same in float64", "mnist", ("train.precision=float64",)),
    "cnn": ("simple CNN, no batch norm", "cifar10-jpeg", ("model=cnn", "model.dropout=0", *CONVOLUTIONAL)),
    "resnet": (
        "ResNet-8 of width 8, batch norm",
        "cifar10-jpeg",
        ("model=resnet", "model.depth=8", "model.width=8", *CONVOLUTIONAL),
    ),
}
"""Words, data set and settings of `baseline-mlp`."""


def records(folder: Path, case: str, ranks: int, given: argparse.Namespace) -> list[dict[str, Any]]:
    """``metrics.jsonl`` of a run in ``ranks`` processes."""
    _, dataset, settings = CASES[case]
    period = max(1, given.steps // 10)
    more = (f"train.budget={given.steps}it", f"train.eval_every={period}it", "train.early_stopping=null")
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(ranks)] if ranks > 1 else []
    command = [sys.executable, *launcher, "-m", "netdepth", "train", "baseline-mlp", "--dataset", dataset]
    command += [word for setting in (*settings, *more) for word in ("--set", setting)]
    command += ["--track", "none", "--no-test", "--device", given.device, "--runs", str(folder)]
    command += [] if given.data is None else ["--data", str(given.data.resolve())]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (found,) = folder.glob("*/*/metrics.jsonl")
    return [json.loads(line) for line in found.read_text().splitlines()]


def rows(case: str, one: list[dict[str, Any]], many: list[dict[str, Any]]) -> list[str]:
    """The first, the middle and the last record, and the largest relative difference of all."""
    apart = max(
        abs(a[name] - b[name]) / a[name] for a, b in zip(one, many, strict=True) for name in ("train_loss", "val_loss")
    )
    return [
        f"| {CASES[case][0] if at == 0 else ''} | {one[at]['step']} "
        + " ".join(f"| {one[at][name]:.6f} | {many[at][name]:.6f}" for name in ("train_loss", "val_loss"))
        + f" | {f'{apart:.1e}' if at == 0 else ''} |"
        for at in (0, len(one) // 2, -1)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--case", choices=CASES, action="append", help="else all")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--data", type=Path, help="as netdepth --data")
    given = parser.parse_args()
    lines = [
        f"| {given.steps} steps | step | train, 1 process | train, {given.ranks} | val, 1 process | val, {given.ranks} "
        "| largest relative difference |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for case in given.case or CASES:
        with tempfile.TemporaryDirectory() as folder:
            one, many = (records(Path(folder) / str(ranks), case, ranks, given) for ranks in (1, given.ranks))
        lines += rows(case, one, many)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
