"""What a person sees of work that takes a while: a bar on a terminal, plain lines elsewhere, on stderr."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TextIO

from netdepth.text import duration, percent

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["CountProgress", "TrainProgress", "describe_record"]

REFRESH_SECONDS = 0.25
"""A redraw costs about a millisecond of the training thread, so there are at most four a second."""
LINE_SECONDS = 1.0
COUNT_SECONDS = 10.0
"""Off a terminal, a count has a first line after two seconds and then one as often as this."""


class TrainProgress:
    """Progress of one run, as a context manager.

    Nothing runs in a thread: `advance` and `evaluated` draw when the last drawing is old
    enough. A stream that goes away silences the display and never stops the training.

    Args:
        title: what is trained, e.g. ``"baseline-mlp mnist seed 0"``; shown literally.
        total_steps: the budget in optimizer steps.
        steps_per_epoch: to show steps as epochs.
        mode: ``"auto"`` or ``"quiet"``, which shows nothing.
        stream: where to write; stderr if None.
    """

    def __init__(
        self,
        title: str,
        total_steps: int,
        steps_per_epoch: int,
        mode: Literal["auto", "quiet"] = "auto",
        stream: TextIO | None = None,
    ) -> None:
        self.title = title
        self.total_steps = total_steps
        self.steps_per_epoch = max(steps_per_epoch, 1)
        self._stream = sys.stderr if stream is None else stream
        self._on = mode != "quiet"
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._drawn = -math.inf
        self._pending: Mapping[str, Any] | None = None

    def __enter__(self) -> TrainProgress:
        try:
            if self._on and self._stream.isatty():
                self._start_bar()
        except (OSError, ValueError):
            self._silence()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._bar is not None:
                self._bar.stop()  # draws once more and gives the cursor back
            elif self._on and self._pending is not None:
                self._line(self._pending)
        except (OSError, ValueError):
            self._silence()

    def advance(self, step: int) -> None:
        """``step`` optimizer steps are done, counted from the start of the run."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=step, place=self._place(step))
            self._draw()

    def evaluated(self, record: Mapping[str, Any]) -> None:
        """Show one record of ``metrics.jsonl``."""
        if self._bar is not None and self._task is not None:
            step = int(record["step"])
            self._bar.update(self._task, completed=step, place=self._place(step), numbers=describe_record(record))
            self._draw()
        elif self._on:
            self._pending = record
            if time.monotonic() - self._drawn >= LINE_SECONDS:
                try:
                    self._line(record)
                except (OSError, ValueError):
                    self._silence()

    def _place(self, step: int) -> str:
        epochs, total = step / self.steps_per_epoch, self.total_steps / self.steps_per_epoch
        return f"epoch {epochs:.{1 if epochs % 1 else 0}f}/{total:.{1 if total % 1 else 0}f}"

    def _line(self, record: Mapping[str, Any]) -> None:
        text = f"{self.title}: {self._place(int(record['step']))}, step {record['step']}, {describe_record(record)}"
        self._stream.write(text + "\n")
        self._stream.flush()
        self._drawn, self._pending = time.monotonic(), None

    def _start_bar(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        class Screen(Console):
            def on_broken_pipe(self) -> None:
                """Rich would end the process here and redirect its stdout; a run outlives its display."""
                raise BrokenPipeError

        self._bar = Progress(
            TextColumn("{task.description}", markup=False, style="bold"),
            BarColumn(bar_width=16),
            TextColumn("{task.fields[place]}", markup=False),
            TextColumn("{task.fields[numbers]}", markup=False, style="cyan"),
            TimeRemainingColumn(compact=True),
            console=Screen(file=self._stream),
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=self._stream is sys.stderr,
        )
        self._task = self._bar.add_task(self.title, total=self.total_steps, place=self._place(0), numbers="")
        self._bar.start()

    def _draw(self) -> None:
        now = time.monotonic()
        if self._bar is not None and now - self._drawn >= REFRESH_SECONDS:
            self._drawn = now
            try:
                self._bar.refresh()
            except (OSError, ValueError):
                self._silence()

    def _silence(self) -> None:
        self._on, self._bar, self._pending = False, None, None


def describe_record(record: Mapping[str, Any]) -> str:
    """A record as one line: ``loss 0.0312 train 0.0811 val · accuracy 98.99 % train 97.62 % val · best``.

    Without validation images it speaks of training alone.
    """
    unseen = math.isnan(record.get("val_loss") or 0.0) and not record.get("diverged")
    parts = []
    for name, shown in (("loss", _loss), ("accuracy", _percent)):
        train, val = (shown(record.get(f"{part}_{name}")) for part in ("train", "val"))
        parts.append(f"{name} {train} train" + ("" if unseen else f" {val} val"))
    onset = record.get("overfit_onset_epoch")
    if onset is not None:
        parts.append(f"overfitting since epoch {onset:g}")
    elif record.get("overfit_count"):
        parts.append(f"overfitting? {record['overfit_count']}")
    if record.get("best"):
        parts.append("best")
    return " · ".join(parts)


def _loss(value: Any) -> str:
    if not isinstance(value, int | float):
        return "-"
    return f"{value:.4f}" if abs(value) < 1e4 else f"{value:.4g}"


def _percent(value: Any) -> str:
    return percent(value) if isinstance(value, int | float) else "-"


class CountProgress:
    """Progress of work whose pieces take about the same time, as a context manager: how many, and about how long.

    Nothing runs in a thread. A stream that goes away silences the display and never stops the work.

    Args:
        title: what is done; shown literally.
        total: the number of pieces.
        before: how many of them were done earlier; they say nothing about the pace.
        at_most: it may end before ``total``.
        mode, stream: as of `TrainProgress`.
    """

    def __init__(
        self,
        title: str,
        total: int,
        before: int = 0,
        *,
        at_most: bool = False,
        mode: Literal["auto", "quiet"] = "auto",
        stream: TextIO | None = None,
    ) -> None:
        self.title, self.total, self.before = title, total, before
        self._word = "at most" if at_most else "about"
        self._stream = sys.stderr if stream is None else stream
        self._on = mode != "quiet"
        self._started = self._drawn = time.monotonic()
        self._said = self._started + 2 - COUNT_SECONDS
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> CountProgress:
        try:
            if self._on and self._stream.isatty():
                self._bar = _bar_on(self._stream)
                self._task = self._bar.add_task(self.title, total=self.total, completed=self.before, place="")
                self._bar.start()
        except (OSError, ValueError):
            self._on, self._bar = False, None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._bar is not None:
                self._bar.stop()
        except (OSError, ValueError):
            self._on, self._bar = False, None

    def advance(self, done: int, note: str = "") -> None:
        """``done`` pieces are done, those of ``before`` among them; ``note`` is a word on the last one."""
        now = time.monotonic()
        gained = done - self.before
        left = (now - self._started) * (self.total - done) / gained if gained > 0 else math.nan
        about = f"{self._word} {duration(left)} left" if 0 < left < math.inf else ""
        try:
            if self._bar is not None and self._task is not None and now - self._drawn >= REFRESH_SECONDS:
                self._drawn = now
                self._bar.update(self._task, completed=done, place=" · ".join(filter(None, [note, about])))
                self._bar.refresh()
            elif self._on and self._bar is None and now - self._said >= COUNT_SECONDS:
                self._said = now
                self._stream.write(", ".join(filter(None, [f"{self.title}: {done}/{self.total}", note, about])) + "\n")
                self._stream.flush()
        except (OSError, ValueError):
            self._on, self._bar = False, None


def _bar_on(stream: TextIO) -> Progress:
    """A bar that draws when it is told to."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    class Screen(Console):
        def on_broken_pipe(self) -> None:
            """Rich would end the process here; the work outlives its display."""
            raise BrokenPipeError

    columns = (
        TextColumn("{task.description}", markup=False, style="bold"),
        BarColumn(bar_width=16),
        MofNCompleteColumn(),
        TextColumn("{task.fields[place]}", markup=False, style="cyan"),
    )
    console = Screen(file=stream)
    redirect = stream is sys.stderr
    return Progress(*columns, console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=redirect)
