"""Learning curves: every kind of run is drawn, names stay literal, only PNG files appear."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from support.made_runs import make_run

import netdepth as nd
from netdepth.errors import BadInput, StorageError
from netdepth.report.learning_curves import learning_curves, learning_curves_many

PNG = b"\x89PNG\r\n\x1a\n"


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text)]


def test_the_curves_are_the_records_with_both_marks(tmp_path: Path, drawn: list[Figure]) -> None:
    path = learning_curves(make_run(tmp_path, epochs=4, best=2, onset=3))
    assert path.read_bytes().startswith(PNG)
    loss, accuracy = drawn[0].axes
    train, val = loss.get_lines()[:2]
    assert list(train.get_xdata()) == [1, 2, 3, 4]
    assert list(train.get_ydata()) == pytest.approx([0.5, 0.25, 0.5 / 3, 0.125])
    assert list(val.get_ydata()) == pytest.approx([0.55, 0.3, 0.5 / 3 + 0.05, 0.175])
    assert list(accuracy.get_lines()[1].get_ydata()) == pytest.approx([88.0, 93.0, 98 - 10 / 3, 95.5])
    assert list(accuracy.get_lines()[-1].get_xydata()[0]) == pytest.approx([2.0, 93.0])  # the best epoch's dot
    for expected in ("baseline-mlp on mnist, seed 0", "best weights: epoch 2", "overfits since epoch 3"):
        assert expected in texts(drawn[0])


def test_a_run_draws_its_curves_when_they_are_asked_for_and_not_again(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    run = nd.load(folder.path)
    picture = folder.path / "figures" / "learning_curves.png"
    assert not picture.exists()
    assert f"data:image/png;base64,{base64.b64encode(PNG)[:10].decode()}" in run._repr_html_()
    drawn = picture.stat()
    assert run.figure == picture
    assert picture.stat() == drawn
    os.utime(picture, ns=(drawn.st_atime_ns, drawn.st_mtime_ns - 10**10))  # clocks of file systems tick slowly
    drawn = picture.stat()
    with folder.lock():  # another process is at work
        assert run.figure == picture
    assert picture.stat() == drawn
    assert run.figure == picture
    assert picture.stat().st_mtime_ns > drawn.st_mtime_ns
    assert nd.load(make_run(tmp_path / "other", epochs=0, finish=False).path).figure is None


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"epochs": 1, "best": 1, "onset": None}, "best weights: epoch 1"),
        ({"status": "diverged"}, "diverged at epoch 4"),
        ({"status": "diverged", "epochs": 1, "best": None, "onset": None}, "diverged at epoch 1"),
        ({"finish": False}, "unfinished at epoch 4"),
        ({"failure": "no disk"}, "failed at epoch 4 (OSError: no disk)"),
    ],
)
def test_every_kind_of_run_is_drawn_and_told(
    tmp_path: Path, drawn: list[Figure], settings: dict[str, Any], expected: str
) -> None:
    assert learning_curves(make_run(tmp_path, **settings)).read_bytes().startswith(PNG)
    assert expected in texts(drawn[0])


def test_names_are_literal(tmp_path: Path, drawn: list[Figure]) -> None:
    learning_curves(make_run(tmp_path, recipe="$\\frac$ <b> \x1b[1m 数"))
    title = drawn[0].texts[0]
    assert title.get_text() == "$\\frac$ <b> \\x1b[1m 数 on mnist, seed 0"
    assert not title.get_parse_math()


def test_the_overlay_means_over_the_epochs_that_all_runs_reached(tmp_path: Path, drawn: list[Figure]) -> None:
    runs = [make_run(tmp_path, seed=seed, epochs=epochs) for seed, epochs in enumerate([3, 5, 4])]
    path = learning_curves_many(runs)
    assert path.parent == tmp_path / "single" / "figures"
    thick = [line for line in drawn[0].axes[0].get_lines() if line.get_linewidth() == 3]
    assert [list(line.get_xdata()) for line in thick] == [[1, 2, 3]] * 2
    assert list(thick[0].get_ydata()) == pytest.approx([0.5, 0.25, 0.5 / 3])


def test_the_overlay_counts_what_it_cannot_draw(tmp_path: Path, drawn: list[Figure]) -> None:
    empty = make_run(tmp_path, seed=1, epochs=0, finish=False)
    learning_curves_many([make_run(tmp_path, seed=0, status="diverged"), empty])
    assert "1 diverged; 1 without any evaluation" in " ".join(texts(drawn[0]))
    with pytest.raises(BadInput, match="no evaluation yet"):
        learning_curves(empty)
    with pytest.raises(BadInput, match="none of these runs"):
        learning_curves_many([empty])


def test_a_folder_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    (run.path / "figures").write_text("in the way")
    with pytest.raises(StorageError, match="figures"):
        learning_curves(run)
