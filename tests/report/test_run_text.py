"""Comparisons as text, Markdown, CSV and LaTeX: read back, and hostile names kept literal."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from support.made_runs import make_run

from netdepth.report.run_text import class_words, print_comparison, print_run, render
from netdepth.runs.compare import Comparison, compare
from netdepth.runs.table import run_row

ACCURACIES = [0.971, 0.974, 0.978]
HOSTILE = "a|b <img src=x> `c` *d* $e$ \x1b[31mred\x1b[0m"


@pytest.fixture
def three(tmp_path: Path) -> Comparison:
    return compare(make_run(tmp_path, seed=seed, test_accuracy=value) for seed, value in enumerate(ACCURACIES))


def test_markdown_reads_back_to_the_numbers(three: Comparison) -> None:
    lines = [line for line in render(three, "markdown").splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert len({len(row) for row in cells}) == 1
    assert [float(row[2].removesuffix(" %")) for row in cells[2:5]] == [97.1, 97.4, 97.8]
    low, high = stats.t.interval(0.95, 2, loc=np.mean(ACCURACIES), scale=stats.sem(ACCURACIES))
    assert cells[5][2] == f"**{100 * np.mean(ACCURACIES):.2f} ± {50 * (high - low):.2f} %**"
    assert cells[5][-1] == "**n = 3 of 3 runs**"


def test_csv_holds_fractions_and_the_ends_of_the_interval(three: Comparison) -> None:
    rows = list(csv.DictReader(io.StringIO(render(three, "csv"))))
    assert [row["line"] for row in rows] == ["run", "run", "run", "mean", "low", "high", "n"]
    assert [float(row["test_accuracy"]) for row in rows[:3]] == ACCURACIES
    estimate = three.groups[0].estimates["test_accuracy"]
    found = [float(row["test_accuracy"]) for row in rows[3:]]
    assert found == [estimate.value, estimate.low, estimate.high, 3]


def test_latex_has_as_many_cells_as_columns(three: Comparison) -> None:
    text = render(three, "latex")
    columns = re.search(r"begin\{tabular\}\{(\w+)\}", text)
    assert columns is not None
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 5
    assert {line.count(" & ") + 1 for line in rows} == {len(columns[1])}
    assert "97.10 \\%" in text


def test_several_configurations_are_one_table_with_the_best_validation_loss_first(tmp_path: Path) -> None:
    runs = [make_run(tmp_path, seed=seed, lr=0.1, fingerprint="b" * 10, val_loss=0.3 + seed / 10) for seed in (0, 1)]
    runs += [make_run(tmp_path, lr=0.01, val_loss=0.2), make_run(tmp_path, seed=1, finish=False)]
    runs += [make_run(tmp_path, lr=9.0, fingerprint="c" * 10, status="diverged", reported="last", test_accuracy=0.99)]
    made = compare(runs)
    (title, *table) = (line for line in render(made, "markdown").splitlines() if line)
    assert title.startswith("**baseline-mlp on mnist: 3 configurations, means ± 95 % t intervals, the smallest")
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    assert [row[:2] + row[-1:] for row in cells[2:]] == [
        ["optimizer.lr=0.01", "1", "1 unfinished"],
        ["optimizer.lr=0.1", "2", ""],
        ["optimizer.lr=9.0", "0", "1 diverged"],
    ]
    assert cells[3][-2].startswith("0.3500 ± ")
    stream = io.StringIO()
    print_comparison(made, stream)
    assert "mean ± 95 % t interval" not in stream.getvalue()
    print_comparison(made, stream, flat=True)
    assert stream.getvalue().count("mean ± 95 % t interval") == 3
    latex = [line for line in render(made, "latex").splitlines() if line.endswith("\\\\")]
    assert {line.count(" & ") + 1 for line in latex} == {len(cells[0])}


def test_hostile_names_stay_literal_in_every_format(tmp_path: Path) -> None:
    made = compare([make_run(tmp_path, recipe=HOSTILE, failure="no | pipe\nhere")])
    markdown = render(made, "markdown")
    assert "<img" not in markdown
    table = [line for line in markdown.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {10}
    latex = render(made, "latex")
    assert all(line.startswith("%") for line in latex.splitlines() if "img" in line)
    stream = io.StringIO()
    print_comparison(made, stream)
    for text in (markdown, latex, render(made, "csv"), stream.getvalue()):
        assert "\x1b" not in text
        assert "\\x1b[31mred" in text or "\\x1b\\[31mred" in text


def test_the_text_names_everything_that_is_not_in_the_mean_and_is_never_cut(tmp_path: Path) -> None:
    long = "no disk" * 50
    runs = [make_run(tmp_path), make_run(tmp_path, seed=1, finish=False), make_run(tmp_path, seed=2, failure=long)]
    stream = io.StringIO()
    print_comparison(compare(runs), stream)
    assert "n = 1 of 3 runs, 1 unfinished, 1 failed" in stream.getvalue()
    assert f"failed: OSError: {long}" in stream.getvalue()


def test_a_rare_class_that_is_never_found_is_seen_behind_a_high_accuracy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path, test_accuracy=0.95, recalls={"common": (1.0, 95), "rare": (0.0, 5), "absent": (0.0, 0)})
    print_run(run)
    shown = capsys.readouterr().out
    assert "Worst class on test: rare, 0.00 % of its 5 images found. Macro recall: 50.00 %." in shown
    assert "Never found: rare (5 images)." in shown
    assert class_words(run_row(make_run(tmp_path, seed=1))) == [], "an old result without classes"
    made = compare([run])
    row = made.as_json()["groups"][0]["runs"][0]
    assert (row["macro_recall"], row["worst_recall"], row["worst_class"]) == (0.5, 0.0, "rare")
    assert row["sources"]["macro_recall"].endswith("result.json:per_class")
    assert "| 95.00 % | 50.00 % | 0.00 % (rare) |" in render(made, "markdown")


def test_classes_of_different_parts_are_not_compared_without_a_word(tmp_path: Path) -> None:
    recalls = {"a": (0.5, 2)}
    runs = [make_run(tmp_path, seed=seed, recalls=recalls, evaluated_on=on) for seed, on in enumerate(("val", "test"))]
    assert any("not of the same images" in warning for warning in compare(runs).warnings)
    (said,) = compare(runs[:1]).warnings
    assert said.endswith("macro recall and worst class are of the validation images")
    assert compare(runs[1:]).warnings == ()


def test_what_makes_the_numbers_of_a_run_look_better_is_said_wherever_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path)
    about = {"without_val": list("abcdef"), "repeated": {"test": 3}, "note": "labels 1 to 7"}
    split = {**(run.read_json("split.json") or {}), "sizes": {"test": 2_000}, "classes": list("abcdefg"), **about}
    run.write_json("split.json", split)
    result = run.read_json("result.json") or {}
    run.write_json("result.json", {**result, "overfit_onset_epoch": 3.0})
    copies = "3 of 2,000 test pictures are in train too (the same pixels): test numbers are too good"
    unseen = "validation has no picture of 6 of 7 classes ('a', 'b', 'c', 'd', 'e' and 1 more): its numbers, early"
    print_run(run)
    said = capsys.readouterr().out
    assert "overfitting since epoch 3 (judged without 6 of 7 classes)." in said
    assert [line[:100] for line in said.splitlines() if line.startswith("note: ")] == [
        f"note: {text}"[:100] for text in (copies, unseen, "labels 1 to 7")
    ]
    first, second = compare([run]).warnings
    assert first == copies
    assert second.startswith(unseen)
    for broken in ({"repeated": [3], "without_val": 7, "note": 1}, {"repeated": {"test": "x"}, "without_val": [1]}):
        run.write_json("split.json", {**split, **broken})
        assert compare([run]).warnings == ()
