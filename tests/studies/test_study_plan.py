"""The plan of a study: which runs are made together. Properties over many grids, and the cases that decide."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netdepth.config import from_json, to_json
from netdepth.studies.forecast import makespan
from netdepth.studies.plan import MAX_STACK, Plan, Work, plan


def cell(depth: int = 2, seeds: int = 10, condition: str = "plain", stackable: bool = True, cost: int = 100) -> Work:
    return Work(condition, str(depth), tuple(range(seeds)), stackable, multiply_adds=cost * depth, steps=10)


works = st.lists(
    st.builds(
        cell,
        depth=st.integers(1, 40),
        seeds=st.integers(1, 25),
        condition=st.sampled_from("abc"),
        stackable=st.booleans(),
        cost=st.integers(1, 10**6),
    ),
    min_size=1,
    max_size=12,
    unique_by=lambda work: (work.condition, work.level),
)


@given(works, st.integers(1, 64))
@settings(max_examples=60, deadline=None)
def test_a_plan_holds_every_run_once_and_is_a_function_of_the_work_and_the_cores(found: list[Work], cores: int) -> None:
    made = plan(found, cores)
    planned = [(g.condition, g.level, seed) for g in made.groups for seed in g.seeds]
    assert sorted(planned) == sorted((w.condition, w.level, seed) for w in found for seed in w.seeds)
    assert [group.group for group in made.groups] == list(range(len(made.groups)))
    costs = [group.multiply_adds * group.steps * (len(group.seeds) + 0.5) for group in made.groups]
    assert costs == sorted(costs, reverse=True)  # the longest first
    stackable = {(w.condition, w.level): w.stackable for w in found}
    for group in made.groups:
        assert group.kind == ("cohort" if len(group.seeds) > 1 else "alone")
        assert len(group.seeds) <= MAX_STACK
        assert stackable[group.condition, group.level] or group.kind == "alone"
    assert plan(found, cores) == made
    assert from_json(Plan, json.loads(json.dumps(to_json(made)))) == made
    # Where whoever is free takes the next group, the last core ends less than one group after the even share.
    assert makespan(costs, cores) <= sum(costs) / cores + max(costs)


def test_a_cell_is_one_stack_and_divided_only_where_it_is_more_than_a_cores_share() -> None:
    cells = [cell(depth, condition=name) for name in "abcde" for depth in (2, 4, 8, 16, 24, 32, 40)]
    assert {len(group.seeds) for group in plan(cells, 2).groups} == {10}
    assert [group.seeds for group in plan([cell()], 2).groups] == [tuple(range(5)), tuple(range(5, 10))]
    assert [len(group.seeds) for group in plan([cell()], 64).groups] == [2] * 5  # never a run alone
    assert [len(group.seeds) for group in plan([cell(condition=name) for name in "ab"], 4).groups] == [5] * 4
    assert sorted(len(group.seeds) for group in plan([cell(seeds=25)], 1).groups) == [8, 8, 9]
    assert [group.kind for group in plan([cell(seeds=3, stackable=False)], 1).groups] == ["alone"] * 3
    assert [group.kind for group in plan([cell(seeds=1)], 4).groups] == ["alone"]


def test_the_cells_that_are_divided_are_those_that_let_the_cores_end_together() -> None:
    """The costs are those of MLPs of width 64 on MNIST, where the first layer weighs as much as eight others."""
    cost = {depth: 2 * 784 * 64 + 3 * 64 * 64 * (depth - 2) + 3 * 640 for depth in (2, 8, 16, 32)}
    cells = [Work("plain", str(depth), tuple(range(10)), True, each, steps=10) for depth, each in cost.items()]
    found = [(int(group.level), len(group.seeds)) for group in plan(cells, 2).groups]
    assert found == [(32, 10), (16, 10), (8, 10), (2, 5), (2, 5)]


def test_seeds_added_later_are_groups_behind_those_that_are_planned() -> None:
    first = plan([cell(2), cell(4)], 2)
    new = [Work("plain", str(depth), (10, 11), True, 100 * depth, 10) for depth in (2, 4)]
    more = first.extended(new, cores=64)
    n = len(first.groups)
    assert more.groups[:n] == first.groups
    assert [(g.group, int(g.level), g.seeds) for g in more.groups[n:]] == [(n, 4, (10, 11)), (n + 1, 2, (10, 11))]
    assert more.cores == first.cores
    assert first.extended([Work("plain", 2, (), True, 200, 10)], 2) == first


@pytest.mark.parametrize(
    ("seconds", "workers", "expected"), [([4, 3, 2, 1], 2, 5), ([4, 3, 2, 1], 1, 10), ([1], 8, 1), ([], 2, 0)]
)
def test_the_time_of_groups_over_workers(seconds: list[float], workers: int, expected: float) -> None:
    assert makespan(seconds, workers) == expected
