"""Depth studies: the lab's exercise 1.2, whether depth helps a fully connected network, and why not."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from netdepth.config import Component, RunConfig, TrainConfig
from netdepth.recipes.base import RECIPES
from netdepth.studyspec import Axis, Nuisance, Primary, StudySpec

__all__ = ["CONDITIONS", "depth_mlp", "depth_mlp5k"]

PLAIN, RESIDUAL, SCALED = "plain he", "residual he", "residual he scaled"

CONDITIONS: Mapping[str, Mapping[str, Any]] = {
    "plain default": {"model.shortcut": "none", "model.init": "default"},
    PLAIN: {"model.shortcut": "none", "model.init": "he"},
    RESIDUAL: {"model.shortcut": "identity", "model.init": "he"},
    SCALED: {"model.shortcut": "identity", "model.init": "he", "model.branch_scale": "blocks^-1/2"},
    "residual default": {"model.shortcut": "identity", "model.init": "default"},
}
"""``default`` is PyTorch's initialisation, too small for ReLU in a deep plain net; ``he`` keeps the size of a
plain net's signal and makes that of unscaled residual blocks grow with depth; ``scaled`` is blocks^-1/2."""


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
            optimizer=Component("adam", {"lr": 1e-3}),
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
