"""The tables of a study's page: labels at a glance, cells, comparisons, runs, how they were made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from netdepth.config import Json, Settings, to_json
from netdepth.report.data import StudyData, StudyRun
from netdepth.report.numbers import STATUS, Number, Numbers, Shown, run_ranges, shown_text
from netdepth.runs.table import field_of
from netdepth.studies.comparison import CellVerdict, Contrast, Label
from netdepth.studies.contrasts import by_condition
from netdepth.studies.wording import CAUSES, failed_words, named, quantity_of, versus
from netdepth.studyspec import StudySpec
from netdepth.text import STATUS_WORDS, as_typed, count, percent, plain

__all__ = [
    "GLYPHS", "Grid", "Table", "cell_table", "compared", "comparison_table", "grids", "made_table", "run_table",
    "settings", "trouble_table", "values_at",
]  # fmt: skip

WORDS: dict[Label, str] = {
    "exploded": "explodes", "vanished": "vanishes", "at chance": "at chance", "degraded": "worse", "helps": "better",
    "equivalent": "equivalent", "not worse": "not worse", "undecided": "undecided", "exploratory": "",
    "reference": "reference", "not judged": "not judged",
}  # fmt: skip
"""What a table says of a label; nothing of a comparison that was not named before the runs."""

MADE = {"alone": "one by one", "cohort": "several seeds together"}
"""What ``environment.json`` says of how a run was trained, for people."""

GLYPHS: dict[Label, str] = {
    "exploded": "!", "vanished": "∅", "at chance": "~", "degraded": "↓", "helps": "↑", "equivalent": "=",
    "not worse": "≥", "undecided": "?",
    "exploratory": "·", "reference": "•", "not judged": "·",
}  # fmt: skip


@dataclass(frozen=True)
class Table:
    """``rows`` of cells below a ``header``; ``anchors`` are ids of rows, ``right`` columns that hold numbers."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Shown, ...], ...]
    right: tuple[int, ...] = ()
    anchors: tuple[str, ...] = ()


@dataclass(frozen=True)
class Chip:
    """One field of a grid: its label as a CSS class and a sign, in words (none: not tested), and the number below."""

    label: str
    glyph: str
    word: Number
    number: Shown

    def __str__(self) -> str:
        return f"{self.word} {shown_text(self.number)}".strip()


@dataclass(frozen=True)
class GridLine:
    """A condition (with its ``index``, for its colour) or a pair: its name for people and for programs, its chips."""

    name: str
    key: str
    index: int | None
    chips: tuple[Chip | None, ...]


@dataclass(frozen=True)
class Grid:
    """What was found at each level of the factor, a line per condition or pair of conditions.

    ``heads`` are the levels as the heads of columns, ``places`` the same as they stand alone ("depth 8")."""

    caption: str
    heads: tuple[str, ...]
    places: tuple[str, ...]
    lines: tuple[GridLine, ...]


def _table(
    caption: str, rows: Sequence[Mapping[str, Shown]], text: Sequence[str], anchors: Sequence[str] = ()
) -> Table:
    """``rows`` by column (``-`` where a row has none), without the columns that say ``-`` in every row; those not in
    ``text`` hold numbers."""
    every = dict.fromkeys(title for row in rows for title in row)
    titles = tuple(title for title in every if any(shown_text(row.get(title, ["-"])) != "-" for row in rows))
    cells = tuple(tuple(row.get(title, ["-"]) for title in titles) for row in rows)
    right = tuple(index for index, title in enumerate(titles) if title not in text)
    return Table(caption, titles, cells, right, tuple(anchors))


