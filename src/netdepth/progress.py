"""What a person sees of work that takes a while: bars on a terminal, plain lines elsewhere, on standard error.

Nothing here runs in a thread: a display draws when it is told something and the last drawing is old enough.
A stream that goes away silences the display and never stops the work.
"""

from __future__ import annotations

import collections
import contextlib
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, Self, TextIO
from urllib.parse import urlsplit

from netdepth.text import duration, number, percent

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["CountProgress", "DownloadProgress", "StudyProgress", "TrainProgress", "describe_record"]

REFRESH_SECONDS = 0.25
"""A redraw costs about a millisecond of the working thread, so there are at most four a second."""
TRAIN_LINE_SECONDS = 1.0
STUDY_LINE_SECONDS = 30.0
"""Without a terminal every group that ends has its line, and no silence is longer than this."""
COUNT_LINE_SECONDS = 5.0
QUIET_SECONDS = 1.0
"""Counted work that takes less time is not shown at all, and no time left is guessed from less."""


class _Display:
    """Bars or lines on ``stream`` (standard error if None), as a context manager; nothing unless ``shown``."""

    def __init__(self, shown: bool, stream: TextIO | None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._on = shown
        self._bars: Progress | None = None
        self._drawn = self._said = -math.inf

    def __enter__(self) -> Self:
        with self._harmless():
            if self._on:
                self._begin(self._stream.isatty())
        return self

    def __exit__(self, *error: object) -> None:
        with self._harmless():
            if self._bars is not None:
                self._bars.stop()  # draws once more and gives the cursor back
            elif self._on:
                self._end()

    def _begin(self, terminal: bool) -> None:
        """Open the bars, or write the first line."""

    def _end(self) -> None:
        """Write the last line, where there are no bars."""

    @contextlib.contextmanager
    def _harmless(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError):  # a closed stream raises ValueError
            self._on, self._bars = False, None

    def _open(self, *, remaining: bool = False, transient: bool = False) -> Progress:
        """The bars, each with a title, a ``place`` and ``numbers``; ``remaining`` adds the time that is left."""
        from rich.console import Console
        from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

        class Screen(Console):
            def on_broken_pipe(self) -> None:
                """Rich would end the process here and redirect its stdout; the work outlives its display."""
                raise BrokenPipeError

        columns: list[ProgressColumn] = [
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=16),
            TextColumn("{task.fields[place]}", markup=False),
            TextColumn("{task.fields[numbers]}", markup=False, style="cyan"),
            *([TimeRemainingColumn(compact=True)] if remaining else []),
        ]
        self._bars = Progress(
            *columns,
            console=Screen(file=self._stream),
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=self._stream is sys.stderr,
            transient=transient,
        )
        self._bars.start()
        return self._bars

    def _draw(self) -> None:
        now = time.monotonic()
        if self._bars is not None and now - self._drawn >= REFRESH_SECONDS:
            self._drawn = now
            self._bars.refresh()

    def _line(self, text: str) -> None:
        self._stream.write(text + "\n")
        self._stream.flush()
        self._said = time.monotonic()

    def _silent_for(self) -> float:
        return time.monotonic() - self._said


class TrainProgress(_Display):
    """Progress of one run.

    Args:
        title: what is trained, e.g. ``"baseline-mlp mnist seed 0"``; shown literally.
        total_steps: the budget in optimizer steps.
        steps_per_epoch: to show steps as epochs.
    """

    def __init__(
        self, title: str, total_steps: int, steps_per_epoch: int, *, shown: bool = True, stream: TextIO | None = None
    ) -> None:
        super().__init__(shown, stream)
        self.title, self.total_steps, self.steps_per_epoch = title, total_steps, steps_per_epoch
        self._task: TaskID | None = None
        self._pending: Mapping[str, Any] | None = None

    def _begin(self, terminal: bool) -> None:
        if terminal:
            bars = self._open(remaining=True)
            self._task = bars.add_task(self.title, total=self.total_steps, place=self._place(0), numbers="")

    def _end(self) -> None:
        if self._pending is not None:
            self._line(self._text(self._pending))

    def advance(self, step: int) -> None:
        """``step`` optimizer steps are done, counted from the start of the run."""
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, completed=step, place=self._place(step))
            with self._harmless():
                self._draw()

    def evaluated(self, record: Mapping[str, Any]) -> None:
        """Show one record of ``metrics.jsonl``."""
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, numbers=describe_record(record))
            self.advance(int(record["step"]))
        elif self._on and self._silent_for() < TRAIN_LINE_SECONDS:
            self._pending = record
        elif self._on:
            self._pending = None
            with self._harmless():
                self._line(self._text(record))

    def _place(self, step: int) -> str:
        return _epochs(step, self.total_steps, self.steps_per_epoch)

    def _text(self, record: Mapping[str, Any]) -> str:
        return f"{self.title}: {self._place(int(record['step']))}, step {record['step']}, {describe_record(record)}"


