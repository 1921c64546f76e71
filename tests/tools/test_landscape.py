"""`netdepth landscape`: numbers that survive a kill, a picture that shows them, words that say no more."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from support.cli_world import answer
from support.made_runs import make_run
from support.real_runs import CONFIG, make

import netdepth as nd
from netdepth.config import Component, RunConfig, TrainConfig, from_json
from netdepth.data.splits import SealedTest
from netdepth.files.atomic import restored
from netdepth.tools import landscape as api
from netdepth.tools.landscape import surface
from netdepth.tools.landscape.picture import draw_landscape, landscape_words, short_names
from netdepth.tools.landscape.surface import Slice
from netdepth.training.finished import Run

GRID = ["--grid", "3", "--images", "50"]


def twin(root: Path, name: str, shortcut: str) -> Run:
    """A short run of a plain or residual net on the embedded digits."""
    model = Component("mlp", {"width": 6, "depth": 5, "init": "he", "shortcut": shortcut})
    config = RunConfig(CONFIG.dataset, model, train=TrainConfig(budget="1ep", batch_size=128))
    return Run(make(root, config, name=name).run)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    root = tmp_path_factory.mktemp("twins")
    return [twin(root, "plain", "none"), twin(root, "residual", "identity")]


@pytest.fixture(autouse=True)
def _anew(runs: list[Run], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test sees another's numbers, and none opens the test part."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a landscape has nothing to look for in the test part")

    monkeypatch.setattr(SealedTest, "open_test", refuse)
    accesses = [(run.path / "test_access.json").read_bytes() for run in runs]
    yield
    assert [(run.path / "test_access.json").read_bytes() for run in runs] == accesses
    for run in runs:
        for file in (run.path / "landscapes").glob("*"):
            file.unlink()


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """No picture, which other tests draw, and which takes longer than what these look at."""
    monkeypatch.setattr(api, "draw_landscape", lambda runs, slices, out: Path("picture.png"))


def record(run: Run) -> dict[str, Any]:
    (file,) = (run.path / "landscapes").glob("*.json")
    found: dict[str, Any] = json.loads(file.read_bytes())
    return found


def test_twins_side_by_side(
    runs: list[Run], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [str(run.path) for run in runs]
    code, out, _ = answer(["landscape", *paths, *GRID], capsys)
    assert code == 0
    records = [record(run) for run in runs]
    assert (
        " ".join(out.split()).count(
            landscape_words([from_json(Slice, restored(found), finite=False) for found in records])
        )
        == 1
    )
    for run, found in zip(runs, records, strict=True):
        assert found["complete"]
        assert found["coordinates"] == [-1.0, 0.0, 1.0]
        assert np.shape(found["loss"]) == (3, 3)
        assert (found["images"], found["part"], found["seed"]) == (50, "train", 0)
        assert found["weights_sha256"] == run.result["weights_sha256"]
        assert found["summary"]["centre"] == found["loss"][1][1]
        assert found["curvature"]["largest"]["value"] > 0
        assert found["guessing"] == pytest.approx(math.log(10))
    figure = runs[0].path.parent / "figures" / f"landscape-{runs[0].path.name}-and-{runs[1].path.name}.png"
    assert figure.read_bytes().startswith(b"\x89PNG")

    monkeypatch.setattr(surface, "slice_losses", None)  # what is there is not computed again
    monkeypatch.setattr(api, "_curvature", None)
    seen = nd.landscape(*paths, grid=3, images=50, progress=False)
    assert json.loads(json.dumps(seen.records)) == [
        {key: value for key, value in found.items() if key not in ("schema", "nonfinite")} for found in records
    ]
    assert seen.figure == figure
    assert "data:image/png;base64," in seen._repr_html_()


def test_what_a_kill_leaves_is_gone_on_with(
    runs: list[Run], undrawn: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["landscape", str(runs[0].path), *GRID, "--no-curvature"]
    assert answer(command, capsys)[0] == 0
    whole = record(runs[0])
    next((runs[0].path / "landscapes").glob("*.json")).unlink()
    slices, begun = surface.slice_losses, []

    def interrupted(*args: Any) -> Iterator[float]:
        begun.append(args[-1])
        for count, loss in enumerate(slices(*args)):
            if count == 4:
                raise KeyboardInterrupt
            yield loss

    monkeypatch.setattr(surface, "slice_losses", interrupted)
    monkeypatch.setattr(api, "SAVE_SECONDS", 0.0)
    assert answer(command, capsys)[0] == 130
    partial = record(runs[0])
    assert not partial["complete"]
    assert [len(row) for row in partial["loss"]] == [3, 1]
    assert answer(command, capsys)[0] == 130
    assert answer(command, capsys)[0] == 0
    assert begun == [0, 4, 8]
    assert record(runs[0]) == whole


def test_points_that_are_not_finite_are_kept_as_such(
    runs: list[Run], undrawn: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = [math.inf, 1.0, 2.0, math.nan, 0.5, 1.0, 1.0, 1.0, 1e9]
    monkeypatch.setattr(surface, "slice_losses", lambda *args: iter(losses[args[-1] :]))
    command = ["landscape", str(runs[0].path), *GRID, "--no-curvature"]
    for _ in range(2):  # computed, then read
        code, out, _ = answer(command, capsys)
        assert code == 0
        assert "at 2 the loss is not finite" in " ".join(out.split())
    found = record(runs[0])
    assert found["loss"] == [[None, 1.0, 2.0], [None, 0.5, 1.0], [1.0, 1.0, 1e9]]
    assert found["nonfinite"] == {"loss[0][0]": "inf", "loss[1][0]": "nan"}


def test_a_damaged_file_is_computed_again(runs: list[Run], undrawn: None, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["landscape", str(runs[0].path), *GRID, "--no-curvature"]
    assert answer(command, capsys)[0] == 0
    whole = record(runs[0])
    (file,) = (runs[0].path / "landscapes").glob("*.json")
    ragged = json.dumps(whole | {"loss": [[1.0], [2.0, 3.0]]})
    for damaged in ("{", '{"schema": 1, "loss": 3}', '{"schema": 9}', ragged):
        file.write_text(damaged)
        assert answer(command, capsys)[0] == 0
        assert record(runs[0]) == whole


def test_what_cannot_be_looked_at_is_one_line(
    runs: list[Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(runs[0].path)

    def complaint(*args: str, code: int = 2) -> str:
        found, out, err = answer(["landscape", *args], capsys)
        assert (found, out, err.count("\n")) == (code, "", 1)
        return err

    unfinished = make_run(tmp_path, finish=False)
    assert "only a finished run has weights" in complaint(path, str(unfinished.path))
    assert "named twice" in complaint(path, path + "/")
    assert "odd number" in complaint(path, "--grid", "4")
    assert "from 3 to 501" in complaint(path, "--grid", "1")
    assert "a number above 0" in complaint(path, "--radius", "nan")
    assert "choose from: best, last" in complaint(path, "--weights", "bset")
    assert ".png" in complaint(path, "--out", str(tmp_path / "picture.jpg"))
    assert ".png" in complaint(path, "--out", str(tmp_path / "nowhere" / "picture.png"))
    assert not list((runs[0].path / "landscapes").glob("*"))


# --- picture and words -----------------------------------------------------------------------------


def made(run: str, losses: Any, largest: float = 3.0) -> Slice:
    steps = np.linspace(-1, 1, 5)
    table = [[float(losses(a, b)) for a in steps] for b in steps]
    eigenvalues = [surface.Eigenvalue(value, residual=0.01, products=9, converged=True) for value in (largest, -1.0)]
    return Slice(
        run=run, weights="last", weights_sha256="w", dataset="mnist", data_digest="d", split_digest="s", part="train",
        images=100, seed=0, grid=5, radius=1.0, batch_norm="stored statistics", coordinates=steps.tolist(),
        complete=True, loss=table, summary=surface.describe_surface(table, 0.5, 2.303), guessing=2.303,
        curvature=surface.Curvature(0.01, 200, 7, *eigenvalues),
    )  # fmt: skip


BOWL = made("plain-mnist-s0-0123456789", lambda a, b: 0.1 + 100 * (a * a + b * b))
WIDE = made("residual-mnist-s0-0123456789", lambda a, b: 0.1 + a * a + b * b, 1.5)
BROKEN = made("broken-mnist-s0-0123456789", lambda a, b: math.nan)


@pytest.mark.parametrize(
    "slices",
    [[BOWL], [WIDE], [BOWL, WIDE], [BROKEN], [BOWL, BROKEN, WIDE, BOWL]],
    ids=["log", "linear", "twins", "broken", "four"],
)
def test_all_panels_share_one_scale(slices: list[Slice], tmp_path: Path, drawn: list[Figure]) -> None:
    run = make_run(tmp_path)
    path = draw_landscape([run] * len(slices), slices, tmp_path / "out.png")
    assert path == tmp_path / "out.png"
    panels = [axes for axes in drawn[0].axes if axes.get_xlabel() == "first direction"]
    assert len(panels) == len(slices)
    assert not [text for text in drawn[0].findobj(Text) if "\\n" in text.get_text()], "a line break is none in print"
    filled = [collection for axes in panels for collection in axes.collections if getattr(collection, "filled", False)]
    assert len(filled) == sum(one is not BROKEN for one in slices)
    finite = [v for one in slices for row in one.loss for v in row if math.isfinite(v)]
    for contours in filled:
        assert list(contours.levels) == list(filled[0].levels)
        assert contours.levels[0] <= min(finite)
        assert contours.levels[-1] >= max(finite)
        assert 5 <= len(contours.levels) <= 25


def test_the_words_say_the_numbers() -> None:
    text = landscape_words([BOWL, WIDE])
    assert short_names([BOWL, WIDE]) == ["plain", "residual"]
    assert "plain: the loss is 0.1000 at the weights and between 0.1000 and 200.1000 on the slice." in text
    assert "4.0 % of its 25 points lie below twice the loss at the weights" in text
    assert "The largest eigenvalue of the Hessian at the weights is 3 ± 0.01, the smallest −1 ± 0.01." in text
    assert "residual has 25 times as much of the slice below the loss of guessing as plain" in text
    assert "a largest eigenvalue 0.5 times as large" in text
    assert "these numbers say nothing about other directions and other seeds" in text
    assert "broken: the loss of the weights themselves is not finite." in landscape_words([BROKEN, WIDE])
