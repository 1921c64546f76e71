"""Files of weights as the beginning of a run, and as what tools are pointed at."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from support.made_weights import draw_statistics, weights

import netdepth as nd
from netdepth.config import Runtime
from netdepth.errors import BadInput
from netdepth.models import build
from netdepth.tools.predict import open_network, predict

SMALL = ["dataset=mnist5k", 'dataset.classes=["0","1"]', "model=resnet", "model.depth=8", "model.width=4"]
SHORT = ["train.budget=1it", "train.eval_every=1it", "optimizer=sgd", "optimizer.lr=1e-12"]


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A network for 28 x 28 grey images and seven classes, as ``convert`` would write it; a run that begins with it."""
    folder = tmp_path_factory.mktemp("begun")
    network = draw_statistics(build("resnet", (1, 28, 28), 7, depth=8, width=4, seed=3))
    network.normalize.set_statistics(torch.tensor([0.3]), torch.tensor([0.2]))
    metadata = {"model": json.dumps({"name": "resnet", "args": {"depth": 8, "width": 4}}), "input_shape": "[1, 28, 28]"}
    metadata["classes"] = json.dumps([f"c{i}" for i in range(7)])
    save_file(network.state_dict(), folder / "w.safetensors", metadata)
    return folder, trained(folder, f"start_from={folder / 'w.safetensors'}")


@pytest.fixture
def file(begun, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return shutil.copy(begun[0] / "w.safetensors", "w.safetensors")


def trained(folder, *overrides):
    runtime = Runtime(runs_root=folder, probes=False)
    return nd.train("baseline-mlp", overrides=[*SMALL, *SHORT, *overrides], runtime=runtime, progress=False)


def test_a_run_begins_with_the_weights_of_a_file_and_a_head_of_its_own(begun, file):
    folder, run = begun
    state, given = run.model("last").state_dict(), load_file(file)
    assert torch.allclose(state["conv.weight"], given["conv.weight"], atol=1e-6)
    assert torch.equal(state["normalize.mean"], given["normalize.mean"]), "the images stay normalised as in the file"
    assert state["head.weight"].shape == (2, 16)
    start = run.config["start_from"]
    assert (start["run"], start["weights"]) == (str(folder / "w.safetensors"), None)
    assert trained(folder, f"start_from={file}").path == run.path, "the weights count, not where they lie"


def test_what_does_not_fit_or_has_changed_is_said(file, tmp_path):
    with pytest.raises(BadInput, match=r"does not fit this network of depth 8: .*the file holds model=resnet with"):
        trained(tmp_path, f"start_from={file}", "model.width=8")
    with pytest.raises(BadInput, match=r"no last layer for 2 classes; start_from.reset_head=true draws it anew"):
        trained(tmp_path, f"start_from={file}", "start_from.reset_head=false")
    with pytest.raises(BadInput, match="weights = 'best' is for a run; a file holds one set"):
        trained(tmp_path, f"start_from={file}", "start_from.weights=best")
    with pytest.raises(BadInput, match=r"cannot read .*none\.safetensors"):
        trained(tmp_path, "start_from=none.safetensors")
    torch.save({}, "w.pth")
    with pytest.raises(BadInput, match=r"make a \.safetensors file of it first: netdepth convert w\.pth"):
        trained(tmp_path, "start_from=w.pth")
    with pytest.raises(BadInput, match=r"is [0-9a-f]{10}, not 0000000000 as this config says"):
        trained(tmp_path, f"start_from={file}", f'start_from.sha256="{"0" * 64}"')
    with pytest.raises(BadInput, match="names 'steam'; the stages of this network are stem"):
        trained(tmp_path, f"start_from={file}", 'start_from.freeze=["steam"]')
    save_file(weights(), "rgb.safetensors")
    with pytest.raises(BadInput, match=r"for pictures of 3 channels.*the file fits resnet18 of width 4 with 7 classes"):
        trained(tmp_path, "start_from=rgb.safetensors")


def test_an_exported_run_is_predicted_probed_and_exported_as_a_file(begun, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = begun[1]
    exported = nd.export(run, to="safetensors", out=tmp_path / "shared.safetensors").file
    digit = run.data().val.inputs[0, 0].numpy()
    Image.fromarray(digit).save("digit.png")
    (direct,), (shared,) = (predict(network, ["digit.png"]) for network in (run, open_network(str(exported))))
    assert shared.probabilities == direct.probabilities
    assert shared.label in run.classes
    again = nd.export(exported, to="safetensors")
    assert again.file == tmp_path / "shared-export.safetensors"
    first, second = load_file(exported), load_file(again.file)
    assert all(torch.equal(first[name], second[name]) for name in first.keys() | second.keys())
    assert "does not say on\nwhich data it was trained" in again.card.read_text()
    for tool, more in ((nd.probe, {"dataset": "mnist5k"}), (nd.export, {"to": "safetensors"})):
        with pytest.raises(BadInput, match="--weights best is for a run"):
            tool(exported, weights="best", **more)


@pytest.mark.slow
def test_a_file_of_weights_is_probed(file):
    asked = {"dataset": "mnist5k", "overrides": ['dataset.classes=["0","1"]'], "images": 20, "progress": False}
    found = nd.probe(file, **asked)
    assert found.path.parent == Path("w-probe/transfer")
    assert (found.result.run, found.result.weights) == (file, "published")
    assert nd.probe(file, **asked).cached


def test_published_imagenet_weights_take_images_of_any_size(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_file(weights(), "r18.safetensors")
    published = open_network("r18.safetensors")
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32), dtype=np.uint8))
    with torch.no_grad():
        assert published.sized((3, 32, 32))(pixels).shape == (2, 7)
    assert published.model.input_shape == (3, 32, 32)
    assert published.sized((1, 28, 28)).input_shape == (3, 32, 32)
    assert safetensors.torch.load((tmp_path / "r18.safetensors").read_bytes()).keys() == weights().keys()
