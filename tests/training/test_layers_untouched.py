"""A network does not notice that it is probed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.probed_networks import KINDS, batch, network
from torch import Tensor, nn

from netdepth.training.layers import probe


def flattened(model: nn.Module) -> Tensor:
    """Parameters as views into one vector, matrices transposed, each with a gradient."""
    parameters = list(model.parameters())
    vector = torch.cat([p.detach().t().reshape(-1) if p.dim() == 2 else p.detach().reshape(-1) for p in parameters])
    offset = 0
    for p in parameters:
        piece = vector[offset : offset + p.numel()]
        offset += p.numel()
        p.data = piece.view(p.shape[::-1]).t() if p.dim() == 2 else piece.view(p.shape)
        p.grad = torch.full_like(p, 3.0)
    return vector


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


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return bool(a == b)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_disturbed(kind: str) -> None:
    model, (inputs, labels) = network(dropout=0.3, **KINDS[kind]), batch()
    flattened(model)
    model.train()
    model.get_submodule("hidden.1").eval()
    pixels = inputs.clone()
    before = state(model)
    found = probe(model, inputs, labels)
    assert equal(state(model), before)
    assert torch.equal(inputs, pixels)
    torch.rand(3)
    with torch.no_grad():
        assert probe(model.eval(), inputs, labels) == found


def test_dropout_is_off_and_the_layout_does_not_matter() -> None:
    model, (inputs, labels) = network(dropout=0.5), batch()
    found = probe(model, inputs, labels)
    assert found["loss"] == probe(network(), inputs, labels)["loss"]
    flattened(model)
    again = probe(model, inputs, labels)
    assert again["loss"] == pytest.approx(found["loss"], rel=1e-6)
    assert again["gradient_ratio"] == pytest.approx(found["gradient_ratio"], rel=1e-5)


def test_a_probe_that_fails_leaves_no_trace() -> None:
    model, (inputs, labels) = network(norm="batch"), batch()
    before = state(model.eval())
    with pytest.raises(IndexError):
        probe(model, inputs, labels + 10)
    assert equal(state(model), before)
