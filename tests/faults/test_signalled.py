"""SIGTERM and SIGINT at random moments: all is saved, the exit code says so, the same command goes on."""

from __future__ import annotations

import itertools
import os
import random
import signal
import statistics
from pathlib import Path

import pytest

from faults.kill import Children, Moment, Strike, Trace, run_line
from faults.phases import LETTERS
from faults.record import Faults, Missed
from faults.subjects import Subject, subjects

pytestmark = pytest.mark.faults

SIGNALS = (signal.SIGTERM, signal.SIGINT)
TURNS = ("MLP with dropout", "CNN with batch norm", "study")
ORDINARY = ("mid-epoch", "evaluation", "between", "mid-epoch", "start-up", "save", "result", "mid-epoch")


def test_sigterm_and_sigint_at_random_moments(children: Children, faults: Faults, tmp_path: Path) -> None:
    draw = random.Random(14)
    all_subjects = subjects(tmp_path / "subjects")
    whole: dict[str, Trace] = {}
    seconds: list[float] = []
    with faults.drill(14, "SIGTERM or SIGINT at a random moment", quick=8, long=100) as drill:
        turns, aims = itertools.cycle(TURNS), itertools.cycle(ORDINARY)
        for number in itertools.count():
            if drill.injected >= drill.count:
                break
            name, aim, sent = next(turns), next(aims), SIGNALS[number % 2]
            subject = all_subjects[name]
            if name not in whole:
                whole[name] = children.run(subject.job(tmp_path / name, tmp_path / f"{name}.txt", []))
            root = tmp_path / str(number)
            strike = Strike(Moment.drawn(draw, LETTERS[aim], whole[name]), sent)
            with drill.injection(f"{name}, {sent.name} in {aim}") as fell:
                trace = children.run(subject.job(root, root.with_suffix(".txt"), []), strike)
                if trace.struck is None:
                    raise Missed
                fell.append(trace.place_at(trace.struck))
                seconds.append(trace.ended - trace.struck)
                check_left(subject, root, trace, sent)
                subject.complete(children, tmp_path / name, root)
        drill.measured |= measured(seconds)


def test_signals_to_a_command_of_its_own(children: Children, faults: Faults, tmp_path: Path) -> None:
    """From the start of its interpreter on; and to a study whose workers are processes."""
    draw = random.Random(15)
    all_subjects = subjects(tmp_path / "subjects")
    mlp, study = all_subjects["MLP with dropout"], all_subjects["study"]
    with faults.drill(14, "SIGTERM or SIGINT to a command and its workers", quick=3, long=30) as drill:
        begun = run_line(mlp.line(tmp_path / "whole"), tmp_path / "whole.txt")
        assert begun.status == 0, (tmp_path / "whole.txt").read_text()
        children.run(study.job(tmp_path / "study", tmp_path / "study.txt", []))
        seconds = []
        for number in itertools.count():
            if drill.injected >= drill.count:
                break
            sent, root = SIGNALS[number % 2], tmp_path / str(number)
            with_workers = number % 3 == 2
            subject, whole = (study, tmp_path / "study") if with_workers else (mlp, tmp_path / "whole")
            line = subject.line(root, workers=2)
            moment = Moment("u", 0, draw.uniform(0.1, begun.ended * (1.5 if with_workers else 0.9)))
            with drill.injection(f"{subject.name}, {sent.name}") as fell:
                trace = run_line(line, root.with_suffix(".txt"), Strike(moment, sent))
                if trace.struck is None:
                    raise Missed
                fell.append("study with workers" if with_workers else trace.place_at(trace.struck))
                seconds.append(trace.ended - trace.struck)
                check_left(subject, root, trace, sent, fresh=not trace.letters)
                subject.complete(children, whole, root)
        drill.measured |= measured(seconds)


def measured(seconds: list[float]) -> dict[str, float]:
    """Figures for the table; on a machine that does other things they say little, so its load stands beside them."""
    return {
        "load_of_the_machine": round(os.getloadavg()[0], 1),
        "median_seconds_to_the_exit": round(statistics.median(seconds), 2),
        "most_seconds_to_the_exit": round(max(seconds), 2),
    }


def check_left(subject: Subject, root: Path, trace: Trace, sent: signal.Signals, fresh: bool = False) -> None:
    """The exit code is the signal's, one line says so, and every evaluation is on disk.

    A ``fresh`` interpreter has no handler yet: the system ends it, and a shell gives the same code. So it is
    with one whose work is done.
    """
    said = root.with_suffix(".txt").read_text() if root.with_suffix(".txt").exists() else ""
    finished = all(run.result() is not None for run in subject.folders(root)) and subject.folders(root)
    if trace.status == 0:
        assert finished, said
        return
    if trace.status == -sent:
        assert fresh or finished, f"ended by the system: {said[-500:]}"
        return
    assert trace.status == 128 + sent, f"exit {trace.status}: {said[-800:]}"
    assert "Traceback" not in said, said[-800:]
    assert said.count("interrupted") == 1, said[-800:]
    for run in subject.folders(root):
        assert all(run.load_checkpoint(step) for step in run.checkpoints())
        known = [record["step"] for record in run.read_metrics()]
        if known and run.result() is None:
            assert run.checkpoints(), said[-500:]
            assert run.checkpoints()[-1] == known[-1]