def grids(data: StudyData, numbers: Numbers) -> list[Grid]:
    """Each level against the reference, then residual against plain where that was asked."""
    found = data.verdict
    if found is None:
        return []
    levels, grid, factor = data.spec.levels, [], data.spec.factor_name
    places = tuple(map(data.spec.place, levels))
    heads = (places[0], *(place.removeprefix(f"{factor} ") for place in places[1:]))
    if not data.spec.by_validation:
        tested = any(contrast.primary and contrast.family == "depth" for contrast in found.contrasts)
        lines = tuple(
            GridLine(
                cells[0].cell.label or "all",
                key or "all",
                i,
                tuple(_chip(item, numbers, tested) for item in cells),
            )
            for i, (key, cells) in enumerate(by_condition(found.cells).items())
        )
        against = f" against {data.spec.place(data.spec.reference_level)}" if tested else ""
        title = f"Each {factor or 'condition'}{against}"
        n = _sizes(len(item.cell.runs) for item in found.cells)
        caption = f"{title} (mean {compared(data)}, n = {n} runs)"
        alone = None if factor else (f"mean {compared(data)}",)
        grid.append(Grid(caption, alone or heads, alone or places, lines))
    twins: dict[tuple[str, str], dict[str, Contrast]] = {}
    for contrast in found.contrasts:
        if contrast.family in ("shortcut", "condition") and not contrast.by_data_set:
            name = f"{named(contrast.cell)} against {named(contrast.against)}"
            key = f"{contrast.cell.condition} against {contrast.against.condition}"
            twins.setdefault((name, key), {})[contrast.cell.level] = contrast
    if twins:
        pairs = tuple(
            GridLine(name, key, None, tuple(_twin_chip(own.get(level), numbers) for level in levels))
            for (name, key), own in twins.items()
        )
        one = next(contrast for own in twins.values() for contrast in own.values())
        quantity = quantity_of(one.family, data.spec, one.cell.scale)
        what = f"{quantity.name} in {quantity.difference_unit}" if quantity.difference_unit else quantity.name
        n = _sizes(len(runs) for own in twins.values() for contrast in own.values() for runs in contrast.runs)
        equal = f" at equal {factor}" if factor else ""
        caption = f"One condition against another{equal} (difference of mean {what}, n = {n} runs)"
        alone = None if factor else ("difference",)
        grid.append(Grid(caption, alone or heads, alone or places, pairs))
    return grid


def compared(data: StudyData) -> str:
    """What the levels are judged by, with its unit."""
    if data.spec.metric is None:
        return data.losses
    quantity = quantity_of("depth", data.spec)
    in_nats = quantity.unit == " nats" and not data.values
    return f"{quantity.name} in nats" if in_nats else quantity.name


def _level(data: StudyData, level: str) -> Mapping[str, Shown]:
    """The column of the factor; none where there is no factor."""
    return {data.spec.factor_name: [level]} if data.spec.factor is not None else {}


def _sizes(counts: Iterable[int]) -> str:
    smallest, *_, largest = [*sorted(counts)] * 2
    return f"{smallest}" if smallest == largest else f"{smallest} to {largest}"


def _chip(item: CellVerdict, numbers: Numbers, tested: bool) -> Chip:
    """The label of a cell in a grid where some depth was ``tested``, else its number with the interval."""
    if not item.cell.runs:
        return Chip("missing", "–", numbers.said("no run", numbers.planned(item.cell.condition, item.cell.level)), ())
    label: Label = "exploratory" if item.label == "reference" and not tested else item.label
    exploded = label == "exploded" and numbers.data.spec.metric is None
    number = [numbers.measured(item.cell)] if exploded else numbers.compared_value(item.cell)
    word = numbers.label(item, WORDS[label])
    return Chip(label, GLYPHS[label], word, number if label == "exploratory" else number[:1])


def _twin_chip(contrast: Contrast | None, numbers: Numbers) -> Chip | None:
    if contrast is None or not all(contrast.runs):
        return None
    word = numbers.contrast_label(contrast, WORDS[contrast.label])
    number = numbers.difference(contrast)
    return Chip(contrast.label, GLYPHS[contrast.label], word, number if not contrast.primary else number[:1])


def cell_table(data: StudyData, numbers: Numbers) -> Table:
    """What became of every condition at every level."""
    rows: list[dict[str, Shown]] = []
    for item in data.verdict.cells if data.verdict is not None else ():
        cell = item.cell
        planned = data.cells[cell.condition, cell.level]
        explanation = item.contrast and item.contrast.explanation
        word = "-" if data.spec.factor is None and item.label == "reference" else WORDS[item.label] or "-"
        cause = CAUSES[explanation.cause] if explanation else "-"
        measured: Shown = ["; as measured, median ", numbers.measured(cell)] if cell.of_kind("exploded") else []
        count = numbers.count((run for run in planned if run.finished), planned)
        rows.append(
            {
                "condition": [cell.label],
                **_level(data, cell.level),
                "runs": [count, f" of {len(planned)}"] if cell.missing else [count],
                "verdict": [numbers.label(item, word)],
                "consistent with": [numbers.label(item, cause) if explanation else "-"],
                "failed": [numbers.said(failed_words(cell) or "-", numbers.of_cell(cell))],
                "mean training loss" if data.values else "mean training loss (nats)": [*numbers.loss(cell), *measured],
                **({f"mean {compared(data)}": numbers.compared_value(cell)} if data.spec.metric is not None else {}),
                "mean validation error": numbers.val_error(cell),
                "first / last gradient": [numbers.ratio(cell)],
                "made from runs": [run_ranges(numbers.of_cell(cell))],
            }
        )
    factor = f" and {data.spec.factor_name}" if data.spec.factor else ""
    caption = f"Per condition{factor}: means over the seeds with 95 % intervals"
    return _table(caption, rows, text=("condition", "verdict", "consistent with", "failed", "made from runs"))


