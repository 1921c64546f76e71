"""``netdepth probe``: equal to scikit-learn called directly, chosen on validation, tested once."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from support.cli_world import answer
from support.real_runs import make
from test_finetune import FIRST, SECOND, SOURCE

import netdepth as nd
from netdepth import data
from netdepth.config import Component
from netdepth.data.splits import with_classes
from netdepth.errors import BadInput
from netdepth.runs.folder import RunDir
from netdepth.tools.linear_probe import FOLDER
from netdepth.tools.linear_probe import features as f

HALF = [f"dataset.classes={json.dumps(SECOND)}"]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return make(tmp_path_factory.mktemp("probe"), SOURCE)


@pytest.fixture(scope="module")
def splits():
    return data.load(Component("mnist5k", {"classes": SECOND}), data_dir=None)


@pytest.fixture(scope="module")
def found(source):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f, "CANDIDATES", {"knn": (5, 1), "svm": (1e-3, 1e-2), "logistic": (1e-3, 1e-2)})
        yield nd.probe(source.run.path, dataset="mnist5k", overrides=HALF, images=300, progress=False)


def test_features_are_what_the_head_sees_and_the_network_stays_as_it_was(source, splits):
    model = nd.load(source.run.path).model().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    got = f.features_of(model, splits.val, "d", "s")
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    with torch.inference_mode():
        expected = model.eval().features(splits.val.inputs)
        logits = model(splits.val.inputs)
    assert np.array_equal(got.values, expected.numpy())
    assert torch.allclose(model.head(torch.from_numpy(got.values)), logits, atol=1e-5)


DIRECTLY = {
    "knn": lambda value: KNeighborsClassifier(int(value)),
    "svm": lambda value: make_pipeline(StandardScaler(), LinearSVC(C=value, random_state=0, tol=1e-2)),
    "logistic": lambda value: make_pipeline(StandardScaler(), LogisticRegression(C=value, tol=1e-3, max_iter=300)),
}


@pytest.mark.parametrize("features", ["network", "pixels"])
@pytest.mark.parametrize("kind", DIRECTLY)
def test_every_number_equals_scikit_learns_own(source, splits, found, kind, features):
    model = nd.load(source.run.path).model()
    test = splits.test.again().open_test("comparing")
    parts = [f.subset(splits.train, 300), splits.val, test]
    assert [len(part) for part in parts] == [300, len(splits.val), len(test)]
    if features == "network":
        with torch.inference_mode():
            values = [model.features(part.inputs).numpy() for part in parts]
    else:
        values = [part.inputs.flatten(1).numpy().astype(np.float32) / 255 for part in parts]
    row = next(r for r in found.document["probes"] if (r["features"], r["classifier"]) == (features, kind))
    labels = [part.labels.numpy() for part in parts]
    scores = {}
    for tried in row["tried"]:
        fitted = DIRECTLY[kind](tried["value"]).fit(values[0], labels[0])
        scores[tried["value"]] = fitted
        assert tried["val_accuracy"] == pytest.approx(fitted.score(values[1], labels[1]), abs=1e-9)
    assert row["val_accuracy"] == max(tried["val_accuracy"] for tried in row["tried"])
    assert row["test_accuracy"] == pytest.approx(scores[row["value"]].score(values[2], labels[2]), abs=1e-9)
    assert row["low"] < row["test_accuracy"] < row["high"]


def test_the_test_part_is_opened_once_and_the_result_is_kept(source, found, monkeypatch):
    log = json.loads((found.path / "test_access.json").read_text())
    assert len(log["opened"]) == 1
    monkeypatch.setattr(f, "right_answers", lambda *_: pytest.fail("computed again"))
    again = nd.probe(source.run.path, dataset="mnist5k", overrides=HALF, images=300)
    assert again.cached
    assert again.document == found.document
    assert found.path.parent == source.run.path / FOLDER
    assert len(found.table()) == 6
    assert found.document["chance"] == 0.2
    assert "percentage points above chance" in found.sentences[0]
    assert found.figure.read_bytes().startswith(b"\x89PNG")


def test_a_stopped_probe_goes_on_where_it_was(source, found, tmp_path, monkeypatch):
    run = RunDir(shutil.copytree(source.run.path, tmp_path / source.run.path.name))
    shutil.rmtree(run.path / FOLDER)
    original, calls = f.right_answers, []

    def counted(kind, *args):
        calls.append(kind)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return original(kind, *args)

    settings = {"dataset": Component("mnist5k", {"classes": SECOND}), "images": 300, "progress": False}
    monkeypatch.setattr(f, "right_answers", counted)
    with pytest.raises(KeyboardInterrupt):
        nd.probe(run.path, **settings)
    again = nd.probe(run.path, **settings)
    assert len(calls) == 4 + 9 + 6  # three of twelve were kept, six tested
    assert again.document == found.document


def test_a_test_set_of_another_data_set_is_refused(splits):
    other = with_classes(data.load(Component("mnist5k"), data_dir=None), FIRST)
    train = f.pixels_of(splits.val, splits.spec.data_digest)
    with pytest.raises(
        BadInput, match=r"another data set .* only be tested on the classes it was trained on"
    ) as refused:
        f.right_answers("knn", 1, train, f.pixels_of(other.val, other.spec.data_digest))
    assert "\n" not in str(refused.value)
    with pytest.raises(BadInput, match="these features come from"):
        f.right_answers("knn", 1, train, dataclasses.replace(train, computed_by="another"))


def test_what_does_not_fit_is_refused_in_one_line(source, monkeypatch, capsys):
    tall = data.load(Component("mnist5k"), data_dir=None)
    wide = dataclasses.replace(tall, spec=dataclasses.replace(tall.spec, input_shape=(3, 32, 32)))
    blind = dataclasses.replace(tall, val=data.Split(tall.val.inputs[:0], tall.val.labels[:0]))
    for splits, message in ((wide, "its images of [3, 32, 32] do not fit"), (blind, "leaves no validation images")):
        monkeypatch.setattr(data, "load", lambda *_, splits=splits, **__: splits)
        code, out, err = answer(["probe", str(source.run.path), "--dataset", "mnist5k"], capsys)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert message in err


def test_the_command_answers_as_a_table_and_as_json(source, found, capsys):
    words = ["probe", str(source.run.path), "--dataset", "mnist5k", "--images", "300", "--set", HALF[0]]
    code, out, _ = answer(words, capsys)
    assert code == 0
    for text in ("k nearest neighbours", "raw pixels", "guessing", "20.00 %", "chosen on validation", "probe.png"):
        assert text in out
    code, out, _ = answer([*words, "--json"], capsys)
    assert (code, json.loads(out)["probes"]) == (0, found.document["probes"])
    assert answer(["probe", "x", "--dataset", "mnist5k", "--set", "model.width=3"], capsys)[0] == 2
