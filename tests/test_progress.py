"""What a person sees while work is done: bars and lines, the last line always, and never in the way of the work."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable

import pytest

from netdepth.progress import CountProgress, DownloadProgress, TrainProgress, describe_record
from netdepth.studies.plan import Work, plan
from netdepth.studies.progress import StudyProgress

RECORD = {
    "step": 860, "epoch": 1.0, "train_loss": 0.25, "val_loss": 0.125, "train_accuracy": 0.925, "val_accuracy": 0.9625,
    "best": True, "overfit_count": 0, "overfit_onset_epoch": None,
}  # fmt: skip
GROUPS = plan(
    [Work(name, str(depth), (0, 1), True, 100 * depth, 50) for name in ("[b]a", "c") for depth in (2, 6)], 1
).groups
"""Two groups of 6/16 of the work each, then two of 2/16."""


def called(condition: str, level: str) -> str:
    return f"{condition}, depth {level}"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Gone(io.StringIO):
    """A stream whose reader went away."""

    tty = False

    def write(self, text: str) -> int:
        raise BrokenPipeError

    def isatty(self) -> bool:
        return self.tty


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Passes the time; none passes by itself."""
    now = [1000.0]
    monkeypatch.setattr("netdepth.progress.time.monotonic", lambda: now[0])

    def pass_by(seconds: float) -> None:
        now[0] += seconds

    return pass_by


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A wide terminal on which everything is drawn at once."""
    for name, value in (("TERM", "xterm"), ("COLUMNS", "200"), ("LINES", "50")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("netdepth.progress.REFRESH_SECONDS", 0)
    monkeypatch.setattr("netdepth.progress.QUIET_SECONDS", 0)
    return Terminal()


def progress(display: StudyProgress, group: int, step: int, loss: float | None = 0.25) -> None:
    display.advanced(group, step, 50, 10, loss)


def show_run(stream: io.StringIO, *, epochs: int = 10, shown: bool = True) -> None:
    with TrainProgress("[bold]x[/bold] seed 0", 8600, 860, shown=shown, stream=stream) as display:
        for epoch in range(1, epochs + 1):
            display.advance(860 * epoch)
            display.evaluated({**RECORD, "step": 860 * epoch, "epoch": float(epoch)})


def show_count(stream: io.StringIO, *, shown: bool = True) -> None:
    with CountProgress("[b]pictures", 2000, 100, shown=shown, stream=stream) as display:
        display.advance(1000, "a note")
        display.add(200)


def show_download(stream: io.StringIO, *, shown: bool = True) -> None:
    with DownloadProgress(shown=shown, stream=stream) as display:
        for received in (1_000_000, 2_000_000):
            display.received("https://example.org/a/[b]one.gz", received, 4_000_000)
        display.received("https://example.org/a/two.gz", 1, None)


def show_study(stream: io.StringIO, *, shown: bool = True) -> None:
    """A whole study: one group starts again, one fails, one diverges."""
    with StudyProgress("mine", GROUPS, GROUPS, name_of=called, shown=shown, stream=stream) as display:
        for group in (0, 1):
            display.started(group)
        progress(display, 0, 25)
        display.trouble(1, "started again: worker 1 died")
        progress(display, 1, 5, None)
        display.ended(0, [("completed", None)] * 2)
        display.ended(1, [("failed", "no disk")] * 2)
        display.started(2)
        display.trouble(2, "waiting: its folder is in use")
        display.ended(2, [("diverged", None)] * 2)
        progress(display, 3, 50, float("1e9"))
        display.ended(3, [("completed", None)] * 2)


TEXTS = {
    show_run: ("[bold]x[/bold] seed 0", "epoch 10/10", "96.25 %"),
    show_count: ("[b]pictures", "1,000/2,000", "a note", "1,200/2,000"),
    show_download: ("downloading [b]one.gz from example.org", "2.0/4.0 MB", "two.gz", "0.0 MB"),
    show_study: ("mine", "[b]a, depth 6, 2 seeds", "epoch 2.5/5", "loss 0.2500", "8/8 runs", "failed: no disk"),
}


@pytest.mark.parametrize(("show", "texts"), TEXTS.items())
def test_a_terminal_shows_bars_with_literal_names(
    show: Callable[..., None], texts: tuple[str, ...], terminal: Terminal
) -> None:
    show(terminal)
    assert [text for text in texts if text not in terminal.getvalue()] == []


@pytest.mark.parametrize(("columns", "lines"), [(20, 3), (1, 1)])
@pytest.mark.parametrize("show", TEXTS)
def test_a_terminal_of_any_size_will_do(
    show: Callable[..., None], columns: int, lines: int, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("LINES", str(lines))
    show(terminal)
    assert terminal.getvalue()


@pytest.mark.parametrize("more", [{"overfit_count": 12}, {"overfit_count": 12, "overfit_onset_epoch": 108.5}])
def test_80_columns_have_epoch_bar_losses_time_left_and_the_overfitting_counter(
    more: dict[str, float], terminal: Terminal, monkeypatch: pytest.MonkeyPatch, clock: Callable[[float], None]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with TrainProgress("a-long-name-of-a-recipe on a-data-set seed 0", 86000, 860, stream=terminal) as display:
        clock(60)
        display.advance(21500)
        clock(60)
        display.advance(43000)
        display.evaluated({**RECORD, "step": 43000, "epoch": 50.0, "best": False, **more})
    lines = [re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", line) for line in re.split(r"[\r\n]+", terminal.getvalue())]
    assert any("a-long-name-of-a-recipe on a-data-set seed 0" in line for line in lines), "the title has its own line"
    assert max(map(len, lines)) <= 80
    last = [line for line in lines if "50/100" in line][-1]
    assert re.search(
        r"━.* epoch 50/100 loss 0.2500 train 0.1250 val · overfitting\??( since epoch 108.5| 12) \d\d:\d\d", last
    )
    assert "…" not in last


def test_a_dumb_terminal_has_lines(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    show_run(terminal)
    assert len(terminal.getvalue().splitlines()) == 2
    assert "\x1b" not in terminal.getvalue()


def test_a_notebook_has_one_line_that_changes_and_lines_for_what_failed(
    clock: Callable[[float], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cell: list[str] = []
    monkeypatch.setattr("netdepth.progress._cell_of_notebook", lambda: cell.append)
    with TrainProgress("x seed 0", 8600, 860) as display:
        for epoch in range(1, 11):
            clock(2)
            display.advance(860 * epoch - 430)
            clock(2)
            display.evaluated({**RECORD, "step": 860 * epoch, "epoch": float(epoch)})
    assert cell[1] == "x seed 0: epoch 0.5/10, about 38 s left"
    assert cell[3].startswith("x seed 0: epoch 1.5/10, loss 0.2500 train 0.1250 val")
    assert "epoch 10/10" in cell[-1]
    show_study(None)  # type: ignore[arg-type]
    assert [line.partition(": ")[2] for line in capsys.readouterr().err.splitlines()] == [
        "started again: worker 1 died", "failed: no disk in 0.0 s", "waiting: its folder is in use",
    ]  # fmt: skip


@pytest.mark.parametrize("tty", [False, True])
@pytest.mark.parametrize("show", TEXTS)
def test_a_stream_that_goes_away_stops_the_display_only(
    show: Callable[..., None], tty: bool, terminal: Terminal
) -> None:
    stream = Gone()
    stream.tty = tty
    show(stream)
    assert stream.getvalue() == ""


@pytest.mark.parametrize("show", TEXTS)
def test_what_is_not_to_be_shown_writes_nothing(show: Callable[..., None], terminal: Terminal) -> None:
    show(terminal, shown=False)
    with StudyProgress("mine", GROUPS, (), name_of=called, stream=terminal):
        pass
    assert terminal.getvalue() == ""


def test_an_exception_inside_is_not_swallowed() -> None:
    with pytest.raises(ZeroDivisionError), TrainProgress("x", 10, 10, stream=io.StringIO()):
        raise ZeroDivisionError


def test_lines_of_a_run_are_at_most_one_a_second_and_the_last_always(clock: Callable[[float], None]) -> None:
    stream = io.StringIO()
    show_run(stream, epochs=50)
    first, last = stream.getvalue().splitlines()
    assert first == (
        "[bold]x[/bold] seed 0: epoch 1/10, step 860, loss 0.2500 train 0.1250 val · "
        "accuracy 92.50 % train 96.25 % val · best"
    )
    assert "epoch 50/10, step 43000" in last


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_an_evaluation_costs_little(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing is counted on its own: `evaluated` must not draw more often than the clock allows."""
    monkeypatch.setenv("TERM", "xterm")
    with TrainProgress("x", 10**9, 10, stream=stream) as display:
        display.evaluated(RECORD)
        began = time.process_time()
        for _ in range(2000):
            display.evaluated(RECORD)
        spent = (time.process_time() - began) / 2000
    assert spent < 2e-4


