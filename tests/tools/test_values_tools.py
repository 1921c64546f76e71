"""Tools on a run that learns values: its page, its predictions, its layers; what is about classes refuses it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import netdepth as nd
from netdepth.cli import main
from netdepth.config import Runtime
from netdepth.errors import BadInput
from netdepth.tools.explain import explain
from netdepth.tools.export import export
from netdepth.tools.inspect import inspect
from netdepth.tools.landscape import landscape
from netdepth.tools.linear_probe import probe

DRAW = np.random.default_rng(0)
BRIGHT = DRAW.random((200, 2))
X = (DRAW.integers(0, 256, (200, 6, 6)) * np.repeat(BRIGHT, 3, 1)[:, :, None]).astype(np.uint8)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return nd.train(
        "baseline-mlp",
        dataset=nd.dataset(X, 10 * BRIGHT, names=["upper", "lower"], path=tmp_path_factory.mktemp("data") / "a"),
        overrides=[
            "model.hidden=[12]",
            "train.budget=12ep",
            "train.batch_size=16",
            "optimizer.lr=0.01",
            "objective=mae",
        ],
        runtime=Runtime(runs_root=tmp_path_factory.mktemp("runs"), trackers=("tensorboard",)),
        progress=False,
    )


@pytest.mark.slow
def test_its_page_draws_predicted_against_true_values(run: Any, tmp_path: Path) -> None:
    page = run.report(tmp_path).read_text()
    assert "are off by " in page
    assert "Predicted against true values of upper" in page
    assert "minimised: mae; that is the loss here, and the best constant answer has " in page
    for word in ("classif", "cross-entropy", "nats", "accuracy", "got wrong"):
        assert word not in page
    assert run.figure is not None
    assert list(run.path.glob("events.*")), "its mirror"


def test_predictions_are_numbers_in_the_unit_of_the_data(run: Any, tmp_path: Path, capsys: Any) -> None:
    Image.fromarray(X[0]).save(tmp_path / "a.png")
    (found,) = nd.predict(run, [tmp_path / "a.png"])
    assert [name for name, _ in found.values] == ["upper", "lower"]
    assert found.probabilities == []
    assert [value for _, value in found.values] == pytest.approx(10 * BRIGHT[0], abs=4)
    assert main(["predict", str(run.path), str(tmp_path / "a.png")]) == 0
    assert capsys.readouterr().out.split("\n")[0].split() == ["picture", "upper", "lower", "note"]
    assert main(["predict", str(run.path), str(tmp_path / "a.png"), "--json"]) == 0
    (shown,) = json.loads(capsys.readouterr().out)["predictions"]
    assert shown["label"] == f"upper {found.values[0][1]:.4f}, lower {found.values[1][1]:.4f}"


def test_its_layers_are_measured_with_its_loss(run: Any) -> None:
    seen = inspect(run)
    assert "training works" in seen.words
    assert f"{seen.statistics[0].constant_loss:.2f}"[:3] in seen.words


def test_what_is_about_classes_refuses_it_in_one_line(run: Any) -> None:
    for tool, words in (
        (lambda: explain(run), "explain shows evidence for classes"),
        (lambda: export(run, to="safetensors"), "export checks and describes networks of classes only"),
        (lambda: landscape(run), "a landscape is drawn of the cross-entropy of classes"),
        (lambda: probe(run, dataset=nd.dataset(X, BRIGHT, targets="values")), "a linear probe classifies"),
    ):
        with pytest.raises(BadInput) as caught:
            tool()
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)
