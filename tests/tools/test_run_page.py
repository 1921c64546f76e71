"""The page of one run: its numbers are those of the folder, it asks for nothing, a sealed test part stays sealed."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.browser import find_browser
from support.cli_world import answer
from support.made_runs import make_run
from support.real_runs import CONFIG, make

import netdepth as nd
from netdepth.config import TrainConfig
from netdepth.data import SealedTest
from netdepth.errors import BadInput
from netdepth.runs.folder import RunDir
from netdepth.runs.table import run_row
from netdepth.tools.run_page import pictures, write_page

SHORT = dataclasses.replace(CONFIG, train=TrainConfig(budget="1ep", batch_size=64))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A runs folder with two real runs, one of which never opened the test part; no test alters it."""
    root = tmp_path_factory.mktemp("made")
    make(root, SHORT, "tested")
    make(root, SHORT, "sealed", sealed=True)
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, the runs folder of this test."""
    monkeypatch.setenv("NETDEPTH_RUNS", str(tmp_path / "runs"))
    return Path(shutil.copytree(made, tmp_path / "runs"))


def test_the_page_holds_what_the_folder_says_and_nothing_from_elsewhere(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = answer(["report", "tested", "--json"], capsys)
    assert code == 0
    path = Path(json.loads(out)["report"])
    run, text = RunDir(path.parent), path.read_text()
    result = run.result() or {}
    assert f"classify {100 * result['test']['best']['accuracy']:.2f} % of 1,000 test images" in text
    worst = min(result["per_class"], key=lambda one: one["recall"])
    assert f"Worst class on test: {worst['class']}, {100 * worst['recall']:.2f} %" in text
    cells = [int(n) for n in re.findall(r"<td[^>]*--share[^>]*>(\d+)</td>", text)]
    assert cells == [n for row in result["confusion"] for n in row]
    wrong = sum(map(sum, result["confusion"])) - np.trace(result["confusion"])
    assert f"{wrong} of 1,000 test images are wrong" in text
    assert text.count("data:image/png;base64,") == pictures.MOST
    assert "optimizer" in text
    assert "layer 1 receives" in text, "layer statistics in words"
    assert re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', text) == []
    assert "<script" not in text
    pictures.mistakes_of(nd.load("tested"), run_row(run), None)
    opened = (run.read_json("test_access.json") or {})["opened"]
    assert opened.count(pictures.PICTURES) == 1, "that the pictures were shown is kept, once"


def test_a_sealed_test_part_stays_sealed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(*_: object, **__: object) -> None:
        raise AssertionError("the test part was opened")

    monkeypatch.setattr(SealedTest, "open_test", opened)
    run = nd.load("sealed")
    page = run.report(root / "out")
    assert re.search(r"\d+ of 1,000 validation images are wrong", page.read_text())
    assert not (run.path / "test_access.json").exists()
    tested = nd.load("tested")
    (tested.path / "test_access.json").unlink()  # a result from elsewhere, which does not say that it was opened
    with pytest.raises(BadInput, match="stay sealed"):
        pictures.mistakes_of(tested, run_row(tested.dir), None)


def test_the_mistakes_are_the_surest_wrong_ones(root: Path) -> None:
    run = nd.load("sealed")
    logits, labels = (np.load(run.path / "predictions.npz")[key] for key in ("logits", "labels"))
    found = pictures.mistakes_of(run, run_row(run.dir), None)
    assert found.count == int((logits.argmax(1) != labels).sum())
    assert all(one.true != one.said for one in found.shown)
    sure = [one.probability for one in found.shown]
    assert sure == sorted(sure, reverse=True)
    np.savez(run.path / "predictions.npz", logits=logits, labels=labels[::-1])
    with pytest.raises(BadInput, match="are not for the images of its data set"):
        pictures.mistakes_of(run, run_row(run.dir), None)


@pytest.mark.parametrize("settings", [{"failure": "no disk <b>"}, {"status": "diverged"}, {}])
def test_a_run_of_any_state_has_a_page(tmp_path: Path, settings: dict[str, object]) -> None:
    run = make_run(tmp_path, recipe="<script>alert(1)</script>", **settings)  # type: ignore[arg-type]
    made = write_page(run.path, tmp_path / "out")
    text = made.path.read_text()
    assert made.path == tmp_path / "out" / "report.html"
    assert len(made.notes) == 1, "no pictures, and why"
    assert ('role="status"' in text) == bool(settings)
    assert "<script" not in text
    assert "<b>" not in text.partition('id="wrong"')[0].replace("<b></b>", "")


def test_a_run_is_no_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path)
    for words, error in ((["base", "--check"], "--check takes a study"), (["nothing"], "no run or study 'nothing'")):
        code, _, said = answer(["report", *words, "--runs", str(tmp_path)], capsys)
        assert (code, error in said) == (2, True)


@pytest.mark.browser
def test_it_fits_a_phone_and_is_read_in_the_dark(root: Path, tmp_path: Path) -> None:
    browser, page = find_browser(tmp_path), nd.load("tested").report()
    script = """doc => {
        const wide = [...doc.body.querySelectorAll('*')].filter(e => !e.closest('.scroll, svg, pre'))
            .filter(e => e.getBoundingClientRect().right > doc.documentElement.clientWidth + 0.5);
        const matrix = doc.querySelector('.confusion');
        const ink = [...doc.querySelectorAll('figure svg text')].map(e => getComputedStyle(e).fill);
        return [doc.documentElement.scrollWidth, wide.map(e => e.tagName), matrix.getBoundingClientRect().width,
            ink.filter(fill => fill == 'rgb(0, 0, 0)').length]; }"""
    for width, scheme in ((390, "dark"), (1280, "light")):
        found, wide, matrix, black = browser.measure(page, width, script, scheme)
        assert (found, wide, black) == (width, [], 0)
        assert matrix < width - 20, "ten classes need no scrolling"
