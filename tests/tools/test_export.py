"""`netdepth export`: the same network in another file, or no file."""

from __future__ import annotations

import copy
import dataclasses
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import lacking
from safetensors import safe_open
from support.cli_world import answer
from support.made_runs import make_run
from support.made_weights import draw_statistics
from support.real_runs import CONFIG, make
from torch import Tensor

from netdepth import models
from netdepth.config import Component, RunConfig, TrainConfig
from netdepth.data.splits import SealedTest
from netdepth.errors import RunFailed
from netdepth.tools.export.formats import FORMATS, compare
from netdepth.training.finished import Run

SHAPE = (3, 16, 16)
NETWORKS: dict[str, dict[str, Any]] = {
    "residual mlp": {"model": "mlp", "width": 8, "depth": 6, "shortcut": "identity", "branch_scale": "blocks^-1/2"},
    "mlp with batch norm": {"model": "mlp", "hidden": [8, 6], "norm": "batch"},
    "simple cnn": {"model": "cnn", "channels": [4, 6], "hidden": 8},
    "plain cnn": {"model": "resnet", "depth": 8, "width": 4, "shortcut": "none"},
    "residual cnn": {"model": "resnet", "depth": 8, "width": 4, "shortcut": "identity"},
    "projections, pixel mean": {
        "model": "resnet", "depth": 8, "width": 4, "shortcut": "projection", "normalization": "pixel",
        "pre_activation": True,
    },
}  # fmt: skip


def network(kind: str) -> models.Network:
    settings = dict(NETWORKS[kind])
    made = models.build(settings.pop("model"), SHAPE, 5, seed=0, **settings)
    made.normalize.set_statistics(torch.full(made.normalize.mean.shape, 0.4).squeeze(), torch.tensor([0.2, 0.3, 0.25]))
    return draw_statistics(made).eval()


def images(count: int = 30) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, *SHAPE), dtype=torch.uint8, generator=generator)


def metadata(kind: str) -> dict[str, str]:
    settings = dict(NETWORKS[kind])
    model = {"name": settings.pop("model"), "args": settings}
    return {"model": json.dumps(model), "input_shape": json.dumps(SHAPE), "classes": json.dumps(list("abcde"))}


def needs_onnx() -> None:
    if any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxruntime", "onnxscript")):
        lacking("onnx", "ONNX is not installed; get it with: pip install netdepth[onnx]")


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("to", ["safetensors", pytest.param("onnx", marks=pytest.mark.slow)])
def test_the_file_computes_what_the_network_does(to: str, kind: str) -> None:
    if to == "onnx":
        needs_onnx()
    model, form = network(kind), FORMATS[to]
    data = form.write(model, metadata(kind))
    parity = compare(model, form.read(data), images())
    assert parity.images == parity.same_class == 30
    assert max(parity.logit, parity.probability) <= 1e-6


@pytest.mark.slow
def test_the_graph_takes_pixels_and_any_batch() -> None:
    needs_onnx()
    import onnx

    graph = onnx.load_from_string(FORMATS["onnx"].write(network("residual cnn"), {"run": "r"}))
    onnx.checker.check_model(graph)
    (pixels,), (logits,) = graph.graph.input, graph.graph.output
    assert pixels.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [d.dim_param or d.dim_value for d in pixels.type.tensor_type.shape.dim] == ["batch", *SHAPE]
    assert [d.dim_param or d.dim_value for d in logits.type.tensor_type.shape.dim] == ["batch", 5]
    assert {entry.key: entry.value for entry in graph.metadata_props}["run"] == "r"


