"""`predict`: pictures of any size and kind become what the network takes; what is no picture is refused in one line."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import netdepth as nd
from netdepth.cli import main
from netdepth.errors import BadInput
from netdepth.tools.common import seen_by
from netdepth.tools.explain.examine import picture_files
from netdepth.tools.predict import predict
from netdepth.training.finished import load

STORE = Path(__file__).parents[1] / "faults" / "stores" / "0.1.0"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of an earlier release, which has learned digits, a little."""
    store = shutil.copytree(STORE, tmp_path_factory.mktemp("store") / "runs")
    return load("kept-mnist5k-s7", store)


def test_a_picture_is_brought_to_the_networks_size_and_channels(run, tmp_path):
    digit = np.zeros((28, 28), np.uint8)
    digit[4:24, 12:16] = 255
    Image.fromarray(digit).save(tmp_path / "grey.png")
    Image.fromarray(255 - digit).save(tmp_path / "black-on-white.png")
    Image.merge("RGBA", [Image.new("L", (28, 28))] * 3 + [Image.fromarray(255 - digit)]).save(tmp_path / "alpha.png")
    Image.fromarray(digit).convert("RGB").resize((56, 56)).save(tmp_path / "large.png")
    grey, large, alpha = predict(run, [tmp_path / f"{name}.png" for name in ("grey", "large", "alpha")])
    (inverted,) = predict(run, [tmp_path / "black-on-white.png"], invert=True)
    assert grey.note is None
    assert large.note == "resized from 56x56 to 28x28"
    # Transparent is white, as for training pictures: the digit of `alpha` stands white on black.
    assert inverted.probabilities == grey.probabilities == alpha.probabilities
    assert sum(share for _, share in grey.probabilities) == pytest.approx(1)
    assert grey.label == grey.probabilities[0][0]


def test_what_would_be_handed_on_or_fill_the_memory_is_refused(run, tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\nshowpage\n")
    with pytest.raises(BadInput, match="none of JPEG"):  # Pillow would hand it to another program
        predict(run, [path])
    os.truncate(path, 2**30)
    with pytest.raises(BadInput, match="268,435,456 at most"):
        predict(run, [path])


def test_weights_that_do_not_fit_the_config_are_refused(run, tmp_path):
    store = shutil.copytree(run.path.parents[1], tmp_path / "runs")
    other = load("kept-mnist5k-s7", store)
    config = other.path / "config.json"
    text = config.read_text()
    before = text.count("2")
    config.write_text(text.replace('"hidden": [\n    2\n', '"hidden": [\n    3\n'))
    assert config.read_text().count("2") < before, "the config is another one now"
    with pytest.raises(BadInput, match="its files do not fit one another"):
        other.model()


def test_dark_ink_on_white_paper_is_said_to_be_unlike_the_training_pictures(run, tmp_path):
    digit = np.zeros((28, 28), np.uint8)
    digit[4:24, 12:16] = 255
    Image.fromarray(255 - digit).save(tmp_path / "paper.png")
    Image.fromarray(digit).save(tmp_path / "good.png")
    paper, good = predict(run, [tmp_path / "paper.png", tmp_path / "good.png"])  # an older run: its normalisation alone
    assert good.warning is None
    assert "mean brightness 229, theirs 0 to" in paper.warning
    assert paper.warning.endswith("inverted it is like them: add --invert")
    (inverted,) = predict(run, [tmp_path / "good.png"], invert=True)
    assert inverted.warning.endswith("not inverted it is like them: leave out --invert")
    pictures = picture_files([tmp_path], (1, 28, 28), run.classes, seen=seen_by(run, run.model()))
    assert pictures.notes == [f"{tmp_path / 'paper.png'}: {paper.warning}"], "explain says the same"


def test_what_a_run_has_seen_stands_in_its_split(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    made = nd.train("baseline-mlp", overrides=["dataset=mnist5k", "train.budget=20it", "train.eval_every=20it"])
    seen = made.dir.split().pictures
    assert seen is not None
    assert (seen.pictures, len(seen.layout)) == (2000, 16)
    digit = nd.load(made.path).data().val.inputs[0, 0].numpy()
    Image.fromarray(255 - digit).save("digit.png")
    assert main(["predict", str(made.path), "digit.png"]) == 0
    shown = capsys.readouterr()
    assert "see the warning" in shown.out
    assert "correlation with the mean picture" in shown.err
    assert "add --invert" in shown.err
    assert main(["predict", str(made.path), "digit.png", "--invert"]) == 0
    assert capsys.readouterr().err == ""
    document = json.loads((made.path / "split.json").read_text())
    document["pictures"]["mean"] = ["much"]
    (made.path / "split.json").write_text(json.dumps(document))
    assert nd.load(made.path).dir.split().pictures is None, "what is none is left alone"
