"""Orders, controls and curves of the deletion check."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from support.made_evidence import QuadrantNet, bright_pictures

from netdepth.tools.explain import deletion
from netdepth.tools.explain import maps as cam


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def maps(count: int = 3) -> torch.Tensor:
    return torch.randn(count, 6, 5, generator=generator(9))


def test_ranks_are_numpys_and_ties_fall_at_random() -> None:
    given = maps()
    found = deletion.ranks(given, generator())
    expected = np.argsort(np.argsort(-given.flatten(1).numpy(), axis=1), axis=1)
    assert np.array_equal(found.flatten(1).numpy(), expected)
    flat = torch.zeros(400, 2, 2)
    first = (deletion.ranks(flat, generator()).flatten(1) == 0).float().mean(0)
    assert bool(((first - 0.25).abs() < 0.1).all())


@pytest.mark.parametrize("control", [deletion.moved, deletion.scattered])
def test_a_control_has_the_values_of_the_map_and_repeats_with_its_seed(control) -> None:
    given = maps(40)
    found = control(given, generator())
    assert torch.equal(found.flatten(1).sort(1).values, given.flatten(1).sort(1).values)
    assert not torch.equal(found, given)
    assert torch.equal(control(given, generator()), found)


def test_a_moved_map_is_in_one_piece_and_goes_everywhere() -> None:
    spot = torch.zeros(600, 4, 4)
    spot[:, :2, :2] = 1.0
    found = deletion.moved(spot, generator())
    neighbours = found.roll(1, 1) + found.roll(-1, 1) + found.roll(1, 2) + found.roll(-1, 2)
    assert torch.equal(neighbours[found == 1], torch.full((2400,), 2.0))
    assert bool(((found.mean(0) - 0.25).abs() < 0.06).all())


def test_blurring_is_scipys_gaussian() -> None:
    pictures = torch.randint(0, 256, (2, 3, 20, 24), generator=generator()).byte()
    found = deletion.blurred(pictures, 2.0)
    expected = gaussian_filter(pictures.numpy().astype(float), (0, 0, 2.0, 2.0), mode="mirror", radius=(0, 0, 6, 6))
    assert np.abs(found.numpy() - expected).max() < 0.51


class Mean(torch.nn.Module):
    """Logits (0, mean of the pixels / 10)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        level = x.float().mean((1, 2, 3)) / 10
        return torch.stack([torch.zeros_like(level), level], dim=1)


def test_curves_are_what_their_definition_says() -> None:
    pictures = torch.tensor([[[[10, 20, 30, 40, 50, 60, 70, 80, 90, 100]]]]).byte()
    order = torch.tensor([[[9, 8, 7, 6, 5, 4, 3, 2, 1, 0]]])  # the brightest goes first
    seen: list[int] = []
    found = deletion.curves(
        Mean(), pictures, torch.tensor([1]), [order], blank=torch.tensor(0).byte(), blur=torch.full_like(pictures, 5),
        report=seen.append,
    )  # fmt: skip
    left = [sum(range(10, 101 - 10 * k, 10)) for k in range(11)]
    come = [sum(range(110 - 10 * k, 101, 10)) + 5 * (10 - k) for k in range(11)]
    for act, sums in enumerate((left, come)):
        expected = torch.tensor([total / 100 for total in sums], dtype=torch.float64).sigmoid()
        torch.testing.assert_close(found[act, 0, 0], expected, rtol=1e-5, atol=1e-6)
    assert sum(seen) == 3 + 2 * 9
    assert float(deletion.area(torch.ones(11, dtype=torch.float64))) == pytest.approx(1.0)


@pytest.mark.parametrize("pooled", [True, False])
def test_deleting_where_the_network_looks_beats_both_controls(pooled: bool) -> None:
    model = QuadrantNet(pooled).eval()
    pictures = bright_pictures()
    found = cam.evidence_maps(model, cam.find_evidence(model, pictures), pictures)
    compared = [found.values, *(make(found.values, generator()) for make in (deletion.moved, deletion.scattered))]
    orders = [deletion.ranks(one, generator()) for one in compared]
    blur = torch.zeros_like(pictures)
    curves = deletion.curves(
        model, pictures, found.classes, orders, blank=torch.tensor(0).byte(), blur=blur
    )  # fmt: skip
    deleted, inserted = deletion.area(curves).mean(-1)
    assert deleted[0] < deleted[1:].min() - 0.2
    assert inserted[0] > inserted[1:].max() + 0.2
    assert curves[0, 0, :, 2].max() < 0.2 < 0.9 < curves[0, 0, :, 0].min()
