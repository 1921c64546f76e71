"""``quickstart``, and ``study``: every missing run of a study, then its table, verdict and report."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from netdepth.commands import Answer, overrides_of, runtime_of, say, trackers_of, warn
from netdepth.commands.report import judged
from netdepth.commands.train import trained
from netdepth.config import Runtime, to_json
from netdepth.errors import BadInput
from netdepth.studyspec import level_json
from netdepth.text import count, duration, listed, plain, print_table, printable, thousands

if TYPE_CHECKING:
    from netdepth.studies.forecast import Forecast
    from netdepth.studies.run import StudyOutcome
    from netdepth.studyspec import StudySpec

__all__ = ["quickstart", "study"]

TOLD = ("seed", "path", "status", "error", "exit_code", "notes")
"""What ``--json`` says of the outcome of each run."""

BASELINE, STUDY, DATASET = "baseline-mlp", "depth-mlp5k", "mnist5k"


def study(args: argparse.Namespace) -> Answer:
    """Run a study, or say what it would cost."""
    if args.replay is not None:
        return _replay(args)
    if args.replay_seed is not None:
        raise BadInput(f"--replay-seed {args.replay_seed} chooses runs to train again; say how many: --replay 3")
    from netdepth import api
    from netdepth.studies.run import run_study

    if args.threads not in (None, 1):
        raise BadInput(f"--threads {args.threads}: a study has one thread per process; use --workers {args.threads}")
    spec, runtime = api.prepared(
        args.recipe,
        runtime_of(args, trackers_of(args)),
        seeds=args.seeds,
        depths=args.depths,
        levels=args.levels,
        dataset=args.dataset,
        overrides=overrides_of(args),
        tune=args.tune,
        source=args.source,
        max_looks=args.max_looks,
    )
    if args.dry_run:
        return _dry_run(spec, runtime, args.workers)
    done = run_study(spec, runtime, workers=args.workers, ray=args.ray)
    return answer_of(done, report=not args.no_report)[0]


def _replay(args: argparse.Namespace) -> Answer:
    """Train a few finished runs again, and compare: 1 if one differs."""
    kept = ("recipe", "replay", "replay_seed", "source", "workers", "device", "data", "runs_root", "imports", "json")
    for name, value in vars(args).items():
        if name not in (*kept, "command", "parser") and value != args.parser.get_default(name):
            option = {"overrides": "set"}.get(name, name.replace("_", "-"))
            raise BadInput(f"--{option} cannot be given with --replay, which trains runs as they were trained")
    from netdepth.studies.replay import draw_seed, replay

    seed = draw_seed() if args.replay_seed is None else args.replay_seed
    print(f"note: --replay-seed {seed} chooses the same runs again", file=sys.stderr)
    done = replay(args.recipe, args.replay, runtime_of(args), seed=seed, source=args.source, workers=args.workers)

    def show() -> None:
        chosen = [run for run in done.runs if run.chosen]
        beside = [run for run in done.runs if not run.chosen]
        known = {run.why for run in chosen}
        say(*chosen, *(run for run in beside if run.finding == "differs" and run.why not in known))
        kinds = {run.finding: len([one for one in beside if one.finding == run.finding]) for run in beside}
        if beside:
            each = listed([f"{number} {kind}" for kind, number in kinds.items()])
            say(f"trained with them and compared, too: {count(len(beside), 'run')} ({each})")
        unfinished = done.planned - done.finished
        lost = f"; {unfinished} without a result cannot be chosen" if unfinished else ""
        again = sum(run.folder is not None for run in chosen)
        say(f"{again} of {done.finished} finished runs of {done.of} trained again in {done.folder}{lost}")

    document = {
        "of": done.of,
        "folder": done.folder,
        "replay_seed": done.seed,
        "finished": done.finished,
        "planned": done.planned,
        "runs": [to_json(run) for run in done.runs],
    }
    return Answer(document, show, done.code)


def answer_of(done: StudyOutcome, report: bool) -> tuple[Answer, Path | None]:
    """The answer about a study: what failed, the verdict, and where the report is; and the report, if there is one."""
    from netdepth.report.page import write_report

    for outcome in done.failed:
        print(printable(f"netdepth: error: {outcome.path}: {outcome.error}"), file=sys.stderr)
    diverged = [outcome for outcome in done.outcomes if outcome.status == "diverged"]
    if diverged:
        which = f"{len(diverged)} of {len(done.outcomes)} runs diverged: their loss is not finite"
        warn(which)
    finished = len(done.outcomes) - len(done.failed)
    page = write_report(done.study) if report and finished else None
    found = judged(done.study, brief=True) if finished else None

    def show() -> None:
        if found is not None:
            found.show()
        say(f"{finished} of {len(done.outcomes)} runs finished ({done.made} trained now): {done.study.path}")
        if page is not None:
            say(f"report: {page}")
        say(*(f"note: {note}" for note in done.notes))

    document = {
        "study": done.study.path,
        "runs": [{name: getattr(outcome, name) for name in TOLD} for outcome in done.outcomes],
        "made": done.made,
        "failed": len(done.failed),
        "diverged": len(diverged),
        "report": page,
        "verdict": found and found.document,
        "notes": done.notes,
    }
    return Answer(document, show, 1 if done.failed else 0), page


def _dry_run(spec: StudySpec, runtime: Runtime, workers: int | None) -> Answer:
    from netdepth.studies.forecast import forecast

    ahead = forecast(spec, runtime, workers=workers)
    rows = [row for name in ahead.phases for row in _rows(ahead, name)]
    missing = sum(row.missing for row in rows)
    runs = sum(row.runs for row in rows)

    factor = spec.factor_name or "level"

    def show() -> None:
        print_table(
            (
                "phase", "condition", factor, "runs", "to train", "how", "parameters", "multiply-adds a step", "steps",
                "in all",
            ),
            [
                [
                    row.phase, spec.label_of(row.condition), row.level, row.runs, row.missing, row.how,
                    thousands(row.parameters), plain(row.multiply_adds_per_step, 3), thousands(row.steps),
                    plain(row.operations, 3),
                ]
                for row in rows
            ],
            right=(2, 3, 4, 6, 7, 8, 9),
            spare=(7, 8, 5, 6),
        )  # fmt: skip
        operations = f"{plain(ahead.operations, 3)} multiply-adds (forward and backward)"
        print(f"{runs} runs, {missing} of them to train: {operations}")
        say(f"study folder: {ahead.path}")
        if ahead.seconds is None:
            print("nothing is missing")
        else:
            processes = f"{ahead.workers} process{'es' * (ahead.workers > 1)}"
            print(f"about {duration(ahead.seconds)} with {processes} (from a calibration of two seconds)")

    document = {
        "study": ahead.path,
        "seeds": list(ahead.spec.seeds),
        "cells": [level_json(to_json(row), spec.factor) for row in rows],
        "runs": runs,
        "missing": missing,
        "operations": ahead.operations,
        "workers": ahead.workers,
        "about_seconds": ahead.seconds,
        "groups": {
            name: [level_json(group, spec.factor) for group in to_json(phase.plan)["groups"]]
            for name, phase in ahead.phases.items()
        },
    }
    return Answer(document, show)


@dataclass(frozen=True)
class _Row:
    """One cell of a study in its forecast; ``operations`` are multiply-adds of all its runs, ``missing`` or not."""

    phase: str
    condition: str
    level: str
    runs: int
    missing: int
    how: str
    parameters: int
    multiply_adds_per_step: int
    steps: int
    operations: int


def _rows(ahead: Forecast, name: str) -> list[_Row]:
    """A row per cell of the phase ``name``, in the order of the grid."""
    phase, rows = ahead.phases[name], []
    for key, cell in phase.cells.items():
        groups = [group for group in phase.plan.groups if (group.condition, group.level, group.value) == key]
        stacks = [str(len(group.seeds)) for group in groups if group.kind == "cohort"]
        alone = [f"{count(len(groups) - len(stacks), 'seed')} one by one"] if len(stacks) < len(groups) else []
        rows.append(
            _Row(
                phase=name if cell.value is None else f"{name} {plain(cell.value)}",
                condition=cell.cell.condition,
                level=cell.cell.level,
                runs=sum(len(group.seeds) for group in groups),
                missing=sum(folder in ahead.unfinished[name] for group in groups for folder in phase.folders(group)),
                how=", ".join([f"{' + '.join(stacks)} seeds together"] * bool(stacks) + alone),
                parameters=cell.parameters,
                multiply_adds_per_step=cell.multiply_adds,
                steps=cell.steps,
                operations=sum(group.operations for group in groups),
            )
        )
    return rows


def quickstart(args: argparse.Namespace) -> Answer:
    """Train one network, then run a study of seventy networks on whether depth helps, and write its report."""
    from netdepth import api
    from netdepth.report.run_text import print_next, print_quickstart
    from netdepth.studies.ask import ask
    from netdepth.studies.run import run_study

    runtime = runtime_of(args)
    print("1 of 2: one network on 3,000 digits", file=sys.stderr)
    made = api.train_runs(BASELINE, runtime, seed=args.seed or 0, dataset=DATASET)
    baseline = trained(made, several=False)
    if baseline.code:
        return baseline
    print("2 of 2: seventy networks of 2 to 32 layers, plain and residual", file=sys.stderr)
    spec, _ = ask(STUDY)
    study, page = answer_of(run_study(spec, runtime), report=True)

    def show() -> None:
        baseline.show()
        for seed, run in made.runs.items():
            print_quickstart(run, made.figures[seed])
        print()
        study.show()
        print_next(page, STUDY)

    return Answer({"baseline": baseline.document, "study": study.document}, show, study.code)
