"""Where a process is, told to the drill that is about to kill it: a letter on a pipe at every change.

Shims (`faults.child`): they wrap functions in the process that is killed, and nothing in the product knows of it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

PHASES = {
    "u": "start-up",
    "m": "mid-epoch",
    "e": "evaluation",
    "s": "save",
    "r": "result",
    "t": "table",
    "p": "report",
    "b": "between",
}
LETTERS = {name: letter for letter, name in PHASES.items()}
"""Phases by their letters, and letters by their phases. "Start-up" is all before the first step; "between" is what
follows it and is none of the others."""


LINGER_SECONDS = 1.0
lingers: dict[str, int] = {}
"""The phase, by its letter, whose n-th stay lasts longer in this process."""


def linger(letter: str, count: int) -> None:
    """Stay a second longer in the phase ``letter`` when it was entered ``count`` times.

    For the kill that is to fall into it: on a busy machine it comes later than asked, when a short phase is over.
    """
    lingers[letter] = count


def mark(path: str) -> None:
    """Write the letters of this process's phases to the pipe at ``path``, from now on."""
    from netdepth.report import learning_curves as plots
    from netdepth.report import page as study_page
    from netdepth.runs.folder import RunDir
    from netdepth.training import fit, loop, replica

    pipe = os.open(path, os.O_WRONLY)
    now, told = ["u"], Counter[str]()

    def tell(letter: str) -> None:
        told[letter] += 1
        with contextlib.suppress(BrokenPipeError):  # a worker outlives the study that is struck, and who watched it
            os.write(pipe, letter.encode())

    @contextlib.contextmanager
    def phase(letter: str) -> Iterator[None]:
        now.append(letter)
        tell(letter)
        try:
            yield
            if letter in lingers and told[letter] >= lingers[letter]:
                del lingers[letter]
                time.sleep(LINGER_SECONDS)
        finally:
            now.pop()
            tell(now[-1])

    def wrap(owner: Any, name: str, letter: str) -> None:
        original: Callable[..., Any] = getattr(owner, name)

        @functools.wraps(original)
        def inside(*args: Any, **kwargs: Any) -> Any:
            with phase(letter):
                return original(*args, **kwargs)

        setattr(owner, name, inside)

    def training(*args: Any, original: Callable[..., Iterator[Any]] = loop.fit) -> Iterator[Any]:
        events = original(*args)
        while True:
            with phase("m"):
                event = next(events, None)
            if event is None:
                return
            now[0] = "b"
            yield event

    loop.fit = training
    wrap(fit, "_records", "e")
    wrap(RunDir, "append_metrics", "e")
    wrap(loop, "_save", "s")
    wrap(replica, "finish", "r")
    wrap(study_page, "write_verdict", "t")
    plots.learning_curves = lambda run: run.path / "not-drawn.png"  # two seconds each; studies draw theirs
    wrap(study_page, "write_report", "p")


def eager() -> None:
    """Put every evaluation on disk, which the product does when ten seconds have passed: drills last less."""
    from netdepth.training import loop

    loop.WRITE_EVERY_SECONDS = 0.0
