"""Convolutions lie channels-last: the same values, names, shapes and files, and a route that a resumed run keeps."""

import copy

import numpy as np
import pytest
import safetensors.numpy
import torch
from support.real_runs import make
from support.real_stacks import digits, quickly
from torch import nn

from netdepth.config import Component, RunConfig, Runtime, TrainConfig
from netdepth.data import Split
from netdepth.models import Network, build
from netdepth.training import loop
from netdepth.training.evaluate import logits_of
from netdepth.training.gradients import autograd_gradients
from netdepth.training.objectives import OBJECTIVES
from netdepth.training.optim import OPTIMIZERS
from netdepth.training.process import configure
from netdepth.training.stack import Stack

CE = OBJECTIVES.build(Component("cross-entropy"))
NETS = {
    "resnet": {"depth": 8, "width": 4},
    "projection": {"depth": 8, "width": 16, "shortcut": "projection", "pre_activation": True},
    "cnn": {"channels": [4, 6], "hidden": 5, "dropout": 0.0},
    "resnet18": {"width": 16},
}


def network(name="resnet", dtype=torch.float32):
    kind = {"projection": "resnet"}.get(name, name)
    return build(kind, (3, 8, 8), 5, seed=1, **NETS[name]).to(dtype)


def batch(step, size=6):
    generator = torch.Generator().manual_seed(step)
    images = torch.randint(0, 256, (size, 3, 8, 8), dtype=torch.uint8, generator=generator)
    return images, torch.randint(0, 5, (size,), generator=generator)


def lies_last(tensor):
    return tensor.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", NETS)
def test_weights_and_gradients_are_views_that_lie_channels_last_and_nothing_else_changes(name):
    model = network(name)
    before = copy.deepcopy(model.state_dict())
    stack = Stack([model], channels_last=True)
    assert stack.channels_last
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0, check_stride=False)
    filters = [p for p in model.parameters() if p.dim() == 4]
    assert any(p.shape[1] > 1 and p.shape[2] > 1 and not p.is_contiguous() for p in filters)
    for parameter in filters:
        assert lies_last(parameter)
        assert parameter.stride() == parameter.grad.stride()
    with torch.no_grad():
        stack.flat.add_(1)
        stack.gradient.fill_(2)
    for key, parameter in model.named_parameters():
        assert torch.equal(parameter, before[key] + 1)
        assert torch.equal(parameter.grad, torch.full_like(parameter, 2))


def test_gradients_arrive_channels_last_and_are_added_where_they_belong():
    """So that no step reorders one: what autograd hands over lies as what it is added to."""
    model = network()
    stack = Stack([model], channels_last=True)
    arrived = {}
    inner = {key: p for key, p in model.named_parameters() if p.dim() == 4 and p.shape[1] > 3}
    for key, parameter in inner.items():
        parameter.register_hook(lambda gradient, key=key: arrived.setdefault(key, gradient))
    places = {key: parameter.grad.data_ptr() for key, parameter in inner.items()}
    activations = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            module.register_forward_hook(lambda _module, _given, output: activations.append(lies_last(output)))
    autograd_gradients(stack, CE)(*batch(0))
    assert all(activations)
    assert set(arrived) == set(inner)
    for key, parameter in inner.items():
        assert lies_last(arrived[key]), key
        assert parameter.grad.data_ptr() == places[key]
        assert torch.equal(arrived[key], parameter.grad)


@pytest.mark.parametrize("name", NETS)
def test_training_equals_that_of_a_network_as_it_was_built(name):
    """Also of strided 1x1 convolutions in float32, at which the library behind them can fail (`SAFE_CHANNELS`)."""
    for dtype, tolerance in ((torch.float32, 2e-4), (torch.float64, 1e-8)):
        model = network(name, dtype)
        stacks = [Stack([copy.deepcopy(model)], channels_last=last) for last in (False, True)]
        passes = [autograd_gradients(stack, CE) for stack in stacks]
        sgds = [OPTIMIZERS.build(Component("sgd", {"lr": 0.01, "weight_decay": 1e-4}), stack.flat) for stack in stacks]
        for step in range(4 if dtype == torch.float64 else 1):
            losses = [compute(*batch(step))[0] for compute in passes]
            assert torch.allclose(*losses, rtol=tolerance)
            for a, b in zip(*(stack.models[0].parameters() for stack in stacks), strict=True):
                assert (a.grad - b.grad).norm() <= tolerance * a.grad.norm() + tolerance / 100
                assert a.grad.norm() > 0 or b.grad.norm() == 0
            for sgd in sgds:
                sgd.step(sgd.lr)
    for (key, a), (_, b) in zip(*(stack.models[0].state_dict().items() for stack in stacks), strict=True):
        assert torch.allclose(a.double(), b.double(), atol=1e-8), key
    (logits,), (others,) = (logits_of(stack, [0], Split(*batch(9, 20))) for stack in stacks)
    assert torch.allclose(logits, others, atol=1e-6)


