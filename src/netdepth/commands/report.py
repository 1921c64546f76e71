"""``verdict`` says what a study found; ``report`` writes the page of a study or of a run."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from netdepth.commands import Answer, say, warn
from netdepth.errors import BadInput, StorageError, choose_folder
from netdepth.runs.find import find_run
from netdepth.runs.folder import RunDir, list_runs, runs_root
from netdepth.text import count, print_table

if TYPE_CHECKING:
    from netdepth.report.content import Content
    from netdepth.report.data import StudyData
    from netdepth.studies.folder import StudyDir

__all__ = ["judged", "report", "verdict"]


def verdict(args: argparse.Namespace) -> Answer:
    """What the study says, in sentences and tables; writes ``verdict.json`` and ``table.csv``."""
    from netdepth.studies.folder import find_study

    return judged(find_study(args.study, runs_root(args.runs_root)))


def judged(study: StudyDir, brief: bool = False) -> Answer:
    """The verdict of ``study``; ``brief`` leaves out the sentence of each comparison."""
    from netdepth.report.content import Content
    from netdepth.report.data import judge_study
    from netdepth.report.page import write_verdict

    data, unrecorded = judge_study(study)
    if data.verdict is None:
        raise BadInput(f"no run of study {data.spec.name!r} has begun; there is nothing to judge in {data.study.path}")
    unwritten = ""
    try:
        write_verdict(data)
    except StorageError as error:
        if brief:
            raise
        unwritten = str(error)  # a study of somebody else's, or of an archive, can still be read
        unrecorded = ""
    content = Content(data)

    def show() -> None:
        say(data.spec.question, content.answer.short.text, "")
        say(*(f"{line.name}: {line.said.text}" for line in content.answer.lines))
        _print_grids(content)
        say(*(f"- {sentence.text}" for sentence in content.answer.primary if not brief))
        say(*(f"note: {note.text}" for note in (*content.answer.notes, *content.answer.same_images)))
        say(*(f"note: {text}" for text in (unrecorded,) if text))
        _warn(data)
        if brief:
            say(f"each comparison in words and numbers: netdepth verdict {data.study.path}")
        elif unwritten:
            say(f"note: {unwritten}; the verdict is shown and not kept")
        else:
            say(f"written: {data.study.path / 'verdict.json'}, {data.study.path / 'table.csv'}")

    return Answer(data.verdict_json() or {}, show)


def report(args: argparse.Namespace) -> Answer:
    """Write the page of a run or of a study, or with ``--check`` compare that of a study with the run folders."""
    found = _run_or_study(args.name, runs_root(args.runs_root))
    return _run_page(found, args) if isinstance(found, RunDir) else _study_page(found, args)


def _run_or_study(text: str, root: Path) -> RunDir | StudyDir:
    """What ``text`` names: a folder, else the study whose name begins with it, else the run.

    Raises:
        BadInput: nothing, or several things of that kind.
    """
    from netdepth.studies.folder import find_study, list_studies, study_at

    studies, runs = ([one.path.name for one in found] for found in (list_studies(root), list_runs(root)))
    if any(name.startswith(text) for name in studies):
        return find_study(text, root)
    if not any(name.startswith(text) for name in runs) and not any(p.is_dir() for p in (Path(text), root / text)):
        choose_folder(text, [*studies, *runs], root, "run or study", "runs and studies")
    return study_at(text, root) or find_run(text, root)


def _run_page(run: RunDir, args: argparse.Namespace) -> Answer:
    from netdepth.tools.run_page import write_page

    if args.check:
        raise BadInput(f"--check takes a study; {run.path.name} is a run, whose page is made anew without --check")
    made = write_page(run.path, args.out, data_dir=args.data)

    def show() -> None:
        say(*(f"note: {note}" for note in made.notes), f"written: {made.path}")

    return Answer({"report": made.path, "run": run.path, "notes": made.notes}, show)


def _study_page(study: StudyDir, args: argparse.Namespace) -> Answer:
    from netdepth.report import page
    from netdepth.report.data import judge_study

    path = (args.out or study.path) / page.HTML
    if args.check:
        return _checked(study, path)
    data, unrecorded = judge_study(study)
    try:
        page.write_files(data, args.out)
    except StorageError as error:
        hint = "" if args.out else "; --out DIR writes the report elsewhere"
        raise StorageError(f"{error}{hint}") from None
    missing = [run.row.planned.folder for run in data.missing]

    def show() -> None:
        _warn(data)
        say(*(f"note: {text}" for text in (unrecorded,) if text))
        say(f"written: {path} (and report.md, figures, table.csv, verdict.json beside it)")

    return Answer({"report": path, "planned": len(data.runs), "missing": missing}, show)


def _checked(study: StudyDir, path: Path) -> Answer:
    """What ``--check`` finds; exit 1 unless all is sound."""
    from netdepth.report.check import check_report

    began = time.monotonic()
    found = check_report(study, path)
    if not found.page:
        raise BadInput(f"no {path} to check; make it with: netdepth report {study.path.name}")
    seconds = time.monotonic() - began

    def show() -> None:
        say(*found.faults, *(f"note: {note}" for note in found.notes))
        word = (
            "is not sound"
            if found.faults
            else "is sound: it matches the run folders, and they are as the runs left them"
        )
        say(f"{path} {word} ({count(found.runs, 'run')} checked in {seconds:.1f} s)")

    told = {"report": path, "faults": found.faults, "notes": found.notes, "runs": found.runs}
    return Answer(told, show, int(bool(found.faults)))


def _print_grids(content: Content) -> None:
    """Label and number per condition and level."""
    for grid in content.grids:
        rows = [[line.name, *("" if chip is None else str(chip) for chip in line.chips)] for line in grid.lines]
        print_table(("", *grid.places), rows, title=grid.caption)


def _warn(data: StudyData) -> None:
    if data.missing:
        count = f"{len(data.missing)} of {len(data.runs)} planned runs have no result"
        warn(f"unfinished: {count}; what is said is preliminary")
