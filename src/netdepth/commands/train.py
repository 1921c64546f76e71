"""``train``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from netdepth.commands import Answer, overrides_of, runtime_of, say, trackers_of, warn
from netdepth.errors import BadInput
from netdepth.runs.folder import RunDir
from netdepth.text import printable

if TYPE_CHECKING:
    from netdepth.api import Trained
    from netdepth.runs.compare import Comparison

__all__ = ["train", "trained"]


def train(args: argparse.Namespace) -> Answer:
    """One run per seed; the table of one, the comparison of several."""
    from netdepth import api

    if args.seed is not None and args.seeds is not None:
        raise BadInput(f"--seed {args.seed} and --seeds {args.seeds} are both given; use one of them")
    runtime = runtime_of(args, trackers_of(args))
    made = api.train_runs(
        args.recipe,
        runtime,
        run_name=args.name,
        seed=args.seed,
        seeds=args.seeds,
        dataset=args.dataset,
        overrides=overrides_of(args),
    )
    return trained(made, several=args.seeds is not None)


def trained(made: Trained, several: bool) -> Answer:
    """The answer about finished runs: the table of one, the comparison of several, and their pictures."""
    from netdepth.training.launch import exit_code

    outcomes, runs, figures = made.outcomes, made.runs, made.figures
    together, overlay = _compared(made) if several and runs else (None, None)
    for outcome in outcomes:
        if outcome.error is not None:
            print(printable(f"netdepth: error: seed {outcome.seed}: {outcome.error}"), file=sys.stderr)
        elif outcome.status == "diverged":
            warn(f"seed {outcome.seed} diverged: its loss is not finite")

    def show() -> None:
        if together is None:
            from netdepth.report.run_text import print_run

            for outcome in outcomes:
                if outcome.path is not None and outcome.error is None:
                    print_run(RunDir(outcome.path), outcome.notes, figures[outcome.seed])
            return
        from netdepth.report.run_text import print_comparison

        print_comparison(together)
        for warning in together.warnings:
            warn(warning)
        about = [row.split.note for group in together.groups for row in group.rows if row.split and row.split.note]
        say(*(f"note: {note}" for note in dict.fromkeys(about)))
        if len(runs) < len(outcomes):
            print(f"{len(outcomes) - len(runs)} of {len(outcomes)} seeds failed and are not in this table")
        say(*(f"note: seed {outcome.seed}: {note}" for outcome in outcomes for note in outcome.notes))
        say(f"run folders: {next(iter(runs.values())).path.parent}")
        if overlay is not None:
            say(f"learning curves: {overlay}")

    document = {
        "runs": [
            {
                **{key: getattr(outcome, key) for key in ("seed", "status", "error", "exit_code", "notes", "path")},
                "figure": figures.get(outcome.seed),
                "result": runs[outcome.seed].result() if outcome.seed in runs else None,
            }
            for outcome in outcomes
        ],
        "comparison": together and together.as_json(),
        "figure": overlay,
    }
    return Answer(document, show, exit_code(outcomes))


def _compared(made: Trained) -> tuple[Comparison, Path | None]:
    """The runs side by side, and the picture of their learning curves together."""
    from netdepth.report.learning_curves import learning_curves_many
    from netdepth.runs.compare import compare

    runs = list(made.runs.values())
    return compare(runs), made.picture(lambda: learning_curves_many(runs))
