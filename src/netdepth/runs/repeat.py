"""A run and its repetition: whether the bits of the two folders are equal, and by how much their values differ.

Wall times differ always and are left out. So are keys that only one of the folders has, but those in `NEEDED`: other
versions write other keys, and a metric of the user's own is not registered everywhere.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from netdepth.errors import BadInput, NetdepthError
from netdepth.runs import Environment, RunResult
from netdepth.runs.compare import predictions_of
from netdepth.runs.folder import RunDir
from netdepth.stats.intervals import mean_interval, prediction_interval
from netdepth.text import count, listed, plain

__all__ = [
    "FALSE_ALARM", "SEEDS", "Finding", "Found", "Pair", "by_bits", "by_values", "other_bits", "scatter_of", "shift",
    "values_of",
]  # fmt: skip

TIMES = ("seconds", "total_seconds", "continued_from", "seal", "schema")
NEEDED = ("status", "steps", "reported", "weights_sha256", "train", "val", "step", "train_loss", "val_loss")
FALSE_ALARM = 0.01
"""Probability that honest values made on another machine are called different, over all values of one replay."""
EQUAL = 1e-3
"""Relative: what is equal to three digits is equal, also where the seeds do not scatter."""
START = 1e-2
"""Relative, of a network that no step has changed; measured: 7e-4 in a gradient, where a unit lies at its kink."""
SEEDS = 3
"""Fewer give no standard deviation worth the name."""


SHIFT_SEEDS = 5
"""Fewer may differ in the same direction, by equal small steps of an accuracy, by chance."""


NAMED = 2
"""Differences that a line names one by one."""

Finding = Literal["same bits", "same values", "differs", "not repeated"]


@dataclass(frozen=True)
class Found:
    """What comes of a comparison, and ``why`` in words."""

    finding: Finding
    why: str


@dataclass(frozen=True)
class Pair:
    """A value of somebody's run and of its repetition; ``scatter`` is what the seeds of the same config have here."""

    name: str
    theirs: float
    ours: float
    scatter: tuple[float, ...] = ()

    def allowed(self, pairs: int) -> float | None:
        """The largest difference that rounding explains, with `FALSE_ALARM` over so many ``pairs``; None: not known.

        Rounding grows until the two are as different as two seeds are, and no further (measured with other vector
        instructions: 0.2 s at depth 2, 2.4 s at depth 32). The difference of two seeds has the standard deviation
        s √2, and s is estimated from n of them, so it is below t s √2 (Student, n - 1 degrees of freedom; Bonferroni
        over the pairs).
        """
        floor = EQUAL * abs(self.ours)
        if len(self.scatter) < SEEDS:
            return floor if abs(self.theirs - self.ours) <= floor else None
        half = prediction_interval(self.scatter, 1 - FALSE_ALARM / max(pairs, 1))
        assert half.low is not None
        assert half.high is not None
        n = len(self.scatter)
        return max(floor, (half.high - half.low) / 2 * math.sqrt(2 / (1 + 1 / n)))

    def said(self) -> str:
        """Both values in words."""
        return f"{self.name} {plain(self.theirs)} there, {plain(self.ours)} here"


def shift(pairs: Sequence[Pair], tests: int) -> str | None:
    """What is said if the ``pairs`` of one name, a seed each, differ in one direction, which rounding does not have.

    Student's t interval of the mean difference, at `FALSE_ALARM` over so many ``tests``.
    """
    if len(pairs) < SHIFT_SEEDS:
        return None
    found = mean_interval([pair.theirs - pair.ours for pair in pairs], 1 - FALSE_ALARM / max(tests, 1))
    assert found.value is not None
    assert found.low is not None
    assert found.high is not None
    size = math.fsum(abs(pair.ours) for pair in pairs) / len(pairs)
    if found.low <= 0 <= found.high or abs(found.value) <= EQUAL * size:
        return None
    where = "above" if found.value > 0 else "below"
    return f"{pairs[0].name} lies {plain(abs(found.value), 3)} {where} ours in the mean of {len(pairs)} seeds"


