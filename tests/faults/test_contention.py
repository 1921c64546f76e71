"""Row 7: processes that want the same runs at once: one winner, nothing lost or doubled, no lock left by the dead."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from faults.contention import ATTEMPTS, PROCESSES
from faults.record import Faults
from netdepth.errors import Locked

pytestmark = pytest.mark.faults


def test_processes_in_one_store(faults: Faults, tmp_path: Path) -> None:
    with faults.drill(7, f"{PROCESSES} processes × {ATTEMPTS} runs in one store", quick=1, long=10) as drill:
        command = [sys.executable, "-m", "faults.contention", str(tmp_path), str(drill.count)]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            cwd=Path(__file__).parents[1],
            timeout=600 * drill.count,
            check=False,
        )
        rounds = [json.loads(line) for line in done.stdout.splitlines()]
        with drill.injection("all rounds", at="rounds"):
            assert (done.returncode, len(rounds)) == (0, drill.count), done.stderr[-2000:]
        for number, found in enumerate(rounds):
            with drill.injection(f"round {number}: the crowd", at="crowd"):
                check_crowd(found["crowd"])
            with drill.injection(f"round {number}: the race of two for one run", at="race"):
                check_race(found["race"])
        drill.measured["met_a_lock"] = sum(found["crowd"]["locked"] for found in rounds)
        slowest = max(found["race"]["lock_free_seconds"] for found in rounds)
        drill.measured["lock_free_after_at_most_seconds"] = round(slowest, 2)


def check_crowd(found: dict) -> None:
    assert found["codes"] == [0] * PROCESSES
    assert len(found["attempts"]) == PROCESSES * ATTEMPTS
    made = Counter(seed for seed, cached, *_ in found["attempts"] if not cached)
    identities = {seed for seed, *_ in found["attempts"]}
    assert set(made) == identities, "every run was made"
    assert set(made.values()) == {1}, "and none twice"
    assert len(found["folders"]) == len(identities)
    assert found["finished"] == found["folders"]
    for index, what in ((2, "weights"), (3, "folder")):
        seen = {(seed, attempt[index]) for attempt in found["attempts"] for seed in [attempt[0]]}
        assert len(seen) == len(identities), f"all were given the same {what}"
    assert found["locked"] > 0, "they met"


def check_race(found: dict) -> None:
    assert (found["loser"], found["winner"]) == (Locked.exit_code, -9)
    assert found["lock_free_seconds"] < 5
    assert (found["last"], found["folders"]) == (0, 1)
    assert found["steps_in_order"]
    assert found["same_weights"]
