"""Imports point one way. The whole graph is read from the source, function bodies included."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from support.made_runs import make_run

import netdepth

ROOT = Path(netdepth.__file__).parent
ORDER = (
    "errors", "text", "progress", "config", "overrides", "registry", "studyspec", "files", "data", "models", "stats",
    "runs", "trackers", "recipes", "training", "studies", "report", "tools", "api", "conformance", "commands", "cli",
)  # fmt: skip
"""Modules and packages from the lowest to the highest: each imports only what stands before it."""
NARROWER = {
    "progress": {"text"},
    "config": {"errors"},
    "overrides": {"errors", "config"},
    "registry": {"errors", "config"},
    "studyspec": {"errors", "config", "overrides"},
    "files": {"errors", "config"},
    "data": {"errors", "progress", "config", "registry", "files"},
    "models": {"errors", "config", "registry", "files"},
    "stats": {"errors"},
    "runs": {"errors", "text", "config", "files", "stats"},
    "trackers": {"errors", "config", "registry", "files", "runs"},
    "recipes": {"errors", "config", "registry", "studyspec", "files"},
}
"""Packages that import less than all below them."""
MAY_IMPORT = {package: NARROWER.get(package, set(ORDER[:place])) for place, package in enumerate(ORDER)}
MAY_IMPORT |= {"__main__": set(ORDER), "__init__": {"api"}}


def packages_imported(source: str, package: str, depth: int) -> set[str]:
    """Packages of netdepth that ``source`` imports, wherever in it.

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
            start = ["netdepth", *([package] if above > 0 else [])]
            names = [".".join([*start, *([node.module] if node.module else []), alias.name]) for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            names = [str(a.value) for a in node.args if isinstance(a, ast.Constant)]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("netdepth.")}
    return found


def files() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def package_of(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").parts[0]


PACKAGES = {package_of(path) for path in files()}


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    package = package_of(path)
    assert package in MAY_IMPORT, f"{package} is new: say here what it may import"
    depth = len(path.relative_to(ROOT).parts)
    imported = packages_imported(path.read_text(), package, depth=depth)
    wrong = (imported & PACKAGES) - MAY_IMPORT[package] - {package}
    assert not wrong, f"{path.relative_to(ROOT)} may not import {sorted(wrong)}"


def test_what_needs_no_arrays_no_frames_and_no_window_imports_none(tmp_path: Path) -> None:
    """Each statement is run after those above it, in one process, and has not imported what stands beside it."""
    draw = "netdepth.report.learning_curves.learning_curves(netdepth.runs.folder.RunDir(pathlib.Path(sys.argv[1])))"
    lines = {
        "import netdepth.studyspec": {"numpy", "scipy", "pandas", "torch"},
        "import netdepth.studies.table, netdepth.studies.verdict": {"pandas", "torch"},
        f"import netdepth.report.learning_curves; {draw}": {"torch", "matplotlib.pyplot"},
    }
    code = "".join(f"{line}; print(sorted({unwanted!r} & set(sys.modules)))\n" for line, unwanted in lines.items())
    command = [sys.executable, "-c", f"import pathlib, sys\n{code}", str(make_run(tmp_path).path)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() == ["[]"] * len(lines)


@pytest.mark.parametrize(
    ("source", "packages"),
    [
        ("import netdepth.training.fit", {"training"}),
        ("from netdepth import api, __version__", {"api", "__version__"}),
        ("from netdepth.data.splits import Split", {"data"}),
        ("def f():\n    from netdepth.models import MODELS", {"models"}),
        ("from .. import stats", {"stats"}),
        ("from . import idx", {"data"}),
        ("from .splits import Split", {"data"}),
        ("import importlib\nimportlib.import_module('netdepth.trackers.base')", {"trackers"}),
        ("import netdepth\nimport torch", set()),
    ],
)
def test_the_walk_sees_every_way_of_importing(source: str, packages: set[str]) -> None:
    assert packages_imported(source, "data", depth=2) == packages
