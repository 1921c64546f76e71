"""Processes that want the same runs at the same time: ``python contention.py FOLDER ROUNDS`` and what came of it.

A line of JSON per round: the attempts of eight processes in one store, and the race of two for a run whose
maker was killed. The processes are forks of one that has torch and the data loaded, so that they meet often.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from netdepth.config import Component, RunConfig, Runtime, TrainConfig
from netdepth.data import load
from netdepth.errors import Locked
from netdepth.progress import TrainProgress
from netdepth.runs.folder import RunDir
from netdepth.training import loop
from netdepth.training.run import run

PROCESSES, ATTEMPTS, IDENTITIES = 8, 50, 130
NAMES = ("one", "another")
"""Two recipes with the same config: which of them makes a run decides its folder's name, and there is one."""

TINY = RunConfig(Component("mnist5k"), Component("mlp", {"hidden": [4]}), train=TrainConfig("1it", "1it", 32))
LONG = RunConfig(Component("mnist5k"), Component("mlp", {"hidden": [4]}), train=TrainConfig("24ep", batch_size=256))
PATIENCE = 120.0
"""Seconds after which something that has to happen has not happened."""


class Slow(TrainProgress):
    """Leaves time to be killed."""

    def evaluated(self, record: Any) -> None:
        time.sleep(0.3)


def runtime(root: Path) -> Runtime:
    return Runtime(device="cpu", threads=1, trackers=(), runs_root=root, sealed=True, probes=False)


def fork(work: Callable[[], int]) -> int:
    """A child that ends with what ``work`` returns."""
    pid = os.fork()
    if pid:
        return pid
    code = 99
    try:
        code = work()
    finally:
        os._exit(code)


def ended(pid: int) -> int:
    """The exit status of a child, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def until(condition: Callable[[], object], what: str) -> float:
    """Wait for it; returns the seconds that took."""
    begun = time.monotonic()
    while not condition():
        if time.monotonic() - begun > PATIENCE:
            raise SystemExit(f"{what} did not happen")
        time.sleep(0.005)
    return time.monotonic() - begun


# --- eight processes, one store ------------------------------------------------------------------


def crowd(root: Path, stream: int, splits: Any) -> dict[str, Any]:
    """Every process makes fifty of the runs, each in an order that meets the others."""
    barrier = multiprocessing.Barrier(PROCESSES)

    def work(number: int) -> int:
        # Half of each list is the same for all, and in the same order: there they meet at every run.
        common = list(range(ATTEMPTS // 2))
        own = random.Random(f"{stream} {number}").sample(range(ATTEMPTS // 2, IDENTITIES), ATTEMPTS - len(common))
        waiting, attempts, locked = [*common, *own], [], 0
        barrier.wait()
        while waiting:
            seed = waiting.pop(0)
            try:
                name = NAMES[number % len(NAMES)]
                done = run(TINY.with_seed(seed), runtime(root), name=name, study="crowd", quiet=True, splits=splits)
            except Locked:
                locked += 1
                waiting.append(seed)
                continue
            attempts.append([seed, done.cached, done.result["weights_sha256"], done.run.path.name])
        (root / f"{number}.json").write_text(json.dumps({"attempts": attempts, "locked": locked}))
        return 0

    root.mkdir(parents=True)
    codes = [ended(pid) for pid in [fork(lambda number=number: work(number)) for number in range(PROCESSES)]]
    told = [json.loads(path.read_text()) for path in sorted(root.glob("*.json"))]
    folders = sorted(path.name for path in (root / "crowd").iterdir() if path.is_dir())
    finished = [name for name in folders if RunDir(root / "crowd" / name).status() == "completed"]
    return {
        "codes": codes,
        "attempts": [attempt for one in told for attempt in one["attempts"]],
        "locked": sum(one["locked"] for one in told),
        "folders": folders,
        "finished": finished,
    }


# --- one run, two that continue it -----------------------------------------------------------------


def race(root: Path, seed: int, splits: Any) -> dict[str, Any]:
    """The maker of a run is killed; two continue it at once; the winner is killed too; a last one ends it."""
    config, barrier = LONG.with_seed(seed), multiprocessing.Barrier(2)

    def make(where: Path, slow: bool = False, at_once: bool = False) -> int:
        watch = (lambda *about: Slow(*about, shown=False)) if slow else None
        if at_once:
            barrier.wait()
        try:
            run(config, runtime(where), name="race", study="race", quiet=True, watch=watch, splits=splits)
        except Locked:
            return Locked.exit_code
        return 0

    def metrics() -> list[dict[str, Any]]:
        return [record for path in (root / "race").glob("*") for record in RunDir(path).read_metrics()]

    def checkpoints() -> int:
        return len([*(root / "race").glob("*/checkpoints/[0-9]*")])

    first = fork(lambda: make(root, slow=True))
    until(lambda: checkpoints() >= 1 and len(metrics()) >= 2, "a checkpoint")
    os.kill(first, signal.SIGKILL)
    ended(first)
    both = [fork(lambda: make(root, slow=True, at_once=True)) for _ in range(2)]
    pid, status = os.waitpid(-1, 0)
    loser, (winner,) = os.waitstatus_to_exitcode(status), [other for other in both if other != pid]
    seen = len(metrics())
    until(lambda: len(metrics()) > seen, "progress of the winner")
    os.kill(winner, signal.SIGKILL)
    killed = ended(winner)
    (folder,) = [RunDir(path) for path in (root / "race").iterdir()]
    free = until(lambda: lock_is_free(folder), "the lock of a dead process to be free")
    last = ended(fork(lambda: make(root)))
    ended(fork(lambda: make(root / "alone")))
    (alone,) = [RunDir(path) for path in (root / "alone" / "race").iterdir()]
    steps = [record["step"] for record in folder.read_metrics()]
    return {
        "loser": loser,
        "winner": killed,
        "lock_free_seconds": free,
        "last": last,
        "folders": len([*(root / "race").iterdir()]),
        "steps_in_order": steps == [record["step"] for record in alone.read_metrics()],
        "same_weights": (folder.result() or {})["weights_sha256"] == (alone.result() or {})["weights_sha256"],
    }


def lock_is_free(folder: RunDir) -> bool:
    try:
        with folder.lock():
            return True
    except Locked:
        return False


def main(folder: str, rounds: str) -> None:
    torch.set_num_threads(1)
    loop.WRITE_EVERY_SECONDS = 0.0
    splits = load(TINY.dataset, data_dir=None)
    for number in range(int(rounds)):
        root = Path(folder) / str(number)
        found = {"crowd": crowd(root / "crowd", number, splits), "race": race(root / "race", number, splits)}
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
