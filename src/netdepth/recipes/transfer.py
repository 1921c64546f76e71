"""The lab's exercise 2: whether what was learned on one data set helps on another (2.1, transfer), and whether a small
network learns more from a large one than from labels alone (2.2, distillation)."""

from __future__ import annotations

from collections.abc import Sequence

from netdepth.config import Component, RunConfig, Settings, TrainConfig
from netdepth.recipes.base import ADAM, RECIPES
from netdepth.recipes.cnn import resnet
from netdepth.recipes.mlp import baseline_mlp
from netdepth.studyspec import SOURCE, Axis, Nuisance, Primary, StudySpec

__all__ = [
    "distill_cifar10", "distill_cifar10_jpeg", "distill_mnist", "distillation", "transfer", "transfer_cifar10_halves",
    "transfer_cifar100", "transfer_fashion_mnist",
]  # fmt: skip


def transfer(
    name: str,
    question: str,
    parent: RunConfig,
    base: RunConfig,
    *,
    depth: int,
    settings: Settings,
    stages: Sequence[str],
    smallest_effect: float,
) -> StudySpec:
    """Head, last stage or all of a network of ``stages`` trained further, against training from scratch.

    The further training starts from ``parent``. ``settings`` give the network its ``depth``, as a depth axis does.
    Eight seeds each.
    """
    conditions: dict[str, Settings] = {"from scratch": {"start_from": None}}
    for condition, frozen in {"head only": stages[:-1], "last stage": stages[:-2], "all stages": ()}.items():
        conditions[condition] = {"start_from.run": SOURCE, "start_from.freeze": list(frozen)}
    return StudySpec(
        name=name,
        question=question,
        base=base,
        source=parent,
        scientific=(Axis("depth", {str(depth): settings}), Axis("condition", conditions)),
        seeds=tuple(range(8)),
        primary=tuple(Primary("condition", depth, other, "from scratch") for other in list(conditions)[1:]),
        smallest_effect=smallest_effect,
        max_looks=1,
        nuisance=(Nuisance("optimizer.lr"),),
    )


@RECIPES.register("transfer-fashion-mnist")
def transfer_fashion_mnist() -> StudySpec:
    """netdepth study transfer-fashion-mnist: from MNIST to 5,000 images of Fashion-MNIST, in minutes.

    Takes about five minutes on two cores. The baseline network (784-256-128-10) is trained on MNIST first, unless
    `baseline-mlp` with seed 0 was made before; then training continues for its head, its last layer or all of it, or
    the same network is trained from scratch, eight seeds each. `netdepth probe` of the parent run on fashion-mnist
    gives the answer without any training. Expected, and found (docs/findings.md): all stages beat training from
    scratch by about one percentage point; the head or the last layer alone loses, because strokes of digits do not
    help to tell shirts from coats.

    Fixed for all: Adam at 1e-3, batch 64, ten epochs of the 5,000 images; 55,000 are set aside for validation.
    """
    parent: RunConfig = baseline_mlp()
    return transfer(
        "transfer-fashion-mnist",
        "Does a network trained on MNIST help on 5,000 images of Fashion-MNIST?",
        parent,
        RunConfig(
            dataset=Component("fashion-mnist", {"val_size": 55_000}),
            model=parent.model,
            optimizer=ADAM,
            train=TrainConfig(budget="10ep", eval_every="10ep", batch_size=64),
        ),
        depth=3,
        settings={"model.hidden": [256, 128]},
        stages=("layer1", "layer2", "head"),
        smallest_effect=0.002,
    )


RESNET_STAGES = ("stem", "stage1", "stage2", "stage3", "head")
HALVES = (["airplane", "automobile", "bird", "cat", "deer"], ["dog", "frog", "horse", "ship", "truck"])


