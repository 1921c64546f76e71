"""The hand-written pass against autograd, and who gets it."""

import copy

import pytest
import torch

from netdepth.config import Component
from netdepth.engine.flat import flatten
from netdepth.engine.gradients import autograd_gradients, choose_gradients, mlp_gradients
from netdepth.engine.objectives import OBJECTIVES
from netdepth.engine.optim import OPTIMIZERS
from netdepth.models import build

CE = OBJECTIVES.build(Component("cross-entropy"))


def twins(dtype=torch.float64, **args):
    model = build("mlp", (1, 6, 6), 5, seed=1, **args).to(dtype)
    model.normalize.set_statistics(torch.tensor([0.3]), torch.tensor([0.4]))
    other = copy.deepcopy(model)
    return (model, flatten(model)), (other, flatten(other))


def batch(step, size=9):
    generator = torch.Generator().manual_seed(step)
    images = torch.randint(0, 256, (size, 1, 6, 6), dtype=torch.uint8, generator=generator)
    return images, torch.randint(0, 5, (size,), generator=generator)


@pytest.mark.parametrize("hidden", [[], [7], [16, 8], [8] * 20])
def test_the_hand_written_pass_equals_autograd_in_float64(hidden):
    (model, flat), (other, other_flat) = twins(hidden=hidden, init="he")
    by_hand, reference = mlp_gradients(model), autograd_gradients(other, other_flat, CE)
    for step, size in enumerate([9, 9, 4, 1, 9]):
        loss, right = by_hand(*batch(step, size))
        expected_loss, expected_right = reference(*batch(step, size))
        assert abs(loss - expected_loss) < 1e-10
        assert right == expected_right
        assert torch.allclose(flat.grad, other_flat.grad, atol=1e-10, rtol=0)
        assert flat.grad.abs().max() > 0


def test_a_hundred_updates_stay_together_in_float64():
    (model, flat), (other, other_flat) = twins(hidden=[16, 8])
    by_hand, reference = mlp_gradients(model), autograd_gradients(other, other_flat, CE)
    adam, other_adam = (OPTIMIZERS.build(Component("adam", {"lr": 1e-2}), f) for f in (flat, other_flat))
    for step in range(100):
        by_hand(*batch(step))
        adam.step(adam.lr)
        reference(*batch(step))
        other_adam.step(adam.lr)
    assert torch.allclose(flat, other_flat, atol=1e-10, rtol=0)
    for parameter, twin in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.allclose(parameter, twin, atol=1e-10, rtol=0)


def test_flattening_changes_no_value_and_shares_memory_both_ways():
    model = build("mlp", (1, 6, 6), 5, hidden=[16, 8], seed=1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    flat = flatten(model)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert flat.numel() == sum(p.numel() for p in model.parameters())
    with torch.no_grad():
        flat.add_(1)
        flat.grad.fill_(2)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name] + 1)
        assert torch.equal(parameter.grad, torch.full_like(parameter, 2))


def test_large_logits_stay_finite():
    (model, flat), _ = twins(torch.float32, hidden=[8])
    with torch.no_grad():
        flat.mul_(1e4)
    loss, _ = mlp_gradients(model)(*batch(0))
    assert torch.isfinite(loss)
    assert torch.isfinite(flat.grad).all()


@pytest.mark.parametrize(
    ("args", "smoothing", "by_hand"),
    [({}, 0.0, True), ({"dropout": 0.1}, 0.0, False), ({"activation": "tanh"}, 0.0, False), ({}, 0.1, False)],
)
def test_everything_but_the_plain_relu_mlp_goes_through_autograd(args, smoothing, by_hand):
    (model, flat), _ = twins(hidden=[8], **args)
    objective = OBJECTIVES.build(Component("cross-entropy", {"label_smoothing": smoothing}))
    assert choose_gradients(model, flat, objective).__qualname__.startswith("mlp_gradients") is by_hand


def test_a_frozen_layer_goes_through_autograd_and_stays():
    model = build("mlp", (1, 6, 6), 5, hidden=[8])
    model.hidden[0].requires_grad_(False)
    before = model.hidden[0].weight.clone()
    flat = flatten(model)
    gradients = choose_gradients(model, flat, CE)
    assert gradients.__qualname__.startswith("autograd")
    gradients(*batch(0))
    OPTIMIZERS.build(Component("sgd"), flat).step(0.1)
    assert torch.equal(model.hidden[0].weight, before)
    assert flat.numel() == sum(p.numel() for p in model.head.parameters())
