"""A study beside the paper whose experiment it repeats: the published numbers, ours, and whether they compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from netdepth.report.data import StudyData, StudyRun
from netdepth.report.numbers import STATUS, Kind, Number, Numbers, Shown, run_ranges, shown_estimate, shown_interval
from netdepth.report.tables import Table
from netdepth.studies.paper import PAPERS, Beside, Outcome, Paper, Published, beside, error_of
from netdepth.studies.table import SOURCES
from netdepth.studyspec import DEPTH
from netdepth.text import p_value, percent, points

__all__ = ["BesidePaper", "beside_paper"]

ERRORS = (SOURCES["test_last_accuracy"], STATUS)
HEADER = (
    "network", "the paper's", "what that is", "ours: mean test error", "runs", "compared with", "outcome",
    "made from runs",
)  # fmt: skip
OUTCOMES: dict[Outcome, str] = {
    "agrees": "inside", "higher": "ours is higher", "lower": "ours is lower", "too few": "too few runs to say",
}  # fmt: skip
CAPTION = (
    "Test errors of the last weights. A single run of the paper is compared with the interval in which one more run of "
    "ours would lie (Student's t); its best of five with the interval for the best of five more runs of ours (order "
    "statistics of a normal sample), shown after the mean of the best over all sets of five of our runs; its mean and "
    "standard deviation by Welch's t-test, as the difference ours minus the paper's. All intervals are at 95 %, not "
    "corrected for their number. A diverged run counts as guessing."
)


@dataclass(frozen=True)
class BesidePaper:
    """The ``table``, its caption, and why our runs are not comparable; all empty if the paper has no such network."""

    table: Table
    caption: str
    reasons: tuple[Number, ...]


NOTHING = BesidePaper(Table("", HEADER, ()), "", ())


def beside_paper(data: StudyData, numbers: Numbers) -> BesidePaper:
    """Every published number about a network that the study has, with the study's runs of it."""
    if data.spec.paper is None:
        return NOTHING
    paper = PAPERS[data.spec.paper]
    rows: list[tuple[Shown, ...]] = []
    reasons: dict[tuple[str, str], set[int]] = {}
    for cell in data.spec.cells:
        runs = data.cells[cell.condition, cell.level]
        published = paper.about(cell.config, int(cell.levels[DEPTH])) if DEPTH in cell.levels else []
        departures = {run.number: paper.departures(run.config) for run in runs if published and run.finished}
        for number, found in departures.items():
            for item in found.items():
                reasons.setdefault(item, set()).add(number)
        for row in published:
            name = f"{data.spec.label_of(cell.condition)}, {cell.levels[DEPTH]} layers"
            rows.append(([name], *_row(row, runs, paper, not any(departures.values()), numbers)))
    if not rows:
        return NOTHING
    table = Table(f"{paper.name}, {paper.where}, and this study", HEADER, tuple(rows), right=(1, 3, 4, 5))
    said = (
        Number(f"Not comparable: {text}.", None, tuple(sorted(runs)), (field,), "test", "span")
        for (field, text), runs in reasons.items()
    )
    return BesidePaper(table, f"{CAPTION} {paper.remark}", tuple(said))


def _row(
    published: Published, planned: Sequence[StudyRun], paper: Paper, comparable: bool, numbers: Numbers
) -> tuple[Shown, ...]:
    """A published number, our runs of that network, and the outcome of comparing them."""
    found = [(run, error) for run in planned if (error := error_of(run.row)) is not None]
    ours = beside(published, [error for _, error in found])
    made = tuple(run.number for run, _ in found)
    count: list[Number | str] = [numbers.count((run for run, _ in found), planned)]
    if len(found) < len(planned):
        count.append(f" of {len(planned)}")
    diverged = [run for run, _ in found if run.row.made.status == "diverged"]
    if diverged:
        count += [", ", numbers.count(diverged, planned), " diverged"]
    word = "no test errors" if not found else "not comparable" if not comparable else OUTCOMES[ours.outcome]
    outcome: list[Number | str] = [
        # Another run, or a run made in another way, may change the word.
        Number(word, None, tuple(run.number for run in planned), (*ERRORS, *paper.fields), "test", "span")
    ]
    if ours.p is not None and comparable:
        outcome += [" (p ", Number(p_value(ours.p), ours.p, made, ERRORS, "test"), ")"]
    return (
        [_error(published)],
        [_kind(published)],
        shown_estimate(ours.mean, made, ERRORS, "percent"),
        count,
        _held(ours, made),
        outcome,
        [run_ranges(made)],
    )


def _error(item: Published) -> str:
    if item.std is None:
        return percent(item.error)
    return f"{points(item.error, sign=False)} ± {percent(item.std)}"


def _kind(item: Published) -> str:
    return {"one run": "one run", "best": f"best of {item.n} runs", "mean": f"mean ± std of {item.n} runs"}[item.kind]


def _held(ours: Beside, runs: tuple[int, ...]) -> Shown:
    """What the published number is compared with; the prediction of one run is shown without its middle, our mean."""
    kind = ours.published.kind
    if kind == "one run":
        return shown_interval(ours.held, runs, ERRORS, "percent") or ["-"]
    # The best of some runs may stay as it is when another moves: a "test".
    of: Kind = "test" if kind == "best" else "value"
    return shown_estimate(ours.held, runs, ERRORS, "percent", sign=kind == "mean", kind=of)
