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

from netdepth.errors import BadInput, RunFailed, StorageError
from netdepth.runs.folder import RunDir
from netdepth.trackers.base import TRACKERS, mirror_folder

__all__ = ["TOKEN", "Mirrors", "can_go_online", "end_family", "family", "sync"]

TOKEN = "NETDEPTH_TRACKER_FAMILY"
"""Environment variable with a value of its own per run: children inherit it wherever they move."""


@dataclass(frozen=True)
class Child:
    """A running follower; its errors go to ``log``."""

    tracker: str
    process: subprocess.Popen[bytes]
    log: Path

    def no_more(self) -> None:
        """Tell the follower that no more records will come."""
        if self.process.stdin is not None:
            self.process.stdin.close()


@dataclass(frozen=True)
class Fault:
    """Why a mirror is not complete, in one line; ``status`` is the exit status of its follower, if it has one."""

    tracker: str
    what: str
    status: int | None = None


class Mirrors:
    """The trackers of one run, each a process of its own that follows the run folder."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self._token = uuid.uuid4().hex
        self._children: list[Child] = []
        self._not_started: list[Fault] = []

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
            options = {"online": True} if wandb_online and can_go_online(name) else {}
            task = {"tracker": name, "options": options, "imports": list(imports), "once": once}
            command = [sys.executable, "-P", "-m", "netdepth.trackers.follow", str(run_dir), json.dumps(task)]
            try:
                mirrors._children.append(mirrors._spawn(name, command))
            except OSError as error:
                mirrors._not_started.append(Fault(name, f"could not start ({error.strerror or error})"))
        return mirrors

    def _spawn(self, name: str, command: list[str]) -> Child:
        # The child sees the modules this process sees, and a stray file in the working folder cannot shadow them.
        paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
        quiet = {"PYTHONPATH": paths, "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1", TOKEN: self._token}
        log = self.run_dir / f"tracker-{name}.log"
        with open(log, "wb") as errors:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env={**os.environ, **quiet},
                start_new_session=True,
            )
        return Child(name, process, log)

    def finish(self, deadline: float) -> list[str]:
        """Wait until every mirror is complete or ``deadline`` (of `time.monotonic`), then end what is left.

        Call it once the run has written ``result.json``, or will not. Returns one line per mirror
        that is not complete. Takes half a second past the deadline at most.
        """
        for child in self._children:
            child.no_more()
        rebuild = f"rebuild it with: netdepth sync {shlex.quote(str(self.run_dir))} --to"
        return [
            f"tracker {fault.tracker}: {fault.what}; {rebuild} {fault.tracker}" for fault in self.wait_for(deadline)
        ]

    def wait_for(self, deadline: float) -> list[Fault]:
        """Wait as `finish` does, also for followers that were not told that no more records come."""
        allowed = max(0.0, deadline - time.monotonic())
        try:
            for child in self._children:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.process.wait(max(0.0, deadline - time.monotonic()))
            left = [child for child in self._children if child.process.returncode != 0]
            return [*self._not_started, *(_fault(child, allowed) for child in left)]
        finally:
            self._end()

    def _end(self) -> None:
        """Leave no process running: neither a follower nor one that it started, in whatever session."""
        left = end_family(self._token)
        for child in self._children:
            child.no_more()
            child.process.kill()  # a new process may not carry the token yet
            with contextlib.suppress(subprocess.TimeoutExpired):  # uninterruptible, on a dead disk
                child.process.wait(0.1 if child.process.pid in left else 1.0)
            with contextlib.suppress(OSError):  # a log is kept only where it tells of a fault
                if child.process.returncode == 0 or child.log.stat().st_size == 0:
                    child.log.unlink()
        self._children = []


def can_go_online(tracker: str) -> bool:
    """Whether the tracker has a setting ``online``, which is off unless the user asks for uploads."""
    return any(setting.name == "online" for setting in TRACKERS.entry(tracker).fields)


def _fault(child: Child, allowed: float) -> Fault:
    """Of a follower that was not complete after ``allowed`` seconds: the last line of its log, else its status."""
    status = child.process.returncode
    if status is None:
        after = f"after {allowed:.2g} s, " if allowed >= 0.005 else ""
        return Fault(child.tracker, f"stopped {after}before the mirror was complete")
    try:
        lines = child.log.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    faults = [line for line in lines if line.startswith("error: ")] or [line for line in lines if line.strip()]
    full = "disk full or I/O error" if status == StorageError.exit_code else f"ended with status {status}"
    return Fault(child.tracker, faults[-1].removeprefix("error: ") if faults else full, status)


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
        mirrors = Mirrors.start(run.path, [to], wandb_online=wandb_online, imports=imports, once=True)
        for fault in mirrors.wait_for(time.monotonic() + timeout):
            kinds = {BadInput.exit_code: BadInput, StorageError.exit_code: StorageError}
            raise kinds.get(fault.status or 1, RunFailed)(f"tracker {to}: {fault.what}")
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
