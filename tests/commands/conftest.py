"""The world in which command lines are tried out, and the way to ask in it."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.cli_world import Ask, World, answer, build_world


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return build_world(tmp_path, monkeypatch)


@pytest.fixture
def ask(world: World, capsys: pytest.CaptureFixture[str]) -> Ask:
    return lambda *argv: answer(list(argv), capsys)
