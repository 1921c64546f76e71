"""From configs to finished run folders: several seeds of a config as one stack, or one alone."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from netdepth import data, models
from netdepth.config import RunConfig, Runtime, to_json
from netdepth.errors import BadInput, Interrupted, NetdepthError, RunFailed, StorageError
from netdepth.progress import TrainProgress
from netdepth.runs.folder import RunDir, runs_root
from netdepth.trackers.mirror import Mirrors
from netdepth.training.loop import Watch, conduct
from netdepth.training.objectives import OBJECTIVES, Distillation
from netdepth.training.parallel import ALONE, Team
from netdepth.training.process import configure, environment
from netdepth.training.replica import Member
from netdepth.training.resolve import build_model, fingerprint, resolve, stackable
from netdepth.training.signals import signals_as_errors
from netdepth.training.teacher import teach

__all__ = ["Finished", "run_cohort", "stackable"]


@dataclass
class Finished:
    """A finished run: its folder, its result, what the user should be told, its mirrors."""

    run: RunDir
    result: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    mirrors: Mirrors | None = None
    """Trackers still at work; call ``mirrors.finish(deadline)`` before the process ends."""
    trained_until: float = 0.0
    """``time.monotonic()`` after the last training step."""
    cached: bool = False
    """Nothing was computed: the folder held the result already."""


def run_cohort(
    configs: Sequence[RunConfig],
    runtime: Runtime,
    *,
    name: str,
    study: str,
    watch: Watch = TrainProgress,
    splits: data.Splits | None = None,
    team: Team = ALONE,
) -> list[Finished]:
    """Make the runs of ``configs``, which differ in their seeds alone, as one stack (a cohort).

    Their folders are those of runs made alone, except that ``environment.json`` names the stack.
    What is there is continued: all from the newest step at which each has a sound checkpoint;
    members that are finished ride along as dead lanes, since the stack's size changes bits. Their
    data set is loaded unless its ``splits`` are given. With a ``team`` this is rank 0 of a data parallel run, which
    has one config.

    Raises:
        BadInput: a bad config, data set or environment.
        Locked: another process works in one of the folders.
        StorageError: the disk is full or fails.
        RunFailed: anything else that stopped them; the reason stands in each ``failure.json``.
        Interrupted: a signal came; everything is saved.
    """
    configs = [resolve(config, runtime.device, runtime.runs_root) for config in configs]
    config = configs[0]
    if any(other.with_seed(config.seed) != config for other in configs) or len({c.seed for c in configs}) < len(
        configs
    ):
        raise BadInput("a cohort takes configs that differ in their seeds, and in nothing else")
    splits = splits or data.load(config.dataset, data_dir=runtime.data_dir)
    if len(splits.val) == 0 and (config.train.early_stopping or config.train.overfitting):
        raise BadInput(
            "train.early_stopping and train.overfitting watch the validation loss, and dataset.val_size = 0 leaves no "
            "validation images; set both to null, or val_size to 1 or more"
        )
    if runtime.sealed:
        splits, study = dataclasses.replace(splits, test=None), "tuning" if study == "single" else study
    mark = fingerprint(config, splits.spec)
    root, label = runs_root(runtime.runs_root) / study, f"{name}-{config.dataset.name}"
    folders = [RunDir.create(root, label, c.seed, mark) for c in configs]
    with contextlib.ExitStack() as held:
        for folder in folders:
            held.enter_context(folder.lock())
        held.enter_context(signals_as_errors())
        members = [Member(lane, c, folder) for lane, (c, folder) in enumerate(zip(configs, folders, strict=True))]
        for member in members:
            if runtime.fresh:
                member.folder.clear()
            member.result = member.folder.result()
            if member.result is not None:  # it finished all the same where only the last sync of its result failed
                with contextlib.suppress(OSError):
                    (member.folder.path / "failure.json").unlink(missing_ok=True)
        made_before = [member.result is not None for member in members]
        missing = [member for member in members if member.result is None]
        trained_until = 0.0
        mirrors: dict[int, Mirrors] = {}
        try:
            if missing:
                mirrors, trained_until = _train(config, runtime, splits, members, name, mark, watch, team)
        except (BadInput, Interrupted):
            raise
        except Exception as error:
            raise _failed(missing, error) from None
    finished = []
    for member, cached in zip(members, made_before, strict=True):
        assert member.result is not None
        notes = list(member.folder.notes)
        if cached:
            notes = [*_version_notes(member.folder), f"already finished: {member.folder.path}"]
        mirror = mirrors.get(member.lane)
        finished.append(Finished(member.folder, member.result, notes, mirror, trained_until, cached))
    return finished


def _train(
    config: RunConfig,
    runtime: Runtime,
    splits: data.Splits,
    members: Sequence[Member],
    name: str,
    mark: str,
    watch: Watch,
    team: Team,
) -> tuple[dict[int, Mirrors], float]:
    """Write what a folder begins with, then `conduct`; the trackers by lane, and when training ended."""
    torch.set_num_threads(1)  # initial weights do not depend on the thread count
    networks = [build_model(member.config, splits, team.world, runtime.runs_root) for member in members]
    seeds = [member.config.seed for member in members]
    missing = [member for member in members if member.result is None]
    recorded = _recorded(missing, seeds)
    per_step = config.train.batch_size * len(members) * models.describe(networks[0]).multiply_adds
    objective = OBJECTIVES.build(config.objective)
    if team.world > 1 and (config.start_from is not None or isinstance(objective, Distillation)):
        raise BadInput("a run that starts or learns from another is made in one process; start it without torchrun")
    if isinstance(objective, Distillation):
        teach(objective, config, splits, runtime)
    process = configure(runtime, per_step, recorded, team)
    made_in = environment(process, seeds)
    team.begin({"fingerprint": mark, "environment": made_in}, process.device)
    for member in missing:
        folder = member.folder
        (folder.path / "failure.json").unlink(missing_ok=True)
        folder.write_json("config.json", {"fingerprint": mark, "recipe": name, **to_json(member.config)})
        if not folder.checkpoints():
            folder.write_json("environment.json", made_in)
        folder.write_json("split.json", {**to_json(splits.spec), "label_entropy": splits.label_entropy})
    mirrors: dict[int, Mirrors] = {}
    try:
        for member in missing:
            mirrors[member.lane] = Mirrors.start(
                member.folder.path, runtime.trackers, wandb_online=runtime.wandb_online, imports=runtime.imports
            )
        title = f"{name} {'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}"
        trained_until = conduct(
            config, networks, objective, members, process, splits, title=title, watch=watch, probing=runtime.probes
        )
    except BaseException:
        for mirror in mirrors.values():
            mirror.finish(time.monotonic() + 1.0)
        raise
    return mirrors, trained_until


def _recorded(members: Sequence[Member], seeds: list[int]) -> Mapping[str, Any] | None:
    """The environment in which unfinished ``members`` with checkpoints were begun.

    Raises:
        BadInput: one was begun in another stack.
    """
    found: Mapping[str, Any] | None = None
    for member in members:
        recorded = member.folder.read_json("environment.json") if member.folder.checkpoints() else None
        if recorded is None:
            continue
        begun = recorded.get("seeds", [member.config.seed])
        if begun != seeds:
            how = f"in a cohort of the seeds {begun}" if len(begun) > 1 else "alone"
            raise BadInput(
                f"{member.folder.path.name} was begun {how}, not with the seeds {seeds}, which changes its bits; "
                f"continue it as it was begun or start again with --fresh"
            )
        found = recorded
    return found


def _failed(members: Sequence[Member], error: Exception) -> NetdepthError:
    """``error`` as one that names the run, after leaving ``failure.json`` for the tables."""
    failed = [member for member in members if member.result is None]
    for member in failed:
        with contextlib.suppress(StorageError):  # a disk that cannot take even that has its own error already
            member.folder.write_json("failure.json", {"error": type(error).__name__, "message": str(error)})
    path = (failed or list(members))[0].folder.path
    if not isinstance(error, NetdepthError):
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        error = RunFailed(f"{path.name}: {reason}").with_traceback(error.__traceback__)
    error.path = path
    return error


def _version_notes(folder: RunDir) -> list[str]:
    """One line if the folder was made by another torch or netdepth version."""
    import netdepth

    made: Mapping[str, Any] = folder.read_json("environment.json") or {}
    now = {"torch": torch.__version__, "netdepth": netdepth.__version__}
    other = [f"{key} {made.get(key)}" for key, value in now.items() if made.get(key) != value]
    return [f"made by {' and '.join(other)}; --fresh makes it again"] if other else []
