"""Row 16: a store of each earlier release is read, and one of a later release is refused by its number."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from faults.ground import FINISHED, INTERRUPTED, STORES, answer, run_at, store_at
from faults.record import Faults
from netdepth.config import SCHEMA, Component
from netdepth.data import load
from netdepth.runs.folder import list_runs
from netdepth.studies.folder import list_studies
from netdepth.training import finished as api

pytestmark = pytest.mark.faults

RELEASES = sorted(path.name for path in STORES.iterdir())


def releases(root: Path) -> Iterator[tuple[str, Path]]:
    for release in RELEASES:
        yield release, store_at(root / release, STORES / release)


def logits_agree(run: api.Run) -> None:
    """The weights give today what they gave then."""
    test = load(Component(**run.config["dataset"]), data_dir=None).test
    with np.load(run.path / "predictions.npz", allow_pickle=False) as then, torch.inference_mode():
        now = run.model()(test.open_test("comparing with an earlier release").inputs)
        np.testing.assert_allclose(now.numpy(), then["logits"], rtol=1e-4, atol=1e-4)


def test_stores_of_earlier_releases(faults: Faults, tmp_path: Path) -> None:
    count = len(RELEASES)
    with faults.drill(16, "stores of earlier releases", quick=count) as drill:
        for release, store in releases(tmp_path):
            with drill.injection(f"{release}: every command that reads", at=release):
                names = [run.path.name for run in list_runs(store)]
                assert {run.status() for run in list_runs(store)} >= {"completed", "diverged", "unfinished"}
                for argv in (
                    ("runs", "list"), ("compare", *names[:2]), ("inspect", FINISHED),
                    *((command, study.path.name) for study in list_studies(store) for command in ("verdict", "report")),
                ):  # fmt: skip
                    said = answer(*argv, "--runs", store)
                    assert said.code == 0, said.err
                for study in list_studies(store):
                    assert answer("report", study.path, "--check").code == 0
            with drill.injection(f"{release}: the weights", at=release):
                logits_agree(api.load(FINISHED, store))
            with drill.injection(f"{release}: a finished run is not made again", at=release):
                said = answer("train", run_at(store) / "config.json", "--runs", store, "--track", "none")
                assert "already finished" in said.out, said.err
            with drill.injection(f"{release}: an interrupted run goes on, or is refused by the version", at=release):
                begun = json.loads((run_at(store, INTERRUPTED) / "environment.json").read_text())["torch"]
                said = answer(
                    "train", run_at(store, INTERRUPTED) / "config.json", "--runs", store, "--track", "none"
                )  # fmt: skip
                if begun == torch.__version__:
                    assert said.code == 0, said.err
                    assert "continued from step" in said.out
                else:
                    assert f"started with torch = {begun}" in said.line


FILES = ("config.json", "result.json", "split.json", "study.json", "environment.json")


def test_a_store_of_a_later_release(faults: Faults, tmp_path: Path) -> None:
    """Its number is named; nothing of it is guessed."""
    with faults.drill(16, "files of a later release", quick=len(FILES)) as drill:
        for name in FILES:
            store = store_at(tmp_path / name)
            of = INTERRUPTED if name == "environment.json" else FINISHED
            folder = store / "tiny" if name == "study.json" else run_at(store, of)
            path = folder / name
            path.write_text(path.read_text().replace(f'"schema": {SCHEMA}', f'"schema": {SCHEMA + 1}', 1))
            asked = {
                "study.json": [("verdict", "tiny"), ("study", path)],
                "config.json": [("train", path), ("inspect", FINISHED)],
                "result.json": [("predict", FINISHED, path)],
                "split.json": [("predict", FINISHED, path), ("inspect", FINISHED)],
                "environment.json": [("train", folder / "config.json", "--track", "none")],
            }[name]
            with drill.injection(name, at="refused"):
                for argv in asked:
                    line = answer(*argv, "--runs", store).line
                    assert f"has schema {SCHEMA + 1}; this netdepth reads schema {SCHEMA}" in line
