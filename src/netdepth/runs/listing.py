"""The runs of a runs folder, one line per configuration: filtered, sorted, the best of them; as records for tables.

Test data never choose anything: runs are filtered and sorted by settings and by validation metrics alone.
"""

from __future__ import annotations

import fnmatch
import json
import operator
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netdepth.config import Json, require
from netdepth.errors import BadInput, choose
from netdepth.overrides import MEANT
from netdepth.runs.index import ListedRun, read_runs
from netdepth.runs.naming import SEPARATOR, changed_settings, differing
from netdepth.runs.table import UNFINISHED
from netdepth.stats.intervals import Estimate, finite_mean, mean_worth
from netdepth.text import as_typed

__all__ = ["SORTS", "Configuration", "configurations", "records", "status_of"]

METRICS = {"val_loss": 1, "val_accuracy": -1}
"""What the best are chosen by, and the factor that makes less of it better."""
SORTS = (*METRICS, "age", "epochs", "name", "seconds", "size")
OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    "<=": operator.le, ">=": operator.ge, "!=": operator.ne, "<": operator.lt, ">": operator.gt, "=": operator.eq,
}  # fmt: skip
FIELDS = (
    "status", "recipe", "name", "study", "fingerprint", "seed", "epochs", "best_epoch", "seconds", "num_params",
    "size", *METRICS,
)  # fmt: skip
"""What runs are filtered by, beside their settings."""


@dataclass(frozen=True)
class Configuration:
    """The runs of one configuration (one fingerprint) in one study, sorted by seed; ``differs`` is how it differs from
    its recipe, or from the others of that recipe, by path."""

    runs: tuple[ListedRun, ...]
    differs: Mapping[str, Json]

    @property
    def name(self) -> str:
        """What it was called, or its recipe, with the folder of its study in front."""
        first = self.runs[0]
        own = first.kept.name or first.kept.recipe or first.path.name
        return own if first.study == "single" else f"{first.study}/{own}"

    @property
    def counts(self) -> Counter[str]:
        """How many runs have each status."""
        return Counter(run.kept.status for run in self.runs)

    @property
    def size(self) -> int:
        """Bytes of all folders."""
        return sum(run.size for run in self.runs)

    @property
    def changed(self) -> float:
        """When the last of the runs changed, in seconds since 1970."""
        return max(run.changed for run in self.runs)

    def estimate(self, quantity: str) -> Estimate:
        """The mean over the finished runs with a finite value, with Student's t interval at 95 %."""
        return finite_mean(self._values(quantity))

    def worth(self, metric: str) -> float | None:
        """The mean by which it is sorted, less is better: a run whose value is not finite counts as infinitely bad."""
        return mean_worth([value and METRICS[metric] * value for value in self._values(metric)])

    def _values(self, quantity: str) -> list[float | None]:
        return [run.kept.values.get(quantity) for run in self.runs if run.kept.status not in UNFINISHED]


def configurations(
    root: Path, *, sort: str | None = None, filters: Sequence[str] = (), best: int | None = None, flat: bool = False
) -> list[Configuration]:
    """The configurations below ``root`` that fit all ``filters``, in order of ``sort`` (by folder if None).

    Args:
        root: the runs folder.
        sort: one of `SORTS`; metrics best first, the newest, longest and largest first. Without a value: last.
        filters: ``status=completed``, ``lr<0.01``, ``model=cnn``, ``recipe=base*``: a field or a setting and a value.
        best: only so many, the best by validation loss or accuracy; those without a value are none of them.
        flat: every run by itself.

    Raises:
        BadInput: an unknown name (with the nearest), no comparison, a metric of test data, ``best`` of something else.
    """
    require(best is None or best >= 1, "--best", best, "1 or more")
    runs = _filtered(read_runs(root), filters)
    groups: dict[object, list[ListedRun]] = {}
    for run in runs:
        alone = flat or run.kept.fingerprint is None
        groups.setdefault((run.study, run.path if alone else run.kept.fingerprint), []).append(run)
    seeded = [tuple(sorted(group, key=lambda run: run.kept.seed or 0)) for group in groups.values()]
    found = [Configuration(group, differs) for group, differs in zip(seeded, _differences(seeded), strict=True)]
    if best is not None:
        sort = sort or "val_loss"
        if sort in SORTS and sort not in METRICS:
            raise BadInput(f"--best goes with --sort {' or '.join(METRICS)}, not with {sort!r}")
    if sort is None:
        return found
    _refuse_test(sort, "--sort")
    key = choose(sort, SORTS, "--sort:")
    ordered = sorted(found, key=lambda one: _place(one, key))
    return ordered if best is None else [one for one in ordered if one.worth(key) is not None][:best]


def _place(one: Configuration, key: str) -> tuple[Any, ...]:
    """What a configuration is sorted by; less comes first."""
    if key in METRICS:
        worth = one.worth(key)
        return worth is None, worth or 0.0
    if key == "name":
        return one.name, *map(str, one.differs.items())
    if key in ("age", "size"):
        return (-one.changed if key == "age" else -one.size,)
    return (-max(getattr(run.kept, key) or 0 for run in one.runs),)


