"""``train`` and ``quickstart``."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from netdepth.commands.answer import Answer, runtime_of
from netdepth.errors import BadInput, NetdepthError, choose
from netdepth.report.text import printable
from netdepth.store import RunDir

if TYPE_CHECKING:
    from netdepth.launch import Outcome

__all__ = ["quickstart", "train"]


def train(args: argparse.Namespace) -> Answer:
    """One run per seed; the table of one, the comparison of several."""
    from netdepth import api, launch, recipes

    if args.seed is not None and args.seeds is not None:
        raise BadInput(f"--seed {args.seed} and --seeds {args.seeds} are both given; use one of them")
    runtime = runtime_of(args, _trackers(args.track))
    if args.wandb_online and "wandb" not in runtime.trackers:
        raise BadInput("--wandb-online needs --track wandb (or --track tensorboard,wandb)")
    seed = recipes.resolve(args.recipe)[1].seed if args.seed is None else args.seed
    name, configs, notes = api.plan(
        args.recipe, seed=seed, seeds=args.seeds, dataset=args.dataset, overrides=args.overrides
    )
    for note in notes:
        print(printable(f"note: {note}"), file=sys.stderr)
    outcomes = launch.launch(name, configs, runtime)
    return _trained(outcomes, several=args.seeds is not None)


def _trackers(text: str) -> tuple[str, ...]:
    from netdepth.trackers import TRACKERS

    if text == "none":
        return ()
    return tuple(dict.fromkeys(choose(name, [*TRACKERS.names(), "none"], "tracker") for name in text.split(",")))


def _trained(outcomes: Sequence[Outcome], several: bool) -> Answer:
    from netdepth import analysis, launch
    from netdepth.report.comparison import print_comparison
    from netdepth.report.plots import learning_curves, learning_curves_many
    from netdepth.report.summary import print_run

    runs = {outcome.seed: RunDir(outcome.path) for outcome in outcomes if outcome.path is not None}
    figures = {outcome.seed: _figure(outcome, learning_curves) for outcome in outcomes if outcome.path is not None}
    launch.settle(outcomes)
    together = analysis.compare(runs.values()) if several and runs else None
    overlay = learning_curves_many(list(runs.values())) if together and any(figures.values()) else None

    def show() -> None:
        if together is not None:
            print_comparison(together)
        for outcome in outcomes:
            if outcome.error is not None:
                print(printable(f"netdepth: error: seed {outcome.seed}: {outcome.error}"), file=sys.stderr)
            elif together is None:
                print_run(runs[outcome.seed], outcome.notes, figures[outcome.seed])
            else:
                for note in outcome.notes:
                    print(printable(f"note: seed {outcome.seed}: {note}"))
            if outcome.status == "diverged":
                print(f"netdepth: warning: seed {outcome.seed} diverged: its loss is not finite", file=sys.stderr)
        if together is not None:
            print(printable(f"run folders: {next(iter(runs.values())).path.parent}"))
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


def _figure(outcome: Outcome, draw: Callable[[RunDir], Path]) -> Path | None:
    """The run is done and saved: a picture that cannot be made is a note."""
    try:
        return draw(RunDir(outcome.path)) if outcome.path is not None else None
    except NetdepthError as error:
        outcome.notes.append(str(error))
        return None


def quickstart(args: argparse.Namespace) -> Answer:
    """The baseline on the digits that come with the package, and what was to be seen."""
    from netdepth import api, launch
    from netdepth.report.summary import print_quickstart

    name, configs, _ = api.plan("baseline-mlp", seed=args.seed or 0, dataset="mnist5k")
    outcomes = launch.launch(name, configs, runtime_of(args))
    answer = _trained(outcomes, several=False)

    def show() -> None:
        answer.show()
        if outcomes[0].path is not None:
            print_quickstart(RunDir(outcomes[0].path), answer.document["runs"][0]["figure"])

    return dataclasses.replace(answer, show=show)
