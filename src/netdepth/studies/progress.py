"""What a person sees of a study while it trains: a bar for all of it and one per running group."""

from __future__ import annotations

import collections
import time
from collections.abc import Callable, Sequence
from typing import Any, Self, TextIO

from netdepth.progress import Display, epochs_of, time_left
from netdepth.studies.plan import Group
from netdepth.text import STATUS_WORDS, duration, number, percent

__all__ = ["StudyProgress"]

STUDY_LINE_SECONDS = 30.0
"""Without a terminal every group that ends has its line, and no silence is longer than this."""


class StudyProgress(Display):
    """Progress of a study: a bar for all of it and one per running group.

    Args:
        title: the study; shown literally.
        groups: all groups of the plan. A group counts as much as its multiply-adds.
        missing: those that are trained now.
        name_of: names a condition at a level.
    """

    def __init__(
        self,
        title: str,
        groups: Sequence[Group],
        missing: Sequence[Group],
        *,
        name_of: Callable[[str, str], str],
        shown: bool = True,
        stream: TextIO | None = None,
    ) -> None:
        super().__init__(shown and bool(missing), stream)
        self.title = title
        self._groups = {group.group: group for group in missing}
        self._titles = {group.group: group.title(name_of) for group in missing}
        self._runs = sum(len(group.seeds) for group in groups)
        self._runs_done = self._runs - sum(len(group.seeds) for group in missing)
        self._total = max(1, sum(group.operations for group in groups))
        self._shares: dict[int, float] = {}
        self._begun: dict[int, float] = {}
        self._before = self.share

    def __enter__(self) -> Self:
        self._bar_of_all()
        left = self._runs - self._runs_done
        self._line(f"{self.title}: {left} of {self._runs} runs to train, in {len(self._groups)} groups")
        return self

    def started(self, group: int) -> None:
        """The work on a group begins."""
        self._begun[group] = time.monotonic()
        self._bar_of(group)

    def advanced(self, group: int, step: int, total_steps: int, steps_per_epoch: int, train_loss: float | None) -> None:
        """A group has done ``step`` steps; ``train_loss`` is that of its newest evaluation."""
        self._shares[group] = min(1.0, step / max(total_steps, 1))
        numbers = {} if train_loss is None else {"numbers": f"loss {number(train_loss)}"}
        place = epochs_of(step, total_steps, steps_per_epoch)
        self._bar_of(group, completed=self._shares[group], place=place, **numbers)
        done = f"{self.title}: {percent(self.share, 0)} done, {self._left()}"
        self._line(done, STUDY_LINE_SECONDS)
        self._moment(done)

    def trouble(self, group: int, text: str) -> None:
        """Say why a group waits or starts again."""
        self._bar_of(group, numbers=text)
        self._line(f"{self._titles[group]}: {text}", lasting=True)

    def ended(self, group: int, statuses: Sequence[tuple[str, str | None]]) -> None:
        """A group has ended, with the status and the error, if any, of each of its runs."""
        self._shares[group] = 1.0
        self._runs_done += len(self._groups[group].seeds)
        text = f"{self._titles[group]}: {_outcomes(statuses)}"
        if self._bars is not None and group in self._tasks:
            self._bars.remove_task(self._tasks.pop(group))
        if any(error for _, error in statuses):
            self._above(text)
        self._bar_of_all()
        took = duration(time.monotonic() - self._begun.get(group, self._started))
        line = "; ".join(filter(None, [f"[{self._runs_done}/{self._runs} runs] {text} in {took}", self._left()]))
        self._line(line, lasting=any(error for _, error in statuses))

    @property
    def share(self) -> float:
        """The part of the whole study that is done, 0 to 1, by multiply-adds."""
        left = sum((1 - self._shares.get(key, 0.0)) * group.operations for key, group in self._groups.items())
        return 1 - left / self._total

    def _left(self) -> str:
        return time_left(time.monotonic() - self._started, self._before, self.share, 1.0)

    def _bar_of(self, group: int, **fields: Any) -> None:
        self._bar(group, f"  {self._titles[group]}", **fields)
        self._bar_of_all()

    def _bar_of_all(self) -> None:
        place = f"{self._runs_done}/{self._runs} runs"
        self._bar("all", self.title, completed=self.share, place=place, numbers=self._left())


def _outcomes(statuses: Sequence[tuple[str, str | None]]) -> str:
    """How the runs of a group ended: ``9 completed, 1 diverged``, or the reason of a failure."""
    errors = [error for _, error in statuses if error]
    if errors:
        return f"failed: {errors[0]}"
    counts = collections.Counter(status for status, _ in statuses)
    return ", ".join(f"{count} {STATUS_WORDS.get(status, status)}" for status, count in counts.items())
