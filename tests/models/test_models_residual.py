"""Residual MLPs: their plain twins, the function they compute, remedies against depth, what is refused."""

import copy
import itertools
import math

import pytest
import torch
from torch.nn import functional as F

from netdepth import data
from netdepth.config import Component, RunConfig, TrainConfig
from netdepth.models import build, describe
from netdepth.models.init import rescale_lsuv
from netdepth.training.resolve import build_model, fill_in

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


def stirred(model):
    """``model`` in float64 with all that starts at zero or one moved away from it."""
    model = model.double()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    model.normalize.set_statistics(torch.tensor([0.25]), torch.tensor([0.5]))
    return model


# -- twins ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", ["1", "blocks^-1/2"])
@pytest.mark.parametrize("shape", SHAPES, ids=name_of)
@pytest.mark.parametrize("init", ["default", "he", "xavier", "orthogonal", "lsuv"])
def test_twins_have_the_same_parameters_to_the_bit(init, shape, scale):
    residual = make(init=init, branch_scale=scale, shortcut="identity", **shape)
    plain = make(init=init, branch_scale=scale, shortcut="none", **shape)
    ours, theirs = residual.state_dict(), plain.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert describe(residual) == describe(plain)
    assert describe(residual).depth == 8 == 2 + shape["block_layers"] * residual.blocks
    assert plain.blocks == residual.blocks
    with torch.inference_mode():
        assert not torch.equal(residual.eval()(images()), plain.eval()(images()))


@pytest.mark.parametrize("k", [1, 2, 3])
def test_rezero_and_fixup_add_the_stated_number_of_scalars(k):
    plain = make(block_layers=k)
    count = describe(plain).parameters
    rezero = make(block_layers=k, shortcut="identity", branch_scale="rezero")
    fixup = make(block_layers=k, shortcut="identity", branch_scale="fixup")
    assert rezero.blocks == 6 // k
    assert describe(rezero).parameters == count + 6 // k
    assert describe(fixup).parameters == count + 6 // k * (1 + k)
    assert describe(rezero).layers == describe(fixup).layers == describe(plain).layers
    for key, value in plain.state_dict().items():
        assert torch.equal(rezero.state_dict()[key], value)


@pytest.mark.parametrize("scale", SCALES)
def test_depth_2_has_no_block(scale):
    model, plain = make(depth=2, shortcut="identity", branch_scale=scale), make(depth=2)
    assert model.blocks == 0
    assert describe(model) == describe(plain)
    assert list(model.state_dict()) == list(plain.state_dict())
    if scale != "fixup":  # whose head starts at zero
        assert torch.equal(model(images()), plain(images()))


# -- the function it computes --------------------------------------------------------------------


def reference(state, x, *, shortcut, branch_scale, block_layers, pre_activation, norm, depth=8):
    """Logits as the papers write them, one example and one sum at a time where it counts; float64."""
    h = ((x.double() - state["normalize.mean"]) * state["normalize.scale"]).reshape(len(x), -1)

    def linear(i, h):
        return torch.einsum("bi,oi->bo", h, state[f"hidden.{i}.weight"]) + state[f"hidden.{i}.bias"]

    def norm_relu(i, h):
        if norm != "none":
            dim = 0 if norm == "batch" else 1
            centred = h - h.mean(dim, keepdim=True)
            h = centred / (centred.square().mean(dim, keepdim=True) + 1e-5).sqrt()
            h = h * state[f"norms.{i}.weight"] + state[f"norms.{i}.bias"]
        return h.clamp(min=0)

    blocks = (depth - 2) // block_layers
    fixup = branch_scale == "fixup"
    h = linear(0, h)
    if not pre_activation:
        h = norm_relu(0, h)
    for block in range(blocks):
        layers = [1 + block * block_layers + j for j in range(block_layers)]
        factor = {
            "1": 1.0,
            "blocks^-1/2": 1 / math.sqrt(blocks),
            "rezero": state.get("alpha", [None] * blocks)[block],
            "fixup": state.get("multiplier", [None] * blocks)[block],
        }[branch_scale]
        u = h
        for i in layers:
            if pre_activation:
                u = norm_relu(i - 1, u)
            u = linear(i, u + state["offset"][i - 1] if fixup else u)
            if not pre_activation and not (fixup and i == layers[-1]):
                u = norm_relu(i, u)
        h = u if shortcut == "none" else h + factor * u
        if fixup and not pre_activation:
            h = h.clamp(min=0)
    if pre_activation:
        h = norm_relu(depth - 2, h)
    return torch.einsum("bi,oi->bo", h, state["head.weight"]) + state["head.bias"]


@pytest.mark.parametrize("args", CASES, ids=name_of)
def test_forward_equals_a_slow_reference_in_float64(args):
    model = stirred(make(**args)).train()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    logits = model(images())
    assert logits.dtype == torch.float64
    assert torch.allclose(logits, reference(state, images(), **args), rtol=1e-10, atol=1e-10)


def test_dropout_follows_every_activation_and_only_in_training():
    for pre_activation in (False, True):
        model = make(shortcut="identity", dropout=0.5, pre_activation=pre_activation, block_layers=2)
        seen = []
        model.dropout.register_forward_hook(lambda module, inputs, output, seen=seen: seen.append(inputs[0]))
        first, second = model(images()), model(images())
        assert not torch.equal(first, second)
        assert len(seen) == 2 * 7
        assert all((h >= 0).all() for h in seen)
        assert torch.equal(model.eval()(images()), model(images()))


# -- remedies ------------------------------------------------------------------------------------


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


def test_equal_widths_in_a_list_are_blocks_and_unequal_ones_are_none():
    assert make(hidden=[8, 8, 8], width=None, depth=None, shortcut="identity").blocks == 2
    assert make(hidden=[8, 4, 4], width=None, depth=None).blocks == 0
