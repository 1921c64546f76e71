"""CIFAR networks and the small CNN: the paper's numbers, plain twins, the function they compute, normalisation."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from netdepth.data import Split
from netdepth.data.splits import pixel_mean
from netdepth.errors import BadInput
from netdepth.models import build, describe
from netdepth.models.init import rescale_lsuv

SHAPE, CLASSES = (3, 9, 8), 5  # odd and even sides
SHORTCUTS = ("none", "identity", "projection", "projection_all")
CASES = [
    {"shortcut": shortcut, "block": block, "depth": depth, "pre_activation": pre}
    for shortcut, (block, depth), pre in itertools.product(
        SHORTCUTS, (("basic", 14), ("bottleneck", 11)), (False, True)
    )
]
INITS = ("default", "he", "xavier", "orthogonal", "lsuv")


def name_of(args):
    return "-".join(str(value) for value in args.values())


def make(shape=SHAPE, seed=0, **args):
    return build("resnet", shape, CLASSES, seed=seed, **{"width": 4, "depth": 8, **args})


def images(n=6, shape=SHAPE):
    return torch.randint(0, 256, (n, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def stirred(model):
    """``model`` in float64 with batch norm's weights and statistics moved away from where they start."""
    model = model.double()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                    tensor.add_(0.2 * torch.rand(tensor.shape, generator=generator, dtype=torch.float64))
    model.normalize.set_statistics(torch.tensor([0.3, 0.4, 0.5]), torch.tensor([0.2, 0.25, 0.3]))
    return model


@pytest.mark.parametrize(
    ("depth", "count"), [(20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018), (110, 1_727_962)]
)
def test_the_papers_nets_have_the_papers_number_of_parameters(depth, count):
    model = build("resnet", (3, 32, 32), 10, depth=depth)
    assert sum(p.numel() for p in model.parameters()) == count
    assert model.depth == depth == 1 + sum(isinstance(m, nn.Conv2d) for m in model.modules())


def test_resnet_20_has_the_shapes_and_multiply_adds_of_the_papers_table():
    described = describe(build("resnet", (3, 32, 32), 10, depth=20))
    shapes = [layer.output_shape for layer in described.layers]
    assert shapes == [(16, 32, 32)] * 7 + [(32, 16, 16)] * 6 + [(64, 8, 8)] * 6 + [(10,)]
    first, same, halved = 3 * 16 * 9 * 32**2, 16 * 16 * 9 * 32**2, 16 * 32 * 9 * 16**2
    assert described.multiply_adds == first + 16 * same + 2 * halved + 640 == 40_551_040
    assert described.depth == 20


@pytest.mark.parametrize("shape", [("basic", 14, False), ("basic", 8, True), ("bottleneck", 11, False)], ids=str)
@pytest.mark.parametrize("init", INITS)
def test_twins_have_the_same_parameters_to_the_bit(init, shape):
    settings = {"init": init, "seed": 3, **dict(zip(("block", "depth", "pre_activation"), shape, strict=True))}
    plain, residual, *projected = (make(shortcut=shortcut, **settings) for shortcut in SHORTCUTS)
    ours, theirs = residual.state_dict(), plain.state_dict()
    assert list(ours) == list(theirs)
    assert [n for n, _ in residual.named_parameters()] == [n for n, _ in plain.named_parameters()]
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert describe(residual) == describe(plain)
    with torch.inference_mode():
        assert not torch.equal(residual.eval()(images()), plain.eval()(images()))
    for model in projected:  # more parameters, but the same main path
        assert set(theirs) < set(model.state_dict())
        assert all(torch.equal(model.state_dict()[key], theirs[key]) for key in theirs)


def test_the_initial_weights_are_the_stated_ones():
    generator = torch.Generator().manual_seed(4)
    model = make(seed=4, depth=14, shortcut="projection")
    convs = [conv for block in model.blocks() for conv in block.convs]
    projections = [block.projection[0] for block in model.blocks() if block.projection is not None]
    for layer in (model.conv, *convs, model.head, *projections):
        std = (2 / layer.weight[0].numel()) ** 0.5
        assert torch.equal(layer.weight, torch.empty_like(layer.weight).normal_(0, std, generator=generator))
    assert model.head.bias.abs().max() == 0
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        assert (norm.weight == 1).all()
        assert (norm.bias == 0).all()


