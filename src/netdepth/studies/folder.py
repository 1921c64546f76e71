"""The folder of a study: ``study.json`` says what was asked, planned and chosen, and names every run folder.

    runs/<study>/
        study.json          {"schema", "fingerprint", "spec", "plan", "runs", "tuning"}; written before the first run
        table.csv verdict.json report.html report.md figures/      made from the runs, by the report
        workers/            what worker processes printed, if they did
        <run folder>/ ...   one per cell and seed

``runs`` lists ``{"condition", "depth", "levels", "seed", "folder", "fingerprint"}`` per planned run; both last
are null while the run's tuned setting is not chosen yet. Whatever reads a study reads the folders named
there and no others. No torch here.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netdepth.config import SCHEMA, from_json, require, to_json
from netdepth.errors import BadInput, Locked
from netdepth.files.atomic import storage, write_atomic
from netdepth.files.records import read_json
from netdepth.runs.folder import slug
from netdepth.studyspec import StudySpec

__all__ = ["PlannedRun", "StudyDir", "find_study", "list_studies", "study_at", "unplanned_runs"]

FILE = "study.json"
RESERVED = ("single", "tuning")
"""Folders of runs that belong to no study."""


@dataclass(frozen=True)
class PlannedRun:
    """One run of the plan. ``folder`` is where it is or will be; None until its tuned setting is chosen."""

    levels: Mapping[str, str]
    depth: int
    condition: str
    seed: int
    folder: Path | None
    fingerprint: str | None


@dataclass(frozen=True)
class _StoredRun:
    """One of ``runs`` as it stands in ``study.json``."""

    condition: str
    depth: int
    levels: Mapping[str, str]
    seed: int
    folder: str | None
    fingerprint: str | None
    value: float | None = None

    def __post_init__(self) -> None:
        # ``--fresh`` removes the folders named here: none may lie anywhere else than in the study's own.
        name = self.folder
        if name is not None and (name in ("", ".", "..") or "\0" in name or name != os.path.basename(name)):
            raise BadInput(f"folder = {name!r} is no name of a folder in the study's own")
        for level, value in self.levels.items():
            require(isinstance(value, str), f"levels.{level}", value, "the name of a level")
        require(0 < self.depth < 2**31, "depth", self.depth, "a depth from 1")
        require(0 <= self.seed < 2**63, "seed", self.seed, "a seed from 0")


@dataclass(frozen=True)
class _StoredTuning:
    """``tuning`` as it stands in ``study.json``."""

    path: str
    values: tuple[float, ...]
    seeds: tuple[int, ...]
    rule: str
    chosen: object
    plan: Mapping[str, Any] | None
    runs: tuple[_StoredRun, ...]


@dataclass(frozen=True)
class _Stored:
    """``study.json``, field by field: what a damaged or a foreign one holds is refused before it is believed."""

    schema: int
    fingerprint: str
    spec: Mapping[str, Any]
    plan: Mapping[str, Any] | None
    runs: tuple[_StoredRun, ...]
    tuning: _StoredTuning | None = None
    source: Mapping[str, Any] | None = None


class StudyDir:
    """A study's folder. Reading never needs the lock; whoever writes holds `lock`."""

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
        return first if first.fingerprint in (None, mark) else own

    @classmethod
    def create(cls, runs_root: Path, spec: StudySpec) -> StudyDir:
        """The folder of ``spec`` with a ``study.json``; one that is there keeps its plan and its seeds."""
        study = cls.locate(runs_root, spec)
        with study.lock():
            if study.fingerprint is None:
                study.write(spec)
        return study

    # --- study.json ---

    def read(self) -> dict[str, Any] | None:
        """``study.json``, or None where there is none.

        Raises:
            BadInput: it is not readable JSON of this schema, or a field of it is not what it should be.
        """
        remedy = "restore it or use another --runs"
        document = read_json(self.path / FILE, remedy)
        if document is not None:
            try:
                from_json(_Stored, document, FILE)
            except BadInput as error:
                raise BadInput(f"{self.path / FILE} is damaged: {error}; {remedy}") from None
        return document

    def write(
        self,
        spec: StudySpec,
        plan: Mapping[str, Any] | None = None,
        runs: Sequence[Mapping[str, Any]] | None = None,
        tuning: Mapping[str, Any] | None = None,
        source: Mapping[str, Any] | None = None,
    ) -> None:
        """Write ``study.json`` atomically; without ``runs`` every run is named and none has a folder yet."""
        document = {
            "schema": SCHEMA,
            "fingerprint": spec.fingerprint(),
            "spec": to_json(spec),
            "plan": plan,
            "tuning": tuning,
            "runs": unplanned_runs(spec) if runs is None else list(runs),
            **({} if source is None else {"source": dict(source)}),
        }
        write_atomic(self.path / FILE, json.dumps(document, indent=1, allow_nan=False).encode() + b"\n")

    def _document(self) -> dict[str, Any]:
        document = self.read()
        if document is None:
            raise BadInput(f"{self.path} holds no {FILE}; it is no study's folder")
        return document

    @property
    def fingerprint(self) -> str | None:
        """The fingerprint of the study in this folder; None where there is none."""
        document = self.read()
        return None if document is None else str(document.get("fingerprint"))

    @property
    def spec(self) -> StudySpec:
        """What was asked."""
        spec: StudySpec = from_json(StudySpec, self._document()["spec"], "study.json: spec")
        return spec

    @property
    def plan(self) -> dict[str, Any] | None:
        """Which seeds are made together, and in which order."""
        plan: dict[str, Any] | None = self._document()["plan"]
        return plan

    @property
    def tuned(self) -> dict[str, Any] | None:
        """What was tuned: the rule, the runs and the value chosen per cell; None where nothing is."""
        tuning: dict[str, Any] | None = self._document()["tuning"]
        return tuning

    @property
    def source(self) -> dict[str, Any] | None:
        """The run that others started from or learned from, as it was when they were planned; None: there is none."""
        source: dict[str, Any] | None = self._document().get("source")
        return source

    def runs(self) -> list[PlannedRun]:
        """Every planned run, finished or not, in the order of the plan."""
        return [
            PlannedRun(
                levels=item["levels"],
                depth=item["depth"],
                condition=item["condition"],
                seed=item["seed"],
                folder=None if item["folder"] is None else self.path / item["folder"],
                fingerprint=item["fingerprint"],
            )
            for item in self._document()["runs"]
        ]

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the study for writing; the lock dies with its process.

        Raises:
            Locked: another process holds it.
        """
        import filelock

        with storage(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(self.path / ".lock")
        with storage(self.path / ".lock"):
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout:
                raise Locked(f"study {self.path} is being run by another process; wait for it to end") from None
        try:
            yield
        finally:
            lock.release()

    def __repr__(self) -> str:
        return f"StudyDir({str(self.path)!r})"


def unplanned_runs(spec: StudySpec) -> list[dict[str, Any]]:
    """The ``runs`` of a study whose folders are not known yet."""
    return [
        {
            "condition": cell.condition,
            "depth": cell.depth,
            "levels": dict(cell.levels),
            "seed": seed,
            "folder": None,
            "fingerprint": None,
        }
        for cell in spec.cells
        for seed in spec.seeds
    ]


def list_studies(root: Path) -> list[StudyDir]:
    """Every study's folder below ``root``, sorted by name."""
    return [StudyDir(path.parent) for path in sorted(root.glob(f"*/{FILE}"))] if root.is_dir() else []


def study_at(text: str, root: Path) -> StudyDir | None:
    """The study whose folder ``text`` is, as a path or as a name under ``root``; None where it is none."""
    found = (StudyDir(path) for path in (Path(text), root / text) if (path / FILE).is_file())
    return next(found, None)


def find_study(text: str, root: Path) -> StudyDir:
    """STUDY on the command line: a path, a folder's name under ``root``, or a unique prefix of one.

    Raises:
        BadInput: none matches (with the nearest names) or several do.
    """
    if (Path(text) / FILE).is_file():
        return StudyDir(Path(text))
    studies = {study.path.name: study for study in list_studies(root)}
    asked = text.rstrip("/")
    matches = [asked] if asked in studies else [name for name in studies if name.startswith(asked)]
    if len(matches) == 1:
        return studies[matches[0]]
    if matches:
        raise BadInput(f"study {text!r} is ambiguous; it could be {', '.join(matches[:5])}")
    import difflib

    near = difflib.get_close_matches(text, studies, n=3, cutoff=0.4) or sorted(studies)[:3]
    hint = f"; the nearest are {', '.join(near)}" if near else f"; {root} holds no studies"
    raise BadInput(f"no study {text!r} under {root}{hint}")
