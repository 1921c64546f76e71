"""What a row cost to type: commands of its list, and lines of the files that a user wrote for it. Nothing is run here.

A row's side is a folder: ``commands.txt``, which is run line by line, and the user's files beside it. A line of the
list that begins with ``#`` is for the reader; ``# killed when: GLOB`` has the next command killed (SIGKILL) as soon as
a file of that pattern is there, and a command that ends with ``&`` runs until the row's check is through.
"""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Command", "counted", "own_lines", "read_commands", "read_files", "typed"]

COMMANDS = "commands.txt"
KILLED = "# killed when:"
SEPARATORS = frozenset((";", "&", "&&", "|", "||"))
KEYWORDS = frozenset(("do", "done", "then", "fi", "if", "else", "while"))
WRITTEN = frozenset((".py", ".sh", ".toml", ".txt", ".yaml"))
"""Files of lines in which ``#`` begins a comment; a row may hold no others."""


@dataclass(frozen=True)
class Command:
    """One line of a list. ``killed_when``: a pattern of files, relative to the working folder."""

    line: str
    killed_when: str | None = None

    @property
    def stays(self) -> bool:
        """It runs in the background until the row's check is through."""
        return self.line.endswith("&") and not self.line.endswith("&&")


def read_commands(text: str) -> list[Command]:
    """The commands of a list, in order."""
    found, pattern = [], None
    for line in (line.strip() for line in text.splitlines()):
        if line.startswith(KILLED):
            pattern = line.removeprefix(KILLED).strip()
        elif line and not line.startswith("#"):
            found.append(Command(line, pattern))
            pattern = None
    return found


def typed(line: str) -> int:
    """How many commands a shell line holds: what ``;``, ``&&`` and ``|`` join counts one by one, a loop's body once."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    count, words = 0, []
    for token in (*lexer, ";"):
        if token not in SEPARATORS:
            words.append(token)
            continue
        while words and words[0] in KEYWORDS:
            words.pop(0)
        count += bool(words) and words[0] != "for"
        words = []
    return count


def counted(text: str) -> list[str]:
    """The lines that count: neither blank nor a comment alone."""
    return [line.rstrip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def own_lines(files: Mapping[str, str], before: Mapping[str, str]) -> int:
    """Lines that a user wrote or changed to get from the files ``before`` to ``files``; removing one costs nothing."""
    return sum(_added(counted(before.get(name, "")), counted(text)) for name, text in files.items())


def _added(old: list[str], new: list[str]) -> int:
    changes: Iterable[tuple[str, int, int, int, int]] = difflib.SequenceMatcher(
        None, old, new, autojunk=False
    ).get_opcodes()
    return sum(end - begin for kind, _, _, begin, end in changes if kind in ("insert", "replace"))


def read_files(folder: Path) -> dict[str, str]:
    """The user's files of a row's side, by name.

    Raises:
        ValueError: a file in which lines cannot be counted.
    """
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and path.name != COMMANDS]
    for path in files:
        if path.suffix not in WRITTEN:
            raise ValueError(f"{path} is no file of counted lines; these are: {', '.join(sorted(WRITTEN))}")
    return {path.name: path.read_text() for path in files}
