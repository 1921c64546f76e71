"""RUN on the command line: from what a person types to run folders, and never by a guess."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NoReturn

from netdepth.errors import BadInput, choose_folder
from netdepth.runs.folder import RunDir, list_runs

__all__ = ["PICKLED", "ambiguous", "begins_with", "configuration_of", "find_run", "find_runs", "run_at"]

PICKLED = (".pth", ".pt", ".ckpt", ".bin")
"""Ends of files that other programs save weights in."""
FINGERPRINT = re.compile(r"[0-9a-f]{6,10}", re.ASCII)
"""What is taken as the beginning of a fingerprint: long enough to be none by chance."""
TAIL = re.compile(r"-s(\d+)-([0-9a-f]{10})$", re.ASCII)
NAMED = 5
"""Names in a message that could be many."""


def run_at(text: str, root: Path) -> RunDir | None:
    """The run whose folder ``text`` is, as a path or as one from ``root`` on; None where it is none."""
    found = (RunDir(path) for path in (Path(text), root / text) if (path / "config.json").is_file())
    return next(found, None)


def find_run(text: str, root: Path) -> RunDir:
    """One run: a path (also from ``root`` on), the beginning of one folder's name under ``root``, or of a fingerprint.

    Raises:
        BadInput: none matches (with the nearest names) or several do, which are named.
    """
    there = run_at(text, root)
    if there is not None:
        return there
    if Path(text).suffix in PICKLED and Path(text).is_file():
        raise BadInput(f"{text!r} is no run; make a .safetensors file of it first: netdepth convert {text}")
    runs = list_runs(root)
    marked = begins_with(text, runs)
    found = [run for run in marked if run.path.name == text.rstrip("/")] or marked
    if len(found) > 1:
        ambiguous(text, map(_shown, found))
    names = {run.path.name: run for run in found or runs}
    return found[0] if found else names[choose_folder(text, names, root, "run", "runs")]  # which refuses


def find_runs(text: str, root: Path) -> list[RunDir]:
    """One run as in `find_run`, or all seeds of the one configuration whose folders' names begin with ``text``.

    A ``text`` that reaches into the seed of a name is that of one run: ``x-s1`` is never ``x-s10`` as well.

    Raises:
        BadInput: as `find_run`; several configurations match, which are named.
    """
    runs = [] if run_at(text, root) is not None else begins_with(text, list_runs(root))
    if len(runs) < 2 or any(run.path.name == text.rstrip("/") for run in runs):
        return [find_run(text, root)]
    configurations = {configuration_of(run) for run in runs}
    whole = all(TAIL.sub("", run.path.name).startswith(text) or _is_mark(text, run) for run in runs)
    if len(configurations) == 1 and whole:
        return runs
    return ambiguous(text, dict.fromkeys(map(_shown, runs) if not whole else map(_configuration, runs)))


def begins_with(text: str, runs: Sequence[RunDir]) -> list[RunDir]:
    """The ``runs`` whose folder's name begins with ``text``, also from the study's folder on, or whose fingerprint."""
    asked = text.rstrip("/")
    named = [run for run in runs if run.path.name.startswith(asked) or (_shown(run).startswith(asked) and "/" in asked)]
    return named or [run for run in runs if _is_mark(asked, run)]


def configuration_of(run: RunDir) -> tuple[Path, str]:
    """What the seeds of a configuration have in common: the folder that they lie in, and the fingerprint."""
    return run.path.parent, run.path.name.rpartition("-")[2]


def ambiguous(text: str, names: Iterable[str]) -> NoReturn:
    """Refuse ``text``, which could be any of ``names``."""
    found = list(names)
    more = ", ..." * (len(found) > NAMED)
    raise BadInput(f"{text!r} is ambiguous; it could be {', '.join(found[:NAMED])}{more}")


def _is_mark(text: str, run: RunDir) -> bool:
    return FINGERPRINT.fullmatch(text) is not None and configuration_of(run)[1].startswith(text)


def _shown(run: RunDir) -> str:
    return f"{run.path.parent.name}/{run.path.name}"


def _configuration(run: RunDir) -> str:
    return f"{TAIL.sub('', _shown(run))} (fingerprint {configuration_of(run)[1]})"
