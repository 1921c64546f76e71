"""File systems of a few megabytes, and folders that nobody can write to, where the tests may mount them (as root)."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from conftest import lacking


def mount(*options: str) -> None:
    """Run ``mount``; skip the test where that is not allowed, or fail it if NETDEPTH_REQUIRE names ``mount``."""
    if shutil.which("mount") is None or subprocess.run(["mount", *options], capture_output=True).returncode != 0:
        lacking("mount", "no right to mount a file system (root)")


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A new ``folder`` with room for ``size``, such as ``"2m"``."""
    folder.mkdir()
    mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """``folder`` is one that even root cannot write to: a bind mount of itself."""
    mount("--bind", str(folder), str(folder))
    try:
        mount("-o", "remount,ro,bind", str(folder))
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
