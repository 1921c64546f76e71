"""ImageNet's ResNets against the published architecture, which is written down here a second time."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from netdepth.models import build, describe
from netdepth.models.imagenet import ImageNetResNet

DEPTHS = (18, 34, 50, 101, 152)
PARAMETERS = {18: 11_689_512, 34: 21_797_672, 50: 25_557_032, 101: 44_549_160, 152: 60_192_808}
"""With 1000 classes, as torchvision publishes them."""
TABLE_1 = {18: [2, 2, 2, 2], 34: [3, 4, 6, 3], 50: [3, 4, 6, 3], 101: [3, 4, 23, 3], 152: [3, 8, 36, 3]}


def published(depth, classes=1000):
    """Names and shapes of torchvision's state dict, from table 1 and its rule for names."""
    shapes = {}

    def conv(name, outputs, inputs, kernel):
        shapes[f"{name}.weight"] = (outputs, inputs, kernel, kernel)
        return outputs

    def norm(name, channels):
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{part}"] = (channels,)
        shapes[f"{name}.num_batches_tracked"] = ()

    norm("bn1", channels := conv("conv1", 64, 3, 7))
    for stage, blocks in enumerate(TABLE_1[depth]):
        inner = 64 * 2**stage
        kernels, outputs = ([3, 3], inner) if depth < 50 else ([1, 3, 1], 4 * inner)
        for block in range(blocks):
            at, inputs = f"layer{stage + 1}.{block}", channels
            for i, kernel in enumerate(kernels, 1):
                channels = conv(f"{at}.conv{i}", outputs if i == len(kernels) else inner, channels, kernel)
                norm(f"{at}.bn{i}", channels)
            if block == 0 and (stage > 0 or depth >= 50):
                norm(f"{at}.downsample.1", conv(f"{at}.downsample.0", outputs, inputs, 1))
    shapes["fc.weight"], shapes["fc.bias"] = (classes, channels), (classes,)
    return shapes


def reference(state, images, training):
    """The network as a function of its state dict; the stride of a bottleneck is in the 3x3 convolution."""

    def norm(x, name):
        statistics = (None, None) if training else (state[f"{name}.running_mean"], state[f"{name}.running_var"])
        return F.batch_norm(x, *statistics, state[f"{name}.weight"], state[f"{name}.bias"], training=training)

    x = (images - state["normalize.mean"]) * state["normalize.scale"]
    x = F.relu(norm(F.conv2d(x, state["conv1.weight"], stride=2, padding=3), "bn1"))
    x = F.max_pool2d(x, 3, 2, 1)
    blocks = dict.fromkeys(name.rsplit(".conv", 1)[0] for name in state if name.startswith("layer") and ".conv" in name)
    for at in blocks:
        stride = 2 if at.endswith(".0") and at != "layer1.0" else 1
        deep = f"{at}.conv3.weight" in state
        h = F.conv2d(x, state[f"{at}.conv1.weight"], stride=1 if deep else stride, padding=0 if deep else 1)
        h = F.relu(norm(h, f"{at}.bn1"))
        h = norm(F.conv2d(h, state[f"{at}.conv2.weight"], stride=stride if deep else 1, padding=1), f"{at}.bn2")
        if deep:
            h = norm(F.conv2d(F.relu(h), state[f"{at}.conv3.weight"]), f"{at}.bn3")
        if f"{at}.downsample.0.weight" in state:
            x = norm(F.conv2d(x, state[f"{at}.downsample.0.weight"], stride=stride), f"{at}.downsample.1")
        x = F.relu(x + h)
    x = F.adaptive_avg_pool2d(x, 1).flatten(1)
    return x, F.linear(x, state["fc.weight"], state["fc.bias"])


@pytest.mark.parametrize("depth", DEPTHS)
def test_names_shapes_and_counts_are_torchvisions(depth):
    with torch.device("meta"):
        model = ImageNetResNet((3, 224, 224), 1000, depth)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert shapes.pop("normalize.mean") == shapes.pop("normalize.scale") == (3, 1, 1)
    assert list(shapes.items()) == list(published(depth).items())
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[depth]
    main_path = [name for name, shape in shapes.items() if len(shape) in (2, 4) and "downsample" not in name]
    assert model.depth == depth == len(main_path)


@pytest.mark.parametrize("depth", [18, 50])
def test_forward_equals_an_independent_one(depth):
    model = build(f"resnet{depth}", (3, 64, 64), 10, seed=1, width=16).double()
    model.normalize.set_statistics(torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.25]))
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # else all are 0 and 1, and one could stand for another
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                tensor.data.uniform_(0.5, 1.5, generator=generator)
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=generator)
    for training in (False, True):
        state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        with torch.inference_mode():
            features, logits = reference(state, images, training)
            assert torch.allclose(model.train(training)(images), logits, rtol=1e-9, atol=1e-9)
            assert torch.allclose(model.features(images), features, rtol=1e-9, atol=1e-9)


def test_resnet50_has_the_multiply_adds_that_are_published():
    """4.09 thousand million at 224 x 224 (torchvision's table of weights)."""
    model = build("resnet50", (3, 224, 224), 1000, width=8)
    counted = {layer.name: layer.multiply_adds for layer in describe(model).layers}
    stem, head = counted.pop("conv1"), counted.pop("fc")
    assert 64 * sum(counted.values()) + 8 * (stem + head) == pytest.approx(4.09e9, rel=1e-3)


def test_init_decides_how_the_weights_are_drawn():
    weights = build("resnet18", (3, 32, 32), 5, width=32).layer3[1].conv1.weight
    assert weights.std().item() == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.01)
    assert build("resnet18", (3, 32, 32), 5, width=4, init="lsuv").lsuv
