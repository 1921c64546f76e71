"""From a config to its parts: components resolved, the fingerprint, the untrained network."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import nn

from netdepth import data, models
from netdepth.config import RunConfig, derive_seed, digest
from netdepth.data.augment import AUGMENTATIONS
from netdepth.errors import BadInput
from netdepth.models.init import rescale_lsuv
from netdepth.registry import Registry
from netdepth.training.finished import begin_with, find_weights, named
from netdepth.training.gradients import by_hand
from netdepth.training.objectives import OBJECTIVES
from netdepth.training.optim import OPTIMIZERS, SCHEDULES, WatchingSchedule
from netdepth.training.precision import DTYPES, precision_of

__all__ = ["COMPONENTS", "build_model", "fingerprint", "resolve", "stackable"]

COMPONENTS: dict[str, Registry[Any]] = {
    "dataset": data.DATASETS,
    "model": models.MODELS,
    "objective": OBJECTIVES,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "augmentation": AUGMENTATIONS,
}
LSUV_IMAGES = 512
"""Training images, evenly spread and the same for every seed, on which LSUV rescales the weights."""


def resolve(config: RunConfig, device: str = "auto", runs_root: Path | None = None) -> RunConfig:
    """``config`` with every component's defaults filled in and checked, and its precision decided for ``device``.

    Runs that it names, to start from or as a teacher, are found under ``runs_root`` and held by their digest.

    Raises:
        BadInput: a component refuses a setting, or a run that is named is missing, unfinished or altered.
    """
    parts: dict[str, Any] = {name: registry.resolve(getattr(config, name)) for name, registry in COMPONENTS.items()}
    config = dataclasses.replace(config, **parts)
    train = dataclasses.replace(config.train, precision=precision_of(config, device))
    config = dataclasses.replace(config, train=train)
    if config.start_from is not None:
        start = config.start_from
        found = find_weights(start.run, start.weights, start.sha256, runs_root, "start_from")
        pinned: dict[str, Any] = {"run": named(found.run, runs_root), "weights": found.which, "sha256": found.sha256}
        config = dataclasses.replace(config, start_from=dataclasses.replace(start, **pinned))
    if "teacher" in config.objective.args:
        args = config.objective.args
        OBJECTIVES.build(config.objective)  # settings out of range are refused before a run is looked for
        found = find_weights(args["teacher"], args["weights"], args["sha256"], runs_root, "objective.teacher")
        pinned = {"teacher": named(found.run, runs_root), "weights": found.which, "sha256": found.sha256}
        config = dataclasses.replace(config, objective=dataclasses.replace(config.objective, args={**args, **pinned}))
    return config


def fingerprint(config: RunConfig, spec: data.DatasetSpec) -> str:
    """The first 10 hex digits over what is computed: resolved config without seed, data, split."""
    parts = {name: registry.hashed(getattr(config, name)) for name, registry in COMPONENTS.items()}
    if not config.augmented:
        del parts["augmentation"]
    if config.start_from is not None:
        parts["start_from"] = config.start_from.hashed()
    content = {**parts, "train": config.train, "data": spec.data_digest, "split": spec.split_digest}
    return digest(content)[:10]


def build_model(
    config: RunConfig, splits: data.Splits, ranks: int = 1, runs_root: Path | None = None
) -> models.Network:
    """The untrained network of a resolved ``config``, carrying the training part's statistics; one that starts
    from another run (found under ``runs_root``) has that run's weights and statistics instead.

    Raises:
        BadInput: batch norm, and a batch, or the share of one of ``ranks`` processes, that would hold a single image; a
            source that does not fit.
    """
    model = models.build(
        config.model, splits.spec.input_shape, len(splits.spec.classes), seed=derive_seed(config.seed, "init")
    ).to(DTYPES[config.train.precision])
    mean, std = splits.statistics
    model.normalize.set_statistics(splits.pixel_mean if model.pixel_mean else mean, std)
    images, batch = len(splits.train), config.train.batch_size
    normed = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
    if normed and _single(images, batch, ranks):
        better = next((b for b in range(batch + 1, batch + images) if not _single(images, b, ranks)), None)
        where = f" for one of {ranks} processes" if ranks > 1 else ""
        raise BadInput(
            f"train.batch_size = {batch} leaves a batch of one of {images} training images{where}, which batch norm "
            f"cannot train on; take another{f', such as {better}' if better else ''}"
        )
    if config.start_from is not None:
        begin_with(model, config.start_from, runs_root)
    elif model.lsuv:
        count = min(LSUV_IMAGES, len(splits.train))
        rescale_lsuv(model, splits.train.inputs[torch.arange(count) * len(splits.train) // count])
    return model


def _single(images: int, batch: int, ranks: int) -> bool:
    """Whether a batch, divided over ``ranks``, ever is a single image for one of them (`Batches`)."""
    smallest = min(batch, images % batch or batch)
    return smallest // ranks <= 1


def stackable(config: RunConfig) -> bool:
    """Whether several seeds of ``config`` can be made as one stack (`run_cohort`); decided by the config alone."""
    if config.start_from is not None or config.objective.name != "cross-entropy":
        return False
    config = resolve(config)
    if config.model.name != "mlp" or config.train.precision == "bf16":
        return False
    if isinstance(SCHEDULES.build(config.schedule, 1, 1), WatchingSchedule):
        return False
    model = models.build(config.model, (1, 1, 1), 2)  # the images' shape and classes decide nothing here
    return by_hand(model, OBJECTIVES.build(config.objective))
