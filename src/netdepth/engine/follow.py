"""What the ranks behind rank 0 do (`engine.parallel`): gradients of their share of every batch, and nothing else."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor

from netdepth import data
from netdepth.config import RunConfig, Runtime, derive_seed
from netdepth.engine.assemble import build_model, fingerprint, resolve
from netdepth.engine.conduct import laid_out
from netdepth.engine.gradients import choose_gradients
from netdepth.engine.objectives import OBJECTIVES
from netdepth.engine.parallel import END, Team
from netdepth.engine.process import configure
from netdepth.errors import BadInput

__all__ = ["follow"]


def follow(team: Team, config: RunConfig, runtime: Runtime) -> NoReturn:
    """Serve rank 0, which makes the run of ``config``, until it has enough.

    Raises:
        SystemExit: always, at the end: what comes after the training is for rank 0 alone.
        BadInput: this process would train something else.
        RankLost: rank 0 is gone.
    """
    given = team.begun()
    if given is not None:
        _serve(team, config, runtime, given)
    raise SystemExit(0)


def _serve(team: Team, config: RunConfig, runtime: Runtime, given: dict[str, Any]) -> None:
    process = configure(runtime, recorded=given["environment"], team=team)
    config = resolve(config, runtime.device)
    splits = data.load(config.dataset, data_dir=runtime.data_dir)  # rank 0 has loaded them: they are in the cache
    mark = fingerprint(config, splits.spec)
    if mark != given["fingerprint"]:
        raise BadInput(
            f"it has the fingerprint {mark}, not rank 0's {given['fingerprint']}: its options, data or files are others"
        )
    stack, batches = laid_out(config, [build_model(config, splits, team.world)], process, splits, [config.seed])
    gradients = choose_gradients(stack, OBJECTIVES.build(config.objective))
    stack.models[0].train()
    team.ready(process.device)
    ahead: dict[int, tuple[Tensor, ...]] = {}
    while (step := team.next_order()) != END:
        images, labels = ahead.pop(step) if step in ahead else batches(step)
        torch.manual_seed(derive_seed(config.seed, "dropout", step, team.rank))  # its own masks for its own images
        team.exchange(gradients, stack, images, labels, batches.size(step))
        ahead = {step + 1: batches(step + 1)}  # gathered while rank 0 updates the weights
