"""The pieces that a verdict's sentences are put together from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from netdepth.studies.cells import ACCURACY, LOSS, RATIO, CellRuns
from netdepth.studies.contrasts import Contrast, Label

__all__ = [
    "OUTCOMES", "WAYS", "Sentence", "capital", "depths_of", "fields_used", "folders_of", "interval", "more_seeds",
    "number", "p_value", "percent", "points", "signed", "versus",
]  # fmt: skip

OUTCOMES: dict[Label, str] = {
    "exploded": "explodes",
    "vanished": "the signal vanishes",
    "degraded": "trains worse",
    "helps": "trains better",
    "no_evidence": "no evidence of a difference",
    "undecided": "undecided",
    "exploratory": "not among the comparisons named beforehand",
}

WAYS: dict[Label, str] = {
    **OUTCOMES,
    "degraded": "loses",
    "helps": "wins",
}
"""What one way of training does against another."""


@dataclass(frozen=True)
class Sentence:
    """Something the study says, with the folders of the runs and the ``file:field`` it rests on."""

    text: str
    runs: tuple[str, ...]
    fields: tuple[str, ...]


def versus(contrast: Contrast) -> str:
    """Who is compared with whom."""
    if contrast.family == "depth":
        return f"{contrast.cell.place} against depth {contrast.against.depth}"
    return f"{contrast.cell.condition} against {contrast.against.condition} at depth {contrast.cell.depth}"


def more_seeds(contrast: Contrast) -> str:
    if contrast.more_seeds is None:
        return "Not even a thousand seeds would decide it"
    n = contrast.more_seeds
    return f"About {n} more seed{'s' * (n > 1)} would decide it, if it goes on as measured"


def depths_of(depths: Iterable[int]) -> str:
    """``depth 8``, ``depths 8, 16 and 32``."""
    names = [str(depth) for depth in depths]
    return f"depth {names[0]}" if len(names) == 1 else f"depths {', '.join(names[:-1])} and {names[-1]}"


def folders_of(cells: Iterable[CellRuns]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(run.folder for cell in cells for run in cell.runs))


def fields_used(fields: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(fields[name] for name in (LOSS, ACCURACY, RATIO))


def number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:#.3g}".rstrip(".")


def signed(value: float | None) -> str:
    return "unknown" if value is None else f"{value:+#.3g}".rstrip(".")


def p_value(p: float) -> str:
    return "below 0.0001" if p < 0.0001 else f"= {p:.2g}"


def points(value: float | None) -> str:
    """A difference of fractions in percentage points."""
    return "unknown" if value is None else f"{100 * value:+.2f}"


def percent(value: float | None) -> str:
    return "unknown" if value is None else f"{100 * value:.2f} %"


def interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" [{number(low)}, {number(high)}] (95 % interval)"


def capital(text: str) -> str:
    """``Depth 8 …``; the name of a condition stays as it is."""
    return f"D{text[1:]}" if text.startswith("depth") else text
