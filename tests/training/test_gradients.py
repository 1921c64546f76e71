"""The handwritten pass against autograd, alone and for several seeds at once, and who gets it."""

import copy

import pytest
import torch

from netdepth.config import Component
from netdepth.errors import BadInput
from netdepth.models import build
from netdepth.models.mlp import MLP
from netdepth.training.gradients import autograd_gradients, choose_gradients, has_handwritten_pass, mlp_gradients
from netdepth.training.objectives import OBJECTIVES
from netdepth.training.optim import OPTIMIZERS
from netdepth.training.stack import Stack

CE = OBJECTIVES.build(Component("cross-entropy"))
RESIDUAL = {"width": 8, "shortcut": "identity", "init": "he"}
NETS = [
    {"hidden": []},
    {"hidden": [7]},
    {"hidden": [16, 8], "init": "he"},
    {"hidden": [8] * 20, "init": "he"},
    {**RESIDUAL, "depth": 2},
    {**RESIDUAL, "depth": 3},
    {**RESIDUAL, "depth": 7},
    {**RESIDUAL, "depth": 7, "branch_scale": "blocks^-1/2"},
    {**RESIDUAL, "depth": 8, "block_layers": 2},
    {**RESIDUAL, "depth": 11, "block_layers": 3, "branch_scale": "blocks^-1/2"},
    {**RESIDUAL, "depth": 8, "block_layers": 2, "shortcut": "none"},
]


def network(seed=1, dtype=torch.float64, **args):
    model = build("mlp", (1, 6, 6), 5, seed=seed, **args).to(dtype)
    model.normalize.set_statistics(torch.tensor([0.3]), torch.tensor([0.4]))
    return model


def twins(dtype=torch.float64, **args):
    model = network(dtype=dtype, **args)
    return Stack([model]), Stack([copy.deepcopy(model)])


def batch(step, size=9):
    generator = torch.Generator().manual_seed(step)
    images = torch.randint(0, 256, (size, 1, 6, 6), dtype=torch.uint8, generator=generator)
    return images, torch.randint(0, 5, (size,), generator=generator)


@pytest.mark.parametrize("args", NETS, ids=str)
def test_the_handwritten_pass_equals_autograd_in_float64(args):
    stack, other = twins(**args)
    handwritten, reference = mlp_gradients(stack), autograd_gradients(other, CE)
    for step, size in enumerate([9, 9, 4, 1, 9]):
        loss, right = handwritten(*batch(step, size))
        expected_loss, expected_right = reference(*batch(step, size))
        assert abs(loss - expected_loss) < 1e-10
        assert right == expected_right
        assert torch.allclose(stack.gradient, other.gradient, atol=1e-10, rtol=1e-10)
        assert stack.gradient.abs().max() > 0
    with torch.no_grad():
        stack.flat.mul_(1e4)
    assert torch.isfinite(handwritten(*batch(0))[0]), "logits as large as that"
    assert torch.isfinite(stack.gradient).all()


@pytest.mark.parametrize("args", NETS, ids=str)
def test_several_seeds_at_once_equal_each_alone_in_float64(args):
    seeds = (3, 1, 4)
    together = Stack([network(seed, **args) for seed in seeds])
    alone = [Stack([network(seed, **args)]) for seed in seeds]
    passes = [mlp_gradients(stack) for stack in alone]
    stacked = mlp_gradients(together)
    for step, size in enumerate([9, 9, 4, 1]):
        parts = [batch(10 * step + index, size) for index in range(len(seeds))]
        losses, right = stacked(torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts]))
        for index, (single, stack) in enumerate(zip(passes, alone, strict=True)):
            loss, hits = single(*parts[index])
            assert abs(losses[index] - loss) < 1e-10
            assert right[index] == hits
            assert torch.allclose(together.row(together.gradient, index), stack.gradient, atol=1e-10, rtol=1e-10)


def test_a_retired_replica_is_zero_and_its_neighbours_go_on_as_before():
    args = NETS[7]
    full, thinned = (Stack([network(seed, **args) for seed in (0, 1, 2)]) for _ in range(2))
    adams = [OPTIMIZERS.build(Component("adam"), stack.flat) for stack in (full, thinned)]
    passes = [mlp_gradients(stack) for stack in (full, thinned)]
    for step in range(6):
        if step == 2:
            thinned.retire(1, [adams[1].state["exp_avg"], adams[1].state["exp_avg_sq"]])
            assert thinned.live == [0, 2]
            assert not thinned.row(thinned.flat, 1).any()
        for gradients, adam in zip(passes, adams, strict=True):
            gradients(*batch(step, 27))
            adam.step(adam.lr)
    for index in (0, 2):
        assert torch.equal(full.row(full.flat, index), thinned.row(thinned.flat, index))
    assert torch.isfinite(thinned.flat).all()


def test_a_subclass_and_a_changed_mlp_go_through_autograd():
    class Doubled(MLP):
        def features(self, x):
            return 2 * super().features(x)

    changed = network(hidden=[8])
    changed.activation = torch.nn.ELU()
    for model in (Doubled((1, 6, 6), 5, [8], "relu", 0.0), changed):
        assert not has_handwritten_pass(model, CE)
        assert not choose_gradients(Stack([model]), CE).__qualname__.startswith("mlp_gradients")


@pytest.mark.parametrize(
    ("args", "smoothing", "hand"),
    [
        ({}, 0.0, True),
        ({"dropout": 0.1}, 0.0, False),
        ({"activation": "tanh"}, 0.0, False),
        ({}, 0.1, False),
        ({"norm": "layer"}, 0.0, False),
        ({"pre_activation": True}, 0.0, False),
        ({"shortcut": "identity", "branch_scale": "blocks^-1/2"}, 0.0, True),
        ({"shortcut": "identity", "branch_scale": "rezero"}, 0.0, False),
        ({"shortcut": "identity", "branch_scale": "fixup"}, 0.0, False),
    ],
)
def test_what_the_handwritten_pass_does_not_know_goes_through_autograd_and_is_not_stacked(args, smoothing, hand):
    stack, _ = twins(hidden=[8, 8, 8], **args)
    objective = OBJECTIVES.build(Component("cross-entropy", {"label_smoothing": smoothing}))
    assert has_handwritten_pass(stack.models[0], objective) is hand
    assert choose_gradients(stack, objective).__qualname__.startswith("mlp_gradients") is hand
    two = Stack([network(seed, hidden=[8, 8, 8], **args) for seed in (0, 1)])
    if hand:
        assert choose_gradients(two, objective).__qualname__.startswith("mlp_gradients")
    else:
        with pytest.raises(BadInput, match="one at a time"):
            choose_gradients(two, objective)


def test_a_frozen_layer_goes_through_autograd_and_stays():
    model = build("mlp", (1, 6, 6), 5, hidden=[8])
    model.hidden[0].requires_grad_(False)
    before = model.hidden[0].weight.clone()
    stack = Stack([model])
    gradients = choose_gradients(stack, CE)
    assert gradients.__qualname__.startswith("autograd")
    gradients(*batch(0))
    OPTIMIZERS.build(Component("sgd"), stack.flat).step(0.1)
    assert torch.equal(model.hidden[0].weight, before)
    assert stack.flat.numel() == sum(p.numel() for p in model.head.parameters())
