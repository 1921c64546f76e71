"""The experiment of He et al. 2016, "Deep Residual Learning for Image Recognition", §4.2, as the paper has it."""

from __future__ import annotations

from netdepth.config import Component, RunConfig, TrainConfig
from netdepth.recipes.base import RECIPES
from netdepth.studyspec import Axis, Nuisance, Primary, StudySpec

__all__ = ["he2016_cifar10"]

DEPTHS = (20, 32, 44, 56, 110)
PLAIN, RESIDUAL = "plain", "residual"


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
    levels: dict[str, dict[str, object]] = {str(depth): {"model.depth": depth} for depth in DEPTHS}
    # The paper's warm-up is for depth 110 alone and took some 400 steps; it ends at an evaluation.
    levels["110"] |= {"schedule": "paper-warmup", "train.eval_every": "100it"}
    return StudySpec(
        name="he2016-cifar10",
        question="Are deeper plain networks harder to train on CIFAR-10, and deeper residual ones better?",
        base=RunConfig(
            dataset=Component("cifar10"),
            model=Component("resnet", {"width": 16, "normalization": "pixel"}),
            optimizer=Component("sgd", {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4}),
            schedule=Component("step"),
            augmentation=Component("crop-flip"),
            train=TrainConfig(budget="64000it", eval_every="400it", batch_size=128),
        ),
        scientific=(
            Axis("depth", levels),
            Axis("condition", {PLAIN: {"model.shortcut": "none"}, RESIDUAL: {"model.shortcut": "identity"}}),
        ),
        seeds=tuple(range(5)),
        # Five against five give p = 2/252 at best: three comparisons reach 0.025, four do not.
        primary=(Primary("depth", 56, PLAIN), Primary("depth", 56, RESIDUAL), Primary("depth", 110, RESIDUAL)),
        smallest_effect=0.01,
        nuisance=(Nuisance("optimizer.lr"),),
        paper="he2016",
    )