def test_what_a_record_says() -> None:
    assert describe_record({**RECORD, "best": False, "overfit_count": 2})[0].endswith("val · overfitting? 2")
    assert "overfitting since epoch 3" in describe_record({**RECORD, "overfit_onset_epoch": 3.0, "overfit_count": 4})[0]
    unseen = {**RECORD, "val_loss": float("nan"), "val_accuracy": float("nan"), "diverged": False, "best": False}
    assert describe_record(unseen)[0] == "loss 0.2500 train · accuracy 92.50 % train"
    assert "nan val" in describe_record({**unseen, "diverged": True})[0]
    missing = describe_record({"step": 1, "train_loss": float("nan"), "val_loss": None})[0]
    assert missing == "loss nan train - val · accuracy - train - val"


def test_a_count_has_a_line_now_and_then_with_the_time_left(clock: Callable[[float], None]) -> None:
    stream = io.StringIO()
    with CountProgress("pictures", 2000, 1000, at_most=True, stream=stream) as display:
        display.advance(1100)  # too early
        clock(10)
        display.advance(1250, "a note")
        clock(1)
        display.add(1)  # too soon after the last line
        clock(5)
        display.advance(2000)
    assert stream.getvalue() == "pictures: 1,250 of 2,000, a note, at most 30 s left\npictures: 2,000 of 2,000\n"


