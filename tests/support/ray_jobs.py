"""Jobs for the tests of Ray: a few seeds of a small MLP on the embedded digits, as a worker takes them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from netdepth import data
from netdepth.config import Component, RunConfig, Runtime, TrainConfig
from netdepth.studies.pool import execute_here
from netdepth.studies.worker import Done, Event, Job
from netdepth.training.launch import Outcome


def jobs_in(root: Path, config: RunConfig, count: int, imports: Sequence[str] = ()) -> list[Job]:
    """``count`` groups of one seed each for the study ``root/tiny``, as a worker takes them."""
    from netdepth.training.resolve import fill_in, fingerprint

    config = fill_in(config)
    mark = fingerprint(config, data.load(config.dataset, data_dir=None).spec)
    runtime = Runtime(runs_root=root, device="cpu", threads=1, imports=tuple(imports))
    study = root / "tiny"
    study.mkdir(parents=True, exist_ok=True)
    made = []
    for seed in range(count):
        folder = f"tiny-mnist5k-s{seed}-{mark}"
        made.append(Job(seed, "tiny", study.name, config, mark, (seed,), (folder,), runtime))
    return made


def small(epochs: int) -> RunConfig:
    return RunConfig(
        dataset=Component("mnist5k"),
        model=Component("mlp", {"hidden": [16, 16]}),
        train=TrainConfig(budget=f"{epochs}ep", batch_size=64),
    )


def digests(outcomes: Sequence[Outcome]) -> dict[int, str]:
    """Seed -> sha256 of the weights of its finished run."""
    assert [o.error for o in outcomes] == [None] * len(outcomes)
    return {o.seed: json.loads((Path(str(o.path)) / "result.json").read_text())["weights_sha256"] for o in outcomes}


def outcomes_of(events: Sequence[Event]) -> list[Outcome]:
    return [outcome for event in events if isinstance(event, Done) for outcome in event.outcomes]


def made_here(root: Path, config: RunConfig, count: int, imports: Sequence[str] = ()) -> dict[int, str]:
    events: list[Event] = []
    execute_here(jobs_in(root, config, count, imports), events.append)
    return digests(outcomes_of(events))
