"""What a person sees of a study: one bar and a line per running group, plain lines elsewhere, never in the way."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest

from netdepth.studies.plan import Work, plan
from netdepth.studies.progress import StudyProgress

GROUPS = plan(
    [Work(name, depth, (0, 1), True, 100 * depth, 50) for name in ("[b]a", "c") for depth in (2, 6)], 1
).groups
"""Two groups of 6/16 of the work each, then two of 2/16."""


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


def outcome(group: int, status: str = "completed", error: str | None = None) -> dict[str, Any]:
    outcomes = [{"seed": seed, "status": status, "error": error} for seed in (0, 1)]
    return {"event": "outcome", "group": group, "outcomes": outcomes}


def progress(group: int, step: int, loss: float | None = 0.25) -> dict[str, Any]:
    record = None if loss is None else {"train_loss": loss}
    return {"event": "progress", "group": group, "step": step, "of": 50, "per_epoch": 10, "record": record}


def play(shown: StudyProgress) -> None:
    """A whole study: one group begun again, one that fails, one that diverges."""
    with shown:
        for group in (0, 1):
            shown.event({"event": "started", "group": group})
        shown.event(progress(0, 25))
        shown.event({"event": "retry", "group": 1, "error": "worker 1 died"})
        shown.event(progress(1, 5, None))
        shown.event(outcome(0))
        shown.event(outcome(1, "failed", "no disk"))
        shown.event({"event": "started", "group": 2})
        shown.event({"event": "waiting", "group": 2, "for": "its folder is in use"})
        shown.event(outcome(2, "diverged"))
        shown.event(progress(3, 50, float("1e9")))
        shown.event(outcome(3))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    now = [1000.0]
    monkeypatch.setattr("netdepth.studies.progress.time.monotonic", lambda: now[0])

    def pass_by(seconds: float) -> None:
        now[0] += seconds

    return pass_by


def test_a_line_for_every_group_that_ends(clock: Callable[[float], None]) -> None:
    stream = io.StringIO()
    play(StudyProgress("mine", GROUPS, GROUPS, stream=stream))
    assert stream.getvalue().splitlines() == [
        "mine: 8 of 8 runs to make, in 4 groups",
        "c, depth 6, 2 seeds: begun again: worker 1 died",
        "[2/8 runs] [b]a, depth 6, 2 seeds: 2 completed in 0.0 s",
        "[4/8 runs] c, depth 6, 2 seeds: failed: no disk in 0.0 s",
        "[b]a, depth 2, 2 seeds: waiting: its folder is in use",
        "[6/8 runs] [b]a, depth 2, 2 seeds: 2 diverged in 0.0 s",
        "[8/8 runs] c, depth 2, 2 seeds: 2 completed in 0.0 s",
    ]


def test_the_time_left_is_by_multiply_adds_and_a_silence_is_broken(clock: Callable[[float], None]) -> None:
    stream = io.StringIO()
    with StudyProgress("mine", GROUPS, GROUPS, stream=stream) as shown:
        assert shown.seconds_left is None
        clock(20)
        shown.event(progress(0, 25))
        assert shown.share == pytest.approx(3 / 16)
        clock(10)
        shown.event(progress(1, 25))
        assert shown.share == pytest.approx(6 / 16)
        assert shown.seconds_left == pytest.approx(30 * 10 / 6)
        clock(10)
        shown.event(progress(1, 26))  # ten seconds after the last line: nothing
    assert stream.getvalue().splitlines()[1:] == ["mine: 38 % done, about 50 s left"]


def test_what_was_there_before_counts_as_done_and_takes_no_time(clock: Callable[[float], None]) -> None:
    shown = StudyProgress("mine", GROUPS, GROUPS[2:], stream=io.StringIO())
    assert shown.share == pytest.approx(12 / 16)
    clock(10)
    shown.event(outcome(2))
    assert shown.seconds_left == pytest.approx(10)


@pytest.mark.parametrize(("columns", "lines"), [(200, 50), (20, 3), (1, 1)])
def test_a_terminal_of_any_size_shows_the_bar_with_literal_names(
    monkeypatch: pytest.MonkeyPatch, columns: int, lines: int
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("LINES", str(lines))
    monkeypatch.setattr("netdepth.studies.progress.REFRESH_SECONDS", 0)
    stream = Terminal()
    play(StudyProgress("mine", GROUPS, GROUPS, stream=stream))
    if columns == 200:
        for text in ("mine", "[b]a, depth 6, 2 seeds", "epoch 2.5/5", "loss 0.2500", "8/8 runs", "failed: no disk"):
            assert text in stream.getvalue()


@pytest.mark.parametrize("tty", [False, True])
def test_a_stream_that_goes_away_stops_the_display_only(tty: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("netdepth.studies.progress.REFRESH_SECONDS", 0)
    stream = Gone()
    stream.tty = tty
    play(StudyProgress("mine", GROUPS, GROUPS, stream=stream))
    assert stream.getvalue() == ""


@pytest.mark.parametrize("mode", ["quiet", "auto"])
def test_nothing_to_make_or_quiet_shows_nothing(mode: Any) -> None:
    stream = Terminal()
    with StudyProgress("mine", GROUPS, GROUPS if mode == "quiet" else (), mode, stream):
        pass
    assert stream.getvalue() == ""
