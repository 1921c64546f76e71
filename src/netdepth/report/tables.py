"""The tables of a study's page: labels at a glance, cells, comparisons, runs, how they were made."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from netdepth.config import to_json
from netdepth.report.data import Run, StudyData
from netdepth.report.numbers import STATUS, Number, Numbers, Shown, run_ranges
from netdepth.runs.table import field_of
from netdepth.studies.contrasts import CellVerdict, Contrast, Label
from netdepth.studies.sentences import by_condition, named, versus
from netdepth.studyspec import StudySpec

__all__ = [
    "GLYPHS", "Grid", "Table", "cell_table", "comparison_table", "grids", "made_table", "run_table", "settings",
    "trouble_table",
]  # fmt: skip

WORDS: dict[Label, str] = {
    "exploded": "explodes", "vanished": "vanishes", "degraded": "worse", "helps": "better",
    "no_evidence": "no difference", "undecided": "undecided", "exploratory": "", "reference": "reference",
    "not judged": "not judged",
}  # fmt: skip
"""What a table says of a label; nothing of a comparison that was not named before the runs."""

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
    """One field of a grid: its label as a CSS class and a sign, in words (none: not tested), and the number below."""

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
    found = data.verdict
    if found is None:
        return []
    depths, grid = data.spec.depths, []
    if not data.spec.by_validation:
        lines = tuple(
            (cells[0].cell.label or "all", index, tuple(_chip(item, numbers) for item in cells))
            for index, cells in enumerate(by_condition(found.cells).values())
        )
        tested = any(c.primary and c.family == "depth" for c in found.contrasts)
        title = f"each depth against depth {depths[0]}" if tested else "each depth"
        n = _sizes(len(item.cell.runs) for item in found.cells)
        grid.append(Grid(f"{title} (mean training loss in nats, n = {n} runs)", depths, lines))
    twins: dict[str, dict[int, Contrast]] = {}
    for contrast in found.contrasts:
        if contrast.family != "depth":
            name = f"{named(contrast.cell)} against {named(contrast.against)}"
            twins.setdefault(name, {})[contrast.cell.depth] = contrast
    if twins:
        pairs = tuple(
            (name, None, tuple(_twin_chip(own.get(depth), numbers) for depth in depths)) for name, own in twins.items()
        )
        what = "validation errors" if data.spec.by_validation else "mean training losses in nats"
        n = _sizes(len(contrast.runs[0]) for own in twins.values() for contrast in own.values())
        caption = f"one condition against another at equal depth (difference of {what}, n = {n} pairs of runs)"
        grid.append(Grid(caption, depths, pairs))
    return grid


def _sizes(counts: Iterable[int]) -> str:
    smallest, *_, largest = [*sorted(counts)] * 2
    return f"{smallest}" if smallest == largest else f"{smallest} to {largest}"


def _chip(item: CellVerdict, numbers: Numbers) -> Chip:
    stuck = item.cell.fate == "at chance" and item.label not in ("vanished", "exploded")
    if not item.cell.runs:
        return Chip("missing", "–", numbers.said("no run", numbers.planned(item.cell.condition, item.cell.depth)), ())
    number = [numbers.measured(item.cell)] if item.label == "exploded" else numbers.loss(item.cell)
    shown = number if item.label == "exploratory" else number[:1]
    word = numbers.label(item, "at chance" if stuck else WORDS[item.label])
    return Chip("stuck" if stuck else item.label, GLYPHS[item.label], word, shown)


def _twin_chip(contrast: Contrast | None, numbers: Numbers) -> Chip | None:
    if contrast is None or not all(contrast.runs):
        return None
    word = numbers.contrast_label(contrast, WORDS[contrast.label])
    number = numbers.difference(contrast, "percent" if contrast.family == "condition" else "loss")
    return Chip(contrast.label, GLYPHS[contrast.label], word, number if not contrast.primary else number[:1])


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
        some = [f"{n} {kind}" for kind, n in kinds.items() if n < len(cell.runs)]
        word = "; ".join(part for part in (WORDS[item.label], *some) if part)
        cause = numbers.label(item, item.cause) if item.cause is not None else "-"
        loss = numbers.loss(cell)
        if cell.of_kind("exploded"):
            loss += ["; as measured, median ", numbers.measured(cell)]
        values = (loss, numbers.val_error(cell), [numbers.ratio(cell)])
        ranges = run_ranges(numbers.of_cell(cell))
        rows.append(
            ([cell.label], [str(cell.depth)], count, [numbers.label(item, word or "-")], [cause], *values, [ranges])
        )
    caption = "Per condition and depth: means over the seeds with 95 % intervals"
    return Table(caption, header, tuple(rows), right=(1, 2, 5, 6, 7))


def comparison_table(data: StudyData, numbers: Numbers, primary: bool) -> Table:
    """The comparisons named beforehand, or the others, which have no verdict and no corrected p-value."""
    loss, error = "difference of training losses (nats)", "difference of validation errors"
    header = ["comparison", "verdict", loss, "n", "p", "corrected p", error, "its corrected p", "made from runs"]
    right = {loss, "n", "p", "corrected p", error, "its corrected p"}
    shown = set(header)
    if data.spec.by_validation:  # p and corrected p are of the validation error then
        shown -= {loss, "its corrected p"}
    if not primary:
        shown -= {"verdict", "corrected p", "its corrected p"}
    rows = []
    for contrast in data.verdict.contrasts if data.verdict is not None else ():
        if contrast.primary == primary:
            word = WORDS[contrast.label] + (f" ({contrast.cause})" if contrast.cause is not None else "")
            row: dict[str, Shown] = {
                "comparison": [versus(contrast)],
                "verdict": [numbers.contrast_label(contrast, word)],
                loss: numbers.difference(contrast, "loss"),
                "n": numbers.sizes(contrast),
                "p": [numbers.p(contrast)],
                "corrected p": [numbers.corrected_p(contrast)],
                error: numbers.difference(contrast, "percent"),
                "its corrected p": [numbers.corrected_p(contrast, validation=True)],
                "made from runs": [run_ranges(numbers.compared(contrast))],
            }
            rows.append(tuple(row[name] for name in header if name in shown))
    kept = [name for name in header if name in shown]
    caption = "Named before the runs: these may claim" if primary else "Not named before the runs: they claim nothing"
    return Table(caption, tuple(kept), tuple(rows), tuple(i for i, name in enumerate(kept) if name in right))


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
        label = data.spec.label_of(condition)
        count: Shown = [numbers.count(runs, cell), f" of {len(cell)}"]
        seeds, folders = run_ranges(run.row["seed"] for run in runs), _few([run.row["run"] or "-" for run in runs])
        rows.append(
            ([what], [label], [str(depth)], count, [seeds], [run_ranges(run.number for run in runs)], [folders])
        )
    header = ("what happened", "condition", "depth", "how many", "seeds", "runs", "folders")
    return Table("Runs without a result, and diverged ones", header, tuple(rows), right=(2, 3))


def made_table(data: StudyData) -> Table:
    """How the runs were made: a line per combination of versions and device, with the runs made so."""
    names = ("netdepth", "torch", "python", "device", "threads", "matmul", "made", "stack")
    makings: dict[tuple[str, ...], list[Run]] = {}
    for run in data.runs:
        if run.environment:
            makings.setdefault(tuple(_text(run.environment.get(name)) for name in names), []).append(run)
    rows: list[tuple[Shown, ...]] = []
    for making, runs in makings.items():
        made_of = tuple(run.number for run in runs)
        values: list[Shown] = [
            [Number(text, text, made_of, (f"environment.json:{name}",))]
            for name, text in zip(names, making, strict=True)
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
        names = {name: spec.label_of(name) if name in spec.conditions else name for name in axis.levels}
        shown_names = {name: name if name == label else f"{label} (key {name!r})" for name, label in names.items()}
        levels = [f"{shown_names[name]}: {_assigned(given)}".removesuffix(": ") for name, given in axis.levels.items()]
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
