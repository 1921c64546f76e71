"""Publish what studies found, so that no sentence and no number of it is typed by hand.

    python tools/findings.py add STUDY...    copy a finished study's report.md and tables to docs/studies/NAME

``tools/publish.py render`` then fills ``<!-- finding: NAME -->`` (answer, figure, tables) and ``<!-- answer: NAME -->``
(answer and figure alone) in README.md and docs/ from there, and ``check`` compares. The verdict is made again from
``table.csv`` and ``study.json``, so the answer is in the words of the present version.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import pandas

from netdepth.config import from_json
from netdepth.report.data import read_study
from netdepth.report.page import write_report
from netdepth.runs.folder import slug
from netdepth.studies.folder import StudyDir
from netdepth.studies.verdict import Verdict, verdict
from netdepth.studyspec import StudySpec

ROOT = Path(__file__).resolve().parents[1]
STUDIES = ROOT / "docs" / "studies"
FILES = ("study.json", "table.csv", "verdict.json", "report.md", "cost.json")
"""What docs/ keeps of a study. `netdepth report` makes report.html and sources.json again from the run folders."""
BLOCK = re.compile(r"(<!-- (finding|answer): ([a-z0-9-]+) -->\n).*?(<!-- /\2 -->)", re.DOTALL)
FIGURE = "## Error and loss against depth"
REST = "## Learning curves per depth"


def add(folder: Path) -> None:
    """Copy the report and the tables of a finished study; the run folders stay behind."""
    study = StudyDir(folder)
    data = read_study(study)
    if data.missing:
        raise SystemExit(f"{folder}: {len(data.missing)} of {len(data.runs)} planned runs have no result")
    write_report(study)
    target = STUDIES / slug(study.spec.name)
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name in FILES:
        if (folder / name).exists():
            copy_small(folder / name, target / name)
    shutil.copytree(folder / "figures", target / "figures")


def copy_small(source: Path, target: Path) -> None:
    """Copy one file to docs/: JSON without white space, records without the gradient norm of each layer."""
    if source.suffix not in (".json", ".jsonl"):
        shutil.copyfile(source, target)
        return
    text = source.read_text()
    records = [json.loads(line) for line in (text.splitlines() if source.suffix == ".jsonl" else [text])]
    if source.suffix == ".jsonl":
        for record in records:
            record.pop("layer_grad_norms", None)
    target.write_text("".join(json.dumps(record, separators=(",", ":")) + "\n" for record in records))


def finding(name: str, page: Path, whole: bool) -> str:
    """The beginning of a published study's page: the answer, the figure and, if ``whole``, the tables between."""
    folder = STUDIES / name
    where = Path(*[".."] * len(page.parent.relative_to(ROOT).parts)) / folder.relative_to(ROOT)
    title, _, body = (folder / "report.md").read_text().partition("\n")
    told, _, rest = body.partition(FIGURE)
    kind, _, *lines = told.strip().split("\n\n")  # the answer in a sentence or two stands between these
    answer = verdict_of(folder).answer
    told = "\n\n".join((kind, answer, *lines)) if whole else answer
    parts = [f"**{title.removeprefix('# ')}**", told.strip(), rest.partition(REST)[0].strip(), *_cost(folder)]
    parts.append(f"The whole report, with every run behind it: [{where}]({where}/report.md).")
    return "\n\n".join(parts).replace("](figures/", f"]({where}/figures/") + "\n"


def verdict_of(folder: Path) -> Verdict:
    """The verdict on a published study, made again from its question and its table."""
    spec = from_json(StudySpec, json.loads((folder / "study.json").read_text())["spec"], "spec")
    table = pandas.read_csv(folder / "table.csv", dtype={axis.name: str for axis in spec.scientific})
    return verdict(table, spec)


def _cost(folder: Path) -> list[str]:
    if not (folder / "cost.json").exists():
        return []
    cost = json.loads((folder / "cost.json").read_text())
    memory, disk, kept = (cost[key] for key in ("peak_memory_bytes", "bytes", "checkpoint_bytes"))
    return [
        f"Measured: `{cost['command']}` took {cost['seconds'] / 60:.1f} minutes on {cost['cores']} cores "
        f"({cost['cpu']}), report included, at most {memory / 2**30:.1f} GiB of memory over all its processes, "
        f"and {disk / 2**20:,.0f} MiB on disk, of which {kept / 2**20:,.0f} are checkpoints."
    ]


def refreshed(text: str, page: Path) -> str:
    """``text`` of ``page`` with every finding made anew."""
    return BLOCK.sub(lambda m: f"{m[1]}\n{finding(m[3], page, m[2] == 'finding')}\n{m[4]}", text)


if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[1] != "add":
        raise SystemExit(__doc__)
    for argument in sys.argv[2:]:
        add(Path(argument))
