"""The progress display: bar and lines, the last line always, and never in the way of training."""

from __future__ import annotations

import io
import sys
import time
from typing import Any

import pytest

from netdepth.progress import TrainProgress, describe_record

RECORD = {
    "step": 860,
    "epoch": 1.0,
    "train_loss": 0.25,
    "val_loss": 0.125,
    "train_accuracy": 0.925,
    "val_accuracy": 0.9625,
    "best": True,
    "overfit_count": 0,
    "overfit_onset_epoch": None,
}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Gone(io.StringIO):
    """A stream whose reader went away."""

    def write(self, text: str) -> int:
        raise BrokenPipeError

    def isatty(self) -> bool:
        return self.tty

    tty = False


def records(count: int) -> list[dict[str, Any]]:
    return [{**RECORD, "step": 860 * epoch, "epoch": float(epoch)} for epoch in range(1, count + 1)]


def test_lines_are_at_most_one_a_second_and_the_last_always() -> None:
    stream = io.StringIO()
    with TrainProgress("baseline-mlp seed 0", 30 * 860, 860, stream=stream) as progress:
        for record in records(50):
            progress.advance(record["step"])
            progress.evaluated(record)
    first, last = stream.getvalue().splitlines()
    assert first == (
        "baseline-mlp seed 0: epoch 1/30, step 860, loss 0.2500 train 0.1250 val · "
        "accuracy 92.50 % train 96.25 % val · best"
    )
    assert "epoch 50/30, step 43000" in last


def test_a_terminal_shows_the_bar_with_numbers_and_a_literal_title(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    stream = Terminal()
    with TrainProgress("[bold]x[/bold] seed 0", 860 * 2, 860, stream=stream) as progress:
        for record in records(2):
            progress.advance(record["step"])
            progress.evaluated(record)
    assert "[bold]x[/bold] seed 0" in stream.getvalue()
    assert "epoch 2/2" in stream.getvalue()
    assert "96.25 %" in stream.getvalue()


def test_quiet_writes_nothing_and_imports_nothing() -> None:
    stream = Terminal()
    with TrainProgress("x", 10, 10, "quiet", stream=stream) as progress:
        progress.advance(5)
        progress.evaluated(RECORD)
    assert stream.getvalue() == ""


@pytest.mark.parametrize("tty", [False, True])
def test_a_stream_that_goes_away_stops_the_display_only(tty: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Gone()
    stream.tty = tty
    with TrainProgress("x", 8600, 860, stream=stream) as progress:
        for record in records(10):
            progress.advance(record["step"])
            progress.evaluated(record)
    assert stream.getvalue() == ""


def test_an_exception_inside_is_not_swallowed() -> None:
    with pytest.raises(ZeroDivisionError), TrainProgress("x", 10, 10, stream=io.StringIO()):
        raise ZeroDivisionError


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_an_evaluation_costs_little(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing is counted on its own: `evaluated` must not draw more often than the clock allows."""
    monkeypatch.setenv("TERM", "xterm")
    with TrainProgress("x", 10**9, 10, stream=stream) as progress:
        progress.evaluated(RECORD)
        calls = 0
        began = time.process_time()
        while calls < 2000:
            progress.evaluated(RECORD)
            calls += 1
        spent = (time.process_time() - began) / calls
    assert spent < 2e-4


def test_what_a_record_says() -> None:
    assert describe_record({**RECORD, "best": False, "overfit_count": 2}).endswith("val · overfitting? 2")
    assert "overfitting since epoch 3" in describe_record({**RECORD, "overfit_onset_epoch": 3.0, "overfit_count": 4})
    unseen = {**RECORD, "val_loss": float("nan"), "val_accuracy": float("nan"), "diverged": False, "best": False}
    assert describe_record(unseen) == "loss 0.2500 train · accuracy 92.50 % train"
    assert "nan val" in describe_record({**unseen, "diverged": True})
    missing = describe_record({"step": 1, "train_loss": float("nan"), "val_loss": None})
    assert missing == "loss nan train - val · accuracy - train - val"


def test_rich_is_imported_for_a_terminal_only() -> None:
    import os
    import subprocess

    code = (
        "import sys; from netdepth.progress import TrainProgress\n"
        "with TrainProgress('x', 1, 1) as p: p.evaluated({'step': 1})\n"
        "sys.exit('rich' in sys.modules)"
    )
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, env=os.environ, stderr=subprocess.DEVNULL, check=False).returncode == 0
