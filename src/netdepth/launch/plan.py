"""Which runs are made together and in which order: a pure function of the work and the cores, never of a stopwatch.

It is written to ``study.json`` before the first run and used again by whoever continues, on any machine:
how many seeds form a stack is part of a run's bits.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

__all__ = ["MAX_STACK", "Group", "Plan", "Work", "plan"]

MAX_STACK = 10
"""The most seeds of one stack: ten are what a study takes, and more gain little."""

PIECES, SMALL_STACK = 2, 4
"""A cell of more than one of so many pieces of a core's share of all the work is divided, so that cores end
together; into stacks of that many seeds at least, since smaller ones are slower, unless cores would lie idle."""

RULE = (
    "the seeds of a cell are one stack, of at most 10, split where a cell is over half of a core's share of all "
    "the work, in stacks of 4 at least unless it is over a whole share (runs that cannot be stacked are made one "
    "by one); the group with the most multiply-adds first; one thread per process"
)


@dataclass(frozen=True)
class Work:
    """The runs of one cell (and one value, while a setting is tuned) that are to be planned.

    ``multiply_adds`` of one training step of one seed, forward and backward; ``steps`` at most.
    """

    condition: str
    depth: int
    seeds: tuple[int, ...]
    stackable: bool
    multiply_adds: int
    steps: int
    value: float | None = None

    @property
    def operations(self) -> int:
        """Multiply-adds of all seeds together."""
        return self.multiply_adds * self.steps * len(self.seeds)


@dataclass(frozen=True)
class Group:
    """Runs that one process makes at once: a ``cohort`` (one stacked model), or one run ``alone``."""

    group: int
    kind: Literal["cohort", "alone"]
    condition: str
    depth: int
    value: float | None
    seeds: tuple[int, ...]
    multiply_adds: int
    steps: int

    @property
    def operations(self) -> int:
        """Multiply-adds of all seeds together."""
        return self.multiply_adds * self.steps * len(self.seeds)

    @property
    def title(self) -> str:
        """What a person calls it: ``plain he, depth 8, 10 seeds``."""
        what = [*([self.condition] if self.condition else []), f"depth {self.depth}"]
        rate = [] if self.value is None else [f"{self.value:g}"]
        seeds = f"{len(self.seeds)} seeds" if len(self.seeds) > 1 else f"seed {self.seeds[0]}"
        return ", ".join([*what, *rate, seeds])


@dataclass(frozen=True)
class Plan:
    """``groups`` in the order in which they are begun; ``cores`` is what the seeds were divided for."""

    cores: int
    groups: tuple[Group, ...]

    def extended(self, works: Iterable[Work], cores: int) -> Plan:
        """The same plan with groups for further work behind it: what is planned is not divided anew."""
        first = len(self.groups)
        more = plan(works, cores).groups
        added = (dataclasses.replace(group, group=first + group.group) for group in more)
        return Plan(self.cores, (*self.groups, *added))

    def as_json(self) -> dict[str, Any]:
        """As it stands in ``study.json``."""
        groups = [{**dataclasses.asdict(group), "operations": group.operations} for group in self.groups]
        return {"rule": RULE, "cores": self.cores, "threads": 1, "groups": groups}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Plan:
        """The plan of a ``study.json``."""
        fields = [field.name for field in dataclasses.fields(Group)]
        groups = [{name: item[name] for name in fields} for item in data["groups"]]
        return cls(data["cores"], tuple(Group(**{**item, "seeds": tuple(item["seeds"])}) for item in groups))


def plan(works: Iterable[Work], cores: int) -> Plan:
    """The plan of ``works`` for ``cores`` cores; see `RULE`."""
    planned = [work for work in works if work.seeds]
    everything = sum(work.operations for work in planned)
    pieces = [(work, part) for work in planned for part in _divide(work, Fraction(work.operations * cores, everything))]
    # Sorting is stable: among equals the order of the grid stands.
    pieces.sort(key=lambda piece: -piece[0].multiply_adds * piece[0].steps * len(piece[1]))
    groups = (
        Group(
            group=number,
            kind="cohort" if len(seeds) > 1 else "alone",
            condition=work.condition,
            depth=work.depth,
            value=work.value,
            seeds=seeds,
            multiply_adds=work.multiply_adds,
            steps=work.steps,
        )
        for number, (work, seeds) in enumerate(pieces)
    )
    return Plan(cores, tuple(groups))


def _divide(work: Work, share: Fraction) -> list[tuple[int, ...]]:
    """The seeds of ``work``, which is worth ``share`` cores, as stacks of nearly equal size, in order."""
    n = len(work.seeds)
    if not work.stackable:
        return [(seed,) for seed in work.seeds]
    wanted = max(math.ceil(n / MAX_STACK), math.ceil(share), min(math.ceil(share * PIECES), n // SMALL_STACK))
    count = max(1, min(wanted, n // 2))  # a stack of one would be a run alone, with other bits than its neighbours
    return [_part(work.seeds, index, count) for index in range(count)]


def _part(seeds: Sequence[int], index: int, count: int) -> tuple[int, ...]:
    n = len(seeds)
    return tuple(seeds[index * n // count : (index + 1) * n // count])
