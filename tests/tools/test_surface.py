"""The loss around weights: directions as Li et al. 2018, §4, losses of a network whose weights were moved; eigenvalues
of the Hessian as those of the dense matrix, with their error."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from support.made_weights import draw_statistics
from torch import Tensor
from torch.nn import functional as F

from netdepth import models
from netdepth.errors import BadInput
from netdepth.tools.landscape import surface
from netdepth.tools.landscape.surface import (
    HessianProduct,
    Summary,
    coordinates,
    describe_surface,
    filter_directions,
    largest_eigenvalue,
    slice_losses,
    smallest_eigenvalue,
)

SHAPE = (1, 8, 8)
NETWORKS = {
    "mlp": {"model": "mlp", "width": 6, "depth": 4, "norm": "batch", "shortcut": "identity"},
    "resnet": {"model": "resnet", "width": 2, "depth": 8},
    "cnn": {"model": "cnn", "channels": [3, 4], "hidden": 5},
}


def network(kind: str, **changes: object) -> models.Network:
    settings = {**NETWORKS[kind], **changes}
    return draw_statistics(models.build(str(settings.pop("model")), SHAPE, 10, seed=1, **settings))


def batch(size: int = 20) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (size, *SHAPE), dtype=torch.uint8, generator=generator)
    return images, torch.arange(size) % 10


@pytest.mark.parametrize("kind", NETWORKS)
def test_every_filter_of_a_direction_is_as_long_as_that_of_the_weights(kind: str) -> None:
    made = network(kind)
    first, second = filter_directions(made, seed=3)
    weights = {name: p.detach() for name, p in made.named_parameters() if p.dim() >= 2}
    assert first.keys() == second.keys() == weights.keys()  # no bias, no scale or shift of a normalisation
    for name, weight in weights.items():
        for direction in (first, second):
            assert direction[name].shape == weight.shape
            for moved, kept in zip(direction[name], weight, strict=True):
                assert float(moved.norm()) == pytest.approx(float(kept.norm()), rel=1e-5)
        cosine = F.cosine_similarity(first[name].flatten(), second[name].flatten(), dim=0)
        assert abs(float(cosine)) < 0.9, "two directions, not one twice"


def test_twins_get_the_same_draws_and_another_seed_gets_others() -> None:
    plain, residual = network("resnet", shortcut="none"), network("resnet", shortcut="identity")
    mine, twins = filter_directions(plain, 0), filter_directions(residual, 0)
    for one, other in zip(mine, twins, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert not torch.equal(filter_directions(plain, 1)[0]["conv.weight"], mine[0]["conv.weight"])


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_slice_is_the_loss_of_the_moved_network_which_is_left_alone(kind: str) -> None:
    made, (images, labels), steps = network(kind), batch(), coordinates(3, 0.5)
    made.train()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    directions = filter_directions(made, 0)
    found = list(slice_losses(made, images, labels, directions, steps))
    assert made.training
    assert all(torch.equal(before[name], value) for name, value in made.state_dict().items())
    assert list(slice_losses(made, images, labels, directions, steps, begin=4)) == found[4:]

    moved = network(kind).eval()
    for loss, (b, a) in zip(found, itertools.product(steps, steps), strict=True):
        moved.load_state_dict(
            {
                name: value + a * directions[0][name] + b * directions[1][name] if name in directions[0] else value
                for name, value in before.items()
            }
        )
        with torch.no_grad():
            assert loss == pytest.approx(float(F.cross_entropy(moved(images), labels)), rel=1e-5)
    assert len({round(loss, 6) for loss in found}) > 5


@pytest.mark.parametrize(
    ("points", "radius", "words"),
    [(1, 1.0, "odd number, 3 or more"), (4, 1.0, "odd number, 3 or more"), (-3, 1.0, "odd number, 3 or more"),
     (3, 0.0, "above 0"), (3, math.inf, "above 0"), (3, math.nan, "above 0")],
)  # fmt: skip
def test_a_grid_has_a_centre_and_a_radius(points: int, radius: float, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        coordinates(points, radius)
    assert coordinates(5, 1.5) == [-1.5, -0.75, 0.0, 0.75, 1.5]


def grid(function: Callable[..., float]) -> list[list[float]]:
    steps = np.linspace(-1, 1, 21)
    return [[float(function(a, b)) for a in steps] for b in steps]


@pytest.mark.parametrize(
    ("function", "down"),
    [
        (lambda a, b: 1 + a * a + b * b, 0.0),
        (lambda a, b: 5 + a * a - b * b, 1.0),
        (lambda a, b: 5 + a * b, 1.0),  # a saddle whose axes are not the grid's
        (lambda a, b: 3 - a * a - b * b, 1.0),
        (lambda a, b: 2 + a + b, 0.0),
        (lambda a, b: 2.3026, 0.0),
        (lambda a, b: 2 + a**3, 9 / 19),  # curved down where a < 0, a plain at 0
    ],
    ids=["bowl", "saddle", "turned saddle", "hill", "slope", "plain", "half"],
)
def test_where_a_surface_is_curved_down(function: Callable[..., float], down: float) -> None:
    assert describe_surface(grid(function), 0.1, 2.0).curved_down == pytest.approx(down)


def test_what_is_counted_on_a_surface() -> None:
    losses = [[1.0, 2.0, 3.0], [1.9, 1.0, math.nan], [math.inf, 0.5, 2.1]]
    seen = describe_surface(losses, 1.0, 2.05)
    counted = {"below_twice_centre": 4 / 9, "below_guessing": 5 / 9, "curved_down": None, "not_finite": 2}
    assert seen == Summary(centre=1.0, lowest=0.5, highest=3.0, **counted)
    nothing = describe_surface([[math.nan] * 3] * 3, 1.0, 2.0)
    assert nothing.not_finite == 9
    assert math.isnan(nothing.highest)


# --- curvature ---


def small_network(kind: str, **settings: Any) -> models.Network:
    return models.build(kind, (1, 4, 4), 3, seed=2, **settings).double().eval()


def small_batch(size: int = 12) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (size, 1, 4, 4), dtype=torch.uint8, generator=generator), torch.arange(size) % 3


def loss_of(model: models.Network, images: Tensor, labels: Tensor) -> tuple[Callable[[Tensor], Tensor], Tensor]:
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
    monkeypatch.setattr(surface, "CHUNK_PIXELS", 5 * 16)  # chunks of 5, 5 and 2 images
    model, (images, labels) = small_network("mlp", **settings), small_batch()
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
    monkeypatch.setattr(surface, "CHUNK_PIXELS", 5 * 16)
    model, (images, labels) = small_network(kind, **settings), small_batch()
    loss, vector = loss_of(model, images, labels)
    along = torch.randn(len(vector), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    _, expected = torch.autograd.functional.vhp(loss, vector, along)
    found = HessianProduct(model, images, labels)(along)
    assert torch.allclose(found, expected, rtol=1e-8, atol=1e-10)


def times(values: list[float]) -> Callable[[Tensor], Tensor]:
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
