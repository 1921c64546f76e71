"""Start, await and end the trackers of a run; rebuild the mirrors of finished folders."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from netdepth.errors import BadInput, Locked, NetdepthError, RunFailed, StorageError
from netdepth.runs.folder import RunDir
from netdepth.trackers.base import TRACKERS, mirror_folder

__all__ = ["TOKEN", "Fault", "Labels", "Mirrors", "Target", "can_go_online", "end_family", "family", "rebuild", "sync"]

Labels = Mapping[str, str | int]
"""What the study of a run calls it: ``study``, ``condition`` and ``depth``, which join the config of a tracker."""

TOKEN = "NETDEPTH_TRACKER_FAMILY"
"""Environment variable with a value of its own per run: children inherit it wherever they move."""


@dataclass(frozen=True)
class Target:
    """A run to be mirrored."""

    run: RunDir
    labels: Labels


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
    """Why the mirror of ``run`` is not complete; ``status`` is the exit status of its follower, if it has one."""

    tracker: str
    run: Path
    what: str
    status: int | None = None

    @property
    def error(self) -> NetdepthError:
        kinds = {BadInput.exit_code: BadInput, StorageError.exit_code: StorageError, Locked.exit_code: Locked}
        return kinds.get(self.status or 1, RunFailed)(f"tracker {self.tracker}: {self.what}")


class Mirrors:
    """The trackers of one run, each a process of its own that follows the run folder."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self._token = uuid.uuid4().hex
        self._children: list[Child] = []
        self._not_started: list[Fault] = []

    @classmethod
    def start(
        cls, run_dir: Path, trackers: Sequence[str], *, wandb_online: bool = False, imports: Sequence[str] = ()
    ) -> Mirrors:
        """Start a follower per tracker and return at once; a failure to start is a note of `finish`.

        Raises:
            BadInput: a tracker that is not registered; then none is started.
        """
        for name in trackers:
            TRACKERS.entry(name)
            mirror_folder(run_dir, name)
        mirrors, targets = cls(run_dir), [Target(RunDir(run_dir), {})]
        for name in dict.fromkeys(trackers):
            mirrors._start(name, targets, wandb_online=wandb_online, imports=imports, once=False)
        return mirrors

    def _start(
        self, name: str, targets: Sequence[Target], *, wandb_online: bool, imports: Sequence[str], once: bool
    ) -> None:
        """Start the process that mirrors ``targets``; with ``once`` they are over, and it takes what is there."""
        task = {
            "tracker": name,
            "options": {"online": True} if wandb_online and can_go_online(name) else {},
            "imports": list(imports),
            "once": once,
            "runs": [str(target.run.path) for target in targets],
            "labels": [target.labels for target in targets],
        }
        command = [sys.executable, "-P", "-m", "netdepth.trackers.follow", json.dumps(task)]
        # The child sees the modules this process sees, and a stray file in the working folder cannot shadow them.
        paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
        quiet = {"PYTHONPATH": paths, "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1", TOKEN: self._token}
        log = self.run_dir / f"tracker-{name}.log"
        try:
            with open(log, "wb") as errors:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    env={**os.environ, **quiet},
                    start_new_session=True,
                )
        except OSError as error:
            self._not_started.append(Fault(name, self.run_dir, f"could not start ({error.strerror or error})"))
        else:
            self._children.append(Child(name, process, log))

    def finish(self, deadline: float) -> list[str]:
        """Wait until every mirror is complete or ``deadline`` (of `time.monotonic`), then end what is left.

        Call it once the run has written ``result.json``, or will not. Returns one line per mirror
        that is not complete. Takes half a second past the deadline at most.
        """
        for child in self._children:
            child.no_more()
        allowed = max(0.0, deadline - time.monotonic())
        try:
            for child in self._children:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.process.wait(max(0.0, deadline - time.monotonic()))
            left = [child for child in self._children if child.process.returncode != 0]
            faults = [*self._not_started, *(_fault(child, self.run_dir, allowed) for child in left)]
        finally:
            self._end()
        rebuild = f"rebuild it with: netdepth sync {shlex.quote(str(self.run_dir))} --to"
        return [f"tracker {fault.tracker}: {fault.what}; {rebuild} {fault.tracker}" for fault in faults]

    def wait_for_all(
        self, targets: Sequence[Target], patience: float, stopped: Callable[[], bool], done: Callable[[], None]
    ) -> tuple[int, Fault | None]:
        """Wait for the one follower of `rebuild`; returns how many runs it mirrored, and why it did not go on.

        It may take any time as long as one more run is done every ``patience`` seconds; ``done`` is called for each.
        """
        if self._not_started:
            return 0, self._not_started[0]
        (child,) = self._children
        count, until = 0, time.monotonic() + patience
        try:
            ended = False
            while not ended and time.monotonic() < until and not stopped():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.process.wait(min(POLL_SECONDS, max(0.0, until - time.monotonic())))
                ended = child.process.returncode is not None
                for _ in range(_lines(child.log)[0] - count):
                    count, until = count + 1, time.monotonic() + patience
                    done()
            if count == len(targets) or stopped():
                return count, None
            return count, _fault(child, targets[count].run.path, patience)
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
                if child.process.returncode == 0 or not _lines(child.log)[1]:
                    child.log.unlink()
        self._children = []


