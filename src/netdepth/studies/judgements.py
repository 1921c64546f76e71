"""``.judgements.jsonl`` in a runs folder: every verdict that was given there, a line each, the oldest first.

    {"schema": 1, "time": "2026-11-29T07:40:00+00:00", "study": its name, "folder": its folder's name,
     "question": digest of what is asked, "fingerprint": that of the study, "seeds": [0, 1], "analysis": 1,
     "finished": 70, "planned": 70, "data": digest of the runs' losses, "answer": "..."}

A study that is begun anew, in another folder, under another name or with a smaller grid asks the same question again,
and whoever asks often enough is told what he wants to hear. So a verdict names what was judged before it by other data.
The record outlives the studies. Its name begins with a dot, so that ``class/anna/*`` are studies alone.
"""

from __future__ import annotations

import contextlib
import datetime
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from netdepth.config import SCHEMA, Json, digest, from_json, to_json
from netdepth.errors import BadInput
from netdepth.files.atomic import one_at_a_time, storage, write_atomic
from netdepth.studies.folder import StudyDir
from netdepth.studyspec import StudySpec
from netdepth.text import count, listed

if TYPE_CHECKING:
    from netdepth.studies.verdict import Verdict

__all__ = ["RECORD", "Judgement", "as_json", "earlier_judgements", "question_of", "record", "said_of"]

