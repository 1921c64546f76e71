"""A question that was judged before, by other data: the record of a store, and what a report says of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from support.tiny_studies import make, tiny_spec

from netdepth.cli import main
from netdepth.report.content import Content, markdown
from netdepth.report.data import judge_study, read_study
from netdepth.report.page import page, verdict_bytes, write_verdict
from netdepth.studies.folder import StudyDir
from netdepth.studies.judgements import RECORD, question_of
from netdepth.studyspec import Axis, Primary


def lines(root: Path) -> list[dict]:
    return [json.loads(line) for line in (root / RECORD).read_text().splitlines()]


def notes(study: StudyDir) -> list[str]:
    """What its page says of earlier judgements."""
    texts = [note.text for note in Content(read_study(study)).answer.notes]
    return [text for text in texts if "judged before" in text or text.startswith("Analysis")]


def test_the_same_question_is_one_whatever_the_grid(tmp_path: Path) -> None:
    spec = tiny_spec()
    for same in (
        tiny_spec(seeds=(7, 8)),
        tiny_spec(name="other"),
        tiny_spec(scientific=(Axis.of_depths((2, 4, 8)), spec.scientific[1])),
        tiny_spec(primary=(Primary("depth", 4, "plain"),), smallest_effect=0.5),
    ):
        assert question_of(same) == question_of(spec)
    assert question_of(tiny_spec(scientific=(Axis.of_depths((2, 4)),), primary=())) != question_of(spec)


def test_a_report_names_what_other_data_said_before(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = make(tmp_path, tiny_spec()).study
    judge_study(first)
    assert main(["verdict", str(first.path)]) == 0
    assert [line["seeds"] for line in lines(tmp_path)] == [[0, 1, 2]]  # the same verdict of the same runs is there once
    assert (lines(tmp_path)[0]["finished"], notes(first)) == (6, [])

    other = make(tmp_path, tiny_spec(name="second try", seeds=(5, 6, 7))).study
    data, _ = judge_study(other)
    write_verdict(data)
    (said,) = notes(other)
    assert said.startswith("This question was judged before by other data (tiny), on 20")
    assert " with seeds 0 to 2: " in said
    assert said.endswith(lines(tmp_path)[0]["answer"])
    for text in (page(Content(data), drawn=False), markdown(Content(data), [])):
        assert "judged before by other data" in " ".join(text.split())
    capsys.readouterr()
    assert main(["verdict", str(other.path)]) == 0
    assert f"note: {said}" in capsys.readouterr().out
    assert main(["verdict", str(other.path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["earlier_judgements"][0]["seeds"] == [0, 1, 2]
    judge_study(first)
    assert notes(first) == []  # what came later is no earlier judgement

    # another machine has the verdict and not the record; a study that is removed leaves its line
    moved = StudyDir(shutil.copytree(other.path, tmp_path / "moved" / other.path.name))
    assert notes(moved) == [said]
    assert verdict_bytes(read_study(moved)) == (moved.path / "verdict.json").read_bytes()  # as --check compares it
    assert main(["runs", "rm", "tiny", "--yes", "--runs", str(tmp_path)]) == 0
    assert notes(other) == [said]
    assert len(lines(tmp_path)) == 2


def test_made_anew_and_extended(tmp_path: Path) -> None:
    study = make(tmp_path, tiny_spec()).study
    judge_study(study)
    more = make(tmp_path, tiny_spec(seeds=(0, 1, 2, 3))).study
    judge_study(more)
    (said,) = notes(more)
    assert said.startswith("Analysis 1 of this study, on ")
    assert lines(tmp_path)[1]["analysis"] == 2
    again = make(tmp_path, tiny_spec(seeds=(10, 11, 12)), fresh=True).study
    judge_study(again)
    assert [note.split(" with ")[1].split(":")[0] for note in notes(again)] == ["seeds 0 to 2", "seeds 0 to 3"]
    assert all("judged before by other data (tiny)" in note for note in notes(again))


def test_a_study_that_is_not_done_yet_is_not_its_own_earlier_one(tmp_path: Path) -> None:
    study = make(tmp_path, tiny_spec()).study
    lost = study.path / str(study.runs()[0].folder)
    shutil.rmtree(lost)
    judge_study(study)
    assert lines(tmp_path)[0]["finished"] == 5
    make(tmp_path, tiny_spec())
    judge_study(study)
    assert (len(lines(tmp_path)), notes(study)) == (2, [])
    other = make(tmp_path, tiny_spec(name="other", seeds=(5, 6))).study
    judge_study(other)
    (said,) = notes(other)
    assert "5 of 6 runs" not in said  # the whole of it counts


def test_a_record_that_is_damaged_or_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = make(tmp_path, tiny_spec()).study
    (tmp_path / RECORD).write_bytes(b'{"schema": 1, "seeds": []}\nnonsense\n[1]\n{"torn')
    judge_study(study)
    text = (tmp_path / RECORD).read_bytes()
    assert text.startswith(b'{"schema": 1, "seeds": []}\nnonsense\n[1]\n{"torn\n')
    assert json.loads(text.splitlines()[-1])["study"] == "tiny"
    (tmp_path / RECORD).unlink()
    (tmp_path / RECORD).mkdir()
    assert main(["verdict", str(study.path)]) == 0
    assert "this verdict is not in the record of the runs folder: cannot write" in capsys.readouterr().out