class CountProgress(_Display):
    """Progress of work whose pieces take about the same time: how many are done, and about how long the rest takes.

    Args:
        title: what is done; shown literally.
        total: the number of pieces.
        before: how many of them were done earlier; they say nothing about the pace.
        at_most: it may end before ``total``.
    """

    def __init__(
        self,
        title: str,
        total: int,
        before: int = 0,
        *,
        at_most: bool = False,
        shown: bool = True,
        stream: TextIO | None = None,
    ) -> None:
        super().__init__(shown, stream)
        self.title, self.total, self.before, self.done = title, total, before, before
        self._word = "at most" if at_most else "about"
        self._started = time.monotonic()

    def add(self, count: int) -> None:
        """``count`` more pieces are done."""
        self.advance(self.done + count)

    def advance(self, done: int, note: str = "") -> None:
        """``done`` pieces are done, those of ``before`` among them; ``note`` is a word on the last one."""
        self.done, passed = done, time.monotonic() - self._started
        if not self._on or passed < QUIET_SECONDS:
            return
        notes = filter(None, [note, _time_left(passed, self.before, done, self.total, self._word)])
        with self._harmless():
            if self._stream.isatty():
                bars = self._bars or self._open(transient=True)
                if not bars.task_ids:
                    bars.add_task(self.title, total=self.total, place="", numbers="")
                place = f"{done:,}/{self.total:,}"
                bars.update(bars.task_ids[0], completed=done, place=place, numbers=" · ".join(notes))
                self._draw()
            elif self._silent_for() >= COUNT_LINE_SECONDS:
                self._line(", ".join([f"{self.title}: {done:,} of {self.total:,}", *notes]))


class DownloadProgress(_Display):
    """Progress of downloads: a line for each that begins and, on a terminal, a bar."""

    def __init__(self, *, shown: bool = True, stream: TextIO | None = None) -> None:
        super().__init__(shown, stream)
        self._tasks: dict[str, TaskID | None] = {}

    def _begin(self, terminal: bool) -> None:
        if terminal:
            self._open(remaining=True, transient=True)

    def received(self, url: str, received: int, total: int | None) -> None:
        """``received`` bytes of ``url`` are there, of ``total`` (None: the server did not say)."""
        if not self._on:
            return
        name, task = url.rpartition("/")[2], self._tasks.get(url)
        with self._harmless():
            if url not in self._tasks:
                begun = f"downloading {name} from {urlsplit(url).netloc}"
                if self._bars is None:
                    self._line(begun)
                else:
                    self._bars.console.print(begun, markup=False, highlight=False)
                    task = self._bars.add_task(name, total=total, place="", numbers="")
                self._tasks[url] = task
            if self._bars is not None and task is not None:
                of = "" if total is None else f"/{total / 1e6:.1f}"
                self._bars.update(task, completed=received, total=total, place=f"{received / 1e6:.1f}{of} MB")
                self._draw()


class PlannedGroup(Protocol):
    """What is shown of a group of a study's plan (`netdepth.studies.plan.Group`)."""

    @property
    def group(self) -> int: ...
    @property
    def seeds(self) -> Sequence[int]: ...
    @property
    def operations(self) -> int: ...
    @property
    def title(self) -> str: ...


