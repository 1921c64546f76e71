"""Networks: a conformance suite over every registered one, and the MLP against PyTorch."""

import math

import pytest
import torch
from torch import nn

from netdepth import conformance
from netdepth.config import Component
from netdepth.errors import BadInput
from netdepth.models import MODELS, build, describe
from netdepth.models.init import initialise

# Small examples of registered models; the others are made as they were registered.
EXAMPLES = {
    "mlp": [
        {"hidden": [16, 8]},
        {"width": 8, "depth": 4, "init": "he"},
        {"hidden": [], "init": "xavier"},
        {"hidden": [8], "activation": "tanh", "dropout": 0.5, "init": "orthogonal"},
        {"width": 8, "depth": 5, "shortcut": "identity", "norm": "layer", "init": "lsuv"},
        {"width": 8, "depth": 6, "shortcut": "identity", "block_layers": 2, "norm": "batch", "pre_activation": True},
        {"width": 8, "depth": 6, "shortcut": "identity", "block_layers": 2, "branch_scale": "rezero"},
        {"width": 8, "depth": 6, "shortcut": "identity", "block_layers": 2, "branch_scale": "fixup", "init": "he"},
        {"width": 8, "depth": 2, "shortcut": "identity", "branch_scale": "blocks^-1/2"},
    ],
    "resnet": [
        {"width": 4, "depth": 8},
        {"width": 4, "depth": 8, "shortcut": "projection", "normalization": "pixel"},
        {"width": 2, "depth": 11, "shortcut": "none", "block": "bottleneck", "pre_activation": True},
    ],
    "cnn": [{"channels": [4], "hidden": 8}],
}
CASES = [(name, args) for name in MODELS.names() for args in EXAMPLES.get(name, [dict(MODELS.entry(name).example)])]


@pytest.mark.parametrize(("name", "args"), CASES)
def test_every_model_conforms(name, args):
    assert MODELS.entry(name).summary
    findings = list(conformance.SUITES["model"](Component(name, args), None))
    assert len(findings) >= 6
    assert [promise for promise, kept, _ in findings if not kept] == []
    before = torch.random.get_rng_state()
    model = build(name, (3, 8, 8), 5, seed=3, **args)
    assert torch.equal(before, torch.random.get_rng_state())
    described = describe(model)
    main_path = [layer for layer in described.layers if not {"projection", "downsample"} & {*layer.name.split(".")}]
    assert described.depth == model.depth == len(main_path)
    others = [m for m in model.modules() if not isinstance(m, nn.Linear | nn.Conv2d)]
    outside_layers = sum(p.numel() for m in others for p in m.parameters(recurse=False))
    assert sum(layer.parameters for layer in described.layers) + outside_layers == described.parameters
    assert described.parameters == sum(p.numel() for p in model.parameters())


def test_the_baseline_has_the_numbers_of_its_shape():
    described = describe(build("mlp", (1, 28, 28), 10, hidden=[256, 128]))
    assert described.depth == 3
    assert described.parameters == 784 * 256 + 256 + 256 * 128 + 128 + 128 * 10 + 10 == 235_146
    assert [layer.multiply_adds for layer in described.layers] == [784 * 256, 256 * 128, 128 * 10]


def test_default_init_is_pytorchs():
    model = build("mlp", (1, 8, 8), 5, hidden=[32], seed=0)
    initialise(model, "default", "relu", torch.default_generator.manual_seed(11))
    torch.manual_seed(11)
    for layer in (*model.hidden, model.head):
        layer_of_pytorch = nn.Linear(layer.in_features, layer.out_features)
        assert torch.equal(layer.weight, layer_of_pytorch.weight)
        assert torch.equal(layer.bias, layer_of_pytorch.bias)


@pytest.mark.parametrize(
    ("init", "std"),
    [("he", math.sqrt(2 / 400)), ("xavier", math.sqrt(2 / 700)), ("orthogonal", math.sqrt(2) / math.sqrt(400))],
)
def test_inits_have_the_variance_of_their_papers(init, std):
    model = build("mlp", (1, 20, 20), 10, hidden=[300], init=init, seed=0)
    weight = model.hidden[0].weight.detach()
    assert weight.std().item() == pytest.approx(std, rel=0.03)
    assert model.hidden[0].bias.abs().max() == 0
    if init == "orthogonal":
        assert torch.allclose(weight @ weight.T, 2 * torch.eye(300), atol=1e-4)


def test_forward_equals_a_plain_sequential():
    model = build("mlp", (1, 6, 6), 4, hidden=[16, 8], seed=2)
    model.normalize.set_statistics(torch.tensor([0.25]), torch.tensor([0.5]))
    images = torch.randint(0, 256, (5, 1, 6, 6), dtype=torch.uint8)
    reference = nn.Sequential(*model.hidden[:1], nn.ReLU(), *model.hidden[1:], nn.ReLU(), model.head)
    expected = reference((images.float() / 255 - 0.25).div(0.5).flatten(1))
    assert torch.allclose(model(images), expected, atol=1e-6)
    assert {"normalize.mean", "normalize.scale"} <= set(model.state_dict())


