"""What slices of the loss say, in sentences: the numbers of their records and nothing beyond them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from netdepth.text import number

__all__ = ["landscape_words", "short_names"]

Record = Mapping[str, Any]


def short_names(records: Sequence[Record]) -> list[str]:
    """The runs' names without what they all end in, and without their fingerprints where that keeps them apart."""
    names = [str(record["run"]) for record in records]
    bare = [re.sub(r"-[0-9a-f]{10}$", "", name) for name in names]
    names = bare if len(set(bare)) == len(bare) else names
    parts = [name.split("-") for name in names]
    while len(names) > 1 and all(len(part) > 1 for part in parts) and len({part[-1] for part in parts}) == 1:
        parts = [part[:-1] for part in parts]
    return ["-".join(part) for part in parts]


def landscape_words(records: Sequence[Record]) -> str:
    """Sentences on every record, on the first against each other one, and on what this does not say."""
    names = short_names(records)
    said = [_alone(name, record) for name, record in zip(names, records, strict=True)]
    said += [_against(names[0], records[0], name, record) for name, record in zip(names[1:], records[1:], strict=True)]
    return " ".join(filter(None, [*said, _limits(records)]))


def _alone(name: str, record: Record) -> str:
    seen, points = record["summary"], record["grid"] ** 2
    if not math.isfinite(seen["centre"]):
        return f"{name}: the loss of the weights themselves is not finite."
    text = (
        f"{name}: the loss is {number(seen['centre'])} at the weights and between {number(seen['lowest'])} and "
        f"{number(seen['highest'])} on the slice. {_share(seen['below_twice_centre'])} of its {points:,} points lie "
        f"below twice the loss at the weights, {_share(seen['below_guessing'])} below that of guessing "
        f"({record['guessing']:.3f})"
    )
    if seen["curved_down"] is not None:
        text += f", and {_share(seen['curved_down'])} of those inside are curved down along some direction of the slice"
    if seen["not_finite"]:
        text += f"; at {seen['not_finite']:,} the loss is not finite"
    return f"{text}.{_eigenvalues(record.get('curvature'))}"


def _eigenvalues(curvature: Mapping[str, Any] | None) -> str:
    if curvature is None:
        return ""
    largest, smallest = curvature["largest"], curvature["smallest"]
    text = f" The largest eigenvalue of the Hessian at the weights is {_eigenvalue(largest)}"
    if smallest is None:
        return f"{text}."
    if not smallest["converged"]:
        return f"{text}; the smallest was not found within {smallest['products']} products."
    return f"{text}, the smallest {_eigenvalue(smallest)}."


def _eigenvalue(found: Mapping[str, Any]) -> str:
    """``30.26 ± 0.29 (50 products)``."""
    text = f"{found['value']:.4g} ± {found['residual']:.1g}"
    return text if found["converged"] else f"{text} (not converged after {found['products']} products)"


def _against(first: str, one: Record, second: str, other: Record) -> str:
    a, b = one["summary"], other["summary"]
    if not (math.isfinite(a["centre"]) and math.isfinite(b["centre"])):
        return ""
    parts = [
        f"{_more(b['below_guessing'], a['below_guessing'])} of the slice below the loss of guessing as {first}",
        f"a highest loss {_times(b['highest'], a['highest'])} as high",
    ]
    if a["curved_down"] is not None and b["curved_down"] is not None:
        parts.append(f"{_share(b['curved_down'])} instead of {_share(a['curved_down'])} of its points curved down")
    pair = [record.get("curvature") for record in (one, other)]
    if all(found is not None and found["largest"]["converged"] for found in pair):
        values = [found["largest"]["value"] for found in pair if found is not None]
        parts.append(f"a largest eigenvalue {_times(values[1], values[0])} as large")
    return f"{second} has {', '.join(parts[:-1])} and {parts[-1]}."


def _limits(records: Sequence[Record]) -> str:
    several = "One slice of two random directions and one run each" if len(records) > 1 else "One slice of one run"
    return f"{several}: other directions and other seeds are not in these numbers."


def _share(value: float) -> str:
    percent = 100 * value
    if 0 < percent < 0.1:
        return "under 0.1 %"
    return f"{percent:.0f} %" if percent >= 10 or percent == 0 else f"{percent:.1f} %"


def _more(value: float, base: float) -> str:
    return f"{_times(value, base)} as much" if base else f"{_share(value)} instead of none"


def _times(value: float, base: float) -> str:
    return f"{value / base:.2g} times" if base else "not comparably"
