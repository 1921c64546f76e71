"""Layer statistics: against formulas computed another way, and a network that does not notice them."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import cosine_similarity
from torch import Tensor, nn
from torch.nn import functional as F

from netdepth import models
from netdepth.data import Split
from netdepth.models.network import Network
from netdepth.training.layers import probe, probe_batch
from netdepth.training.stack import Stack

SHAPE = (1, 8, 8)
KINDS: dict[str, dict[str, Any]] = {
    "plain": {"init": "he"},
    "residual": {"init": "he", "shortcut": "identity", "branch_scale": "blocks^-1/2"},
    "batch norm": {"norm": "batch"},
    "layer norm": {"norm": "layer", "shortcut": "identity"},
    "pre-activation": {"shortcut": "identity", "pre_activation": True, "norm": "batch", "block_layers": 2},
    "rezero": {"shortcut": "identity", "branch_scale": "rezero"},
    "fixup": {"shortcut": "identity", "branch_scale": "fixup", "block_layers": 2},
    "tanh": {"activation": "tanh", "init": "xavier"},
}


def network(width: int = 16, depth: int = 6, seed: int = 0, **settings: Any) -> Network:
    return models.build("mlp", SHAPE, 10, seed=seed, width=width, depth=depth, **settings)


def batch(size: int = 32) -> tuple[Tensor, Tensor]:
    inputs = torch.randint(0, 256, (size, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return inputs, torch.arange(size) % 10


class Branchy(Network):
    """Convolutions, an in-place ReLU, a frozen layer: what an MLP does not have."""

    def __init__(self) -> None:
        super().__init__(SHAPE, 10, depth=3)
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 6, 3)
        self.head = nn.Linear(6 * 36, 10)
        self.relu = nn.ReLU(inplace=True)
        self.second.requires_grad_(False)
        with torch.no_grad():
            self.first.weight[1:3] = 0.0
            self.first.bias[1:3] = -1.0  # two of four channels never fire
            self.first.bias[::3] = 3.0  # the others do, whatever was drawn

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu(self.first(self.normalize(x)))
        h = self.relu(self.second(h))
        logits: Tensor = self.head(h.flatten(1))
        return logits


# --- against references --------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_autograd(kind: str, dtype: torch.dtype) -> None:
    model = network(**KINDS[kind]).to(dtype)
    inputs, labels = batch()
    reference = copy.deepcopy(model).train()
    loss = F.cross_entropy(reference(inputs), labels)
    loss.backward()  # type: ignore[no-untyped-call]
    layers = {name: m for name, m in reference.named_modules() if isinstance(m, nn.Linear)}
    found = probe(model, inputs, labels)
    assert found.loss == loss.item()
    assert found.batch == 32
    assert [row.name for row in found.layers] == [f"hidden.{i}" for i in range(5)] + ["head"]
    for row in found.layers:
        weight = layers[row.name].weight
        assert weight.grad is not None
        assert row.grad_norm == pytest.approx(weight.grad.norm().item(), rel=1e-5)
        assert row.weight_norm == pytest.approx(weight.norm().item(), rel=1e-6)
        assert row.weight_norm or kind == "fixup"
        ratio = row.grad_norm / row.weight_norm if row.weight_norm else None
        assert row.grad_to_weight == ratio
    assert found.gradient_ratio == found.layers[0].grad_norm / found.layers[-1].grad_norm


def representations(model: Any, inputs: Tensor) -> list[np.ndarray]:
    """What each layer of a plain or one-layer-block residual MLP hands on, written out."""
    h = model.normalize(inputs).flatten(1)
    found = []
    for index, layer in enumerate(model.hidden):
        branch = layer(h).clamp(min=0)
        h = branch if index == 0 or model.shortcut == "none" else h + model.branch_factor * branch
        found.append(h)
    return [tensor.detach().double().numpy() for tensor in [*found, model.head(h)]]


@pytest.mark.parametrize("kind", ["plain", "residual"])
def test_activations_are_those_of_the_forward_pass(kind: str) -> None:
    model, (inputs, labels) = network(**KINDS[kind]), batch()
    pairs = np.triu_indices(len(labels), k=1)
    rows = probe(model, inputs, labels).layers
    for row, values in zip(rows, representations(model, inputs), strict=True):
        assert row.shape == values.shape[1:]
        assert row.activation_mean == pytest.approx(values.mean(), rel=1e-5)
        assert row.activation_var == pytest.approx(values.var(), rel=1e-5)
        assert row.cosine == pytest.approx(cosine_similarity(values)[pairs].mean(), rel=1e-6)


def test_dead_units_are_those_that_no_example_wakes() -> None:
    model, (inputs, labels) = network(width=8, depth=3), batch()
    with torch.no_grad():
        model.get_submodule("hidden.0").bias[:] = torch.tensor([-1e4] * 3 + [1e4] * 5)
        model.get_submodule("hidden.1").bias[:] = 1e4
    dead = [row.dead_fraction for row in probe(model, inputs, labels).layers]
    assert dead == [3 / 8, 0.0, None]
    assert all(row.dead_fraction is None for row in probe(network(**KINDS["tanh"]), inputs, labels).layers)


def test_convolutions_count_channels_and_frozen_layers_have_a_gradient() -> None:
    model, (inputs, labels) = Branchy(), batch()
    found = probe(model, inputs, labels).layers
    assert [row.kind for row in found] == ["Conv2d", "Conv2d", "Linear"]
    assert [row.shape for row in found] == [(4, 8, 8), (6, 6, 6), (10,)]
    assert found[0].dead_fraction == 0.5
    assert found[1].grad_norm > 0
    hidden = model.relu(model.first(model.normalize(inputs))).detach().flatten(1)
    assert found[0].activation_var == pytest.approx(float(hidden.double().var(correction=0)), rel=1e-5)
    assert not any(p.requires_grad for p in model.second.parameters())


def test_a_zero_representation_is_left_out_of_the_cosine() -> None:
    model, (inputs, labels) = network(width=8, depth=2), batch(4)
    layer = model.get_submodule("hidden.0")
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        layer.weight[0, :2] = torch.tensor([1.0, -1.0])
    inputs[:, 0, 0, 0], inputs[:, 0, 0, 1] = torch.tensor([0, 9, 0, 7]), torch.tensor([5, 1, 5, 1])
    first, _ = probe(model, inputs, labels).layers
    assert first.cosine == pytest.approx(1.0)  # of examples 1 and 3, the only ones that fire
    assert probe(model, inputs[:2], labels[:2]).layers[0].cosine is None


class Patches(nn.Module):
    """Looks at each image as four rows, and calls its layer by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.head = nn.Linear(16, 5), nn.Linear(20, 10)

    def forward(self, x: Tensor) -> Tensor:
        h = self.patch(input=x.float().reshape(-1, 16) / 255)
        logits: Tensor = self.head(input=h.reshape(len(x), 20))
        return logits


