"""``netdepth report STUDY --check``: whether a study's page, its runs and its plan are as netdepth left them.

Four questions, each a function: does the page say what the runs give; is each run's folder true to itself; do the runs
belong to this study and to one another; does the study hold all the runs that it made. What a person who writes every
digest anew can still do stands in SECURITY.md.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from netdepth.errors import BadInput
from netdepth.report.content import Content, sources
from netdepth.report.data import StudyData, read_study
from netdepth.report.fingerprints import Fingerprints
from netdepth.report.page import HTML, SOURCES_FILE, TABLE, VERDICT, page_faults, table_bytes, verdict_bytes
from netdepth.runs import SplitRecord, sound
from netdepth.runs.folder import RunDir, list_runs
from netdepth.runs.seal import PREDICTIONS, broken, sha256_of
from netdepth.studies.folder import PlannedRun, StudyDir, StudyDocument
from netdepth.studies.ledger import FINISHED, Asked, Ledger, read_ledger
from netdepth.studyspec import DEPTH, StudySpec
from netdepth.text import count, listed

__all__ = ["Checked", "check_report"]

MADE_BY = ("netdepth", "torch", "numpy", "device", "matmul")
"""What all runs of one stack share in their ``environment.json``."""


@dataclass(frozen=True)
class Checked:
    """What is wrong with a study, and what a reader should know all the same; ``runs`` were looked at."""

    faults: tuple[str, ...]
    notes: tuple[str, ...]
    runs: int
    unsealed: int
    """Runs without a seal: they are from an earlier netdepth, and their results can be altered unseen."""

    page: bool
    """Whether there is a page; without one, its runs are checked all the same."""

    @property
    def words(self) -> str:
        """In a table: ``sound``, ``sound, not sealed``, ``none`` without a page, or what is wrong."""
        if self.faults:
            return f"{count(len(self.faults), 'fault')}: {self.faults[0]}"
        if not self.page:
            return "none"
        return "sound, not sealed" if self.unsealed else "sound"


@dataclass
class _Run:
    """A finished run as it is checked: the parsed files of its folder."""

    planned: PlannedRun
    label: str
    folder: RunDir
    config: Mapping[str, Any]
    environment: Mapping[str, Any]
    result: Mapping[str, Any]
    split: SplitRecord | None
    labels: str | None = None
    """The digest of the labels that its predictions are for."""


@dataclass
class _Found:
    """Faults by run, to be told together where several runs have the same."""

    general: list[str] = field(default_factory=list)
    by_text: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    notes: list[str] = field(default_factory=list)

    def of(self, run: _Run, faults: Iterable[str]) -> None:
        for fault in faults:
            if run.label not in self.by_text[fault]:
                self.by_text[fault].append(run.label)

    @property
    def faults(self) -> tuple[str, ...]:
        told = [f"{labels[0]}: {text}" if len(labels) == 1 else f"{text} ({len(labels)} runs: {listed(labels, most=2)})"
                for text, labels in self.by_text.items()]  # fmt: skip
        return (*self.general, *told)


def check_report(study: StudyDir, path: Path | None = None) -> Checked:
    """Check the page of the study, or the one at ``path``, with all that it rests on. Nothing is written.

    Raises:
        BadInput: ``study.json`` is damaged, or its runs are about different data.
    """
    path = path or study.path / HTML
    there = path.is_file()
    data = read_study(study)
    document = study.document
    found = _Found()
    found.general += [
        f"run {run.number} ({run.row.planned.folder or 'not planned yet'}): {run.row.made.status}"
        for run in data.missing
    ]
    found.general += page_faults(data, path) if there else []
    found.general += _written_faults(data, path.parent)
    planned = list(_runs(study, document))
    fingerprints, unsealed = Fingerprints(document), 0
    runs = list({run.planned.folder: run for run in reversed(planned)}.values())[::-1]  # cells may share a run
    for run in runs:
        seal = broken(run.folder, run.result)
        unsealed += seal is None
        found.of(run, [*(seal or ()), *_run_faults(run)])
    for run in planned:
        found.of(run, _plan_faults(run))
        found.of(run, fingerprints.faults(run.planned, run.config, run.split))
    _check_together(runs, document, found)
    _check_plan(study, document, found)
    _check_ledger(study, document, runs, sealed=len(runs) - unsealed, found=found)
    if unsealed:
        found.notes.append(
            f"{unsealed} of {len(runs)} runs are not sealed (made by an earlier netdepth): "
            "an altered result.json of theirs is not noticed"
        )
    if again := sum(sound.repeated(run.folder) > 0 for run in runs):
        found.notes.append(
            f"test_access.json: the final evaluation of {count(again, 'run')} was begun again, as after an interruption"
        )
    found.notes += [f"some fingerprints are not computed again: {reason}" for reason in sorted(fingerprints.unknown)]
    return Checked(found.faults, tuple(found.notes), len(runs), unsealed, there)


def _runs(study: StudyDir, document: StudyDocument) -> Iterator[_Run]:
    """The planned runs that have a result which can be read, those that tuned a setting first."""
    tuning = len(document.all_runs) - len(document.runs)
    for index, planned in enumerate(document.all_runs):
        if planned.folder is None:
            continue
        folder = RunDir(study.path / planned.folder)
        try:
            files = [folder.read_json(name) or {} for name in ("config.json", "environment.json")]
            result, split = folder.result(), folder.split()
        except BadInput:
            continue  # the table says that it is unreadable
        if result is not None:
            number = "tuning run" if index < tuning else f"run {index - tuning + 1}"
            yield _Run(planned, f"{number} ({planned.folder})", folder, files[0], files[1], {**result}, split)


# --- the page and what lies beside it ---


def _written_faults(data: StudyData, folder: Path) -> Iterator[str]:
    """The files that a report writes beside its page: as it wrote them, and what the runs give."""
    made = {TABLE: table_bytes(data), VERDICT: verdict_bytes(data)}
    for name, content in made.items():
        path = folder / name
        if content is not None and path.is_file() and path.read_bytes() != content:
            yield f"{name} is not what the runs give{_first_difference(path.read_bytes(), content)}"
    try:
        kept = json.loads((folder / SOURCES_FILE).read_bytes())
        digests = kept.pop("files")  # an earlier netdepth wrote none
    except (OSError, ValueError, LookupError, AttributeError, TypeError, RecursionError):
        return
    if kept != json.loads(json.dumps(sources(Content(data)))):
        yield f"{SOURCES_FILE} is not what the runs give"
    for name, sha256 in digests.items() if isinstance(digests, dict) else ():
        path = folder / name
        inside = "\0" not in name and path.resolve().is_relative_to(folder.resolve())
        if name not in made and inside and path.is_file() and sha256_of(path) != sha256:
            yield f"{name} is not as the report wrote it"


def _first_difference(there: bytes, now: bytes) -> str:
    old, new = (text.decode(errors="replace").splitlines() for text in (there, now))
    differing = (number for number, pair in enumerate(zip(old, new, strict=False), 1) if pair[0] != pair[1])
    return f" (line {next(differing, min(len(old), len(new)) + 1)})"


# --- one run ---


def _run_faults(run: _Run) -> Iterator[str]:
    """The files of a run against one another."""
    sizes = run.split.sizes if run.split else {}
    yield from sound.name_faults(run.folder, run.config)
    yield from sound.record_faults(run.folder.read_metrics(), run.result, run.config, sizes)
    yield from (note.replace(f"{run.folder.path}/", "") for note in run.folder.notes)  # damaged lines
    faults, run.labels = sound.prediction_faults(run.folder, run.result, sizes)
    yield from faults
    try:
        yield from sound.access_faults(run.folder, run.result)
    except BadInput:
        yield "test_access.json is damaged"
    yield from sound.weight_faults(run.folder, run.result)


def _plan_faults(run: _Run) -> Iterator[str]:
    """A run against its line in ``study.json``."""
    planned = run.planned
    for name, asked in (("seed", planned.seed), ("fingerprint", planned.fingerprint)):
        if run.config.get(name) != asked:
            yield f"config.json has the {name} {run.config.get(name)}, study.json plans {asked}"
    depth = planned.levels.get(DEPTH)
    if depth is not None and str(run.result.get("depth", depth)) != depth:
        yield f"result.json says depth {run.result['depth']}, study.json plans {depth}"


# --- the runs together ---


def _check_together(runs: list[_Run], document: StudyDocument, found: _Found) -> None:
    """Runs on one data set have one split and one test part; two seeds have two networks; a stack was made at once."""
    splits: dict[object, list[tuple[object, _Run]]] = defaultdict(list)
    labels: dict[object, list[tuple[object, _Run]]] = defaultdict(list)
    holders: dict[str, list[_Run]] = defaultdict(list)
    for run in runs:
        dataset = json.dumps(run.config.get("dataset"), sort_keys=True)
        if (split := run.split) is not None:
            sizes = tuple(sorted(split.sizes.items()))
            data = split.data_digest, split.split_digest, split.classes, split.input_shape, sizes
            splits[dataset].append((data, run))
        if run.labels is not None:
            labels[dataset, run.result.get("evaluated_on")].append((run.labels, run))
        if run.result.get("weights_sha256"):
            holders[str(run.result["weights_sha256"])].append(run)
    for name, by_dataset in (("split.json", splits), (PREDICTIONS, labels)):
        for same in by_dataset.values():
            usual = Counter(value for value, _ in same).most_common(1)[0][0]
            for value, run in same:
                if value != usual:
                    found.of(run, [f"{name} is about other images than that of the other runs on these data"])
    for several in holders.values():
        if len({run.planned.seed for run in several}) > 1:
            names = listed([run.label for run in several], most=3)
            found.general.append(f"runs of different seeds hold the same weights: {names}")
    _check_stacks(runs, document, found)


def _check_stacks(runs: list[_Run], document: StudyDocument, found: _Found) -> None:
    """Each run was made in the stack that the plan says, and all of a stack by the same versions."""
    groups = [*(document.plan.groups if document.plan else ())]
    if document.tuning is not None and document.tuning.plan is not None:
        groups += document.tuning.plan.groups
    planned = {(group.condition, group.level, group.value, seed): group for group in groups for seed in group.seeds}
    stacks: dict[int, list[_Run]] = defaultdict(list)
    for run in runs:
        group = planned.get((*run.planned.cell, run.planned.seed))
        seeds = run.environment.get("seeds")
        if group is None or not isinstance(seeds, list):
            continue
        stacks[id(group)].append(run)
        if seeds != [*group.seeds]:
            found.of(run, [f"it was trained together with the seeds {seeds}, study.json plans {[*group.seeds]}"])
    for stack in stacks.values():
        made = Counter(tuple(str(run.environment.get(name)) for name in MADE_BY) for run in stack)
        for run in stack if len(made) > 1 else ():
            if tuple(str(run.environment.get(name)) for name in MADE_BY) != made.most_common(1)[0][0]:
                found.of(run, ["environment.json names other versions than the runs that were trained with it"])
    made_by = Counter(
        f"netdepth {run.environment.get('netdepth')}, torch {run.environment.get('torch')}" for run in runs
    )
    if len(made_by) > 1:
        told = "; ".join(f"{count(number, 'run')} by {name}" for name, number in made_by.items())
        found.notes.append(f"the runs were made by different versions: {told}")


# --- the study ---


def _check_plan(study: StudyDir, document: StudyDocument, found: _Found) -> None:
    """``study.json`` against itself, and against run folders that it does not name."""
    spec = document.spec
    if document.fingerprint != spec.fingerprint():
        found.general.append(
            f"study.json has the fingerprint {document.fingerprint}; what it asks has {spec.fingerprint()}"
        )
    asked = {(cell.condition, cell.level, seed) for cell in spec.cells for seed in spec.seeds_for(cell.condition)}
    planned = {(run.condition, run.level, run.seed) for run in document.runs}
    if missing := asked - planned:
        found.general.append(f"study.json plans no run for {count(len(missing), 'seed')} of its cells")
    if extra := planned - asked:
        found.general.append(f"study.json plans {count(len(extra), 'run')} that its question does not have")
    more = sorted(
        {seed for group in (document.plan.groups if document.plan else ()) for seed in group.seeds}
        - {seed for _, _, seed in asked}
    )
    if more:
        found.general.append(f"the plan in study.json has the seeds {listed(more, most=7)}, its question has not")
    named = {run.folder for run in document.all_runs}
    marks = {run.fingerprint for run in document.all_runs}
    for run in list_runs(study.path.parent):
        folder = run.path.name
        if run.path.parent.name == study.path.name and folder not in named and folder.rpartition("-")[2] in marks:
            found.general.append(f"{folder} is a run of this study, and study.json does not name it")


def _check_asked(spec: StudySpec, ledger: Ledger, found: _Found) -> None:
    """The question, and the number of analyses, are those that the runs were made for."""
    now = Asked.by(spec)
    before = [entry.asked for entry in ledger.entries if entry.asked is not None]
    if other := sorted({asked.study for asked in before} - {now.study}):
        found.general.append(
            f"study.json asks another question ({now.study}) than the one that its runs were made for ({other[0]}): "
            "axes, comparisons, metric or smallest effect were altered"
        )
    if (most := max((asked.analysis for asked in before), default=0)) > now.analysis:
        found.general.append(
            f"study.json says that this is analysis {now.analysis}; a run was made for analysis {most}"
        )
    if any(asked.max_looks != now.max_looks for asked in before):
        found.general.append(
            f"study.json declares max_looks = {now.max_looks}; the runs were made under another number"
        )


def _check_ledger(study: StudyDir, document: StudyDocument, runs: list[_Run], sealed: int, found: _Found) -> None:
    """``finished.jsonl``: how often each run was made, and with what weights."""
    ledger = read_ledger(study.path)
    if ledger is None:
        if sealed:
            found.general.append(f"{FINISHED} is missing, which names every run that the study finished")
        return
    if not ledger.whole:
        found.general.append(f"{FINISHED}: a line was altered, removed or added")
    if ledger.late:
        found.general.append(
            f"{FINISHED} was begun after {count(ledger.late, 'run')} had ended: the one before it was removed"
        )
    _check_asked(document.spec, ledger, found)
    named = {run.folder for run in document.all_runs}
    if gone := sorted({entry.run for entry in ledger.entries} - {str(name) for name in named}):
        found.general.append(
            f"{FINISHED} names {count(len(gone), 'finished run')} that study.json does not: {listed(gone, most=3)}"
        )
    unknown = 0
    for run in runs:
        entries = ledger.of(run.folder.path.name)
        if not entries:
            unknown += 1
            continue
        weights = {entry.weights for entry in entries}
        if len(weights) > 1:
            found.of(run, [f"it was made {len(entries)} times, with {len(weights)} different weights ({FINISHED})"])
        if entries[-1].weights != run.result.get("weights_sha256"):
            found.of(run, [f"it holds other weights than the study finished it with ({FINISHED})"])
        elif entries[-1].result != sha256_of(run.folder.path / "result.json"):
            found.of(run, [f"result.json is not the one that the study finished it with ({FINISHED})"])
    if unknown:
        found.notes.append(f"{FINISHED} does not name {count(unknown, 'run')} yet; running the study again adds them")
    if ledger.fresh:
        before = {entry.run: entry.weights for entry in ledger.earlier}
        now = {run.folder.path.name: run.result.get("weights_sha256") for run in runs}
        other = sum(before.get(name, weights) != weights for name, weights in now.items())
        found.notes.append(
            f"the study was begun anew {count(ledger.fresh, 'time')} (--fresh) after {count(len(before), 'run')} had "
            f"ended; {other} of them have other weights now"
        )
