"""What the verdict claims over many studies: the small, fixed version of benchmarks/verdict_simulation.py."""

from __future__ import annotations

import math
import runpy
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "verdict_simulation.py"
STUDIES = 40
SLACK = 3 * math.sqrt(0.05 * 0.95 / STUDIES)


@pytest.fixture(scope="module")
def simulation() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


@pytest.mark.parametrize(
    "row",
    [
        "a quarter fails at every depth",
        "the same, 40 % missing",
        "worse by the margin",
        "worse, but no overfitting",
    ],
)
def test_where_nothing_is_a_study_claims_nothing_in_19_of_20_cases(simulation: dict[str, Any], row: str) -> None:
    """Harm, help, explosions, equivalence and overfitting together: 5 % of the studies, and three standard errors."""
    found = simulation["level_row"]("depth-cnn", row, STUDIES)
    assert (found.shape, found.row, found.studies) == ("depth-cnn", row, STUDIES)
    assert found.rate <= 0.05 + SLACK, found.labels


@pytest.mark.slow
def test_so_it_is_in_every_row_and_in_a_study_of_35_comparisons(simulation: dict[str, Any]) -> None:
    failing = "one in twenty explodes at depth"  # where none of seven did, "equivalent" says which rate is not excluded
    for row in (row for row in simulation["ROWS"] if row != failing):
        for shape, studies in (("depth-cnn", 200), ("depth-mlp", 40)):
            found = simulation["level_row"](shape, row, studies)
            assert found.rate <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / studies), (shape, row, found.labels)


def test_nothing_is_called_equivalent_where_a_run_failed(simulation: dict[str, Any]) -> None:
    draw, _ = simulation["ROWS"]["one in twenty explodes at depth"]
    spec, seen = simulation["SHAPES"]["depth-cnn"], set()
    for index in range(20):
        for contrast in simulation["judged"](spec, draw, (7, index)):
            failed = bool(contrast.failures.failed or contrast.failures.against_failed)
            seen.add(failed)
            assert not failed or contrast.label != "equivalent"
    assert seen == {True, False}


@pytest.mark.parametrize(
    ("what", "seeds", "least"),
    [
        ("a difference of 2 sd", 10, 0.9),
        ("all runs explode", 5, 1.0),
        ("half of the runs explode", 15, 0.6),
        ("no difference: equivalent within 5 sd", 10, 0.9),
    ],
)
def test_what_is_there_is_found(simulation: dict[str, Any], what: str, seeds: int, least: float) -> None:
    assert simulation["power_row"](what, 1, seeds, STUDIES).found >= least


def test_power_grows_with_seeds_and_falls_with_comparisons(simulation: dict[str, Any]) -> None:
    few, many, among = (
        simulation["power_row"]("a difference of 1 sd", m, n, STUDIES).found for m, n in ((1, 5), (1, 15), (5, 15))
    )
    assert few < many
    assert among < many
