"""Row 12: hostile names of runs, studies, conditions, classes, files and questions: nothing executed, asked for, or
written elsewhere.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.browser import Browser, find_browser
from support.folders import put
from support.made_study_folders import Ending, alter, make_study, small_spec, telling

from faults.ground import FINISHED, Answer, alter_json, answer, run_at, store_at
from faults.names import HOST, TAKEN, names
from faults.record import Faults
from netdepth.config import Component
from netdepth.data import load
from netdepth.errors import BadInput
from netdepth.runs.folder import RunDir
from netdepth.studies.folder import StudyDir
from netdepth.studyspec import Axis

pytestmark = pytest.mark.faults

PER_PAGE = 50


def clean(said: Answer) -> None:
    """What came out holds nothing that a terminal would act on."""
    assert "internal error" not in said.err, said.err
    for text in (said.out, said.err):
        bad = {char for char in text if char != "\n" and not char.isprintable()}
        assert not bad, f"raw {bad!r} in {text[:300]!r}"


def holds_only(root: Path, *allowed: str) -> None:
    """Nothing was made in ``root`` but what is named."""
    assert set(os.listdir(root)) <= set(allowed), os.listdir(root)


def check_name(name: str, root: Path) -> None:
    """One name wherever a name can be given without a study."""
    runs = root / "runs"
    folder = RunDir.create(runs / "single", name, 0, "0123456789").path
    assert folder.parent == runs / "single"
    shutil.rmtree(folder)
    with contextlib.suppress(BadInput):
        assert StudyDir.locate(runs, small_spec(name=name)).path.parent == runs
    for argv in (["train", name], ["verdict", name], ["inspect", name], ["list", name], ["train", "x", "--set", name]):
        said = answer(*argv, "--runs", runs)
        clean(said)
        assert said.code in (0, 2), said.err
    check_class(name, root)


def check_class(name: str, root: Path) -> None:
    """A class of pictures, and a picture, of that name, where a file system takes it."""
    pictures = root / "pictures"
    shutil.rmtree(pictures, ignore_errors=True)
    put(pictures / "train" / "other" / "0.png", 1)
    here = pictures / "train" / "c"
    try:
        put(here / "0.png", 2)
        os.rename(here, pictures / "train" / name)
        os.rename(pictures / "train" / name / "0.png", pictures / "train" / name / f"{name}.png")
    except (OSError, ValueError):  # no file system takes it, so nobody can give it
        return
    if not (pictures / "train" / name).is_dir() or (pictures / "train" / name).parent != pictures / "train":
        return
    try:
        splits = load(Component("image-folder", {"path": str(pictures), "val_size": 1}), data_dir=None)
    except BadInput:
        return
    assert all(one.isprintable() for one in splits.spec.classes)


def test_names_of_runs_classes_files(faults: Faults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    with faults.drill(12, "hostile names of runs, studies, classes, files", quick=50, long=1000) as drill:
        for name in names(drill.count):
            with drill.injection(repr(name[:60]), at=place_of(name)):
                check_name(name, tmp_path)
                holds_only(tmp_path, "work", "runs", "pictures")
                assert os.listdir(work) == [], "it was executed, or written elsewhere"


def place_of(name: str) -> str:
    return "markup" if HOST in name else "terminal" if not name.isprintable() else "path"


# --- a store and a page full of them ----------------------------------------------------------------


def hostile_store(root: Path, given: Sequence[str]) -> Path:
    """A runs folder whose study and runs carry ``given`` wherever words can stand."""
    runs = store_at(root / "runs")
    rest = iter([*given, *given])
    _, condition = small_spec().scientific
    levels = {f"{next(rest)} {number}": {"model.dropout": number / 10} for number in range(6)}
    spec = small_spec(
        name="study",
        question=" ".join(given) + "?",
        scientific=(Axis.of_depths((2, 4)), dataclasses.replace(condition, levels=levels)),
        primary=(),
        seeds=(0, 1),
    )

    def ending(condition: str, depth: int, seed: int) -> Ending:
        states = {(4, 0): "failed", (4, 1): "unfinished"}
        state = states.get((depth, seed), "completed") if condition == next(iter(levels)) else "completed"
        return dataclasses.replace(telling(condition, depth, seed), state=state)

    study = make_study(runs, spec, ending, epochs=2)
    alter_json(study.path / "study.json", lambda document: document["spec"].update(name=next(rest)))
    for run in study.runs():
        folder = study.path / str(run.folder)
        for key in ("torch", "python", "device", "matmul"):
            alter(folder, "environment.json", key, next(rest, given[0]))
        alter(folder, "split.json", "classes", [*given[:10]])
        alter(folder, "split.json", "name", next(rest, given[0]))
        alter(folder, "config.json", "recipe", next(rest, given[0]))
        if (folder / "failure.json").exists():
            alter(folder, "failure.json", "message", " ".join(given))
    finished = run_at(runs)
    alter_json(finished / "config.json", lambda document: document.update(recipe=given[0]))
    alter_json(finished / "split.json", lambda document: document.update(name=given[1], classes=[*given[:10]]))
    return runs


QUESTIONS = (
    ("runs", "list"), ("compare", FINISHED, "lost"), ("compare", FINISHED, "--markdown"), ("verdict", "study"),
    ("inspect", FINISHED), ("report", "study"), ("report", "study", "--check"),
)  # fmt: skip


def test_names_on_the_page_and_in_the_terminal(
    faults: Faults, tmp_path: Path, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    with faults.drill(12, "hostile names in a report, in Chromium", quick=50, long=1000) as drill:
        given = list(names(drill.count))
        for start in range(0, len(given), PER_PAGE):
            root = tmp_path / str(start)
            part = given[start : start + PER_PAGE]
            runs = hostile_store(root, part)
            monkeypatch.chdir(root)
            with drill.injection(f"names {start} to {start + len(part)} in the terminal", at="terminal"):
                for argv in QUESTIONS:
                    said = answer(*argv, "--runs", runs)
                    clean(said)
                    assert said.code == (1 if "--check" in argv else 0), f"{argv}: {said.err}"
                holds_only(root, "runs")
            shown, asked = browser.served((runs / "study" / "report.html").read_text())
            for name in part:
                with drill.injection(repr(name[:60]), at="page"):
                    assert asked == ["127.0.0.1/page.html"]
                    assert not re.search(rf"<html[^>]*{TAKEN}", shown)
                    assert "<h1" in shown
        control, asked = browser.served(f"<title>control</title>{given[0]}")
        assert re.search(rf"<html[^>]*{TAKEN}", control)
        assert f"{HOST}/script" in asked, "the instruments work: an unescaped name does both"


@pytest.fixture
def browser(tmp_path_factory: pytest.TempPathFactory) -> Browser:
    return find_browser(tmp_path_factory.mktemp("profile"))
