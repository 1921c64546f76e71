"""The folder of a study: ``study.json`` says what was asked, planned and chosen, and names every run folder.

    runs/<study>/
        study.json          a `StudyDocument`, written before the first run
        table.csv verdict.json report.html report.md figures/      made from the runs, by the report
        workers/            what worker processes printed, if they did
        <run folder>/ ...   one per cell and seed

Code that reads a study reads the folders named in ``study.json`` and no others. No torch here.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from netdepth.config import SCHEMA, Json, from_json, require, to_json
from netdepth.errors import BadInput, NetdepthError, choose_folder
from netdepth.files.atomic import locked, read_json, storage, write_atomic
from netdepth.runs.find import ambiguous, begins_with, run_at
from netdepth.runs.folder import RunDir, list_runs, slug
from netdepth.studies.plan import Plan
from netdepth.studyspec import DEPTH, StudySpec, level_json

__all__ = [
    "ChosenValue", "ParentRun", "PlannedRun", "StudyDir", "StudyDocument", "TriedValue", "Tuning", "find_study",
    "label_of_run", "list_studies", "planned_run", "study_at", "study_named",
]  # fmt: skip

FILE = "study.json"
RESERVED = ("single", "tuning", "replays")
"""Folders of runs that belong to no study."""

TUNING_RULE = (
    "per cell the value with the smallest mean of the last validation loss over the tuning seeds; a diverged run "
    "counts as infinite; among equals the smallest value; the test part stays sealed"
)


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One run of the plan. ``value`` is that of the tuned setting in a tuning run, otherwise None.

    ``folder`` (a name in the study's folder) and ``fingerprint`` are None until the tuned setting is chosen.
    """

    condition: str
    level: str = field(metadata={"was": "depth"})
    value: int | float | None = None
    levels: Mapping[str, str]
    seed: int
    folder: str | None = None
    fingerprint: str | None = None

    def __post_init__(self) -> None:
        # ``--fresh`` removes these folders: all of them must lie in the study's own.
        name = self.folder
        if name is not None and (name in ("", ".", "..") or "\0" in name or name != os.path.basename(name)):
            raise BadInput(f"folder = {name!r} is no name of a folder in the study's own")
        for level, value in self.levels.items():
            require(isinstance(value, str), f"levels.{level}", value, "the name of a level")
        known = ("", *self.levels.values())
        require(self.level in known, "level", self.level, f"one of {', '.join(map(repr, known))}")
        depth = self.levels.get(DEPTH, "1")
        require(re.fullmatch("[1-9][0-9]{0,9}", depth) is not None, "depth", depth, "a depth from 1")
        require(0 <= self.seed < 2**63, "seed", self.seed, "a seed from 0")

    @property
    def cell(self) -> tuple[str, str, int | float | None]:
        """Condition, level and tuned value: what the seeds of a cell have in common."""
        return self.condition, self.level, self.value


@dataclass(frozen=True)
class TriedValue:
    """A value of the tuned setting and its mean validation loss; None if a seed diverged."""

    value: int | float
    val_loss: float | None


@dataclass(frozen=True)
class ChosenValue:
    """The value of the tuned setting that was chosen for a cell, and all that were tried."""

    condition: str
    level: str = field(metadata={"was": "depth"})
    value: int | float
    means: tuple[TriedValue, ...]


@dataclass(frozen=True)
class Tuning:
    """How the setting ``path`` is tuned: by ``rule``, in runs of their own; ``chosen`` is None until they are done."""

    path: str
    values: tuple[int | float, ...]
    seeds: tuple[int, ...]
    rule: str = TUNING_RULE
    chosen: tuple[ChosenValue, ...] | None = None
    plan: Plan | None = None
    runs: tuple[PlannedRun, ...] = ()


@dataclass(frozen=True)
class ParentRun:
    """The run that others start from or learn from, as it was when they were planned; errors are fractions."""

    run: str
    weights: str
    weights_sha256: str
    num_params: int
    dataset: str
    val_error: float
    test_error: float | None


@dataclass(frozen=True, kw_only=True)
class StudyDocument:
    """The content of ``study.json``; ``source`` is the study's parent run."""

    schema: int = SCHEMA
    fingerprint: str
    spec: StudySpec
    plan: Plan | None = None
    tuning: Tuning | None = None
    runs: tuple[PlannedRun, ...] = ()
    source: ParentRun | None = None

    @property
    def all_runs(self) -> tuple[PlannedRun, ...]:
        """The planned runs, those that tune a setting first."""
        return (*(self.tuning.runs if self.tuning is not None else ()), *self.runs)

    @classmethod
    def unplanned(cls, spec: StudySpec) -> StudyDocument:
        """``spec`` before its runs are planned: their folders are not known yet."""
        runs = (
            PlannedRun(condition=cell.condition, level=cell.level, levels=cell.levels, seed=seed)
            for cell in spec.cells
            for seed in spec.seeds_for(cell.condition)
        )
        return cls(fingerprint=spec.fingerprint(), spec=spec, runs=tuple(runs))

    def as_json(self) -> Mapping[str, Json]:
        """The document as it is written."""
        document: dict[str, Any] = to_json(self)
        document["spec"] = self.spec.as_json()
        for run in document["runs"]:
            del run["value"]  # of tuning runs only
        if self.source is None:
            del document["source"]
        for part in filter(None, (document, document["tuning"])):
            for holder, name in ((part, "runs"), (part["plan"] or {}, "groups"), (part, "chosen")):
                if holder.get(name):
                    holder[name] = [level_json(item, self.spec.factor) for item in holder[name]]
        return document


