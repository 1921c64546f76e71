"""The parts of the package of trackers: records, names, starting, following, rebuilding, a user's own tracker."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Event
from unittest.mock import Mock

import numpy as np
import pytest
from support.tracked_runs import CLASSES, STEPS_PER_EPOCH, finish_run, finished_run, new_run, read_events, record

import netdepth
from netdepth.errors import BadInput, Locked, RunFailed
from netdepth.files.atomic import jsonable, restored
from netdepth.runs.folder import RunDir
from netdepth.trackers import TRACKERS, Mirrors, sync
from netdepth.trackers.base import (
    NAMES,
    Values,
    final_metrics,
    mirror_folder,
    tracker_record,
)
from netdepth.trackers.follow import follow
from netdepth.trackers.mirror import TOKEN, family


def test_records_come_back_with_their_nonfinite_values() -> None:
    line = record(1, train_loss=math.nan)
    line["layer_grad_norms"] = {"layers.0.weight": -math.inf, "layers.0.bias": 1.0, "list": [1.0, math.nan]}
    stored = json.loads(json.dumps(jsonable(line), allow_nan=False))
    np.testing.assert_equal(restored(stored), line)
    named = tracker_record(stored)
    assert math.isnan(named["train/loss"])
    assert not {"best", "step", "schema", "nonfinite", "overfitting/onset_epoch", *NAMES} & set(named)


def test_values_are_sorted_by_shape() -> None:
    values = Values.of(
        {"a": 1, "b": True, "c": "text", "d": {"x": 1.0, "y": math.nan}, "e": [1, 2], "f": [[1, 2], [3, 4]], "g": []}
    )
    assert values.scalars == {"a": 1}
    assert values.vectors == {"d": [1.0], "e": [1, 2]}
    assert list(values.pictures) == ["f"]
    assert values.pictures["f"].startswith(b"\x89PNG\r\n")


def test_final_metrics_are_those_of_the_reported_weights(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    result = finish_run(run, 3, test=False)
    assert final_metrics(result)["final/val/loss"] == 0.2
    assert final_metrics({**result, "reported": "last"})["final/val/loss"] == 0.25
    assert not [name for name in final_metrics(result) if name.startswith("test/")]
    assert final_metrics({"status": "interrupted"}) == {}


@pytest.mark.parametrize("name", ["checkpoints", "probes", "../other", "A", "", "a b"])
def test_a_tracker_cannot_take_a_folder_of_the_run(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInput, match="a tracker cannot be named"):
        mirror_folder(tmp_path, name)


def test_sync_wants_a_known_tracker_and_a_run_that_nobody_trains_and_gives_up_in_time(tmp_path: Path) -> None:
    run = finished_run(tmp_path, 1)
    with pytest.raises(BadInput, match=r"unknown tracker 'tensorbord' \(did you mean 'tensorboard'\?\)"):
        Mirrors.start(run.path, ["tensorboard", "tensorbord"])
    assert not list(run.path.glob("events.*"))
    with pytest.raises(BadInput, match="unknown tracker"):
        sync(run, "mlflow")
    with pytest.raises(BadInput, match=r"has no config\.json"):
        sync(RunDir(tmp_path), "tensorboard")
    with run.lock(), pytest.raises(Locked):
        sync(RunDir(run.path), "tensorboard")
    with pytest.raises(RunFailed, match=r"tracker tensorboard: stopped after 0\.01 s, before the mirror was complete"):
        sync(run, "tensorboard", timeout=0.01)


def test_sync_reads_the_valid_prefix_and_says_what_cannot_be_read(tmp_path: Path) -> None:
    run = finished_run(tmp_path, 3)
    with open(run.path / "metrics.jsonl", "ab") as handle:
        handle.write(b'{"schema": 1, "step": 160, "train_loss"\n{"schema": 1, "step": 200}\n{"schema": 1, "st')
    sync(run, "tensorboard")
    assert [event.step for event in read_events(run).Scalars("loss/val")] == [40, 80, 120]
    (run.path / "config.json").write_text("{")
    with pytest.raises(BadInput, match=r"tracker tensorboard: .*config\.json is not readable JSON"):
        sync(run, "tensorboard")


def test_a_follower_logs_each_step_once_and_only_whole_lines(tmp_path: Path) -> None:
    run, logged = new_run(tmp_path), []

    class Resumed(Event):
        """The run goes on while its follower sleeps: cut back, continued, a line in two pieces, a damaged one."""

        def __init__(self) -> None:
            super().__init__()
            self.events = [self.resume, lambda: self.append(b'ep": 200}\n'), self.damage, self.set]

        def wait(self, timeout: float | None = None) -> bool:
            self.events.pop(0)()
            return True

        def append(self, text: bytes) -> None:
            with open(run.path / "metrics.jsonl", "ab") as handle:
                handle.write(text)

        def resume(self) -> None:
            run.truncate_metrics(40)
            for epoch in (2, 3, 4):
                run.append_metrics({**record(epoch), "seconds": 12.345678})
            self.append(b'{"schema": 1, "st')

        def damage(self) -> None:
            self.append(b'damage\n{"schema": 1, "step": 240}\n')

    tracker = Mock()
    tracker.log = lambda record, step: logged.append(step)
    for epoch in (1, 2, 3):
        run.append_metrics(record(epoch))
    follow(run, tracker, Resumed())
    assert logged == [40, 80, 120, 160, 200]
    tracker.finish.assert_called_once_with({"status": "interrupted"})


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks into /proc, which this system lacks")
def test_a_follower_ends_when_its_training_is_killed(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    run.append_metrics(record(1))
    script = (
        "import sys, time; from pathlib import Path; from netdepth.trackers import Mirrors\n"
        "m = Mirrors.start(Path(sys.argv[1]), ['tensorboard']); print(m._token, flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", script, str(run.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as training:
        token = training.stdout.readline().strip()
        assert len(family(token)) == 1
        os.kill(training.pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while family(token):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    (event,) = read_events(run).Scalars("loss/val")  # what was there is there
    assert event.step == STEPS_PER_EPOCH


LINES = """
import json, sys
from pathlib import Path
from typing import Annotated
from netdepth.trackers import TRACKERS

