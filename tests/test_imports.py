"""Imports point one way. The whole graph is read from the source, function bodies included."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import netdepth

ROOT = Path(netdepth.__file__).parent
BASE = {"atomic", "config", "errors", "registry"}
ENGINE = BASE | {"pictures", "records", "data", "models", "store", "trackers", "probes", "progress"}
ALL = ENGINE | {
    "usercode",
    "overrides",
    "studyspec",
    "studydir",
    "engine",
    "launch",
    "analysis",
    "report",
    "recipes",
    "convert",
    "explaining",
    "pictures",
    "api",
    "exports",
    "housekeeping",
    "doctor",
    "conformance",
    "commands",
    "cli",
    "grammar",
}

ABOVE = {"cli", "grammar", "commands", "doctor", "conformance"}
STUDIES = {"records", "store", "studydir", "studyspec"}
MAY_IMPORT = {
    "errors": set(),
    "progress": set(),
    "atomic": {"errors"},
    "usercode": {"errors"},
    "config": {"errors"},
    "overrides": {"config", "errors"},
    "studyspec": {"config", "errors", "overrides"},
    "studydir": {"atomic", "config", "errors", "records", "store", "studyspec"},
    "registry": {"config", "errors"},
    "pictures": {"errors"},
    "data": BASE | {"pictures"},
    "models": BASE,
    "records": {"config", "errors"},
    "store": BASE | {"records"},
    "trackers": BASE | {"store", "usercode"},
    "probes": BASE | {"data", "models"},
    "engine": ENGINE,
    "launch": BASE | STUDIES | {"data", "models", "engine", "overrides", "progress", "usercode"},
    "analysis": {"config", "errors"} | STUDIES,
    "report": {"atomic", "config", "errors", "analysis"} | STUDIES,
    "recipes": BASE | {"studyspec", "usercode"},
    "convert": {"atomic", "errors", "models"},
    "explaining": BASE | {"analysis", "data", "engine", "models", "pictures", "probes", "report", "store"},
    "exports": {"config", "data", "errors", "models"},
    "housekeeping": {"atomic", "config", "errors", "store"},
    "api": ALL - ABOVE - {"api"},
    "doctor": ALL - {"cli", "grammar", "commands", "conformance"} - {"api"},
    "conformance": ALL - {"cli", "grammar", "commands", "doctor"} - {"api"},
    "commands": ALL - {"cli", "grammar"},
    "grammar": {"config", "errors"},
    "cli": ALL,
    "__main__": ALL,
    "__init__": {"api"},
}
"""What each room may import besides itself and the bare package (its version)."""


def rooms_imported(source: str, room: str, depth: int) -> set[str]:
    """Rooms of the package that ``source`` imports, wherever in it.

    ``depth`` is the number of packages the file lies in, counting netdepth as the first.
    """
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = depth - node.level  # 0: the package itself, from which anything can be reached
            start = ["netdepth", *([room] if above > 0 else [])]
            names = [".".join([*start, *([node.module] if node.module else []), alias.name]) for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            names = [str(a.value) for a in node.args if isinstance(a, ast.Constant)]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("netdepth.")}
    return found


def files() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").parts[0]


ROOMS = {room_of(path) for path in files()}


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    room = room_of(path)
    assert room in MAY_IMPORT, f"{room} is new: say here what it may import"
    depth = len(path.relative_to(ROOT).parts)
    imported = rooms_imported(path.read_text(), room, depth=depth)
    wrong = (imported & ROOMS) - MAY_IMPORT[room] - {room}
    assert not wrong, f"{path.relative_to(ROOT)} may not import {sorted(wrong)}"


def test_the_rules_themselves_have_no_circle() -> None:
    order: list[str] = []
    left = {room: rooms - {room} for room, rooms in MAY_IMPORT.items() if room != "__init__"}
    while left:
        free = [room for room, rooms in left.items() if not rooms & set(left)]
        assert free, f"a circle among {sorted(left)}"
        order += free
        left = {room: rooms for room, rooms in left.items() if room not in free}
    assert order[0] in ("errors", "progress")


@pytest.mark.parametrize(
    ("source", "rooms"),
    [
        ("import netdepth.engine.fit", {"engine"}),
        ("from netdepth import api, __version__", {"api", "__version__"}),
        ("from netdepth.data.splits import Split", {"data"}),
        ("def f():\n    from netdepth.models import MODELS", {"models"}),
        ("from .. import store", {"store"}),
        ("from . import idx", {"data"}),
        ("from .splits import Split", {"data"}),
        ("import importlib\nimportlib.import_module('netdepth.trackers.base')", {"trackers"}),
        ("import netdepth\nimport torch", set()),
    ],
)
def test_the_walk_sees_every_way_of_importing(source: str, rooms: set[str]) -> None:
    assert rooms_imported(source, "data", depth=2) == rooms
