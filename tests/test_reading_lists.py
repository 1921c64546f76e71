"""The reading lists of docs/architecture.md: few files say how a run or a study works, and no file is left out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "netdepth"
MOST_FILES, MOST_LINES = 12, 2600
SECTIONS = {"To understand one run": "training", "To understand one study": "studies"}
"""A section of the page, and the package whose files it sorts into needed and not needed."""


def tables(title: str) -> list[list[str]]:
    """The files named in the first column of each table of a section."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    (section,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    found = []
    for table in re.findall(r"^\| --- .*\n((?:\|.*\n)+)", section, re.MULTILINE):
        firsts = [row.split("|")[1] for row in table.splitlines()]
        found.append([name for first in firsts for name in re.findall(r"`([\w/]+\.py)`", first)])
    return found


@pytest.mark.parametrize(("title", "package"), SECTIONS.items())
def test_few_files_are_needed_and_every_other_is_named_with_a_reason(title: str, package: str) -> None:
    needed, others = tables(title)
    for name in (*needed, *others):
        assert (SOURCE / name).is_file(), name
    assert len(needed) == len(set(needed)) <= MOST_FILES
    assert sum(len((SOURCE / name).read_text().splitlines()) for name in needed) <= MOST_LINES
    modules = {f"{package}/{path.name}" for path in (SOURCE / package).glob("*.py") if path.name != "__init__.py"}
    assert modules - {*needed} == {*others}, "each file of the package stands in one of the two tables"
