"""The recorder counts honestly."""

import json

import pytest

from faults import record
from faults.record import Faults, Missed


@pytest.mark.parametrize(("scale", "count"), [("quick", 3), ("long", 70), ("5", 15)])
def test_the_size_of_a_drill(scale, count):
    with Faults(scale, recorded=False).drill(1, "sizes", quick=3, long=70) as drill:
        assert drill.count == count
        with drill.injection("one"):
            pass


def test_a_fault_that_is_not_held_fails_the_drill_at_its_end_and_is_written_down(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "RESULTS", tmp_path)

    def run_drill():
        with Faults("quick", recorded=True).drill(4, "flipped bits", quick=3, long=9) as drill:
            for number in range(drill.count):
                with drill.injection(f"bit {number}", at="model" if number else "state"):
                    assert number != 1, "loaded"

    with pytest.raises(AssertionError, match=r"1 of 3 not held:\nbit 1: AssertionError: loaded"):
        run_drill()
    written = json.loads((tmp_path / "04-flipped-bits.json").read_text())
    assert (written["injected"], written["held"]) == (3, 2)
    assert written["places"] == {"model": 2, "state": 1}
    assert len(written["failures"]) == 1


def test_a_fault_that_came_too_late_is_not_counted():
    with Faults("quick", recorded=False).drill(1, "late") as drill:
        with drill.injection("late"):
            raise Missed
        with drill.injection("in time") as fell:
            fell += ["start-up", "save"]  # two kills, one after the other
    assert (drill.injected, drill.held) == (2, 2)


def test_a_drill_without_a_fault_fails():
    with pytest.raises(AssertionError, match="no fault was put in"), Faults("quick", False).drill(1, "none", 1, 1):
        pass