def can_go_online(tracker: str) -> bool:
    """Whether the tracker has a setting ``online``, which is off unless the user asks for uploads."""
    return any(setting.name == "online" for setting in TRACKERS.entry(tracker).fields)


def _lines(log: Path) -> tuple[int, list[str]]:
    """How many runs a follower has mirrored, and the other lines of its log."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    other = [line for line in lines if line.strip() and not re.fullmatch(r"\[\d+\] done", line)]
    return sum(re.fullmatch(r"\[\d+\] done", line) is not None for line in lines), other


def _fault(child: Child, run: Path, allowed: float) -> Fault:
    """Of a follower that was not complete after ``allowed`` seconds: its words, its last line or its status."""
    status = child.process.returncode
    if status is None:
        after = f"after {allowed:.2g} s, " if allowed >= 0.005 else ""
        return Fault(child.tracker, run, f"stopped {after}before the mirror was complete")
    _, lines = _lines(child.log)
    own = [found[1] for line in lines if (found := re.fullmatch(r"\[\d+\] error: (.*)", line))]
    full = "disk full or I/O error" if status == StorageError.exit_code else f"ended with status {status}"
    return Fault(child.tracker, run, [full, *lines[-1:], *own][-1], status)


POLL_SECONDS = 0.1
AT_ONCE = 100
"""Runs per process of `rebuild`: its task is one argument, which may have 128 KiB."""
FAILURES = 2
"""Runs in a row that may fail before the others are not tried."""


def rebuild(
    targets: Iterable[Target],
    to: str,
    *,
    wandb_online: bool = False,
    imports: Sequence[str] = (),
    patience: float = 60.0,
    lock: bool = True,
    stopped: Callable[[], bool] = lambda: False,
    done: Callable[[], None] = lambda: None,
) -> list[Fault]:
    """Make the mirrors ``to`` of finished runs from their folders alone, many in one process; returns what failed.

    Args:
        targets: the runs, each with what its study calls it.
        to: the name of the tracker.
        wandb_online, imports: as in a `Runtime`.
        patience: seconds that one run may take.
        lock: hold each run meanwhile; not for a study, which holds all of its runs.
        stopped: asked ten times a second; once it is true, what is left is neither mirrored nor a fault.
        done: called for each run that is mirrored.

    Raises:
        BadInput: an unknown tracker.
    """
    TRACKERS.entry(to)
    faults: list[Fault] = []
    left, in_a_row = list(targets), 0
    while left and in_a_row < FAILURES and not stopped():
        with contextlib.ExitStack() as held:
            ready: list[Target] = []
            for target in left[:AT_ONCE]:
                path = target.run.path
                try:
                    if not (path / "config.json").is_file():
                        raise BadInput(f"{path} has no config.json; is it a run folder?")
                    if lock:
                        held.enter_context(target.run.lock())
                except NetdepthError as error:
                    faults.append(Fault(to, path, str(error), error.exit_code))
                else:
                    ready.append(target)
            left = [*ready, *left[AT_ONCE:]]
            if not ready:
                continue
            mirrors = Mirrors(ready[0].run.path)
            mirrors._start(to, ready, wandb_online=wandb_online, imports=imports, once=True)
            count, fault = mirrors.wait_for_all(ready, patience, stopped, done)
        left = left[count:]
        if fault is not None:
            faults.append(fault)
            left = left[1:]
            in_a_row = 1 if count else in_a_row + 1
    if left and not stopped():
        what = f"not tried, because {in_a_row} in a row had failed"
        faults += [Fault(to, target.run.path, what) for target in left]
    return faults


def sync(
    run: RunDir,
    to: str,
    *,
    labels: Labels | None = None,
    wandb_online: bool = False,
    imports: Sequence[str] = (),
    timeout: float = 60.0,
) -> Path:
    """Rebuild the mirror ``to`` from the run folder alone and return its folder: the run's, if it has none of its own.

    Raises:
        BadInput: an unknown tracker, or no run folder.
        Locked: the run is being trained; its tracker is at work.
        RunFailed, StorageError: the tracker failed, or took more than ``timeout`` seconds.
    """
    for fault in rebuild([Target(run, labels or {})], to, wandb_online=wandb_online, imports=imports, patience=timeout):
        raise fault.error
    return mirror_of(run.path, to)


def mirror_of(run_dir: Path, name: str) -> Path:
    """Where the finished mirror ``name`` lies."""
    folder = mirror_folder(run_dir, name)
    return folder if folder.is_dir() else run_dir


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
