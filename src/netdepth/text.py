"""Text for people: harmless names, numbers, p-values, intervals, counts and lists, and tables for a terminal.

All that is shown to a person is formatted here, so that one quantity looks the same on the terminal, on a page and
in a sentence. A negative number has a minus sign, not a hyphen.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TextIO

__all__ = [
    "NO_BREAK", "SETTINGS", "STATUS_WORDS", "age", "as_typed", "capitalised", "compact", "count", "document",
    "duration", "fixed", "gradient_ratio", "interval", "listed", "number", "p_equals", "p_value", "percent", "plain",
    "points", "print_table", "printable", "scientific", "shortest", "significant", "size", "thousands",
]  # fmt: skip

NO_BREAK = "\N{NO-BREAK SPACE}"


def printable(text: object) -> str:
    """``text`` on one line without control characters (a name may hold ANSI codes): escaped as in Python."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in str(text))


# --- numbers ---


def number(value: float | None, digits: int = 4) -> str:
    """A loss or a time with ``digits`` decimals, for columns; ``-`` for none, ``nan`` and ``inf`` as such."""
    if value is None:
        return "-"
    if value != 0 and math.isfinite(value) and not 10**-digits <= abs(value) < 1e6:
        return _minus(f"{value:.3g}")
    return _minus(f"{value:.{digits}f}")


def significant(value: float | None, digits: int = 3, *, sign: bool = False) -> str:
    """A number with ``digits`` significant digits, for sentences; with its ``sign`` if it is a difference."""
    if value is None:
        return "-"
    if not math.isfinite(value):
        return "not finite"
    value = value or 0.0  # not "−0.00"
    return _minus(f"{value:{'+' * sign}#.{digits}g}".rstrip("."))


def compact(value: float | None, digits: int = 2) -> str:
    """A number in as few characters as possible, for labels: ``0.21``, ``3842``, ``3e-9``; ``-`` for none."""
    if value is None:
        return "-"
    if 10**digits <= abs(value) < 10_000:
        return _minus(f"{value:.0f}")
    return _minus(re.sub(r"e\+?(-?)0*", r"e\1", f"{value:.{digits}g}"))


def percent(value: float | None, digits: int = 2, *, sign: bool = False) -> str:
    """A fraction as per cent: ``97.39 %``."""
    return "-" if value is None else _minus(f"{100 * value:{'+' * sign}.{digits}f} %")


def points(value: float | None, digits: int = 2, *, sign: bool = True) -> str:
    """A fraction in per cent without the unit: ``+1.20`` for a difference in percentage points."""
    return "-" if value is None else _minus(f"{100 * value:{'+' * sign}.{digits}f}")


def interval(low: float | None, high: float | None, shown: Callable[[float], str] = significant) -> str:
    """``[0.12, 0.34]``; empty where there is none. ``shown`` formats an end."""
    return "" if low is None or high is None else f"[{shown(low)}, {shown(high)}]"


def p_value(p: float | None) -> str:
    """A p-value for a column: ``0.012``, ``< 0.0001``."""
    return "-" if p is None else "< 0.0001" if p < 0.0001 else f"{p:.2g}"


def p_equals(p: float | None) -> str:
    """A p-value in a sentence: ``p = 0.012``, ``p < 0.0001``."""
    shown = p_value(p)
    return f"p {shown}" if shown.startswith("<") else f"p = {shown}"


def _minus(text: str) -> str:
    """``text`` of one number with a minus sign; the hyphen of an exponent stays, so that it can be copied."""
    return f"\N{MINUS SIGN}{text[1:]}" if text.startswith("-") else text


# --- amounts ---


def thousands(n: float | None, digits: int = 0) -> str:
    """``5,000``; with ``digits`` decimals: ``5,000.5``."""
    return "-" if n is None else f"{n:,.{digits}f}"


def plain(value: float | None, digits: int = 6) -> str:
    """A setting or an epoch as a person would type it, ``0.0005`` or ``12``; at most ``digits`` significant digits."""
    return "-" if value is None else f"{value:.{digits}g}"


