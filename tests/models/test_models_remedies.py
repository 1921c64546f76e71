"""Remedies against depth: where gradients start to flow, ReZero, Fixup, scaled branches, LSUV."""

import copy
import math

import pytest
import torch
from support.twins import CASES, CLASSES, SHAPE, images, make, name_of
from torch.nn import functional as F

from netdepth import data
from netdepth.config import Component, RunConfig, TrainConfig
from netdepth.errors import BadInput
from netdepth.models import build
from netdepth.models.init import rescale_lsuv
from netdepth.training.resolve import build_model, fill_in


def sgd(model, steps, lr=0.05):
    """Names of the parameters that had a gradient other than zero, per step of SGD."""
    labels, seen = torch.arange(32) % CLASSES, []
    for _ in range(steps):
        model.zero_grad()
        F.cross_entropy(model(images()), labels).backward()
        seen.append({key for key, p in model.named_parameters() if p.grad.abs().max() > 1e-12})
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.sub_(parameter.grad, alpha=lr)
    return seen


@pytest.mark.parametrize("args", CASES, ids=name_of)
def test_every_parameter_has_a_gradient_within_three_steps(args):
    model = make(**args).double()
    names = {key for key, _ in model.named_parameters()}
    if args["norm"] == "batch":  # which subtracts the bias of the layer before it
        names -= {key for key in names if key.startswith("hidden.") and key.endswith(".bias")}
    assert names - set().union(*sgd(model, 3)) == set()


def test_rezero_starts_as_the_identity_and_opens_at_the_second_step():
    model = make(shortcut="identity", branch_scale="rezero").double()
    shallow = make(depth=2).double()
    shallow.load_state_dict({key: model.state_dict()[key] for key in shallow.state_dict()})
    assert torch.equal(model(images()), shallow(images()))
    first, second = sgd(model, 2)
    inside = {f"hidden.{i}.weight" for i in range(1, 7)}
    assert "alpha" in first
    assert not first & inside
    assert inside <= second


@pytest.mark.parametrize("k", [1, 2, 3])
def test_fixup_starts_as_its_paper_says(k):
    model, plain = (
        make(depth=14, block_layers=k, shortcut=s, branch_scale=b) for s, b in (("identity", "fixup"), ("none", "1"))
    )
    blocks = 12 // k
    assert torch.equal(model(images()), torch.zeros(32, CLASSES))
    for i, (ours, drawn) in enumerate(zip(model.hidden, plain.hidden, strict=True)):
        if i > 0 and i % k == 0:
            assert ours.weight.abs().max() == 0
        else:
            factor = 1.0 if i == 0 else blocks ** (-1 / (2 * k - 2))
            assert torch.allclose(ours.weight, drawn.weight * factor, rtol=1e-6)
    assert torch.equal(model.multiplier, torch.ones(blocks))
    assert torch.equal(model.offset, torch.zeros(12))
    first, second = sgd(model.double(), 2)
    assert first == {"head.weight", "head.bias"}
    assert {f"hidden.{i}.weight" for i in range(k, 13, k)} <= second


