"""The study command: what it prints, writes and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.cli_world import answer
from support.tiny_studies import RECIPE, finished

from netdepth.config import Component
from netdepth.recipes import RECIPES
from netdepth.studies.folder import StudyDir
from netdepth.studyspec import StudySpec


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NETDEPTH_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr("netdepth.studies.forecast.CALIBRATION_SECONDS", 0.1)
    (tmp_path / "my.py").write_text(RECIPE)
    return tmp_path


def test_a_dry_run_counts_estimates_and_writes_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = answer(["study", "my.py:tiny", "--dry-run", "--workers", "2", "--json"], capsys)
    found = json.loads(out)
    assert code == 0
    assert [path.name for path in here.iterdir()] == ["my.py"]
    assert (found["runs"], found["missing"], found["workers"]) == (4, 4, 2)
    assert [(row["depth"], row["runs"], row["steps"]) for row in found["cells"]] == [(2, 2, 2), (3, 2, 2)]
    weights = {2: 784 * 4 + 4 * 10, 3: 784 * 4 + 4 * 4 + 4 * 10}
    for row in found["cells"]:
        assert row["multiply_adds_per_step"] == 3 * 32 * weights[row["depth"]]
        assert row["parameters"] == weights[row["depth"]] + 4 * (row["depth"] - 1) + 10
        assert row["operations"] == row["multiply_adds_per_step"] * row["steps"] * row["runs"]
    assert found["operations"] == sum(row["operations"] for row in found["cells"])
    assert found["about_seconds"] > 0
    code, out, _ = answer(["study", "my.py:tiny", "--dry-run"], capsys)
    assert "4 runs, 4 of them to train" in out
    assert "about " in out


def test_the_command_trains_answers_and_continues(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["study", "my.py:tiny", "--workers", "0", "--no-report"]
    code, out, err = answer([*command, "--json"], capsys)
    found = json.loads(out)
    assert code == 0
    assert (found["made"], found["failed"], found["report"], len(found["runs"])) == (4, 0, None, 4)
    assert "[4/4 runs] depth 2, 2 seeds: 2 completed in" in err
    folder = here / "runs" / "mine"
    assert len(finished(StudyDir(folder))) == 4
    assert (folder / "table.csv").exists()
    assert (folder / "verdict.json").exists()
    code, out, err = answer(command, capsys)
    assert code == 0
    assert "4 of 4 runs finished (0 trained now)" in out
    code, out, _ = answer(["study", "my.py:tiny", "--dry-run"], capsys)
    assert "nothing is missing" in out
    code, _, err = answer([*command, "--seeds", "1"], capsys)
    assert "note: runs/mine" in err.replace(str(here) + "/", "")
    assert "a plan is not shortened" in err


def test_a_failed_run_is_exit_1_and_a_study_in_use_75(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netdepth.training.run.train_stack", lambda *args, **kwargs: 1 / 0)
    code, out, err = answer(["study", "my.py:tiny", "--workers", "0"], capsys)
    assert code == 1
    assert err.count("netdepth: error: ") == 4
    assert "0 of 4 runs finished" in out
    with StudyDir(here / "runs" / "mine").lock():
        code, _, err = answer(["study", "my.py:tiny", "--workers", "0"], capsys)
    assert (code, err.count("\n")) == (75, 1)


def test_bad_input_is_one_line_and_leaves_no_folder(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for option, value, said in (
        ("--device", "tpu", "unknown --device 'tpu'"),
        ("--set", "model.widht=8", "did you mean 'width'"),
        ("--depths", "2,99999", "model.depth = 99999 is out of range"),
    ):
        code, out, err = answer(["study", "my.py:tiny", option, value], capsys)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert said in err
    assert not (here / "runs").exists()


def test_list_marks_studies(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(answer(["list", "recipes", "--json"], capsys)[1])["recipes"]
    studies = [name for name in RECIPES.names() if isinstance(RECIPES.build(Component(name)), StudySpec)]
    assert sorted(entry["name"] for entry in found if entry["study"]) == studies
    assert "depth-mlp (study)" in answer(["list", "recipes"], capsys)[1]
    verbose = answer(["list", "recipes", "-v"], capsys)[1]
    assert "35 planned comparisons" in verbose
    assert "does depth help" in verbose.lower()
