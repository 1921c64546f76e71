"""Distillation studies: the lab's exercise 2.2, whether a small network learns more from a large one than from labels
alone."""

from __future__ import annotations

from typing import Any

from netdepth.config import Component, RunConfig, TrainConfig
from netdepth.recipes.base import RECIPES
from netdepth.recipes.mlp import baseline_mlp
from netdepth.studyspec import SOURCE, Axis, Nuisance, Primary, StudySpec

__all__ = ["distill_cifar10", "distill_cifar10_jpeg", "distill_mnist", "distilled"]

HARD, DISTILLED = "hard labels", "distilled"


def distilled(
    name: str,
    question: str,
    teacher: RunConfig,
    student: RunConfig,
    depth: int,
    depth_path: dict[str, Any],
    effect: float,
) -> StudySpec:
    """``student`` on hard labels and on the soft targets of ``teacher``, ten seeds each."""
    soft = {"objective": "distill", "objective.teacher": SOURCE, "objective.temperature": 4.0, "objective.alpha": 0.9}
    return StudySpec(
        name=name,
        question=question,
        base=student,
        source=teacher,
        scientific=(
            Axis("depth", {str(depth): depth_path}),
            Axis("condition", {HARD: {"objective": "cross-entropy"}, DISTILLED: soft}),
        ),
        seeds=tuple(range(10)),
        primary=(Primary("condition", depth, DISTILLED, HARD),),
        smallest_effect=effect,
        nuisance=(Nuisance("optimizer.lr"),),
    )


@RECIPES.register("distill-mnist")
def distill_mnist() -> StudySpec:
    """netdepth study distill-mnist: MNIST, a student with 11 % of its teacher's parameters, ten seeds, in minutes.

    Takes about three minutes on two cores. The teacher is `baseline-mlp` with seed 0 (784-256-128-10, 235,000
    parameters), made first unless it is there; then the student (784-32-32-10, 26,500 parameters) is trained on the
    labels alone and on the teacher's softened answers beside them. Hoped for: the distilled student has the lower
    validation error. Found (docs/findings.md), with these settings: it loses.

    Hinton, Vinyals & Dean 2015: temperature 4, nine tenths of the loss from the soft targets. Fixed for both: Adam at
    1e-3, one cycle, batch 128, ten epochs, the last weights.
    """
    return distilled(
        "distill-mnist",
        "Does a small network learn more from a large one's answers than from the labels of MNIST alone?",
        baseline_mlp(),
        RunConfig(
            dataset=Component("mnist"),
            model=Component("mlp", {"hidden": [32, 32]}),
            optimizer=Component("adam", {"lr": 1e-3}),
            schedule=Component("one-cycle"),
            train=TrainConfig(budget="10ep", eval_every="5ep", batch_size=128),
        ),
        3,
        {"model.hidden": [32, 32]},
        0.001,
    )


def _resnet(dataset: str, width: int, depth: int, budget: str) -> RunConfig:
    return RunConfig(
        dataset=Component(dataset),
        model=Component("resnet", {"width": width, "depth": depth}),
        optimizer=Component("adam", {"lr": 1e-3}),
        schedule=Component("step"),
        augmentation=Component("crop-flip"),
        train=TrainConfig(budget=budget, batch_size=128),
    )


@RECIPES.register("distill-cifar10")
def distill_cifar10() -> StudySpec:
    """netdepth study distill-cifar10: CIFAR-10, a ResNet-20 teaches one of half its width, ten seeds.

    Takes days on two cores: meant for a GPU (the recipe `distill-cifar10-jpeg` is small). Teacher 270,000 parameters,
    student 68,000. The teacher answers about each training image as it is, also where the student sees it cropped and
    mirrored (objective.teacher_sees = original). Expected: the distilled student wins.

    Temperature 4, nine tenths of the loss from the soft targets. Fixed for both: Adam at 1e-3, divided by ten after
    half and three quarters of the steps, batch 128, crops and flips, thirty epochs.
    """
    return distilled(
        "distill-cifar10",
        "Does a ResNet-20 of half the width learn more from a whole one's answers than from the labels of CIFAR-10?",
        _resnet("cifar10", 16, 20, "30ep"),
        _resnet("cifar10", 8, 20, "30ep"),
        20,
        {"model.depth": 20},
        0.002,
    )


@RECIPES.register("distill-cifar10-jpeg")
def distill_cifar10_jpeg() -> StudySpec:
    """netdepth study distill-cifar10-jpeg: the same on CIFAR-10 (JPEG) with nets of eight layers, in an hour or two.

    Teacher of width 32 (298,000 parameters), student of width 8 (19,000), ten seeds, five epochs.
    """
    return distilled(
        "distill-cifar10-jpeg",
        "Does a small residual network learn more from a large one's answers than from the labels of CIFAR-10 (JPEG)?",
        _resnet("cifar10-jpeg", 32, 8, "10ep"),
        _resnet("cifar10-jpeg", 8, 8, "5ep"),
        8,
        {"model.depth": 8},
        0.005,
    )
