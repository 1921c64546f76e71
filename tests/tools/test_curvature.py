"""Eigenvalues of the Hessian: those of the dense matrix, with what is known of their error."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from netdepth import models
from netdepth.tools.landscape import curvature
from netdepth.tools.landscape.curvature import HessianProduct, largest_eigenvalue, smallest_eigenvalue


def network(kind: str, **settings: Any) -> models.Network:
    return models.build(kind, (1, 4, 4), 3, seed=2, **settings).double().eval()


def batch(size: int = 12) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (size, 1, 4, 4), dtype=torch.uint8, generator=generator), torch.arange(size) % 3


def loss_of(model: models.Network, images: Tensor, labels: Tensor):  # type: ignore[no-untyped-def]
    """The mean loss as a function of all parameters in one vector, and that vector."""
    shapes = {name: p.shape for name, p in model.named_parameters()}

    def loss(vector: Tensor) -> Tensor:
        pieces = vector.split([shape.numel() for shape in shapes.values()])
        parameters = {name: piece.view(shapes[name]) for name, piece in zip(shapes, pieces, strict=True)}
        return F.cross_entropy(torch.func.functional_call(model, parameters, (images,)), labels)

    return loss, torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize(
    "settings",
    [{"hidden": [4, 3], "activation": "tanh"}, {"width": 4, "depth": 4, "shortcut": "identity", "init": "he"}],
    ids=["tanh", "residual relu"],
)
def test_the_extreme_eigenvalues_are_those_of_the_dense_hessian(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curvature, "CHUNK_PIXELS", 5 * 16)  # chunks of 5, 5 and 2 images
    model, (images, labels) = network("mlp", **settings), batch()
    loss, vector = loss_of(model, images, labels)
    dense = torch.autograd.functional.hessian(loss, vector)
    values = np.linalg.eigvalsh(dense.numpy())
    product = HessianProduct(model, images, labels)
    assert product.size == len(vector)
    *_, largest = largest_eigenvalue(product, product.size, tolerance=1e-6, max_products=5000)
    smallest = smallest_eigenvalue(product, product.size, tolerance=1e-10, max_products=2000)
    assert largest.converged
    assert smallest.converged
    assert values[0] < 0 < values[-1]
    assert largest.value == pytest.approx(values[-1], rel=1e-9)
    assert smallest.value == pytest.approx(values[0], rel=1e-7)
    assert largest.residual <= 1e-6 * largest.value
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("kind", ["resnet", "cnn"])
def test_the_product_is_that_of_the_loss_of_all_images_at_once(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"resnet": {"depth": 8, "width": 2}, "cnn": {"channels": [2], "hidden": 4}}[kind]
    monkeypatch.setattr(curvature, "CHUNK_PIXELS", 5 * 16)
    model, (images, labels) = network(kind, **settings), batch()
    loss, vector = loss_of(model, images, labels)
    along = torch.randn(len(vector), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    _, expected = torch.autograd.functional.vhp(loss, vector, along)
    found = HessianProduct(model, images, labels)(along)
    assert torch.allclose(found, expected, rtol=1e-8, atol=1e-10)


def times(values: list[float]):  # type: ignore[no-untyped-def]
    """Products with a full symmetric matrix that has these eigenvalues."""
    size = len(values)
    turn = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))[0]
    matrix = turn @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ turn.T
    return lambda vector: matrix @ vector


@pytest.mark.parametrize("values", [[4.0, 1.0, -2.0], [-5.0, 3.0, 1.0], [-5.0, -3.0, -1.0], [0.0, 0.0, 0.0]])
def test_the_largest_eigenvalue_is_the_largest_and_not_the_dominant_one(values: list[float]) -> None:
    *_, found = largest_eigenvalue(times(values), 3, tolerance=1e-8)
    assert found.converged
    assert found.value == pytest.approx(max(values), abs=1e-6)
    smallest = smallest_eigenvalue(times(values), 3)
    assert smallest.converged == any(values)  # of a matrix of zeros Lanczos' method says nothing
    assert not any(values) or smallest.value == pytest.approx(min(values), abs=1e-6)


def test_what_has_not_converged_says_so_and_the_residual_holds() -> None:
    values = [1.0, 0.999, *np.linspace(0.0, 0.99, 60)]
    known = list(largest_eigenvalue(times(values), 62, tolerance=1e-12, max_products=7))
    assert [found.products for found in known] == list(range(1, 8))
    assert not known[-1].converged
    for found in known:
        assert min(abs(found.value - value) for value in values) <= found.residual
    given_up = smallest_eigenvalue(times([-1.0, *np.linspace(-0.999, 1, 300)]), 301, tolerance=1e-14, max_products=21)
    assert not given_up.converged
    assert math.isnan(given_up.value)


def test_a_loss_that_is_not_finite_ends_the_iteration() -> None:
    found = list(largest_eigenvalue(lambda vector: vector * math.nan, 3))
    assert len(found) == 1
    assert not found[0].converged
