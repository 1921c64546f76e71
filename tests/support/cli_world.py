"""A small world for command lines: run folders, a recipe file, a config; nothing trains, draws or downloads."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from netdepth.cli import main
from netdepth.config import RunConfig, Runtime
from netdepth.studies.folder import StudyDir
from netdepth.studies.run import StudyOutcome
from netdepth.studyspec import StudySpec
from netdepth.training.launch import Outcome
from support.made_runs import add_checkpoint, make_run

RECIPE = """
from netdepth.config import Component, RunConfig

def tiny():
    return RunConfig(Component("mnist5k"), Component("mlp", {"hidden": [4]}), seed=7)

def wrong():
    return 3

def broken():
    return undefined_name
"""


Ask = Callable[..., tuple[int, str, str]]
"""Runs a command line; returns its exit code, stdout and stderr."""


@dataclass(repr=False)  # hypothesis would print every config of `launched`, which takes seconds
class World:
    """``folder`` is the working folder, ``runs`` the runs folder; ``launched`` and ``studies`` what was asked for."""

    folder: Path
    runs: Path
    launched: list[tuple[str, list[RunConfig], Runtime]] = field(default_factory=list)
    studies: list[tuple[StudySpec, Runtime]] = field(default_factory=list)
    failing: dict[int, tuple[str, int]] = field(default_factory=dict)
    status: str = "stopped_early"

    def __repr__(self) -> str:
        return f"World({self.folder})"

    def launch(self, name: str, configs: list[RunConfig], runtime: Runtime, **_: Any) -> list[Outcome]:
        """Stands for `netdepth.training.launch.launch`: one made folder per seed, or the failure asked for."""
        self.launched.append((name, list(configs), runtime))
        outcomes = []
        for config in configs[:20]:
            if config.seed in self.failing:
                error, code = self.failing[config.seed]
                outcomes.append(Outcome(None, config.seed, "failed", error, code))
            else:
                run = make_run(self.folder.parent / "made", seed=config.seed, recipe=name, status=self.status)
                outcomes.append(Outcome(run.path, config.seed, self.status))
        return outcomes

    def run_study(self, spec: StudySpec, runtime: Runtime, **_: Any) -> StudyOutcome:
        """Stands for `netdepth.studies.run.run_study`: a study without a run."""
        self.studies.append((spec, runtime))
        return StudyOutcome(StudyDir(self.folder.parent / "made" / "study"))

    def tree(self) -> dict[str, tuple[int, int]]:
        """Every file below with size and time of change."""
        found = [path for root in (self.folder, self.runs) for path in root.rglob("*")]
        return {str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in found}


def build_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Make the world, step into it and put the stand-ins in place."""
    world = World(tmp_path / "here", tmp_path / "runs")
    world.folder.mkdir()
    for seed in (0, 1):
        run = make_run(world.runs, seed=seed)
        add_checkpoint(run, 200)
    (world.folder / "my.py").write_text(RECIPE)
    (world.folder / "config.json").write_bytes((run.path / "config.json").read_bytes())
    monkeypatch.chdir(world.folder)
    monkeypatch.setenv("NETDEPTH_RUNS", str(world.runs))
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"")
    monkeypatch.setattr("netdepth.report.learning_curves.learning_curves", lambda run: picture)
    monkeypatch.setattr("netdepth.report.learning_curves.learning_curves_many", lambda runs: picture)
    monkeypatch.setattr("netdepth.training.launch.launch", world.launch)
    monkeypatch.setattr("netdepth.studies.run.run_study", world.run_study)
    monkeypatch.setattr("sys.stdin", io.StringIO())  # no terminal: nobody can answer a question
    return world


def answer(argv: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command line run in this process."""
    capsys.readouterr()
    code = main(argv)
    sys.stdout.flush()
    out, err = capsys.readouterr()
    return code, out, err
