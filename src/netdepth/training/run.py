"""From configs to finished run folders: one run or a stack of seeds, in this process or in all those of torchrun."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NoReturn

import torch

import netdepth
from netdepth import data, models
from netdepth.config import RunConfig, Runtime, to_json
from netdepth.errors import BadInput, Interrupted, NetdepthError, RunFailed, StorageError
from netdepth.owncode import place_of
from netdepth.progress import TrainProgress
from netdepth.runs import Environment, RunResult
from netdepth.runs.folder import RunDir, runs_root
from netdepth.runs.naming import UNCALLED, Called, continued, folder_label, keeps_name
from netdepth.runs.naming import title as run_title
from netdepth.trackers.mirror import Mirrors
from netdepth.training.evaluate import own_names
from netdepth.training.gradients import choose_gradients
from netdepth.training.longer import train_on
from netdepth.training.loop import Watch, lay_out, train_stack
from netdepth.training.objectives import OBJECTIVES, CrossEntropy, Distillation, data_record, prepare
from netdepth.training.own import own_parts
from netdepth.training.parallel import ALONE, Follower, StartedRun, Team, joined
from netdepth.training.process import configure, environment
from netdepth.training.replica import Replica
from netdepth.training.resolve import ResolvedConfig, build_model, resolve
from netdepth.training.signals import signals_as_errors

__all__ = ["Finished", "run", "run_stack"]


@dataclass
class Finished:
    """A finished run: its folder, its result, notes for the user, its mirrors."""

    run: RunDir
    result: RunResult
    notes: list[str] = field(default_factory=list)
    mirrors: Mirrors | None = None
    """Trackers still at work; call ``mirrors.finish(deadline)`` before the process ends."""
    trained_until: float = 0.0
    """``time.monotonic()`` after the last training step."""
    cached: bool = False
    """Nothing was computed: the folder held the result already."""


def run(
    config: RunConfig,
    runtime: Runtime,
    *,
    name: str,
    study: str = "single",
    quiet: bool = False,
    watch: Watch | None = None,
    splits: data.Splits | None = None,
    called: Called = UNCALLED,
) -> Finished:
    """Train the run of ``config``, continue it, or return it if it is finished: `run_stack` with one replica.

    Under torchrun all processes train it together. It returns on rank 0; the others end here (SystemExit).
    """
    if watch is None:
        watch = functools.partial(TrainProgress, shown=not quiet)
    with joined() as team:
        run_of_rank_0 = None
        if isinstance(team, Follower):
            run_of_rank_0 = team.wait_for_run()  # before the data are loaded: rank 0 may have filled the cache
            if run_of_rank_0 is None:
                raise SystemExit(0)
        resolved = resolve(config, runtime, splits)  # by every rank: its options and data may differ from rank 0's
        if isinstance(team, Follower) and run_of_rank_0 is not None:
            _follow(team, run_of_rank_0, resolved, runtime)
        return run_stack(
            resolved, [config.seed], runtime, name=name, study=study, watch=watch, team=team, called=called
        )[0]


def _follow(team: Follower, run_of_rank_0: StartedRun, resolved: ResolvedConfig, runtime: Runtime) -> NoReturn:
    """Compute gradients for rank 0 until its run ends.

    Raises:
        SystemExit: always, at the end: only rank 0 continues after the training.
        BadInput: this process would train another run.
        RankLost: rank 0 has ended.
    """
    process = configure(runtime, recorded=run_of_rank_0.environment, team=team)
    config, splits, theirs = resolved.config, resolved.splits, run_of_rank_0.fingerprint
    if resolved.fingerprint != theirs:
        raise BadInput(
            f"its fingerprint is {resolved.fingerprint}, that of rank 0 is {theirs}: its options, data or files differ"
        )
    stack, batches = lay_out(config, [build_model(config, splits, team.world)], process, splits, [config.seed])
    team.serve(choose_gradients(stack, OBJECTIVES.build(config.objective)), stack, batches)
    raise SystemExit(0)


def run_stack(
    resolved: ResolvedConfig,
    seeds: Sequence[int],
    runtime: Runtime,
    *,
    name: str,
    study: str,
    watch: Watch = TrainProgress,
    team: Team = ALONE,
    called: Called = UNCALLED,
) -> list[Finished]:
    """Train the runs of one config with ``seeds`` as one stack of replicas.

    ``name`` is that of their recipe, ``called`` what else they are called.

    Their folders are those of single runs, except that ``environment.json`` names the stack. Unfinished runs are
    continued: all from the newest step at which each has a sound checkpoint; replicas that are finished stay in the
    stack as zeros, since its size changes bits. With a ``team`` this is rank 0 of a data parallel run, which has one
    seed.

    Raises:
        BadInput: a bad model or environment; nothing is written.
        Locked: another process works in one of the folders.
        StorageError: the disk is full or fails.
        RunFailed: another error stopped them; each ``failure.json`` has the reason.
        Interrupted: a signal came; everything is saved.
    """
    config = resolved.config
    if len(resolved.splits.val) == 0 and (config.train.early_stopping or config.train.overfitting):
        spare = len(resolved.splits.train) > len(resolved.splits.spec.classes)
        raise BadInput(
            "train.early_stopping and train.overfitting watch the validation loss, and there are no validation images; "
            + ("set both to null, or dataset.val_size to 1 or more" if spare else
               "each class keeps its only picture to train on: set both to null, or add pictures")
        )  # fmt: skip
    if runtime.sealed:
        resolved = dataclasses.replace(resolved, splits=dataclasses.replace(resolved.splits, test=None))
        study = "tuning" if study == "single" else study
    root, label = runs_root(runtime.runs_root) / study, folder_label(name, config.dataset.name, called)
    folders = [RunDir.create(root, label, seed, resolved.fingerprint) for seed in seeds]
    with contextlib.ExitStack() as held:
        for folder in folders:
            held.enter_context(folder.lock())
        held.enter_context(signals_as_errors())
        replicas = []
        for index, (seed, folder) in enumerate(zip(seeds, folders, strict=True)):
            result = None if runtime.fresh else folder.result()
            if result is not None:
                if folder.read_json("config.json") is None:
                    raise BadInput(f"{folder.path} has a result but no config.json; restore it, or use another --runs")
                with contextlib.suppress(OSError):  # it finished, though the last sync of its result may have failed
                    (folder.path / "failure.json").unlink(missing_ok=True)
            replicas.append(Replica(index, config.with_seed(seed), folder, result))
        missing = [replica for replica in replicas if replica.result is None]
        trained_until = 0.0
        mirrors: dict[int, Mirrors] = {}
        try:
            if missing:
                lone = len(seeds) == 1 and study in ("single", "tuning")
                mirrors, trained_until = _train(resolved, runtime, replicas, name, called, watch, team, lone)
        except BadInput:
            for folder in folders:
                folder.remove_if_unused()
            raise
        except Interrupted:
            raise
        except Exception as error:
            raise _failed(missing, error) from None
    finished = []
    for replica in replicas:
        assert replica.result is not None
        folder, cached = replica.folder, replica not in missing
        notes = list(folder.notes)
        if cached:
            notes = [*keeps_name(folder, called), *_version_notes(folder), *_missing_metrics(replica.result)]
            notes.append(f"already finished: {folder.path}")
        mirror = mirrors.get(replica.index)
        finished.append(Finished(folder, replica.result, notes, mirror, trained_until, cached))
    return finished


def _train(
    resolved: ResolvedConfig,
    runtime: Runtime,
    replicas: Sequence[Replica],
    name: str,
    called: Called,
    watch: Watch,
    team: Team,
    lone: bool,
) -> tuple[dict[int, Mirrors], float]:
    """Write the first files of each folder, then `train_stack`; returns trackers by replica, and when it ended.

    A ``lone`` run is in no study, where a run must not depend on what was run before.
    """
    config, splits, mark = resolved.config, resolved.splits, resolved.fingerprint
    names = {r.index: continued(r.folder, called) for r in replicas}
    heads = {
        r.index: {"fingerprint": mark, "recipe": name, **names[r.index].as_json(), **to_json(r.config)}
        for r in replicas
    }
    torch.set_num_threads(1)  # initial weights do not depend on the thread count
    networks = [build_model(replica.config, splits, team.world, runtime.runs_root) for replica in replicas]
    seeds = [replica.config.seed for replica in replicas]
    missing = [replica for replica in replicas if replica.result is None]
    if lone and not runtime.fresh:
        train_on(missing[0], resolved, heads[missing[0].index], runtime, team)
    recorded = None if runtime.fresh else _recorded_environment(missing, seeds)
    per_step = config.train.batch_size * len(replicas) * models.describe(networks[0]).multiply_adds
    objective = OBJECTIVES.build(config.objective)
    if team.world > 1 and (config.start_from is not None or isinstance(objective, Distillation)):
        raise BadInput("a run that starts or learns from another run uses one process; start it without torchrun")
    if team.world > 1 and isinstance(objective, CrossEntropy) and objective.class_weights is not None:
        raise BadInput("objective.class_weights divides by the weights of the whole batch; start it without torchrun")
    prepare(objective, config, splits, runtime)
    process = configure(runtime, per_step, recorded, team)
    made_in = dataclasses.replace(environment(process, seeds), own=own_parts(config))
    team.begin(StartedRun(mark, made_in), process.device)
    split = data_record(splits, objective)
    for replica in missing:
        folder = replica.folder
        if runtime.fresh:  # not before everything that may be refused has been built
            folder.clear()
        (folder.path / "failure.json").unlink(missing_ok=True)
        folder.write_json("config.json", heads[replica.index])
        if not folder.checkpoints():
            folder.write_json("environment.json", to_json(made_in))
        folder.write_json("split.json", split)
    mirrors: dict[int, Mirrors] = {}
    try:
        for replica in missing:
            mirrors[replica.index] = Mirrors.start(
                replica.folder.path, runtime.trackers, wandb_online=runtime.wandb_online, imports=runtime.imports
            )
        said = run_title(name, names[missing[0].index])
        title = f"{said} {'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}"
        trained_until = train_stack(
            config, networks, objective, replicas, process, splits, title=title, watch=watch, probes=runtime.probes
        )
    except BaseException:
        for mirror in mirrors.values():
            mirror.finish(time.monotonic() + 1.0)
        raise
    return mirrors, trained_until


def _recorded_environment(replicas: Sequence[Replica], seeds: list[int]) -> Environment | None:
    """The environment in which unfinished ``replicas`` with checkpoints were started.

    Raises:
        BadInput: one was started in another stack.
    """
    environment: Environment | None = None
    for replica in replicas:
        recorded = replica.folder.environment() if replica.folder.checkpoints() else None
        if recorded is None:
            continue
        begun = list(recorded.seeds or [replica.config.seed])
        if begun != seeds:
            how = f"in a stack with the seeds {begun}" if len(begun) > 1 else "alone"
            raise BadInput(
                f"{replica.folder.path.name} was started {how}, not with the seeds {seeds}, which changes its bits; "
                f"continue it as it was started, or train it anew in another --runs folder"
            )
        environment = recorded
    return environment


def _failed(replicas: Sequence[Replica], error: Exception) -> NetdepthError:
    """``error`` as one that names the run, after leaving ``failure.json`` for the tables."""
    failed = [replica for replica in replicas if replica.result is None]
    for replica in failed:
        with contextlib.suppress(StorageError):  # a disk that cannot take even that has its own error already
            replica.folder.write_failure(type(error).__name__, str(error))
    path = (failed or list(replicas))[0].folder.path
    if not isinstance(error, NetdepthError):
        place, reason = place_of(error), f"{type(error).__name__}: {' '.join(str(error).split())}"
        failed_at = f"failed{place}: " if place else ""
        error = RunFailed(f"{path.name}: {failed_at}{reason}").with_traceback(error.__traceback__)
    error.path = path
    return error


def _missing_metrics(result: RunResult) -> list[str]:
    """One line if metrics were registered that the run was made without."""
    missing = [name for key, name in own_names().items() if key not in result.get("train", {}).get("last", {})]
    return [f"made without the metric {', '.join(missing)}; a run in another --runs folder has it"] if missing else []


def _version_notes(folder: RunDir) -> list[str]:
    """One line if the folder was made by another torch or netdepth version."""
    made = folder.environment()
    now = {"torch": torch.__version__, "netdepth": netdepth.__version__}
    other = [f"{key} {then}" for key, value in now.items() if (then := getattr(made, key, None)) != value]
    return [f"made by {' and '.join(other)}; another --runs folder has it made again"] if other else []
