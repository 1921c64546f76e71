"""Published studies: what docs/ says of them follows from the tables that lie there."""

import json
from pathlib import Path

import pandas
import pytest

from netdepth.config import from_json
from netdepth.studies.verdict import verdict
from netdepth.studyspec import StudySpec

STUDIES = sorted((Path(__file__).resolve().parents[2] / "docs" / "studies").glob("*/study.json"))


def test_there_is_a_published_study():
    assert "depth-mlp" in [path.parent.name for path in STUDIES]


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.parent.name)
def test_a_published_verdict_follows_from_its_table_and_its_question(path):
    spec = from_json(StudySpec, json.loads(path.read_text())["spec"], "spec")
    table = pandas.read_csv(path.parent / "table.csv", dtype={axis.name: str for axis in spec.scientific})
    made = json.loads(json.dumps(verdict(table, spec).as_json()))
    published = json.loads((path.parent / "verdict.json").read_text())
    assert len(table) == len(spec.cells) * len(spec.seeds)
    assert published["complete"]
    assert {key: made[key] for key in published if key != "cells"} == {
        key: value for key, value in published.items() if key != "cells"
    }
    for cell, other in zip(made["cells"], published["cells"], strict=True):
        assert cell == other


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.parent.name)
def test_every_run_of_a_published_study_was_planned_before_it_began(path):
    study = json.loads(path.read_text())
    planned = [(item["folder"], item["seed"]) for item in study["runs"]]
    table = pandas.read_csv(path.parent / "table.csv")
    assert list(zip(table["folder"], table["seed"], strict=True)) == planned
    stacked = [seed for group in study["plan"]["groups"] for seed in group["seeds"]]
    assert len(stacked) == len(planned)