def test_zero_gamma_makes_every_block_its_skip():
    settings = {"depth": 14, "seed": 6}
    model, usual = make(zero_gamma=True, **settings), make(**settings)
    for key, value in usual.state_dict().items():
        last = key.startswith("stages") and key.endswith("norms.1.weight")
        assert torch.equal(model.state_dict()[key], torch.zeros_like(value) if last else value), key
    h = model.relu(model.norm(model.conv(model.normalize(images()))))
    expected = F.pad(h[:, :, ::4, ::4], (0, 0, 0, 0, 0, 12)).mean((2, 3))
    assert torch.allclose(model.features(images()), expected, atol=1e-6)
    F.cross_entropy(model(images()), torch.arange(6) % CLASSES).backward()
    gammas = [block.norms[-1].weight for block in model.blocks()]
    assert all(gamma.grad.abs().max() > 0 for gamma in gammas)


def test_lsuv_gives_every_layer_unit_variance():
    model = make(shape=(3, 16, 16), init="lsuv", depth=14, shortcut="projection_all")
    assert model.lsuv
    rescale_lsuv(model, images(32, (3, 16, 16)))
    seen = []
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.register_forward_hook(lambda module, args, output: seen.append(float(output.detach().var())))
    model(images(32, (3, 16, 16)))
    assert len(seen) == 14 + 6
    assert all(0.88 < variance < 1.12 for variance in seen), seen


