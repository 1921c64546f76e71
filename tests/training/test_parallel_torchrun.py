"""The command under torchrun itself: the run of one process, killed, stopped and continued."""

from __future__ import annotations

import math
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from netdepth.runs.folder import RunDir, list_runs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="ranks are found in /proc"),
]

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m"]
SETTINGS = {"train.budget": "8ep", "train.early_stopping": "null", "train.precision": "float64"}


def command(runs: Path, **settings: str) -> list[str]:
    given = [f"{path}={value}" for path, value in {**SETTINGS, **settings}.items()]
    asked = ["netdepth", "train", "baseline-mlp", "--dataset", "mnist5k", "--track", "none", "--runs", str(runs)]
    return [*asked, *(word for text in given for word in ("--set", text))]


def finish(words: list[str]) -> str:
    """What a command said that must succeed."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> RunDir:
    """The run that nobody struck."""
    runs = tmp_path_factory.mktemp("whole")
    finish([*TORCHRUN, *command(runs)])
    return list_runs(runs)[0]


def weights(run: RunDir) -> bytes:
    return run.load_checkpoint(run.result()["steps"])["model.safetensors"]


def test_the_command_gives_the_run_of_one_process(whole, tmp_path):
    finish([sys.executable, "-m", *command(tmp_path)])
    (one,) = list_runs(tmp_path)
    assert one.path.name == whole.path.name
    for record, other in zip(one.read_metrics(), whole.read_metrics(), strict=True):
        for name in ("train_loss", "val_loss", "train_accuracy", "val_accuracy", "grad_norm"):
            assert math.isclose(record[name], other[name], rel_tol=1e-6), (record["step"], name)


def rank_of(pid: int, rank: int) -> bool:
    return f"RANK={rank}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")


def target(process: subprocess.Popen[str], whom: str) -> int:
    """The process id of ``torchrun``, or of a rank."""
    if whom == "torchrun":
        return process.pid
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return next(int(pid) for pid in children if rank_of(int(pid), int(whom)))


ENDED_WITHIN_SECONDS = 30

GONE = {
    "1": r"error: rank 1 is gone \(killed.*saved up to step \d+; the same command continues it",
    "0": r"error: rank 1: rank 0 is gone; the same command continues from the newest checkpoint",
}
"""What the other rank says when this one is killed."""


STOPPED = r"error: interrupted; saved up to step \d+; the same command continues it"


def test_all_ranks_end_together_say_why_and_the_same_command_continues(whole, tmp_path):
    """One run, struck three times: rank 1 is stopped, all are stopped, Ctrl-C."""
    strikes = [("1", signal.SIGTERM), ("torchrun", signal.SIGTERM), ("torchrun", signal.SIGINT)]
    for whom, number in strikes:
        strike(tmp_path, whom, number, STOPPED)
    check_continued(whole, tmp_path)


@pytest.mark.faults
def test_killed_ranks(whole, faults, tmp_path):
    """Both ranks of one run, one after the other; then the run must end as the one that nobody struck."""
    rng = random.Random(12)
    most = 0.0
    with faults.drill(11, "rank of torchrun killed, the command is given again", quick=2, long=10) as drill:
        for number in range(drill.count // 2):
            runs = tmp_path / str(number)
            with drill.injection(f"rank 1, then rank 0, run {number}") as fell:
                for rank in "10":
                    fell.append(f"rank {rank}")
                    seconds = strike(runs, rank, signal.SIGKILL, GONE[rank], rng.uniform(0, 0.2))
                    assert seconds < ENDED_WITHIN_SECONDS
                    most = max(most, seconds)
                check_continued(whole, runs)
        drill.measured["all_had_ended_after_at_most_seconds"] = round(most, 1)


SLOW = """
import time
from netdepth.training import fit

records = fit._records

def slowly(*about):
    time.sleep(0.5)
    return records(*about)

fit._records = slowly
"""
"""What a run that is to be struck imports: it must not be over before the signal comes, on any machine."""


def newest(runs: Path) -> int:
    """The step of the newest evaluation; 0 if there is none."""
    return max((record["step"] for run in list_runs(runs) for record in run.read_metrics()), default=0)


def saved_step(runs: Path) -> int:
    """The step of the newest checkpoint; 0 if there is none."""
    return max((step for run in list_runs(runs) for step in run.checkpoints()), default=0)


def strike(runs: Path, whom: str, number: int, line: str, delay: float = 0.0) -> float:
    """Begin or continue the run and send signal ``number`` to ``whom``, ``delay`` seconds after its next evaluation.

    Returns:
        the seconds until all had ended.

    Raises:
        AssertionError: not all end, or they do not say why in one ``line``.
    """
    slow = runs.with_suffix(".py")
    slow.write_text(SLOW)
    known = newest(runs)
    words = [*TORCHRUN, *command(runs), "--import", str(slow)]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        until = time.monotonic() + 300
        while newest(runs) <= known:
            assert time.monotonic() < until, "it does not begin"
            time.sleep(0.05)
        time.sleep(delay)
        ranks = [target(process, rank) for rank in "01"]
        os.kill(target(process, whom), number)
        begun = time.monotonic()
        _, said = process.communicate(timeout=300)
        seconds = time.monotonic() - begun
    finally:
        process.kill()
        process.communicate()
    assert process.returncode != 0
    complaints = [text for text in said.splitlines() if text.startswith("netdepth: ")]
    assert len(complaints) == 1, said
    assert re.search(line, complaints[0]), said
    assert not any(Path(f"/proc/{pid}").exists() for pid in ranks)
    (run,) = list_runs(runs)
    assert run.status() == "unfinished"
    if "saved up to" in line:
        assert saved_step(runs) == int(re.search(r"saved up to step (\d+)", complaints[0])[1]) == newest(runs)
    return seconds


def check_continued(whole: RunDir, runs: Path) -> None:
    """Raise AssertionError unless the same command continues the run and it ends as ``whole``."""
    saved, shown = saved_step(runs), finish([*TORCHRUN, *command(runs)])
    assert not saved or f"continued from step {saved} " in shown
    (run,) = list_runs(runs)
    assert weights(run) == weights(whole)
    assert [record["train_loss"] for record in run.read_metrics()] == [r["train_loss"] for r in whole.read_metrics()]


SEEDS = """
import sys
from netdepth.cli import main

for seed in "012":
    try:
        code = main([*sys.argv[1:], "--seed", seed])
    except SystemExit as end:  # of a follower
        code = end.code
    if code:
        sys.exit(code)
"""
"""Both processes train the three seeds in turn: torch is imported once."""


def test_a_network_with_batch_norm_learns_in_two_processes_as_in_one(tmp_path):
    """Each rank normalises with half a batch; three seeds, each within two points of validation accuracy."""
    norm = {"model.norm": "batch", "train.budget": "6ep", "train.precision": "float32"}
    seeds = tmp_path / "seeds.py"
    seeds.write_text(SEEDS)
    finish([*TORCHRUN[:-1], str(seeds), *command(tmp_path / "two", **norm)[1:]])
    finish([sys.executable, "-m", *command(tmp_path / "one", **norm), "--seeds", "3"])
    for one, two in zip(list_runs(tmp_path / "one"), list_runs(tmp_path / "two"), strict=True):
        first, second = one.result(), two.result()
        assert one.path.name == two.path.name
        assert max(r["train"]["last"]["loss"] for r in (first, second)) < 0.05
        assert abs(first["val"]["last"]["accuracy"] - second["val"]["last"]["accuracy"]) < 0.02