def test_layers_may_see_other_rows_and_be_called_by_keyword() -> None:
    model, (inputs, labels) = Patches(), batch()
    first, last = probe(model, inputs, labels).layers
    hidden = model.patch(inputs.float().reshape(-1, 16) / 255).reshape(32, 20).detach().numpy()
    logits = model(inputs).detach().numpy()
    for row, values in ((first, hidden), (last, logits)):
        assert row.activation_var == pytest.approx(values.var(), rel=1e-4)
        assert row.cosine == pytest.approx(cosine_similarity(values)[np.triu_indices(32, k=1)].mean(), rel=1e-5)


def test_what_is_not_finite_stays_so() -> None:
    model, (inputs, labels) = network(), batch()
    with torch.no_grad():
        model.get_submodule("hidden.2").weight[0, 0] = math.inf
    found = probe(model, inputs, labels)
    assert math.isnan(found.loss)
    assert math.isinf(found.layers[2].weight_norm)
    assert math.isfinite(found.layers[1].activation_var)
    assert all(not math.isfinite(row.activation_var) for row in found.layers[2:])
    assert all(not math.isfinite(row.cosine) for row in found.layers[2:])


# --- known theory --------------------------------------------------------------------------------


def test_wide_he_networks_follow_the_arc_cosine_kernel() -> None:
    """Cho and Saul 2009, "Kernel Methods for Deep Learning", eq. 6: how a layer closes the angle of two inputs."""
    inputs, labels = batch(2)
    found = []
    for seed in range(20):
        model = network(width=256, depth=5, seed=seed, init="he")
        model.normalize.set_statistics(torch.tensor([0.5]), torch.tensor([0.29]))
        found.append([row.cosine for row in probe(model, inputs, labels).layers[:-1]])
    cosine = float(cosine_similarity(model.normalize(inputs).flatten(1).numpy())[0, 1])
    for measured in np.mean(found, axis=0):
        cosine = (math.sqrt(1 - cosine**2) + cosine * (math.pi - math.acos(cosine))) / math.pi
        assert measured == pytest.approx(cosine, abs=0.02)


