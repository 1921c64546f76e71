"""Every number of the table stands in the file and field that the table names."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from support.made_runs import make_run

from netdepth.errors import BadInput
from netdepth.runs.table import COLUMNS, run_row, source


def test_each_number_is_found_again_where_its_source_says(tmp_path: Path) -> None:
    row = run_row(make_run(tmp_path))
    seen = 0
    for column in COLUMNS:
        path, _, field = source(row, column.name).partition(":")
        if not column.number or path.endswith(".jsonl"):
            continue
        value = json.loads(Path(path).read_text())
        for key in field.split("."):
            value = value[key]
        assert row.value(column.name) == value, column
        seen += 1
    assert seen == 37  # 7 of the run and 3 parts x 2 weights x 5 metrics
    assert row.epochs == 4.0
    assert row.model == "mlp hidden=[8,4] activation=relu"


def test_what_was_not_finite_comes_back_and_what_is_missing_is_none(tmp_path: Path) -> None:
    diverged = run_row(make_run(tmp_path, status="diverged"))
    assert math.isnan(diverged.scores["test_last_loss"])
    assert diverged.scores["test_best_loss"] == 0.08
    unfinished = run_row(make_run(tmp_path, seed=1, finish=False))
    assert unfinished.status == "unfinished"
    assert unfinished.scores["test_best_loss"] is None
    assert unfinished.epochs == 4.0


def test_a_failed_and_a_damaged_run_say_why(tmp_path: Path) -> None:
    failed = run_row(make_run(tmp_path, failure="disk full"))
    assert (failed.status, failed.error) == ("failed", "OSError: disk full")
    damaged = make_run(tmp_path, seed=1)
    (damaged.path / "result.json").write_text("{")
    row = run_row(damaged)
    assert row.status == "unreadable"
    assert "result.json is not readable" in row.error


@pytest.mark.parametrize("value", ["high", True, [1], {"a": 1}, 10**400])
def test_a_field_that_is_no_number_is_not_taken_for_one(tmp_path: Path, value: object) -> None:
    run = make_run(tmp_path)
    result = run.result() or {}
    result["test"]["best"]["loss"] = value
    (run.path / "result.json").write_text(json.dumps(result))
    assert run_row(run).scores["test_best_loss"] is None


def test_an_unknown_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="did you mean 'test_best_loss'"):
        source(run_row(make_run(tmp_path)), "test_bst_loss")
