"""Numbers that know where they come from: each carries the runs and the ``file:field`` it was made of.

Runs are named by their place in the plan, 1, 2, ..., which the page's list of runs translates into
folders. Two kinds are told apart. A ``value`` (a loss, a mean, the end of an interval) moves whenever
one of its sources does. A ``test`` (a p-value, a label, a sentence) depends on its sources and on
nothing else, but may well stay the same when one of them moves.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any, Literal

from netdepth.text import printable

if TYPE_CHECKING:
    from markupsafe import Markup

__all__ = ["Number", "read_numbers", "run_numbers", "run_ranges", "shown_loss", "shown_p", "shown_percent"]

Kind = Literal["value", "test"]


@dataclass(frozen=True)
class Number:
    """``text`` as shown and ``value`` as computed, made of ``fields`` (``file:field``) of ``runs`` (their numbers)."""

    text: str
    value: float | int | str | None
    runs: tuple[int, ...]
    fields: tuple[str, ...]
    kind: Kind = "value"
    tag: Literal["data", "span"] = "data"

    def attributes(self) -> Markup:
        """What the element carries, as HTML attributes."""
        from markupsafe import Markup, escape

        ranges, fields = run_ranges(self.runs), " ".join(self.fields)
        where = f"runs {ranges}: {', '.join(self.fields)}" if ranges else ", ".join(self.fields)
        value = f'value="{escape(_exact(self.value))}" ' if self.tag == "data" else ""
        made_of = f'data-runs="{ranges}" data-fields="{escape(fields)}"'
        return Markup(f'{value}data-kind="{self.kind}" {made_of} title="{escape(where)}"')

    def __html__(self) -> str:
        from markupsafe import escape

        return f"<{self.tag} {self.attributes()}>{escape(printable(self.text))}</{self.tag}>"

    def __str__(self) -> str:
        return self.text


def run_ranges(runs: Iterable[int]) -> str:
    """``1-3,7`` for 7, 3, 1, 2."""
    parts: list[list[int]] = []
    for number in sorted(set(runs)):
        if parts and parts[-1][1] == number - 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in parts)


def run_numbers(ranges: str) -> set[int]:
    """The inverse of `run_ranges`."""
    ends = [part.partition("-") for part in ranges.split(",") if part]
    return {number for low, _, high in ends for number in range(int(low), int(high or low) + 1)}


def shown_loss(value: float | None, sign: bool = False) -> str:
    """Three digits; ``not finite`` for what no number is left of, ``-`` where there is none."""
    if value is None:
        return "-"
    if not math.isfinite(value):
        return "not finite"
    return (f"{value:+#.3g}" if sign else f"{value:#.3g}").rstrip(".").replace("-", "\N{MINUS SIGN}")


def shown_percent(value: float | None, sign: bool = False) -> str:
    """A fraction as per cent with two digits."""
    if value is None:
        return "-"
    if not math.isfinite(value):
        return "not finite"
    return (f"{100 * value:+.2f} %" if sign else f"{100 * value:.2f} %").replace("-", "\N{MINUS SIGN}")


def shown_p(value: float | None) -> str:
    """A p-value as the sentences say it."""
    if value is None:
        return "-"
    return "< 0.0001" if value < 0.0001 else f"{value:.2g}"


def _exact(value: float | int | str | None) -> str:
    """With every digit, so that the smallest change shows."""
    if isinstance(value, float):
        return repr(float(value))
    return "" if value is None else str(value)


class _Reader(HTMLParser):
    """Collects every element that names its sources, in the order of the page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[dict[str, Any]] = []
        self.open: list[tuple[str, dict[str, Any] | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        element: dict[str, Any] | None = None
        if "data-fields" in given:
            element = {
                "tag": tag,
                "kind": given["data-kind"],
                "value": given.get("value"),
                "runs": run_numbers(given["data-runs"] or ""),
                "fields": tuple((given["data-fields"] or "").split()),
                "text": "",
            }
            self.found.append(element)
        self.open.append((tag, element))

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop()[0] != tag:
            pass  # an element without an end, such as <meta>

    def handle_data(self, data: str) -> None:
        for _, element in self.open:
            if element is not None:
                element["text"] += data


def read_numbers(page: str) -> list[dict[str, Any]]:
    """Every element of a page that names its sources: tag, kind, value, text, ``runs`` and ``fields``."""
    reader = _Reader()
    reader.feed(page)
    return reader.found
