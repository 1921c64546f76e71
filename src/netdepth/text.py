"""Text for a terminal: names made harmless, numbers in words, tables that never lose a cell."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

__all__ = ["document", "number", "percent", "print_table", "printable", "size", "status_words"]


def printable(text: object) -> str:
    """``text`` on one line without control characters (a name may hold ANSI codes): escaped as in Python."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in str(text))


def number(value: float | None, digits: int = 4) -> str:
    """A loss or a time; ``-`` for none, ``nan`` and ``inf`` as such."""
    if value is None:
        return "-"
    if value != 0 and math.isfinite(value) and not 10**-digits <= abs(value) < 1e6:
        return f"{value:.3g}"
    return f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    """A fraction as per cent with two digits."""
    return "-" if value is None else f"{100 * value:.2f} %"


def size(count: int) -> str:
    """Bytes as ``812 B``, ``1.4 MB``."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def status_words(row: dict[str, Any]) -> str:
    """The end of a run in words: ``stopped early at epoch 11; best at 6; overfitting since epoch 8``."""
    ends = {
        "completed": "completed",
        "stopped_early": "stopped early",
        "stopped_overfit": "stopped because it overfitted",
        "diverged": "diverged (the loss was no longer finite)",
    }
    words = ends.get(row["status"], str(row["status"]))
    if row["epochs"] is not None:
        words += f" at epoch {row['epochs']:g}"
    if row["best_epoch"] is not None:
        words += f"; best at {row['best_epoch']:g}"
    if row["overfit_onset_epoch"] is not None:
        words += f"; overfitting since epoch {row['overfit_onset_epoch']:g}"
    if row["error"]:
        words += f" ({row['error']})"
    return words


def print_table(
    header: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    right: Sequence[int] = (),
    title: str | None = None,
    ruled: Sequence[int] = (),
    stream: TextIO | None = None,
) -> None:
    """Print a table; away from a terminal it is as wide as it needs to be, never cut.

    Args:
        header: column titles.
        rows: cells, shown as text with control characters escaped.
        right: columns (by index) aligned to the right.
        title: a line above.
        ruled: rows (by index) with a rule below.
        stream: stdout if None.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    out = stream or sys.stdout
    console = Console(file=out, highlight=False, emoji=False)
    table = Table(box=box.SIMPLE_HEAD, title=None if title is None else Text(printable(title), style="bold"))
    table.title_justify = "left"
    for index, name in enumerate(header):
        table.add_column(Text(name), justify="right" if index in right else "left", overflow="fold")
    for index, row in enumerate(rows):
        table.add_row(*(Text(printable(cell)) for cell in row), end_section=index in ruled)
    if not console.is_terminal:
        # The table's own width: a pipe or a file has no edge to wrap at.
        console.width = max(80, console.measure(table, options=console.options.update(max_width=100_000)).maximum)
    with console.capture() as text:  # written by us: on a closed pipe rich would end the process
        console.print(table)
    out.write(text.get())


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