def test_a_line_for_every_group_that_ends(clock: Callable[[float], None]) -> None:
    stream = io.StringIO()
    show_study(stream)
    assert stream.getvalue().splitlines() == [
        "mine: 8 of 8 runs to train, in 4 groups",
        "c, depth 6, 2 seeds: started again: worker 1 died",
        "[2/8 runs] [b]a, depth 6, 2 seeds: 2 completed in 0.0 s",
        "[4/8 runs] c, depth 6, 2 seeds: failed: no disk in 0.0 s",
        "[b]a, depth 2, 2 seeds: waiting: its folder is in use",
        "[6/8 runs] [b]a, depth 2, 2 seeds: 2 diverged in 0.0 s",
        "[8/8 runs] c, depth 2, 2 seeds: 2 completed in 0.0 s",
    ]


def test_the_time_left_of_a_study_is_by_multiply_adds_and_a_silence_is_broken(clock: Callable[[float], None]) -> None:
    stream = io.StringIO()
    with StudyProgress("mine", GROUPS, GROUPS, name_of=called, stream=stream) as display:
        clock(20)
        progress(display, 0, 25)
        assert display.share == pytest.approx(3 / 16)
        clock(10)
        progress(display, 1, 25)
        assert display.share == pytest.approx(6 / 16)
        clock(10)
        progress(display, 1, 26)  # ten seconds after the last line: nothing
    assert stream.getvalue().splitlines()[1:] == ["mine: 38 % done, about 50 s left"]


def test_runs_of_a_study_that_were_done_before_count_as_done_and_take_no_time(clock: Callable[[float], None]) -> None:
    stream = io.StringIO()
    with StudyProgress("mine", GROUPS, GROUPS[2:], name_of=called, stream=stream) as display:
        assert display.share == pytest.approx(12 / 16)
        clock(10)
        display.ended(2, [("completed", None)] * 2)
    first, last = stream.getvalue().splitlines()
    assert first == "mine: 4 of 8 runs to train, in 2 groups"
    assert last.endswith("2 completed in 10 s; about 10 s left")
