"""One run: from a config to its finished folder."""

from __future__ import annotations

import functools

from netdepth.config import RunConfig, Runtime
from netdepth.data import Splits
from netdepth.engine.assemble import COMPONENTS, build_model, fingerprint, resolve
from netdepth.engine.cohort import Finished, run_cohort
from netdepth.engine.conduct import Watch
from netdepth.engine.follow import follow
from netdepth.engine.parallel import joined
from netdepth.progress import TrainProgress

__all__ = ["COMPONENTS", "Finished", "build_model", "fingerprint", "resolve", "run"]


def run(
    config: RunConfig,
    runtime: Runtime,
    *,
    name: str,
    study: str = "single",
    quiet: bool = False,
    watch: Watch | None = None,
    splits: Splits | None = None,
) -> Finished:
    """Make the run of ``config``, continue it, or return it if it is there: `run_cohort` with one member.

    Under torchrun all processes make it together. It returns on rank 0; the others end here (SystemExit).
    """
    if watch is None:
        watch = functools.partial(TrainProgress, mode="quiet" if quiet else "auto")
    with joined() as team:
        if team.rank > 0:
            follow(team, config, runtime)
        return run_cohort([config], runtime, name=name, study=study, watch=watch, splits=splits, team=team)[0]
