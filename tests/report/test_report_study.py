"""The page of a study: what it says, what it is made of, and that it says so for every number."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from support.made_study_folders import Ending, alter, make_study, small_spec, telling, unbegun_study

from netdepth.config import Component
from netdepth.recipes import resolve_study
from netdepth.report.check import check_report
from netdepth.report.content import Content, markdown
from netdepth.report.data import read_study
from netdepth.report.numbers import read_numbers, run_numbers, run_ranges
from netdepth.report.page import page, write_report
from netdepth.studies.folder import StudyDir
from netdepth.studies.table import SOURCES
from netdepth.studyspec import Axis
from netdepth.text import capitalised

LOSS = SOURCES["train_last_loss"]
ACCURACY = SOURCES["val_last_accuracy"]
EVIL = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\"> $\\frac$ | `*_ \udcff"


def overlapping(condition: str, depth: int, seed: int) -> Ending:
    """Cells that differ less than their seeds do, so that every p-value moves with every run."""
    step = (7 * seed + 3 * depth + len(condition)) % 5
    return Ending(0.05 + 0.004 * step + 0.001 * depth, 0.01 + 0.001 * step, 0.03 + 0.002 * step, 0.2 + 0.01 * step)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyDir, str]:
    """A whole study with its report, and the page; no test alters it."""
    study = make_study(tmp_path_factory.mktemp("made"), endings=overlapping)
    text = page_of(study, drawn=True)
    (study.path / "report.html").write_text(text)
    return study, text


@pytest.fixture
def study(made: tuple[StudyDir, str], tmp_path: Path) -> StudyDir:
    """A copy that a test may alter."""
    return StudyDir(Path(shutil.copytree(made[0].path, tmp_path / "study")))


def page_of(study: StudyDir, drawn: bool = False) -> str:
    return page(Content(read_study(study)), drawn)


def faults_of(study: StudyDir) -> list[str]:
    return list(check_report(study).faults)


def folder_of(study: StudyDir, number: int) -> Path:
    return study.path / str(study.runs()[number - 1].folder)


class Outside(HTMLParser):
    """The text of a page that stands in no element that names its sources."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[tuple[str, bool]] = []
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append((tag, "data-fields" in dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop()[0] != tag:
            continue

    def handle_data(self, data: str) -> None:
        if not any(named for _, named in self.open):
            self.text.append(data)


def figures(page: str) -> list[str]:
    return re.findall(r"<figure.*?</figure>", page, re.DOTALL)


# --- what every number is made of ---


@pytest.mark.parametrize(
    ("number", "source", "factor", "must_move"),
    [
        (1, LOSS, 1.11, {"Plain at depth 4", "Plain at depth 8"}),  # the reference of both depths of its condition
        (12, LOSS, 1.13, {"Plain at depth 8", "Residual against plain at depth 8"}),  # in two comparisons
        (6, ACCURACY, 0.97, set()),
        (7, "probes/init.json:gradient_ratio", 0.9, set()),
        (9, "result.json:seconds", 2.0, set()),
    ],
)
def test_a_value_moves_exactly_the_numbers_that_name_it(
    made: tuple[StudyDir, str], study: StudyDir, number: int, source: str, factor: float, must_move: set[str]
) -> None:
    before = read_numbers(page_of(made[0]))
    file, _, field = source.partition(":")
    value = json.loads((folder_of(study, number) / file).read_text())
    for key in field.split("."):
        value = value[key]
    alter(folder_of(study, number), file, field, factor * value)
    after = read_numbers(page_of(study))
    assert [(n.runs, n.fields, n.kind) for n in after] == [(n.runs, n.fields, n.kind) for n in before]
    named = {i for i, item in enumerate(before) if number in item.runs and source in item.fields}
    moved = {i for i, (old, new) in enumerate(zip(before, after, strict=True)) if old != new}
    values = {i for i, item in enumerate(before) if item.kind == "value"}
    assert named
    assert moved & values == named & values
    assert moved <= named
    said = " ".join(after[i].text for i in moved)
    assert all(place in said for place in must_move)
    tested = {i for i in moved - values if before[i].tag == "data"}
    assert not must_move or len(tested) > len(must_move), "the p-value of each of its comparisons moves, and Holm's"


def test_a_corrected_p_names_the_runs_of_all_comparisons_and_another_its_own(made: tuple[StudyDir, str]) -> None:
    content = Content(read_study(made[0]))
    table = content.tables["primary"]
    corrected = [row[table.header.index("corrected p")][0] for row in table.rows]
    assert [set(p.runs) for p in corrected] == [set(range(1, 25))] * 5  # type: ignore[union-attr]
    for name in ("p, exact test", "p, t test"):
        single = [row[table.header.index(name)][0] for row in table.rows]
        assert [run_ranges(p.runs) for p in single][:2] == ["1-8", "1-4,9-12"]  # type: ignore[union-attr]


def test_no_number_of_a_run_stands_outside_of_what_names_it(made: tuple[StudyDir, str], study: StudyDir) -> None:
    folder = folder_of(study, 5)
    for file, field, value in (
        ("result.json", "train.last.loss", 0.4321),
        ("result.json", "train.last.accuracy", 0.8765),
        ("result.json", "val.last.loss", 0.5432),
        ("result.json", "val.last.accuracy", 0.7654),
        ("result.json", "num_params", 987_654),
        ("result.json", "seconds", 3456.5),
        ("probes/init.json", "gradient_ratio", 0.0123),
        ("environment.json", "threads", 7),
        ("config.json", "optimizer.args.lr", 0.0077),
    ):
        alter(folder, file, field, value)
    metrics = folder / "metrics.jsonl"
    metrics.write_text(metrics.read_text().replace('"epoch": 5.0', '"epoch": 6.5'))
    old, new = page_of(made[0]), page_of(study)
    shown = " ".join(number.text for number in read_numbers(new))
    for text in ("0.432", "12.35 %", "0.543", "23.46 %", "987,654", "3,456.5", "6.5", "0.0077"):
        assert text in shown, text
    # How the runs were made takes one line more: the runs made otherwise, by their numbers alone.
    outside = [text.strip() for text in Outside(new).text if text.strip()]
    for text in ("1-4,6-24", "5"):
        outside.remove(text)
    expected = [text.strip() for text in Outside(old).text if text.strip()]
    expected.remove("1-24")
    assert [t for t in outside if t != ","] == [t for t in expected if t != ","]


def test_figures_change_only_with_what_they_name(made: tuple[StudyDir, str], study: StudyDir) -> None:
    alter(folder_of(study, 3), "result.json", "train.last.loss", 0.2)
    before, after = figures(made[1]), figures(page_of(study, drawn=True))
    changed = {i for i, (old, new) in enumerate(zip(before, after, strict=True)) if old != new}
    assert changed == {i for i, text in enumerate(before) if f'data-fields="{LOSS} ' in text}
    assert len(changed) == 1, "all others are the same to the byte"


def test_run_ranges_come_back() -> None:
    assert run_ranges((7, 3, 1, 2, 3)) == "1-3,7"
    assert run_numbers("1-3,7") == {1, 2, 3, 7}
    assert run_numbers("") == set()


# --- what is missing ---


def test_a_missing_run_fails_the_page(study: StudyDir) -> None:
    assert faults_of(study) == []
    gone = folder_of(study, 10)
    shutil.rmtree(gone)
    faults = faults_of(study)
    assert faults[0] == f"run 10 ({gone.name}): no run"
    assert any("the page says" in fault for fault in faults)
    text = page_of(study)
    (study.path / "report.html").write_text(text)
    assert "<strong>Unfinished.</strong>" in text
    assert "<title>Unfinished: " in text
    assert f">{gone.name}</td>" in text
    assert "not started" in text
    assert faults_of(study) == [faults[0]], "up to date now, and still not whole"


def test_an_altered_number_fails_the_check(study: StudyDir) -> None:
    alter(folder_of(study, 2), "result.json", "train.last.loss", 0.0777)
    faults = faults_of(study)
    assert faults
    assert faults[0].startswith("the page says ")
    (study.path / "report.html").unlink()
    assert not check_report(study).page


def test_failed_and_diverged_runs_are_shown(tmp_path: Path) -> None:
    nan = float("nan")
    cell = [Ending(), Ending(state="failed"), Ending(nan, nan, nan, state="diverged"), Ending()]
    study = make_study(tmp_path, None, lambda *place: cell[place[2]] if place[:2] == ("plain", 4) else telling(*place))
    text = page_of(study)
    assert "failed (OSError: no space left on device)" in text
    assert "diverged: its loss was no longer finite" in text
    assert "1 run failed" in re.sub(r"<[^>]*>", "", text)
    assert "So far: " in text


@pytest.mark.parametrize("state", ["no run", "unfinished", "unplanned"])
def test_a_study_that_has_only_begun_has_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    monkeypatch.setattr("netdepth.report.figures.curve_groups", lambda data: {})  # drawn elsewhere, and slow
    monkeypatch.setattr("netdepth.report.figures.pictures", lambda data, folder: [])
    if state == "unplanned":
        study = unbegun_study(tmp_path)
    else:
        study = make_study(tmp_path, endings=lambda *place: Ending(state=state))
    text = write_report(study).read_text()
    assert "24 of 24 planned runs have no result" in re.sub(r"<[^>]*>", "", text)
    assert (study.path / "verdict.json").exists() == (state == "unfinished")
    assert len((study.path / "table.csv").read_text().splitlines()) == 25


# --- the page itself ---


def test_the_page_asks_for_nothing_and_runs_nothing(made: tuple[StudyDir, str]) -> None:
    text = made[1]
    assert not re.search(r"https?:|//[a-z]|<script|<link(?! rel=\"icon\" href=\"data:,\")|<img|<iframe|@import", text)
    assert not re.search(r"url\((?!#)", text)
    assert not re.search(r"\son[a-z]+=", text)
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in text


def test_figures_follow_the_page_and_say_what_they_show(made: tuple[StudyDir, str]) -> None:
    found = figures(made[1])
    assert len(found) == 4 + 2 * 3 + 2 * 2  # loss and error, curves per depth, gradients per condition
    for text in found:
        assert not re.search(r"(?:fill|stroke): #", text), "every colour is the page's"
        assert re.search(r'<svg role="img" aria-label="[^"]{30,}" viewBox', text)
    ids = re.findall(r'\bid="([^"]*)"', made[1])
    assert len(set(ids)) == len(ids)
    assert set(re.findall(r'(?:href="|url\()#([^")]*)', made[1])) <= set(ids)


def test_names_are_text(made: tuple[StudyDir, str], tmp_path: Path) -> None:
    _, condition = small_spec().scientific
    quiet = small_spec(name="made", scientific=(Axis.of_depths((2, 4)), condition), primary=(), seeds=(0,))
    evil = dataclasses.replace(condition, levels={EVIL: {}, "b": {"model.dropout": 0.1}})
    loud = dataclasses.replace(quiet, name="evil", question=f"{EVIL}?", scientific=(quiet.scientific[0], evil))
    study = make_study(tmp_path, loud, epochs=1)
    document = json.loads((study.path / "study.json").read_text())
    document["spec"]["name"] = EVIL
    (study.path / "study.json").write_text(json.dumps(document))
    alter(folder_of(study, 1), "environment.json", "torch", EVIL)
    text = write_report(study).read_text()
    elements, known = (set(re.findall(r"<([a-z]+[0-9]?)", page)) for page in (text, made[1]))
    assert elements <= known | {"strong"}, "no element but the page's own"
    assert text.count("&lt;script&gt;") > 5
    assert "<script" not in markdown(Content(read_study(study)), [])
    assert (study.path / "figures" / "against-depth.png").read_bytes().startswith(b"\x89PNG")


def test_data_that_make_the_numbers_look_better_are_noted(tmp_path: Path) -> None:
    study = make_study(tmp_path, small_spec(seeds=(0, 1)), epochs=2)
    for number in (1, 2):
        alter(folder_of(study, number), "split.json", "repeated", {"test": 12})
    (note,) = [note for note in Content(read_study(study)).answer.notes if "in train too" in note.text]
    assert note.text.startswith("12 of 10,000 test pictures are in train too")
    assert note.text in " ".join(markdown(Content(read_study(study)), []).split())


def test_the_answer_comes_first_and_in_words(tmp_path: Path) -> None:
    spec, _ = resolve_study("depth-mlp").with_levels((2, 24, 32))
    named = {"scientific": spec.scientific, "primary": spec.primary, "max_looks": 1}
    study = make_study(tmp_path, small_spec(**named, seeds=tuple(range(6))), epochs=2)
    content = Content(read_study(study))
    short = content.answer.short.text
    assert (
        "Plain (default init) loses its signal from depth 24 on; residual (He init) explodes from depth 24 on." in short
    )
    twins = "residual (He init, scaled branches)", "plain (He init)"
    assert short.endswith(f"{capitalised(twins[0])} trains better than {twins[1]} from depth 24 on.")
    names = [*map(spec.label_of, spec.conditions), "{} against {}".format(*twins)]
    assert [line.name for line in content.answer.lines] == names
    assert content.answer.lines[0].said.text.startswith("the signal vanishes from depth 24 on")
    assert len(content.answer.primary) == len(spec.primary)
    assert any(note.text == "All networks used the same learning rate." for note in content.answer.notes)
    assert [chip.label for chip in content.grids[0].lines[2].chips if chip] == ["reference", *["exploded"] * 2]


def test_a_page_shows_the_metric_that_is_compared_and_how_often_p_values_are_multiplied(tmp_path: Path) -> None:
    spec = small_spec(metric="val_last_accuracy", smallest_effect=0.01, looks=2)
    content = Content(read_study(make_study(tmp_path, spec, epochs=1)))
    assert content.grids[1].caption.startswith(
        "One condition against another at equal depth (difference of mean validation accuracy in percentage points, n"
    )
    assert "where more is better" in content.method[0]
    table = content.tables["primary"]
    assert "difference of mean validation accuracy, 95 % interval" in " ".join(table.header).replace(
        " (percentage points)", ""
    )
    difference = table.rows[0][2][0]
    assert difference.fields == (ACCURACY, "result.json:status")  # type: ignore[union-attr]
    assert ["analysis 2: p-values are multiplied by 6"] in content.facts
    assert "each p-value is multiplied by 6 for the analyses" in " ".join(content.method)
    assert any("2 × 3 = 6" in note.text for note in content.answer.notes)


def test_a_page_says_where_another_loss_was_minimised(tmp_path: Path) -> None:
    plain = small_spec()
    smoothed = Component("cross-entropy", {"label_smoothing": 0.1})
    for number, (objective, said) in enumerate(((plain.base.objective, False), (smoothed, True))):
        base = dataclasses.replace(plain.base, objective=objective)
        study = make_study(tmp_path / str(number), spec=dataclasses.replace(plain, base=base))
        facts = [str(shown) for shown in Content(read_study(study)).facts]
        assert any("all losses here are plain cross-entropy" in fact for fact in facts) == said
