"""Comparisons of made folders: nothing is dropped, nothing counts twice, the mean is SciPy's."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from support.made_runs import make_run

from netdepth.errors import BadInput
from netdepth.runs.compare import compare
from netdepth.runs.folder import RunDir

ACCURACIES = [0.971, 0.974, 0.978, 0.973, 0.975]


def make_seeds(root: Path) -> list[RunDir]:
    return [make_run(root, seed=seed, test_accuracy=value) for seed, value in enumerate(ACCURACIES)]


def test_seeds_of_one_config_are_one_group_with_scipys_interval(tmp_path: Path) -> None:
    found = compare(reversed(make_seeds(tmp_path)))
    (group,) = found.groups
    assert [row["seed"] for row in group.rows] == [0, 1, 2, 3, 4]
    estimate = group.estimates["test_accuracy"]
    low, high = stats.t.interval(0.95, 4, loc=np.mean(ACCURACIES), scale=stats.sem(ACCURACIES))
    assert [estimate.value, estimate.low, estimate.high] == pytest.approx([np.mean(ACCURACIES), low, high], rel=1e-12)
    assert (group.remarks, found.warnings) == ([], ())


def test_a_folder_named_twice_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path)
    monkeypatch.chdir(tmp_path)
    link = tmp_path / "link"
    link.symlink_to(run.path)
    again = [RunDir(run.path.relative_to(tmp_path)), RunDir(link), run]
    assert len(compare([run, *again]).groups[0].rows) == 1


def test_what_did_not_finish_is_shown_and_counted_and_in_no_mean(tmp_path: Path) -> None:
    runs = [
        *make_seeds(tmp_path),
        make_run(tmp_path, seed=5, finish=False),
        make_run(tmp_path, seed=6, failure="disk full"),
    ]
    (group,) = compare(runs).groups
    assert len(group.rows) == 7
    assert group.estimates["test_accuracy"].n == 5
    assert group.remarks == ["1 unfinished", "1 failed"]


def test_a_diverged_run_counts_where_its_value_is_finite(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path, seed=0, test_accuracy=0.9),
        make_run(tmp_path, seed=1, test_accuracy=0.8, status="diverged"),
        make_run(tmp_path, seed=2, status="diverged", reported="last"),
    ]
    (group,) = compare(runs).groups
    assert group.estimates["test_accuracy"].n == 2
    assert group.estimates["test_accuracy"].value == pytest.approx(0.85)
    assert group.remarks == ["2 diverged"]


def test_the_reported_weights_are_the_ones_compared(tmp_path: Path) -> None:
    (group,) = compare([make_run(tmp_path, reported="last", test_loss=0.08)]).groups
    assert group.estimates["test_loss"].value == pytest.approx(0.09)


def test_labels_name_what_differs_and_nothing_else(tmp_path: Path) -> None:
    runs = [make_run(tmp_path), make_run(tmp_path, fingerprint="b" * 10, lr=0.01)]
    labels = [group.label for group in compare(runs).groups]
    assert labels == ["baseline-mlp on mnist, optimizer.lr=0.001", "baseline-mlp on mnist, optimizer.lr=0.01"]


def test_different_data_and_repeated_seeds_are_warned_of(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path),
        make_run(tmp_path, fingerprint="b" * 10, dataset="fashion-mnist"),
        make_run(tmp_path, study="other"),
    ]
    data, seeds = compare(runs).warnings
    assert "2 different data sets or splits (fashion-mnist, mnist)" in data
    assert "seed 0 is in several folders" in seeds


def test_an_unreadable_folder_has_its_line(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    (run.path / "config.json").write_text("[]")
    (group,) = compare([run]).groups
    assert group.remarks == ["1 unreadable"]


def test_the_document_is_json_and_names_sources(tmp_path: Path) -> None:
    runs = [make_run(tmp_path), make_run(tmp_path, seed=1, status="diverged", reported="last")]
    document = json.loads(json.dumps(compare(runs).as_json(), allow_nan=False))
    first, second = document["groups"][0]["runs"]
    assert first["sources"]["test_loss"].endswith(f"{first['run']}/result.json:test.best.loss")
    assert second["test_loss"] == "nan"
    assert math.isclose(first["test_accuracy"], 0.97)


def test_nothing_to_compare_is_an_error() -> None:
    with pytest.raises(BadInput, match="at least one run"):
        compare([])
