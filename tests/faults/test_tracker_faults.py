"""Row 10: a tracker raises, hangs, fills its disk or has a dead server: the same weights, and five seconds at most."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from support.tracked_runs import silent_server
from test_trackers_faults import BAD, FAULTS

from faults.record import Faults
from netdepth.config import Component, RunConfig, Runtime, TrainConfig
from netdepth.trackers import TRACKERS
from netdepth.training.launch import launch, settle

pytestmark = pytest.mark.faults

CONFIG = RunConfig(Component("mnist5k"), Component("mlp", {"hidden": [8]}), train=TrainConfig(budget="3ep"))
COST_SECONDS = 10.0
"""Also on a machine that is slow and busy; what it costs is measured."""
FULL = "    open('/dev/full', 'wb', buffering=0).write(bytes(100_000))"
WHERE = ("start", "log", "artifact", "finish")


def weights(root: Path, trackers: tuple[str, ...] = (), imports: tuple[str, ...] = (), online: bool = False):
    """sha256 of a run's weights, what was said of its trackers, and what they cost after the last step, in seconds."""
    runtime = Runtime(
        device="cpu", threads=1, trackers=trackers, wandb_online=online, runs_root=root, imports=imports, probes=False
    )
    outcomes = launch("tracked", [CONFIG], runtime, progress=False)
    settle(outcomes)
    (outcome,) = outcomes
    cost = time.monotonic() - outcome.finished.trained_until
    return outcome.finished.result["weights_sha256"], outcome.notes, cost


def test_trackers_cost_a_note(faults: Faults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TRACKERS._entries, "bad", TRACKERS.entry("tensorboard"))
    expected, *_ = weights(tmp_path / "without")
    worst = 0.0
    with faults.drill(10, "tracker raises, hangs, crashes, full disk, dead server", quick=6, long=30) as drill:
        kinds = {"raise": FAULTS["raise"], "hang": FAULTS["hang"], "full disk": FULL, **FAULTS}
        for number in range(drill.count - 1):
            fault = [*kinds][number % len(kinds)]
            where = WHERE[(number + number // len(kinds)) % len(WHERE)]
            source = tmp_path / f"bad_{number}.py"
            source.write_text(BAD.format(fault=kinds[fault], where=where))
            with drill.injection(f"{fault} in {where}", at=fault):
                found, notes, cost = weights(tmp_path / str(number), ("bad",), (str(source),))
                assert found == expected
                assert any(note.startswith("tracker bad: ") for note in notes), notes
                assert cost < COST_SECONDS
                worst = max(worst, cost)
        with silent_server() as (url, _), drill.injection("dead server", at="dead server"):
            monkeypatch.setenv("WANDB_BASE_URL", url)
            monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
            found, notes, cost = weights(tmp_path / "dead", ("wandb",), online=True)
            assert found == expected
            assert any(note.startswith("tracker wandb: ") for note in notes), notes
            assert cost < COST_SECONDS
            worst = max(worst, cost)
        drill.measured["cost_at_most_seconds"] = round(worst, 1)
