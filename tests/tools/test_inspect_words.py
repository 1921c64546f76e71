"""The paragraph of `netdepth inspect`: words for every cause and every end of a run."""

from __future__ import annotations

import dataclasses
import math

import pytest
from support.made_statistics import statistics as made

from netdepth.tools.inspect.statistics import words
from netdepth.training.layers import Statistics

TRAINED = made(500, loss=0.05, cosine=0.4)
STUCK = {"loss": 2.3}

WORDS = {
    "vanishes": (
        [made(ratio=3e-9), made(500, ratio=2e-8, **STUCK)],
        "Layer 1 receives 3e-9 of the last layer's gradient: the signal vanishes at initialisation. After epoch 5 the "
        "loss on these images is 2.3, no better than guessing (2.303): training did not bring the signal back.",
    ),
    "vanishes entirely": ([made(ratio=0.0), TRAINED], "Layer 1 receives no gradient at all: the signal vanishes"),
    "vanishes and comes back": (
        [made(ratio=5e-6), TRAINED],
        "(guessing: 2.303): training brought the signal back (layer 1 now receives 1 times the last layer's gradient).",
    ),
    "vanishes and trains": (
        [made(ratio=5e-6), made(500, ratio=6e-6, loss=0.3)],
        "training works nevertheless (6e-6 times the last layer's gradient).",
    ),
    "returns without use": (
        [made(ratio=5e-6), made(500, **STUCK)],
        "nothing was learned, although the gradient now reaches layer 1.",
    ),
    "vanishes on its way up": (
        [made(variances=(1.0, 1e-3, 2e-6)), TRAINED],
        "The activation variance of the last hidden layer is 2e-6 of the first one's: the signal vanishes at",
    ),
    "explodes": (
        [made(variances=(0.5, 1e6, 1e16), loss=3e8), made(500, variances=(0.5, 10.0, 1e6), loss=411.0)],
        "The activation variance of the last hidden layer is 2e16 times that of the first, and the loss is 3e8 "
        "(guessing: 2.303): the signal explodes at initialisation. After epoch 5 the loss on these images is 411, "
        "far above that of guessing (2.303): training did not bring the loss down.",
    ),
    "explodes and is tamed": (
        [made(variances=(1.0, 1e3, 1e6)), made(500, loss=0.1, variances=(1.0, 2.0, 3.0))],
        "training reduced the growth of the activation variance (now 3 times).",
    ),
    "explodes and trains": (
        [made(variances=(1.0, 1e3, 1e6)), made(500, loss=0.1, variances=(1.0, 2.0, 2e5))],
        "did not reduce the growth of the activation variance (now 2e5 times).",
    ),
    "gradient explodes": ([made(ratio=3800.0), TRAINED], "Layer 1 receives 3800 times the last layer's gradient: the"),
    "overflows at once": (
        [made(variances=(1.0, math.inf, math.nan), loss=math.nan, ratio=math.nan)],
        "At initialisation the activations are not finite from layer 2 on: the signal explodes.",
    ),
    "collapses": (
        [made(cosine=0.998), made(500, loss=0.05, cosine=0.41)],
        "Two different images reach the last layer with a cosine similarity of 0.9980: the network can hardly "
        "distinguish two images. After epoch 5 the loss on these images is 0.05 (guessing: 2.303): training pulled "
        "different images apart (cosine similarity now 0.41).",
    ),
    "collapses and stays": (
        [made(cosine=0.999999), made(500, loss=1.9, cosine=0.9951)],
        "of more than 0.9999: the network can hardly distinguish two images. After epoch 5 the loss on these images is "
        "1.9 (guessing: 2.303): training left different images close together (cosine similarity 0.9951).",
    ),
    "dead": (
        [made(dead=0.75), TRAINED],
        "In 3 of 3 hidden layers half of the units or more are zero for every image (layer 1: 75 %).",
    ),
    "one dead layer": (
        [made(dead=0.6, variances=(1.0,)), TRAINED],
        "In layer 1, 60 % of the units are zero for every image.",
    ),
    "healthy": (
        [made(ratio=0.77, variances=(1.0, 5.0, 31.0)), TRAINED],
        "At initialisation the signal gets through: layer 1 receives 0.77 times the last layer's gradient, and the "
        "activation variance grows 31-fold from the first hidden layer to the last. After epoch 5 the loss on these "
        "images is 0.05 (guessing: 2.303): training works.",
    ),
    "healthy but loud": (
        [made(variances=(1.0, 0.5, 0.1), loss=29.0)],
        "the activation variance falls to 0.1 of its value from the first hidden layer to the last; but the loss is 29 "
        "(guessing: 2.303).",
    ),
    "weakened": ([made(ratio=2e-3, variances=(1.0,)), TRAINED], "gets through weakened: layer 1 receives 0.002 times"),
    "nothing learned": ([made(), made(500, **STUCK)], "no better than guessing (2.303): nothing was learned."),
    "a head of zeros": (
        [made(head=0.0, ratio=0.0), TRAINED],
        "the last layer's weights are zero, so no gradient passes it before the first step. After epoch 5 the loss on "
        "these images is 0.05 (guessing: 2.303): training works.",
    ),
    "no gradient": ([made(gradient=0.0, ratio=math.nan)], "not even the last layer has a gradient: it receives"),
    "one layer": ([made(variances=()), TRAINED], "The network has one layer: nothing lies between the images and the"),
    "no layer": ([dataclasses.replace(made(), layers=())], "The network has no linear or convolution layer to"),
    "ends in nan": (
        [made(), made(20, gradient=math.nan, loss=math.nan, ratio=math.nan)],
        "After step 20 the gradient of layer 1 is not finite.",
    ),
    "no statistics of the start": ([made(100, ratio=1e-6), TRAINED], "the signal vanishes after epoch 1."),
}  # fmt: skip


@pytest.mark.parametrize("case", WORDS)
def test_words_for_every_case(case: str) -> None:
    found, expected = WORDS[case]
    text = words(found)
    assert expected in text
    assert "nan" not in text
    assert text.endswith(".")


@pytest.mark.parametrize(
    ("status", "found", "expected"),
    [
        ("diverged", [made()], "Training diverged: the loss was no longer finite."),
        (
            "diverged",
            [made(), made(1, variances=(1.0, math.inf, math.nan), loss=math.nan)],
            "no longer finite (after step 1 the activations are not finite from layer 2 on).",
        ),
        ("diverged", [made(), made(300, loss=7.0)], "Training diverged: the loss was no longer finite."),
        ("unfinished", [made()], "The effect of training is unknown: the run is unfinished."),
        ("failed", [made()], "The effect of training is unknown: the run failed."),
        ("completed", [made()], "The effect of training is unknown: nothing later was measured."),
        ("unfinished", [made(), made(200, loss=0.4)], "So far, after epoch 2 the loss on these images is 0.4"),
        ("failed", [made(), made(200, loss=0.4)], "The run failed; after epoch 2 the loss on these images is 0.4"),
        ("stopped_early", [made(), made(250, loss=0.4)], "After epoch 2.5 the loss on these images is 0.4"),
    ],
)
def test_words_for_every_end(status: str, found: list[Statistics], expected: str) -> None:
    text = words(found, status)
    assert expected in text
    assert "nan" not in text


def test_moments_are_short() -> None:
    assert [made(step).moment for step in (0, 7, 100, 16450)] == [
        "at initialisation", "after step 7", "after epoch 1", "after epoch 164.5",
    ]  # fmt: skip
