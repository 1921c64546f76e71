"""Residual MLPs: their plain twins, the function they compute, what is refused."""

import math

import pytest
import torch
from support.twins import CASES, CLASSES, SCALES, SHAPES, images, make, name_of

from netdepth.config import Component
from netdepth.errors import BadInput
from netdepth.models import MODELS, describe
from netdepth.training.gradients import autograd_gradients, choose_gradients
from netdepth.training.objectives import OBJECTIVES
from netdepth.training.stack import Stack


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


@pytest.mark.parametrize("shape", SHAPES, ids=name_of)
@pytest.mark.parametrize("init", ["default", "he", "xavier", "orthogonal", "lsuv"])
def test_twins_have_the_same_parameters_to_the_bit(init, shape):
    for scale in ("1", "blocks^-1/2"):
        _assert_twins(init, scale, shape)


def _assert_twins(init, scale, shape):
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


def test_younger_settings_leave_old_fingerprints_alone_and_enter_new_ones():
    args = {"hidden": [16, 8], "init": "he"}
    old = MODELS.hashed(MODELS.resolve(Component("mlp", args)))["args"]
    assert set(old) == {"hidden", "width", "depth", "activation", "init", "dropout"}
    twin = {"shortcut": "none", "block_layers": 1, "norm": "none", "branch_scale": "1", "pre_activation": False}
    assert MODELS.hashed(MODELS.resolve(Component("mlp", {**args, **twin})))["args"] == old
    new = {"shortcut": "identity", "norm": "layer"}
    assert MODELS.hashed(MODELS.resolve(Component("mlp", {**args, **new})))["args"] == {**old, **new}


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


def test_plain_twins_with_and_without_pre_activation_are_one_function():
    post, pre = (stirred(make(norm="batch", pre_activation=p)) for p in (False, True))
    assert torch.equal(post(images()), pre(images()))


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


@pytest.mark.parametrize("args", CASES, ids=name_of)
def test_the_engines_gradients_are_those_of_autograd(args):
    objective = OBJECTIVES.build(Component("cross-entropy"))
    labels = torch.arange(32) % CLASSES
    stack, other = Stack([stirred(make(**args))]), Stack([stirred(make(**args))])
    loss, right = choose_gradients(stack, objective)(images(), labels)
    expected, hits = autograd_gradients(other, objective)(images(), labels)
    assert torch.allclose(loss, expected, rtol=1e-10)
    assert torch.equal(right, hits)
    assert torch.allclose(stack.gradient, other.gradient, rtol=1e-9, atol=1e-10)


# -- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"depth": 7, "block_layers": 2}, "depth of 7 is not 2 + 2 * blocks (model.block_layers = 2); nearest: 6 and"),
        ({"depth": 7, "block_layers": 3, "shortcut": "identity"}, "a depth of 7 is not 2 + 3 * blocks"),
        ({"depth": 10_000, "block_layers": 3}, "nearest: 9998"),
        ({"depth": 1, "shortcut": "identity"}, "depth of 1 is not 2 + 1 * blocks (model.block_layers = 1); nearest: 2"),
        ({"depth": 1, "block_layers": 2}, "nearest: 2"),
        ({"block_layers": 0}, "model.block_layers = 0 is out of range; it takes 1 to 9999"),
        ({"block_layers": 10**9}, "model.block_layers = 1000000000 is out of range"),
        ({"hidden": [8, 4], "width": None, "depth": None, "shortcut": "identity"}, "hidden = [8, 4] has unequal"),
        ({"branch_scale": "rezero"}, "'rezero' needs model.shortcut = 'identity': in a plain net one layer"),
        ({"branch_scale": "fixup"}, "'fixup' needs model.shortcut = 'identity': in a plain net one layer"),
        ({"branch_scale": "fixup", "shortcut": "identity", "norm": "layer"}, "model.norm is 'none', not 'layer'"),
        ({"branch_scale": "fixup", "shortcut": "identity", "init": "lsuv"}, "both set the scale of every layer"),
        ({"branch_scale": "re-zero"}, "did you mean 'rezero'"),
        ({"shortcut": "identiy"}, "did you mean 'identity'"),
        ({"norm": "bach"}, "did you mean 'batch'"),
        ({"init": "lsuf"}, "did you mean 'lsuv'"),
    ],
    ids=lambda value: name_of(value) if isinstance(value, dict) else "",
)  # fmt: skip
def test_refusals_say_why_in_one_line(args, message):
    with pytest.raises(BadInput) as error:
        make(**args)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_equal_widths_in_a_list_are_blocks_and_unequal_ones_are_none():
    assert make(hidden=[8, 8, 8], width=None, depth=None, shortcut="identity").blocks == 2
    assert make(hidden=[8, 4, 4], width=None, depth=None).blocks == 0
