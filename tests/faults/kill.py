"""Striking from outside: processes that tell where they are by letters on a pipe, and signals at a chosen moment."""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from faults.phases import PHASES

TESTS = Path(__file__).resolve().parents[1]
PATIENCE = 180.0
"""Seconds after which a process that does not end is taken for hanging."""


@dataclass
class Trace:
    """What one process did: each change of its phase with the second it was seen, and how it ended.

    ``struck`` is the second at which it was sent a signal, ``ended`` that of its end.
    """

    letters: list[tuple[str, float]] = field(default_factory=list)
    status: int | None = None
    struck: float | None = None
    ended: float = 0.0

    @property
    def place(self) -> str:
        """Where it was at its end."""
        return self.place_at(float("inf"))

    def place_at(self, second: float) -> str:
        return PHASES[next((letter for letter, seen in reversed(self.letters) if seen <= second), "u")]

    def spans(self, letter: str) -> list[float]:
        """How long each stay in a phase took, in seconds."""
        return [b[1] - a[1] for a, b in zip(self.letters, self.letters[1:], strict=False) if a[0] == letter]


@dataclass(frozen=True)
class Moment:
    """``delay`` seconds after the ``count``-th entry into the phase ``letter``, with count 0 after the start."""

    letter: str
    count: int
    delay: float

    @classmethod
    def drawn(cls, draw: random.Random, letter: str, whole: Trace) -> Moment:
        """One within the phase ``letter``, at random, of a run like ``whole``."""
        if letter == "u":
            return cls("u", 0, draw.uniform(0, whole.letters[0][1]))
        spans = whole.spans(letter)
        count = draw.randrange(len(spans)) + 1
        return cls(letter, count, draw.uniform(0, spans[count - 1]))


@dataclass(frozen=True)
class Strike:
    """A signal to be sent at a moment, to the process or, as when a machine dies, to all that it started as well."""

    moment: Moment
    number: int = signal.SIGKILL
    whole_tree: bool = False

    def send(self, pid: int) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            for one in [process, *(process.children(recursive=True) if self.whole_tree else [])]:
                with contextlib.suppress(psutil.NoSuchProcess):  # ended meanwhile
                    one.send_signal(self.number)


@contextlib.contextmanager
def named_pipe() -> Iterator[tuple[str, int]]:
    """The path of a pipe to write letters to, and the end to read them from."""
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        path = os.path.join(folder, "letters")
        os.mkfifo(path)
        end = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            yield path, end
        finally:
            os.close(end)


def follow(pid: int, pipe: int, over: int, strike: Strike | None) -> Trace:
    """Note the letters of ``pid`` and strike at the moment asked for, until ``over`` becomes readable."""
    trace, begun = Trace(), time.monotonic()
    due = begun + strike.moment.delay if strike is not None and strike.moment.count == 0 else None
    count, watched = 0, [pipe, over]
    while True:
        now = time.monotonic()
        assert now - begun < PATIENCE, f"process {pid} hangs in {trace.place}"
        if strike is not None and due is not None and now >= due and trace.struck is None:
            trace.struck = now - begun
            strike.send(pid)
        waiting = due - now if due is not None and trace.struck is None else 1.0
        ready = select.select(watched, [], [], max(0.0, waiting))[0]
        seen = time.monotonic()
        if pipe in ready:
            letters = os.read(pipe, 1 << 16).decode()
            trace.letters += [(letter, seen - begun) for letter in letters]
            if not letters:
                watched.remove(pipe)  # closed: it is about to end
            if strike is not None and due is None:
                count += letters.count(strike.moment.letter)
                if count >= strike.moment.count:
                    due = seen + strike.moment.delay
        elif over in ready:
            trace.ended = seen - begun
            return trace


class Children:
    """The process that forks (`faults.child`); one job at a time."""

    def __init__(self, home: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "faults.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,  # what is in a buffer cannot be waited for
            env=environment() | {"HOME": str(home), "XDG_CACHE_HOME": str(home), "MPLCONFIGDIR": str(home)},
        )

    def run(self, job: dict[str, Any], strike: Strike | None = None) -> Trace:
        """Do ``job`` in a fork, to its end or until it is struck down."""
        with named_pipe() as (path, pipe):
            shims = [*job.get("shims", ()), ["faults.phases:mark", path]]
            self.process.stdin.write(json.dumps({**job, "shims": shims}).encode() + b"\n")
            answers = self.process.stdout
            trace = follow(int(answers.readline()), pipe, answers.fileno(), strike)
            trace.status = int(answers.readline())
        return trace

    def close(self) -> None:
        self.process.communicate(timeout=PATIENCE)


SHIM = (
    f"import os, sys; sys.path.insert(0, {str(TESTS)!r}); from faults import phases; phases.mark(os.environ['LETTERS'])"
)


def run_line(line: Sequence[str], out: Path, strike: Strike | None = None) -> Trace:
    """Run a command line as a process of its own, from the start of its interpreter on."""
    with named_pipe() as (path, pipe), open(out, "ab") as output:
        shim = Path(path).with_name("shim.py")
        shim.write_text(SHIM)
        process = subprocess.Popen(
            [*line, "--import", str(shim)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**environment(), "LETTERS": path},
        )
        over = os.pidfd_open(process.pid)
        try:
            trace = follow(process.pid, pipe, over, strike)
        finally:
            os.close(over)
            status = process.wait(PATIENCE)
        trace.status = status
    return trace


def environment() -> dict[str, str]:
    """This process's environment, in which modules are found as they are here."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *filter(None, sys.path)])}