@TRACKERS.register("lines")
def lines(run_dir: Path, *, prefix: Annotated[str, "before each line"] = ">"):
    "Plain lines."
    return Lines(run_dir / "lines")

class Lines:
    def __init__(self, folder):
        self.folder, self.calls = folder, []
    def start(self, config):
        self.folder.mkdir()
        self.calls.append(["start", config["seed"], config["split"]["classes"]])
    def log(self, record, step):
        self.calls.append(["log", step, record["train/loss"]])
    def artifact(self, path):
        self.calls.append(["artifact", path.name])
    def finish(self, result):
        self.calls.append(["finish", result["status"], "torch" in sys.modules])
        (self.folder / "calls.json").write_text(json.dumps(self.calls))
"""
CALLS = [
    ["start", 3, CLASSES],
    ["log", 40, 2.3],
    ["log", 80, 1.15],
    ["artifact", "model.safetensors"],
    ["finish", "completed", False],
]


def test_a_users_own_tracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "my_tracker.py"
    source.write_text(LINES)
    monkeypatch.setitem(TRACKERS._entries, "lines", TRACKERS.entry("tensorboard"))
    monkeypatch.syspath_prepend(tmp_path)
    run = finished_run(tmp_path, 2)
    for module in (str(source), "my_tracker"):
        folder = sync(run, "lines", imports=[module])
        assert json.loads((folder / "calls.json").read_text()) == CALLS
    with pytest.raises(BadInput, match="tracker lines: cannot import 'no_such_module'"):
        sync(run, "lines", imports=["no_such_module"])
    assert TOKEN not in os.environ


def test_a_file_in_the_package_is_all_that_a_new_tracker_needs(tmp_path: Path) -> None:
    shutil.copytree(Path(netdepth.__file__).parent, tmp_path / "netdepth", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "netdepth" / "trackers" / "lines.py").write_text(LINES)
    run = finished_run(tmp_path, 2)
    code = (
        "import sys; from pathlib import Path; from netdepth.runs.folder import RunDir; from netdepth import trackers\n"
        "assert 'lines' in trackers.TRACKERS.names(); trackers.sync(RunDir(Path(sys.argv[1])), 'lines')"
    )
    subprocess.run([sys.executable, "-c", code, run.path], env={**os.environ, "PYTHONPATH": str(tmp_path)}, check=True)
    assert json.loads((run.path / "lines" / "calls.json").read_text()) == CALLS
