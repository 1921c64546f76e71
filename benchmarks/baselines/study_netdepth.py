"""`netdepth study` as a user runs it: records, evaluation, probes, checkpoints, test part, verdict, progress on.

``netdepth`` leaves the report out (``--no-report``), ``netdepth-report`` writes it. A turn is one whole
command into a folder that is thrown away. Besides the time of the command it reports the time without
start-up, as its peers are timed, although more is in it: from the moment the first run's folder is begun
(its ``config.json``; the data are read and the networks built) to the last ``result.json``, as the file
system dates them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from baselines.netdepth import terminal
from baselines.study_session import LEARNING_RATE, Work, open_work, take_turns

RECIPE = '''"""A study of plain networks with He's initialisation, one condition."""

from netdepth.config import Component, RunConfig, TrainConfig
from netdepth.studyspec import Axis, Primary, StudySpec


def benchmark():
    return StudySpec(
        name="benchmark",
        question="How long do {runs} plain networks take?",
        base=RunConfig(
            dataset=Component("{dataset}"),
            model=Component("mlp", {{"width": {width}, "init": "he"}}),
            optimizer=Component("adam", {{"lr": {lr}}}),
            schedule=Component("constant"),
            train=TrainConfig(budget="{epochs}ep", batch_size={batch_size}),
        ),
        scientific=(Axis.of_depths({depths}), Axis("condition", {{"plain he": {{"model.shortcut": "none"}}}})),
        seeds={seeds},
        primary=(Primary("depth", {deepest}, "plain he"),),
        smallest_effect=0.02,
    )
'''


def write_recipe(work: Work, path: Path) -> None:
    """The grid as a recipe of netdepth."""
    text = RECIPE.format(
        runs=len(work.depths) * len(work.seeds),
        dataset=work.dataset,
        width=work.width,
        lr=LEARNING_RATE,
        epochs=work.epochs,
        batch_size=work.batch_size,
        depths=work.depths,
        seeds=work.seeds,
        deepest=max(work.depths),
    )
    path.write_text(text, encoding="utf-8")


def read_study(folder: Path, work: Work) -> dict[str, Any]:
    """What a turn replies, from the run folders of a finished study."""
    runs = sorted(path.parent for path in folder.glob("*/config.json"))
    begun = min((run / "config.json").stat().st_mtime for run in runs)
    ended = max((run / "result.json").stat().st_mtime for run in runs)
    groups: dict[str, dict[tuple[int, ...], float]] = defaultdict(dict)
    guard: dict[str, Any] = {}
    for run in runs:
        config = json.loads((run / "config.json").read_text())
        made = json.loads((run / "environment.json").read_text())
        result = json.loads((run / "result.json").read_text())
        depth, stack = config["model"]["args"]["depth"], tuple(made["seeds"])
        busy = groups[str(depth)]
        busy[stack] = max(busy.get(stack, 0.0), result["total_seconds"])  # its last replica ended it
        if depth == work.depths[0] and config["seed"] == work.seeds[0]:
            guard = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    processes = min(json.loads((folder / "study.json").read_text())["plan"]["cores"], sum(map(len, groups.values())))
    return {
        "seconds": ended - begun,
        "depths": {str(depth): sum(groups[str(depth)].values()) / processes for depth in work.depths},
        "stacks": {str(depth): sorted(map(len, groups[str(depth)]), reverse=True) for depth in work.depths},
        "megabytes": sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6,
        "train_loss": guard["train_loss"],
        "val_accuracy": guard["val_accuracy"],
    }


def main() -> None:
    work, replies = open_work()
    recipe = work.folder / f"{work.variant.replace('-', '_')}_{len(work.seeds)}.py"
    write_recipe(work, recipe)
    os.environ["TERM"] = "xterm-256color"

    def turn() -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder, terminal():
            command = [sys.executable, "-m", "netdepth", "study", f"{recipe}:benchmark", "--runs", folder]
            command += ["--no-report"] if work.variant == "netdepth" else []
            command += ["--data", str(work.data_dir)] if work.data_dir is not None else []
            started = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=sys.stderr)
            return {"whole": time.perf_counter() - started, **read_study(Path(folder) / "benchmark", work)}

    take_turns(turn, replies)


if __name__ == "__main__":
    main()