def as_typed(value: object) -> str:
    """A setting as ``--set`` takes it: a text as it is, all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def shortest(value: float) -> str:
    """A setting in as few characters as give the same number again: ``3e-4``, ``0.01``, ``64``."""
    if isinstance(value, int) or not math.isfinite(value):
        return str(value)
    digits = next(n for n in range(1, 18) if float(f"{value:.{n}g}") == value)
    mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
    return min(f"{value:.{digits}g}", f"{mantissa}e{int(exponent)}", key=len)


def scientific(value: float) -> str:
    """A very small or very large number: ``3.2e-07``."""
    return f"{value:.1e}"


def gradient_ratio(value: float | None) -> str:
    """One gradient as a part of another: ``0.0213``, ``4.1e-05``."""
    return "-" if value is None else scientific(value) if not 0.001 <= value < 1000 else plain(value, 3)


def fixed(value: float, digits: int = 2, *, sign: bool = False) -> str:
    """A probability or a similarity, always with ``digits`` decimals: ``0.50``."""
    return _minus(f"{value:{'+' * sign}.{digits}f}")


def count(n: int, noun: str, plural: str | None = None) -> str:
    """``1 run``, ``5,000 runs``."""
    return f"{n:,} {noun if n == 1 else plural or f'{noun}s'}"


def size(number_of_bytes: int) -> str:
    """Bytes as ``812 B``, ``1.4 MB``."""
    amount = float(number_of_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def duration(seconds: float) -> str:
    """A time in words: ``40 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 99.5:
        return f"{seconds:.0f} s" if seconds >= 9.5 else f"{seconds:.1f} s"
    minutes = math.ceil(seconds / 60 - 0.5)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def age(seconds: float) -> str:
    """How long ago, in a column: ``12 s``, ``5 min``, ``3 h``, ``12 d``."""
    for unit, length, most in (("s", 1, 99.5), ("min", 60, 99.5 * 60), ("h", 3600, 48 * 3600)):
        if seconds < most:
            return f"{max(seconds, 0) / length:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"


# --- words ---

STATUS_WORDS: Mapping[str, str] = {
    "completed": "completed", "stopped_early": "stopped early", "stopped_overfit": "stopped because it overfitted",
    "diverged": "diverged", "failed": "failed", "unfinished": "unfinished", "unreadable": "unreadable",
    "no run": "not started",
}  # fmt: skip
"""What a person reads for the status of a run."""

SETTINGS = {"optimizer.lr": "learning rate", "train.batch_size": "batch size", "model.shortcut": "shortcut"}
"""Names of settings for people; other settings are called by their path."""


def listed(parts: Sequence[object], last: str = "and", most: int | None = None) -> str:
    """``a``, ``a and b``, ``a, b and c``; of more than ``most``: ``a, b and 12 more``."""
    shown = parts if most is None or len(parts) <= most else [*parts[:most], f"{len(parts) - most:,} more"]
    *first, end = map(str, shown)
    return f"{', '.join(first)} {last} {end}" if first else end


def capitalised(text: str) -> str:
    """``text`` as the beginning of a sentence."""
    return text[:1].upper() + text[1:]


READABLE = 20
"""Characters in a line of a longer text; a narrower column is avoided as long as others may be left out."""
GAP, EDGES = 3, 1
"""Characters between two columns of a table on a terminal, and at its edges beside that."""


