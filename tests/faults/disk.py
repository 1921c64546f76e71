"""The n-th change of the disk goes wrong: the process dies there, the power fails, or the disk says no.

A shim (`faults.child`): it wraps what changes files below one folder, in the process that is struck. A write
that is struck leaves half of its bytes.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

KINDS = {"w": "write", "s": "fsync", "r": "rename", "d": "removal", "m": "mkdir"}
"""Changes by the letter that the log has of each."""


def fail(root: str, log: str, fault: str, number: int) -> None:
    """Strike the ``number``-th change below ``root`` (from 0; -1: none) and log each with its letter.

    ``fault`` is "crash" (the process is gone), "power" (so is all that was not synced), "EIO" (that change
    fails) or "ENOSPC" (from there on every write and every new folder fails).
    """
    _Disk(Path(root), log, fault, number).install()


class _Disk:
    def __init__(self, root: Path, log: str, fault: str, number: int) -> None:
        self.root, self.fault, self.number = root.resolve(), fault, number
        self.done = 0
        self.log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        self.synced: dict[str, int] = {}
        """Bytes of a written file that are safe from a power cut."""
        self.new: set[str] = set()
        """Files whose folder was not synced since they were made."""

    def install(self) -> None:
        opened, os_fsync = io.open, os.fsync

        def open_(path: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            if not (set(mode) & set("wa") and "b" in mode and isinstance(path, str | os.PathLike) and self.here(path)):
                return opened(path, mode, *args, **kwargs)
            name = os.path.abspath(os.fspath(path))
            if not os.path.exists(name):
                self.new.add(name)
            self.synced[name] = os.path.getsize(name) if "a" in mode and name not in self.new else 0
            return _Writer(self, name, mode.replace("b", ""))

        def fsync(handle: int) -> None:
            name = os.readlink(f"/proc/self/fd/{handle}")
            if self.here(name):
                self.change("s", name)
            os_fsync(handle)
            if os.path.isdir(name):
                self.new = {path for path in self.new if os.path.dirname(path) != name}
            elif name in self.synced:
                self.synced[name] = os.path.getsize(name)

        builtins.open = io.open = open_
        os.fsync = fsync
        for name, letter in (("rename", "r"), ("replace", "r"), ("unlink", "d"), ("rmdir", "d"), ("mkdir", "m")):
            setattr(os, name, self.wrapped(getattr(os, name), letter))

    def wrapped(self, original: Callable[..., None], letter: str) -> Callable[..., None]:
        def change(path: Any, *args: Any, **kwargs: Any) -> None:
            folder = kwargs.get("dir_fd")
            name = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), path) if folder is not None else os.fspath(path)
            if not self.here(name):
                return original(path, *args, **kwargs)
            self.change(letter, name)
            original(path, *args, **kwargs)
            if letter == "r":
                self.moved(os.path.abspath(name), os.path.abspath(args[0]))
            return None

        return change

    def here(self, path: Any) -> bool:
        return Path(os.path.abspath(path)).is_relative_to(self.root)

    def moved(self, old: str, new: str) -> None:
        def renamed(path: str) -> str:
            return new + path[len(old) :] if path == old or path.startswith(old + os.sep) else path

        self.synced = {renamed(path): size for path, size in self.synced.items()}
        self.new = {renamed(path) for path in self.new}

    def change(self, letter: str, name: str, before: Callable[[], object] = lambda: None) -> None:
        """Note one change; if it is the one to be struck, do ``before`` and strike."""
        os.write(self.log, letter.encode())
        self.done += 1
        number = self.done - 1
        full = self.fault == "ENOSPC" and 0 <= self.number < number and letter in "wm"
        if number != self.number and not full:
            return
        before()
        if self.fault == "power":
            self.cut_power()
        if self.fault in ("crash", "power"):
            os._exit(137)
        code = getattr(errno, self.fault)
        raise OSError(code, os.strerror(code), name)

    def cut_power(self) -> None:
        for path, size in self.synced.items():
            if os.path.exists(path):
                os.truncate(path, size)
        for path in self.new:
            if os.path.exists(path):
                os.remove(path)


class _Writer(io.FileIO):
    """A file without a buffer, so that every write is one."""

    def __init__(self, disk: _Disk, path: str, mode: str) -> None:
        super().__init__(path, mode)
        self.disk, self.path = disk, path

    def write(self, data: Any) -> int:
        half = bytes(data)[: len(data) // 2]
        self.disk.change("w", self.path, lambda: super(_Writer, self).write(half))
        return super().write(data)
