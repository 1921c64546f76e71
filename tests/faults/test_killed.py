"""SIGKILL at random moments: the same command goes on to the bits of the run that nobody killed."""

from __future__ import annotations

import contextlib
import itertools
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from faults.kill import Children, Moment, Strike, Trace, run_line
from faults.phases import LETTERS
from faults.record import Drill, Faults, Missed
from faults.subjects import Subject, subjects
from netdepth.runs.folder import RunDir, slug

pytestmark = pytest.mark.faults

OTHERS = ("start-up", "evaluation", "save", "result", "table", "report")
"""What a kill is aimed at beside training itself, which half of them are."""

TURNS = ("MLP with dropout", "CNN with batch norm", "stack", "MLP with dropout", "CNN with batch norm", "study")
"""The subjects in turn; the study, which takes longest, seldom."""


class Ring:
    """The subjects, each with its uninterrupted run; ``planted`` are faults of the product (`faults.planted`)."""

    def __init__(self, children: Children, root: Path, planted: tuple[str, ...] = ()) -> None:
        self.children = children
        self.root = root
        self.shims = [["faults.phases:eager"], *([f"faults.planted:{name}"] for name in planted)]
        self.subjects = subjects(root / "subjects")
        self._whole: dict[str, Trace] = {}
        self._numbers = itertools.count()

    def make(
        self, subject: Subject, root: Path, strike: Strike | None = None, shims: Sequence[list[Any]] = ()
    ) -> Trace:
        """Make or continue ``subject``; what it says stands in ``said``."""
        job = subject.job(root, root.with_suffix(".txt"), [*self.shims, *shims])
        return self.children.run(job, strike)

    def whole(self, subject: Subject) -> Trace:
        """The uninterrupted run of ``subject``, made when it is first asked for."""
        if subject.name not in self._whole:
            trace = self.make(subject, self.home(subject))
            assert trace.status == 0, self.said(self.home(subject))
            self._whole[subject.name] = trace
        return self._whole[subject.name]

    def home(self, subject: Subject) -> Path:
        return self.root / slug(subject.name)

    @staticmethod
    def said(root: Path) -> str:
        return root.with_suffix(".txt").read_text()

    def strike_down(self, subject: Subject, draw: random.Random, aims: list[str], fell: list[str]) -> None:
        """Kill ``subject`` once for each of ``aims``, see what is left each time, and let it end; it must be equal.

        Raises:
            AssertionError: something is lost, half-written or different.
        """
        root = self.root / str(next(self._numbers))
        whole = self.whole(subject)
        for aim in aims:
            moment = Moment.drawn(draw, LETTERS[aim], whole)
            longer = [] if aim == "start-up" else [["faults.phases:linger", moment.letter, moment.count]]
            trace = self.make(subject, root, Strike(moment), longer)
            if trace.status != -9:
                assert trace.status == 0, self.said(root)
                break  # it had ended before
            fell.append(trace.place)
            for run in subject.folders(root):
                check_left(run)
        newest = [newest_step(run) for run in subject.folders(root)]
        root.with_suffix(".txt").write_text("")
        trace = self.make(subject, root)
        assert trace.status == 0, self.said(root)
        subject.compare(self.home(subject), root)
        check_continued(subject, newest, self.said(root))
        if not fell:
            raise Missed


def check_left(run: RunDir) -> None:
    """What a killed process may leave: whole checkpoints, the newest of the last evaluation or of the one before."""
    steps = run.checkpoints()
    for step in steps:
        assert run.load_checkpoint(step) is not None, run.notes
    known = [record["step"] for record in run.read_metrics()]
    if len(known) > 1:
        assert steps, f"{run.path.name}: {len(known)} evaluations and no checkpoint"
        assert steps[-1] in known[-2:], f"{run.path.name}: evaluated to {known[-1]}, saved to {steps[-1]}"
    run.result()  # raises if it is there and not whole


def newest_step(run: RunDir) -> int | None:
    """The step of the newest checkpoint; None if the run is finished."""
    return None if run.result() is not None else max(run.checkpoints(), default=0)


def check_continued(subject: Subject, newest: list[int | None], said: str) -> None:
    """It went on from the newest checkpoint, and not from the start."""
    if subject.name == "study" or len(set(newest)) != 1 or not newest[0]:
        return  # several runs, several steps, or a replica that had saved nothing: the equal end has to do
    step = newest[0]
    assert re.search(rf"continued from step {step}\b", said), f"not continued from step {step}: {said[-500:]}"