@pytest.mark.parametrize(
    "change",
    [
        lambda logits: logits + 1e-3 * np.arange(5),
        lambda logits: logits * np.nan,
        lambda logits: logits[:, :4],
        lambda logits: logits[::-1],
    ],
    ids=["moved", "nan", "a class short", "out of order"],
)
def test_a_mismatch_is_found(change: Any) -> None:
    model = network("simple cnn")

    def wrong(pixels: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(change(model(torch.from_numpy(pixels)).numpy()))

    with pytest.raises(RunFailed, match="exported network"):
        compare(model, wrong, images())


# --- the command -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    model = Component("mlp", {"width": 6, "depth": 4, "init": "he"})
    config = RunConfig(CONFIG.dataset, model, train=TrainConfig(budget="2ep", batch_size=128))
    return Run(make(tmp_path_factory.mktemp("runs"), config, name="exported").run)


@pytest.fixture(autouse=True)
def _sealed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("an export has nothing to look for in the test part")

    monkeypatch.setattr(SealedTest, "open_test", refuse)


def table(card: str) -> dict[str, list[float]]:
    """The card's metrics by part: n and the five numbers."""
    rows = [line.strip("| ").split(" | ") for line in card.splitlines() if line.startswith("| ")]
    return {row[0]: [float(cell.replace(",", "")) for cell in row[1:]] for row in rows[2:]}


@pytest.mark.parametrize("weights", [None, "best"])
def test_safetensors_and_its_card(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], weights: str | None
) -> None:
    out = tmp_path / "digits.safetensors"
    which = ["--weights", weights] if weights else []
    code, text, err = answer(["export", str(run.path), "--to", "safetensors", "--out", str(out), *which], capsys)
    assert (code, err) == (0, "")
    assert "the same network on 1,000 images" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["digits.safetensors", "digits.safetensors.md"]
    with safe_open(out, "pt") as file:
        described = file.metadata()
        loaded = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
    assert described["weights"] == (weights or "last")
    expected = run.model(weights).state_dict()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], expected[name]) for name in expected)

    card, result = (tmp_path / "digits.safetensors.md").read_text(), run.result
    split = run.dir.read_json("split.json") or {}
    found = table(card)
    for part, words in (("train", "training"), ("val", "validation"), ("test", "test")):
        scores = result[part][weights or "last"]
        assert found[words] == pytest.approx([split["sizes"][part], *scores.values()], rel=1e-5)
    for expected_text in (split["split_digest"], split["data_digest"], described["weights_sha256"], "CC BY-SA 3.0"):
        assert expected_text in card
    assert run.config["fingerprint"] in card

    code_on_card = card.partition("```python\n")[2].partition("```")[0]
    names: dict[str, Any] = {"pixels": run.data().val.inputs[:7]}
    exec(code_on_card.replace(out.name, str(out)), names)
    assert torch.equal(names["logits"], run.model(weights)(names["pixels"]))


@pytest.mark.slow
def test_onnx_and_its_card(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    needs_onnx()
    code, text, err = answer(["export", str(run.path), "--to", "onnx"], capsys)
    assert (code, err) == (0, "")
    file = run.path / "export" / f"{run.path.name}.onnx"
    assert str(file) in " ".join(text.split())
    code_on_card = Path(f"{file}.md").read_text().partition("```python\n")[2].partition("```")[0]
    names: dict[str, Any] = {}
    exec(code_on_card.replace(file.name, str(file)), names)
    black = torch.zeros(1, 1, 28, 28, dtype=torch.uint8)
    assert np.allclose(names["logits"], run.model()(black).detach().numpy(), atol=1e-5)


def test_a_planted_mismatch_leaves_no_file(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    form = FORMATS["safetensors"]

    def faulty(model: models.Network, metadata: Any) -> bytes:
        wrong = copy.deepcopy(model)
        with torch.no_grad():
            wrong.head.bias[0] += 0.01  # type: ignore[union-attr, index]
        return form.write(wrong, metadata)

    monkeypatch.setitem(FORMATS, "safetensors", dataclasses.replace(form, write=faulty))
    out = tmp_path / "wrong.safetensors"
    code, text, err = answer(["export", str(run.path), "--to", "safetensors", "--out", str(out)], capsys)
    assert (code, text, err.count("\n")) == (1, "", 1)
    assert "is not the trained one" in err
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported_is_one_line(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def complaint(*args: str) -> str:
        found, out, err = answer(["export", *args], capsys)
        assert (found, out, err.count("\n")) == (2, "", 1)
        return err

    path = str(run.path)
    assert "(did you mean 'safetensors'?)" in complaint(path, "--to", "safetensor")
    assert "has to end in .safetensors" in complaint(path, "--to", "safetensors", "--out", str(tmp_path / "a.onnx"))
    assert "does not exist" in complaint(path, "--to", "safetensors", "--out", str(tmp_path / "no" / "a.safetensors"))
    unfinished = str(make_run(tmp_path, finish=False).path)
    assert "only a finished run has weights" in complaint(unfinished, "--to", "safetensors")
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else find(name))
    assert "pip install netdepth[onnx]" in complaint(path, "--to", "onnx")
