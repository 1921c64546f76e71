"""The table of a study: a row per planned run, each number from the file and field that the table names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from support.made_study_folders import Ending, alter, make_study

from netdepth.errors import BadInput
from netdepth.studies.folder import StudyDir
from netdepth.studies.table import SOURCES, study_table
from netdepth.studies.verdict import verdict

STATES = {("plain", 4, 1): "no run", ("plain", 4, 2): "failed", ("residual", 8, 0): "unfinished"}


def ending(condition: str, depth: int, seed: int) -> Ending:
    state = STATES.get((condition, depth, seed), "completed")
    return Ending(loss=0.01 * depth + 0.001 * seed, ratio=0.1 / depth, state=state)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> StudyDir:
    """A study that no test alters."""
    return make_study(tmp_path_factory.mktemp("made"), endings=ending)


@pytest.fixture
def study(made: StudyDir, tmp_path: Path) -> StudyDir:
    """A copy that a test may alter."""
    return StudyDir(Path(shutil.copytree(made.path, tmp_path / "study")))


def test_every_planned_run_has_a_row_in_the_order_of_the_plan(made: StudyDir) -> None:
    table = study_table(made)
    spec = made.spec
    planned = [(cell.condition, int(cell.level), seed) for cell in spec.cells for seed in spec.seeds]
    assert list(zip(table["condition"], table["depth"], table["seed"], strict=True)) == planned
    statuses = dict(zip(planned, table["status"], strict=True))
    assert {place: status for place, status in statuses.items() if status != "completed"} == STATES
    assert list(table.loc[table["status"] == "failed", "error"]) == ["OSError: no space left on device"]
    assert set(table["folder"]) == {run.folder for run in made.runs()}
    assert str(made.path) not in table.to_csv()


def test_each_number_is_found_again_where_its_source_says(made: StudyDir) -> None:
    table = study_table(made)
    assert table.attrs["sources"] == SOURCES
    row = table.iloc[-1]
    for name in ("train_last_loss", "val_last_accuracy", "test_best_f1_weighted", "gradient_ratio", "steps", "seconds"):
        file, _, field = table.attrs["sources"][name].partition(":")
        value = json.loads((made.path / row["folder"] / file).read_text())
        for key in field.split("."):
            value = value[key]
        assert row[name] == value, name
    assert row["classes"] == 10
    assert str(row["steps"]) == "2150", "whole numbers stay whole where some runs have none"


def test_what_study_json_does_not_name_is_not_read(study: StudyDir) -> None:
    before = study_table(study).to_csv()
    stranger = study.path / str(study.runs()[0].folder)
    shutil.copytree(stranger, stranger.with_name("made-mnist-s99-0000000000"))
    assert study_table(study).to_csv() == before


@pytest.mark.parametrize("file", ["split.json", "probes/init.json", "result.json"])
def test_a_damaged_file_makes_the_run_unreadable(study: StudyDir, file: str) -> None:
    folder = study.path / str(study.runs()[0].folder)
    (folder / file).write_text("{")
    row = study_table(study).iloc[0]
    assert row["status"] == "unreadable"
    assert f"{file} is not readable" in row["error"]


@pytest.mark.parametrize("ratio", ["high", -1.0, None])
def test_a_ratio_that_cannot_be_one_counts_as_not_measured(study: StudyDir, ratio: object) -> None:
    folder = study.path / str(study.runs()[0].folder)
    alter(folder, "probes/init.json", "gradient_ratio", ratio)
    assert study_table(study)["gradient_ratio"].isna().tolist()[:2] == [True, False]


def test_the_verdict_takes_the_table_as_it_is(made: StudyDir) -> None:
    found = verdict(study_table(made), made.spec)
    assert not found.complete
    assert {(m.reason, m.seed) for c in found.cells for m in c.cell.missing} == {
        ("no run", 1), ("failed", 2), ("unfinished", 0),
    }  # fmt: skip
    assert found.fields["gradient_ratio"] == "probes/init.json:gradient_ratio"


def test_a_folder_without_study_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"holds no study\.json"):
        study_table(StudyDir(tmp_path))
