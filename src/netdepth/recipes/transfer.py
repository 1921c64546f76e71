"""Transfer studies: the lab's exercise 2.1, whether what was learned on one data set helps on another."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from netdepth.config import Component, RunConfig, TrainConfig
from netdepth.recipes.base import RECIPES
from netdepth.recipes.mlp import baseline_mlp
from netdepth.studyspec import SOURCE, Axis, Nuisance, Primary, StudySpec

__all__ = ["ADAM", "carried_on", "transfer_cifar10_halves", "transfer_cifar100", "transfer_fashion_mnist"]

SCRATCH = "from scratch"
ADAM = Component("adam", {"lr": 1e-3})


def carried_on(
    name: str,
    question: str,
    source: RunConfig,
    base: RunConfig,
    *,
    depth: int,
    depth_path: Mapping[str, Any],
    stages: Sequence[str],
    seeds: int,
    smallest_effect: float,
) -> StudySpec:
    """Head, last stage or all of a network of ``stages`` trained on from ``source``, against training from scratch."""
    conditions: dict[str, Mapping[str, Any]] = {
        SCRATCH: {"start_from": None},
        "head only": {"start_from.run": SOURCE, "start_from.freeze": list(stages[:-1])},
        "last stage": {"start_from.run": SOURCE, "start_from.freeze": list(stages[:-2])},
        "all stages": {"start_from.run": SOURCE, "start_from.freeze": []},
    }
    return StudySpec(
        name=name,
        question=question,
        base=base,
        source=source,
        scientific=(Axis("depth", {str(depth): depth_path}), Axis("condition", conditions)),
        seeds=tuple(range(seeds)),
        primary=tuple(Primary("condition", depth, way, SCRATCH) for way in conditions if way != SCRATCH),
        smallest_effect=smallest_effect,
        nuisance=(Nuisance("optimizer.lr"),),
    )


@RECIPES.register("transfer-fashion-mnist")
def transfer_fashion_mnist() -> StudySpec:
    """netdepth study transfer-fashion-mnist: from MNIST to 5,000 images of Fashion-MNIST, in minutes.

    Takes about five minutes on two cores. The baseline network (784-256-128-10) is trained on MNIST first, unless
    `baseline-mlp` with seed 0 was made before; then its head, its last layer or all of it is trained on, or the
    same network from scratch, eight seeds each. `netdepth probe` of the source on fashion-mnist is the answer without
    training it at all. Expected, and found (docs/findings.md): training all stages on beats training from scratch by
    about one percentage point; the head or the last layer alone loses, since strokes of digits are not what tells
    shirts from coats.

    Fixed for all: Adam at 1e-3, batch 64, ten epochs of the 5,000 images; 55,000 are set aside for validation.
    """
    source: RunConfig = baseline_mlp()
    return carried_on(
        "transfer-fashion-mnist",
        "Does a network trained on MNIST help on 5,000 images of Fashion-MNIST?",
        source,
        RunConfig(
            dataset=Component("fashion-mnist", {"val_size": 55_000}),
            model=source.model,
            optimizer=ADAM,
            train=TrainConfig(budget="10ep", eval_every="10ep", batch_size=64),
        ),
        depth=3,
        depth_path={"model.hidden": [256, 128]},
        stages=("layer1", "layer2", "head"),
        seeds=8,
        smallest_effect=0.002,
    )


RESNET_STAGES = ("stem", "stage1", "stage2", "stage3", "head")
HALVES = (["airplane", "automobile", "bird", "cat", "deer"], ["dog", "frog", "horse", "ship", "truck"])


def _resnet(dataset: Component, **train: Any) -> RunConfig:
    return RunConfig(
        dataset=dataset,
        model=Component("resnet", {"width": 16}),
        optimizer=ADAM,
        schedule=Component("step"),
        augmentation=Component("crop-flip"),
        train=TrainConfig(**{"batch_size": 128, **train}),
    )


@RECIPES.register("transfer-cifar10-halves")
def transfer_cifar10_halves() -> StudySpec:
    """netdepth study transfer-cifar10-halves: from five classes of CIFAR-10 (JPEG) to 2,500 images of the other five.

    Takes about half an hour on two cores. A residual network of eight layers is trained on airplane to deer (22,500
    images), then trained on for dog to truck: head, last stage or all, or from scratch, eight seeds each. Expected was
    that every way of starting from the source beats training from scratch. Found (docs/findings.md): all stages do, by
    five percentage points; the last stage alone is undecided, and the head alone loses by fourteen.

    Fixed for all: Adam at 1e-3, divided by ten after half and three quarters of the steps, batch 128, crops and flips;
    the source ten epochs, the others twenty of their images. 22,500 images of their classes are for validation.
    """
    first, second = HALVES
    return carried_on(
        "transfer-cifar10-halves",
        "Does a network trained on five classes of CIFAR-10 help on few images of the other five?",
        _with_depth(_resnet(Component("cifar10-jpeg", {"classes": first}), budget="10ep"), 8),
        _resnet(Component("cifar10-jpeg", {"classes": second, "val_size": 45_000}), budget="20ep", eval_every="20ep"),
        depth=8,
        depth_path={"model.depth": 8},
        stages=RESNET_STAGES,
        seeds=8,
        smallest_effect=0.005,
    )


@RECIPES.register("transfer-cifar100")
def transfer_cifar100() -> StudySpec:
    """netdepth study transfer-cifar100: from CIFAR-10 to CIFAR-100 with a ResNet-20: head, last stage, all, or neither.

    Takes days on two cores: meant for a GPU. Needs both data sets; `transfer-cifar10-halves` and
    `transfer-fashion-mnist` ask the same of smaller ones. Expected: the head alone beats the classical baseline
    (`netdepth probe`: kNN and linear models on pixels), the last stage beats the head, and all stages end where
    training from scratch does, which has 45,000 images here.

    Fixed for all: Adam at 1e-3, divided by ten after half and three quarters of the steps, batch 128, crops and flips,
    thirty epochs.
    """
    return carried_on(
        "transfer-cifar100",
        "Does a network trained on CIFAR-10 help on CIFAR-100?",
        _with_depth(_resnet(Component("cifar10"), budget="30ep"), 20),
        _resnet(Component("cifar100"), budget="30ep"),
        depth=20,
        depth_path={"model.depth": 20},
        stages=RESNET_STAGES,
        seeds=8,
        smallest_effect=0.005,
    )


def _with_depth(config: RunConfig, depth: int) -> RunConfig:
    """The configuration at ``depth``, as a study's depth axis would set it."""
    return dataclasses.replace(config, model=Component(config.model.name, {**config.model.args, "depth": depth}))
