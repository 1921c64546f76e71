"""The conductor: one config and one seed to one finished run folder, in plain order."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from netdepth import data, models
from netdepth.config import Duration, RunConfig, Runtime, derive_seed, digest, to_json
from netdepth.data.batches import Batches
from netdepth.engine.checkpoint import Checkpointer, restore, take_snapshot
from netdepth.engine.fit import Tick, fit
from netdepth.engine.flat import flatten
from netdepth.engine.gradients import choose_gradients
from netdepth.engine.objectives import OBJECTIVES
from netdepth.engine.optim import OPTIMIZERS, SCHEDULES, Optimizer
from netdepth.engine.process import Process, configure, environment
from netdepth.engine.result import final_result
from netdepth.engine.signals import signals_as_errors, signals_ignored
from netdepth.engine.stopping import BestTracker, EarlyStopper, OverfitDetector
from netdepth.errors import BadInput, Interrupted, NetdepthError, RunFailed, StorageError
from netdepth.progress import TrainProgress
from netdepth.registry import Registry
from netdepth.store import RunDir, runs_root
from netdepth.trackers.mirror import Mirrors

__all__ = ["Finished", "build_model", "fingerprint", "resolve", "run"]

COMPONENTS: dict[str, Registry[Any]] = {
    "dataset": data.DATASETS,
    "model": models.MODELS,
    "objective": OBJECTIVES,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
}
DTYPES = {"float32": torch.float32, "float64": torch.float64}


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


def resolve(config: RunConfig) -> RunConfig:
    """``config`` with every component's defaults filled in and checked."""
    parts: dict[str, Any] = {name: registry.resolve(getattr(config, name)) for name, registry in COMPONENTS.items()}
    return dataclasses.replace(config, **parts)


def fingerprint(config: RunConfig, spec: data.DatasetSpec) -> str:
    """The first 10 hex digits over what is computed: resolved config without seed, data, split."""
    parts = {name: registry.hashed(getattr(config, name)) for name, registry in COMPONENTS.items()}
    content = {**parts, "train": config.train, "data": spec.data_digest, "split": spec.split_digest}
    return digest(content)[:10]


def build_model(config: RunConfig, splits: data.Splits) -> models.Network:
    """The untrained network of a resolved ``config``, carrying the training part's statistics."""
    model = models.build(
        config.model, splits.spec.input_shape, len(splits.spec.classes), seed=derive_seed(config.seed, "init")
    ).to(DTYPES[config.train.precision])
    model.normalize.set_statistics(*data.train_statistics(splits.train))
    return model


def run(config: RunConfig, runtime: Runtime, *, name: str, study: str = "single", quiet: bool = False) -> Finished:
    """Make the run of ``config``, continue it, or return it if it is there.

    Raises:
        BadInput: a bad config, data set or environment.
        Locked: another process works in the folder.
        StorageError: the disk is full or fails.
        RunFailed: anything else that stopped it; the reason stands in ``failure.json``.
        Interrupted: a signal came; everything is saved.
    """
    config = resolve(config)
    splits = data.load(config.dataset, data_dir=runtime.data_dir)
    if len(splits.val) == 0 and (config.train.early_stopping or config.train.overfitting):
        raise BadInput(
            "train.early_stopping and train.overfitting watch the validation loss, and dataset.val_size = 0 leaves no "
            "validation images; set both to null, or val_size to 1 or more"
        )
    if runtime.sealed:
        splits, study = dataclasses.replace(splits, test=None), "tuning" if study == "single" else study
    mark = fingerprint(config, splits.spec)
    folder = RunDir.create(runs_root(runtime.runs_root) / study, f"{name}-{config.dataset.name}", config.seed, mark)
    with folder.lock(), signals_as_errors():
        result = None if runtime.fresh else folder.result()
        if result is not None:
            notes = _version_notes(folder)
            return Finished(folder, result, [*notes, f"already finished: {folder.path}"], cached=True)
        if runtime.fresh:
            folder.clear()
        (folder.path / "failure.json").unlink(missing_ok=True)
        try:
            return _train(config, runtime, splits, folder, name, mark, quiet)
        except (BadInput, Interrupted):
            raise
        except Exception as error:
            _note_failure(folder, error)
            if not isinstance(error, NetdepthError):
                reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
                error = RunFailed(f"{folder.path.name}: {reason}").with_traceback(error.__traceback__)
            error.path = folder.path
            raise error from None


def _train(
    config: RunConfig, runtime: Runtime, splits: data.Splits, folder: RunDir, name: str, mark: str, quiet: bool
) -> Finished:
    torch.set_num_threads(1)  # initial weights do not depend on the thread count
    model = build_model(config, splits)
    recorded = folder.read_json("environment.json") if folder.checkpoints() else None
    multiply_adds = config.train.batch_size * models.describe(model).multiply_adds
    process = configure(runtime, multiply_adds, recorded)
    folder.write_json("config.json", {"fingerprint": mark, "recipe": name, **to_json(config)})
    if recorded is None:
        folder.write_json("environment.json", environment(process))
    folder.write_json("split.json", to_json(splits.spec))
    mirrors = Mirrors.start(folder.path, runtime.trackers, wandb_online=runtime.wandb_online, imports=runtime.imports)
    try:
        result, trained_until = _conduct(config, model, process, splits, folder, f"{name} seed {config.seed}", quiet)
    except BaseException:
        mirrors.finish(time.monotonic() + 1.0)
        raise
    return Finished(folder, result, list(folder.notes), mirrors, trained_until)