class StudyDir:
    """A study's folder. Reading never needs the lock; writing needs `lock`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def locate(cls, runs_root: Path, spec: StudySpec) -> StudyDir:
        """The folder ``spec`` has or would have; nothing is written.

        That is ``<runs_root>/<name>``, or ``<name>-<fingerprint>`` where the name is another study's.

        Raises:
            BadInput: a name that is no name for a study's folder.
        """
        name = slug(spec.name)
        if name in RESERVED:
            raise BadInput(f"study name {spec.name!r} is taken by runs without a study; choose another name")
        mark = spec.fingerprint()
        own = cls(runs_root / f"{name}-{mark}")
        if (own.path / FILE).exists():
            return own
        first = cls(runs_root / name)
        there = first.read()
        return first if there is None or there.fingerprint == mark else own

    # --- study.json ---

    def read(self) -> StudyDocument | None:
        """``study.json``, or None where there is none.

        Raises:
            BadInput: it is not readable JSON of this schema, or a field of it is not what it should be.
        """
        remedy = "restore it or use another --runs"
        stored = read_json(self.path / FILE, remedy)
        if stored is None:
            return None
        try:
            document: StudyDocument = from_json(StudyDocument, stored, FILE)
        except BadInput as error:
            raise BadInput(f"{self.path / FILE} is damaged: {error}; {remedy}") from None
        return document

    def write(self, document: StudyDocument) -> None:
        """Write ``study.json`` atomically."""
        text = json.dumps(document.as_json(), indent=1, allow_nan=False)
        write_atomic(self.path / FILE, text.encode() + b"\n")

    @property
    def document(self) -> StudyDocument:
        """``study.json``, read again at every access.

        Raises:
            BadInput: there is none, or it is damaged.
        """
        document = self.read()
        if document is None:
            raise BadInput(f"{self.path} holds no {FILE}; it is no study's folder")
        return document

    @property
    def spec(self) -> StudySpec:
        """What was asked."""
        return self.document.spec

    def runs(self) -> tuple[PlannedRun, ...]:
        """Every run in the order of the plan, finished or not; without a folder as long as it is not planned."""
        document = self.document
        return document.runs or StudyDocument.unplanned(document.spec).runs

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the study for writing; the lock dies with its process.

        Raises:
            Locked: another process holds it.
        """
        with storage(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        with locked(self.path, f"study {self.path} is being run by another process; wait for it to end"):
            yield

    def __repr__(self) -> str:
        return f"StudyDir({str(self.path)!r})"


def list_studies(root: Path) -> list[StudyDir]:
    """Every study's folder below ``root``, sorted by name."""
    return [StudyDir(path.parent) for path in sorted(root.glob(f"*/{FILE}"))] if root.is_dir() else []


def study_at(text: str, root: Path) -> StudyDir | None:
    """The study whose folder ``text`` is, as a path or as a name under ``root``; None where it is none."""
    found = (StudyDir(path) for path in (Path(text), root / text) if (path / FILE).is_file())
    return next(found, None)


def study_named(text: str, root: Path) -> StudyDir | None:
    """The study as in `study_at`, or the one whose name begins with ``text``; None where that names a run or nothing.

    Raises:
        BadInput: it could be several things, which are named.
    """
    if run_at(text, root) is not None:
        return None
    studies = [study for study in list_studies(root) if study.path.name.startswith(text.rstrip("/"))]
    there = study_at(text, root)
    if there is not None or not studies:
        return there
    runs = begins_with(text, list_runs(root))
    if len(studies) + len(runs) > 1:
        others = [f"run {run.path.parent.name}/{run.path.name}" for run in runs]
        ambiguous(text, [*(f"study {study.path.name}" for study in studies), *others])
    return studies[0]


def planned_run(run: RunDir) -> tuple[StudyDocument, PlannedRun] | None:
    """What its study says of ``run``; None if it belongs to no study that can be read."""
    folder = run.path.resolve()
    with contextlib.suppress(NetdepthError):
        document = StudyDir(folder.parent).read()
        for planned in document.all_runs if document is not None else ():
            if document is not None and planned.folder == folder.name:
                return document, planned
    return None


def label_of_run(run: RunDir) -> str | None:
    """What its study calls ``run``: "residual, He init, depth 8"; None for a run of no study, or that only tuned."""
    document, planned = planned_run(run) or (None, None)
    if document is None or planned is None or planned.value is not None:
        return None
    return document.spec.name_of(planned.condition, planned.level)


def find_study(text: str, root: Path) -> StudyDir:
    """STUDY on the command line: a path, a folder's name under ``root``, or a unique prefix of one.

    Raises:
        BadInput: none matches (with the nearest names) or several do.
    """
    if (Path(text) / FILE).is_file():
        return StudyDir(Path(text))
    names = [study.path.name for study in list_studies(root)]
    return StudyDir(root / choose_folder(text, names, root, "study", "studies"))
