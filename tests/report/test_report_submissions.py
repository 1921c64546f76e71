"""``netdepth compare`` of whole studies: a line each, what they say together, and what an instructor must notice."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import pytest
from support.browser import find_browser
from support.cli_world import answer
from support.made_study_folders import Ending, make_study, small_spec, telling

from netdepth.studyspec import Axis, Primary, StudySpec

HOSTILE = "<img src=x onerror=alert(1)>"


def he_spec(**changes: Any) -> StudySpec:
    """Conditions whose keys are not their labels."""
    levels = {"plain he": {"model.shortcut": "none"}, "residual he": {"model.shortcut": "identity"}}
    primary = (*(Primary("depth", 8, name) for name in levels), Primary("shortcut", 8, "residual he", "plain he"))
    return small_spec(scientific=(Axis.of_depths((2, 4, 8)), Axis("condition", levels)), primary=primary, **changes)


def ending(condition: str, depth: int, seed: int) -> Ending:
    return dataclasses.replace(telling(condition, depth, seed), state="unfinished" if seed == 9 else "completed")


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sound submissions, one unfinished, one of another question, one that is damaged."""
    root = tmp_path_factory.mktemp("course")
    make_study(root / "anna", he_spec())
    make_study(root / f"b {HOSTILE}", he_spec(seeds=(4, 5, 6, 9)), ending)
    make_study(root / "carla", he_spec(smallest_effect=0.5))
    damaged = make_study(root / "dora", he_spec())
    (damaged.path / "study.json").write_text("{")
    return root


def paths(course: Path) -> list[str]:
    return [str(folder / "made") for folder in sorted(course.iterdir()) if (folder / "made").is_dir()]


def test_every_submission_has_a_line_whatever_became_of_it(course: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = answer(["compare", *paths(course), "--json"], capsys)
    assert (code, err) == (0, "")
    found = json.loads(out)
    anna, ben, carla, dora = found["studies"]
    assert [row["name"] for row in (anna, ben, carla, dora)] == ["anna", f"b {HOSTILE}", "carla", "dora"]
    assert (anna["finished"], anna["planned"], anna["seeds"], anna["report"]) == (24, 24, [0, 1, 2, 3], "none")
    assert (ben["finished"], ben["planned"]) == (18, 24)
    assert "not readable JSON" in dora["error"]
    assert anna["fingerprint"] == ben["fingerprint"] != carla["fingerprint"]
    assert found["warnings"][0].startswith("2 different studies: carla asked another question")
    assert {*anna} == {
        "name", "folder", "study", "fingerprint", "finished", "planned", "seeds", "report", "made_with", "answer",
        "chips", "weights", "error",
    }  # fmt: skip
    places = {f"{name}, depth {depth}" for name in ("plain he", "residual he") for depth in (2, 4, 8)}
    places |= {f"residual he against plain he, depth {depth}" for depth in (2, 4, 8)}
    assert set(anna["chips"]) == set(found["agreement"]) == places, "keys, not labels: programs read them"
    word = anna["chips"]["plain he, depth 8"]["word"]
    assert found["agreement"]["plain he, depth 8"][word] >= 1
    assert sum(found["agreement"]["plain he, depth 8"].values()) == 3


def test_tables_hold_every_place_and_nothing_that_a_name_smuggles_in(
    course: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    code, out, _ = answer(["compare", *paths(course), "--csv", "--html", str(page)], capsys)
    assert code == 0
    header, *lines = csv.reader(io.StringIO(out))
    assert len(lines) == 4
    assert {"plain he, depth 4", "residual he, depth 8", "residual he against plain he, depth 8"} <= set(header)
    text = page.read_text()
    assert "<img" not in text
    assert "b &lt;img" in text
    assert "residual (He init) against plain (He init), depth 8" in text
    assert text.count("<tr>") >= 4
    code, out, _ = answer(["compare", *paths(course), "--markdown"], capsys)
    assert code == 0
    assert "<img" not in out
    assert "plain, He init, depth 4" in out
    assert len({line.count(" | ") for line in out.splitlines() if line.startswith("| ")}) == 1


@pytest.mark.browser
def test_the_page_asks_for_nothing_and_runs_nothing(
    course: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    assert answer(["compare", *paths(course), "--html", str(page)], capsys)[0] == 0
    shown, asked = find_browser(tmp_path / "profile").served(page.read_text())
    assert asked == ["127.0.0.1/page.html"]
    assert "<img" not in shown
    assert "4 studies side by side" in shown


def test_a_copy_is_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("anna", "ben"):
        study = make_study(tmp_path / name)
        for result in study.path.glob("*/result.json"):
            kept = json.loads(result.read_text())
            own = result.parent.name if "-s0-" in result.parent.name else f"{name} {result.parent.name}"
            result.write_text(json.dumps({**kept, "weights_sha256": own}))
    code, out, _ = answer(["compare", *(str(tmp_path / name / "made") for name in ("anna", "ben")), "--json"], capsys)
    assert code == 0
    (warning,) = json.loads(out)["warnings"]
    assert warning.startswith("anna and ben hold the same weights in 6 runs")


def test_seeds_are_those_that_were_agreed(course: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps({"anna": [3, 2, 1, 0], "carla": [10, 11], "emil": [20]}))
    code, out, _ = answer(["compare", *paths(course), "--seeds-from", str(plan), "--json"], capsys)
    assert code == 0
    found = json.loads(out)
    anna, ben, carla, _ = (row["report"] for row in found["studies"])
    assert anna == "none", "its seeds are right, and it has no page"
    assert ben.endswith("faults: no seeds were agreed for it")
    assert carla == "1 fault: its seeds are 0, 1, 2 and 3, agreed were 10 and 11"
    assert found["warnings"][-1] == "no submission of emil, whose seeds were agreed"
    for text, said in (("[1]", "names no student"), ('{"anna": [-1]}', "anna has [-1]; give the seeds"), ("{", "JSON")):
        plan.write_text(text)
        code, _, err = answer(["compare", *paths(course), "--seeds-from", str(plan)], capsys)
        assert code == 2
        assert said in err
        assert err.count("\n") == 1


def test_runs_and_studies_do_not_mix(course: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = paths(course)[0]
    run = str(next(Path(study).glob("*-s0-*")))
    for asked, said in (
        ([study, run], "compare studies with studies"),
        ([run, "--html", "x.html"], "--html takes studies"),
        ([run, "--seeds-from", "x.json"], "--seeds-from takes studies"),
        ([study, "--latex"], "choose from: markdown, csv, html"),
    ):
        code, _, err = answer(["compare", *asked], capsys)
        assert code == 2, asked
        assert said in err
        assert err.count("\n") == 1
