"""Commands that read a study: ``verdict`` says what it found, ``report`` writes its page."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from netdepth.commands import Answer, say, warn
from netdepth.errors import BadInput, StorageError
from netdepth.runs.folder import runs_root
from netdepth.text import print_table

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
    from netdepth.report.data import read_study
    from netdepth.report.page import write_verdict

    data = read_study(study)
    if data.verdict is None:
        raise BadInput(f"no run of study {data.spec.name!r} has begun; there is nothing to judge in {data.study.path}")
    unwritten = ""
    try:
        write_verdict(data)
    except StorageError as error:
        if brief:
            raise
        unwritten = str(error)  # a study of somebody else's, or of an archive, can still be read
    content = Content(data)

    def show() -> None:
        say(data.spec.question, content.answer.short.text, "")
        say(*(f"{line.name}: {line.said.text}" for line in content.answer.lines))
        _print_grids(content)
        say(*(f"- {sentence.text}" for sentence in content.answer.primary if not brief))
        say(*(f"note: {note.text}" for note in (*content.answer.notes, *content.answer.same_images)))
        _warn(data)
        if brief:
            say(f"each comparison in words and numbers: netdepth verdict {data.study.path}")
        elif unwritten:
            say(f"note: {unwritten}; the verdict is shown and not kept")
        else:
            say(f"written: {data.study.path / 'verdict.json'}, {data.study.path / 'table.csv'}")

    return Answer(data.verdict.as_json(), show)


def report(args: argparse.Namespace) -> Answer:
    """Write the report of a study, or with ``--check`` compare the report on disk with the run folders."""
    from netdepth.report import page
    from netdepth.report.data import read_study
    from netdepth.studies.folder import find_study

    study = find_study(args.study, runs_root(args.runs_root))
    path = (args.out or study.path) / page.HTML
    if args.check:
        faults = page.check_report(study, path)
        word = "does not match the run folders, or a part of it is missing" if faults else "matches the run folders"
        return Answer({"report": path, "faults": faults}, lambda: say(*faults, f"{path} {word}"), int(bool(faults)))
    data = read_study(study)
    try:
        page.write_files(data, args.out)
    except StorageError as error:
        hint = "" if args.out else "; --out DIR writes the report elsewhere"
        raise StorageError(f"{error}{hint}") from None
    missing = [run.row.planned.folder for run in data.missing]

    def show() -> None:
        _warn(data)
        say(f"written: {path} (and report.md, figures, table.csv, verdict.json beside it)")

    return Answer({"report": path, "planned": len(data.runs), "missing": missing}, show)


def _print_grids(content: Content) -> None:
    """Label and number per condition and depth."""
    for grid in content.grids:
        rows = [[line.name, *("" if chip is None else str(chip) for chip in line.chips)] for line in grid.lines]
        print_table(("", *(f"depth {depth}" for depth in grid.depths)), rows, title=grid.caption)


def _warn(data: StudyData) -> None:
    if data.missing:
        count = f"{len(data.missing)} of {len(data.runs)} planned runs have no result"
        warn(f"unfinished: {count}; what is said is preliminary")
