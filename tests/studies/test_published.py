"""The published tables: generated from run folders, and as good as promised."""

import json
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from netdepth.runs.folder import RunDir

ROOT = Path(__file__).resolve().parents[2]
EXPECTED = json.loads((ROOT / "tests" / "expected.json").read_text())


def published(name):
    return [RunDir(path.parent) for path in sorted((ROOT / "docs" / "results" / name).glob("*/result.json"))]


def test_every_table_is_what_its_runs_say():
    check = [sys.executable, str(ROOT / "tools" / "publish.py"), "check"]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", EXPECTED)
def test_published_runs_reach_what_is_promised(name):
    runs, promised = published(name), EXPECTED[name]
    assert [run.read_json("config.json")["seed"] for run in runs] == list(range(promised["seeds"]))
    assert len({run.read_json("config.json")["fingerprint"] for run in runs}) == 1
    results = [run.result() for run in runs]
    assert all(len(run.read_json("test_access.json")["opened"]) == 1 for run in runs)

    def mean(metric):
        return statistics.fmean(result["test"][result["reported"]][metric] for result in results)

    for metric in set(promised) & {"accuracy", "precision_weighted"}:
        assert mean(metric) >= promised[metric]
    if "loss" in promised:
        assert mean("loss") <= promised["loss"]


def test_every_test_that_the_list_of_mistakes_names_exists():
    page = (ROOT / "docs" / "mistakes.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| ") and "`test_" in line]
    assert len(rows) >= 15
    for row in rows:
        cell, source = row.rstrip(" |").rpartition(" | ")[2], ""
        for file, name in re.findall(r"`(?:(test_\w+\.py)::)?(test_\w+)`", cell):
            source = next((ROOT / "tests").rglob(file)).read_text() if file else source
            assert f"def {name}(" in source, name
        assert source, f"no test in: {row}"
