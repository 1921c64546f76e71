"""The trackers of a study: one group, with condition, depth and seed of each run; rebuilt; what a fault costs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.cli_world import answer
from support.tiny_studies import RECIPE, finished, make, tiny_spec
from support.tracked_runs import read_events, wandb_history, wandb_records

import netdepth as nd
from netdepth.errors import BadInput, RunFailed
from netdepth.files.usercode import import_user
from netdepth.runs.folder import RunDir
from netdepth.studies.folder import StudyDir
from netdepth.studies.mirrors import labels_of_run

BAD = """
from netdepth.trackers import TRACKERS

@TRACKERS.register("bad")
def bad(run_dir):
    "Fails for every run of depth 2, and keeps what it was told of the others."
    return Bad(run_dir / "bad")

class Bad:
    def __init__(self, folder):
        self.folder = folder
    def start(self, config):
        if config["depth"] == 2:
            raise RuntimeError("no such place")
        self.folder.mkdir()
        (self.folder / "told").write_text(f"{config['study']} {config['condition']} {config['depth']}")
    def log(self, record, step): pass
    def artifact(self, path): pass
    def finish(self, result): pass
"""


def wandb_start(run: RunDir) -> tuple[str, dict[str, Any]]:
    """The group and the config of the run's W&B mirror."""
    (start,) = (message.run for message in wandb_records(run) if message.WhichOneof("record_type") == "run")
    return start.run_group, {item.key: json.loads(item.value_json) for item in start.config.update}


def test_a_study_is_mirrored_into_one_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tensorboard.plugins.hparams.metadata import SESSION_START_INFO_TAG
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    monkeypatch.setenv("NETDEPTH_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr("netdepth.studies.mirrors.PATIENCE_SECONDS", 300.0)  # others may be at work here
    (tmp_path / "my.py").write_text(RECIPE)
    command = ["study", f"{tmp_path}/my.py:tiny", "--workers", "0", "--no-report", "--json", "--seeds", "1"]
    code, out, _ = answer([*command, "--track", "tensorboard,wandb"], capsys)
    assert (code, json.loads(out)["notes"]) == (0, [])
    study = StudyDir(tmp_path / "runs" / "mine")
    assert len(finished(study)) == 2
    for planned in study.runs():
        run = RunDir(study.path / str(planned.folder))
        group, config = wandb_start(run)
        assert group == "mine"
        found = {name: config[name] for name in ("study", "condition", "depth", "seed")}
        assert found == {
            "study": "mine",
            "condition": planned.condition,
            "depth": int(planned.level),
            "seed": planned.seed,
        }
        assert list(wandb_history(run)) == [2]
        assert [event.step for event in read_events(run).Scalars("loss/val")] == [2]
        start = read_events(run).SummaryMetadata(SESSION_START_INFO_TAG).plugin_data.content
        shown = HParamsPluginData.FromString(start).session_start_info.hparams
        assert (shown["study"].string_value, shown["depth"].number_value) == ("mine", int(planned.level))
        assert labels_of_run(run) == {name: config[name] for name in ("study", "condition", "depth")}

    code, out, _ = answer([*command, "--track", "tensorboard"], capsys)
    (note,) = json.loads(out)["notes"]
    assert note.startswith("2 runs finished before and not mirrored now; to mirror all: netdepth sync ")


def test_a_tracker_that_fails_costs_a_note_and_is_synced_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "bad.py"
    source.write_text(BAD)
    import_user(str(source))
    done = make(tmp_path, tiny_spec(seeds=(0,)), trackers=("bad",), imports=(str(source),))
    assert not done.failed
    (note,) = done.notes
    shallow = next(run for run in done.study.runs() if run.level == "2")
    assert note == (
        f"tracker bad: no mirror of 1 run ({shallow.folder}: RuntimeError: no such place); "
        f"rebuild it with: netdepth sync {done.study.path} --to bad"
    )
    (told,) = done.study.path.glob("*/bad/told")
    assert told.read_text() == "tiny plain 4"
    with pytest.raises(RunFailed, match=r"no mirror of 1 run .*no such place"):
        nd.sync(done.study.path, to="bad", imports=[str(source)])
    source.write_text(BAD.replace("== 2", "== 3"))
    shutil.rmtree(told.parent)
    code, out, _ = answer(["sync", "ti", "--to", "bad", "--import", str(source), "--runs", str(tmp_path)], capsys)
    assert (code, len(out.split())) == (0, 2)  # the beginning of its name is enough
    assert len(list(done.study.path.glob("*/bad/told"))) == 2
    with pytest.raises(BadInput, match="no run 'single' under"):
        nd.sync("single", to="bad", runs_dir=tmp_path)
