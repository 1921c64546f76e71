"""Row 11: a worker is killed: one line at once, and the work ends as it would have.

A rank of torchrun is killed in ``tests/training/test_parallel_torchrun.py``, a node of a Ray cluster in
``tests/studies/test_ray.py``, where the cluster is.
"""

from __future__ import annotations

import random
import time
from pathlib import Path

import psutil
import pytest
from support.ray_jobs import digests, jobs_in, made_here, outcomes_of, small

from faults.record import Faults
from netdepth.studies import pool as processes
from netdepth.studies.worker import Event, Progress, Retry, Started

SAID_WITHIN_SECONDS = 30


def eager(folder: Path) -> str:
    """A user's file that lets checkpoints be written at once, so that there is something to continue from."""
    file = folder / "eager.py"
    file.write_text("import netdepth.training.loop\nnetdepth.training.loop.WRITE_EVERY_SECONDS = 0.0\n")
    return str(file)


@pytest.mark.faults
def test_killed_workers(faults: Faults, tmp_path: Path) -> None:
    """One worker makes the groups in turn; it is killed once in each, at a moment drawn at random."""
    rng = random.Random(11)
    with faults.drill(11, "worker killed, its group is begun again", quick=3, long=50) as drill:
        imports, before = [eager(tmp_path)], set(psutil.Process().children())  # of other tests
        jobs = jobs_in(tmp_path / "runs", small(80), drill.count, imports)
        events: list[Event] = []
        killed: dict[int, float] = {}
        moment = {job.group: rng.choice((0, 1, 1, 200)) for job in jobs}
        late: dict[int, float] = {}

        def on_event(event: Event) -> None:
            events.append(event)
            group, step = event.group, event.step if isinstance(event, Progress) else 0
            under_way = isinstance(event, Started | Progress) and step >= moment[group]
            if under_way and group not in killed:
                (worker,) = set(psutil.Process().children()) - before
                worker.kill()
                killed[group] = time.monotonic()
            if isinstance(event, Retry):
                late[group] = time.monotonic() - killed[group]

        processes.execute(jobs, 1, on_event, logs=tmp_path / "logs")
        outcomes = outcomes_of(events)
        expected = made_here(tmp_path / "here", small(80), drill.count, imports)
        said = {event.group: event.error for event in events if isinstance(event, Retry)}
        for job in jobs:
            group = job.group
            if group not in killed:  # a fast machine was done before it told of a later step
                drill.notes.append(f"group {group} ended before its worker was killed")
                continue
            with drill.injection(f"worker of group {group}", at="begun" if moment[group] == 0 else "training"):
                assert "died of SIGKILL" in said[group]
                assert "\n" not in said[group]
                assert late[group] < SAID_WITHIN_SECONDS
                assert digests([one for one in outcomes if one.seed == group])[group] == expected[group]
        drill.measured["said_after_at_most_seconds"] = round(max(late.values()), 1)
        drill.measured["continued_from_a_checkpoint"] = sum(
            "continued from step" in note for outcome in outcomes for note in outcome.notes
        )
