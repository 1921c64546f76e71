"""The run that a study's cells start from or learn from: made before them, held by the digest of its weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from netdepth.config import Component, RunConfig, Runtime
from netdepth.errors import BadInput, RunFailed
from netdepth.runs.folder import RunDir, runs_root
from netdepth.studyspec import SOURCE, StudySpec

__all__ = ["anchored", "bound", "described", "existing_source", "make_source", "needs_source", "without_source"]


def needs_source(config: RunConfig) -> bool:
    """Whether ``config`` names the source of its study."""
    start = config.start_from
    return (start is not None and start.run == SOURCE) or config.objective.args.get("teacher") == SOURCE


def without_source(config: RunConfig) -> RunConfig:
    """``config`` as it would be if it named no source of its study, which may not be made yet."""
    if not needs_source(config):
        return config
    return dataclasses.replace(config, start_from=None, objective=Component("cross-entropy"))


def bound(config: RunConfig, name: str) -> RunConfig:
    """``config`` with the run called ``name`` where it names its study's source."""
    return _renamed(config, {SOURCE: name})


def anchored(config: RunConfig, root: Path | None) -> RunConfig:
    """``config`` with paths from the runs folder on made absolute, for who works in another runs folder."""
    base = runs_root(root).absolute()
    names = [config.start_from.run if config.start_from else None, config.objective.args.get("teacher")]
    return _renamed(config, {name: str(base / name) for name in names if name is not None})


def _renamed(config: RunConfig, names: Mapping[str, str]) -> RunConfig:
    start, objective = config.start_from, config.objective
    if start is not None and start.run in names:
        start = dataclasses.replace(start, run=names[start.run])
    if objective.args.get("teacher") in names:
        objective = dataclasses.replace(objective, args={**objective.args, "teacher": names[objective.args["teacher"]]})
    return dataclasses.replace(config, start_from=start, objective=objective)


def existing_source(spec: StudySpec, runtime: Runtime) -> str | None:
    """How configs name the finished source of ``spec``; None where it is not made yet, or the study has none."""
    from netdepth import data
    from netdepth.training.run import fingerprint, resolve

    if spec.source is None:
        return None
    config = resolve(spec.source, runtime.device, runtime.runs_root)
    mark = fingerprint(config, data.load(config.dataset, data_dir=runtime.data_dir).spec)
    root = runs_root(runtime.runs_root)
    found = sorted((root / "single").glob(f"*-s{config.seed}-{mark}"))
    return str(found[0].relative_to(root)) if found and RunDir(found[0]).result() is not None else None


def make_source(spec: StudySpec, runtime: Runtime, progress: bool) -> str | None:
    """Make the source of ``spec`` in ``runs/single`` unless it is there; how configs name it (None: it has none).

    Raises:
        RunFailed: it diverged, so that there is nothing to start from; and what any run may raise.
    """
    from netdepth.training.run import run

    name = existing_source(spec, runtime)
    if name is not None or spec.source is None:
        return name
    own = dataclasses.replace(runtime, trackers=(), fresh=False, sealed=False)
    done = run(spec.source, own, name=f"{spec.name}-source", quiet=not progress)
    if done.result["status"] == "diverged":
        raise RunFailed(f"the source run {done.run.path} diverged, so nothing can start from it")
    return str(done.run.path.relative_to(runs_root(runtime.runs_root)))


def described(name: str | None, spec: StudySpec, root: Path | None) -> dict[str, Any] | None:
    """What ``study.json`` keeps of the source: its run, digest, size and errors."""
    if name is None or spec.source is None:
        return None
    run = RunDir(runs_root(root) / name)
    result = run.result()
    if result is None:
        raise BadInput(f"the source run {run.path} is {run.status()}")
    which = result["reported"]
    return {
        "run": name,
        "weights": which,
        "weights_sha256": result["weights_sha256"],
        "num_params": result["num_params"],
        "dataset": spec.source.dataset.name,
        "val_error": 1 - result["val"][which]["accuracy"],
        "test_error": None if result["test"] is None else 1 - result["test"][which]["accuracy"],
    }
