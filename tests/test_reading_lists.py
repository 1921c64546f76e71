"""The reading lists of docs/architecture.md: few files say how a run or a study works; checked by imports."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.source import MODULES, imports_of

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "netdepth"
MOST_FILES, MOST_LINES = 12, 2600
SECTIONS = {
    "To understand one run": ("training/run.py",),
    "To understand one study": ("studies/run.py", "studies/table.py", "studies/verdict.py"),
}
"""A section of the page, and where reading starts: what these files import is sorted into needed and not needed."""


def tables(title: str) -> list[list[str]]:
    """The files named in the first column of each table of a section."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    (section,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    found = []
    for table in re.findall(r"^\| --- .*\n((?:\|.*\n)+)", section, re.MULTILINE):
        firsts = [row.split("|")[1] for row in table.splitlines()]
        found.append([name for first in firsts for name in re.findall(r"`([\w/]+\.py)`", first)])
    return found


def imported(name: str) -> set[str]:
    """The files of netdepth that the file ``name`` imports, packages apart."""
    paths = {MODULES[module].path for module in imports_of("netdepth." + name.removesuffix(".py").replace("/", "."))}
    return {str(path.relative_to(SOURCE)) for path in paths if path.name != "__init__.py"}


def reached(starts: tuple[str, ...], package: str) -> set[str]:
    """``starts`` and all that they import within ``package``, directly or not."""
    found: set[str] = set()
    waiting = [*starts]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += [other for other in imported(name) if other.startswith(f"{package}/")]
    return found


@pytest.mark.parametrize(("title", "starts"), SECTIONS.items())
def test_few_files_are_needed_and_every_other_is_named_with_a_reason(title: str, starts: tuple[str, ...]) -> None:
    package = starts[0].partition("/")[0]
    needed, others = tables(title)
    for name in (*needed, *others):
        assert (SOURCE / name).is_file(), name
    assert len(needed) == len(set(needed)) <= MOST_FILES
    assert sum(len((SOURCE / name).read_text().splitlines()) for name in needed) <= MOST_LINES
    inside = {name for name in needed if name.startswith(f"{package}/")}
    modules = {f"{package}/{path.name}" for path in (SOURCE / package).glob("*.py") if path.name != "__init__.py"}
    assert modules - inside == {*others}, "each file of the package stands in one of the two tables"
    through = reached(starts, package)
    assert {*starts} <= inside <= through, "nothing is to be read that has no part in it"
    assert through <= {*needed, *others}, "what is imported is needed, or a reason says why not"
    assert {*needed} - inside <= set().union(*map(imported, inside)), "a file outside the package is used by one in it"
