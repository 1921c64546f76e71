"""Convolutional studies: the lab's exercise 1.3 and the paper's question, on small networks for a laptop, and the
experiment of He et al. 2016, "Deep Residual Learning for Image Recognition", §4.2, as the paper has it."""

from __future__ import annotations

from typing import Any

from netdepth.config import Component, Json, RunConfig, Settings, TrainConfig
from netdepth.recipes.base import ADAM, RECIPES
from netdepth.studyspec import Axis, Nuisance, Primary, StudySpec

__all__ = ["RESIDUAL", "cnn_small", "depth_cnn", "he2016_cifar10", "precision_cnn", "resnet"]

PLAIN, RESIDUAL = "plain", "residual"

# The sizes of `depth-cnn`. What they cost: a forward pass of width 16 takes 12.2, 40.6 and 125.5 million multiply-adds
# an image at depths 8, 20 and 56, of width 8 about a quarter of each, 45 million over the three depths. Two
# conditions and seven seeds make 6.3e8 per image of the budget. A run sees BUDGET x 45,000 images, and the evaluations
# and the final pass over everything, forward only, cost as much as some 50,000 more.
WIDTH = 8
BUDGET = "3ep"

SHORTCUTS = Axis("condition", {PLAIN: {"model.shortcut": "none"}, RESIDUAL: {"model.shortcut": "identity"}})
SGD = Component("sgd", {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4})


def resnet(dataset: Component, settings: Settings, optimizer: Component = ADAM, **train: Any) -> RunConfig:
    """A residual network with ``settings``: a rate divided by ten after half and three quarters of the steps, batches
    of 128, crops and flips."""
    return RunConfig(
        dataset=dataset,
        model=Component("resnet", settings),
        optimizer=optimizer,
        schedule=Component("step"),
        augmentation=Component("crop-flip"),
        train=TrainConfig(**{"batch_size": 128, **train}),
    )


@RECIPES.register("depth-cnn")
def depth_cnn() -> StudySpec:
    """netdepth study depth-cnn: CIFAR-10 (JPEG), plain and residual nets of 8, 20 and 56 layers, in two hours.

    Seven seeds; takes about two hours on two cores, `--dry-run` estimates it for yours. `--dataset cifar10` takes the
    official pictures. Expected, since that is what it gave: plain nets fit their own training data worse at 20 and
    at 56 layers than at 8, residual ones better at 20. At 56 the residual nets have the lower mean and are
    undecided: in so few steps the rate of 0.1 leaves some of their seeds near chance. That is He et al. 2016, Fig. 1
    and 6, at half their width and a sixtieth of their steps, so the numbers are not theirs.

    Named beforehand: the paired test of residual against plain at depth 56, the only one that seven pairs can
    decide, and four comparisons of depth. Fixed for all cells: SGD with momentum 0.9 at 0.1, divided by ten after
    half and three quarters of the steps, weight decay 1e-4, batch 128, crops and flips.
    """
    return StudySpec(
        name="depth-cnn",
        question="Do deeper convolutional networks train worse on CIFAR-10, and do shortcuts cure it?",
        base=resnet(
            Component("cifar10-jpeg"), {"width": WIDTH}, SGD, budget=BUDGET, eval_every="176it"
        ),  # half an epoch
        scientific=(Axis.of_depths((8, 20, 56)), SHORTCUTS),
        seeds=tuple(range(7)),
        # Seven pairs give p = 2/128 at best: one comparison of the family reaches 0.025, two do not.
        primary=(
            *(Primary("depth", depth, condition) for condition in (PLAIN, RESIDUAL) for depth in (20, 56)),
            Primary("shortcut", 56, RESIDUAL, PLAIN),
        ),
        smallest_effect=0.05,
        max_looks=1,
        nuisance=(Nuisance("optimizer.lr"),),
        paper="he2016",
    )


