"""Make the published tables from run folders and measurements, so that no number is typed by hand.

    python tools/publish.py add NAME RUN...           copy the runs' JSON to docs/results/NAME
    python tools/publish.py add-probe NAME FOLDER     copy a linear probe (RUN/transfer/...) to docs/results/probes/NAME
    python tools/publish.py render                    refresh every table in README.md and docs/
    python tools/publish.py check                     exit 1 if a table is not what its runs say

A table stands between ``<!-- KIND: NAME -->`` and ``<!-- /KIND -->``:

    finding, answer      a published study (tools/findings.py), whole or its answer and figure alone
    compare              ``netdepth compare docs/results/NAME/* --markdown``
    probe                the linear probe in docs/results/probes/NAME
    explain, landscape   the words of docs/results/explain/NAME.json, of the records in docs/results/landscape/NAME
    benchmark            benchmarks/results/epoch.json in short, for the batch size NAME
    study-benchmark      benchmarks/results/study.json in short, for NAME seeds; all its tables if NAME is ``all``
    conv-benchmark       benchmarks/results/NAME.json
    simulation           benchmarks/results/verdict_simulation.json, its table NAME: level or power
    reliability, checkpoint-cost (without NAME)    what the fault drills recorded (tools/reliability.py)
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import textwrap
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import conv_report
import findings
import reliability
import report
import study_report
import verdict_simulation

from netdepth.config import from_json
from netdepth.errors import NetdepthError
from netdepth.files.atomic import restored
from netdepth.report.run_text import render
from netdepth.runs.compare import compare
from netdepth.runs.folder import RunDir
from netdepth.tools.landscape.picture import landscape_words
from netdepth.tools.landscape.surface import Slice
from netdepth.tools.linear_probe.page import Result, draw, markdown

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
MEASURED = ROOT / "benchmarks" / "results"
RUN_FILES = ("config.json", "environment.json", "split.json", "metrics.jsonl", "result.json", "test_access.json")
PROBE_FILES = ("probe.json", "probe.png", "test_access.json")
BLOCK = re.compile(r"(<!-- ([a-z-]+)(?:: ([a-z0-9-]+))? -->\n).*?(<!-- /\2 -->)", re.DOTALL)


def add(name: str, runs: list[str]) -> None:
    """Copy what the tables need of finished runs; weights and predictions stay behind."""
    shutil.rmtree(RESULTS / name, ignore_errors=True)
    for run in map(Path, runs):
        if RunDir(run).result() is None:
            raise SystemExit(f"{run} is not a finished run")
        findings.copy_small(run, RESULTS / name / run.name, RUN_FILES)


def add_probe(name: str, folder: Path) -> None:
    """Copy a finished linear probe."""
    draw(folder, probe(folder))
    shutil.rmtree(RESULTS / "probes" / name, ignore_errors=True)
    findings.copy_small(folder, RESULTS / "probes" / name, PROBE_FILES)


def probe(folder: Path) -> Result:
    """The linear probe in ``folder``."""
    return Result.from_json(json.loads((folder / "probe.json").read_text()))


def block(kind: str, name: str, page: Path) -> str:
    """What stands between the markers of a block of ``page``."""
    match kind:
        case "finding" | "answer":
            return findings.finding(name, page, whole=kind == "finding")
        case "compare":
            folders = sorted(path.parent for path in (RESULTS / name).glob("*/config.json"))
            return render(compare(map(RunDir, folders)), "markdown")
        case "probe":
            folder = RESULTS / "probes" / name
            picture = os.path.relpath(folder / "probe.png", page.parent)
            return f"{markdown(probe(folder))}\n![accuracy of every classifier]({picture})"
        case "explain":
            return quoted(json.loads((RESULTS / "explain" / f"{name}.json").read_text())["words"])
        case "landscape":
            files = sorted((RESULTS / "landscape" / name).iterdir())
            found = [from_json(Slice, restored(json.loads(file.read_text())), finite=False) for file in files]
            return quoted(landscape_words(found))
        case "benchmark":
            return report.summary(json.loads((MEASURED / "epoch.json").read_text()), name)
        case "study-benchmark":
            return study_report.block(MEASURED / "study.json", name)
        case "conv-benchmark":
            return conv_report.block(MEASURED / f"{name}.json")
        case "simulation":
            return verdict_simulation.table(MEASURED / "verdict_simulation.json", name)
        case "reliability":
            return reliability.table()
        case _:
            return reliability.cost()


def quoted(words: str) -> str:
    return textwrap.fill(words, 118, initial_indent="> ", subsequent_indent="> ", break_on_hyphens=False)


def refreshed(page: Path) -> str:
    """The text of ``page`` with every table as it is now."""
    text = BLOCK.sub(lambda m: f"{m[1]}\n{block(m[2], m[3], page).strip()}\n\n{m[4]}", page.read_text())
    return report.rendered(text, json.loads((MEASURED / "epoch.json").read_text())) if report.BEGIN in text else text


def main(arguments: list[str]) -> int:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    match arguments:
        case ["add", name, *runs] if runs:
            add(name, runs)
        case ["add-probe", name, folder]:
            add_probe(name, Path(folder))
        case ["render"]:
            for page in pages:
                page.write_text(refreshed(page))
        case ["check"]:
            stale = [str(page.relative_to(ROOT)) for page in pages if refreshed(page) != page.read_text()]
            if stale:
                print(f"tables are not what their runs say: {', '.join(stale)}; run: python tools/publish.py render")
                return 1
        case _:
            print(__doc__)
            return 2
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except NetdepthError as error:
        sys.exit(f"publish: {error}")