def test_scaled_branches_keep_the_size_of_the_signal_that_unscaled_ones_explode():
    def size(depth, **args):
        model = build("mlp", (1, 28, 28), 10, width=64, depth=depth, init="he", **args)
        return float(model.features(pixels).detach().std())

    pixels = torch.randint(0, 256, (64, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    residual = {"shortcut": "identity"}
    assert size(42, **residual) > 1e4 * size(4, **residual)
    scaled = {**residual, "branch_scale": "blocks^-1/2"}
    assert size(42, **scaled) < 20 * size(4, **scaled)
    assert size(42, **scaled, pre_activation=True) < 2 * size(4, **scaled, pre_activation=True)
    assert 0.8 * size(4, norm="layer") < size(42, norm="layer") < 1.25 * size(4, norm="layer")
    default = build("mlp", (1, 28, 28), 10, width=64, depth=42)
    assert default.features(pixels).std(0).max() < 1e-6  # under PyTorch's default all images look alike


# -- LSUV ----------------------------------------------------------------------------------------


def output_variances(model, inputs):
    """Variance of what each weight layer puts out, in training mode without dropout, in order."""
    model, seen = copy.deepcopy(model).train(), []
    model.dropout.p = 0.0
    for layer in (*model.hidden, model.head):
        layer.register_forward_hook(lambda module, args, output: seen.append(float(output.detach().var())))
    model(inputs)
    return seen


@pytest.mark.parametrize("args", [c for c in CASES if c["branch_scale"] != "fixup"], ids=name_of)
def test_lsuv_gives_every_layer_unit_variance_and_touches_only_weights(args):
    model = make(init="lsuv", dropout=0.3, **args).eval()
    model.dropout.train()
    before = copy.deepcopy(model)
    generator = torch.random.get_rng_state()
    rescale_lsuv(model, images())
    assert torch.equal(generator, torch.random.get_rng_state())
    variances = output_variances(model, images())
    assert len(variances) == 8
    assert all(0.88 < variance < 1.12 for variance in variances), variances
    assert [m.training for m in model.modules()] == [m.training for m in before.modules()]
    assert not any(m._forward_hooks for m in model.modules())
    for key, value in model.state_dict().items():
        old = before.state_dict()[key]
        if key.endswith(".weight") and not key.startswith("norms."):
            ratio = value.norm() / old.norm()  # scaled as a whole, never turned
            assert torch.allclose(value, old * ratio, rtol=1e-4)
        else:
            assert torch.equal(value, old), key
    again = copy.deepcopy(before)
    rescale_lsuv(again, images())
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True))


def test_lsuv_is_algorithm_1_of_its_paper():
    model = make(init="lsuv", shortcut="identity", block_layers=2).double()
    expected = copy.deepcopy(model)
    rescale_lsuv(model, images())
    for i, layer in enumerate((*expected.hidden, expected.head)):
        tries = 0
        while abs((variance := output_variances(expected, images())[i]) - 1.0) >= 0.1 and tries < 10:
            with torch.no_grad():
                layer.weight /= math.sqrt(variance)
            tries += 1
    for ours, theirs in zip((*model.hidden, model.head), (*expected.hidden, expected.head), strict=True):
        assert torch.allclose(ours.weight, theirs.weight, rtol=5e-3)  # n against n - 1 in the variance


def test_lsuv_leaves_layers_alone_that_put_out_a_constant():
    model = make(init="lsuv")
    before = copy.deepcopy(model.state_dict())
    rescale_lsuv(model, torch.zeros(8, *SHAPE, dtype=torch.uint8))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_the_engine_rescales_lsuv_on_training_images_and_nothing_else():
    def initial(**args):
        model = Component("mlp", {"width": 16, "depth": 6, **args})
        config = RunConfig(dataset=Component("mnist5k"), model=model, train=TrainConfig(precision="float64"))
        return build_model(fill_in(config), splits)

    splits = data.load(Component("mnist5k"), data_dir=None)
    assert not initial(init="orthogonal").lsuv
    plain, residual = initial(init="lsuv"), initial(init="lsuv", shortcut="identity")
    for model in (plain, residual):
        assert model.lsuv
        assert all(0.8 < variance < 1.2 for variance in output_variances(model, splits.train.inputs))
    assert torch.equal(plain.hidden[0].weight, residual.hidden[0].weight)
    again = initial(init="lsuv")
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), again.parameters(), strict=True))


def test_batch_norm_refuses_a_batch_of_one_image():
    splits = data.load(Component("mnist5k"), data_dir=None)  # 3,000 training images
    model = Component("mlp", {"hidden": [4], "norm": "batch"})
    for size, good in ((1, False), (2999, False), (2, True), (3000, True), (4000, True)):
        config = fill_in(RunConfig(Component("mnist5k"), model, train=TrainConfig(batch_size=size)))
        if good:
            build_model(config, splits)
            continue
        with pytest.raises(BadInput, match=f"train.batch_size = {size} leaves a batch of one"):
            build_model(config, splits)
