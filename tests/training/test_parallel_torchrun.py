"""The command under torchrun itself: the run of one process, killed, stopped and continued."""

from __future__ import annotations

import math
import os
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
SETTINGS = {"train.budget": "15ep", "train.early_stopping": "null", "train.precision": "float64"}


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
    return made(tmp_path_factory.mktemp("whole"))


def made(runs: Path, **settings: str) -> RunDir:
    """The run that nobody struck."""
    finish([*TORCHRUN, *command(runs, **settings)])
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


GONE = {
    "1": r"error: rank 1 is gone \(killed.*saved up to step \d+; the same command continues it",
    "0": r"error: rank 1: rank 0 is gone; the same command continues from the newest checkpoint",
}
"""What the other rank says when this one is killed."""


@pytest.mark.parametrize(
    ("whom", "number", "line"),
    [
        ("1", signal.SIGTERM, r"error: interrupted; saved up to step \d+; the same command continues it"),
        ("torchrun", signal.SIGTERM, r"error: interrupted; saved up to step \d+; the same command continues it"),
        ("torchrun", signal.SIGINT, r"error: interrupted; saved up to step \d+; the same command continues it"),
    ],
    ids=["rank 1 stopped", "all stopped", "ctrl-c"],
)
def test_all_ranks_end_together_say_why_and_the_same_command_continues(whole, tmp_path, whom, number, line):
    struck(whole, tmp_path, whom, number, line)


def struck(whole: RunDir, runs: Path, whom: str, number: int, line: str, delay: float = 0.0, **settings: str) -> float:
    """Send signal ``number`` to ``whom``, ``delay`` seconds after the first evaluation, and continue the run.

    Returns:
        the seconds until all had ended.

    Raises:
        AssertionError: not all end, they do not say why in one ``line``, or the continued run differs from ``whole``.
    """
    words = [*TORCHRUN, *command(runs, **settings)]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        until = time.monotonic() + 300
        while not any(run.read_metrics() for run in list_runs(runs)):
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
    shown = finish(words)
    if "saved up to" in line:
        step = re.search(r"saved up to step (\d+)", complaints[0])[1]
        assert f"continued from step {step} " in shown
    assert weights(run) == weights(whole)
    assert [record["train_loss"] for record in run.read_metrics()] == [r["train_loss"] for r in whole.read_metrics()]
    return seconds


def test_a_network_with_batch_norm_learns_in_two_processes_as_in_one(tmp_path):
    """Each rank normalises with half a batch; three seeds, each within two points of validation accuracy."""
    norm = {"model.norm": "batch", "train.budget": "6ep", "train.precision": "float32"}
    for seed in ("0", "1", "2"):
        finish([*TORCHRUN, *command(tmp_path / "two", **norm), "--seed", seed])
    finish([sys.executable, "-m", *command(tmp_path / "one", **norm), "--seeds", "3"])
    for one, two in zip(list_runs(tmp_path / "one"), list_runs(tmp_path / "two"), strict=True):
        first, second = one.result(), two.result()
        assert one.path.name == two.path.name
        assert max(r["train"]["last"]["loss"] for r in (first, second)) < 0.05
        assert abs(first["val"]["last"]["accuracy"] - second["val"]["last"]["accuracy"]) < 0.02
