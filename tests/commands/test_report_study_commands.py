"""``netdepth report`` and ``netdepth verdict``: what they print, write and answer."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.cli_world import answer
from support.made_study_folders import Ending, make_study, telling, unbegun_study

from netdepth.cli import main
from netdepth.studies.folder import StudyDir

WRITTEN = {"report.html", "report.md", "sources.json", "table.csv", "verdict.json", "figures"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> StudyDir:
    """A study without a report; no test alters it."""
    return make_study(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyDir, int, str]:
    """A study with the report that the command made, its exit code and what it printed; no test alters it."""
    study = make_study(tmp_path_factory.mktemp("reported"))
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = main(["report", "mad", "--runs", str(study.path.parent)])
    return study, code, out.getvalue()


@pytest.fixture
def study(made: StudyDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StudyDir:
    """A copy in the runs folder of this test."""
    monkeypatch.setenv("NETDEPTH_RUNS", str(tmp_path))
    return StudyDir(Path(shutil.copytree(made.path, tmp_path / "made")))


def written(study: StudyDir) -> set[str]:
    runs = {run.folder for run in study.runs()}
    return {path.name for path in study.path.iterdir()} - runs - {"study.json"}


def test_report_writes_everything_and_says_where(
    reported: tuple[StudyDir, int, str], capsys: pytest.CaptureFixture[str]
) -> None:
    study, code, out = reported
    assert code == 0
    assert str(study.path / "report.html") in out
    assert written(study) == WRITTEN
    assert {path.name for path in (study.path / "figures").iterdir()} == {
        "against-depth.png", "gradient-flow.png", "learning-curves.png",
    }  # fmt: skip
    text = (study.path / "report.md").read_text()
    for name in re.findall(r"!\[[^\]]*\]\(([^)]*)\)", text):
        assert (study.path / name).read_bytes().startswith(b"\x89PNG")
    assert text.startswith("# Does depth help here?\n")
    assert str(study.path) not in text + (study.path / "report.html").read_text()
    code, out, _ = answer(["report", str(study.path), "--check"], capsys)
    assert (code, "is sound" in out) == (0, True)


def test_every_number_of_the_markdown_page_is_in_its_sources(reported: tuple[StudyDir, int, str]) -> None:
    study = reported[0]
    content = json.loads((study.path / "sources.json").read_text())
    assert set(content["runs"]) == {str(number) for number in range(1, 25)}
    assert all((study.path / name / "result.json").exists() for name in content["runs"].values())
    text = re.sub(r"\\(.)", r"\1", (study.path / "report.md").read_text()).replace("&lt;", "<")
    for number in content["numbers"]:
        assert number["text"] in text, number
        assert number["runs"], number
        assert all(re.fullmatch(r"[\w/.-]+\.jsonl?:[\w.]+", field) for field in number["fields"]), number
    assert len(content["numbers"]) > 100


def test_verdict_prints_sentences_and_a_table_and_writes_two_files(
    study: StudyDir, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = answer(["verdict", str(study.path)], capsys)
    assert (code, err) == (0, "")
    assert out.startswith("Does depth help here?\n")
    assert "\nplain: undecided from depth 4 on.\n" in out
    assert re.search(r"plain +reference [0-9.]+ +undecided [0-9.]+ +undecided [0-9.]+", out)
    assert re.search(r"note: .* seeds .*comparison", out)
    assert written(study) == {"table.csv", "verdict.json"}
    code, out, _ = answer(["verdict", "made", "--json"], capsys)
    assert code == 0
    assert json.loads(out)["sentences"] == json.loads((study.path / "verdict.json").read_text())["sentences"]


def test_an_unfinished_study_says_so_everywhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def ending(*place: object) -> Ending:
        return Ending(state="no run") if place == ("plain", 8, 3) else telling(*place)  # type: ignore[arg-type]

    study = make_study(tmp_path, endings=ending)
    monkeypatch.setattr("netdepth.report.figures.pictures", lambda data, folder: [])
    monkeypatch.setattr("netdepth.report.figures.curve_groups", lambda data: {})  # drawn elsewhere, and slow
    monkeypatch.setattr("netdepth.report.figures.flow_groups", lambda data: {})
    warning = "netdepth: warning: unfinished: 1 of 24 planned runs have no result; what is said is preliminary\n"
    for command in ("verdict", "report"):
        code, _, err = answer([command, "made", "--runs", str(tmp_path)], capsys)
        assert (code, err) == (0, warning)
    assert "> **Unfinished.** 1 of 24 planned runs have no result" in (study.path / "report.md").read_text()
    code, out, _ = answer(["report", "made", "--runs", str(tmp_path), "--check"], capsys)
    assert code == 1
    assert ": no run\n" in out
    monkeypatch.setattr("netdepth.report.page.write_files", lambda data, folder: data.study.path)
    code, out, _ = answer(["report", "made", "--runs", str(tmp_path), "--json"], capsys)
    assert (code, len(json.loads(out)["missing"])) == (0, 1)


def test_a_study_that_has_not_begun_has_no_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unbegun_study(tmp_path)
    code, _, err = answer(["verdict", "made", "--runs", str(tmp_path)], capsys)
    assert (code, "no run of study 'made' has begun" in err) == (2, True)


@pytest.mark.slow
def test_neither_torch_nor_pyplot_is_needed(study: StudyDir) -> None:
    code = (
        "import sys; from pathlib import Path; from netdepth.report.page import write_report; "
        "from netdepth.studies.folder import StudyDir; write_report(StudyDir(Path(sys.argv[1]))); "
        "sys.exit('torch' in sys.modules or 'matplotlib.pyplot' in sys.modules)"
    )
    command = [sys.executable, "-W", "error", "-c", code, str(study.path)]
    assert subprocess.run(command, env=os.environ, check=False).returncode == 0