CNN, RESNET, MLP = {"channels": [4, 6], "hidden": 8}, {"depth": 8, "width": 4}, {"width": 8, "depth": 8}
RESIDUAL = {**MLP, "shortcut": "identity"}
LISTED = {"hidden": [8]}
SHORTCUT = "needs model.shortcut = 'identity': in a plain net one layer"


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("mlp", {}, "needs hidden"),
        ("mlp", {"width": 8}, "hidden"),
        ("mlp", {**LISTED, "width": 4}, "hidden"),
        ("mlp", {"hidden": [0]}, "out of range"),
        ("mlp", {"hidden": [10**9]}, "out of range"),
        ("mlp", {"width": 8, "depth": 0}, "depth = 0 is out of range"),
        ("mlp", {"width": 8, "depth": 10**9}, "depth = 1000000000 is out of range"),
        ("mlp", {"width": 0, "depth": 1}, "width"),
        ("mlp", {**LISTED, "dropout": 1.0}, "model.dropout = 1.0 is out of range"),
        ("mlp", {**LISTED, "init": "hee"}, "did you mean 'he'"),
        ("mlp", {**LISTED, "activation": "swish"}, "unknown model.activation 'swish'"),
        ("mlp", {**MLP, "depth": 7, "block_layers": 2},
         "depth of 7 is not 2 + 2 * blocks (model.block_layers = 2); nearest: 6 and"),
        ("mlp", {**RESIDUAL, "depth": 7, "block_layers": 3}, "a depth of 7 is not 2 + 3 * blocks"),
        ("mlp", {**MLP, "depth": 10_000, "block_layers": 3}, "nearest: 9998"),
        ("mlp", {**RESIDUAL, "depth": 1}, "depth of 1 is not 2 + 1 * blocks (model.block_layers = 1); nearest: 2"),
        ("mlp", {**MLP, "block_layers": 0}, "model.block_layers = 0 is out of range; it takes 1 to 9999"),
        ("mlp", {"hidden": [8, 4], "shortcut": "identity"}, "hidden = [8, 4] has unequal"),
        ("mlp", {**MLP, "branch_scale": "rezero"}, f"'rezero' {SHORTCUT}"),
        ("mlp", {**MLP, "branch_scale": "fixup"}, f"'fixup' {SHORTCUT}"),
        ("mlp", {**RESIDUAL, "branch_scale": "fixup", "norm": "layer"}, "model.norm is 'none', not 'layer'"),
        ("mlp", {**RESIDUAL, "branch_scale": "fixup", "init": "lsuv"}, "both set the scale of every layer"),
        ("resnet", {"depth": 21}, "model.depth = 21 is not 6n + 2 (model.block = 'basic'); nearest: 20 and 26"),
        ("resnet", {"depth": 50, "block": "bottleneck"},
         "is not 9n + 2 (model.block = 'bottleneck'); nearest: 47 and 56"),
        ("resnet", {"depth": 2}, "model.depth = 2 is out of range; it takes 6n + 2, from 8 to 9998"),
        ("resnet", {"depth": 10**9}, "is out of range; it takes 6n + 2, from 8 to 9998"),
        ("resnet", {"depth": 8, "block": "bottleneck"}, "it takes 9n + 2, from 11 to 9992"),
        ("resnet", {**RESNET, "width": 10**9}, "is out of range; it takes 1 to 4096"),
        ("resnet", {**RESNET, "zero_gamma": True, "shortcut": "none"}, "zero_gamma = true needs a shortcut"),
        ("resnet", {**RESNET, "zero_gamma": True, "pre_activation": True}, "needs model.pre_activation = false"),
        ("resnet18", {"width": 0}, "model.width = 0 is out of range"),
        ("resnet18", {"depth": 18}, "unknown setting of model 'resnet18': 'depth'"),
        ("cnn", {**CNN, "channels": []}, "channels = [] is 0 stages, each of which halves the 9 x 8 pixels"),
        ("cnn", {**CNN, "channels": [4] * 4}, "pixels of an image; it takes 1 to 3 stages"),
        ("cnn", {**CNN, "channels": [4, 0]}, "channels = [4, 0] holds 0, out of range"),
        ("cnn", {**CNN, "convolutions": 0}, "model.convolutions = 0 is out of range; it takes 1 to 100"),
        ("cnn", {**CNN, "hidden": 0}, "model.hidden = 0 is out of range"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused_in_one_line(name, args, message):
    with pytest.raises(BadInput) as refused:
        build(name, (3, 9, 8), 5, **args)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
