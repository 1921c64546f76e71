"""What the verdict claims over many studies: the small, fixed version of benchmarks/verdict_simulation.py."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "verdict_simulation.py"


@pytest.fixture(scope="module")
def simulation() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


def test_one_standard_deviation_is_found_with_power_0_80(simulation: dict[str, Any]) -> None:
    found = simulation["power"](trials=4_000)
    assert found["one comparison at 0.05"] == pytest.approx(0.80, abs=0.03)
    assert found["false alarm of one comparison at 0.05"] == pytest.approx(0.05, abs=0.012)
    one, among, each = list(found.values())[1:4]
    assert among <= each <= one <= found["one comparison at 0.05"]


@pytest.mark.slow
def test_where_nothing_is_a_study_claims_nothing_in_19_of_20_cases(simulation: dict[str, Any]) -> None:
    """At most 5 % of the studies, here 2 of 40; two standard deviations of chance make it 4."""
    found = simulation["null"](studies=40)
    assert found["studies_with_a_claim"] <= 4
    assert found["studies_said_to_overfit"] <= 4
