"""The tables of a study's page: labels at a glance, cells, comparisons, runs, how they were made."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from netdepth.config import to_json
from netdepth.report.data import Run, StudyData
from netdepth.report.numbers import Number, run_ranges
from netdepth.report.sources import STATUS, Numbers, Shown
from netdepth.runs.table import field_of
from netdepth.studies.contrasts import Contrast, Label
from netdepth.studies.verdict import CellVerdict
from netdepth.studyspec import StudySpec

__all__ = [
    "GLYPHS", "Grid", "Table", "cell_table", "comparison_table", "grids", "made_table", "run_table", "settings",
    "trouble_table",
]  # fmt: skip

WORDS: dict[Label, str] = {
    "exploded": "explodes", "vanished": "vanishes", "degraded": "worse", "helps": "better",
    "no_evidence": "no difference",
    "undecided": "undecided", "exploratory": "not tested", "reference": "reference", "not judged": "not judged",
}  # fmt: skip
GLYPHS: dict[Label, str] = {
    "exploded": "!", "vanished": "∅", "degraded": "↓", "helps": "↑", "no_evidence": "=", "undecided": "?",
    "exploratory": "·", "reference": "•", "not judged": "·",
}  # fmt: skip
ENDS = {"completed": "completed", "stopped_early": "stopped early", "stopped_overfit": "stopped, overfitting"}


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
    """One field of a grid: its label as a CSS class and a sign, in words, and the number below."""

    label: str
    glyph: str
    word: Number
    number: Shown


@dataclass(frozen=True)
class Grid:
    """Labels by depth: a line per condition (with its number, for its colour) or pair of conditions."""

    caption: str
    depths: tuple[int, ...]
    lines: tuple[tuple[str, int | None, tuple[Chip | None, ...]], ...]


def grids(data: StudyData, numbers: Numbers) -> list[Grid]:
    """Depth against the shallowest, then residual against plain where that was asked."""
    if data.verdict is None:
        return []
    depths = data.spec.depths
    places = {(item.cell.condition, item.cell.depth): item for item in data.verdict.cells}
    lines = tuple(
        (name or "all", index, tuple(_chip(places[name, depth], numbers) for depth in depths))
        for index, name in enumerate(data.spec.conditions)
    )
    by_validation = data.spec.by_validation
    made = [] if by_validation else [Grid(f"each depth against depth {depths[0]}", depths, lines)]
    twins: dict[tuple[str, str], dict[int, Contrast]] = {}
    for contrast in data.verdict.contrasts:
        if contrast.family != "depth":
            pair = contrast.cell.condition, contrast.against.condition
            twins.setdefault(pair, {})[contrast.cell.depth] = contrast
    if twins:
        pairs = tuple(
            (f"{left} against {right}", None, tuple(_twin_chip(found.get(depth), numbers) for depth in depths))
            for (left, right), found in twins.items()
        )
        made.append(Grid("one condition against another at equal depth", depths, pairs))
    return made


def _chip(item: CellVerdict, numbers: Numbers) -> Chip:
    cause = "stuck" if item.cell.fate == "at chance" and item.label not in ("vanished", "exploded") else None
    word = "at chance" if cause else WORDS[item.label]
    if not item.cell.runs:
        return Chip("missing", "–", numbers.said("no run", numbers.planned(item.cell.condition, item.cell.depth)), ())
    number = [numbers.measured(item.cell)] if item.label == "exploded" else numbers.loss(item.cell)[:1]
    return Chip(cause or item.label, GLYPHS[item.label], numbers.label(item, word), number)


def _twin_chip(contrast: Contrast | None, numbers: Numbers) -> Chip | None:
    if contrast is None or not all(contrast.runs):
        return None
    word = numbers.contrast_label(contrast, WORDS[contrast.label])
    sort: Literal["loss", "percent"] = "percent" if contrast.family == "condition" else "loss"
    return Chip(contrast.label, GLYPHS[contrast.label], word, numbers.difference(contrast, sort)[:1])


def cell_table(data: StudyData, numbers: Numbers) -> Table:
    """What became of every condition at every depth."""
    header = (
        "condition", "depth", "runs", "verdict", "cause", "training loss (nats)", "validation error",
        "first / last gradient", "made from runs",
    )  # fmt: skip
    rows = []
    for item in data.verdict.cells if data.verdict is not None else ():
        cell = item.cell
        planned = data.cells[cell.condition, cell.depth]
        count: list[Number | str] = [numbers.count((run for run in planned if run.finished), planned)]
        if cell.missing:
            count.append(f" of {len(planned)}")
        kinds = Counter(run.kind for run in cell.runs if run.kind != "trained")
        word = WORDS[item.label] + "".join(f"; {n} {kind}" for kind, n in kinds.items() if n < len(cell.runs))
        cause = numbers.label(item, item.cause) if item.cause is not None else "-"
        loss = numbers.loss(cell)
        if cell.of_kind("exploded"):
            loss += ["; as measured, median ", numbers.measured(cell)]
        values = (loss, numbers.val_error(cell), [numbers.ratio(cell)])
        ranges = run_ranges(numbers.of_cell(cell))
        rows.append(
            ([cell.condition], [str(cell.depth)], count, [numbers.label(item, word)], [cause], *values, [ranges])
        )
    caption = "Per condition and depth: means over the seeds with 95 % intervals"
    return Table(caption, header, tuple(rows), right=(1, 2, 5, 6, 7))


def comparison_table(data: StudyData, numbers: Numbers, primary: bool) -> Table:
    """The comparisons named beforehand, or the others."""
    header = (
        "comparison", "verdict", "difference of training losses (nats)", "n", "p", "corrected p",
        "difference of validation errors", "its corrected p", "made from runs",
    )  # fmt: skip
    rows = []
    for contrast in data.verdict.contrasts if data.verdict is not None else ():
        if contrast.primary != primary:
            continue
        cell, other = contrast.cell, contrast.against
        against = f"depth {other.depth}" if contrast.family == "depth" else other.condition
        word = WORDS[contrast.label] + (f" ({contrast.cause})" if contrast.cause is not None else "")
        rows.append(
            (
                [f"{cell.place} against {against}"],
                [numbers.contrast_label(contrast, word)],
                numbers.difference(contrast, "loss"),
                numbers.sizes(contrast),
                [numbers.p(contrast)],
                [numbers.corrected_p(contrast)],
                numbers.difference(contrast, "percent"),
                [numbers.corrected_p(contrast, validation=True)],
                [run_ranges(numbers.compared(contrast))],
            )
        )
    if data.spec.by_validation:  # p and corrected p are of the validation error then
        header, rows = _without(header, (2, 7)), [_without(row, (2, 7)) for row in rows]
        caption = "Named beforehand: these may claim" if primary else "Exploratory: shown, but they claim nothing"
        return Table(caption, header, tuple(rows), (2, 3, 4, 5))
    caption = "Named beforehand: these may claim" if primary else "Exploratory: shown, but they claim nothing"
    right: tuple[int, ...] = (2, 3, 4, 5, 6, 7)
    if not primary:  # never corrected
        header, rows = _without(header, (5, 7)), [_without(row, (5, 7)) for row in rows]
        right = (2, 3, 4, 5)
    return Table(caption, header, tuple(rows), right)


def run_table(data: StudyData, numbers: Numbers) -> Table:
    """Every planned run; its number is what the page calls it."""
    header = (
        "run", "folder", "condition", "depth", "seed", "status", "training loss", "training error", "validation loss",
        "validation error", "epochs", "parameters", "seconds",
    )  # fmt: skip
    columns: Sequence[tuple[str, Any]] = (
        ("train_last_loss", "loss"), ("train_last_accuracy", "percent"), ("val_last_loss", "loss"),
        ("val_last_accuracy", "percent"), ("epochs", "plain"), ("num_params", "plain"), ("seconds", "plain"),
    )  # fmt: skip
    rows = []
    for run in data.runs:
        row = run.row
        place = [[str(run.number)], [row["run"] or "not planned yet"], [row["condition"]], [str(row["depth"])]]
        status = Number(ENDS.get(row["status"], row["status"]), None, (run.number,), (STATUS,), "test", "span")
        end: list[Shown] = [[str(row["seed"])], [status]]
        rows.append((*place, *end, *([numbers.of_run(run, column, sort)] for column, sort in columns)))
    caption = "Every planned run, with the last weights of each"
    anchors = tuple(f"run-{run.number}" for run in data.runs)
    return Table(caption, header, tuple(rows), right=(0, 3, 4, *range(6, 13)), anchors=anchors)


def trouble_table(data: StudyData, numbers: Numbers) -> Table:
    """Runs that failed, are missing, or diverged: never left out in silence."""
    said = {
        "no run": "its folder is not there", "unfinished": "begun, not finished", "failed": "failed",
        "unreadable": "its folder cannot be read",
        "diverged": "diverged: its loss was no longer finite; it counts as chance",
    }  # fmt: skip
    groups: dict[tuple[str, str, int], list[Run]] = {}
    for run in sorted(data.runs, key=lambda run: run.row["status"] == "diverged"):
        row = run.row
        if row["status"] in said or row["error"]:
            what = said.get(row["status"], row["status"]) + (f" ({row['error']})" if row["error"] else "")
            groups.setdefault((what, *run.place), []).append(run)
    rows: list[tuple[Shown, ...]] = []
    for (what, condition, depth), runs in groups.items():
        cell = data.cells[condition, depth]
        count: Shown = [numbers.count(runs, cell), f" of {len(cell)}"]
        seeds, folders = run_ranges(run.row["seed"] for run in runs), _few([run.row["run"] or "-" for run in runs])
        rows.append(
            ([what], [condition], [str(depth)], count, [seeds], [run_ranges(run.number for run in runs)], [folders])
        )
    header = ("what happened", "condition", "depth", "how many", "seeds", "runs", "folders")
    return Table("Runs without a result, and diverged ones", header, tuple(rows), right=(2, 3))


def made_table(data: StudyData) -> Table:
    """How the runs were made: one line per way, with how many runs were."""
    names = ("netdepth", "torch", "python", "device", "threads", "matmul", "made", "stack")
    ways: dict[tuple[str, ...], list[Run]] = {}
    for run in data.runs:
        if run.environment:
            ways.setdefault(tuple(_text(run.environment.get(name)) for name in names), []).append(run)
    rows: list[tuple[Shown, ...]] = []
    for way, runs in ways.items():
        made_of = tuple(run.number for run in runs)
        values: list[Shown] = [
            [Number(text, text, made_of, (f"environment.json:{name}",))] for name, text in zip(names, way, strict=True)
        ]
        rows.append((*values, [run_ranges(made_of)]))
    header = ("netdepth", "torch", "python", "device", "threads", "matrix products", "made", "seeds per stack", "runs")
    return Table("How the runs were made", header, tuple(rows))


def settings(data: StudyData) -> list[tuple[str, Shown]]:
    """The study's settings as names and values: the axes, what was held fixed or tuned, the base."""
    spec = data.spec
    shown: list[tuple[str, Shown]] = [
        ("name", [spec.name]),
        ("seeds", [run_ranges(spec.seeds)]),
        ("smallest effect of interest", [_effect(spec)]),
    ]
    for axis in spec.scientific:
        levels = [f"{name}: {_assigned(given)}" if given else name for name, given in axis.levels.items()]
        shown.append((f"varied: {axis.name}", ["; ".join(levels)]))
    for item in spec.nuisance:
        tried = ", ".join(f"{value:g}" for value in item.values)
        how = (
            f", tuned among {tried} on seeds {run_ranges(item.seeds)}"
            if tried
            else ", fixed: neither compared nor tuned"
        )
        shown.append((item.path, [*_values_at(data, item.path), how]))
    base = to_json(spec.base)
    for part in ("dataset", "model", "objective", "optimizer", "schedule", "augmentation"):
        shown.append((part, [" ".join([base[part]["name"], _assigned(base[part]["args"])]).strip()]))
    shown.append(("train", [_assigned(base["train"])]))
    return shown


def _effect(spec: StudySpec) -> str:
    if spec.by_validation:
        return f"{100 * spec.smallest_effect:g} percentage points of validation error"
    return f"{spec.smallest_effect:g} nats"


def _values_at(data: StudyData, path: str) -> Shown:
    """The values that the runs had at a ``--set`` path, each with its runs."""
    part, _, name = path.partition(".")
    found: dict[str, list[int]] = {}
    field = f"{part}.{name}" if part == "train" else f"{part}.args.{name}"
    for run in data.runs:
        if run.config:
            found.setdefault(_text(field_of(run.config, field)), []).append(run.number)
    shown: list[Number | str] = []
    for text, runs in found.items():
        shown += [", " if shown else "", Number(text, text, tuple(runs), (f"config.json:{field}",))]
    return shown or ["not known yet"]


def _assigned(values: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={_text(value)}" for key, value in values.items() if value is not None)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "-" if value is None else json.dumps(value, separators=(",", ":"))


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")


def _without(row: Iterable[Any], dropped: Sequence[int]) -> tuple[Any, ...]:
    return tuple(item for index, item in enumerate(row) if index not in dropped)
