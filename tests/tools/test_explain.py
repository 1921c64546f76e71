"""``netdepth explain`` from the outside: files, numbers, words, errors; and what it never touches."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from support.cli_world import Ask, answer
from support.made_evidence import CNN, MLP, RESNET, QuadrantNet, bright_pictures, short_run
from support.made_weights import CLASSES, weights

import netdepth as nd
from netdepth.config import Component, Runtime
from netdepth.data import SealedTest
from netdepth.errors import BadInput
from netdepth.runs.folder import RunDir
from netdepth.tools.explain.examine import ACTS
from netdepth.training.published import Published, open_published

PARTS = ("sheet", "means", "check")
ONE_THREAD = Runtime(threads=1, device="cpu")


@pytest.fixture(scope="module")
def run_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], RunDir]:
    """Runs, made when they are asked for."""
    models = {"resnet": RESNET, "cnn": CNN, "mlp": MLP}
    return functools.cache(lambda name: short_run(tmp_path_factory.mktemp(name), models[name]))


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Ask:
    return lambda *argv: answer(["explain", *map(str, argv), "--threads", "1"], capsys)


def png(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
        return image.size


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("resnet", "cam"),
        pytest.param("cnn", "grad-cam", marks=pytest.mark.slow),
        pytest.param("mlp", "saliency", marks=pytest.mark.slow),
    ],
)
def test_a_run_is_explained_on_validation_images_and_test_stays_sealed(
    run_of: Callable[[str], RunDir], ask: Ask, monkeypatch: pytest.MonkeyPatch, name: str, method: str
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the test part was opened")

    run = run_of(name)
    monkeypatch.setattr(SealedTest, "open_test", refuse)
    monkeypatch.setitem(matplotlib.rcParams, "savefig.dpi", "figure")  # the size that is stated
    access = (run.path / "test_access.json").read_bytes()
    code, out, err = ask(run.path, "--count", 5, "--json")
    assert code == 0, err
    document = json.loads(out)
    assert document["evidence"]["method"] == method
    assert document["images"]["part"] == "val"
    assert all(row["picture"].startswith("val ") for row in document["sheet"])
    assert (run.path / "test_access.json").read_bytes() == access
    saved = json.loads((run.path / "figures" / "explain.json").read_bytes())
    assert saved["check"] == document["check"]
    for part in PARTS:
        stated = saved["figures"][part]
        assert png(run.path / "figures" / stated["file"]) == (stated["width"], stated["height"])
    assert ("sensitive" in document["words"]) == (method == "saliency")
    assert f"n = {document['check']['n']} validation images" in document["words"]


def test_the_numbers_are_those_of_the_network(run_of: Callable[[str], RunDir]) -> None:
    run = nd.load(run_of("resnet").path)
    found = nd.explain(run, count=10, progress=False, runtime=ONE_THREAD)
    model = run.model()
    from netdepth import data
    from netdepth.config import Component

    val = data.load(Component("mnist5k"), data_dir=None).val
    with torch.inference_mode():
        shares = model(val.inputs).double().softmax(1)
    assert found.numbers["images"]["right"] == int((shares.argmax(1) == val.labels).sum())
    for row in found.numbers["sheet"]:
        place = int(row["picture"].removeprefix("val "))
        assert row["class"] == run.classes[val.labels[place]]
        assert row["answer"] == run.classes[shares[place].argmax()]
        assert row["probability"] == pytest.approx(float(shares[place].max()), abs=1e-5)
    check = found.numbers["check"]
    places = [int(name.removeprefix("val ")) for name in check["pictures"]]
    assert torch.bincount(val.labels[places], minlength=10).tolist() == [1] * 10
    whole = float(shares[places].amax(1).mean())
    assert check["curves"]["deletion"]["map"][0] == pytest.approx(whole, abs=1e-5)
    assert check["curves"]["insertion"]["scattered"][-1] == pytest.approx(whole, abs=1e-5)
    for act in ACTS:
        areas = {kind: one["value"] for kind, one in check["areas"][act].items()}
        assert areas["map"] == pytest.approx(np.trapezoid(check["curves"][act]["map"], check["fractions"]))
        assert check["differences"][act]["moved"]["value"] == pytest.approx(areas["map"] - areas["moved"])
    assert sum(row["n"] for row in found.numbers["means"]) == 10
    assert found._repr_html_().count("data:image/png;base64,") == 3


@pytest.mark.slow
def test_the_same_command_gives_the_same_numbers(run_of: Callable[[str], RunDir], tmp_path: Path, ask: Ask) -> None:
    for out in ("a.png", "b.png"):
        assert ask(run_of("cnn").path, "--count", 10, "--out", tmp_path / out, "--classes", "3", "5")[0] == 0
    a, b = (json.loads((tmp_path / name).read_bytes()) for name in ("a.json", "b.json"))
    assert {row["class"] for row in a["sheet"]} == {"3", "5"}
    assert a["check"] == b["check"]
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert sorted(path.name for path in tmp_path.glob("a*")) == ["a-check.png", "a-means.png", "a.json", "a.png"]


def quadrant(folder: Path, pooled: bool = True) -> Published:
    return Published(
        folder / "planted.safetensors", QuadrantNet(pooled).eval(), ("dark", "bright"), "0", Component("quadrant")
    )


def write_pictures(folder: Path, pictures: torch.Tensor) -> Path:
    folder.mkdir(parents=True)
    for index, picture in enumerate(pictures):
        Image.fromarray(picture.permute(1, 2, 0).squeeze(-1).numpy()).save(folder / f"{index:02}.png")
    return folder


@pytest.mark.parametrize("pooled", [True, False])
def test_on_a_planted_network_the_map_is_right_and_the_words_say_that_it_matters(tmp_path: Path, pooled: bool) -> None:
    pictures = write_pictures(tmp_path / "bright", bright_pictures())
    found = nd.explain(quadrant(tmp_path, pooled), images=str(pictures), progress=False, runtime=ONE_THREAD)
    assert "The maps mark pixels that matter: " in found.words
    assert found.numbers["check"]["differences"]["deletion"]["moved"]["high"] < -0.2
    assert found.numbers["images"]["right"] == 12
    (mean,) = (np.array(row["map"]) for row in found.numbers["means"])
    assert mean[:8, :8].min() > 0.3
    assert mean[8:].max() == mean[:, 8:].max() == 0
    assert {row["class"] for row in found.numbers["sheet"]} == {"bright"}


def test_a_few_pictures_without_a_class_claim_nothing(tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "pics", bright_pictures(2))
    two = [pictures / "00.png", pictures / "01.png"]
    found = nd.explain(quadrant(tmp_path), images=two, progress=False, runtime=ONE_THREAD)
    assert "2 pictures are too few to say" in found.words
    assert found.numbers["images"]["right"] is None
    assert [row["class"] for row in found.numbers["sheet"]] == [None, None]
    inverted = nd.explain(quadrant(tmp_path), images=two[:1], invert=True, progress=False, runtime=ONE_THREAD)
    assert [row["answer"] for row in inverted.numbers["sheet"]] == ["dark"]


def test_published_weights_are_explained_and_predict_beside_a_run(tmp_path: Path, ask: Ask, capsys: Any) -> None:
    path = tmp_path / "net.safetensors"
    save_file(weights(), path)
    names = tmp_path / "names.txt"
    names.write_text("".join(f"kind {i}\n" for i in range(CLASSES)))
    pictures = write_pictures(tmp_path / "pics", torch.randint(0, 256, (2, 3, 40, 60)).byte())
    code, out, err = ask(path, "--images", pictures, "--names", names, "--count", 1)
    assert code == 0, err
    assert "its middle, resized from 60x40 to 224x224" in out
    document = json.loads((tmp_path / "net-explain-images.json").read_bytes())
    assert document["evidence"] == {"method": "cam", "layer": "layer4", "head": "fc"}
    code, out, err = answer(["predict", str(path), str(pictures / "00.png"), "--names", str(names), "--json"], capsys)
    assert code == 0, err
    predicted = json.loads(out)["predictions"][0]
    assert predicted["label"] == document["sheet"][0]["answer"]
    assert predicted["label"].startswith("kind ")
    assert predicted["probabilities"][0][1] == pytest.approx(document["sheet"][0]["probability"], abs=1e-5)


def test_weights_that_answer_nothing_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_file({key: value for key, value in weights().items() if not key.startswith("fc.")}, path)
    with pytest.raises(BadInput, match="without its last layer, so it cannot predict"):
        open_published(path)
    save_file({"a": torch.ones(1)}, path)
    with pytest.raises(BadInput, match=r"fits no network of netdepth.*name its folder"):
        open_published(path)


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["RUN", "--classes", "cat"], ["unknown class 'cat'", "choose from: 0, 1, 2"]),
        (["RUN", "--count", "0"], ["--count '0'", "1 to 100000"]),
        (["RUN", "--out", "x.jpg"], ["'x.jpg' has to end in .png"]),
        (["RUN", "--images", "none.png"], ["no picture 'none.png'"]),
        (["RUN", "--images", "empty"], ["'empty' and its folders hold no picture"]),
        (["RUN", "--images", "names.txt"], ["'names.txt' is not acceptable: it is none of JPEG"]),
        (["RUN", "--images", "pics", "--classes", "3", "4"], ["none of the --images", "--classes: 3, 4"]),
        (["RUN", "--names", "names.txt"], ["--names 'names.txt' is for published weights"]),
        (["RUN", "--device", "tpu"], ["unknown --device 'tpu'"]),
        (["nothing"], ["no run 'nothing'"]),
        (["none.safetensors"], ["cannot read 'none.safetensors'", "No such file"]),
        (["net.safetensors"], ["comes without validation images", "--images"]),
        (["net.safetensors", "--names", "names.txt"], ["1 names of classes", "7 classes"]),
        (["net.safetensors", "--names", "none.txt"], ["cannot read --names 'none.txt'", "No such file"]),
    ],
)
def test_bad_input_is_one_line(
    run_of: Callable[[str], RunDir],
    ask: Ask,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    argv: list[str],
    parts: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    write_pictures(tmp_path / "pics" / "5", torch.zeros(1, 1, 8, 8).byte())
    (tmp_path / "names.txt").write_text("one\n")
    save_file(weights(), tmp_path / "net.safetensors")
    code, out, err = ask(*(str(run_of("resnet").path) if word == "RUN" else word for word in argv))
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert [part for part in parts if part not in err] == [], err