def print_table(
    header: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    right: Sequence[int] = (),
    title: str | None = None,
    ruled: Sequence[int] = (),
    spare: Sequence[int] = (),
    stream: TextIO | None = None,
) -> None:
    """Print a table: on a terminal with as many columns as fit, elsewhere all of them, as plain text that is never cut.

    Where a terminal is too narrow for the columns that are not ``spare``, the others follow in tables of their own
    beside the first column; words are broken only if a column is too wide by itself.

    Args:
        header: column titles.
        rows: cells, shown as text with control characters escaped.
        right: columns (by index) aligned to the right; their cells, but those of the first column, are not broken.
        title: a line above.
        ruled: rows (by index) with a rule below.
        spare: columns (by index) that are left out where the terminal is too narrow, the first of them first.
        stream: stdout if None.
    """
    out = stream or sys.stdout
    cells = [[printable(cell) for cell in row] for row in rows]
    if not out.isatty():
        out.write(_plain_table(header, cells, right, title, ruled))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=out, highlight=False, emoji=False)
    whole = [index for index in right if index > 0]
    blocks, left_out = _blocks(header, cells, whole, spare, console.width)
    with console.capture() as text:  # written by us: on a closed pipe rich would end the process
        for shown in blocks:
            table = Table(box=box.SIMPLE_HEAD, title=None if title is None else Text(printable(title), style="bold"))
            table.title_justify, title = "left", None
            for index, wide in shown.items():
                side: Literal["left", "right"] = "right" if index in right else "left"
                table.add_column(Text(header[index]), justify=side, width=wide, overflow="fold")
            for number, row in enumerate(cells):
                table.add_row(*(Text(row[index]) for index in shown), end_section=number in ruled)
            console.print(table)
        if left_out:
            names = ", ".join(header[index] for index in left_out)
            console.print(Text(f"left out, as the terminal is narrow: {names}", style="dim"))
    out.write(text.get())


def _blocks(
    header: Sequence[str], cells: Sequence[Sequence[str]], whole: Sequence[int], spare: Sequence[int], width: int
) -> tuple[list[dict[int, int | None]], list[int]]:
    """The columns of each table that fits in ``width``, with their widths, and the columns left out.

    No word is broken, and in ``whole`` no cell. A width is None where that cannot be.
    """
    columns = [[header[index], *(row[index] for row in cells)] for index in range(len(header))]
    longest = [max(map(len, texts)) for texts in columns]
    least = [max((len(word) for text in texts for word in text.split()), default=0) for texts in columns]
    for index in whole:
        least[index] = max([least[index], *(len(row[index]) for row in cells)])

    def free(block: Sequence[int], least: Sequence[int] = least) -> int:
        """What is left of the width, negative if ``block`` does not fit."""
        return width - EDGES - sum(least[index] + GAP for index in block)

    usual = [sorted(map(len, texts[1:]))[(len(texts) - 2) // 2] if cells else 0 for texts in columns]
    readable = [max(low, min(middle, READABLE)) for low, middle in zip(least, usual, strict=True)]
    shown = [index for index in range(len(header)) if index not in spare]
    for index in reversed(spare):
        if free([*shown, index], readable) >= 0:
            shown.append(index)
    left_out = sorted({*spare} - {*shown})
    first, *others = shown = sorted(shown)
    blocks = [[first]]
    for index in others:
        if free([*blocks[-1], index]) < 0 and len(blocks[-1]) > 1:
            blocks.append([first])
        blocks[-1].append(index)
    if any(free(block) < 0 for block in blocks):
        return [dict.fromkeys(shown)], left_out
    fitting: list[dict[int, int | None]] = []
    for block in blocks:
        rest, widths = free(block), dict.fromkeys(block, 0)
        for place, index in enumerate(sorted(block, key=lambda one: longest[one] - least[one])):
            given = min(longest[index] - least[index], rest // (len(block) - place))
            widths[index], rest = least[index] + given, rest - given
        fitting.append({**widths})
    return fitting, left_out


def _plain_table(
    header: Sequence[str], cells: Sequence[Sequence[str]], right: Sequence[int], title: str | None, ruled: Sequence[int]
) -> str:
    """The table without colours, frames or spaces at the ends of lines; an empty line below."""
    widths = [max(len(row[index]) for row in (header, *cells)) for index in range(len(header))]

    def line(row: Sequence[str]) -> str:
        sides = ("rjust" if index in right else "ljust" for index in range(len(header)))
        return "  ".join(getattr(text, side)(w) for text, side, w in zip(row, sides, widths, strict=True)).rstrip()

    lines = [] if title is None else [printable(title), ""]
    lines += [line(header), "  ".join("-" * w for w in widths)]
    for number, row in enumerate(cells):
        lines += [line(row), *[""] * (number in ruled)]
    return "\n".join([*lines, "", ""])


def document(value: Any) -> str:
    """``value`` as one JSON text; paths as text, a number that is not finite as its name."""
    return json.dumps(_plain(value), indent=1, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
