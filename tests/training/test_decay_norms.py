"""Weight decay with and without the scales and shifts of normalisation layers, against PyTorch's parameter groups."""

import copy

import pytest
import torch
from torch import nn

from netdepth.config import Component
from netdepth.models import build
from netdepth.training.optim import OPTIMIZERS
from netdepth.training.stack import Stack

NETS = {
    "resnet": (Component("resnet", {"depth": 8, "width": 2}), (3, 8, 8)),
    "pre-activated": (Component("resnet", {"depth": 8, "width": 2, "pre_activation": True}), (3, 8, 8)),
    "mlp": (Component("mlp", {"hidden": [6, 5], "norm": "layer"}), (1, 4, 4)),
    "none": (Component("mlp", {"hidden": [6, 5]}), (1, 4, 4)),
}
NORMS = nn.BatchNorm2d | nn.BatchNorm1d | nn.LayerNorm


def filled(model, step):
    """Gradients that depend on the step and the parameter, the same for both networks."""
    generator = torch.Generator().manual_seed(step)
    for parameter in model.parameters():
        parameter.grad.copy_(torch.randn(parameter.shape, dtype=parameter.dtype, generator=generator))


@pytest.mark.parametrize("decays", [True, False])
@pytest.mark.parametrize("name", ["sgd", "adamw"])
@pytest.mark.parametrize("net", NETS)
def test_updates_equal_pytorchs_with_a_group_for_the_norms(net, name, decays):
    component, shape = NETS[net]
    ours = build(component, shape, 5).double()
    theirs = copy.deepcopy(ours)
    norms = [p for module in theirs.modules() if isinstance(module, NORMS) for p in module.parameters()]
    others = [p for p in theirs.parameters() if all(p is not norm for norm in norms)]
    assert bool(norms) == (net != "none")
    groups = [{"params": others, "weight_decay": 0.1}]
    groups += [{"params": norms, "weight_decay": 0.1 if decays else 0.0}] if norms else []
    reference = torch.optim.SGD(groups, 0.1, 0.9) if name == "sgd" else torch.optim.AdamW(groups, 0.1)
    for parameter in theirs.parameters():
        parameter.grad = torch.zeros_like(parameter)
    flat = Stack([ours], channels_last=True).flat
    component = Component(name, {"lr": 0.1, "weight_decay": 0.1, "decay_norms": decays})
    optimizer = OPTIMIZERS.build(component, flat)
    for step in range(6):
        filled(ours, step)
        filled(theirs, step)
        optimizer.step(0.1)
        reference.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-12, rtol=0)


def test_spans_of_norms_hold_exactly_their_parameters_in_every_lane():
    models = [build("mlp", (1, 4, 4), 5, seed=seed, hidden=[6, 5], norm="layer") for seed in (0, 1)]
    stack = Stack(models)
    inside = torch.zeros_like(stack.flat.data)
    for start, end in stack.flat.norms:
        inside[start:end] = 1
    stack.flat.data.copy_(inside)
    for model in models:
        for name, parameter in model.named_parameters():
            assert bool((parameter == 1).all()) == name.startswith("norms."), name
    assert len(stack.flat.norms) == 1, "scales and shifts of layers that lie side by side are one span"
    assert inside.sum() == 2 * 2 * (6 + 5)


def test_the_default_is_left_out_of_the_fingerprint():
    for name in ("sgd", "adamw"):
        default = OPTIMIZERS.hashed(OPTIMIZERS.resolve(Component(name)))
        assert "decay_norms" not in default["args"]
        other = OPTIMIZERS.hashed(OPTIMIZERS.resolve(Component(name, {"decay_norms": False})))
        assert other["args"] == {**default["args"], "decay_norms": False}
