"""CIFAR ResNets under other projects' names: converted and loaded, they answer as a small implementation does."""

import json

import pytest
import torch
from safetensors.torch import save_file
from support.made_weights import draw_statistics
from torch import nn
from torch.nn import functional as F

from netdepth.errors import BadInput
from netdepth.tools.convert.cifar import NORMALIZATIONS, Assumed
from netdepth.tools.convert.reader import rewrite
from netdepth.training.published import open_published

WIDTH, BLOCKS, CLASSES = 4, 2, 6


class Block(nn.Module):
    """A basic block as the usual repositories write it; ``skip`` is what its module of the skip is called."""

    def __init__(self, before, after, stride, skip, zeros):
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.skip, self.zeros, self.stride, self.missing = skip, zeros, stride, after - before
        if skip and (stride != 1 or before != after):
            setattr(self, skip, nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)))

    def forward(self, x):
        h = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if hasattr(self, self.skip or " "):
            return F.relu(h + getattr(self, self.skip)(x))
        if self.zeros == "none":
            return F.relu(h)
        sides = (self.missing // 2,) * 2 if self.zeros == "both" else (0, self.missing)
        return F.relu(h + F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, *sides)))


class Reference(nn.Module):
    """akamaster's names are head="linear", skip=None or "shortcut"; chenyaofo's are "fc" and "downsample"."""

    def __init__(self, head="linear", skip=None, zeros="both", channels=3):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, WIDTH, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTH)
        sizes = [WIDTH, WIDTH, 2 * WIDTH, 4 * WIDTH]
        for stage in (1, 2, 3):
            first = Block(sizes[stage - 1], sizes[stage], 1 if stage == 1 else 2, skip, zeros)
            others = [Block(sizes[stage], sizes[stage], 1, skip, zeros) for _ in range(BLOCKS - 1)]
            setattr(self, f"layer{stage}", nn.Sequential(first, *others))
        setattr(self, head, nn.Linear(4 * WIDTH, CLASSES))
        self.last = head

    def forward(self, x):
        h = F.relu(self.bn1(self.conv1(x)))
        h = self.layer3(self.layer2(self.layer1(h)))
        return getattr(self, self.last)(h.mean((2, 3)))


def made(seed=0, **settings):
    torch.manual_seed(seed)
    return draw_statistics(Reference(**settings)).eval()


def converted(folder, content, assumed=Assumed(), name="w.pth"):  # noqa: B008
    path = folder / name
    (save_file if name.endswith(".safetensors") else torch.save)(content, path)
    with open(path, "rb") as handle:
        return rewrite(handle, folder / "made.safetensors", name, assumed)


def same_logits(folder, reference, normalization, channels=3):
    published = open_published(folder / "made.safetensors")
    pixels = torch.randint(0, 256, (5, channels, 32, 32), dtype=torch.uint8)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in NORMALIZATIONS[normalization])
    with torch.no_grad():
        found, expected = published.model(pixels), reference((pixels / 255 - mean) / std)
    assert expected.std() > 0.01
    assert (found - expected).abs().max() < 1e-5
    return published


@pytest.mark.parametrize(
    ("settings", "shortcut", "words"),
    [
        ({"head": "linear"}, "identity", "option A with zeros on both sides"),
        ({"head": "fc", "zeros": "end"}, "identity", "option A with zeros at the end"),
        ({"head": "linear", "zeros": "none"}, "none", "a plain net"),
        ({"head": "linear", "skip": "shortcut"}, "projection", None),
        ({"head": "fc", "skip": "downsample"}, "projection", None),
        ({"head": "classifier", "skip": "downsample"}, "projection", None),
    ],
)
def test_each_naming_gives_the_logits_of_its_network(tmp_path, settings, shortcut, words):
    reference = made(**settings)
    assumed = Assumed(skip=settings.get("zeros", "both"))
    report = converted(tmp_path, reference.state_dict(), assumed)
    assert report["fits"].startswith("fits resnet of depth 14 and width 4 with 6 classes. The file does not say: ")
    assert "cifar10's normalisation (--normalization)" in report["fits"]
    assert "mean 0.4914, 0.4822, 0.4465, deviation 0.2023, 0.1994, 0.201" in report["fits"]
    assert ("(--skip)" in report["fits"]) == (words is not None)
    assert (words or "") in report["fits"]
    published = same_logits(tmp_path, reference, "cifar10")
    assert published.component.args == {"depth": 14, "width": 4, "shortcut": shortcut}
    assert published.classes == tuple(f"class {i}" for i in range(CLASSES))