def _conduct(
    config: RunConfig,
    model: models.Network,
    process: Process,
    splits: data.Splits,
    folder: RunDir,
    title: str,
    quiet: bool,
) -> tuple[dict[str, Any], float]:
    """Train from the newest checkpoint to the end and evaluate; the result and when training ended."""
    started = time.perf_counter()
    train, val = splits.train.to(process.device), splits.val.to(process.device)
    model = model.to(process.device)
    flat = flatten(model)
    objective = OBJECTIVES.build(config.objective)
    optimizer = OPTIMIZERS.build(config.optimizer, flat)
    batches = Batches(train, config.train.batch_size, config.seed)
    budget = Duration.parse(config.train.budget).steps(batches.steps_per_epoch)
    schedule = SCHEDULES.build(config.schedule, budget, batches.steps_per_epoch)

    stopping = config.train.early_stopping
    best = BestTracker(stopping.monitor if stopping else "val_loss")
    early, overfit = EarlyStopper(stopping), OverfitDetector(config.train.overfitting)
    saver = Checkpointer(folder)
    resumed = _resume(folder, model, optimizer, saver)
    seconds, status = 0.0, "completed"
    for record in folder.truncate_metrics(resumed):
        status, _ = _judge(record, best, early, overfit)
        seconds += record["seconds"]
    if resumed:
        folder.notes.append(f"continued from step {resumed} (epoch {resumed / batches.steps_per_epoch:.4g})")

    gradients = choose_gradients(model, flat, objective)
    events = fit(model, flat, gradients, optimizer, schedule, batches, val, config.train, config.seed, resumed)
    with TrainProgress(title, budget, batches.steps_per_epoch, "quiet" if quiet else "auto") as progress:
        try:
            for event in events if status == "completed" else ():
                if isinstance(event, Tick):
                    progress.advance(event.step)
                    continue
                record = dataclasses.asdict(event)
                status, is_best = _judge(record, best, early, overfit)
                record |= {
                    "best": is_best,
                    "overfit_count": overfit.count,
                    "overfit_onset_epoch": overfit.onset_epoch,
                }
                folder.append_metrics(record)
                if not event.diverged:
                    saver.offer(take_snapshot(event.step, model, optimizer), is_best)
                progress.evaluated(record)
                seconds += event.seconds
                if status != "completed":
                    break
        except (KeyboardInterrupt, Interrupted) as error:
            with signals_ignored():
                saver.flush()
            number = error.exit_code - 128 if isinstance(error, Interrupted) else signal.SIGINT
            done = saver.newest.step if saver.newest else 0
            raise Interrupted(f"interrupted; saved up to step {done}; the same command continues it", number) from None
    trained_until = time.monotonic()
    saver.flush()

    result = final_result(config, splits, model, saver, best, overfit, folder, status)
    result["seconds"] = seconds
    result["total_seconds"] = time.perf_counter() - started
    folder.write_json("result.json", result)
    return result, trained_until


def _judge(
    record: Mapping[str, Any], best: BestTracker, early: EarlyStopper, overfit: OverfitDetector
) -> tuple[str, bool]:
    """Show one evaluation to the three watchers: the run's status after it, and whether it is a new best."""
    is_best, stop_early, stop_overfit = best.update(record), early.update(record), overfit.update(record)
    if record["diverged"]:
        return "diverged", is_best
    return "stopped_early" if stop_early else "stopped_overfit" if stop_overfit else "completed", is_best


def _resume(folder: RunDir, model: models.Network, optimizer: Optimizer, saver: Checkpointer) -> int:
    """Restore the newest checkpoint whose digests and best checkpoint hold; returns its step, 0 for none."""
    for step in reversed(folder.checkpoints()):
        files = folder.load_checkpoint(step)
        if files is None:
            continue
        best_step = json.loads(files["state.json"])["best_step"]
        best = None
        if best_step is not None:
            best_files = files if best_step == step else folder.load_checkpoint(best_step)
            if best_files is None:
                continue
            best = restore(best_step, best_files, model, optimizer)
        saver.resumed(restore(step, files, model, optimizer), best)
        return step
    folder.drop_checkpoints(())
    return 0


def _note_failure(folder: RunDir, error: Exception) -> None:
    """Leave ``failure.json`` for the tables; a disk that cannot take even that has its own error already."""
    with contextlib.suppress(StorageError):
        folder.write_json("failure.json", {"error": type(error).__name__, "message": str(error)})


def _version_notes(folder: RunDir) -> list[str]:
    """One line if the folder was made by another torch or netdepth version."""
    import netdepth

    made: Mapping[str, Any] = folder.read_json("environment.json") or {}
    now = {"torch": torch.__version__, "netdepth": netdepth.__version__}
    other = [f"{key} {made.get(key)}" for key, value in now.items() if made.get(key) != value]
    return [f"made by {' and '.join(other)}; --fresh makes it again"] if other else []
