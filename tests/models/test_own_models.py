"""Models of the user's own: any class of networks with a constructor, any function that returns one."""

import random
from typing import Annotated

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from netdepth import models
from netdepth.config import Component
from netdepth.errors import BadInput
from netdepth.models import MODELS, Network, OwnNetwork
from netdepth.tools.export.formats import _safetensors_bytes
from netdepth.training.layers import probe
from netdepth.training.stack import Stack

SHAPE = (3, 12, 12)


class ConvNet(nn.Module):
    """Two convolutions, a hidden layer, a head; in its constructor it draws from all that one can draw from."""

    def __init__(self, num_classes=10, width=8, in_channels=1, act=nn.ReLU, hidden=(16,)):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(random.random() + np.random.rand()))  # noqa: NPY002
        self.body = nn.Sequential(nn.Conv2d(in_channels, width, 3), act(), nn.Conv2d(width, width, 3), act())
        self.classifier = nn.Sequential(nn.LazyLinear(hidden[0]), act(), nn.Linear(hidden[0], num_classes))

    def forward(self, x):
        return self.classifier(self.body(x * self.scale).flatten(1))


def registered(what):
    return MODELS.register("mine")(what)


def test_a_class_gets_what_the_data_decide_and_its_other_parameters_are_settings():
    assert registered(ConvNet) is ConvNet
    fields = {field.name: field.default for field in MODELS.entry("mine").fields}
    assert fields == {"width": 8, "hidden": (16,)}  # a class such as nn.ReLU is no setting
    model = models.build("mine", SHAPE, 7, seed=3, width=4)
    assert isinstance(model, OwnNetwork)
    assert isinstance(model.net, ConvNet)
    assert model.net.body[0].weight.shape == (4, 3, 3, 3)
    assert model(torch.zeros(5, *SHAPE, dtype=torch.uint8)).shape == (5, 7)
    assert model.depth == 4
    assert [layer.name for layer in models.describe(model).layers] == [
        "net.body.0", "net.body.2", "net.classifier.0", "net.classifier.2",
    ]  # fmt: skip
    assert list(model.stage_paths()) == ["scale", "body", "classifier.0", "classifier.2"]
    assert all(model.stage_of(name) for name, _ in model.named_parameters())
    assert model.features(torch.zeros(5, *SHAPE, dtype=torch.uint8)).shape == (5, 16)


def test_the_seed_decides_all_weights_and_the_callers_generators_stay_as_they_were():
    registered(ConvNet)

    def build(seed):
        return torch.cat([p.detach().flatten() for p in models.build("mine", SHAPE, 7, seed=seed).parameters()])

    states = torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002
    first = build(0)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), states[2], strict=True))  # noqa: NPY002
    torch.manual_seed(99)
    random.seed(99)
    np.random.seed(99)  # noqa: NPY002
    assert torch.equal(first, build(0))
    assert (first != build(1)).float().mean() > 0.99


def as_before(shape, classes, generator, *, width: Annotated[int, "units"] = 8) -> Network:
    return models.mlp.mlp(shape, classes, generator, hidden=[width])


def in_any_order(num_classes, depth: int = 2, *, input_shape, dropout=0.0):
    size = int(np.prod(input_shape))
    layers = [layer for _ in range(depth) for layer in (nn.Linear(size, size), nn.Dropout(dropout))]
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(size, num_classes))


def for_digits():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 12 * 12, 7))


class Attention(nn.Module):
    """Patches as tokens; it says how deep it is, and a convolution gives its logits."""

    depth = 6

    def __init__(self, in_channels, num_classes, dim):
        super().__init__()
        self.patches = nn.Conv2d(in_channels, dim, 4, 4)
        self.layer = nn.TransformerEncoderLayer(dim, 2, 8, batch_first=True)
        self.out = nn.Conv1d(dim, num_classes, 1)

    def forward(self, x):
        tokens = self.layer(self.patches(x).flatten(2).transpose(1, 2))
        return self.out(tokens.transpose(1, 2)).mean(2)


@pytest.mark.parametrize(
    ("what", "settings", "depth"),
    [(as_before, {"width": 5}, 2), (in_any_order, {"depth": 3}, 4), (for_digits, {}, 1), (Attention, {"dim": 4}, 6)],
)
def test_functions_and_classes_of_every_form_are_networks(what, settings, depth):
    registered(what)
    model = models.build("mine", SHAPE, 7, **settings)
    assert isinstance(model, Network)
    assert model.depth == depth
    assert model(torch.zeros(2, *SHAPE, dtype=torch.uint8)).shape == (2, 7)
    assert MODELS.resolve(Component("mine", settings)).args.keys() >= settings.keys()


def test_what_a_network_has_not_is_said_where_it_is_asked_for():
    registered(Attention)
    model = models.build("mine", SHAPE, 7, dim=4)
    with pytest.raises(BadInput, match=r"do not come from a linear layer.*end its forward pass with an nn.Linear"):
        model.features(torch.zeros(2, *SHAPE, dtype=torch.uint8))
    with pytest.raises(BadInput, match="needs dim"):
        models.build("mine", SHAPE, 7)


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self, num_classes):
        super().__init__()
        self.first, self.second = nn.Linear(432, 432), nn.Linear(432, 432)
        self.second.weight = self.first.weight
        self.head = nn.Linear(432, num_classes)

    def forward(self, x):
        return self.head(self.second(self.first(x.flatten(1)).relu()).relu())


def test_layers_that_share_a_weight_have_statistics_and_train():
    registered(Tied)
    model = models.build("mine", SHAPE, 7)
    images = torch.randint(0, 256, (8, *SHAPE), dtype=torch.uint8)
    layers = probe(model, images, torch.arange(8) % 7).layers
    assert [layer.name for layer in layers] == ["net.first", "net.second", "net.head"]
    assert layers[0].grad_norm == layers[1].grad_norm > 0
    stack = Stack([model])
    stack.flat.data.mul_(0.5)
    assert model.net.second.weight is model.net.first.weight
    assert len(safetensors.torch.load(_safetensors_bytes(model, {}))) == len(model.state_dict())


ONE = for_digits()


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (ONE, "is one network.*register its class"),
        (lambda: ONE, "returns the same network each time"),
        (lambda: 3, "returns int; a model is a torch.nn.Module"),
        (int, "is no nn.Module"),
        (
            lambda num_classes: nn.Sequential(nn.Flatten(), nn.Linear(432, 1000)),
            r"\[2, 1000\] for 2 images of 7 classes",
        ),
        (lambda num_classes: nn.Sequential(for_digits(), nn.Softmax(1)), "probabilities, not logits"),
        (lambda: nn.Sequential(nn.Flatten(), nn.LSTM(432, 7)), "gives tuple; a network gives logits"),
        (lambda: nn.Linear(5, 7), r"'mine' failed at line \d+ of test_own_models.py|'mine' failed: RuntimeError: mat1"),
    ],
)
def test_what_is_no_model_is_one_clear_line(what, words):
    def use():
        registered(what)
        return [models.build("mine", SHAPE, 7) for _ in range(2)]

    with pytest.raises(BadInput, match=words):
        use()