def comparison_table(data: StudyData, numbers: Numbers, primary: bool) -> Table:
    """The comparisons named beforehand, or the others, which have no verdict and no corrected p-value."""
    rows: list[dict[str, Shown]] = []
    contrasts = [c for c in (data.verdict.contrasts if data.verdict is not None else ()) if c.primary == primary]
    differences = [_difference(contrast, data.spec) for contrast in contrasts]
    for contrast, difference in zip(contrasts, differences, strict=True):
        beside = data.spec.metric is None and contrast.family != "condition" and len(contrast.runs) == 2
        rows.append(
            {
                "comparison": [versus(contrast, data.spec)],
                "verdict": [numbers.contrast_label(contrast, WORDS[contrast.label] or "-")],
                **{title: numbers.difference(contrast) if title == difference else ["-"] for title in differences},
                "interval at the level of its test": numbers.corrected_interval(contrast),
                "n": numbers.sizes(contrast),
                "failed": numbers.failed(contrast),
                "p, exact test": [numbers.p(contrast, "exact")],
                "p, t test": [numbers.p(contrast, "t")],
                "corrected p": [numbers.corrected_p(contrast)],
                "difference of mean validation error (percentage points)": numbers.val_difference(contrast)
                if beside
                else ["-"],
                "made from runs": [run_ranges(numbers.compared(contrast))],
            }
        )
    caption = "Named before the runs: these may claim" if primary else "Not named before the runs: they claim nothing"
    return _table(caption, rows, text=("comparison", "verdict", "failed", "made from runs"))


def _difference(contrast: Contrast, spec: StudySpec) -> str:
    """The head of the column of its difference, with the unit."""
    quantity = quantity_of(contrast.family, spec, contrast.cell.scale)
    unit = f" ({quantity.difference_unit})" if quantity.difference_unit else ""
    return f"difference of mean {quantity.name}{unit}, 95 % interval"


def run_table(data: StudyData, numbers: Numbers) -> Table:
    """Every planned run; its number is what the page calls it."""
    rows: list[dict[str, Shown]] = []
    for run in data.runs:
        row, said = run.row, STATUS_WORDS.get(run.row.made.status, run.row.made.status)
        status = Number(said, None, (run.number,), (STATUS,), "test", "span")
        rows.append(
            {
                "run": [str(run.number)],
                "folder": [row.planned.folder or "not planned yet"],
                "condition": [data.spec.label_of(row.planned.condition)],
                **_level(data, row.planned.level),
                "seed": [str(row.planned.seed)],
                "status": [status],
                "training loss": [numbers.of_run(run, "train_last_loss", "loss")],
                "training error": [numbers.of_run(run, "train_last_accuracy", "percent")],
                "validation loss": [numbers.of_run(run, "val_last_loss", "loss")],
                "validation error": [numbers.of_run(run, "val_last_accuracy", "percent")],
                "epochs": [numbers.of_run(run, "epochs", "plain")],
                "parameters": [numbers.of_run(run, "num_params", "plain")],
                "seconds": [numbers.of_run(run, "seconds", "plain")],
            }
        )
    anchors = [f"run-{run.number}" for run in data.runs]
    return _table("Every planned run, with the last weights of each", rows, ("folder", "condition", "status"), anchors)


def trouble_table(data: StudyData, numbers: Numbers) -> Table:
    """Runs that failed, are missing, or diverged: never left out in silence."""
    groups: dict[tuple[str, str, str], list[StudyRun]] = {}
    for run in sorted(data.runs, key=lambda run: run.row.made.status == "diverged"):
        made = run.row.made
        if not run.finished or made.status == "diverged" or made.error:
            what = STATUS_WORDS.get(made.status, made.status) + (f" ({made.error})" if made.error else "")
            what += ": its loss was no longer finite; it counts as chance" if made.status == "diverged" else ""
            groups.setdefault((what, *run.place), []).append(run)
    rows: list[dict[str, Shown]] = [
        {
            "what happened": [what],
            "condition": [data.spec.label_of(condition)],
            **_level(data, level),
            "how many": [numbers.count(runs, data.cells[condition, level]), f" of {len(data.cells[condition, level])}"],
            "seeds": [run_ranges(run.row.planned.seed for run in runs)],
            "runs": [run_ranges(run.number for run in runs)],
            "folders": [_few([run.row.planned.folder or "-" for run in runs])],
        }
        for (what, condition, level), runs in groups.items()
    ]
    text = ("what happened", "condition", "seeds", "runs", "folders")
    return _table("Runs without a result, and diverged ones", rows, text)


