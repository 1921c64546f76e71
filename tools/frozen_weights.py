"""Train a few short runs and print the sha256 of their weights, to see whether a change of the code changed a bit.

    python tools/frozen_weights.py --write before.json      before the change
    python tools/frozen_weights.py --against before.json    after it: exit 1 with what differs

Everything goes through the command line, on data that come with the package: MLPs whose seeds train as one stack,
convolutional networks, and runs that begin with another run's weights or learn from its answers. Bits are the same only
on one machine with one version of torch and one number of threads, so those are written down and compared as well.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SECOND = ["5", "6", "7", "8", "9"]
SHORT = ("--dataset", "mnist5k", "--set", "train.budget=2ep", "--seed", "0", "--track", "none")
STUDY = ("--workers", "0", "--no-report")


def netdepth(runs: Path, *words: str) -> None:
    """Run a command of netdepth on one thread of the CPU, into the folder ``runs``."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NETDEPTH_")}
    single = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    argv = [sys.executable, "-m", "netdepth", *words, "--runs", str(runs), "--threads", "1", "--device", "cpu"]
    done = subprocess.run(argv, env={**kept, **single}, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"exit {done.returncode} of netdepth {' '.join(words)}:\n{done.stderr.strip()}")


def weights(runs: Path) -> dict[str, str]:
    """The digest of the reported weights of every run under ``runs``, by its folder."""
    found = sorted(runs.glob("*/*/result.json"))
    return {str(path.parent.relative_to(runs)): json.loads(path.read_text())["weights_sha256"] for path in found}


def made(root: Path) -> dict[str, dict[str, str]]:
    """The digests of each kind of run, all made anew in ``root``."""
    stack, cnn, tuned = (root / name for name in ("stack", "cnn", "fine-tuned"))
    netdepth(stack, "study", "depth-mlp5k", "--depths", "2,8", "--seeds", "3", "--set", "train.budget=2ep", *STUDY)
    augmented = ("--set", "augmentation=crop-flip")
    netdepth(cnn, "study", "cnn-mnist5k", "--seeds", "1", "--set", "train.budget=1ep", *augmented, *STUDY)
    netdepth(tuned, "train", "baseline-mlp", *SHORT)
    (source,) = (tuned / "single").iterdir()
    begin = ("--set", f"start_from.run={source.name}", "--set", 'start_from.freeze=["layer1"]')
    netdepth(tuned, "train", "baseline-mlp", *SHORT, *begin, "--set", f"dataset.classes={json.dumps(SECOND)}")
    netdepth(
        tuned, "train", "baseline-mlp", *SHORT, "--set", "objective=distill",
        "--set", f"objective.teacher={source.name}", "--set", "model.hidden=[16,16]",
    )  # fmt: skip
    return {folder.name: weights(folder) for folder in (stack, cnn, tuned)}


def environment() -> dict[str, Any]:
    """What has to be the same for bits to be the same; the plan of a study asks for the number of cores."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "torch": torch.__version__,
        "machine": platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": cores,
        "threads": 1,
    }


def differences(now: dict[str, Any], before: dict[str, Any]) -> list[str]:
    """A line for everything that is not as before."""
    lines = []
    for part in sorted({*now, *before}):
        here, there = now.get(part, {}), before.get(part, {})
        for name in sorted({*here, *there}):
            if here.get(name) != there.get(name):
                lines.append(f"{part}: {name}: {there.get(name, 'nothing')} before, {here.get(name, 'nothing')} now")
    return lines


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", metavar="DIR", type=Path, help="a new folder that keeps the runs (else a temporary)")
    parser.add_argument("--write", metavar="FILE", type=Path, help="write the digests there")
    parser.add_argument("--against", metavar="FILE", type=Path, help="compare with digests that were written")
    asked = parser.parse_args(argv)
    if asked.runs is not None and asked.runs.exists() and any(asked.runs.iterdir()):
        parser.error(f"--runs {asked.runs} is not empty; runs that are there would not be made again")
    before = None if asked.against is None else json.loads(asked.against.read_text())
    with tempfile.TemporaryDirectory() as temporary:
        now = {"environment": environment(), **made(asked.runs or Path(temporary))}
    text = json.dumps(now, indent=1) + "\n"
    print(text, end="")
    if asked.write is not None:
        asked.write.write_text(text)
    found = [] if before is None else differences(now, before)
    for line in found:
        print(line, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
