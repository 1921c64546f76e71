"""Studies of one question side by side, as an instructor sees thirty submissions: a line each, one table, one page."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from netdepth.config import Json
from netdepth.errors import BadInput
from netdepth.files.atomic import reading
from netdepth.report.check import check_report
from netdepth.report.content import Content, rendered
from netdepth.report.data import StudyData, read_study
from netdepth.report.numbers import shown_text
from netdepth.report.run_text import markdown_table, markdown_text
from netdepth.runs.folder import RunDir
from netdepth.studies.folder import StudyDir
from netdepth.studyspec import StudySpec
from netdepth.text import listed, print_table, printable

__all__ = [
    "Submission", "SubmissionChip", "Submissions", "page", "print_submissions", "read_agreed", "read_submissions",
    "render",
]  # fmt: skip

HEADER = ("submission", "study", "runs", "seeds", "report", "made with")
SEEDS_SHOWN = 10
NOT_TESTED = "not tested"
"""The word for a comparison that was not named before the runs."""


@dataclass(frozen=True)
class SubmissionChip:
    """What one study says of a condition at a depth, or of a pair of conditions: ``worse``, and its number as text."""

    label: str
    word: str
    number: str

    def __str__(self) -> str:
        return self.number if self.word == NOT_TESTED else f"{self.word} {self.number}".strip()


@dataclass(frozen=True)
class Submission:
    """One study's folder. ``chips`` by place (``plain he, depth 32``), ``labels`` the same places as people read them
    (``plain, He init, depth 32``), ``weights`` the digests of its runs' weights.

    ``report`` is what its check says (`netdepth.report.check.Checked.words`); ``error`` says why the folder cannot be
    read.
    """

    name: str
    folder: str
    study: str = "-"
    fingerprint: str | None = None
    finished: int = 0
    planned: int = 0
    seeds: tuple[int, ...] = ()
    report: str = "-"
    made_with: tuple[str, ...] = ()
    answer: str = "-"
    chips: Mapping[str, SubmissionChip] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    weights: frozenset[str] = frozenset()
    error: str | None = None

    @property
    def cells(self) -> list[str]:
        """As text, in the order of `HEADER`."""
        seeds = ", ".join(map(str, self.seeds[:SEEDS_SHOWN])) + ", …" * (len(self.seeds) > SEEDS_SHOWN)
        report = self.report if self.error is None else f"not readable: {self.error}"
        return [self.name, self.study, f"{self.finished} of {self.planned}", seeds, report, ", ".join(self.made_with)]


@dataclass(frozen=True)
class Submissions:
    """``rows`` in the order given, and what an instructor should know, a line each."""

    rows: tuple[Submission, ...]
    warnings: tuple[str, ...]

    @property
    def places(self) -> dict[str, str]:
        """The label of every condition at every depth and of every pair that any study speaks of, by its key."""
        return {place: label for row in self.rows for place, label in row.labels.items()}

    def agreement(self, place: str) -> Counter[str]:
        """How many studies say which word there."""
        return Counter(row.chips[place].word for row in self.rows if place in row.chips)

    def agreed(self, place: str) -> str:
        """The same in words; nothing of a comparison that was not tested."""
        agreement = self.agreement(place).most_common()
        return ", ".join(f"{count} {word}" for word, count in agreement if word != NOT_TESTED)

    def as_json(self) -> Mapping[str, Json]:
        """Plain values."""
        rows = [{**asdict(row), "weights": sorted(row.weights)} for row in self.rows]
        for row in rows:
            del row["labels"]
        agreement = {place: dict(self.agreement(place)) for place in self.places}
        return {"studies": rows, "agreement": agreement, "warnings": list(self.warnings)}


Agreed = Mapping[str, tuple[int, ...]]
"""Who was given which seeds: the name of a folder on the path of a submission, and its seeds."""


def read_agreed(path: Path) -> Agreed:
    """The seeds that were given out, from a JSON file such as ``{"anna": [100, 101], "ben": [200, 201]}``.

    Raises:
        BadInput: it is not such a file. StorageError: it cannot be read.
    """
    with reading(path):
        content = path.read_bytes()
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} is not readable JSON ({error})") from None
    wanted = 'give the seeds of each student, as {"anna": [100, 101], "ben": [200, 201]}'
    if not isinstance(found, dict) or not found:
        raise BadInput(f"{path} names no student; {wanted}")
    for name, seeds in found.items():
        if not isinstance(seeds, list) or not seeds or not all(type(seed) is int and seed >= 0 for seed in seeds):
            raise BadInput(f"{path}: {name} has {seeds!r}; {wanted}")
    return {name: tuple(seeds) for name, seeds in found.items()}


def read_submissions(studies: Sequence[StudyDir], agreed: Agreed | None = None) -> Submissions:
    """Read, judge and check every study; one that cannot be read keeps its line. With ``agreed`` each must have exactly
    the seeds that were agreed for it.

    Raises:
        BadInput: no studies.
    """
    unique = list({study.path.resolve(): study for study in studies}.values())
    if not unique:
        raise BadInput("nothing to compare; name at least one study")
    names = _names([study.path for study in unique])
    rows = tuple(_read(study, name, agreed) for study, name in zip(unique, names, strict=True))
    absent = [name for name in agreed or () if not any(name in study.path.resolve().parts for study in unique)]
    missing = [f"no submission of {listed(absent, most=SEEDS_SHOWN)}, whose seeds were agreed"] if absent else []
    return Submissions(rows, (*_warnings(rows), *missing))


def _read(study: StudyDir, name: str, agreed: Agreed | None) -> Submission:
    try:
        data = read_study(study)
        content = Content(data)
        found = {
            ", ".join(filter(None, [line.key, place])): (", ".join(filter(None, [line.name, place])), chip)
            for grid in content.grids
            for line in grid.lines
            for place, chip in zip(grid.places, line.chips, strict=True)
            if chip is not None
        }
        made_with = Counter(
            f"netdepth {run.environment.get('netdepth', '?')}, torch {run.environment.get('torch', '?')}"
            for run in data.runs
            if run.environment
        )
        return Submission(
            name,
            str(study.path),
            study=data.spec.name,
            fingerprint=data.spec.fingerprint(),
            finished=len(data.runs) - len(data.missing),
            planned=len(data.runs),
            seeds=data.spec.seeds,
            report=_report(study, data.spec, agreed),
            made_with=tuple(pair for pair, _ in made_with.most_common()),
            answer=content.answer.short.text,
            chips={
                place: SubmissionChip(chip.label, chip.word.text or NOT_TESTED, shown_text(chip.number))
                for place, (_, chip) in found.items()
            },
            labels={place: label for place, (label, _) in found.items()},
            weights=frozenset(_weights(data)),
        )
    except BadInput as error:
        return Submission(name, str(study.path), error=str(error))


def _report(study: StudyDir, spec: StudySpec, agreed: Agreed | None) -> str:
    seeds = {seed for condition in spec.conditions for seed in spec.seeds_for(condition)}
    checked, faults = check_report(study), []
    if agreed is not None:
        given = [agreed[part] for part in reversed(study.path.resolve().parts) if part in agreed]
        if not given:
            faults.append("no seeds were agreed for it")
        elif {*given[0]} != seeds:
            faults.append(f"its seeds are {_listed_seeds(seeds)}, agreed were {_listed_seeds(given[0])}")
    return replace(checked, faults=(*faults, *checked.faults)).words


def _listed_seeds(seeds: Iterable[int]) -> str:
    return listed(sorted(seeds), most=SEEDS_SHOWN)


def _weights(data: StudyData) -> Iterator[str]:
    """The digests of the weights of the finished runs; a diverged run has none."""
    for run in data.runs:
        folder = run.row.planned.folder
        result = RunDir(data.study.path / folder).result() if run.finished and folder is not None else None
        if result is not None and result.get("weights_sha256"):
            yield str(result["weights_sha256"])


def _names(paths: Sequence[Path]) -> list[str]:
    """The shortest part of each path that tells all apart: below the folder that they share, above a common name."""
    if len(paths) == 1:
        return [paths[0].resolve().name]
    shared = os.path.commonpath([path.resolve() for path in paths])
    names = [path.resolve().relative_to(shared) for path in paths]
    while len({name.name for name in names}) == 1 and all(len(name.parts) > 1 for name in names):
        names = [name.parent for name in names]
    return [name.as_posix() for name in names]


def _warnings(rows: Sequence[Submission]) -> list[str]:
    found = []
    readable = [row for row in rows if row.error is None]
    questions = Counter(row.fingerprint for row in readable)
    if len(questions) > 1:
        usual = questions.most_common(1)[0][0]
        others = ", ".join(row.name for row in readable if row.fingerprint != usual)
        found.append(f"{len(questions)} different studies: {others} asked another question (other axes or settings)")
    for row, other in itertools.combinations(readable, 2):
        if shared := len(row.weights & other.weights):
            found.append(
                f"{row.name} and {other.name} hold the same weights in {shared} runs: they used the same seeds "
                "on the same kind of machine, or one is a copy of the other"
            )
    return found


# --- as text ----------------------------------------------------------------------------------


def print_submissions(found: Submissions) -> None:
    """A table of the submissions, one of their verdicts, and the answer of each."""
    print_table(HEADER, [row.cells for row in found.rows], title="submissions", spare=(5, 3))
    if found.places:
        lines = [
            [label, *(str(row.chips.get(place, "-")) for row in found.rows), found.agreed(place)]
            for place, label in found.places.items()
        ]
        print_table(("", *(row.name for row in found.rows), "together"), lines, title="verdicts")
    for row in found.rows:
        print(printable(f"{row.name}: {row.answer}"))


def render(found: Submissions, style: str) -> str:
    """As ``markdown`` or ``csv``, ending with a newline; a line per submission, a column per place.

    CSV is for programs, so its columns have the keys of the conditions; Markdown has their labels.
    """
    header = [*HEADER, *(found.places if style == "csv" else found.places.values())]
    rows = [[*row.cells, *(str(row.chips.get(place, "-")) for place in found.places)] for row in found.rows]
    if style == "csv":
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows([[printable(cell) for cell in line] for line in (header, *rows)])
        return out.getvalue()
    if style != "markdown":
        raise BadInput(f"studies cannot be written as {style!r}; choose from: markdown, csv, html")
    table = [[markdown_text(cell) for cell in line] for line in (header, *rows)]
    notes = "".join(f"\nNote: {markdown_text(warning)}.\n" for warning in found.warnings)
    return f"{markdown_table(table[0], table[1:])}\n{notes}"


def page(found: Submissions) -> str:
    """One HTML file without scripts or requests: who submitted what, what each found, where they agree."""
    return rendered("submissions.html", found=found, header=HEADER)
