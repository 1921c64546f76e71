"""Publish what probes found, so that no number of it is typed by hand.

    python tools/probes.py add NAME FOLDER    copy a probe (RUN/transfer/...) to docs/results/probes/NAME

``tools/publish.py render`` then fills ``<!-- probe: NAME -->`` from there, and ``check`` compares.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

from findings import copy_small

from netdepth.tools.linear_probe.page import Result, draw, markdown

ROOT = Path(__file__).resolve().parents[1]
PROBES = ROOT / "docs" / "results" / "probes"
FILES = ("probe.json", "probe.png", "test_access.json")
BLOCK = re.compile(r"(<!-- probe: ([a-z0-9-]+) -->\n).*?(<!-- /probe -->)", re.DOTALL)


def add(name: str, folder: Path) -> None:
    """Copy a finished probe."""
    draw(folder, _result(folder))
    target = PROBES / name
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for file in FILES:
        copy_small(folder / file, target / file)


def _result(folder: Path) -> Result:
    return Result.from_json(json.loads((folder / "probe.json").read_text()))


def refreshed(text: str, page: Path) -> str:
    """``text`` of ``page`` with every probe as it is now."""

    def block(match: re.Match[str]) -> str:
        folder = PROBES / match[2]
        where = Path(*[".."] * len(page.parent.relative_to(ROOT).parts)) / folder.relative_to(ROOT)
        shown = markdown(_result(folder))
        return f"{match[1]}\n{shown}\n![accuracy of every classifier]({where}/probe.png)\n\n{match[3]}"

    return BLOCK.sub(block, text)


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] != "add":
        raise SystemExit(__doc__)
    add(sys.argv[2], Path(sys.argv[3]))
