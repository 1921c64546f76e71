"""The recorder of fault drills: how many faults were put in, how many were held, and where they fell.

A drill belongs to one row of the table in ``docs/reliability.md``::

    def test_flipped_bits(faults):
        with faults.drill(4, "flipped bits", quick=300, long=6000) as drill:
            for number in range(drill.count):
                with drill.injection(f"bit {number}", at="model.safetensors"):
                    ...  # put the fault in; an assertion or any exception says that it was not held

One fault that is not held does not end the drill; the drill fails when it is over, with all of them.
With ``--faults-record`` it leaves its figures in ``docs/results/reliability/<row>-<name>.json``, from
which ``python tools/publish.py render`` makes the table.
"""

from __future__ import annotations

import contextlib
import json
import platform
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import netdepth
from netdepth.runs.folder import slug

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results" / "reliability"
SCHEMA = 1
SHOWN_FAILURES = 20


class Missed(Exception):
    """Raised within an injection whose fault came too late to be one: it is not counted."""


@dataclass
class Drill:
    """One drill of row ``row``; ``count`` is how many faults the command asked for.

    ``places`` says where the faults fell, ``measured`` holds further figures for the table (with their
    units in their names), ``notes`` what was left out and why.
    """

    row: int
    name: str
    count: int
    injected: int = 0
    held: int = 0
    failures: list[str] = field(default_factory=list)
    places: Counter[str] = field(default_factory=Counter)
    measured: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @contextlib.contextmanager
    def injection(self, what: str, at: str | None = None) -> Iterator[list[str]]:
        """One fault, described by ``what``: held unless something is raised inside.

        Where it fell is told by ``at``, or put into the list that is given: one fault for each place.
        """
        fell = [] if at is None else [at]
        try:
            yield fell
        except Missed:
            return
        except Exception as error:
            self.failures.append(f"{what}: {type(error).__name__}: {str(error)[:500]}")
            self.injected += max(1, len(fell))
        else:
            self.injected += max(1, len(fell))
            self.held += max(1, len(fell))
        self.places.update(fell)

    def as_json(self, scale: str, seconds: float) -> dict[str, Any]:
        """The drill as its file in ``docs/results/reliability`` has it."""
        figures = {key: value for key, value in vars(self).items() if key != "count"}
        return {
            "schema": SCHEMA,
            **figures,
            "scale": scale,
            "asked": self.count,
            "failures": self.failures[:SHOWN_FAILURES],
            "places": dict(sorted(self.places.items())),
            "seconds": round(seconds, 1),
            "netdepth": netdepth.__version__,
            "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        }


@dataclass(frozen=True)
class Faults:
    """What the fixture ``faults`` gives: makes drills of the size that ``--faults`` asks for."""

    scale: str
    recorded: bool

    @contextlib.contextmanager
    def drill(self, row: int, name: str, quick: int = 1, long: int | None = None) -> Iterator[Drill]:
        """A drill of ``quick`` or ``long`` faults, or of ``scale`` times ``quick``; ``long`` is ``quick`` if None.

        Raises:
            AssertionError: at its end, if a fault was not held or none was put in.
        """
        counts = {"quick": quick, "long": quick if long is None else long}
        drill = Drill(row, name, counts[self.scale] if self.scale in counts else quick * int(self.scale))
        begun = time.monotonic()
        try:
            yield drill
        except Exception as error:  # what must hold of all faults together did not
            drill.failures.append(f"{type(error).__name__}: {str(error)[:500]}")
        if self.recorded:
            RESULTS.mkdir(parents=True, exist_ok=True)
            text = json.dumps(drill.as_json(self.scale, time.monotonic() - begun), indent=1) + "\n"
            (RESULTS / f"{row:02}-{slug(name)}.json").write_text(text)
        where = ", ".join(f"{place} {number}" for place, number in drill.places.most_common())
        print(f"row {row}, {name}: {drill.held} of {drill.injected} held{f'; at {where}' if where else ''}")
        assert drill.injected, f"{name}: no fault was put in"
        lost = "\n".join(drill.failures[:SHOWN_FAILURES])
        assert not drill.failures, f"{name}: {drill.injected - drill.held} of {drill.injected} not held:\n{lost}"
