"""What a person sees while a network trains: a bar on a terminal, plain lines elsewhere, on stderr."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["TrainProgress", "describe_record"]

REFRESH_SECONDS = 0.25
"""A redraw costs about a millisecond of the training thread, so there are at most four a second."""
LINE_SECONDS = 1.0


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
    return f"{100 * value:.2f} %" if isinstance(value, int | float) else "-"
