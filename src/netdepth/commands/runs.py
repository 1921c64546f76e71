"""Commands that read and look after run folders: ``compare``, ``runs``, ``sync``."""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from netdepth.commands import Answer, say, warn
from netdepth.errors import BadInput, NetdepthError
from netdepth.runs.find import find_runs
from netdepth.runs.folder import RunDir, folder_size, list_runs, runs_root
from netdepth.studies.folder import StudyDir, label_of_run, study_at
from netdepth.text import count, listed, printable, size

__all__ = ["compare", "runs_gc", "runs_list", "runs_rm", "sync"]


SHOWN = 5
"""Paths that a message names."""
RUN_KEYS = ("status", "error", "recipe", "dataset", "seed", "epochs", "test_best_accuracy", "fingerprint", "name")
"""What ``runs list --json`` says of a run, beside its place and size."""


def compare(args: argparse.Namespace) -> Answer:
    """Run folders side by side, or whole studies."""
    from netdepth.report.run_text import print_comparison, render
    from netdepth.runs.compare import compare as compare_runs

    named = _named(args.runs, runs_root(args.runs_root))
    studies = [one for one in named.values() if isinstance(one, StudyDir)]
    if studies:
        other = next((text for text, one in named.items() if not isinstance(one, StudyDir)), None)
        if other is not None:
            raise BadInput(
                f"{other!r} is no study's folder, but others are; compare studies with studies, runs with runs"
            )
        return _compare_studies(args, studies)
    if args.seeds_from is not None:
        raise BadInput("--seeds-from takes studies: it compares their seeds with those that were agreed")
    if args.html is not None:
        raise BadInput("--html takes studies; the page of one run is written by: netdepth report RUN")
    made = compare_runs([run for one in named.values() if isinstance(one, list) for run in one], label_of_run)

    def show() -> None:
        if args.style is None:
            print_comparison(made, flat=args.flat)
        else:
            print(render(made, args.style, flat=args.flat), end="")
        for warning in made.warnings:
            warn(warning)

    return Answer(made.as_json(), show)


def _named(texts: Sequence[str], root: Path) -> dict[str, StudyDir | list[RunDir]]:
    """The study or the runs that each text names; files and folders that are neither are passed over, with a warning,
    since ``compare class/*/*`` names all that lies there."""
    named: dict[str, StudyDir | list[RunDir]] = {}
    stray: list[str] = []
    for text in texts:
        try:
            named[text] = study_at(text, root) or find_runs(text, root)
        except BadInput:
            if not os.path.exists(text):
                raise
            stray.append(text)
    if not named:
        raise BadInput(f"{listed(stray, most=SHOWN)} {'is' if len(stray) == 1 else 'are'} neither a run nor a study")
    if stray:
        warn(f"passed over, being neither a run nor a study: {listed(stray, most=SHOWN)}")
    return named


def _compare_studies(args: argparse.Namespace, studies: Sequence[StudyDir]) -> Answer:
    """One line per study, as an instructor compares submissions; with ``--html`` a page too."""
    from netdepth.files.atomic import write_atomic
    from netdepth.report.submissions import page, print_submissions, read_agreed, read_submissions, render

    made = read_submissions(studies, None if args.seeds_from is None else read_agreed(args.seeds_from))
    text = None if args.style is None else render(made, args.style)
    if args.html is not None:
        write_atomic(args.html, page(made).encode())

    def show() -> None:
        if text is None:
            print_submissions(made)
        else:
            print(text, end="")
        for warning in made.warnings:
            warn(warning)
        if args.html is not None:
            print(printable(f"written: {args.html}"), file=sys.stderr)

    return Answer(made.as_json(), show)


def runs_list(args: argparse.Namespace) -> Answer:
    """One line per configuration, or per run; filtered, sorted, the best of them."""
    from netdepth.report.run_text import cell_of, print_listing
    from netdepth.runs.listing import configurations, records

    root = runs_root(args.runs_root)
    found = configurations(root, sort=args.sort, filters=args.filters, best=args.best, flat=args.flat)
    columns, rows = records(found)
    runs = [run for one in found for run in one.runs]
    used = sum(run.size for run in runs)

    def show() -> None:
        if args.csv:
            writer = csv.DictWriter(sys.stdout, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows({key: cell_of(value) for key, value in row.items()} for row in rows)
            return
        print_listing(found)
        say(f"{count(len(found), 'configuration')}, {count(len(runs), 'run')} in {root}, {size(used)}")

    told = [
        {
            "run": run.path.name,
            "folder": run.path,
            "bytes": run.size,
            **{name: getattr(run.kept, name) for name in RUN_KEYS},
        }
        for run in runs
    ]
    return Answer({"root": root, "runs": told, "configurations": rows, "bytes": used}, show)


def runs_rm(args: argparse.Namespace) -> Answer:
    """Remove runs, the seeds of a configuration, or studies, after a question."""
    from netdepth.studies.removal import removable, remove_all

    root = runs_root(args.runs_root)
    chosen = list({one.places: one for one in (removable(text, root) for text in args.runs)}.values())
    runs = {run.path.resolve(): run for one in chosen for run in one.runs}
    if not args.yes:
        if args.json or not sys.stdin.isatty():
            raise BadInput(
                "runs rm asks before it removes anything, and nobody can answer here; see netdepth runs rm --help"
            )
        for one in chosen:
            if one.study is not None:
                say(f"study {one.study.path}  {count(len(one.runs), 'run')}  {size(one.size)}")
                continue
            say(*(f"{run.path}  {size(folder_size(run.path))}  {run.status()}" for run in one.runs))
        studies = sum(one.study is not None for one in chosen)
        what = f"{count(studies, 'study').replace('studys', 'studies')} with " if studies else ""
        if input(f"Remove {what}{count(len(runs), 'run folder')}? [y/N] ").strip().lower() not in ("y", "yes"):
            return Answer({"removed": [], "bytes": 0, "left": []}, lambda: print("nothing removed"))
    removed, freed, left = remove_all(chosen, root)

    def show() -> None:
        print(f"{len(removed)} removed, {size(freed)} freed")
        say(*(f"not netdepth's own, left where it is: {path}" for path in left))

    return Answer({"removed": removed, "bytes": freed, "left": left}, show)


def runs_gc(args: argparse.Namespace) -> Answer:
    """Drop the optimizer states of finished runs."""
    from netdepth.runs.folder import drop_optimizer_states

    freed: dict[str, int] = {}
    skipped: dict[str, str] = {}
    for run in list_runs(runs_root(args.runs_root)):
        try:
            freed[str(run.path)] = drop_optimizer_states(run)
        except NetdepthError as error:  # one that is busy or damaged does not keep the others
            skipped[str(run.path)] = str(error)

    def show() -> None:
        say(*(f"{path}: {size(count)} freed" for path, count in freed.items() if count))
        say(*(f"skipped: {reason}" for reason in skipped.values()))
        print(f"{size(sum(freed.values()))} freed in {sum(count > 0 for count in freed.values())} runs")

    return Answer({"freed": freed, "skipped": skipped, "bytes": sum(freed.values())}, show)


def sync(args: argparse.Namespace) -> Answer:
    """Rebuild mirrors from run folders alone."""
    from netdepth import api

    made: list[Path] = []
    for run in args.runs:
        found = api.sync(run, to=args.to, runs_dir=args.runs_root, wandb_online=args.wandb_online, imports=args.imports)
        made += found if isinstance(found, list) else [found]
    return Answer({"to": args.to, "folders": made}, lambda: say(*made))
