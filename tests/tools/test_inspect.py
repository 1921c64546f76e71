"""`netdepth inspect`: a picture that shows its numbers, a folder that stays as it was."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text
from support.cli_world import answer
from support.made_runs import make_run
from support.made_statistics import made, read, statistics

from netdepth import data, models
from netdepth.config import Component, RunConfig, derive_seed, to_json
from netdepth.data import Splits
from netdepth.errors import BadInput
from netdepth.models import Network
from netdepth.runs.folder import RunDir
from netdepth.tools.inspect.picture import draw_layers
from netdepth.tools.inspect.statistics import print_statistics, read_statistics, words
from netdepth.training.layers import probe, probe_batch

# --- layer statistics as files -----------------------------------------------------------------------------


def test_files_come_back_in_order_with_what_is_not_finite(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    (run.path / "probes").mkdir()
    bad = made(1000, variances=(1.0, math.inf, -math.inf), loss=math.nan, ratio=math.inf)
    for content in (bad, made(200), made()):
        run.write_json(f"probes/step-{content['step']}.json" if content["step"] else "probes/init.json", content)
    found = read_statistics(run)
    assert [one.step for one in found] == [0, 200, 1000]
    assert repr(found[2]) == repr(read(bad))  # NaN equals nothing, its text does
    assert math.isnan(found[2].loss)
    assert [layer.activation_var for layer in found[2].layers] == [1.0, math.inf, -math.inf, 1.0]
    assert read_statistics(make_run(tmp_path, seed=1)) == []


WHOLE = made()["layers"]


@pytest.mark.parametrize(
    "content",
    [
        "{", '{"schema": 1}', '{"schema": 1, "epoch": null, "nonfinite": 3}', '{"schema": 9}',
        '{"schema": 1, "step": 1, "layers": [{}]}',
        {"layers": {}},
        {"layers": []},
        {"layers": made(variances=(1.0,))["layers"]},
        {"layers": [{**row, "shape": []} for row in WHOLE]},
        {"layers": [{**row, "shape": ["8"]} for row in WHOLE]},
        {"layers": [{**row, "shape": [-1]} for row in WHOLE]},
        {"layers": [{**row, "grad_norm": 1e308} for row in WHOLE]},
    ],
)  # fmt: skip
def test_a_file_without_statistics_or_with_others_than_the_first_is_refused(
    tmp_path: Path, content: str | dict[str, Any]
) -> None:
    run = make_run(tmp_path)
    (run.path / "probes").mkdir()
    run.write_json("probes/init.json", made())
    if isinstance(content, str):
        (run.path / "probes" / "step-200.json").write_text(content)
    else:
        run.write_json("probes/step-200.json", {**made(200), **content})
    with pytest.raises(BadInput, match=r"step-200\.json"):
        read_statistics(run)


# --- table and picture ---------------------------------------------------------------------------


@pytest.mark.parametrize(("depth", "rows"), [(1, 1), (14, 14), (15, 14), (40, 14), (1000, 14)])
def test_the_table_of_a_deep_network_is_shortened(depth: int, rows: int, capsys: pytest.CaptureFixture[str]) -> None:
    found = statistics(variances=(1.0,) * (depth - 1))
    layers = [models.LayerInfo(layer.name, layer.kind, (8,), 1234, 0) for layer in found.layers]
    print_statistics("net", layers, [found])
    out = capsys.readouterr().out
    numbers = [int(line.split()[0]) for line in out.splitlines() if "1,234" in line]
    assert len(numbers) == rows
    assert numbers[0] == 1
    assert numbers[-1] == depth
    assert ("left out" in out) == (rows < depth)
    if rows < depth:
        assert numbers[-2] == depth - 1
        assert f"{depth - rows} of {depth} layers" in out


def test_the_picture_shows_every_step(tmp_path: Path, drawn: list[Figure]) -> None:
    last = statistics(200, variances=(3.0, math.inf), gradient=0.0)
    found = [statistics(variances=(1.0, 10.0)), statistics(100, dead=0.2), last]
    path = draw_layers(make_run(tmp_path, recipe="$x$ <b>"), found)
    assert path == make_run(tmp_path, recipe="$x$ <b>").path / "figures" / "layers.png"
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    gradient, variance, dead, cosine = drawn[0].axes
    assert [axes.get_title("left") for axes in drawn[0].axes] == [
        "gradient norm", "activation variance", "dead units (%)", "cosine similarity of different images",
    ]  # fmt: skip
    assert list(variance.get_lines()[0].get_ydata()) == [1.0, 10.0, 1.0]
    assert list(variance.get_lines()[0].get_xdata()) == [1, 2, 3]
    assert list(dead.get_lines()[1].get_ydata())[:3] == pytest.approx([20.0, 20.0, 20.0])
    assert list(cosine.get_lines()[0].get_ydata()) == pytest.approx([0.6, 0.6, 0.3])
    assert list(gradient.get_lines()[-1].get_xdata()) == [1, 2, 3]  # the zeros at the last step, as marks
    assert list(variance.get_lines()[-1].get_xdata()) == [2]
    texts = [text.get_text() for text in drawn[0].findobj(Text)]
    for expected in (
        "$x$ <b> on mnist, seed 0",
        "at initialisation",
        "after epoch 1",
        "after epoch 2",
        "×: not finite; ▼: zero",
    ):
        assert any(expected in text for text in texts), expected


def test_a_value_between_missing_ones_has_a_dot(tmp_path: Path, drawn: list[Figure]) -> None:
    deep = statistics(variances=(1.0,) * 20)
    layers = [replace(layer, dead_fraction=0.3 if i % 2 else None) for i, layer in enumerate(deep.layers)]
    draw_layers(make_run(tmp_path), [replace(deep, layers=layers)])
    dead = next(axes for axes in drawn[0].axes if axes.get_title("left") == "dead units (%)").get_lines()[0]
    assert (dead.get_marker(), dead.get_markevery()) == ("o", [i for i in range(len(layers)) if i % 2])
    variance = drawn[0].axes[1].get_lines()[0]
    assert variance.get_markevery() == []


@pytest.mark.parametrize("depth", [1, 40])
def test_what_no_layer_has_gets_no_panel(tmp_path: Path, drawn: list[Figure], depth: int) -> None:
    draw_layers(make_run(tmp_path), [statistics(variances=(1.0,) * (depth - 1), dead=None)])
    assert len(drawn[0].axes) == 3
    assert "dead units (%)" not in [axes.get_title("left") for axes in drawn[0].axes]


# --- the command ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def splits() -> Splits:
    return data.load(Component("mnist5k"), data_dir=None)


def real_run(root: Path, splits: Splits, *, kept: bool) -> tuple[RunDir, Network, Network]:
    """A folder as a run leaves it, with the initial and the last network; its training is a random step."""
    config = RunConfig(Component("mnist5k"), Component("mlp", {"width": 8, "depth": 4}), seed=3)
    run = RunDir.create(root / "single", "deep", 3, "0123456789")
    run.write_json("config.json", {"fingerprint": "0123456789", "recipe": "deep", **to_json(config)})
    run.write_json("split.json", to_json(splits.spec))
    first, last = (models.build(config.model, (1, 28, 28), 10, seed=derive_seed(3, "init")) for _ in range(2))
    for model in (first, last):
        model.normalize.set_statistics(*data.train_statistics(splits.train))
    with torch.no_grad():
        for parameter in last.parameters():
            parameter.mul_(1.5)
    run.append_metrics({"step": 32, "epoch": 1.0, "train_loss": 2.2, "layer_grad_norms": {"head.weight": 0.25}})
    run.save_checkpoint(32, {"model.safetensors": safetensors.torch.save(last.state_dict())})
    if kept:
        (run.path / "probes").mkdir()
        batch = probe_batch(splits.train)
        run.write_json("probes/init.json", asdict(probe(first, *batch)))
        run.write_json("probes/step-32.json", asdict(probe(last, *batch, 32, 1.0)))
    return run, first, last


def tree(run: RunDir) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in run.path.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "measured now"])
def test_inspect_shows_table_picture_and_words(
    tmp_path: Path, splits: Splits, capsys: pytest.CaptureFixture[str], kept: bool
) -> None:
    run, first, last = real_run(tmp_path, splits, kept=kept)
    before = tree(run)
    code, out, err = answer(["inspect", "deep", "--runs", str(tmp_path)], capsys)
    assert (code, err) == (0, "")
    assert "depth 4, 6,514 parameters, at initialisation" in out
    assert "after epoch 1" in out
    assert "hidden.2" in out
    assert ("measured now" in out) == (not kept)
    document = json.loads(answer(["inspect", str(run.path), "--json"], capsys)[1])
    assert document["words"] == words([read(one) for one in document["probes"]], "unfinished")
    assert " ".join(out.split()).count(document["words"]) == 1
    assert document["layers"][0] == {
        "name": "hidden.0", "kind": "Linear", "output_shape": [8], "parameters": 6280, "multiply_adds": 6272,
    }  # fmt: skip
    assert document["training_gradients"] == [{"step": 32, "epoch": 1.0, "layer_grad_norms": {"head.weight": 0.25}}]
    for found, model in zip(document["probes"], (first, last), strict=True):
        expected = probe(model, *probe_batch(splits.train), found["step"], found["epoch"]).as_json()
        assert {key: found[key] for key in expected} == json.loads(json.dumps(expected))
        assert found.get("schema") == (1 if kept else None)  # as the file has it
    assert [found["step"] for found in document["probes"]] == [0, 32]
    assert tree(run) == before | {document["figure"]: Path(document["figure"]).read_bytes()}
    assert Path(document["figure"]).parent.name == "figures"


def test_a_folder_that_takes_no_picture_is_still_read(
    tmp_path: Path, splits: Splits, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _, _ = real_run(tmp_path, splits, kept=True)
    (run.path / "figures").write_text("in the way")
    code, out, _ = answer(["inspect", str(run.path)], capsys)
    assert code == 0
    assert "note: no picture: " in out


def test_what_cannot_be_inspected_is_one_line(
    tmp_path: Path, splits: Splits, capsys: pytest.CaptureFixture[str]
) -> None:
    def complaint(code: int, run: str) -> str:
        found, out, err = answer(["inspect", run, "--runs", str(tmp_path), "--data", str(tmp_path)], capsys)
        assert (found, out, err.count("\n")) == (code, "", 1)
        return err

    other = make_run(tmp_path)
    assert "does not say what its network is" in complaint(2, str(other.path))
    assert "the nearest are baseline-mlp" in complaint(2, "baselin-mlp")
    run, _, _ = real_run(tmp_path, splits, kept=False)
    run.write_json("split.json", {**to_json(splits.spec), "split_digest": "another"})
    assert "mnist5k here has another split_digest" in complaint(2, "deep")
    config = run.read_json("config.json") or {}
    mnist = RunConfig(Component("mnist"), Component("mlp", {"width": 8, "depth": 4}))
    run.write_json("config.json", config | {"dataset": to_json(mnist.dataset)})
    assert "kept no layer statistics; measuring them needs its data: " in complaint(74, "deep")
