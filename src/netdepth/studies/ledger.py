"""``finished.jsonl``: every run that a study has finished, a line each, in the order in which they ended.

    {"schema": 1, "run": "<folder>", "weights": weights_sha256 of its result, "result": sha256 of result.json,
     "study": fingerprint of the question, "analysis": which, "max_looks": of how many,
     "chain": sha256 of the chain of the line before and of this line}

The first line, ``{"begun": 0}``, is written before the first run, with the number of sealed runs that were there: they
are from a file that was removed.

A line stays when its run is made again, or when ``--fresh`` begins the study anew (``{"fresh": true}``). So the file
tells how often a run was made, and that there was a run which ``study.json`` no longer names.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netdepth.config import SCHEMA, canonical_json, digest
from netdepth.errors import BadInput, StorageError
from netdepth.files.atomic import write_atomic
from netdepth.runs.folder import RunDir
from netdepth.runs.seal import sha256_of
from netdepth.studyspec import StudySpec

__all__ = ["FINISHED", "Asked", "Entry", "Ledger", "read_ledger", "record_begun", "record_finished", "record_fresh"]

FINISHED = "finished.jsonl"


@dataclass(frozen=True)
class Asked:
    """The fingerprint of a study, which analysis of it a run was made for, and how many were declared."""

    study: str
    analysis: int
    max_looks: int | None

    @classmethod
    def by(cls, spec: StudySpec) -> Asked:
        """What ``spec`` asks."""
        return cls(spec.fingerprint(), spec.looks, spec.max_looks)


@dataclass(frozen=True)
class Entry:
    """A run that was finished: its folder's name, and the digests of its weights (None if it diverged) and result."""

    run: str
    weights: str | None
    result: str
    asked: Asked | None = None
    """What the study asked then; None in a line of an earlier netdepth."""


@dataclass(frozen=True)
class Ledger:
    """The entries since the study was begun anew last, those before, and how often it was (``--fresh``).

    ``whole``: no line was altered, removed or put in between. ``late``: how many runs had ended before its first line.
    """

    entries: tuple[Entry, ...]
    earlier: tuple[Entry, ...]
    fresh: int
    whole: bool
    late: int = 0

    def of(self, run: str) -> list[Entry]:
        """The entries of a run's folder since the study was begun anew."""
        return [entry for entry in self.entries if entry.run == run]


def read_ledger(study: Path) -> Ledger | None:
    """``finished.jsonl`` of the study's folder, None where there is none."""
    path = study / FINISHED
    if not path.is_file():
        return None
    lines, whole = _lines(path)
    entries: list[Entry] = []
    earlier: list[Entry] = []
    late = 0
    for line in lines:
        if line.get("fresh"):
            earlier, entries, late = [*earlier, *entries], [], 0
        elif "begun" in line:
            late += line["begun"] if isinstance(line["begun"], int) else 1
        else:
            entries.append(_entry(line))
    return Ledger(tuple(entries), tuple(earlier), sum(bool(line.get("fresh")) for line in lines), whole, late)


def _entry(line: Mapping[str, Any]) -> Entry:
    weights, asked = line.get("weights"), None
    if "study" in line:
        number, most = line.get("analysis"), line.get("max_looks")
        asked = Asked(
            str(line["study"]), number if isinstance(number, int) else 1, most if isinstance(most, int) else None
        )
    return Entry(str(line.get("run")), weights if isinstance(weights, str) else None, str(line.get("result")), asked)


def record_begun(study: Path, folders: Iterable[str]) -> None:
    """Begin the file, before the first run; sealed runs that are there already had another one."""
    if (study / FINISHED).is_file():
        return
    ended = 0
    for name in dict.fromkeys(folders):
        with contextlib.suppress(BadInput, OSError, StorageError):
            ended += "seal" in (RunDir(study / name).result() or {})
    with contextlib.suppress(StorageError):
        _append(study, [{"begun": ended}])


def record_finished(study: Path, folders: Iterable[str], spec: StudySpec | None = None) -> None:
    """Add the runs in ``folders`` of the study that have a result and are not in the file yet, as they are now.

    The study is locked. A disk that does not take the file stops no run: they are added when the study continues.
    """
    found = read_ledger(study)
    known = {entry.run: entry for entry in (found.entries if found else ())}
    new = []
    for name in dict.fromkeys(folders):
        with contextlib.suppress(BadInput, OSError, StorageError):
            result = RunDir(study / name).result()
            if result is None:
                continue
            entry = Entry(name, result.get("weights_sha256"), sha256_of(study / name / "result.json"))
            before = known.get(name)
            if before is None or (before.weights, before.result) != (entry.weights, entry.result):
                asked = {} if spec is None else dataclasses.asdict(Asked.by(spec))
                new.append({"run": entry.run, "weights": entry.weights, "result": entry.result, **asked})
    if new:
        with contextlib.suppress(StorageError):
            _append(study, new)


def record_fresh(study: Path) -> None:
    """Say that the study is begun anew: its runs are removed and made again."""
    if (study / FINISHED).is_file():
        _append(study, [{"fresh": True}])


def _append(study: Path, new: list[dict[str, Any]]) -> None:
    """The file is written whole, so that a kill leaves no half of a line."""
    path = study / FINISHED
    held = path.read_bytes() if path.is_file() else b""
    last = _lines(path)[0][-1:] if held else []
    chain = str(last[0].get("chain", "")) if last else ""
    for line in new:
        line = {"schema": SCHEMA, **line}
        chain = digest([chain, line])
        held += canonical_json({**line, "chain": chain}) + b"\n"
    write_atomic(path, held)


def _lines(path: Path) -> tuple[list[dict[str, Any]], bool]:
    """The lines of the file that can be read, and whether they all are one chain from the first to the last."""
    chain, whole = "", True
    lines: list[dict[str, Any]] = []
    for text in path.read_bytes().splitlines():
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            line = None
        if not isinstance(line, dict) or line.get("schema") != SCHEMA:
            whole = False
            continue
        told = line.get("chain")
        try:
            chain = digest([chain, {key: value for key, value in line.items() if key != "chain"}])
        except (ValueError, TypeError):
            told = None
        whole = whole and told == chain
        chain = told if isinstance(told, str) else chain
        lines.append(line)
    return lines, whole
