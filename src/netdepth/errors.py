"""What can go wrong, each with the exit code the command line answers with.

A message is one line that names the bad value, the good ones and, where there is one,
the nearest match. Nothing here imports anything of the package.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from pathlib import Path

__all__ = [
    "BadInput", "Interrupted", "Locked", "NetdepthError", "RankLost", "RunFailed", "StorageError", "choose",
    "choose_folder",
]  # fmt: skip


class NetdepthError(Exception):
    """Base of every error a user may see; ``exit_code`` is the process's exit status.

    ``path`` is the run folder it happened in, where there is one.
    """

    exit_code = 1
    path: Path | None = None


class RunFailed(NetdepthError):
    """A run could not finish (crash, lost worker); the other runs did. Exit 1."""


class BadInput(NetdepthError):
    """A value given by the user, or a file, is not acceptable. Exit 2."""

    exit_code = 2


class StorageError(NetdepthError):
    """Disk full, I/O error, unwritable folder. Exit 74 (EX_IOERR)."""

    exit_code = 74


class Locked(NetdepthError):
    """Another process works in this run folder. Exit 75 (EX_TEMPFAIL)."""

    exit_code = 75


class Interrupted(NetdepthError):
    """Stopped by a signal with everything saved. Exit 130 (SIGINT) or 143 (SIGTERM)."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


class RankLost(Interrupted):
    """Another process of a data parallel run ended or failed; the run so far is saved. Exit 1, or its code."""

    def __init__(self, message: str = "", exit_code: int = 1) -> None:
        super().__init__(message, exit_code - 128)


def choose(value: object, options: Iterable[str], what: str, never: Collection[str] = ()) -> str:
    """Return ``value`` if it is one of ``options``; where the nearest is in ``never``, none is suggested.

    Raises:
        BadInput: naming the value, every option and the nearest match.
    """
    names = sorted(options)
    if isinstance(value, str) and value in names:
        return value
    near = difflib.get_close_matches(str(value), names, n=1, cutoff=0.5)
    hint = f" (did you mean {near[0]!r}?)" if near and near[0] not in never else ""
    raise BadInput(f"unknown {what} {value!r}{hint}; choose from: {', '.join(names) or 'none'}")


def choose_folder(text: str, names: Iterable[str], root: Path, one: str, many: str) -> str:
    """The one of the folder ``names`` under ``root`` that is ``text`` or begins with it.

    ``one`` and ``many`` are what such folders are called: "run", "runs".

    Raises:
        BadInput: none matches (with the nearest names) or several do.
    """
    known = sorted(names)
    asked = text.rstrip("/")
    matches = [asked] if asked in known else [name for name in known if name.startswith(asked)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        more = ", ..." * (len(matches) > 5)
        raise BadInput(f"{one} {text!r} is ambiguous; it could be {', '.join(matches[:5])}{more}")
    near = difflib.get_close_matches(text, known, n=3, cutoff=0.4) or known[:3]
    hint = f"; the nearest are {', '.join(near)}" if near else f"; {root} holds no {many}"
    raise BadInput(f"no {one} {text!r} under {root}{hint}")
