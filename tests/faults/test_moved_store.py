"""Row 15: a store that was moved, copied to another machine, is read-only, or whose clock went back, is still read."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.disks import read_only

from faults.ground import FINISHED, alter_json, answer, run_at, store_at, tree
from faults.record import Faults

pytestmark = pytest.mark.faults

YEAR = 365 * 86_400


def questions(picture: Path) -> dict[str, tuple[object, ...]]:
    """The command lines that only read a store."""
    return {
        "list": ("runs", "list"),
        "compare": ("compare", FINISHED, "lost"),
        "verdict": ("verdict", "tiny"),
        "report": ("report", "tiny"),
        "check": ("report", "tiny", "--check"),
        "inspect": ("inspect", FINISHED),
        "predict": ("predict", FINISHED, picture),
    }


def documents(store: Path, picture: Path, writable: bool = True) -> dict[str, Any]:
    """What each of them answers with ``--json``, without the path of the store and the times of this minute."""
    found = {}
    for name, argv in questions(picture).items():
        said = answer(*argv, "--runs", store, "--json")
        if not writable and name == "report":
            assert "--out DIR writes the report elsewhere" in said.line
            said = answer(*argv, "--runs", store, "--json", "--out", store.parent / "out")
            assert answer(*argv, "--runs", store, "--check", "--out", store.parent / "out").code == 0
        assert said.code == 0, f"{name}: {said.err}"
        text = said.out.replace(json.dumps(str(store))[1:-1], "RUNS").replace(str(store.parent / "out"), "RUNS/tiny")
        document = json.loads(text)
        for part in (document, *(document["runs"] + document["configurations"] if name == "list" else ())):
            for key in (
                "figure",
                "notes",
                "bytes",
                "age_seconds",
            ):  # a picture beside the run, or a note that there could be none
                part.pop(key, None)
        found[name] = document
    return found


def test_a_store_elsewhere(faults: Faults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = tmp_path / "x.png"
    Image.new("L", (28, 28), 40).save(picture)
    here = store_at(tmp_path / "here" / "runs")
    expected = documents(here, picture)
    assert expected["check"]["faults"] == []
    with faults.drill(15, "store moved, copied, read-only, clock set back", quick=4) as drill:
        with drill.injection("moved: another path, with spaces", at="moved"):
            moved = tmp_path / "else where" / "ärger's runs"
            moved.parent.mkdir()
            shutil.copytree(here, moved)
            assert documents(moved, picture) == expected

        with drill.injection("copied: made on another machine, by another system", at="copied"):
            copied = shutil.copytree(here, tmp_path / "copied", copy_function=shutil.copyfile)
            for path in copied.glob("*/*/environment.json"):
                other = {"cpu": "another", "cores": 96, "system": "Darwin arm64", "device": "mps", "torch": "2.99.0"}
                alter_json(path, lambda document, other=other: document.update(other))
            assert documents(copied, picture) == expected
            again = answer("train", run_at(copied) / "config.json", "--runs", copied, "--track", "none")
            assert again.code == 0, again.err
            assert "made by torch 2.99.0" in again.out

        with drill.injection("clock set back: every file is from the future", at="clock"):
            future = shutil.copytree(here, tmp_path / "future")
            for path in future.rglob("*"):
                os.utime(path, (time.time() + YEAR, time.time() + YEAR))
            with monkeypatch.context() as patch:
                real = time.time
                patch.setattr(time, "time", lambda: real() - 20 * YEAR)
                assert documents(future, picture) == expected

        with drill.injection("read-only", at="read-only"):
            frozen = shutil.copytree(here, tmp_path / "frozen")
            with read_only(frozen):
                before = tree(frozen)
                assert documents(frozen, picture, writable=False) == expected
                assert tree(frozen) == before