def _refuse_test(name: str, option: str) -> None:
    if name.startswith(("test", "macro_recall", "worst_recall")):
        raise BadInput(f"{option} {name}: test data never choose anything; take {' or '.join(METRICS)}")


# --- filters ---


def _filtered(runs: Sequence[ListedRun], filters: Sequence[str]) -> list[ListedRun]:
    left = list(runs)
    for text in filters:
        match = re.fullmatch(r"\s*([\w.]+)\s*(<=|>=|!=|==?|<|>)\s*(.*?)\s*", text)
        if match is None:
            raise BadInput(f"--filter {text!r} is not acceptable; write it as status=completed or 'lr<0.01'")
        name, sign, wanted = match[1], match[2].replace("==", "="), match[3]
        _refuse_test(name, "--filter")
        path = _known(name, runs)
        if sign in ("<", "<=", ">", ">=") and _number(wanted) is None:
            raise BadInput(f"--filter {text!r} is not acceptable: {wanted!r} is not a number")
        left = [run for run in left if _fits(_value(run, path), sign, wanted)]
    return left


def _known(name: str, runs: Sequence[ListedRun]) -> str:
    """The field or the path of a setting that ``name`` means in any of ``runs``."""
    settings = dict.fromkeys(path for run in runs for path in run.kept.settings)
    if name in FIELDS or name in settings:
        return name
    if MEANT.get(name) in settings:
        return MEANT[name]
    last = [path for path in settings if path.rpartition(".")[2] == name]
    return last[0] if len(last) == 1 or not runs else choose(name, [*FIELDS, *settings], "--filter:")


def _value(run: ListedRun, path: str) -> Json:
    if path in METRICS:
        return run.kept.values.get(path)
    if path in ("study", "size"):
        return run.study if path == "study" else run.size
    return run.kept.settings.get(path) if path not in FIELDS else getattr(run.kept, path)


def _fits(value: Json, sign: str, wanted: str) -> bool:
    number, other = _number(value), _number(wanted)
    if number is not None and other is not None:
        return OPERATORS[sign](number, other)
    text = as_typed(value)
    return sign in ("=", "!=") and (text == wanted or fnmatch.fnmatchcase(text, wanted)) == (sign == "=")


def _number(value: Json) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


# --- what differs ---


def _differences(groups: Sequence[tuple[ListedRun, ...]]) -> list[Mapping[str, Json]]:
    """How each group differs from its recipe; where several would be called the same, also from one another."""
    found: list[dict[str, Json]] = [dict(group[0].kept.changes or {}) for group in groups]
    alike: dict[object, list[int]] = {}
    for number, group in enumerate(groups):
        said = (group[0].study, group[0].kept.name, group[0].kept.recipe)
        alike.setdefault((*said, json.dumps(found[number], sort_keys=True)), []).append(number)
    for numbers in alike.values():
        marks = {groups[number][0].kept.fingerprint for number in numbers}
        if len(marks) > 1:
            for number, own in zip(numbers, differing([groups[n][0].kept.settings for n in numbers]), strict=True):
                found[number] |= {path: value for path, value in own.items() if value is not None}
    return list(found)


# --- records ---


def records(found: Iterable[Configuration], now: float | None = None) -> tuple[list[str], list[dict[str, Json]]]:
    """Columns, and a record per configuration: of every quantity the mean, its ends and n; the settings that differ.

    Losses are in nats, accuracies fractions, ``age_seconds`` since a run's last change (``now`` is in seconds since
    1970), ``bytes`` those of all folders. A value that is not finite is None.
    """
    listed, now = list(found), time.time() if now is None else now
    quantities = list(dict.fromkeys(key for one in listed for run in one.runs for key in run.kept.values))
    varied = differing([one.runs[0].kept.settings for one in listed] or [{}])
    settings = dict.fromkeys(path for one in varied for path in one)
    made = []
    for one in listed:
        first = one.runs[0].kept
        record: dict[str, Json] = {
            "study": one.runs[0].study,
            "name": first.name,
            "recipe": first.recipe,
            "dataset": (first.dataset or "").partition(" ")[0] or None,
            "fingerprint": first.fingerprint,
            "differs": SEPARATOR.join(changed_settings(one.differs)),
            "seeds": ",".join(str(run.kept.seed) for run in one.runs),
            "runs": len(one.runs),
            "status": status_of(one),
            "epochs": max((run.kept.epochs for run in one.runs if run.kept.epochs is not None), default=None),
        }
        for key in quantities:
            estimate = one.estimate(key)
            ends = {"": estimate.value, "_low": estimate.low, "_high": estimate.high, "_n": estimate.n}
            record |= {key + end: value for end, value in ends.items()}
        record |= {"age_seconds": now - one.changed, "bytes": one.size, "folder": str(one.runs[0].path)}
        made.append(record | {path: first.settings.get(path) for path in settings})
    return list(made[0]) if made else [], made


def status_of(one: Configuration, words: Mapping[str, str] | None = None) -> str:
    """``completed``; of several that ended in different ways ``4 completed, 1 failed``; ``words`` name a status."""
    ends = [((words or {}).get(status, status), count) for status, count in one.counts.most_common()]
    return ends[0][0] if len(ends) == 1 else ", ".join(f"{count} {word}" for word, count in ends)
