"""Make the published tables from run folders, so that no number is typed by hand.

    python tools/publish.py add NAME RUN...   copy the runs' JSON to docs/results/NAME
    python tools/publish.py render            refresh every table in README.md and docs/
    python tools/publish.py check             exit 1 if a table is not what its runs say

A table stands between ``<!-- compare: NAME -->`` and ``<!-- /compare -->``; what is between them is
the output of ``netdepth compare docs/results/NAME/* --markdown``. ``<!-- benchmark: SIZE -->`` holds the
short form of benchmarks/results/epoch.json for one batch size, ``<!-- study-benchmark: SEEDS -->`` that of
benchmarks/results/study.json for one number of seeds, or with ``all`` for SEEDS all its tables, and
``<!-- conv-benchmark: FILE -->`` the table of benchmarks/results/FILE.json, made by benchmarks/conv.py.
``<!-- explain: NAME -->`` holds the words of docs/results/explain/NAME.json, which ``netdepth explain`` wrote, and
``<!-- landscape: NAME -->`` those of the records in docs/results/landscape/NAME, which ``netdepth landscape`` wrote.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import textwrap
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import conv_report
import findings
import probes
import report
import study_report

from netdepth.errors import NetdepthError
from netdepth.files.records import restored
from netdepth.report.run_text import render
from netdepth.runs.compare import compare
from netdepth.runs.folder import RunDir
from netdepth.tools.landscape.picture import landscape_words
from netdepth.tools.landscape.surface import Slice

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
FILES = ("config.json", "environment.json", "split.json", "metrics.jsonl", "result.json", "test_access.json")
MEASURED = ROOT / "benchmarks" / "results"
BENCHMARK = MEASURED / "epoch.json"
STUDY = MEASURED / "study.json"
CONV_BLOCK = re.compile(r"(<!-- conv-benchmark: ([a-z0-9-]+) -->\n).*?(<!-- /conv-benchmark -->)", re.DOTALL)
STUDY_BLOCK = re.compile(r"(<!-- study-benchmark: (\d+|all) -->\n).*?(<!-- /study-benchmark -->)", re.DOTALL)
BENCHMARK_BLOCK = re.compile(r"(<!-- benchmark: (\d+) -->\n).*?(<!-- /benchmark -->)", re.DOTALL)
LANDSCAPE_BLOCK = re.compile(r"(<!-- landscape: ([a-z0-9-]+) -->\n).*?(<!-- /landscape -->)", re.DOTALL)
EXPLAIN_BLOCK = re.compile(r"(<!-- explain: ([a-z0-9-]+) -->\n).*?(<!-- /explain -->)", re.DOTALL)
BLOCK = re.compile(r"(<!-- compare: ([a-z0-9-]+) -->\n).*?(<!-- /compare -->)", re.DOTALL)


def add(name: str, runs: list[str]) -> None:
    """Copy what the tables need of finished runs; weights and predictions stay behind."""
    target = RESULTS / name
    shutil.rmtree(target, ignore_errors=True)
    for run in map(Path, runs):
        if RunDir(run).result() is None:
            raise SystemExit(f"{run} is not a finished run")
        (target / run.name).mkdir(parents=True)
        for file in FILES:
            if (run / file).exists():  # a run with sealed test data has no test_access.json
                findings.copy_small(run / file, target / run.name / file)


def table(name: str) -> str:
    """The comparison of the published runs called ``name``, as Markdown."""
    folders = sorted(p for p in (RESULTS / name).iterdir() if (p / "config.json").exists())
    return render(compare([RunDir(p) for p in folders]), "markdown")


def said(name: str) -> str:
    """The words of a published ``explain.json``, as a quotation."""
    return quoted(json.loads((RESULTS / "explain" / f"{name}.json").read_text())["words"])


def around(name: str) -> str:
    """The words of published landscapes, side by side, as a quotation."""
    files = sorted((RESULTS / "landscape" / name).iterdir())
    return quoted(landscape_words([Slice.from_json(restored(json.loads(file.read_text()))) for file in files]))


def quoted(words: str) -> str:
    return textwrap.fill(words, 118, initial_indent="> ", subsequent_indent="> ", break_on_hyphens=False)


def refreshed(page: Path) -> str:
    """The text of ``page`` with every table as it is now."""
    text = probes.refreshed(findings.refreshed(page.read_text(), page), page)
    text = BLOCK.sub(lambda match: f"{match[1]}\n{table(match[2])}\n{match[3]}", text)
    text = EXPLAIN_BLOCK.sub(lambda match: f"{match[1]}\n{said(match[2])}\n\n{match[3]}", text)
    text = LANDSCAPE_BLOCK.sub(lambda match: f"{match[1]}\n{around(match[2])}\n\n{match[3]}", text)
    measured = json.loads(BENCHMARK.read_text())
    text = BENCHMARK_BLOCK.sub(lambda match: f"{match[1]}\n{report.summary(measured, match[2])}\n\n{match[3]}", text)
    text = STUDY_BLOCK.sub(lambda match: f"{match[1]}\n{study_report.block(STUDY, match[2])}\n\n{match[3]}", text)
    text = CONV_BLOCK.sub(lambda m: f"{m[1]}\n{conv_report.block(MEASURED / f'{m[2]}.json')}\n\n{m[3]}", text)
    return report.rendered(text, measured) if report.BEGIN in text else text


def pages() -> list[Path]:
    """The Markdown files that may hold tables."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def main(arguments: list[str]) -> int:
    match arguments:
        case ["add", name, *runs] if runs:
            add(name, runs)
        case ["render"]:
            for page in pages():
                page.write_text(refreshed(page))
        case ["check"]:
            stale = [str(page.relative_to(ROOT)) for page in pages() if refreshed(page) != page.read_text()]
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
