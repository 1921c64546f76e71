"""A study beside a paper, in its report: the rows, what they are made of, and what is not compared."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.made_study_folders import Ending, Endings, alter, make_study

from netdepth.config import to_json
from netdepth.overrides import apply_overrides
from netdepth.recipes import resolve_study
from netdepth.report.content import Content, markdown, sources
from netdepth.report.data import read_study
from netdepth.report.numbers import read_numbers
from netdepth.report.page import page
from netdepth.stats.intervals import prediction_interval
from netdepth.studies.folder import StudyDir
from netdepth.studies.paper import welch
from netdepth.training.resolve import fill_in

SOURCE = "result.json:test.last.accuracy"


def scattered(condition: str, depth: int, seed: int) -> Ending:
    """Test errors (a tenth of a per cent above the validation errors) around the paper's, with scatter."""
    base = {20: 0.0885, 110: 0.0660}[depth] + (0.1 if condition == "plain" else 0)
    return Ending(0.05, 0.01, base - 0.001 + 0.0011 * (seed - 2) + 0.0002 * (seed == 3))


def paper_study(folder: Path, *overrides: str, seeds: int = 5, endings: Endings = scattered) -> StudyDir:
    """The paper's study at two depths, with runs made by hand whose configs are resolved as those of real ones."""
    spec, _ = resolve_study("he2016-cifar10").with_levels((20, 110))
    base, _ = apply_overrides(spec.base, overrides)
    spec = dataclasses.replace(spec, base=base, seeds=tuple(range(seeds)))
    study = make_study(folder, spec, endings, epochs=2)
    configs = {(cell.condition, cell.level): to_json(fill_in(cell.config)) for cell in spec.cells}
    for run in study.runs():
        folder = study.path / str(run.folder)
        if folder.is_dir():
            stored = json.loads((folder / "config.json").read_text())
            config = configs[run.condition, run.level] | {"seed": run.seed}
            (folder / "config.json").write_text(json.dumps({**stored, **config}))
    return study


def page_of(study: StudyDir) -> str:
    return page(Content(read_study(study)), drawn=False)


def rows_of(study: StudyDir) -> list[list[str]]:
    """The table of the section as text."""
    return [["".join(map(str, cell)) for cell in row] for row in Content(read_study(study)).paper.table.rows]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> StudyDir:
    """A comparable study; no test alters it."""
    return paper_study(tmp_path_factory.mktemp("paper"), "dataset.val_size=0")


@pytest.fixture(scope="module")
def text(made: StudyDir) -> str:
    """Its page."""
    return page_of(made)


@pytest.fixture
def study(made: StudyDir, tmp_path: Path) -> StudyDir:
    """A copy that a test may alter."""
    return StudyDir(Path(shutil.copytree(made.path, tmp_path / "study")))


def test_every_published_number_of_the_studys_networks_is_there(made: StudyDir) -> None:
    rows = rows_of(made)
    assert [row[:3] for row in rows] == [
        ["residual, 20 layers", "8.75 %", "one run"],
        ["residual, 110 layers", "6.43 %", "best of 5 runs"],
        ["residual, 110 layers", "6.61 ± 0.16 %", "mean ± std of 5 runs"],
    ]
    errors = [0.0885 + 0.0011 * (seed - 2) + 0.0002 * (seed == 3) for seed in range(5)]
    one = prediction_interval(errors)
    assert one.low is not None
    assert one.high is not None
    assert rows[0][4:] == ["5", f"[{100 * one.low:.2f},\N{NO-BREAK SPACE}{100 * one.high:.2f}]", "inside", "11-15"]
    assert rows[0][3].startswith(f"{100 * np.mean(errors):.2f} % [")
    assert rows[1][5].startswith(f"{100 * (0.0660 - 0.0022):.2f} % [")
    _, p = welch([error - 0.0885 + 0.0660 for error in errors], 0.0661, 0.0016, 5)
    assert rows[2][6] == f"inside (p {p:.2g})"
    assert rows[2][5][0] in "+\N{MINUS SIGN}"


