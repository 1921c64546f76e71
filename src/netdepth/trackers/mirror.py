"""Start, await and end the trackers of a run; rebuild a mirror from a finished folder."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from netdepth.errors import BadInput, RunFailed, StorageError
from netdepth.runs.folder import RunDir
from netdepth.trackers.base import TRACKERS, mirror_folder

__all__ = ["TOKEN", "Mirrors", "end_family", "family", "sync"]

TOKEN = "NETDEPTH_TRACKER_FAMILY"
"""Environment variable with a value of its own per run: children inherit it wherever they move."""


@dataclass(frozen=True)
class Child:
    """A running follower; its errors go to ``log``."""

    tracker: str
    process: subprocess.Popen[bytes]
    log: Path


class Mirrors:
    """The trackers of one run, each a process of its own that follows the run folder."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self._token = uuid.uuid4().hex
        self._children: list[Child] = []
        self._notes: list[str] = []

    @classmethod
    def start(
        cls,
        run_dir: Path,
        trackers: Sequence[str],
        *,
        wandb_online: bool = False,
        imports: Sequence[str] = (),
        once: bool = False,
    ) -> Mirrors:
        """Start a follower per tracker and return at once; a failure to start is a note of `finish`.

        Raises:
            BadInput: a tracker that is not registered; then none is started.
        """
        for name in trackers:
            TRACKERS.entry(name)
            mirror_folder(run_dir, name)
        mirrors = cls(run_dir)
        for name in dict.fromkeys(trackers):
            options = {"online": True} if name == "wandb" and wandb_online else {}
            task = {"tracker": name, "options": options, "imports": list(imports), "once": once}
            command = [sys.executable, "-P", "-m", "netdepth.trackers.follow", str(run_dir), json.dumps(task)]
            try:
                mirrors._children.append(mirrors._spawn(name, command))
            except OSError as error:
                mirrors._notes.append(mirrors._note(name, f"could not start ({error.strerror or error})"))
        return mirrors

    def _spawn(self, name: str, command: list[str]) -> Child:
        # The child sees the modules this process sees, and a stray file in the working folder cannot shadow them.
        paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
        quiet = {"PYTHONPATH": paths, "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1", TOKEN: self._token}
        log = self.run_dir / f"tracker-{name}.log"
        with contextlib.ExitStack() as stack:
            errors: IO[bytes] | int
            try:
                errors = stack.enter_context(open(log, "wb"))
            except OSError:
                errors = subprocess.DEVNULL
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env={**os.environ, **quiet},
                start_new_session=True,
            )
        return Child(name, process, log)

    def _note(self, tracker: str, what: str) -> str:
        run = shlex.quote(str(self.run_dir))
        return f"tracker {tracker}: {what}; rebuild it with: netdepth sync {run} --to {tracker}"

    def finish(self, deadline: float) -> list[str]:
        """Wait until every mirror is complete or ``deadline`` (of `time.monotonic`), then end what is left.

        Call it once the run has written ``result.json``, or will not. Returns one line per mirror
        that is not complete. Takes half a second past the deadline at most.
        """
        allowed = max(0.0, deadline - time.monotonic())
        try:
            for child in self._children:
                if child.process.stdin is not None:
                    child.process.stdin.close()  # tells the follower that no more will come
            self._await(deadline)
            for child in self._children:
                status = child.process.returncode
                if status is None:
                    self._notes.append(self._note(child.tracker, _too_slow(allowed)))
                elif status != 0:
                    self._notes.append(self._note(child.tracker, _complaint(child)))
        finally:
            self._end()
        return self._notes

    def _await(self, deadline: float) -> None:
        for child in self._children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.process.wait(max(0.0, deadline - time.monotonic()))

    def _end(self) -> None:
        """Leave no process running: neither a follower nor one that it started, in whatever session."""
        left = end_family(self._token)
        for child in self._children:
            if child.process.stdin is not None:
                child.process.stdin.close()
            child.process.kill()  # a new process may not carry the token yet
            with contextlib.suppress(subprocess.TimeoutExpired):  # uninterruptible, on a dead disk
                child.process.wait(0.1 if child.process.pid in left else 1.0)
            with contextlib.suppress(OSError):  # a log is kept only where it tells of a fault
                if child.process.returncode == 0 or child.log.stat().st_size == 0:
                    child.log.unlink()
        self._children = []

    def rebuild(self, timeout: float) -> None:
        """Wait for the one follower that was started with ``once``.

        Raises:
            BadInput, RunFailed, StorageError: it failed or took too long, in one line.
        """
        try:
            self._await(time.monotonic() + timeout)
            if not self._children:
                raise RunFailed(self._notes[0])
            (child,) = self._children
            status = child.process.returncode
            if status is None:
                raise RunFailed(f"tracker {child.tracker}: {_too_slow(timeout)}")
            if status != 0:
                kinds = {BadInput.exit_code: BadInput, StorageError.exit_code: StorageError}
                raise kinds.get(status, RunFailed)(f"tracker {child.tracker}: {_complaint(child)}")
        finally:
            self._end()


def _too_slow(seconds: float) -> str:
    return f"stopped {f'after {seconds:.3g} s, ' if seconds >= 0.01 else ''}before the mirror was complete"


def _complaint(child: Child) -> str:
    """The last line that the follower left in its log, else its exit status."""
    try:
        lines = child.log.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    faults = [line for line in lines if line.startswith("error: ")] or [line for line in lines if line.strip()]
    if faults:
        return faults[-1].removeprefix("error: ")
    status = child.process.returncode
    return "disk full or I/O error" if status == StorageError.exit_code else f"ended with status {status}"


def sync(
    run: RunDir, to: str, *, wandb_online: bool = False, imports: Sequence[str] = (), timeout: float = 60.0
) -> Path:
    """Rebuild the mirror ``to`` from the run folder alone and return its folder.

    Raises:
        BadInput: an unknown tracker, or no run folder.
        Locked: the run is being trained; its tracker is at work.
        RunFailed, StorageError: the tracker failed, or took more than ``timeout`` seconds.
    """
    TRACKERS.entry(to)
    if not (run.path / "config.json").is_file():
        raise BadInput(f"{run.path} has no config.json; is it a run folder?")
    with run.lock():
        Mirrors.start(run.path, [to], wandb_online=wandb_online, imports=imports, once=True).rebuild(timeout)
    return mirror_folder(run.path, to)


def family(token: str) -> list[int]:
    """The living processes that carry ``token`` in their environment, but for the caller."""
    import psutil

    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):  # gone meanwhile, or another user's
            living = process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE
            if living and process.environ().get(TOKEN) == token:
                found.append(process.pid)
    return found


def end_family(token: str, within: float = 0.4) -> list[int]:
    """End every process of the family, also those that left its group (wandb-core does); returns what is left.

    It takes ``within`` seconds at most. SIGKILL is the one signal that also ends a stopped process.
    """
    until = time.monotonic() + within
    members = family(token)
    while members and time.monotonic() < until:
        for pid in members:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
        members = family(token)
    return members