@RECIPES.register("transfer-cifar10-halves")
def transfer_cifar10_halves() -> StudySpec:
    """netdepth study transfer-cifar10-halves: from five classes of CIFAR-10 (JPEG) to 2,500 images of the other five.

    Takes about half an hour on two cores. A residual network of eight layers is trained on airplane to deer (22,500
    images), then trained on for dog to truck: head, last stage or all, or from scratch, eight seeds each. Expected was
    that every start from the parent run beats training from scratch. Found (docs/findings.md): all stages do, by
    five percentage points; the last stage alone is undecided, and the head alone loses by fourteen.

    Fixed for all: Adam at 1e-3, divided by ten after half and three quarters of the steps, batch 128, crops and flips;
    the parent run ten epochs, the others twenty of their images. 22,500 images of their classes are for validation.
    """
    first, second = HALVES
    return transfer(
        "transfer-cifar10-halves",
        "Does a network trained on five classes of CIFAR-10 help on few images of the other five?",
        resnet(Component("cifar10-jpeg", {"classes": first}), {"width": 16, "depth": 8}, budget="10ep"),
        resnet(
            Component("cifar10-jpeg", {"classes": second, "val_size": 45_000}),
            {"width": 16},
            budget="20ep",
            eval_every="20ep",
        ),
        depth=8,
        settings={"model.depth": 8},
        stages=RESNET_STAGES,
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
    return transfer(
        "transfer-cifar100",
        "Does a network trained on CIFAR-10 help on CIFAR-100?",
        resnet(Component("cifar10"), {"width": 16, "depth": 20}, budget="30ep"),
        resnet(Component("cifar100"), {"width": 16}, budget="30ep"),
        depth=20,
        settings={"model.depth": 20},
        stages=RESNET_STAGES,
        smallest_effect=0.005,
    )


# --- distillation ---


def distillation(
    name: str,
    question: str,
    teacher: RunConfig,
    student: RunConfig,
    *,
    depth: int,
    settings: Settings,
    smallest_effect: float,
) -> StudySpec:
    """``student`` on hard labels and on the soft targets of ``teacher``, ten seeds each."""
    soft: Settings = {
        "objective": "distill",
        "objective.teacher": SOURCE,
        "objective.temperature": 4.0,
        "objective.alpha": 0.9,
    }
    return StudySpec(
        name=name,
        question=question,
        base=student,
        source=teacher,
        scientific=(
            Axis("depth", {str(depth): settings}),
            Axis("condition", {"hard labels": {"objective": "cross-entropy"}, "distilled": soft}),
        ),
        seeds=tuple(range(10)),
        primary=(Primary("condition", depth, "distilled", "hard labels"),),
        smallest_effect=smallest_effect,
        max_looks=1,
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
    return distillation(
        "distill-mnist",
        "Does a small network learn more from a large one's answers than from the labels of MNIST alone?",
        baseline_mlp(),
        RunConfig(
            dataset=Component("mnist"),
            model=Component("mlp", {"hidden": [32, 32]}),
            optimizer=ADAM,
            schedule=Component("one-cycle"),
            train=TrainConfig(budget="10ep", eval_every="5ep", batch_size=128),
        ),
        depth=3,
        settings={"model.hidden": [32, 32]},
        smallest_effect=0.001,
    )


@RECIPES.register("distill-cifar10")
def distill_cifar10() -> StudySpec:
    """netdepth study distill-cifar10: CIFAR-10, a ResNet-20 teaches one of half its width, ten seeds.

    Takes days on two cores: meant for a GPU (the recipe `distill-cifar10-jpeg` is small). Teacher 270,000 parameters,
    student 68,000. The teacher sees each training image without augmentation, also if the student sees it cropped and
    mirrored (objective.teacher_sees = original). Expected: the distilled student wins.

    Temperature 4, nine tenths of the loss from the soft targets. Fixed for both: Adam at 1e-3, divided by ten after
    half and three quarters of the steps, batch 128, crops and flips, thirty epochs.
    """
    return distillation(
        "distill-cifar10",
        "Does a ResNet-20 of half the width learn more from a whole one's answers than from the labels of CIFAR-10?",
        resnet(Component("cifar10"), {"width": 16, "depth": 20}, budget="30ep"),
        resnet(Component("cifar10"), {"width": 8, "depth": 20}, budget="30ep"),
        depth=20,
        settings={"model.depth": 20},
        smallest_effect=0.002,
    )


@RECIPES.register("distill-cifar10-jpeg")
def distill_cifar10_jpeg() -> StudySpec:
    """netdepth study distill-cifar10-jpeg: the same on CIFAR-10 (JPEG) with nets of eight layers, in an hour or two.

    Teacher of width 32 (298,000 parameters), student of width 8 (19,000), ten seeds, five epochs.
    """
    return distillation(
        "distill-cifar10-jpeg",
        "Does a small residual network learn more from a large one's answers than from the labels of CIFAR-10 (JPEG)?",
        resnet(Component("cifar10-jpeg"), {"width": 32, "depth": 8}, budget="10ep"),
        resnet(Component("cifar10-jpeg"), {"width": 8, "depth": 8}, budget="5ep"),
        depth=8,
        settings={"model.depth": 8},
        smallest_effect=0.005,
    )
