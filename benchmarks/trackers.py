"""What trackers cost: whole `netdepth train` commands with and without them, in turn.

    python benchmarks/trackers.py --data DIR --rounds 3 > benchmarks/results/trackers.md

Each round runs the command once with every choice of trackers, in a shuffled order, into a fresh
folder. Printed are the medians of the training time (the sum of the records' ``seconds``) and of the
whole command, and their ratios to ``--track none`` of the same round.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CHOICES = ("none", "tensorboard", "wandb", "tensorboard,wandb")
EPOCHS = 8


def measure(track: str, data: Path | None) -> tuple[float, float]:
    """Seconds of training and of the whole command for one run with ``track``."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "netdepth", "train", "baseline-mlp", "--track", track, "--runs", folder]
        command += ["--set", f"train.budget={EPOCHS}ep", "--set", "train.early_stopping=null"]
        command += ["--data", str(data)] if data is not None else []
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        whole = time.perf_counter() - start
        lines = next(Path(folder).glob("single/*/metrics.jsonl")).read_text().splitlines()
        return sum(json.loads(line)["seconds"] for line in lines), whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data", type=Path, default=os.environ.get("NETDEPTH_DATA"), help="as netdepth --data")
    given = parser.parse_args()
    shuffler = random.Random(0)
    turns: dict[str, list[tuple[float, float]]] = {track: [] for track in CHOICES}
    for _ in range(given.rounds):
        for track in shuffler.sample(CHOICES, len(CHOICES)):
            turns[track].append(measure(track, given.data))
    print(f"{EPOCHS} epochs of the baseline on MNIST, {given.rounds} rounds, medians\n")
    print("| trackers | training s | × none | whole command s | × none |\n| --- | ---: | ---: | ---: | ---: |")
    for track, values in turns.items():
        cells = []
        for index in (0, 1):
            cells.append(f"{statistics.median(value[index] for value in values):.1f}")
            ratios = [value[index] / base[index] for value, base in zip(values, turns["none"], strict=True)]
            cells.append(f"{statistics.median(ratios):.2f}")
        print(f"| {track} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