@RECIPES.register("cnn-small")
def cnn_small() -> StudySpec:
    """netdepth study cnn-small: CIFAR-10 (JPEG), a simple CNN against a residual one of its size, in an hour.

    Takes less than an hour on two cores. Both have eight layers and about 75,000 parameters: the simple one three
    stages of two convolutions and a pooling, a hidden layer and dropout; the residual one batch norm,
    shortcuts and global average pooling (width 16). Seven seeds, one paired test. Expected, and found
    (docs/findings.md): the residual net fits its training data better and has the lower validation error.

    Fixed for both: Adam at 1e-3, divided by ten after half and three quarters of the steps, batch 128, five epochs,
    crops and flips.
    """
    simple: Settings = {"model": "cnn", "model.channels": [12, 24, 48], "model.convolutions": 2, "model.hidden": 44}
    return StudySpec(
        name="cnn-small",
        question="Does a residual network beat a simple CNN of the same depth and size on CIFAR-10?",
        base=resnet(Component("cifar10-jpeg"), {}, budget="5ep"),
        scientific=(
            Axis.of_depths((8,)),
            Axis("condition", {"simple": {**simple, "model.init": "he"}, RESIDUAL: {"model.width": 16}}),
        ),
        seeds=tuple(range(7)),
        primary=(Primary("shortcut", 8, RESIDUAL, "simple"),),
        smallest_effect=0.05,
        max_looks=1,
        nuisance=(Nuisance("optimizer.lr"),),
    )


@RECIPES.register("precision-cnn")
def precision_cnn() -> StudySpec:
    """netdepth study precision-cnn: CIFAR-10 (JPEG), ResNet-20 in bfloat16 against float32, seven seeds, half an hour.

    Takes less than half an hour on two cores that have instructions for bfloat16, much longer on others. Expected: no
    difference of the validation error of more than a point. docs/gpu.md says what is computed in bfloat16.

    Fixed for both: Adam at 1e-3, divided by ten after half and three quarters of the steps, batch 128, one epoch,
    crops and flips; the same seeds, so the same initial weights, batches and crops.
    """
    return StudySpec(
        name="precision-cnn",
        question="Does training in bfloat16 change what a convolutional network reaches on CIFAR-10?",
        base=resnet(Component("cifar10-jpeg"), {"width": 16}, budget="1ep"),
        scientific=(
            Axis.of_depths((20,)),
            Axis("condition", {name: {"train.precision": name} for name in ("float32", "bf16")}),
        ),
        seeds=tuple(range(7)),
        primary=(Primary("condition", 20, "bf16", "float32"),),
        smallest_effect=0.01,
        max_looks=1,
        nuisance=(Nuisance("optimizer.lr"),),
    )


@RECIPES.register("he2016-cifar10")
def he2016_cifar10() -> StudySpec:
    """netdepth study he2016-cifar10: CIFAR-10, plain and residual nets of 20 to 110 layers, 64,000 steps: the paper.

    Its 50 runs take about two weeks on two cores: meant for a GPU or a cluster (`--ray`). `--depths 20,56`, `--seeds 3`
    and `--set train.budget=6400it` each make it smaller; the rate is divided at the same shares of any budget.
    Expected: plain nets are worse with depth on their training data, residual ones better (Fig. 6), with test errors
    of 8.75, 7.51, 7.17 and 6.97 % at 20, 32, 44 and 56 layers (one run each) and 6.61 ± 0.16 % at 110 (five runs, the
    best 6.43 %; Table 6).

    The 45,000 / 5,000 split is the one on which the paper chose its budget. Its numbers are of nets trained on all
    50,000 images, with the last weights: `--set dataset.val_size=0` makes what the report compares with them.

    SGD with momentum 0.9 and weight decay 1e-4, batch 128, rate 0.1 divided by ten at 32,000 and 48,000 steps; at depth
    110 a warm-up at 0.01 until the training error is below 80 %. Per-pixel mean, crops with four pixels of
    padding, flips. Five seeds: they can decide three unpaired comparisons, named beforehand, and no paired one.
    """
    levels: dict[str, dict[str, Json]] = {str(depth): {"model.depth": depth} for depth in (20, 32, 44, 56, 110)}
    # The paper's warm-up is for depth 110 alone and took some 400 steps; it ends at an evaluation.
    levels["110"] |= {"schedule": "paper-warmup", "train.eval_every": "100it"}
    return StudySpec(
        name="he2016-cifar10",
        question="Are deeper plain networks harder to train on CIFAR-10, and deeper residual ones better?",
        base=resnet(
            Component("cifar10"), {"width": 16, "normalization": "pixel"}, SGD, budget="64000it", eval_every="400it"
        ),
        scientific=(Axis("depth", levels), SHORTCUTS),
        seeds=tuple(range(5)),
        # Five against five give p = 2/252 at best: three comparisons reach 0.025, four do not.
        primary=(Primary("depth", 56, PLAIN), Primary("depth", 56, RESIDUAL), Primary("depth", 110, RESIDUAL)),
        smallest_effect=0.01,
        max_looks=1,
        nuisance=(Nuisance("optimizer.lr"),),
        paper="he2016",
    )
