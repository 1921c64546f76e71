"""Mutated command lines and configs: no traceback, one line, nothing touched that was there.

A few of each; a drill in ``tests/faults`` takes a thousand and more.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support.cli_world import World
from support.mutated_lines import LINES, build_safe_world, check, check_mutated_config, mutated_lines

# The same examples every time; NETDEPTH_FUZZ=5000 draws that many new ones.
RANDOM_EXAMPLES = int(os.environ.get("NETDEPTH_FUZZ", "0"))
A_FEW = settings(
    max_examples=RANDOM_EXAMPLES or 50,
    derandomize=not RANDOM_EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return build_safe_world(tmp_path, monkeypatch)


@A_FEW
@given(argv=mutated_lines())
@example(argv=["train", "baseline-mlp", "--seeds", "10000"])
@example(argv=["compare", "baseline-mlp-s0", "--runs", "/dev/null"])
@example(argv=["board", "/", "--port", "1"])
@example(argv=["runs", "--json", "list"])
def test_mutated_command_lines(world: World, argv: list[str]) -> None:
    check(world, argv, world.folder.parent)


@pytest.mark.parametrize("argv", [line for line in LINES if line[0] not in ("predict", "explain") and "rm" not in line])
def test_the_lines_that_are_mutated_are_good_ones(world: World, argv: list[str]) -> None:
    (world.folder / "here").mkdir()
    assert check(world, argv, world.folder.parent) == 0


@A_FEW
@given(data=st.data())
def test_mutated_configs(world: World, data: st.DataObject) -> None:
    check_mutated_config(world, data)