def reference(state, x, *, shortcut, block, depth, pre_activation, training):
    """Logits as the papers write them, with plain functions on the named weights."""

    def conv(name, h, stride=1):
        weight = state[f"{name}.weight"]
        return F.conv2d(h, weight, stride=stride, padding=(weight.shape[-1] - 1) // 2)

    def norm(name, h):
        shaped = {
            k: state[f"{name}.{k}"][None, :, None, None] for k in ("weight", "bias", "running_mean", "running_var")
        }
        mean, var = shaped["running_mean"], shaped["running_var"]
        if training:
            mean = h.mean((0, 2, 3), keepdim=True)
            var = (h - mean).square().mean((0, 2, 3), keepdim=True)
        return (h - mean) / (var + 1e-5).sqrt() * shaped["weight"] + shaped["bias"]

    def skip(name, h, stride, channels):
        changes = stride == 2 or h.shape[1] != channels
        if shortcut == "projection_all" or (shortcut == "projection" and changes):
            projected = conv(f"{name}.projection.0", h, stride)
            return projected if pre_activation else norm(f"{name}.projection.1", projected)
        if stride == 2:
            h = F.avg_pool2d(h, kernel_size=1, stride=2)  # option A as Torch's ResNets write it
        return torch.cat([h, h.new_zeros(len(h), channels - h.shape[1], *h.shape[2:])], dim=1)

    layers = 2 if block == "basic" else 3
    h = (x.double() - state["normalize.mean"]) * state["normalize.scale"]
    h = conv("conv", h)
    if not pre_activation:
        h = norm("norm", h).relu()
    for stage, i in itertools.product(range(3), range((depth - 2) // (3 * layers))):
        name, stride = f"stages.{stage}.{i}", 2 if stage and i == 0 else 1
        branch = came = h
        if pre_activation:
            branch = norm(f"{name}.norms.0", h).relu()
            if f"{name}.projection.0.weight" in state or (stage, i) == (0, 0):
                came = branch
            branch = conv(f"{name}.convs.0", branch, stride)
            for k in range(1, layers):
                branch = conv(f"{name}.convs.{k}", norm(f"{name}.norms.{k}", branch).relu())
        else:
            branch = norm(f"{name}.norms.0", conv(f"{name}.convs.0", h, stride))
            for k in range(1, layers):
                branch = norm(f"{name}.norms.{k}", conv(f"{name}.convs.{k}", branch.relu()))
        h = branch if shortcut == "none" else branch + skip(name, came, stride, branch.shape[1])
        if not pre_activation:
            h = h.relu()
    if pre_activation:
        h = norm("norm", h).relu()
    return F.linear(F.adaptive_avg_pool2d(h, 1).flatten(1), state["head.weight"], state["head.bias"])


@pytest.mark.parametrize("args", CASES, ids=name_of)
def test_forward_and_gradients_equal_an_independent_reference(args):
    model = stirred(make(**args))
    before = {key: value.detach().clone() for key, value in model.state_dict().items()}
    weights = {key: value.requires_grad_(value.is_floating_point()) for key, value in before.items()}
    with torch.no_grad():
        logits = model.eval()(images())
        assert logits.dtype == torch.float64
        assert torch.allclose(logits, reference(weights, images(), **args, training=False), rtol=1e-10, atol=1e-10)
        assert torch.equal(model.head(model.features(images())), logits)
    logits, expected = model.train()(images()), reference(weights, images(), **args, training=True)
    assert torch.allclose(logits, expected, rtol=1e-10, atol=1e-10)
    for made in (logits, expected):
        F.cross_entropy(made, torch.arange(6) % CLASSES).backward()
    for key, parameter in model.named_parameters():
        assert torch.allclose(parameter.grad, weights[key].grad, rtol=1e-8, atol=1e-10), key


@pytest.mark.parametrize("shape", [(1, 28, 28), (1, 1, 1), (3, 5, 7), (4, 2, 3)], ids=str)
def test_any_image_and_any_number_of_classes(shape):
    for shortcut in SHORTCUTS:
        model = make(shape, shortcut=shortcut)
        assert model(images(4, shape)).shape == (4, CLASSES)
        assert model.eval()(images(1, shape)).isfinite().all()
        assert describe(model).depth == 8


def small(shape=SHAPE, seed=0, **args):
    return build("cnn", shape, CLASSES, seed=seed, **{"channels": [4, 6], "hidden": 8, **args})


@pytest.mark.parametrize("convolutions", [1, 2])
def test_the_small_cnn_is_the_sequence_its_documentation_names(convolutions):
    model = small(convolutions=convolutions).double().eval()
    weights = dict(model.named_parameters())
    h = images().double() / 255
    for i in range(2):
        for j in range(convolutions):
            layer = f"stages.{i}.{2 * j}"
            h = F.conv2d(h, weights[f"{layer}.weight"], weights[f"{layer}.bias"], padding=1).relu()
        h = F.max_pool2d(h, 2)
    h = F.linear(h.flatten(1), weights["hidden.weight"], weights["hidden.bias"]).relu()
    assert torch.allclose(model.features(images()), h, rtol=1e-6)
    assert torch.allclose(model(images()), F.linear(h, weights["head.weight"], weights["head.bias"]), rtol=1e-6)
    described = describe(model)
    assert described.depth == model.depth == len(described.layers) == 2 * convolutions + 2


def test_the_small_cnn_has_the_counts_of_its_shape():
    described = describe(small())
    counts = [3 * 4 * 9 + 4, 4 * 6 * 9 + 6, 6 * 2 * 2 * 8 + 8, 8 * CLASSES + CLASSES]
    assert [layer.parameters for layer in described.layers] == counts
    assert [layer.multiply_adds for layer in described.layers] == [108 * 72, 216 * 16, 192, 40]


def test_dropout_is_on_in_training_only():
    model = small(dropout=0.5)
    assert not torch.equal(model(images()), model(images()))
    assert torch.equal(model.eval()(images()), model(images()))
    model = small(dropout=0.0)
    assert torch.equal(model(images()), model(images()))


def test_as_many_stages_as_the_image_can_be_halved():
    assert small(channels=[2, 2, 2])(images()).shape == (6, CLASSES)
    with pytest.raises(BadInput, match="needs images of 2 pixels or more"):
        small((1, 1, 1), channels=[2])


def test_the_pixel_mean_is_that_of_numpy_to_the_last_bit():
    split = Split(images(2500), torch.zeros(2500, dtype=torch.int64))
    sums = split.inputs.numpy().astype(np.int64).sum(0)
    assert torch.equal(pixel_mean(split), torch.from_numpy(sums / (255 * 2500)))
    assert pixel_mean(split).dtype == torch.float64


def test_normalisation_per_pixel_travels_with_the_weights():
    split = Split(images(50), torch.zeros(50, dtype=torch.int64))
    mean, std = pixel_mean(split), torch.tensor([0.2, 0.3, 0.4])
    model = make(normalization="pixel").double()
    assert model.pixel_mean
    assert not make().pixel_mean
    model.normalize.set_statistics(mean, std)
    expected = (split.inputs.double() / 255 - mean) / std[:, None, None]
    assert torch.allclose(model.normalize(split.inputs), expected, rtol=1e-6, atol=1e-6)
    assert model.normalize(split.inputs).mean(0).abs().max() < 1e-6
    other = make(seed=1, normalization="pixel").double()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.eval()(images()), model.eval()(images()))
    twin = make().state_dict()
    assert all(torch.equal(v, twin[k]) for k, v in make(normalization="pixel").state_dict().items() if "mean" not in k)