def test_the_section_stands_on_both_pages_and_only_where_a_paper_is_named(
    made: StudyDir, text: str, tmp_path: Path
) -> None:
    content = Content(read_study(made))
    assert text.count("<h2>Beside the paper</h2>") == 1
    assert "solid lines of the paper&#39;s Fig. 6 are test errors, those of the learning curves here validation" in text
    assert "## Beside the paper" in markdown(content, [])
    where = [number["where"] for number in sources(content)["numbers"] if "He et al. 2016" in number["where"]]
    assert len(where) > 3 * 6
    other = Content(read_study(make_study(tmp_path, epochs=1)))
    assert "Beside the paper" not in page(other, drawn=False) + markdown(other, [])


@pytest.mark.parametrize("number", [12, 17])
def test_a_test_error_moves_exactly_the_numbers_that_name_it(text: str, study: StudyDir, number: int) -> None:
    before = read_numbers(text)
    folder = study.path / str(study.runs()[number - 1].folder)
    alter(folder, "result.json", "test.last.accuracy", 0.85)
    after = read_numbers(page_of(study))
    named = {i for i, item in enumerate(before) if number in item.runs and SOURCE in item.fields}
    moved = {i for i, (old, new) in enumerate(zip(before, after, strict=True)) if old != new}
    values = {i for i, item in enumerate(before) if item.kind == "value"}
    assert moved & values == named & values
    assert moved <= named
    assert len(moved) >= 5


def test_runs_on_fewer_images_or_other_pictures_are_shown_and_marked(tmp_path: Path) -> None:
    study = paper_study(tmp_path, "dataset=cifar10-jpeg", "train.budget=6400it")
    content = Content(read_study(study))
    rows = content.paper.table.rows
    assert [str(row[6][0]) for row in rows] == ["not comparable"] * 3
    assert "".join(map(str, rows[0][5])).startswith("[")
    assert len(rows[2][6]) == 1, "no p is shown of what does not compare"
    reasons = [reason.text for reason in content.paper.reasons]
    assert reasons == [
        "Not comparable: the data set is CIFAR-10 (JPEG), compressed with loss, not CIFAR-10.",
        "Not comparable: trained on 45,000 images, not on all 50,000 (dataset.val_size=0 takes all).",
        "Not comparable: train.budget is 6400it, not 64000it.",
    ]
    assert all(reason.runs == tuple(range(11, 21)) for reason in content.paper.reasons)
    pages = page(content, drawn=False), markdown(content, []).replace("\\", "")
    assert all(reason in text for reason in reasons for text in pages)


def test_one_run_missing_runs_and_diverged_runs(tmp_path: Path) -> None:
    single = paper_study(tmp_path / "one", "dataset.val_size=0", seeds=1)
    assert rows_of(single)[0][4:7] == ["1", "-", "too few runs to say"]
    assert [row[6] for row in rows_of(single)] == ["too few runs to say"] * 3

    def gaps(condition: str, depth: int, seed: int) -> Ending:
        states = {(20, 1): "no run", (20, 2): "failed", (110, 4): "diverged"}
        return dataclasses.replace(scattered(condition, depth, seed), state=states.get((depth, seed), "completed"))

    study = paper_study(tmp_path / "gaps", "dataset.val_size=0", endings=gaps)
    rows = rows_of(study)
    assert [row[4] for row in rows] == ["3 of 5", "5, 1 diverged", "5, 1 diverged"]
    mean = np.mean([*(scattered("residual", 110, seed).val_error + 0.001 for seed in range(4)), 0.9])
    assert rows[2][3].startswith(f"{100 * mean:.2f} % ["), "left out it would flatter"
    nothing = paper_study(tmp_path / "none", endings=lambda *place: Ending(state="no run"))
    assert [row[3:7] for row in rows_of(nothing)] == [["-", "0 of 5", "-", "no test errors"]] * 3
    assert "<h2>Beside the paper</h2>" in page_of(nothing)