def other_bits(theirs: RunDir, ours: RunDir) -> list[str]:
    """What is not equal to the bit in two finished folders of one config and seed; empty: all is.

    Compared are ``weights_sha256`` and the rest of ``result.json``, every record of ``metrics.jsonl``, the layer
    statistics, and the logits and labels of ``predictions.npz``. Checkpoints are not read.
    """
    found = []
    names = {"result.json", *(f"probes/{path.name}" for path in (ours.path / "probes").glob("*.json"))}
    for name in sorted(names, reverse=True):  # the result first
        found += _unlike(_read(theirs, name), _read(ours, name), name)
    records, again = theirs.read_metrics(), ours.read_metrics()
    if len(records) != len(again):
        found.append(f"metrics.jsonl: {len(records)} sound records there, {len(again)} here")
    for record, other in zip(records, again, strict=False):
        found += _unlike(record, other, f"metrics.jsonl at step {other['step']}")
    return found + _other_predictions(theirs, ours)


def _read(run: RunDir, name: str) -> Mapping[str, object] | None:
    try:
        return run.read_json(name)
    except BadInput:
        return {}


def _unlike(theirs: object, ours: object, where: str) -> list[str]:
    """The places below ``where`` at which two parsed JSON values differ."""
    if isinstance(theirs, Mapping) and isinstance(ours, Mapping):
        shared = [key for key in ours if key not in TIMES and (key in theirs or key in NEEDED)]
        return [text for key in shared for text in _unlike(theirs.get(key), ours[key], f"{where} {key}")]
    if theirs == ours or (theirs is None and where.startswith("probes/")):
        return []
    short = [str(value)[:12] if isinstance(value, str | float | int | None) else "other" for value in (theirs, ours)]
    return [f"{where}: {short[0]} there, {short[1]} here"]


def _other_predictions(theirs: RunDir, ours: RunDir) -> list[str]:
    if not (ours.path / "predictions.npz").exists():  # it diverged
        return []
    try:
        held = predictions_of(theirs)
    except BadInput as error:
        return [str(error)]
    logits, labels = predictions_of(ours)
    found = [] if np.array_equal(held[1], labels) else ["predictions.npz has other labels"]
    if not np.array_equal(held[0], logits, equal_nan=True):
        found.append("predictions.npz has other logits")
    return found


def other_machine(theirs: Environment, ours: Environment) -> list[str]:
    """Why the same config and seed need not have the same bits in two environments; empty: they must."""
    fields = {
        "torch": "torch", "cpu": "processor", "capability": "vector instructions", "device": "device",
        "device_name": "GPU", "threads": "number of threads", "matmul": "matrix product", "world_size": "processes",
        "seeds": "seeds of the stack", "memory_format": "layout in memory",
    }  # fmt: skip
    found = []
    for name, word in fields.items():
        then, now = getattr(theirs, name), getattr(ours, name)
        if then != now:
            found.append(f"other {word} ({'unknown' if then is None else str(then)[:60]} there, {str(now)[:60]} here)")
    if not found and ours.deterministic is False:
        found.append(f"{ours.device_name or ours.device} does not repeat its own bits")
    return found


def values_of(run: RunDir) -> dict[str, float | None]:
    """What the reported weights of a finished ``run`` reach, by name: loss in nats and accuracy of every part.

    None for what is no finite number.
    """
    result = run.result() or RunResult()
    parts = {"train": result.get("train"), "val": result.get("val"), "test": result.get("test")}
    found: dict[str, float | None] = {}
    for part, scores in parts.items():
        for name in ("loss", "accuracy"):
            value = ((scores or {}).get(str(result.get("reported"))) or {}).get(name)
            found[f"{part} {name}"] = value if isinstance(value, int | float) and math.isfinite(value) else None
    return found


def other_start(theirs: RunDir, ours: RunDir) -> list[str]:
    """Where the untrained networks differ in loss, gradients or activations, as ``probes/init.json`` has them; empty if
    nowhere, or where a folder has no such file."""
    held, made = (_numbers(_read(run, "probes/init.json") or {}) for run in (theirs, ours))
    return [
        f"before the first step {place} is {plain(held[place])} there, {plain(value)} here"
        for place, value in made.items()
        if place in held and not math.isclose(held[place], value, rel_tol=START, abs_tol=START**2)
    ]