def test_a_network_that_does_not_allow_it_lies_as_it_was_built():
    """A user's own network may use ``view``, which needs the images in one order."""

    class Own(Network):
        def __init__(self):
            super().__init__((3, 8, 8), 5, depth=2)
            self.conv, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4 * 64, 5)

        def forward(self, x):
            return self.head(self.conv(self.normalize(x)).relu().view(len(x), -1))

    stack = Stack([Own()], channels_last=True)
    assert not stack.channels_last
    assert torch.isfinite(autograd_gradients(stack, CE)(*batch(0))[0])
    images = batch(0)[0]
    assert stack.images(images) is images


@pytest.mark.parametrize(("width", "safe"), [(4, False), (15, False), (16, True)])
def test_a_network_that_would_corrupt_memory_lies_as_it_was_built(width, safe):
    """A 1x1 convolution with a stride from few channels: PyTorch's library writes past the end of its gradient."""
    model = build("resnet", (3, 8, 8), 5, depth=8, width=width, shortcut="projection")
    assert Stack([model], channels_last=True).channels_last is safe
    other = build("resnet", (3, 8, 8), 5, depth=8, width=width)  # no such convolution
    assert Stack([other], channels_last=True).channels_last


def test_large_images_are_looked_at_in_smaller_chunks(monkeypatch):
    seen = []

    class Tiny(Network):
        def __init__(self):
            super().__init__((1, 128, 64), 2, depth=1)
            self.conv = nn.Conv2d(1, 2, 1)

        def forward(self, x):
            seen.append(len(x))
            return self.conv(self.normalize(x)).mean((2, 3))

    images = torch.zeros(130, 1, 128, 64, dtype=torch.uint8)
    (logits,) = logits_of(Stack([Tiny()]), [0], Split(images, torch.zeros(130, dtype=torch.int64)))
    assert seen == [62, 62, 6]  # 500 * 32 * 32 pixels
    assert logits.shape == (130, 2)


SMALL = RunConfig(
    dataset=Component("mnist5k"),
    model=Component("cnn", {"channels": [2, 4], "hidden": 4, "dropout": 0.2}),
    optimizer=Component("sgd", {"lr": 0.05}),
    train=TrainConfig(budget="9it", eval_every="3it", batch_size=64),
)


@pytest.fixture
def layouts(monkeypatch):
    """How the stacks of runs were laid out, in the order they were made."""
    made = []

    class Noting(Stack):
        def __init__(self, *args, **how):
            super().__init__(*args, **how)
            made.append(self.channels_last)

    monkeypatch.setattr(loop, "Stack", Noting)
    return made


def test_files_hold_contiguous_arrays_of_the_same_names_and_shapes(tmp_path, layouts):
    with quickly():
        whole = make(tmp_path, SMALL).run
        test = digits().for_another_run().test.open_test("comparing logits")
    assert layouts == [True]
    environment = whole.read_json("environment.json")
    assert environment.pop("memory_format") == "channels_last"
    whole.write_json("environment.json", environment)  # as from before there was a choice
    assert configure(Runtime(device="cpu", threads=1), recorded=whole.environment()).memory_format == "contiguous"
    data = (whole.path / "checkpoints" / "9" / "model.safetensors").read_bytes()
    model = build(SMALL.model, (1, 28, 28), 10)
    kept = safetensors.numpy.load(data)
    assert {k: v.shape for k, v in kept.items()} == {k: tuple(v.shape) for k, v in model.state_dict().items()}
    model.load_state_dict({k: torch.from_numpy(v) for k, v in kept.items()})
    with torch.no_grad():
        logits = model.eval()(test.inputs)
    saved = np.load(whole.path / "predictions.npz", allow_pickle=False)["logits"]
    assert np.allclose(logits.numpy(), saved, atol=1e-4)
