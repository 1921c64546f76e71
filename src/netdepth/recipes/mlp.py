"""Fully connected networks: the baseline, and the lab's exercise 1.2, whether depth helps them, and why not."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from netdepth.config import Component, EarlyStopping, Overfitting, RunConfig, Settings, TrainConfig
from netdepth.recipes.base import ADAM, RECIPES
from netdepth.studyspec import Axis, Nuisance, Primary, StudySpec

__all__ = ["CONDITIONS", "baseline_mlp", "depth_mlp", "depth_mlp5k", "mlp_regularised"]

PLAIN, RESIDUAL, SCALED = "plain he", "residual he", "residual he scaled"

CONDITIONS: Mapping[str, Settings] = {
    "plain default": {"model.shortcut": "none", "model.init": "default"},
    PLAIN: {"model.shortcut": "none", "model.init": "he"},
    RESIDUAL: {"model.shortcut": "identity", "model.init": "he"},
    SCALED: {"model.shortcut": "identity", "model.init": "he", "model.branch_scale": "blocks^-1/2"},
    "residual default": {"model.shortcut": "identity", "model.init": "default"},
}
"""``default`` is PyTorch's initialisation, too small for ReLU in a deep plain net; ``he`` keeps the size of a
plain net's signal and makes that of unscaled residual blocks grow with depth; ``scaled`` is blocks^-1/2."""


@RECIPES.register("baseline-mlp")
def baseline_mlp() -> RunConfig:
    """netdepth train baseline-mlp --seeds 10: MNIST with a 784-256-128-10 network, test accuracy at least 97.39 %.

    Takes 15 to 30 seconds a seed on one core. The numbers are means over seeds 0 to 9, of the best
    weights by validation loss: test accuracy at least 97.39 %, weighted precision at least 97.43 %,
    loss at most 0.1053.
    """
    return RunConfig(
        dataset=Component("mnist"),
        model=Component("mlp", {"hidden": [256, 128], "activation": "relu"}),
        objective=Component("cross-entropy"),
        optimizer=ADAM,
        schedule=Component("constant"),
        train=TrainConfig(
            budget="30ep",
            batch_size=64,
            early_stopping=EarlyStopping(monitor="val_loss", patience=5),
            overfitting=Overfitting(patience=3, action="flag"),
        ),
    )


@RECIPES.register("mlp-regularised")
def mlp_regularised() -> RunConfig:
    """netdepth train mlp-regularised --dataset fashion-mnist --seeds 10: mean test accuracy above 89.5 %.

    Takes about a minute a seed on one core. The baseline's network with dropout and a one-cycle
    rate over a fixed budget, chosen on validation (docs/experiments.md); the last weights are reported.
    """
    plain: RunConfig = baseline_mlp()
    return dataclasses.replace(
        plain,
        model=Component("mlp", {**plain.model.args, "dropout": 0.2}),
        optimizer=Component("adamw", {"lr": 1e-3}),
        schedule=Component("one-cycle"),
        train=dataclasses.replace(plain.train, budget="20ep", early_stopping=None),
    )


@RECIPES.register("depth-mlp")
def depth_mlp() -> StudySpec:
    """netdepth study depth-mlp: MNIST, seven depths, five conditions, ten seeds: vanishing, degradation, explosion.

    Takes less than an hour on two cores; `--dry-run` estimates it for yours, `--depths 2,8,24` is a
    part of it. Expected: plain nets with PyTorch's default initialisation stay at chance from some
    depth on (the signal vanishes); with He's they train, but worse with depth on their own training
    data (degradation); unscaled residual nets with He's explode; scaled by blocks^-1/2 they train
    at every depth.

    Fixed for all cells: width 64, batch 128, five epochs, Adam at 1e-3, constant. The learning rate is
    a nuisance stated as fixed (`--tune lr` chooses it per cell).
    """
    depths = (2, 4, 8, 16, 24, 32, 40)
    return StudySpec(
        name="depth-mlp",
        question="Does depth help a fully connected network on MNIST, and if not, why?",
        base=RunConfig(
            dataset=Component("mnist"),
            model=Component("mlp", {"width": 64}),
            optimizer=ADAM,
            schedule=Component("constant"),
            train=TrainConfig(budget="5ep", batch_size=128),
        ),
        scientific=(Axis.of_depths(depths), Axis("condition", CONDITIONS)),
        seeds=tuple(range(10)),
        # Ten paired seeds give p = 2/1024 at best, so at most twelve paired comparisons can be decided; unpaired
        # they give 2/184756, and thirty are no strain.
        primary=(
            *(Primary("depth", depth, condition) for condition in CONDITIONS for depth in depths[1:]),
            *(Primary("shortcut", depth, SCALED, PLAIN) for depth in depths if depth >= 8),
        ),
        smallest_effect=0.02,
        max_looks=1,
        nuisance=(Nuisance("optimizer.lr"),),
    )


@RECIPES.register("depth-mlp5k")
def depth_mlp5k() -> StudySpec:
    """netdepth study depth-mlp5k: the same question on 5,000 digits that come with the package, under a minute.

    Takes well under a minute on two cores. Five depths, plain against scaled residual nets with He's initialisation,
    seven seeds. One comparison is named beforehand: the residual against the plain net at depth 32.
    Expected: the plain net fits its training data worse there, the residual one does not.
    """
    whole: StudySpec = depth_mlp()
    return dataclasses.replace(
        whole,
        name="depth-mlp5k",
        question="Does a residual connection help a network of 32 layers on 3,000 MNIST digits?",
        base=dataclasses.replace(
            whole.base,
            dataset=Component("mnist5k"),
            optimizer=Component("adam", {"lr": 5e-4}),
            train=TrainConfig(budget="10ep", batch_size=32),
        ),
        scientific=(
            Axis.of_depths((2, 4, 8, 16, 32)),
            Axis("condition", {name: CONDITIONS[name] for name in (PLAIN, SCALED)}),
        ),
        seeds=tuple(range(7)),
        primary=(Primary("shortcut", 32, SCALED, PLAIN),),
    )
