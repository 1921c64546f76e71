"""Imports point one way. The whole graph is read from the source, function bodies included."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from support.made_runs import make_run
from support.source import MODULES, STRUCTURE, imports_of

ORDER = (
    "errors", "text", "progress", "config", "ownvalues", "owncode", "overrides", "registry", "studyparts", "studyspec",
    "files", "data", "models", "stats", "runs", "trackers", "recipes", "training", "studies", "report", "tools", "api",
    "conformance", "commands", "cli",
)  # fmt: skip
"""Modules and packages from the lowest to the highest: each imports only what stands before it."""
NARROWER = {
    "progress": {"text"},
    "config": {"errors"},
    "ownvalues": {"errors"},
    "owncode": {"errors", "ownvalues"},
    "overrides": {"errors", "config"},
    "registry": {"errors", "config", "owncode"},
    "studyparts": {"errors", "config"},
    "studyspec": {"errors", "text", "config", "overrides", "studyparts"},
    "files": {"errors", "text", "config", "owncode"},
    "data": {"errors", "text", "progress", "config", "registry", "files"},
    "models": {"errors", "config", "owncode", "registry", "files"},
    "stats": {"errors"},
    "runs": {"errors", "text", "config", "overrides", "files", "stats"},
    "trackers": {"errors", "config", "registry", "files", "runs"},
    "recipes": {"errors", "config", "owncode", "registry", "studyspec", "files"},
}
"""Packages that import less than all below them."""
MAY_IMPORT = {package: NARROWER.get(package, set(ORDER[:place])) for place, package in enumerate(ORDER)}
MAY_IMPORT |= {
    "__main__": set(ORDER),
    "netdepth": {"api", "tools", "training", "data", "models", "recipes", "trackers"},
}


def package_of(module: str) -> str:
    return module.removeprefix("netdepth.").partition(".")[0]


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_one_way(module: str) -> None:
    package = package_of(module)
    assert package in MAY_IMPORT, f"{package} is new: say here what it may import"
    wrong = {package_of(other) for other in imports_of(module)} - MAY_IMPORT[package] - {package, "netdepth"}
    assert not wrong, f"{module} may not import {sorted(wrong)}"


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
    ("source", "modules"),
    [
        ("import netdepth.training.fit", {"netdepth.training.fit"}),
        ("from netdepth import api, __version__", {"netdepth.api", "netdepth"}),
        ("from netdepth.data.splits import Split", {"netdepth.data.splits"}),
        ("def f():\n    from netdepth.models import MODELS", {"netdepth.models"}),
        ("from .. import stats", {"netdepth.stats"}),
        ("from . import splits", {"netdepth.data.splits"}),
        ("from .splits import Split", {"netdepth.data.splits"}),
        ("import netdepth\nimport torch", {"netdepth"}),
    ],
)
def test_the_walk_sees_every_way_of_importing(source: str, modules: set[str]) -> None:
    read = STRUCTURE["_imported"]
    assert {name for node in ast.walk(ast.parse(source)) for name in read(node, "netdepth.data", MODULES)} == modules
