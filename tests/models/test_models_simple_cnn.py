"""The small CNN, and images normalised by a mean per pixel."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from netdepth.data import Split
from netdepth.data.splits import pixel_mean
from netdepth.errors import BadInput
from netdepth.models import build, describe

SHAPE, CLASSES = (3, 9, 8), 5  # odd and even sides


def images(n=6, shape=SHAPE):
    return torch.randint(0, 256, (n, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


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


def resnet(seed=0, **args):
    return build("resnet", SHAPE, CLASSES, seed=seed, width=4, depth=8, **args)


def test_the_pixel_mean_is_that_of_numpy_to_the_last_bit():
    split = Split(images(2500), torch.zeros(2500, dtype=torch.int64))
    sums = split.inputs.numpy().astype(np.int64).sum(0)
    assert torch.equal(pixel_mean(split), torch.from_numpy(sums / (255 * 2500)))
    assert pixel_mean(split).dtype == torch.float64


def test_normalisation_per_pixel_travels_with_the_weights():
    split = Split(images(50), torch.zeros(50, dtype=torch.int64))
    mean, std = pixel_mean(split), torch.tensor([0.2, 0.3, 0.4])
    model = resnet(normalization="pixel").double()
    assert model.pixel_mean
    assert not resnet().pixel_mean
    model.normalize.set_statistics(mean, std)
    expected = (split.inputs.double() / 255 - mean) / std[:, None, None]
    assert torch.allclose(model.normalize(split.inputs), expected, rtol=1e-6, atol=1e-6)
    assert model.normalize(split.inputs).mean(0).abs().max() < 1e-6
    other = resnet(seed=1, normalization="pixel").double()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.eval()(images()), model.eval()(images()))
    twin = resnet().state_dict()
    assert all(
        torch.equal(v, twin[k]) for k, v in resnet(normalization="pixel").state_dict().items() if "mean" not in k
    )
