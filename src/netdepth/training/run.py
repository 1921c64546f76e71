"""One run: from a config to its finished folder, in this process or in all that torchrun started."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Iterator
from datetime import timedelta

from netdepth.config import RunConfig, Runtime
from netdepth.data import Splits
from netdepth.progress import TrainProgress
from netdepth.training.cohort import Finished, run_cohort
from netdepth.training.follow import Follower
from netdepth.training.lead import Leader
from netdepth.training.loop import Watch
from netdepth.training.parallel import ALONE, PATIENCE, Team, rank, world_size
from netdepth.training.resolve import COMPONENTS, build_model, fingerprint, resolve
from netdepth.training.signals import signals_as_errors, signals_ignored

__all__ = ["COMPONENTS", "Finished", "build_model", "fingerprint", "joined", "resolve", "run"]

FOREVER = timedelta(days=100)
"""Followers wait for the next step as long as rank 0 evaluates and writes."""
_joins = itertools.count()


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
        watch = functools.partial(TrainProgress, shown=not quiet)
    with joined() as team:
        if isinstance(team, Follower):
            team.follow(config, runtime)
        return run_cohort([config], runtime, name=name, study=study, watch=watch, splits=splits, team=team)[0]


@contextlib.contextmanager
def joined() -> Iterator[Team]:
    """The team of this process, from its meeting to its parting.

    Raises:
        RankLost: another process of it is gone or cannot go on.
    """
    if world_size() == 1:
        yield ALONE
        return
    from torch import distributed
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    me, world = rank(), world_size()
    store = next(rendezvous("env://", rank=me, world_size=world))[0]
    store = PrefixStore(f"netdepth/{next(_joins)}", store)
    # Until all have met nothing is there to save, and nobody hears a signal while waiting for the others.
    distributed.init_process_group("gloo", store=store, rank=me, world_size=world, timeout=FOREVER if me else PATIENCE)
    team = Follower(me, world, store) if me else Leader(me, world, store)
    with team.listening() if isinstance(team, Follower) else signals_as_errors():
        try:
            yield team
        except BaseException as error:
            with signals_ignored():
                ended = team.part(error)
            if ended is error or ended is None:
                raise
            raise ended from None
        else:
            team.part(None)
