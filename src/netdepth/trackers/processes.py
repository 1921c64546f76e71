"""Find and end every process of a tracker, also those that left its group (wandb-core does)."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

__all__ = ["TOKEN", "end_family", "family"]

TOKEN = "NETDEPTH_TRACKER_FAMILY"
"""Environment variable with a value of its own per run: children inherit it wherever they move."""


def family(token: str, roots: list[int]) -> list[int]:
    """Living processes that carry ``token``; where there is no ``/proc``, the descendants of ``roots``.

    The caller itself is never in the list.
    """
    if Path("/proc/self/environ").exists():
        return [pid for pid in _pids() if pid != os.getpid() and _carries(pid, f"{TOKEN}={token}".encode())]
    table = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,stat="], capture_output=True, text=True, check=False).stdout
    rows = [line.split()[:3] for line in table.splitlines()]
    parents = {int(pid): int(parent) for pid, parent, state in rows if not state.startswith("Z")}
    found = set(roots)
    for _ in parents:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        if not more:
            break
        found |= more
    return sorted((found & set(parents)) - {os.getpid()})


def _pids() -> list[int]:
    return [int(entry.name) for entry in os.scandir("/proc") if entry.name.isdecimal()]


def _carries(pid: int, mark: bytes) -> bool:
    try:
        # A zombie's environment reads as empty, so it does not count as living.
        return mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # gone meanwhile, or another user's
        return False


def end_family(token: str, roots: list[int], within: float = 0.4) -> list[int]:
    """SIGKILL the family until none is left, for ``within`` seconds at most; returns what is left.

    SIGKILL because it is the one signal that also ends a stopped process.
    """
    until = time.monotonic() + within
    members = family(token, roots)
    while members and time.monotonic() < until:
        for pid in members:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
        members = family(token, roots)
    return members
