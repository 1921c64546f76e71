"""What a person sees of a study: a bar for all of it and a line per running group; plain lines off a terminal."""

from __future__ import annotations

import collections
import sys
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TextIO

from netdepth.studies.plan import Group
from netdepth.text import duration

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["StudyProgress"]

REFRESH_SECONDS = 0.25
LINE_SECONDS = 30.0
"""Off a terminal every group that ends has its line, and no silence is longer than this."""


class StudyProgress:
    """Progress of a study, as a context manager; `event` takes what the workers report.

    Nothing runs in a thread. A stream that goes away silences the display and never stops the study.

    Args:
        title: the study; shown literally.
        groups: all groups of the plan. A group counts as much as its multiply-adds.
        missing: those that are to be made now.
        mode: ``"auto"`` or ``"quiet"``, which shows nothing.
        stream: where to write; stderr if None.
    """

    def __init__(
        self,
        title: str,
        groups: Sequence[Group],
        missing: Sequence[Group],
        mode: Literal["auto", "quiet"] = "auto",
        stream: TextIO | None = None,
    ) -> None:
        self.title = title
        self._groups = {group.group: group for group in missing}
        self._runs = sum(len(group.seeds) for group in groups)
        self._runs_done = self._runs - sum(len(group.seeds) for group in missing)
        self._total = sum(group.operations for group in groups)
        self._before = self._total - sum(group.operations for group in missing)
        self._shares: dict[int, float] = {}
        self._started = self._drawn = self._said = time.monotonic()
        self._begun: dict[int, float] = {}
        self._stream = sys.stderr if stream is None else stream
        self._on = mode != "quiet" and bool(missing)
        self._bar: Progress | None = None
        self._all: TaskID | None = None
        self._tasks: dict[int, TaskID] = {}

    def __enter__(self) -> StudyProgress:
        try:
            if self._on and self._stream.isatty():
                self._start_bar()
            elif self._on:
                left = self._runs - self._runs_done
                self._line(f"{self.title}: {left} of {self._runs} runs to make, in {len(self._groups)} groups")
        except (OSError, ValueError):
            self._silence()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._bar is not None:
                self._bar.stop()
        except (OSError, ValueError):
            self._silence()

    def event(self, event: Mapping[str, Any]) -> None:
        """Take in one event of a worker (`netdepth.studies.worker`)."""
        group = self._groups[event["group"]]
        kind = event["event"]
        if kind == "progress":
            self._shares[group.group] = min(1.0, event["step"] / max(event["of"], 1))
        elif kind == "outcome":
            self._shares[group.group] = 1.0
            self._runs_done += len(group.seeds)
        elif kind == "started":
            self._begun[group.group] = time.monotonic()
        try:
            if self._bar is not None:
                self._show(group, event)
            elif self._on:
                self._say(group, event)
        except (OSError, ValueError):
            self._silence()

    @property
    def share(self) -> float:
        """The part of the whole study that is done, 0 to 1, by multiply-adds."""
        done = sum(share * self._groups[number].operations for number, share in self._shares.items())
        return (self._before + done) / max(self._total, 1)

    @property
    def seconds_left(self) -> float | None:
        """Time left at the pace so far; None while nothing is known of it."""
        before = self._before / max(self._total, 1)
        gained, passed = self.share - before, time.monotonic() - self._started
        return None if gained <= 0 or passed < 2 else passed * (1 - self.share) / gained

    def _left(self) -> str:
        left = self.seconds_left
        return "" if left is None else f"about {duration(left)} left"

    # --- lines ---

    def _say(self, group: Group, event: Mapping[str, Any]) -> None:
        if event["event"] == "outcome":
            took = time.monotonic() - self._begun.get(group.group, self._started)
            left = f"; {self._left()}" if self._runs_done < self._runs and self._left() else ""
            text = f"[{self._runs_done}/{self._runs} runs] {group.title}: {_ends(event)} in {duration(took)}{left}"
            self._line(text)
        elif event["event"] in ("retry", "waiting"):
            self._line(f"{group.title}: {_trouble(event)}")
        elif time.monotonic() - self._said >= LINE_SECONDS:
            self._line(f"{self.title}: {100 * self.share:.0f} % done, {self._left()}")

    def _line(self, text: str) -> None:
        if text != "":
            self._stream.write(text + "\n")
            self._stream.flush()
            self._said = time.monotonic()

    # --- bars ---

    def _start_bar(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        class Screen(Console):
            def on_broken_pipe(self) -> None:
                """Rich would end the process here; a study outlives its display."""
                raise BrokenPipeError

        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=16),
            TextColumn("{task.fields[place]}", markup=False),
            TextColumn("{task.fields[numbers]}", markup=False, style="cyan"),
            console=Screen(file=self._stream),
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=self._stream is sys.stderr,
        )
        self._all = self._bar.add_task(self.title, total=1.0, place="", numbers="")
        self._update_all()
        self._bar.start()

    def _update_all(self) -> None:
        if self._bar is not None and self._all is not None:
            place = f"{self._runs_done}/{self._runs} runs"
            self._bar.update(self._all, completed=self.share, place=place, numbers=self._left())

    def _show(self, group: Group, event: Mapping[str, Any]) -> None:
        assert self._bar is not None
        task = self._tasks.get(group.group)
        if task is None:
            task = self._bar.add_task(f"  {group.title}", total=1.0, place="", numbers="")
            self._tasks[group.group] = task
        if event["event"] == "progress":
            self._bar.update(task, completed=self._shares[group.group], place=_place(event))
            loss = (event["record"] or {}).get("train_loss")
            if isinstance(loss, int | float):
                self._bar.update(task, numbers=f"loss {loss:.4f}" if abs(loss) < 1e4 else f"loss {loss:.4g}")
        elif event["event"] in ("retry", "waiting"):
            self._bar.update(task, numbers=_trouble(event))
        elif event["event"] == "outcome":
            self._bar.remove_task(self._tasks.pop(group.group))
            if any(outcome["error"] for outcome in event["outcomes"]):
                self._bar.console.print(f"{group.title}: {_ends(event)}", markup=False, highlight=False)
        self._update_all()
        now = time.monotonic()
        if now - self._drawn >= REFRESH_SECONDS:
            self._drawn = now
            self._bar.refresh()

    def _silence(self) -> None:
        self._on, self._bar = False, None


def _place(event: Mapping[str, Any]) -> str:
    epochs, total = event["step"] / max(event["per_epoch"], 1), event["of"] / max(event["per_epoch"], 1)
    return f"epoch {epochs:.1f}/{total:.{1 if total % 1 else 0}f}"


def _trouble(event: Mapping[str, Any]) -> str:
    return f"begun again: {event['error']}" if event["event"] == "retry" else f"waiting: {event['for']}"


def _ends(event: Mapping[str, Any]) -> str:
    """How the runs of a group ended: ``9 completed, 1 diverged``, or the reason of a failure."""
    errors = [outcome["error"] for outcome in event["outcomes"] if outcome["error"]]
    if errors:
        return f"failed: {errors[0]}"
    counts = collections.Counter(outcome["status"] for outcome in event["outcomes"])
    return ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in counts.items())