@pytest.mark.parametrize(
    ("wrapped", "unwrapped", "stripped"),
    [
        (lambda w: {"net": {f"module.{k}": v for k, v in w.items()}, "acc": 91.2, "epoch": 3}, ["net"], ["module."]),
        (lambda w: {"model_state": w, "ema": w, "optimizer": {"state": {0: {"exp_avg": torch.ones(1)}}}},
         ["model_state"], []),
        (lambda w: {"ema": {"shadow": w}, "optimizer": {"state": {0: {"exp_avg": torch.ones(1)}}}},
         ["ema", "shadow"], []),
        (lambda w: {"state_dict": {f"model.{k}": v for k, v in w.items()}}, ["state_dict"], ["model."]),
        (lambda w: {f"encoder.{k}": v for k, v in w.items()}, [], ["encoder."]),
        (lambda w: {"weights": {f"_orig_mod.module.{k}": v for k, v in w.items()}}, ["weights"],
         ["_orig_mod.", "module."]),
    ],
)  # fmt: skip
def test_what_training_scripts_save_is_unwrapped(tmp_path, wrapped, unwrapped, stripped):
    reference = made()
    report = converted(tmp_path, wrapped(reference.state_dict()))
    assert (report["unwrapped"], report["stripped"]) == (unwrapped, stripped)
    same_logits(tmp_path, reference, "cifar10")


def test_two_entries_with_tensors_are_not_guessed_between(tmp_path):
    given = made().state_dict()
    with pytest.raises(BadInput, match=r"holds tensors in 2 entries: generator .*, discriminator .*; save the one"):
        converted(tmp_path, {"generator": given, "discriminator": given})


def test_normalisation_channels_and_source_are_taken_as_said(tmp_path):
    reference = made(channels=1, skip="downsample", head="fc")
    report = converted(tmp_path, reference.state_dict(), name="w.safetensors")
    assert "mnist's normalisation" in report["fits"]
    assert same_logits(tmp_path, reference, "mnist", channels=1).model.input_shape == (1, 28, 28)
    reference = made()
    converted(tmp_path, reference.state_dict(), Assumed(normalization="imagenet"))
    same_logits(tmp_path, reference, "imagenet")


def test_networks_that_are_no_cifar_resnet_are_not_called_one(tmp_path):
    bottleneck = made().state_dict() | {"layer1.0.conv3.weight": torch.ones(16, 4, 1, 1)}
    assert "fits no network" in converted(tmp_path, bottleneck)["fits"]
    fourth = made().state_dict() | {"layer4.0.conv1.weight": torch.ones(32, 16, 3, 3)}
    assert "fits no network" in converted(tmp_path, fourth)["fits"]
    normed_first = made().state_dict() | {"layer2.0.bn1.weight": torch.ones(4)}
    assert "fits no network" in converted(tmp_path, normed_first)["fits"]


def test_metadata_that_do_not_fit_the_tensors_are_refused_without_memory(tmp_path):
    path = tmp_path / "a.safetensors"
    huge = {"model": json.dumps({"name": "mlp", "args": {"hidden": [2**16] * 9}}), "input_shape": "[1, 28, 28]"}
    for metadata, words in (
        (huge | {"classes": '["a", "b"]'}, "its tensors are not those of the network in its metadata"),
        (huge | {"classes": "[]"}, "its metadata are damaged"),
        (huge | {"classes": '["a"]', "input_shape": "[1, 0, 28]"}, "its metadata are damaged"),
        (huge | {"classes": '["a"]', "model": '{"name": "mpl", "args": {}}'}, "unknown model 'mpl'"),
    ):
        save_file({"w": torch.ones(1)}, path, metadata)
        with pytest.raises(BadInput, match=words):
            open_published(path)