@pytest.fixture(scope="module")
def ring(children: Children, tmp_path_factory: pytest.TempPathFactory) -> Ring:
    return Ring(children, tmp_path_factory.mktemp("ring"))


def aims_of(drill: Drill, draw: random.Random, count: int) -> Iterator[str]:
    """Phases to aim at so that half of all kills fall mid-epoch and no other phase is left out."""
    aimed: Counter[str] = Counter(drill.places)
    for _ in range(count):
        if aimed["mid-epoch"] <= 0.55 * aimed.total():  # some of these fall a little later
            aim = "mid-epoch"
        else:
            fewest = min(aimed[name] for name in OTHERS)
            aim = draw.choice([name for name in OTHERS if aimed[name] == fewest])
        aimed[aim] += 1
        yield aim


def short_of(drill: Drill) -> list[str]:
    """The phases in which too few kills have fallen, since one that was aimed at a short phase may come late."""
    half = [] if 2 * drill.places["mid-epoch"] >= drill.injected else ["mid-epoch"]
    return half + [name for name in OTHERS if not drill.places[name]]


def test_sigkill_at_random_moments(ring: Ring, faults: Faults) -> None:
    draw = random.Random(20)
    with faults.drill(1, "SIGKILL at a random moment, then the same command again", quick=12, long=500) as drill:
        turns = itertools.cycle(TURNS)
        subjects_killed: Counter[str] = Counter()
        while drill.injected < drill.count or (short_of(drill) and drill.injected < 3 * max(20, drill.count)):
            chained = draw.choice((1, 1, 1, 2, 4))
            aims = list(aims_of(drill, draw, chained))
            name = "study" if {"table", "report"} & set(aims) else next(turns)
            with drill.injection(f"{name}, killed in {', '.join(aims)}") as fell:
                ring.strike_down(ring.subjects[name], draw, aims, fell)
            subjects_killed[name] += len(fell)
        drill.measured |= {f"kills of the {name}": number for name, number in subjects_killed.items()}
        assert not short_of(drill), drill.places


def test_sigkill_to_commands_of_their_own(ring: Ring, faults: Faults, tmp_path: Path) -> None:
    """From the start of the interpreter on; of a study with worker processes, of which the second dies with them."""
    draw = random.Random(21)
    mlp, study = ring.subjects["MLP with dropout"], ring.subjects["study"]
    for subject in (mlp, study):
        ring.whole(subject)
    begun = run_line(mlp.line(tmp_path / "whole"), tmp_path / "whole.txt").ended
    with faults.drill(1, "SIGKILL to a command of its own, or to a study and its workers", quick=3, long=30) as drill:
        for number in itertools.count():
            if drill.injected >= drill.count:
                break
            subject, root = (mlp, study, study)[number % 3], tmp_path / str(number)
            line = subject.line(root, workers=2)
            moment = Moment("u", 0, draw.uniform(0.05, 1.0 if subject is mlp else 2.0) * begun)
            with drill.injection(f"{subject.name} after {moment.delay:.2f} s") as fell:
                trace = run_line(line, root.with_suffix(".txt"), Strike(moment, whole_tree=number % 3 == 2))
                if trace.status == 0:
                    raise Missed
                if subject is mlp:
                    fell.append(trace.place)
                else:
                    fell.append("study with its workers" if number % 3 == 2 else "study, its workers left alone")
                again = run_line(line, root.with_suffix(".again.txt"))  # a worker left alone may still be saving
                assert again.status == 0, root.with_suffix(".again.txt").read_text()[-500:]
                subject.compare(ring.home(subject), root)


@pytest.mark.parametrize(
    ("planted", "aim"),
    [
        ("saved_without_rename", "save"),
        ("lost_generator", "mid-epoch"),
        ("lost_optimizer", "mid-epoch"),
        ("lost_patience", "mid-epoch"),
    ],
)
def test_a_fault_in_the_product_makes_the_drill_fail(
    children: Children, tmp_path: Path, planted: str, aim: str
) -> None:
    ring = Ring(children, tmp_path, (planted,))
    draw = random.Random(7)
    subject = ring.subjects["MLP with dropout"]
    fell: list[str] = []

    def kill_until_it_fails() -> None:
        for _ in range(60):  # a lost patience shows only where an evaluation had brought nothing, one kill in six or so
            with contextlib.suppress(Missed):
                ring.strike_down(subject, draw, [aim], fell)

    with pytest.raises(AssertionError):
        kill_until_it_fails()
    assert fell, "the uninterrupted run must not fail for it"
