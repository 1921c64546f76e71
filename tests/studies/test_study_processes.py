"""Groups over worker processes: all outcomes come, dead workers are replaced, signals save, an orphan leaves.

The tests have real processes with a stand-in for the training, except the last. Studies that are killed and continued
are a drill (tests/faults/test_killed.py).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest
from support.tiny_studies import make, timeless, tiny_spec

from netdepth.config import Component, RunConfig, Runtime, to_json
from netdepth.errors import Interrupted
from netdepth.runs.folder import RunDir
from netdepth.studies import pool as processes
from netdepth.studies.worker import Done, Event, Job, Progress, Retry, Started
from netdepth.training.launch import Outcome

STAND_IN = """
import os, signal, sys, time
from pathlib import Path
from netdepth.training.signals import signals_as_errors
from netdepth.studies import worker

HERE = Path(__file__).parent

def work(job, report):
    name, group = job.name, job.group
    print("this is no event")
    with signals_as_errors():
        report(worker.Started(group))
        first = not (HERE / f"{name}-{group}").exists()
        (HERE / f"{name}-{group}").write_text(str(os.getpid()))
        if name == "dies" or (name == "dies once" and first):
            print("last words", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            while name == "endless" or (name == "endless once" and first):
                report(worker.Progress(group, 1, 2, 1, None))
                time.sleep(0.02)
        finally:
            (HERE / f"{name}-{group}").write_text("saved")
    return tuple(worker.Outcome(Path(folder), seed, "completed")
                 for seed, folder in zip(job.seeds, job.folders))

worker.work = work
sys.exit(worker.main())
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "stand_in.py"
    file.write_text(STAND_IN)
    monkeypatch.setattr(processes, "COMMAND", (sys.executable, str(file)))
    return tmp_path


def jobs(root: Path, *names: str) -> list[Job]:
    config = RunConfig(Component("mnist5k"), Component("mlp", {"hidden": [4]}))
    runtime = Runtime(threads=1, runs_root=root)
    return [
        Job(number, name, "study", config, "0123456789", (number,), (f"run-{number}",), runtime)
        for number, name in enumerate(names)
    ]


def execute(root: Path, found: list[Job], workers: int = 2) -> list[Event]:
    events: list[Event] = []
    processes.execute(found, workers, events.append, logs=root / "logs")
    return events


def outcomes(events: list[Event]) -> dict[int, Outcome]:
    return {event.group: event.outcomes[0] for event in events if isinstance(event, Done)}


def test_every_job_has_its_outcome_and_longest_begin_first(stand_in: Path) -> None:
    events = execute(stand_in, jobs(stand_in, *["fine"] * 5), workers=1)
    assert [event.group for event in events if isinstance(event, Started)] == [0, 1, 2, 3, 4]
    found = outcomes(events)
    assert {number: (o.seed, o.status) for number, o in found.items()} == {n: (n, "completed") for n in range(5)}
    assert "this is no event" in (stand_in / "logs" / "worker-0.log").read_text()


def test_a_killed_worker_is_replaced_and_its_group_begun_once_more(stand_in: Path) -> None:
    run = RunDir(stand_in / "study" / "run-1")
    run.path.mkdir(parents=True)
    run.write_json("config.json", {"seed": 1})
    events = execute(stand_in, jobs(stand_in, "dies once", "dies", "fine", "fine"))
    found = outcomes(events)
    assert {number: outcome.status for number, outcome in found.items()} == {
        0: "completed", 1: "failed", 2: "completed", 3: "completed",
    }  # fmt: skip
    assert sorted(event.group for event in events if isinstance(event, Retry)) == [0, 1]
    assert found[1].exit_code == 1
    assert "died of SIGKILL: last words (log: " in str(found[1].error)
    assert (run.read_json("failure.json") or {})["message"] == found[1].error
    assert run.status() == "failed"


def test_a_signal_reaches_the_workers_which_save(stand_in: Path) -> None:
    timer = threading.Timer(0.8, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    with pytest.raises(Interrupted, match="the same command continues the study") as stop:
        execute(stand_in, jobs(stand_in, "endless", "endless", "fine"))
    timer.join()
    assert stop.value.exit_code == 143
    assert [(stand_in / f"endless-{number}").read_text() for number in (0, 1)] == ["saved", "saved"]
    assert not (stand_in / "fine-2").exists()


def test_a_study_can_be_made_outside_the_main_thread(stand_in: Path) -> None:
    events: list[Event] = []
    thread = threading.Thread(target=lambda: events.extend(execute(stand_in, jobs(stand_in, "fine", "fine"))))
    thread.start()
    thread.join()
    assert sorted(outcomes(events)) == [0, 1]


def test_an_error_here_ends_the_workers_too(stand_in: Path) -> None:
    def on_event(event: Event) -> None:
        if isinstance(event, Progress):
            raise RuntimeError("of the display")

    with pytest.raises(RuntimeError, match="of the display"):
        processes.execute(jobs(stand_in, "endless"), 1, on_event, logs=stand_in / "logs")
    assert (stand_in / "endless-0").read_text() == "saved"


@pytest.mark.slow
def test_workers_of_a_killed_parent_save_and_leave(stand_in: Path) -> None:
    (stand_in / "job.json").write_text(json.dumps(to_json(jobs(stand_in, "endless")[0])))
    code = (
        "import json, sys\nfrom pathlib import Path\nfrom netdepth.config import from_json\n"
        "from netdepth.studies import pool as processes, worker\n"
        f"here = Path({str(stand_in)!r})\nprocesses.COMMAND = (sys.executable, str(here / 'stand_in.py'))\n"
        "found = [from_json(worker.Job, json.loads((here / 'job.json').read_text()))]\n"
        "processes.execute(found, 1, lambda event: print(event, flush=True), logs=here / 'logs')"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        while b"Progress" not in parent.stdout.readline():
            pass
        worker = int((stand_in / "endless-0").read_text())
        parent.kill()
    deadline = time.monotonic() + 60
    while Path(f"/proc/{worker}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert (stand_in / "endless-0").read_text() == "saved"


# --- with training ----------------------------------------------------------------------------

KILLER = """
import os, signal
from pathlib import Path
from netdepth.training import run

real = run.train_stack

def train_stack(config, networks, *args, **kwargs):
    depth = networks[0].depth
    mark = Path(__file__).with_name(f"killed-{depth}")
    if depth == 6 or (depth == 4 and not mark.exists()):
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return real(config, networks, *args, **kwargs)

run.train_stack = train_stack
"""


@pytest.mark.slow
def test_a_study_outlives_the_death_of_its_workers(tmp_path: Path) -> None:
    (tmp_path / "killer.py").write_text(KILLER)
    spec = tiny_spec().with_levels((2, 4, 6))[0]
    done = make(tmp_path / "runs", spec, workers=2, imports=(str(tmp_path / "killer.py"),))
    table = timeless(done.study).groupby("depth")["status"].unique().map(list).to_dict()
    assert table == {2: ["completed"], 4: ["completed"], 6: ["failed"]}
    assert [outcome.seed for outcome in done.failed] == [0, 1, 2]
    assert "died of SIGKILL" in str(done.failed[0].error)
    alone = make(tmp_path / "alone", spec).study  # where a run is made changes no bit
    frames = [timeless(study).query("depth < 6").drop(columns="error") for study in (done.study, alone)]
    pd.testing.assert_frame_equal(*frames)