def made_table(data: StudyData) -> Table:
    """How the runs were made: a line per combination of versions and device, with the runs made so."""
    titles = {
        "netdepth": "netdepth", "torch": "torch", "python": "python", "device": "device", "threads": "threads",
        "matmul": "matrix products", "made": "trained", "stack": "seeds per stack",
    }  # fmt: skip
    makings: dict[tuple[str, ...], list[int]] = {}
    for run in data.runs:
        if run.environment:
            made = {**run.environment, "made": MADE.get(str(run.environment.get("made")))}
            makings.setdefault(tuple(_text(made.get(name)) for name in titles), []).append(run.number)
    rows: list[dict[str, Shown]] = []
    for making, runs in makings.items():
        row: dict[str, Shown] = {
            title: [Number(text, text, tuple(runs), (f"environment.json:{name}",))]
            for (name, title), text in zip(titles.items(), making, strict=True)
        }
        rows.append({**row, "runs": [run_ranges(runs)]})
    return _table("How the runs were made", rows, text=(*titles.values(), "runs"))


def settings(data: StudyData) -> list[tuple[str, Shown]]:
    """The study's settings as names and values: the axes, what was held fixed or tuned, the base."""
    spec = data.spec
    shown: list[tuple[str, Shown]] = [
        ("name", [spec.name]),
        ("seeds", [run_ranges(spec.seeds)]),
        *((f"seeds of {spec.label_of(name)}", [run_ranges(seeds)]) for name, seeds in spec.seeds_of.items()),
        ("smallest effect of interest", [_smallest_effect(spec, data.values)]),
    ]
    if spec.metric is not None:
        shown.append(("compared by", [f"{spec.metric}, {'higher' if spec.higher_is_better else 'lower'} is better"]))
    if spec.factor is not None and spec.reference is not None:
        shown.append(("reference", [spec.place(spec.reference)]))
    if spec.combine is not None:
        asked = sum(item.condition in spec.combined for item in spec.primary)
        shown.append(("combined over", [f"{spec.combine}: {count(asked, 'comparison')} of all together"]))
    for axis in spec.scientific:
        names = {name: spec.label_of(name) if name in spec.conditions else name for name in axis.levels}
        shown_names = {name: name if name == label else f"{label} (key {name!r})" for name, label in names.items()}
        levels = [filter(None, (shown_names[name], _assigned(given))) for name, given in axis.levels.items()]
        shown.append((f"varied: {axis.name}", ["; ".join(map(": ".join, levels))]))
    for item in spec.nuisance:
        tried = ", ".join(plain(value) for value in item.values)
        how = f"tuned among {tried} on seeds {run_ranges(item.seeds)}" if tried else "the same in every condition"
        shown.append((item.path, [*(values_at(data, item.path) or ["not known yet"]), f", {how}"]))
    base = to_json(spec.base)
    for part in ("dataset", "model", "objective", "optimizer", "schedule", "augmentation"):
        shown.append((part, [" ".join([base[part]["name"], _assigned(base[part]["args"])]).strip()]))
    shown.append(("train", [_assigned(base["train"])]))
    return shown


def _smallest_effect(spec: StudySpec, of_values: bool) -> str:
    if spec.effect == "relative":
        return f"{percent(spec.smallest_effect, 1)} of the reference's mean"
    if spec.metric is not None:
        return f"{plain(spec.smallest_effect)} of {spec.metric}"
    if spec.by_validation:
        return f"{plain(100 * spec.smallest_effect)} percentage points of validation error"
    return f"{plain(spec.smallest_effect)} of training loss" if of_values else f"{plain(spec.smallest_effect)} nats"


def values_at(data: StudyData, path: str) -> Shown:
    """The values that the runs had at a ``--set`` path, each with its runs; none while no run has begun."""
    part, _, name = path.partition(".")
    found: dict[str, list[int]] = {}
    field = f"{part}.{name}" if part == "train" else f"{part}.args.{name}"
    for run in data.runs:
        if run.config:
            found.setdefault(_text(field_of(run.config, field)), []).append(run.number)
    shown: list[Number | str] = []
    for text, runs in found.items():
        shown += [*[", "] * bool(shown), Number(text, text, tuple(runs), (f"config.json:{field}",))]
    return shown


def _assigned(values: Settings) -> str:
    return " ".join(f"{key}={_text(value)}" for key, value in values.items() if value is not None)


def _text(value: Json) -> str:
    return "-" if value is None else as_typed(value)


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")
