"""Maps against captum, against their definitions, and on networks whose evidence is known."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from support.made_evidence import HALF, QuadrantNet, bright_pictures
from torch import nn
from torch.nn import functional as F

from netdepth.models import MODELS, build
from netdepth.tools.explain import maps as cam

NETWORKS = {
    "resnet": ("resnet", (3, 16, 16), {"depth": 8, "width": 4}, "cam", "stages.2"),
    "plain": ("resnet", (3, 16, 16), {"depth": 8, "width": 4, "shortcut": "none"}, "cam", "stages.2"),
    "pre-activation": ("resnet", (3, 16, 16), {"depth": 8, "width": 4, "pre_activation": True}, "cam", "relu"),
    "bottleneck": ("resnet", (3, 16, 16), {"depth": 11, "width": 4, "block": "bottleneck"}, "cam", "stages.2"),
    "resnet18": ("resnet18", (3, 64, 64), {"width": 4}, "cam", "layer4"),
    "resnet50": ("resnet50", (3, 64, 64), {"width": 4}, "cam", "layer4"),
    "cnn": ("cnn", (1, 16, 16), {"channels": [4, 8], "convolutions": 2, "hidden": 8}, "grad-cam", "stages.1.3"),
}


def made(name: str) -> tuple[nn.Module, torch.Tensor, str, str]:
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
def test_the_method_and_the_layer_are_told_from_a_forward_pass(name: str) -> None:
    model, pictures, method, layer = made(name)
    evidence = cam.find_evidence(model, pictures[:2])
    assert (evidence.method, evidence.layer) == (method, layer)
    assert (evidence.head is not None) == (method == "cam")


@pytest.mark.parametrize("name", NETWORKS)
def test_grad_cam_equals_captums(name: str) -> None:
    model, pictures, _, _ = made(name)
    found = cam.find_evidence(model, pictures[:2])
    evidence = dataclasses.replace(found, method="grad-cam")
    classes = torch.tensor([0, 6, 3, 3, 1])
    maps = cam.evidence_maps(model, evidence, pictures, classes)
    assert found.layer is not None
    expected = captums(model, pictures, found.layer, classes)
    assert maps.values.shape == expected.shape
    assert expected.abs().max() > 0
    torch.testing.assert_close(maps.values, expected)
    torch.testing.assert_close(maps.logits, model(pictures).detach())


@pytest.mark.parametrize("name", [name for name in NETWORKS if NETWORKS[name][3] == "cam"])
def test_a_class_activation_map_is_the_logit_spread_over_positions_and_grad_cam_times_them(name: str) -> None:
    model, pictures, _, _ = made(name)
    evidence = cam.find_evidence(model, pictures[:2])
    maps = cam.evidence_maps(model, evidence, pictures)
    logits = model(pictures).detach()
    assert torch.equal(maps.classes, logits.argmax(1))
    bias = model.get_submodule(str(evidence.head)).get_parameter("bias")[maps.classes]
    torch.testing.assert_close(maps.values.mean((1, 2)) + bias, logits.amax(1))
    gradient = cam.evidence_maps(model, dataclasses.replace(evidence, method="grad-cam"), pictures)
    torch.testing.assert_close(maps.values, gradient.values * maps.values[0].numel())


def test_a_network_without_maps_has_its_input_gradients() -> None:
    pytest.importorskip("captum")
    from captum.attr import Saliency

    model = build("mlp", (3, 6, 5), 4, seed=0, hidden=[8]).eval()
    pictures = torch.randint(0, 256, (3, 3, 6, 5), generator=torch.Generator().manual_seed(1)).byte()
    evidence = cam.find_evidence(model, pictures)
    assert evidence == cam.Evidence("saliency")
    maps = cam.evidence_maps(model, evidence, pictures)
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
    assert cam.find_evidence(Largest(nn.Identity()), pictures) == cam.Evidence("grad-cam", "conv")
    assert cam.find_evidence(Largest(nn.Tanh()), pictures).method == "grad-cam"


@pytest.mark.parametrize("pooled", [True, False])
def test_the_map_lies_where_the_network_looks(pooled: bool) -> None:
    model = QuadrantNet(pooled).eval()
    pictures = bright_pictures()
    evidence = cam.find_evidence(model, pictures)
    assert evidence.method == ("cam" if pooled else "grad-cam")
    maps = cam.evidence_maps(model, evidence, pictures)
    assert bool((maps.classes == 1).all())
    assert float(maps.values[:, :HALF, :HALF].min()) > 0
    outside = maps.values.clone()
    outside[:, :HALF, :HALF] = 0
    assert float(outside.abs().max()) == 0


@pytest.mark.parametrize("name", ["resnet", "cnn"])
def test_nothing_of_the_network_is_disturbed(name: str) -> None:
    model, pictures, _, _ = made(name)
    model.train()
    for parameter in model.parameters():
        parameter.requires_grad_(False)  # frozen stages are explained too
    before = {key: value.clone() for key, value in model.state_dict().items()}
    evidence = cam.find_evidence(model, pictures)
    cam.evidence_maps(model, evidence, pictures)
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in before.items())
    assert not any(module._forward_hooks for module in model.modules())


def test_maps_are_upsampled_bilinearly() -> None:
    maps = torch.tensor([[[0.0, 4.0]]])
    assert cam.upsampled(maps, (2, 4)).tolist() == [[[0.0, 1.0, 3.0, 4.0]] * 2]
    assert cam.upsampled(maps, (1, 2)) is maps


def test_every_registered_model_can_be_explained() -> None:
    for name in MODELS.names():
        side = 64 if name.startswith("resnet") and name != "resnet" else 16
        model = build(name, (3, side, side), 3, **MODELS.entry(name).example)
        pictures = torch.randint(0, 256, (2, 3, side, side), generator=torch.Generator().manual_seed(0)).byte()
        evidence = cam.find_evidence(model, pictures)
        values = cam.evidence_maps(model, evidence, pictures).values
        assert values.shape[0] == 2
        assert bool(values.isfinite().all()), name
