"""Publish what studies found, so that no sentence and no number of it is typed by hand.

    python tools/findings.py add STUDY...    copy a finished study's report.md and tables to docs/studies/NAME
    python tools/findings.py reword          write the reports and verdicts in docs/studies in the words of today

``tools/publish.py render`` then fills ``<!-- finding: NAME -->`` (answer, figure, tables) and ``<!-- answer: NAME -->``
(answer and figure alone) in README.md and docs/ from there, and ``check`` compares. The verdict is made again from
``table.csv`` and ``study.json``, so the answer is in the words of the present version.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas

from netdepth.report.content import Content, markdown
from netdepth.report.data import StudyData, StudyRun, read_study
from netdepth.report.figures import pictures
from netdepth.report.page import write_report
from netdepth.runs.folder import slug
from netdepth.runs.table import SCORES, RunRow
from netdepth.studies.folder import PlannedRun, StudyDir
from netdepth.studies.table import StudyRow
from netdepth.studies.verdict import verdict

ROOT = Path(__file__).resolve().parents[1]
STUDIES = ROOT / "docs" / "studies"
FILES = ("study.json", "table.csv", "verdict.json", "report.md", "cost.json")
"""What docs/ keeps of a study. `netdepth report` makes report.html and sources.json again from the run folders."""
FIGURE, SAME_IMAGES = "Error and loss against depth", "Runs on the same test images"
FROM_RUNS = (SAME_IMAGES, "Beside the paper", "How the runs were made", "What was run")
"""Sections of a report that are made of files which docs/ does not keep."""


def add(folder: Path) -> None:
    """Copy the report and the tables of a finished study; the run folders stay behind."""
    study = StudyDir(folder)
    data = read_study(study)
    if data.missing:
        raise SystemExit(f"{folder}: {len(data.missing)} of {len(data.runs)} planned runs have no result")
    write_report(study)
    target = STUDIES / slug(study.spec.name)
    shutil.rmtree(target, ignore_errors=True)
    copy_small(folder, target, FILES)
    shutil.copytree(folder / "figures", target / "figures")


def copy_small(source: Path, target: Path, names: Iterable[str]) -> None:
    """Copy the files of a folder that exist: JSON without white space, records without the gradients of each layer."""
    target.mkdir(parents=True)
    for file in filter(Path.exists, (source / name for name in names)):
        if file.suffix not in (".json", ".jsonl"):
            shutil.copyfile(file, target / file.name)
            continue
        text = file.read_text()
        records = [json.loads(line) for line in (text.splitlines() if file.suffix == ".jsonl" else [text])]
        for record in records if file.suffix == ".jsonl" else []:
            record.pop("layer_grad_norms", None)
        (target / file.name).write_text("".join(json.dumps(it, separators=(",", ":")) + "\n" for it in records))


def reword(folder: Path) -> None:
    """Write a published study's verdict and report in the words of today, from its question and its table.

    The figure against depth is drawn again. What only the run folders tell (`FROM_RUNS`, other figures) stays as it is.
    """
    data = published(folder)
    pictures(data, folder / "figures")
    assert data.verdict is not None, "a published study has runs"
    (folder / "verdict.json").write_text(json.dumps(data.verdict.as_json(), separators=(",", ":")) + "\n")
    report = folder / "report.md"
    old, new = sections(report.read_text()), sections(markdown(Content(data), []))
    kept = {title: text if title in FROM_RUNS else new.get(title, text) for title, text in old.items()}
    report.write_text("".join(f"## {title}\n{text}" if title else text for title, text in kept.items()))


def sections(text: str) -> dict[str, str]:
    """The text below each heading of a Markdown page; what stands above the first one under the empty title."""
    begin, *rest = re.split(r"^## (.+)\n", text, flags=re.MULTILINE)
    return {"": begin, **dict(zip(rest[::2], rest[1::2], strict=True))}


def published(folder: Path) -> StudyData:
    """What the page of a published study is made of, as far as its ``study.json`` and ``table.csv`` tell."""
    study = StudyDir(folder)
    table = pandas.read_csv(folder / "table.csv", dtype={axis.name: str for axis in study.spec.scientific})
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    planned = {run.folder: run for run in study.runs()}
    runs = [StudyRun(number, _row(planned[row["folder"]], row)) for number, row in enumerate(rows, 1)]
    return StudyData(study, study.spec, tuple(runs), table, verdict(table, study.spec))


def _row(planned: PlannedRun, row: dict[str, Any]) -> StudyRow:
    """A row of the published table as `study_row` reads it from a run's folder."""
    made = {field.name: row[field.name] for field in fields(RunRow) if field.name in row}
    made["scores"] = {score: row[score] for score in SCORES}
    return StudyRow(planned, RunRow(**made), *(row[name] for name in ("classes", "label_entropy", "gradient_ratio")))


def finding(name: str, page: Path, whole: bool) -> str:
    """The beginning of a published study's page: the answer, the figure and, if ``whole``, the tables between."""
    folder = STUDIES / name
    where = os.path.relpath(folder, page.parent)
    data, told = published(folder), sections((folder / "report.md").read_text())
    assert data.verdict is not None, "a published study has runs"
    begin = told[""].partition("\n")[2] if whole else data.verdict.answer
    same = [told[SAME_IMAGES]] if whole and SAME_IMAGES in told else []
    parts = [f"**{data.spec.question}**", begin, *same, told[FIGURE], *_cost(folder)]
    parts.append(f"The whole report, with every run behind it: [{where}]({where}/report.md).")
    return "\n\n".join(part.strip() for part in parts).replace("](figures/", f"]({where}/figures/") + "\n"


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


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["add", *studies] if studies:
            for argument in studies:
                add(Path(argument))
        case ["reword"]:
            for path in STUDIES.glob("*/study.json"):
                reword(path.parent)
        case _:
            raise SystemExit(__doc__)
