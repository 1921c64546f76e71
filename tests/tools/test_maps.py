"""Maps against captum, against their definitions, and on networks whose evidence is known; the deletion check."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from support.made_evidence import QuadrantNet, bright_pictures
from torch import nn
from torch.nn import functional as F

from netdepth.models import build
from netdepth.tools.explain import maps as mapping

NETWORKS = {
    "resnet": ("resnet", (3, 16, 16), {"depth": 8, "width": 4}, "cam", "stages.2"),
    "plain": ("resnet", (3, 16, 16), {"depth": 8, "width": 4, "shortcut": "none"}, "cam", "stages.2"),
    "pre-activation": ("resnet", (3, 16, 16), {"depth": 8, "width": 4, "pre_activation": True}, "cam", "relu"),
    "bottleneck": ("resnet", (3, 16, 16), {"depth": 11, "width": 4, "block": "bottleneck"}, "cam", "stages.2"),
    "resnet18": ("resnet18", (3, 64, 64), {"width": 4}, "cam", "layer4"),
    "resnet50": ("resnet50", (3, 64, 64), {"width": 4}, "cam", "layer4"),
    "cnn": ("cnn", (1, 16, 16), {"channels": [4, 8], "convolutions": 2, "hidden": 8}, "grad-cam", "stages.1.3"),
}


def example(name: str) -> tuple[nn.Module, torch.Tensor, str, str]:
    """The network, five pictures, the method and the layer that are expected."""
    model, shape, settings, method, layer = NETWORKS[name]
    pictures = torch.randint(0, 256, (5, *shape), generator=torch.Generator().manual_seed(1)).byte()
    return build(model, shape, 7, seed=2, **settings).eval(), pictures, method, layer


def captums(model: nn.Module, pictures: torch.Tensor, layer: str, classes: torch.Tensor) -> torch.Tensor:
    pytest.importorskip("captum")
    from captum.attr import LayerGradCam

    found = LayerGradCam(model, model.get_submodule(layer)).attribute(pictures.float(), classes)
    return found[:, 0].detach()


@pytest.mark.parametrize("name", NETWORKS)
def test_the_method_is_told_from_a_forward_pass_and_grad_cam_equals_captums(name: str) -> None:
    model, pictures, method, layer = example(name)
    found = mapping.find_evidence(model, pictures[:2])
    assert (found.method, found.layer, found.head is not None) == (method, layer, method == "cam")
    evidence = dataclasses.replace(found, method="grad-cam")
    classes = torch.tensor([0, 6, 3, 3, 1])
    maps = mapping.evidence_maps(model, evidence, pictures, classes)
    expected = captums(model, pictures, layer, classes)
    assert maps.values.shape == expected.shape
    assert expected.abs().max() > 0
    torch.testing.assert_close(maps.values, expected)
    torch.testing.assert_close(maps.logits, model(pictures).detach())


@pytest.mark.parametrize("name", [name for name in NETWORKS if NETWORKS[name][3] == "cam"])
def test_a_class_activation_map_is_the_logit_spread_over_positions_and_grad_cam_times_them(name: str) -> None:
    model, pictures, _, _ = example(name)
    evidence = mapping.find_evidence(model, pictures[:2])
    maps = mapping.evidence_maps(model, evidence, pictures)
    logits = model(pictures).detach()
    assert torch.equal(maps.classes, logits.argmax(1))
    bias = model.get_submodule(str(evidence.head)).get_parameter("bias")[maps.classes]
    torch.testing.assert_close(maps.values.mean((1, 2)) + bias, logits.amax(1))
    gradient = mapping.evidence_maps(model, dataclasses.replace(evidence, method="grad-cam"), pictures)
    torch.testing.assert_close(maps.values, gradient.values * maps.values[0].numel())


def test_a_network_without_maps_has_its_input_gradients() -> None:
    pytest.importorskip("captum")
    from captum.attr import Saliency

    model = build("mlp", (3, 6, 5), 4, seed=0, hidden=[8]).eval()
    pictures = torch.randint(0, 256, (3, 3, 6, 5), generator=torch.Generator().manual_seed(1)).byte()
    evidence = mapping.find_evidence(model, pictures)
    assert evidence == mapping.Evidence("saliency")
    maps = mapping.evidence_maps(model, evidence, pictures)
    expected = Saliency(model).attribute(pictures.float().requires_grad_(), maps.classes).amax(1)
    torch.testing.assert_close(maps.values, expected)


def test_a_head_that_looks_at_anything_but_the_mean_is_no_class_activation_map() -> None:
    class Largest(nn.Module):
        def __init__(self, last: nn.Module) -> None:
            super().__init__()
            self.conv, self.fc, self.last = nn.Conv2d(1, 4, 3), nn.Linear(4, 3), last

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            pooled = F.adaptive_max_pool2d(F.relu(self.conv(x.float())), 1)
            logits: torch.Tensor = self.last(self.fc(pooled.flatten(1)))
            return logits

    pictures = torch.randint(0, 256, (2, 1, 8, 8), generator=torch.Generator().manual_seed(0)).byte()
    assert mapping.find_evidence(Largest(nn.Identity()), pictures) == mapping.Evidence("grad-cam", "conv")
    assert mapping.find_evidence(Largest(nn.Tanh()), pictures).method == "grad-cam"


@pytest.mark.parametrize("name", ["resnet", "cnn"])
def test_nothing_of_the_network_is_disturbed(name: str) -> None:
    model, pictures, _, _ = example(name)
    model.train()
    for parameter in model.parameters():
        parameter.requires_grad_(False)  # frozen stages are explained too
    before = {key: value.clone() for key, value in model.state_dict().items()}
    evidence = mapping.find_evidence(model, pictures)
    mapping.evidence_maps(model, evidence, pictures)
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in before.items())
    assert not any(module._forward_hooks for module in model.modules())


def test_maps_are_upsampled_bilinearly() -> None:
    maps = torch.tensor([[[0.0, 4.0]]])
    assert mapping.upsampled(maps, (2, 4)).tolist() == [[[0.0, 1.0, 3.0, 4.0]] * 2]
    assert mapping.upsampled(maps, (1, 2)) is maps


# --- deletion and insertion ---


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_maps(count: int = 3) -> torch.Tensor:
    return torch.randn(count, 6, 5, generator=generator(9))


def test_ranks_are_numpys_and_ties_fall_at_random() -> None:
    given = random_maps()
    found = mapping.ranks(given, generator())
    expected = np.argsort(np.argsort(-given.flatten(1).numpy(), axis=1), axis=1)
    assert np.array_equal(found.flatten(1).numpy(), expected)
    flat = torch.zeros(400, 2, 2)
    first = (mapping.ranks(flat, generator()).flatten(1) == 0).float().mean(0)
    assert bool(((first - 0.25).abs() < 0.1).all())


@pytest.mark.parametrize("control", [mapping.moved, mapping.scattered])
def test_a_control_has_the_values_of_the_map_and_repeats_with_its_seed(control: Callable[..., torch.Tensor]) -> None:
    given = random_maps(40)
    found = control(given, generator())
    assert torch.equal(found.flatten(1).sort(1).values, given.flatten(1).sort(1).values)
    assert not torch.equal(found, given)
    assert torch.equal(control(given, generator()), found)


def test_a_moved_map_is_in_one_piece_and_goes_everywhere() -> None:
    spot = torch.zeros(600, 4, 4)
    spot[:, :2, :2] = 1.0
    found = mapping.moved(spot, generator())
    neighbours = found.roll(1, 1) + found.roll(-1, 1) + found.roll(1, 2) + found.roll(-1, 2)
    assert torch.equal(neighbours[found == 1], torch.full((2400,), 2.0))
    assert bool(((found.mean(0) - 0.25).abs() < 0.06).all())


def test_blurring_is_scipys_gaussian() -> None:
    pictures = torch.randint(0, 256, (2, 3, 20, 24), generator=generator()).byte()
    found = mapping.blurred(pictures, 2.0)
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
    found = mapping.curves(
        Mean(), pictures, torch.tensor([1]), [order], blank=torch.tensor(0).byte(), blur=torch.full_like(pictures, 5),
        report=seen.append,
    )  # fmt: skip
    left = [sum(range(10, 101 - 10 * k, 10)) for k in range(11)]
    come = [sum(range(110 - 10 * k, 101, 10)) + 5 * (10 - k) for k in range(11)]
    for act, sums in enumerate((left, come)):
        expected = torch.tensor([total / 100 for total in sums], dtype=torch.float64).sigmoid()
        torch.testing.assert_close(found[act, 0, 0], expected, rtol=1e-5, atol=1e-6)
    assert sum(seen) == 3 + 2 * 9
    assert float(mapping.area(torch.ones(11, dtype=torch.float64))) == pytest.approx(1.0)


@pytest.mark.parametrize("pooled", [True, False])
def test_deleting_where_the_network_looks_beats_both_controls(pooled: bool) -> None:
    model = QuadrantNet(pooled).eval()
    pictures = bright_pictures()
    found = mapping.evidence_maps(model, mapping.find_evidence(model, pictures), pictures)
    compared = [found.values, *(make(found.values, generator()) for make in (mapping.moved, mapping.scattered))]
    orders = [mapping.ranks(one, generator()) for one in compared]
    blur = torch.zeros_like(pictures)
    curves = mapping.curves(model, pictures, found.classes, orders, blank=torch.tensor(0).byte(), blur=blur)
    deleted, inserted = mapping.area(curves).mean(-1)
    assert deleted[0] < deleted[1:].min() - 0.2
    assert inserted[0] > inserted[1:].max() + 0.2
    assert curves[0, 0, :, 2].max() < 0.2 < 0.9 < curves[0, 0, :, 0].min()
