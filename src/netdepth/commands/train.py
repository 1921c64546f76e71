"""``train``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from netdepth.commands.answer import Answer, runtime_of
from netdepth.errors import BadInput, NetdepthError, choose
from netdepth.runs.folder import RunDir
from netdepth.text import printable

if TYPE_CHECKING:
    from netdepth.training.launch import Outcome

__all__ = ["train", "trained"]

T = TypeVar("T")


def train(args: argparse.Namespace) -> Answer:
    """One run per seed; the table of one, the comparison of several."""
    from netdepth import api
    from netdepth.training import launch
    from netdepth.training.run import resolve

    if args.seed is not None and args.seeds is not None:
        raise BadInput(f"--seed {args.seed} and --seeds {args.seeds} are both given; use one of them")
    runtime = runtime_of(args, _trackers(args.track))
    if args.wandb_online and "wandb" not in runtime.trackers:
        raise BadInput("--wandb-online needs --track wandb (or --track tensorboard,wandb)")
    name, configs, notes = api.plan(
        args.recipe, seed=args.seed, seeds=args.seeds, dataset=args.dataset, overrides=args.overrides
    )
    resolve(configs[0], runtime.device, runtime.runs_root)  # bad input is answered before anything is announced
    for note in notes:
        print(printable(f"note: {note}"), file=sys.stderr)
    outcomes = launch.launch(name, configs, runtime)
    return trained(outcomes, several=args.seeds is not None)


def _trackers(text: str) -> tuple[str, ...]:
    from netdepth.trackers import TRACKERS

    if text == "none":
        return ()
    return tuple(dict.fromkeys(choose(name, [*TRACKERS.names(), "none"], "tracker") for name in text.split(",")))


def trained(outcomes: Sequence[Outcome], several: bool) -> Answer:
    """The answer about finished runs: the table of one, the comparison of several, and their pictures."""
    from netdepth.report.comparison import print_comparison
    from netdepth.report.learning_curves import learning_curves, learning_curves_many
    from netdepth.report.summary import print_run
    from netdepth.runs.compare import compare
    from netdepth.training import launch

    runs = {outcome.seed: RunDir(outcome.path) for outcome in outcomes if outcome.path is not None}
    figures = {seed: _figure(learning_curves, run, outcomes) for seed, run in runs.items()}
    launch.settle(outcomes)
    together = compare(runs.values()) if several and runs else None
    overlay = _figure(learning_curves_many, list(runs.values()), outcomes) if together else None
    for outcome in outcomes:
        if outcome.error is not None:
            print(printable(f"netdepth: error: seed {outcome.seed}: {outcome.error}"), file=sys.stderr)
        elif outcome.status == "diverged":
            print(f"netdepth: warning: seed {outcome.seed} diverged: its loss is not finite", file=sys.stderr)

    def show() -> None:
        if together is None:
            for outcome in outcomes:
                if outcome.path is not None and outcome.error is None:
                    print_run(RunDir(outcome.path), outcome.notes, figures[outcome.seed])
            return
        print_comparison(together)
        if len(runs) < len(outcomes):
            print(f"{len(outcomes) - len(runs)} of {len(outcomes)} seeds failed and are not in this table")
        for outcome in outcomes:
            for note in outcome.notes:
                print(printable(f"note: seed {outcome.seed}: {note}"))
        print(printable(f"run folders: {next(iter(runs.values())).path.parent}"))
        if overlay is not None:
            print(printable(f"learning curves: {overlay}"))

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
    return Answer(document, show, launch.exit_code(outcomes))


def _figure(draw: Callable[[T], Path], what: T, outcomes: Sequence[Outcome]) -> Path | None:
    """A picture of runs that are done and saved: one that cannot be made is a note."""
    try:
        return draw(what)
    except NetdepthError as error:
        outcomes[-1].notes.append(f"no figure: {error}")
        return None