def test_depth_vanishes_collapses_or_passes_as_known() -> None:
    inputs, labels = batch(64)
    default = probe(network(64, 40), inputs, labels)
    he = probe(network(64, 40, init="he"), inputs, labels)
    scaled = probe(network(64, 40, **KINDS["residual"]), inputs, labels)
    unscaled = probe(network(64, 40, init="he", shortcut="identity"), inputs, labels)
    assert default.gradient_ratio < 1e-8
    assert 1e-2 < he.gradient_ratio < 1e2
    assert 1e-2 < scaled.gradient_ratio < 1e2
    assert he.layers[-2].cosine > 0.97 > he.layers[0].cosine
    growth = [p.layers[-2].activation_var / p.layers[0].activation_var for p in (scaled, unscaled)]
    assert growth[0] < 1e4 < 1e12 < growth[1]


# --- the batch -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "count"), [(1000, 256), (256, 256), (100, 100), (1, 1)])
def test_the_batch_is_spread_evenly_over_the_split(size: int, count: int) -> None:
    split = Split(torch.arange(size).view(-1, 1, 1, 1), torch.arange(size))
    inputs, labels = probe_batch(split)
    assert torch.equal(inputs.flatten(), labels)
    assert len(labels) == count
    assert labels[0] == 0
    steps = labels.diff()
    assert len(steps) == 0 or (steps.max() - steps.min() <= 1 and steps.min() >= 1)
    assert size - labels[-1] <= math.ceil(size / count)


# --- nothing is disturbed --------------------------------------------------------------------------


def state(model: nn.Module) -> list[Any]:
    """All that a probe must leave alone."""
    tensors = [*model.parameters(), *model.buffers()]
    return [
        [tensor.detach().clone() for tensor in tensors],
        [(tensor.data_ptr(), tensor.stride(), tensor.requires_grad) for tensor in tensors],
        [None if p.grad is None else (p.grad.data_ptr(), p.grad.clone()) for p in model.parameters()],
        [(id(module), module.training) for module in model.modules()],
        [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        torch.random.get_rng_state(),
    ]


def assert_same(found: Any, before: Any) -> None:
    torch.testing.assert_close(found, before, rtol=0, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_disturbed(kind: str) -> None:
    model, (inputs, labels) = network(dropout=0.3, **KINDS[kind]), batch()
    Stack([model]).gradient.fill_(3)
    model.train()
    model.get_submodule("hidden.1").eval()
    pixels = inputs.clone()
    before = state(model)
    found = probe(model, inputs, labels)
    assert_same(state(model), before)
    assert torch.equal(inputs, pixels)
    torch.rand(3)
    with torch.no_grad():
        assert probe(model.eval(), inputs, labels) == found


def test_dropout_is_off_and_the_layout_does_not_matter() -> None:
    model, (inputs, labels) = network(dropout=0.5), batch()
    found = probe(model, inputs, labels)
    assert found.loss == probe(network(), inputs, labels).loss
    Stack([model])  # its matrices lie transposed
    again = probe(model, inputs, labels)
    assert again.loss == pytest.approx(found.loss, rel=1e-6)
    assert again.gradient_ratio == pytest.approx(found.gradient_ratio, rel=1e-5)


def test_a_probe_that_fails_leaves_no_trace() -> None:
    model, (inputs, labels) = network(norm="batch"), batch()
    before = state(model.eval())
    with pytest.raises(IndexError):
        probe(model, inputs, labels + 10)
    assert_same(state(model), before)
