"""Small MLPs with every kind of block, for the tests of twins and remedies."""

import itertools

import torch

from netdepth.models import build

SHAPE, CLASSES = (1, 6, 6), 5
SCALES = ("1", "blocks^-1/2", "rezero", "fixup")
SHAPES = [  # every shape of block, with a dozen weight layers or fewer
    {"block_layers": k, "pre_activation": pre, "norm": norm}
    for k, pre, norm in itertools.product((1, 2), (False, True), ("none", "batch", "layer"))
]
CASES = [
    {"shortcut": shortcut, "branch_scale": scale, **shape}
    for shape in SHAPES
    for shortcut, scale in [("none", "1"), *(("identity", s) for s in SCALES)]
    if scale != "fixup" or shape["norm"] == "none"
]


def name_of(args):
    return "-".join(str(value) for value in args.values())


def make(seed=0, **args):
    return build("mlp", SHAPE, CLASSES, seed=seed, **{"width": 8, "depth": 8, "init": "he", **args})


def images(n=32):
    return torch.randint(0, 256, (n, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