RECORD = ".judgements.jsonl"
KEY = "earlier_judgements"
"""Where ``verdict.json`` keeps those that it names, so that they go with the study to another machine."""
MOST = 5
"""Earlier judgements that a report names, the newest."""
MOST_LETTERS = 300
"""Of an earlier answer."""


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A verdict that was given: a line of the record."""

    time: str
    study: str
    folder: str
    question: str
    fingerprint: str
    seeds: tuple[int, ...]
    analysis: int
    finished: int
    planned: int
    data: str
    answer: str

    @property
    def attempt(self) -> tuple[str, str, tuple[int, ...]]:
        """What further looks at the same planned runs have in common."""
        return self.folder, self.fingerprint, self.seeds

    def same_question(self, other: Judgement) -> bool:
        """Whether both ask the same, or are called the same."""
        return self.question == other.question or self.study == other.study


def question_of(spec: StudySpec) -> str:
    """A digest of what is asked: the base config without its seed, and the names of the axes.

    Neither levels nor seeds nor names are in it: a smaller grid asks the same.
    """
    base: dict[str, Any] = dict(spec.as_json()["base"])
    base.pop("seed")
    return digest([base, sorted(axis.name for axis in spec.scientific)])[:10]


def judgement_of(study: StudyDir, found: Verdict) -> Judgement | None:
    """What would be recorded of a verdict now; None if it claims nothing, whatever the runs say."""
    spec = found.spec
    if not found.judged or not spec.primary:
        return None
    cells = [item.cell for item in found.cells]
    runs = [(c.condition, c.level, run.seed, run.status, str(run.loss), run.val_error) for c in cells for run in c.runs]
    if not runs:
        return None
    return Judgement(
        time=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        study=spec.name,
        folder=study.path.resolve().name,
        question=question_of(spec),
        fingerprint=spec.fingerprint(),
        seeds=tuple(sorted(spec.seeds)),
        analysis=spec.looks,
        finished=len(runs),
        planned=len(runs) + sum(len(cell.missing) for cell in cells),
        data=digest([spec.fingerprint(), sorted(map(str, runs))])[:16],
        answer=found.answer,
    )


def record(study: StudyDir, found: Verdict) -> None:
    """Add a verdict to the record of the store that ``study`` lies in; the same of the same runs is there once.

    Raises:
        StorageError: it cannot be written.
    """
    now, path = judgement_of(study, found), study.path.resolve().parent / RECORD
    if now is None:
        return
    with storage(path), one_at_a_time(path.parent):  # two studies may be judged at once
        if any((old.data, old.answer) == (now.data, now.answer) for old in _recorded(study)):
            return
        before = path.read_bytes() if path.is_file() else b""
        torn = b"\n" if before and not before.endswith(b"\n") else b""
        write_atomic(path, before + torn + json.dumps({"schema": SCHEMA, **to_json(now)}).encode() + b"\n")


def earlier_judgements(study: StudyDir, found: Verdict) -> tuple[Judgement, ...]:
    """What was judged of the same question before ``found``, by other data: of each attempt the last, oldest first.

    From the store's record, where the verdict itself has its line there, and from the ``verdict.json`` of the study,
    which may come from another store. Judgements that are recorded later are not earlier ones, so a report that is
    made again says the same.
    """
    now = judgement_of(study, found)
    if now is None:
        return ()
    lines = _recorded(study)
    place = next((place for place, old in enumerate(lines) if old.data == now.data), 0)
    found_here = [old for old in lines[:place] if old.same_question(now) and old.data != now.data]
    every = [*_kept(study, now), *found_here]
    whole = {(old.attempt, old.data): old for old in every if old.finished == old.planned}
    ended = {now.attempt, *(attempt for attempt, _ in whole)}  # what was said of it before its end counts no more
    begun = {(old.attempt, ""): old for old in every if old.attempt not in ended}
    return (*whole.values(), *begun.values())


def said_of(earlier: Sequence[Judgement], spec: StudySpec) -> list[str]:
    """The newest of ``earlier``, a sentence each: an analysis of the study with fewer seeds, or other data."""
    asked, said = question_of(spec), []
    for one in earlier[-MOST:]:
        seeds = f"{'seed' if len(one.seeds) == 1 else 'seeds'} {_ranges(one.seeds)}"
        runs = "" if one.finished == one.planned else f", {one.finished} of {count(one.planned, 'run')}"
        answer = one.answer if len(one.answer) <= MOST_LETTERS else f"{one.answer[:MOST_LETTERS]}…"
        own = one.fingerprint == spec.fingerprint() and set(one.seeds) < set(spec.seeds)
        if own:
            head = f"Analysis {one.analysis} of this study"
        else:
            other = "" if one.question == asked else ", with other settings"
            head = f"This question was judged before by other data ({one.folder}{other})"
        said.append(f"{head}, on {one.time[:10]} with {seeds}{runs}: {answer}")
    return said


def as_json(earlier: Iterable[Judgement]) -> Mapping[str, Json]:
    """What ``verdict.json`` keeps of them; nothing where there are none."""
    kept = [to_json(one) for one in earlier]
    return {KEY: kept} if kept else {}


def _recorded(study: StudyDir) -> list[Judgement]:
    """The lines of the store's record that can be read; a damaged one is left out."""
    path = study.path.resolve().parent / RECORD
    found = []
    with contextlib.suppress(OSError):
        for line in path.read_bytes().split(b"\n"):
            with contextlib.suppress(ValueError, RecursionError):
                found += _parsed(json.loads(line))
    return found


def _kept(study: StudyDir, now: Judgement) -> list[Judgement]:
    """Those that the study's own ``verdict.json`` names."""
    with contextlib.suppress(OSError, ValueError, RecursionError, AttributeError, TypeError):
        items = json.loads((study.path / "verdict.json").read_bytes()).get(KEY, [])
        kept = [old for item in items for old in _parsed(item)]
        return [old for old in kept if old.same_question(now) and old.data != now.data]
    return []


def _parsed(item: Any) -> list[Judgement]:
    """A parsed line as a judgement; empty if it is none."""
    if not isinstance(item, dict):
        return []
    known = {key: value for key, value in item.items() if key in Judgement.__dataclass_fields__}
    with contextlib.suppress(BadInput):
        judgement: Judgement = from_json(Judgement, known, RECORD)
        return [judgement] if judgement.seeds else []
    return []


def _ranges(numbers: Iterable[int]) -> str:
    """``0 to 6 and 9``: whole numbers ascending, neighbours together."""
    ends: list[list[int]] = []
    for number in sorted(numbers):
        if ends and number == ends[-1][1] + 1:
            ends[-1][1] = number
        else:
            ends.append([number, number])
    return listed([str(a) if a == b else f"{a} to {b}" for a, b in ends], most=MOST)
