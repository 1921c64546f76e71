"""Which runs are made together and in which order: a pure function of the work and the cores, never of measured time.

The plan is written to ``study.json`` before the first run and is used again when the study continues, on any machine:
how many seeds form a stack decides a run's bits.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from netdepth.text import plain

__all__ = ["MAX_STACK", "Group", "Plan", "Work", "plan"]

MAX_STACK = 10
"""The most seeds of one stack: ten are what a study takes, and more gain little."""

TOLERATED = 20
"""Seeds are divided further until the last core ends at most 1/20 after the even share of the work."""

RULE = (
    "the seeds of a cell are one stack, of at most 10; while one core would end over 5 % after the even share of the "
    "work, a cell on that core is divided once more where that lets it end earliest, never into single seeds (runs "
    "that cannot be stacked are made one by one); a stack counts as half a run more than it has; the costliest group "
    "first; one thread per process"
)


@dataclass(frozen=True)
class Work:
    """The runs of one cell (and one value, while a setting is tuned) that are to be planned.

    ``multiply_adds`` of one training step of one seed, forward and backward; ``steps`` at most.
    """

    condition: str
    level: str
    seeds: tuple[int, ...]
    stackable: bool
    multiply_adds: int
    steps: int
    value: int | float | None = None


@dataclass(frozen=True, kw_only=True)
class Group:
    """Runs that one process makes at once: a stack of replicas (kind ``cohort``), or one run ``alone``.

    ``operations`` are the multiply-adds of all seeds together.
    """

    group: int
    kind: Literal["cohort", "alone"]
    condition: str
    level: str = field(metadata={"was": "depth"})
    value: int | float | None
    seeds: tuple[int, ...]
    multiply_adds: int
    steps: int
    operations: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "operations", self.multiply_adds * self.steps * len(self.seeds))

    def title(self, name_of: Callable[[str, str], str]) -> str:
        """What a person calls it: ``plain, He init, depth 8, 10 seeds``; ``name_of`` names its condition and level."""
        rate = "" if self.value is None else plain(self.value)
        seeds = f"{len(self.seeds)} seeds" if len(self.seeds) > 1 else f"seed {self.seeds[0]}"
        return ", ".join(filter(None, [name_of(self.condition, self.level), rate, seeds]))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """``groups`` in the order in which they are started; ``cores`` is the number that the seeds were divided for."""

    rule: str = RULE
    cores: int
    threads: int = 1
    groups: tuple[Group, ...]

    def extended(self, works: Iterable[Work], cores: int) -> Plan:
        """The same plan with groups for further work at its end: what is planned is not divided again."""
        first = len(self.groups)
        more = plan(works, cores).groups
        added = (dataclasses.replace(group, group=first + group.group) for group in more)
        return dataclasses.replace(self, groups=(*self.groups, *added))


def plan(works: Iterable[Work], cores: int) -> Plan:
    """The plan of ``works`` for ``cores`` cores; see `RULE`."""
    planned = [work for work in works if work.seeds]
    counts = [-(-len(work.seeds) // MAX_STACK) if work.stackable else len(work.seeds) for work in planned]
    while True:
        loads, first = _loads(planned, counts, cores)
        if max(loads, default=0) * cores * TOLERATED <= sum(loads) * (TOLERATED + 1):
            break
        tried = []
        for index in sorted(first):
            # A stack of one would be a run alone, with other bits than its neighbours.
            if planned[index].stackable and counts[index] < len(planned[index].seeds) // 2:
                more = [count + (number == index) for number, count in enumerate(counts)]
                tried.append((_loads(planned, more, cores)[0], more))
        better, more = min(tried, default=(loads, counts))
        if better >= loads:
            break
        counts = more
    groups = tuple(
        Group(
            group=number,
            kind="cohort" if len(seeds) > 1 else "alone",
            condition=planned[index].condition,
            level=planned[index].level,
            value=planned[index].value,
            seeds=seeds,
            multiply_adds=planned[index].multiply_adds,
            steps=planned[index].steps,
        )
        for number, (_, index, seeds) in enumerate(_pieces(planned, counts))
    )
    return Plan(cores=cores, groups=groups)


def _pieces(works: Sequence[Work], counts: Sequence[int]) -> list[tuple[int, int, tuple[int, ...]]]:
    """(cost, index of the work, seeds) of every group, the most expensive first; ``counts`` are the groups per work.

    The cost is in halves of a multiply-add and counts a stack of S seeds as S + 1/2, since a step has a fixed cost
    too (measured for stacks of 3 to 20, depths 2 to 32: from 0.2 to 0.6 seeds).
    """
    pieces = []
    for index, (work, count) in enumerate(zip(works, counts, strict=True)):
        for part in range(count):
            first, end = (edge * len(work.seeds) // count for edge in (part, part + 1))
            seeds = work.seeds[first:end]
            pieces.append((work.multiply_adds * work.steps * (2 * len(seeds) + 1), index, seeds))
    # Sorting is stable: equals keep the order of the grid.
    return sorted(pieces, key=lambda piece: -piece[0])


def _loads(works: Sequence[Work], counts: Sequence[int], cores: int) -> tuple[list[int], set[int]]:
    """The load of each core, largest first, if a free core takes the next group; the works of the most loaded core."""
    free = [(0, core) for core in range(cores)]
    takes: list[set[int]] = [set() for _ in range(cores)]
    for cost, index, _ in _pieces(works, counts):
        load, core = heapq.heappop(free)
        takes[core].add(index)
        heapq.heappush(free, (load + cost, core))
    return sorted((load for load, _ in free), reverse=True), takes[max(free)[1]]
