"""The lab's notebook: the two files are one, it runs from nothing, and its conclusions are those of the verdicts."""

from __future__ import annotations

import importlib.util
import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
from conftest import lacking
from support.made_study_folders import Ending, make_study, small_spec, telling

from netdepth.api import Study
from netdepth.errors import BadInput
from netdepth.recipes import resolve_study
from netdepth.report.content import Content
from netdepth.report.data import read_study
from netdepth.studies.folder import StudyDir

ROOT = Path(__file__).resolve().parents[1]
SOURCE, NOTEBOOK = ROOT / "notebooks" / "lab1.py", ROOT / "notebooks" / "lab1.ipynb"
STUDIES = ("depth-mlp", "cnn-mnist5k", "transfer-mnist5k", "distill-mnist5k")


def outputs(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    return [output for cell in notebook["cells"] for output in cell.get("outputs", [])]


def shown(notebook: dict[str, Any]) -> str:
    """All Markdown that cells have shown."""
    parts = [output.get("data", {}).get("text/markdown", "") for output in outputs(notebook)]
    return "\n".join("".join(part) for part in parts)


@pytest.fixture(scope="module")
def checked_in() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(NOTEBOOK.read_text())
    return found


def test_the_two_files_have_the_same_cells(checked_in: dict[str, Any]) -> None:
    if importlib.util.find_spec("jupytext") is None:
        lacking("notebook", "jupytext is not installed; get it with: pip install netdepth[notebook]")
    import jupytext

    paired = jupytext.read(SOURCE)
    assert [(cell.cell_type, cell.source) for cell in paired.cells] == [
        (cell["cell_type"], "".join(cell["source"])) for cell in checked_in["cells"]
    ]


def test_what_is_checked_in_was_run_from_top_to_bottom_without_a_fault(checked_in: dict[str, Any]) -> None:
    counts = [cell["execution_count"] for cell in checked_in["cells"] if cell["cell_type"] == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert not [output for output in outputs(checked_in) if output["output_type"] in ("error", "stream")]
    assert sum("image/png" in output.get("data", {}) for output in outputs(checked_in)) >= 8
    assert NOTEBOOK.stat().st_size < 1_500_000
    assert not re.search(r"/(home|tmp|root|work|Users)/", NOTEBOOK.read_text())


def test_no_conclusion_is_typed(checked_in: dict[str, Any]) -> None:
    """What the notebook says in numbers or by a verdict's words is in no cell that a person wrote."""
    written = "\n".join("".join(c["source"]) for c in checked_in["cells"] if c["cell_type"] == "markdown")
    said = shown(checked_in)
    for words in ("trains better than", "lower validation error than", "is undecided", "in one family of"):
        assert words not in written
    assert "in one family of" in said
    for name in STUDIES:
        assert resolve_study(name).question.replace("MNIST,", "").split()[-1] in said


SMALLER = {
    '"depths": (2, 8, 40)': '"depths": (2, 16)',
    'ask("depth-mlp", 10 if FULL else 8,': 'ask("depth-mlp", 10 if FULL else 4,',
    '"train.budget=5ep", "train.batch_size=32"': '"train.budget=20it"',
    '"grid": 15, "images": 300': '"grid": 5, "images": 100',
    '"cnn-mnist5k", 7)': '"cnn-mnist5k", 7, overrides=("train.budget=20it",))',
    '"distill-mnist5k", 10)': '"distill-mnist5k", 10, overrides=("train.budget=2ep", "train.eval_every=2ep"))',
    '"transfer-mnist5k", 8)': '"transfer-mnist5k", 8, overrides=("train.budget=1ep", "train.eval_every=1ep"))',
    "images=1000": "images=300",
    "count=200 if FULL else 60": "count=200 if FULL else 10",
}
"""What the test changes of the notebook: every cell is executed, with fewer steps, seeds, images and depths."""


@pytest.mark.slow
def test_it_runs_from_nothing_and_says_what_the_verdicts_say(tmp_path: Path) -> None:
    for module in ("jupytext", "nbclient", "ipykernel"):
        if importlib.util.find_spec(module) is None:
            lacking("notebook", f"{module} is not installed; get it with: pip install netdepth[notebook]")
    executed = runpy.run_path(str(ROOT / "tools" / "notebook.py"))["executed"]
    written = SOURCE.read_text()
    for whole, smaller in SMALLER.items():
        assert written.count(whole) == 1, f"{SOURCE.name} has no {whole} any more"
        written = written.replace(whole, smaller)
    (tmp_path / SOURCE.name).write_text(written)
    notebook = json.loads(json.dumps(executed(tmp_path / SOURCE.name, tmp_path)))  # a cell that fails raises
    said = shown(notebook)
    made = {path.parent.name: Study(StudyDir(path.parent)) for path in (tmp_path / "runs").glob("*/study.json")}
    assert sorted(study.spec.name for study in made.values()) == sorted(STUDIES)
    for study in made.values():
        assert study.verdict().complete
        assert f"> {study.answer()}" in said
        for sentence in study.verdict().sentences:
            assert f"- {sentence.text}" in said


def test_a_study_gives_its_answer_and_its_runs_by_name(tmp_path: Path) -> None:
    def ending(condition: str, depth: int, seed: int) -> Ending:
        return Ending(state="no run") if (depth, seed) == (8, 6) else telling(condition, depth, seed)

    folder = make_study(tmp_path, small_spec(seeds=(4, 5, 6)), ending)
    study = Study(folder)
    assert study.answer() == Content(read_study(folder)).answer.short.text
    first = study.run("plain", 8)
    assert (first.config["seed"], first.config["model"]["args"]["depth"]) == (4, 8)
    assert study.run("residual", 2, 5).config["seed"] == 5
    for wrong, message in (
        (("plan", 8), "unknown condition of the study: 'plan' .did you mean 'plain'"),
        (("plain", 7), "unknown depth of the study: '7'"),
        (("plain", 8, 7), "unknown seed of the study: '7'.*choose from: 4, 5, 6"),
        (("plain", 8, 6), "has not begun"),
    ):
        with pytest.raises(BadInput, match=message):
            study.run(*wrong)
