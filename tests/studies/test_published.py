"""What docs/ publishes: runs and studies from which its tables and verdicts follow, as good as promised."""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pandas
import pytest

from netdepth.config import from_json
from netdepth.runs.folder import RunDir
from netdepth.studies.verdict import verdict
from netdepth.studyspec import StudySpec

ROOT = Path(__file__).resolve().parents[2]
EXPECTED = json.loads((ROOT / "tests" / "expected.json").read_text())
STUDIES = sorted((ROOT / "docs" / "studies").glob("*/study.json"))


def test_every_table_is_what_its_runs_say() -> None:
    check = [sys.executable, str(ROOT / "tools" / "publish.py"), "check"]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", EXPECTED)
def test_published_runs_reach_what_is_promised(name: str) -> None:
    promised = EXPECTED[name]
    runs = [RunDir(path.parent) for path in sorted((ROOT / "docs" / "results" / name).glob("*/result.json"))]
    configs = [run.read_json("config.json") or {} for run in runs]
    assert [config["seed"] for config in configs] == list(range(promised["seeds"]))
    assert len({config["fingerprint"] for config in configs}) == 1
    results = [run.result() or {} for run in runs]
    assert all(len((run.read_json("test_access.json") or {})["opened"]) == 1 for run in runs)

    def mean(metric: str) -> float:
        return statistics.fmean(result["test"][result["reported"]][metric] for result in results)

    for metric in set(promised) & {"accuracy", "precision_weighted"}:
        assert mean(metric) >= promised[metric]
    if "loss" in promised:
        assert mean("loss") <= promised["loss"]


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.parent.name)
def test_a_published_verdict_follows_from_its_table_and_its_question(path: Path) -> None:
    """In the words of today too: ``python tools/findings.py reword`` writes them."""
    study = json.loads(path.read_text())
    spec = from_json(StudySpec, study["spec"], "spec")
    table = pandas.read_csv(path.parent / "table.csv", dtype={axis.name: str for axis in spec.scientific})
    found = verdict(table, spec)
    assert found.complete
    assert json.loads(json.dumps(found.as_json())) == json.loads((path.parent / "verdict.json").read_text())
    planned = [(item["folder"], item["seed"]) for item in study["runs"]]
    assert list(zip(table["folder"], table["seed"], strict=True)) == planned, "planned before it began"
    assert sum(len(group["seeds"]) for group in study["plan"]["groups"]) == len(planned)


def test_every_test_that_the_list_of_mistakes_names_exists() -> None:
    rows = [line for line in (ROOT / "docs" / "mistakes.md").read_text().splitlines() if "`test_" in line]
    assert len(rows) >= 15
    for row in rows:
        cell, source = row.rstrip(" |").rpartition(" | ")[2], ""
        for file, name in re.findall(r"`(?:(test_\w+\.py)::)?(test_\w+)`", cell):
            source = next((ROOT / "tests").rglob(file)).read_text() if file else source
            assert f"def {name}(" in source, name
        assert source, f"no test in: {row}"