def _numbers(value: object, where: str = "") -> dict[str, float]:
    """The finite fractional numbers within a parsed JSON value, by place."""
    if isinstance(value, float):
        return {where: value} if math.isfinite(value) else {}
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    return {place: n for key, item in items for place, n in _numbers(item, f"{where} {key}".strip()).items()}


def scatter_of(runs: Sequence[RunDir]) -> dict[str, tuple[float, ...]]:
    """The finite values of `values_of` over ``runs``, seeds of one config, by name."""
    found: dict[str, list[float]] = {}
    for run in runs:
        with contextlib.suppress(NetdepthError):  # another run of somebody's may be damaged
            for name, value in values_of(run).items():
                found.setdefault(name, []).extend([] if value is None else [value])
    return {name: tuple(values) for name, values in found.items()}


def by_bits(theirs: RunDir, ours: RunDir) -> Found | str:
    """What comes of the bits of two finished folders, or why they cannot tell: the machines are of different kinds."""
    made = ours.environment()
    assert made is not None
    try:
        environment = theirs.environment()
        differ, untrained = other_bits(theirs, ours), other_start(theirs, ours)
        weights = [(run.result() or RunResult()).get("weights_sha256") for run in (theirs, ours)]
    except NetdepthError as error:
        return Found("differs", str(error))
    if environment is None:
        return Found("differs", "it has no environment.json, which every run writes first")
    if not differ:
        records = count(len(theirs.read_metrics()), "record")
        return Found("same bits", f"weights {str(weights[0])[:10]}, {records} and all else in its files")
    if untrained:
        return Found("differs", listed(untrained, most=NAMED))
    reasons = other_machine(environment, made)
    if weights[0] == weights[1] is not None:
        where = "the weights are the same, so all that is computed with them must be"
    elif reasons:
        return listed(reasons)
    else:
        where = "processor, torch and threads are the same"
        then, now = (f"{one.netdepth} {(one.commit or '')[:10]}".strip() for one in (environment, made))
        where += "" if then == now else f"; netdepth {then} there, {now} here"
    return Found("differs", f"{listed(differ, most=NAMED)}; {where}")


def by_values(
    theirs: RunDir, ours: RunDir, reason: str, pairs: Sequence[Pair], tests: int, shifts: Sequence[str]
) -> Found:
    """What comes of the values of two runs whose bits need not be equal, for a ``reason``.

    ``pairs`` are their values; ``tests`` counts those of all runs; ``shifts`` say what the `shift` of a value is.
    """
    status = [(run.result() or RunResult()).get("status") for run in (theirs, ours)]
    if status[0] != status[1]:
        return Found("differs", f"it {status[0]} there and {status[1]} here; {reason}")
    held, made = values_of(theirs), values_of(ours)
    lost = [name for name, value in held.items() if (value is None) != (made[name] is None)]
    if lost:
        return Found("differs", f"only one of both has a {lost[0]}; {reason}")
    if shifts:
        return Found("differs", f"{shifts[0]}, and rounding has no direction; {reason}")
    limits = [(pair, pair.allowed(tests)) for pair in pairs]
    if any(limit is None for _, limit in limits):
        few = f"fewer than {SEEDS} seeds of its configuration, so nothing says how far they may lie apart"
        pair = next(pair for pair, limit in limits if limit is None)
        return Found("not repeated", f"{reason}, and {few} ({pair.said()})")
    ratios = [(abs(pair.theirs - pair.ours) / limit if limit else 0.0, pair, limit) for pair, limit in limits]
    if not ratios:
        return Found("same values", f"{status[0]} in both; {reason}")
    worst, pair, limit = max(ratios, key=lambda item: item[0])
    within = f"{'outside' if worst > 1 else 'within'} ± {plain(limit, 2)}"
    said = f"{pair.said()}, {within}, what rounding can do in {plain(100 * (1 - FALSE_ALARM))} % of replays; {reason}"
    return Found("differs" if worst > 1 else "same values", said)