class StudyProgress(_Display):
    """Progress of a study: a bar for all of it and one per running group.

    Args:
        title: the study; shown literally.
        groups: all groups of the plan. A group counts as much as its multiply-adds.
        missing: those that are trained now.
    """

    def __init__(
        self,
        title: str,
        groups: Sequence[PlannedGroup],
        missing: Sequence[PlannedGroup],
        *,
        shown: bool = True,
        stream: TextIO | None = None,
    ) -> None:
        super().__init__(shown and bool(missing), stream)
        self.title = title
        self._groups = {group.group: group for group in missing}
        self._runs = sum(len(group.seeds) for group in groups)
        self._runs_done = self._runs - sum(len(group.seeds) for group in missing)
        self._total = sum(group.operations for group in groups)
        self._before = self._total - sum(group.operations for group in missing)
        self._shares: dict[int, float] = {}
        self._started = time.monotonic()
        self._begun: dict[int, float] = {}
        self._all: TaskID | None = None
        self._tasks: dict[int, TaskID] = {}

    def _begin(self, terminal: bool) -> None:
        if terminal:
            self._all = self._open().add_task(self.title, total=1.0, place="", numbers="")
            self._update_all()
        else:
            left = self._runs - self._runs_done
            self._line(f"{self.title}: {left} of {self._runs} runs to train, in {len(self._groups)} groups")

    def started(self, group: int) -> None:
        """The work on a group begins."""
        self._begun[group] = time.monotonic()
        self._update(group)

    def advanced(
        self, group: int, step: int, total_steps: int, steps_per_epoch: int, record: Mapping[str, Any] | None
    ) -> None:
        """A group has done ``step`` steps; ``record`` is its newest evaluation."""
        self._shares[group] = min(1.0, step / max(total_steps, 1))
        loss = (record or {}).get("train_loss")
        numbers = {"numbers": f"loss {number(loss)}"} if isinstance(loss, int | float) else {}
        place = _epochs(step, total_steps, steps_per_epoch)
        self._update(group, completed=self._shares[group], place=place, **numbers)
        with self._harmless():
            if self._on and self._bars is None and self._silent_for() >= STUDY_LINE_SECONDS:
                self._line(f"{self.title}: {100 * self.share:.0f} % done, {self._left()}")

    def trouble(self, group: int, text: str) -> None:
        """Say why a group waits or starts again."""
        self._update(group, numbers=text)
        with self._harmless():
            if self._on and self._bars is None:
                self._line(f"{self._groups[group].title}: {text}")

    def ended(self, group: int, statuses: Sequence[tuple[str, str | None]]) -> None:
        """A group has ended, with the status and the error, if any, of each of its runs."""
        self._shares[group] = 1.0
        self._runs_done += len(self._groups[group].seeds)
        ended = f"{self._groups[group].title}: {_outcomes(statuses)}"
        with self._harmless():
            if self._bars is not None:
                if group in self._tasks:
                    self._bars.remove_task(self._tasks.pop(group))
                if any(error for _, error in statuses):
                    self._bars.console.print(ended, markup=False, highlight=False)
                self._update_all()
                self._draw()
            elif self._on:
                took = time.monotonic() - self._begun.get(group, self._started)
                text = f"[{self._runs_done}/{self._runs} runs] {ended} in {duration(took)}"
                self._line("; ".join(filter(None, [text, self._left()])))

    @property
    def share(self) -> float:
        """The part of the whole study that is done, 0 to 1, by multiply-adds."""
        done = sum(share * self._groups[number].operations for number, share in self._shares.items())
        return (self._before + done) / max(self._total, 1)

    def _left(self) -> str:
        total = max(self._total, 1)
        return _time_left(time.monotonic() - self._started, self._before / total, self.share, 1.0)

    def _update(self, group: int, **fields: Any) -> None:
        """Change the bar of a running group, where there are bars."""
        with self._harmless():
            if self._bars is not None:
                if group not in self._tasks:
                    title = f"  {self._groups[group].title}"
                    self._tasks[group] = self._bars.add_task(title, total=1.0, place="", numbers="")
                self._bars.update(self._tasks[group], **fields)
                self._update_all()
                self._draw()

    def _update_all(self) -> None:
        if self._bars is not None and self._all is not None:
            place = f"{self._runs_done}/{self._runs} runs"
            self._bars.update(self._all, completed=self.share, place=place, numbers=self._left())


def _outcomes(statuses: Sequence[tuple[str, str | None]]) -> str:
    """How the runs of a group ended: ``9 completed, 1 diverged``, or the reason of a failure."""
    errors = [error for _, error in statuses if error]
    if errors:
        return f"failed: {errors[0]}"
    counts = collections.Counter(status for status, _ in statuses)
    return ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in counts.items())


def describe_record(record: Mapping[str, Any]) -> str:
    """A record as one line: ``loss 0.0312 train 0.0811 val · accuracy 98.99 % train 97.62 % val · best``.

    Without validation images it speaks of training alone.
    """
    unseen = math.isnan(record.get("val_loss") or 0.0) and not record.get("diverged")
    parts = []
    for name, shown in (("loss", number), ("accuracy", percent)):
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


def _epochs(step: int, total_steps: int, steps_per_epoch: int) -> str:
    epochs, total = step / max(steps_per_epoch, 1), total_steps / max(steps_per_epoch, 1)
    return f"epoch {epochs:.{1 if epochs % 1 else 0}f}/{total:.{1 if total % 1 else 0}f}"


def _time_left(passed: float, before: float, done: float, total: float, word: str = "about") -> str:
    """``about 12 min left`` at the pace since ``before``; empty at the end or while nothing is known of the pace."""
    if passed < QUIET_SECONDS or done <= before or done >= total:
        return ""
    return f"{word} {duration(passed * (total - done) / (done - before))} left"
