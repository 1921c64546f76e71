"""Several runs, one after another in this process; each has an outcome, also one that fails."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from netdepth.config import RunConfig, Runtime
from netdepth.errors import BadInput, Interrupted, Locked, RunFailed, StorageError
from netdepth.runs.naming import UNCALLED, Called

if TYPE_CHECKING:
    from netdepth.training.run import Finished

__all__ = ["Outcome", "exit_code", "launch", "settle"]

TRACKER_SECONDS = 3.5
"""How long a run that has ended waits for its trackers; with their end this keeps the promise of five seconds."""


@dataclass
class Outcome:
    """How one run ended. ``status`` is the result's, or "failed"; ``exit_code`` 0 if it finished."""

    path: Path | None
    seed: int
    status: str
    error: str | None = None
    exit_code: int = 0
    notes: list[str] = field(default_factory=list)
    finished: Finished | None = None


def launch(
    name: str,
    configs: Sequence[RunConfig],
    runtime: Runtime,
    *,
    study: str = "single",
    progress: bool = True,
    called: Called = UNCALLED,
) -> list[Outcome]:
    """Train the runs of ``configs`` in order. One that fails does not stop the others.

    Trackers may still be at work on return: call `settle` before the process ends.

    Raises:
        BadInput: what is wrong with the first run's input is wrong with all; several runs under torchrun.
        Interrupted: a signal came; everything is saved.
    """
    from netdepth.training.parallel import only_alone
    from netdepth.training.run import run

    if len(configs) > 1:
        only_alone(f"{len(configs)} seeds")
    outcomes: list[Outcome] = []
    for config in configs:
        try:
            finished = run(config, runtime, name=name, study=study, quiet=not progress, called=called)
        except Interrupted:
            settle(outcomes)
            raise
        except BadInput as error:
            if not outcomes:
                raise
            outcomes.append(Outcome(None, config.seed, "failed", str(error), error.exit_code))
        except (Locked, StorageError, RunFailed) as error:
            outcomes.append(Outcome(error.path, config.seed, "failed", str(error), error.exit_code))
        else:
            outcomes.append(
                Outcome(finished.run.path, config.seed, finished.result["status"], None, 0, finished.notes, finished)
            )
        settle(outcomes[:-1])
    return outcomes


def settle(outcomes: Sequence[Outcome]) -> None:
    """Wait for the trackers of ``outcomes``; add their notes.

    The time counts from here and not from the last training step: they work while figures are drawn or the next seed
    is trained, and on a busy machine a short run would be over before its trackers have begun.
    """
    deadline = time.monotonic() + TRACKER_SECONDS
    for outcome in outcomes:
        finished = outcome.finished
        if finished is not None and finished.mirrors is not None:
            outcome.notes += finished.mirrors.finish(deadline)
            finished.mirrors = None


def exit_code(outcomes: Sequence[Outcome]) -> int:
    """0 if every run finished, a single failure's own code, else 1."""
    codes = {outcome.exit_code for outcome in outcomes}
    if len(outcomes) == 1:
        return outcomes[0].exit_code
    return 1 if codes - {0} else 0
