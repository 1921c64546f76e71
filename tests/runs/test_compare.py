"""Comparisons of runs: nothing is dropped, nothing counts twice, the mean is SciPy's; McNemar's test of two runs."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import math
import zipfile
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from support.made_runs import make_run
from support.real_runs import CONFIG, make

from netdepth.config import Component
from netdepth.errors import BadInput
from netdepth.runs.compare import compare, correct_of, mcnemar_of_runs
from netdepth.runs.folder import RunDir

ACCURACIES = [0.971, 0.974, 0.978, 0.973, 0.975]


def make_seeds(root: Path) -> list[RunDir]:
    return [make_run(root, seed=seed, test_accuracy=value) for seed, value in enumerate(ACCURACIES)]


def test_seeds_of_one_config_are_one_group_with_scipys_interval(tmp_path: Path) -> None:
    found = compare(reversed(make_seeds(tmp_path)))
    (group,) = found.groups
    assert [row.seed for row in group.rows] == [0, 1, 2, 3, 4]
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


def test_runs_of_a_study_are_called_as_it_calls_them_unless_two_configs_share_a_name(tmp_path: Path) -> None:
    runs = [make_run(tmp_path), make_run(tmp_path, fingerprint="b" * 10, lr=0.01)]
    names = {runs[0].path: "plain, depth 2", runs[1].path: "plain, depth 4"}
    assert [group.label for group in compare(runs, lambda run: names[run.path]).groups] == list(names.values())
    assert "optimizer.lr=0.01" in compare(runs, lambda run: "plain").groups[1].label


def test_different_data_and_repeated_seeds_are_warned_of(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path),
        make_run(tmp_path, fingerprint="b" * 10, dataset="fashion-mnist"),
        make_run(tmp_path, study="other"),
    ]
    data, seeds = compare(runs).warnings
    assert "2 different data sets or splits (fashion-mnist, mnist)" in data
    assert "seed 0 is in several folders" in seeds


def test_what_is_wrong_with_the_data_of_some_runs_names_them(tmp_path: Path) -> None:
    runs = [make_run(tmp_path), make_run(tmp_path, fingerprint="b" * 10, lr=0.01)]
    path = runs[1].path / "split.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "repeated": {"test": 3}}))
    (warning,) = compare(runs).warnings
    assert warning.startswith("baseline-mlp on mnist, optimizer.lr=0.01: 3 of ")
    (warning,) = compare(runs[1:]).warnings
    assert warning.startswith("3 of ")


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


# --- predictions ---


def test_mcnemars_test_of_two_runs_is_on_the_images_both_were_tested_on(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, train=dataclasses.replace(CONFIG.train, budget="5it", eval_every="5it"))
    first, second = (make(tmp_path, config.with_seed(seed)).run for seed in (0, 1))
    found = mcnemar_of_runs(first, second)
    accuracies = [run.result()["test"]["last"]["accuracy"] for run in (first, second)]
    assert found.first - found.second == round(1000 * (accuracies[0] - accuracies[1]))
    assert mcnemar_of_runs(first, first).p == 1
    other = make(tmp_path, dataclasses.replace(config, dataset=Component("mnist5k", {"classes": list("0123456789")})))
    with pytest.raises(BadInput, match="different images"):
        mcnemar_of_runs(first, other.run)


def test_damaged_predictions_are_refused_in_one_line_and_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "predictions.npz"

    def refused(content: bytes) -> None:
        path.write_bytes(content)
        with pytest.raises(BadInput, match=r"no readable predictions.npz"):
            correct_of(RunDir(tmp_path))

    refused(b"no archive")
    whole = io.BytesIO()
    np.savez_compressed(whole, logits=np.eye(4, dtype=np.float32), labels=np.arange(4))
    for position in range(0, len(whole.getvalue()), 7):
        refused(whole.getvalue()[:position])
        flipped = bytearray(whole.getvalue())
        flipped[position] ^= 0x55
        path.write_bytes(flipped)
        with contextlib.suppress(BadInput):  # a flip in a date is none in the answers
            assert correct_of(RunDir(tmp_path))[0].all()

    def packed(logits: bytes) -> bytes:
        sink = io.BytesIO()
        with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("logits.npy", logits)
        return sink.getvalue()

    huge = io.BytesIO()
    np.lib.format.write_array_header_1_0(huge, {"descr": "<f4", "fortran_order": False, "shape": (2**45, 10)})
    refused(packed(huge.getvalue()))
    path.write_bytes(whole.getvalue())
    assert correct_of(RunDir(tmp_path))[0].all()
    monkeypatch.setattr("netdepth.runs.compare.MOST_BYTES", 200)
    refused(whole.getvalue())
