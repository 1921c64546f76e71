"""What a person sees of work that takes a while: bars on a terminal, plain lines elsewhere, on standard error.

Nothing here runs in a thread: a display draws when it is told something and the last drawing is old enough.
A stream that goes away silences the display and never stops the work.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Required, Self, TextIO, TypedDict, cast
from urllib.parse import urlsplit

from netdepth.text import duration, number, percent, plain, thousands

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["CountProgress", "DownloadProgress", "ShownRecord", "TrainProgress", "describe_record"]

REFRESH_SECONDS = 0.25
"""A redraw costs about a millisecond of the working thread, so there are at most four a second."""
TRAIN_LINE_SECONDS = 1.0
COUNT_LINE_SECONDS = 5.0
CELL_SECONDS = 0.5
"""The line of a notebook's cell changes at most this often."""
BAR_WIDTHS = (16, 10, 6, 2)
TITLE_WIDTH = 24
"""A longer title is shortened before numbers are left out."""
NARROW = 100
"""Columns below which the title of a single bar has a line of its own above it."""
QUIET_SECONDS = 1.0
"""Counted work that takes less time is not shown at all, and no time left is guessed from less."""


class _Forgiving:
    """A stream that may go away, or be closed: from then on it drops what is written."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = getattr(stream, "rich_proxied_file", stream)  # below the bars of another display
        self.encoding = getattr(stream, "encoding", None)

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):  # a closed stream raises ValueError
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def isatty(self) -> bool:
        with contextlib.suppress(OSError, ValueError):
            return bool(self._stream.isatty())
        return False


class Display:
    """Bars or lines on ``stream`` (standard error if None), as a context manager; nothing unless ``shown``.

    In a notebook the lines are one that changes, except those that must stay.
    """

    remaining = transient = single = False
    """Whether bars tell the time that is left, whether they vanish at the end, and whether there is only one."""

    def __init__(self, shown: bool, stream: TextIO | None) -> None:
        self._on_stderr = stream in (None, sys.stderr)
        self._stream = _Forgiving(sys.stderr if stream is None else stream)
        dumb = os.environ.get("TERM", "").lower() in ("dumb", "unknown")
        self._terminal = shown and not dumb and self._stream.isatty()
        self._plain = shown and not self._terminal
        self._cell = _cell_of_notebook() if self._plain and self._on_stderr else None
        self._bars: Progress | None = None
        self._tasks: dict[object, TaskID] = {}
        self._drawn = self._said = -math.inf
        self._started = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bars is not None:
            self._fit(self._bars)
            self._bars.stop()  # draws once more and gives the cursor back

    def _bar(self, key: object, title: str, total: float | None = 1.0, **fields: Any) -> None:
        """On a terminal: change the bar of ``key``, or add it.

        Fields: ``completed``, ``place``, and ``numbers``: a text, or several of which the first that fits is shown.
        """
        if not self._terminal:
            return
        if self._bars is None:
            self._bars = self._opened()
            if self.single and self._bars.console.width < NARROW:
                self._above(title)
        if key not in self._tasks:
            named = "" if self.single and self._bars.console.width < NARROW else title
            shown: dict[str, Any] = {"place": "", "numbers": "", "title": named, "fitting": ""}
            self._tasks[key] = self._bars.add_task("", total=total, visible=False, **shown)
        self._bars.update(self._tasks[key], total=total, **fields)
        if time.monotonic() - self._drawn >= REFRESH_SECONDS:
            self._drawn = time.monotonic()
            self._fit(self._bars)
            self._bars.refresh()

    def _opened(self) -> Progress:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

        self._bar_column = BarColumn(bar_width=BAR_WIDTHS[0])
        columns: list[ProgressColumn] = [
            TextColumn("{task.description}", markup=False),
            self._bar_column,
            TextColumn("{task.fields[place]}", markup=False),
            TextColumn("{task.fields[fitting]}", markup=False, style="cyan"),
            *([TimeRemainingColumn(compact=True)] if self.remaining else []),
        ]
        bars = Progress(
            *columns,
            console=Console(file=cast(TextIO, self._stream)),
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=self._on_stderr,
            transient=self.transient,
        )
        bars.start()
        return bars

    def _fit(self, bars: Progress) -> None:
        """Choose what fits the width: shorter numbers before a narrower title, a shorter bar before both."""
        tasks = bars.tasks
        if not tasks:
            return
        texts = [(it,) if isinstance(it := task.fields["numbers"], str) else it for task in tasks]
        place = max(len(task.fields["place"]) for task in tasks)
        long = any((task.time_remaining or 0) >= 3600 for task in tasks)
        width = bars.console.width - place - (len(bars.columns) - 1) - (7 if long else 5) * self.remaining
        title = max(len(task.fields["title"]) for task in tasks)
        bars_left = [bar for bar in BAR_WIDTHS if bar <= (self._bar_column.bar_width or 0)]  # it never grows again
        for level, bar in itertools.product(range(max(map(len, texts))), bars_left):
            chosen = [own[min(level, len(own) - 1)] for own in texts]
            room = width - bar - max(map(len, chosen))
            if room >= min(title, TITLE_WIDTH):
                break
        self._bar_column.bar_width = bar
        limit = max(room, TITLE_WIDTH)
        for task, text in zip(tasks, chosen, strict=True):
            named = task.fields["title"]
            if len(named) > limit:  # both ends tell groups apart: the condition, and the depth
                named = f"{named[: limit // 2]}…{named[len(named) - (limit - limit // 2 - 1) :]}"
            bars.update(task.id, description=named, fitting=text, visible=True)

    def _above(self, text: str) -> None:
        """On a terminal: a line above the bars."""
        if self._bars is not None:
            self._bars.console.print(text, markup=False, highlight=False)

    def _line(self, text: str, every: float = 0.0, lasting: bool = False) -> bool:
        """Elsewhere: a line, unless the last one is less than ``every`` seconds old; returns whether it was written.

        In a notebook only a ``lasting`` one is a line of its own.
        """
        due = self._plain and time.monotonic() - self._said >= every
        if due and self._cell is not None and not lasting:
            self._cell(text)
        elif due:
            self._stream.write(text + "\n")
            self._stream.flush()
        if due:
            self._said = time.monotonic()
        return due

    def _moment(self, text: str) -> None:
        """In a notebook alone: what happens between two lines."""
        if self._cell is not None:
            self._line(text, CELL_SECONDS)


def _cell_of_notebook() -> Callable[[str], None] | None:
    """A function that shows a text in place of the one before, below the cell that runs; None outside notebooks."""
    shell = sys.modules["IPython"].get_ipython() if "ipykernel" in sys.modules and "IPython" in sys.modules else None
    if not hasattr(shell, "kernel"):
        return None
    from IPython import display

    handles: list[Any] = []

    def show(text: str) -> None:
        data = {"text/plain": text}
        if handles:
            handles[0].update(data, raw=True)
        else:
            handles.append(display.display(data, raw=True, display_id=True))  # type: ignore[no-untyped-call]

    return show


class ShownRecord(TypedDict, total=False):
    """What is shown of a line of ``metrics.jsonl`` (`netdepth.runs.MetricsRecord`)."""

    step: Required[int]
    train_loss: float | None
    train_accuracy: float | None
    val_loss: float | None
    val_accuracy: float | None
    val_r2: float | None
    diverged: bool
    best: bool
    overfit_count: int
    overfit_onset_epoch: float | None


class TrainProgress(Display):
    """Progress of one run.

    Args:
        title: what is trained, e.g. ``"baseline-mlp mnist seed 0"``; shown literally.
        total_steps: the budget in optimizer steps.
        steps_per_epoch: to show steps as epochs.
    """

    remaining = single = True

    def __init__(
        self, title: str, total_steps: int, steps_per_epoch: int, *, shown: bool = True, stream: TextIO | None = None
    ) -> None:
        super().__init__(shown, stream)
        self.title, self.total_steps, self.steps_per_epoch = title, total_steps, steps_per_epoch
        self._pending = self._numbers = ""
        self._before: int | None = None

    def __enter__(self) -> Self:
        self.advance(0)
        return self

    def __exit__(self, *error: object) -> None:
        if self._pending:
            self._line(self._pending)
        super().__exit__(*error)

    def advance(self, step: int, **fields: Any) -> None:
        """``step`` optimizer steps are done, counted from the start of the run."""
        self._before = step if self._before is None or step < self._before else self._before
        place = epochs_of(step, self.total_steps, self.steps_per_epoch)
        self._bar("run", self.title, self.total_steps, completed=step, place=place, **fields)
        passed = time.monotonic() - self._started
        left = time_left(passed, self._before, step, self.total_steps) if self._cell is not None else ""
        self._moment(f"{self.title}: {', '.join(filter(None, [place, self._numbers, left]))}")

    def evaluated(self, record: ShownRecord) -> None:
        """Show one record of ``metrics.jsonl``."""
        step, forms = record["step"], describe_record(record)
        self._numbers = forms[0]
        self.advance(step, numbers=forms)
        place = epochs_of(step, self.total_steps, self.steps_per_epoch)
        text = f"{self.title}: {place}, step {step}, {self._numbers}"
        self._pending = "" if self._line(text, TRAIN_LINE_SECONDS) else text


class CountProgress(Display):
    """Progress of work whose pieces take about the same time: how many are done, and about how long the rest takes.

    Args:
        title: what is done; shown literally.
        total: the number of pieces.
        before: how many of them were done earlier; they say nothing about the pace.
        at_most: it may end before ``total``.
    """

    transient = True

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

    def add(self, count: int) -> None:
        """``count`` more pieces are done."""
        self.advance(self.done + count)

    def advance(self, done: int, note: str = "") -> None:
        """``done`` pieces are done, those of ``before`` among them; ``note`` is a word on the last one."""
        self.done, passed = done, time.monotonic() - self._started
        if passed < QUIET_SECONDS:
            return
        notes = [text for text in (note, time_left(passed, self.before, done, self.total, self._word)) if text]
        place = f"{thousands(done)}/{thousands(self.total)}"
        self._bar("count", self.title, self.total, completed=done, place=place, numbers=" · ".join(notes))
        self._line(
            ", ".join([f"{self.title}: {thousands(done)} of {thousands(self.total)}", *notes]), COUNT_LINE_SECONDS
        )


class DownloadProgress(Display):
    """Progress of downloads: a line for each that begins and, on a terminal, a bar."""

    remaining = transient = True

    def __init__(self, *, shown: bool = True, stream: TextIO | None = None) -> None:
        super().__init__(shown, stream)
        self._urls: set[str] = set()

    def received(self, url: str, received: int, total: int | None) -> None:
        """``received`` bytes of ``url`` are there, of ``total`` (None: the server did not say)."""
        name = url.rpartition("/")[2]
        place = f"{thousands(received / 1e6, 1)}{'' if total is None else f'/{thousands(total / 1e6, 1)}'} MB"
        self._bar(url, name, total, completed=received, place=place)
        self._moment(f"{name}: {place}")
        if url not in self._urls:
            self._urls.add(url)
            begun = f"downloading {name} from {urlsplit(url).netloc}"
            self._above(begun)
            self._line(begun, lasting=True)


def describe_record(record: ShownRecord) -> list[str]:
    """A record as one line: ``loss 0.0312 train 0.0811 val · accuracy 98.99 % train 97.62 % val · best``.

    Where values are learned it has the R² of validation instead of accuracies. After it shorter ones: without
    them, and then with the overfitting counter in short. Without validation images they speak of training alone.
    """
    values = "val_r2" in record
    loss, accuracy = f"{number(record.get('train_loss'))} train", f"{percent(record.get('train_accuracy'))} train"
    accuracy = "" if values else f"accuracy {accuracy}"
    if record.get("diverged") or not math.isnan(record.get("val_loss") or 0.0):
        loss += f" {number(record.get('val_loss'))} val"
        accuracy += (
            f"R² {number(record.get('val_r2'))} val" if values else f" {percent(record.get('val_accuracy'))} val"
        )
    onset, count = record.get("overfit_onset_epoch"), record.get("overfit_count")
    overfits = f"overfitting{'?' if onset is None else ''} {count}" if count else ""
    since = overfits if onset is None else f"overfitting since epoch {plain(onset)}"
    best = "best" if record.get("best") else ""
    forms = (
        (f"loss {loss}", accuracy, since, best),
        (f"loss {loss}", since, best),
        (f"loss {loss}", overfits, best),
        (loss, overfits, best),
        (loss, overfits),
    )
    return [" · ".join(filter(None, form)) for form in forms]


def epochs_of(step: int, total_steps: int, steps_per_epoch: int) -> str:
    epochs, total = step / max(steps_per_epoch, 1), total_steps / max(steps_per_epoch, 1)
    return f"epoch {epochs:.{1 if epochs % 1 else 0}f}/{total:.{1 if total % 1 else 0}f}"


def time_left(passed: float, before: float, done: float, total: float, word: str = "about") -> str:
    """``about 12 min left`` at the pace since ``before``; empty at the end or while nothing is known of the pace."""
    if passed < QUIET_SECONDS or done <= before or done >= total:
        return ""
    return f"{word} {duration(passed * (total - done) / (done - before))} left"
