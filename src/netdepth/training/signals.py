"""Signals while a run or a command is in progress; outside the main thread they are left alone."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from types import FrameType

from netdepth.errors import Interrupted

__all__ = [
    "Terminated", "ignore_signals", "signals_as_errors", "signals_as_interrupts", "signals_held", "signals_ignored",
]  # fmt: skip

Handler = Callable[[int, FrameType | None], object] | signal.Handlers


class Terminated(KeyboardInterrupt):
    """SIGTERM outside a run. As with Ctrl-C, no handler of ordinary errors stops it on its way."""


@contextlib.contextmanager
def signals_as_interrupts() -> Iterator[None]:
    """Turn SIGTERM into `Terminated` and SIGINT into KeyboardInterrupt: for a command before and after its runs.

    While a module is being imported the process ends at once instead. There is nothing to save then, and a compiled
    module that meets an exception in its initialisation (torch's) aborts the process.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        if _importing(frame):
            os.write(2, b"netdepth: error: interrupted\n")
            os._exit(128 + number)
        raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

    with _handled({signal.SIGINT: stop, signal.SIGTERM: stop}):
        yield


def _importing(frame: FrameType | None) -> bool:
    """Whether ``frame`` lies within an import."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


@contextlib.contextmanager
def signals_as_errors() -> Iterator[None]:
    """Turn SIGTERM into `Interrupted` and SIGINT into KeyboardInterrupt, within imports too: there is work to save."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Interrupted("interrupted", number)

    with _handled({signal.SIGINT: signal.default_int_handler, signal.SIGTERM: stop}):
        yield


@contextlib.contextmanager
def signals_ignored() -> Iterator[None]:
    """Ignore further signals while saving."""
    with _handled({signal.SIGINT: signal.SIG_IGN, signal.SIGTERM: signal.SIG_IGN}):
        yield


def ignore_signals() -> None:
    """Ignore further signals until the surrounding `signals_as_errors` ends: none may cut short a run's last save, nor
    replace what is said of it."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Let SIGINT and SIGTERM wait until the code inside has run to its end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _handled(handlers: Mapping[int, Handler]) -> Iterator[None]:
    """Handle signals so in the main thread; SIGINT stays ignored where it is (a shell's background job)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    own = {n: call for n, call in handlers.items() if n == signal.SIGTERM or signal.getsignal(n) != signal.SIG_IGN}
    before = {number: signal.signal(number, call) for number, call in own.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
