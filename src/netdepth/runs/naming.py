"""What a run is called: the name that it was given, or its recipe and the settings in which it differs from that.

    baseline-mlp · model=vit · lr 3e-4        its title; baseline-mlp on mnist · … where its data set is said
    baseline-mlp-mnist-model-vit-lr-3e-4      what its folder's name begins with

A name decides nothing: a run is found by its seed and fingerprint, whatever its folder's name begins with.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from netdepth.config import Json, Settings, require
from netdepth.runs.folder import RunDir, slug
from netdepth.text import as_typed, shortest

__all__ = [
    "SEPARATOR", "UNCALLED", "Called", "called_in", "changed_settings", "continued", "differing", "flat_settings",
    "folder_label", "keeps_name", "title",
]  # fmt: skip

MOST_LETTERS = 100
"""Of a name."""
SEPARATOR = " · "


@dataclass(frozen=True)
class Called:
    """``called`` in ``config.json``: the ``name`` that a run was given, and the ``changes`` of its recipe: settings by
    path, as `changed_settings` reads them. None where nobody knows them: in old runs, runs of studies, runs of a
    `RunConfig` that is no recipe's."""

    name: str | None = None
    changes: Settings | None = None

    def __post_init__(self) -> None:
        if self.name is not None:
            good = f"1 to {MOST_LETTERS} printable characters"
            require(_is_name(self.name), "--name", self.name[:MOST_LETTERS], good)

    def as_json(self) -> Mapping[str, Json]:
        """What is added to ``config.json``: nothing where nothing is known."""
        held = {key: value for key, value in vars(self).items() if value is not None}
        return {"called": held} if held else {}


UNCALLED = Called()


def called_in(config: Mapping[str, Any]) -> Called:
    """What a parsed ``config.json`` says of it; the file may be somebody else's, so what is damaged is left out."""
    held = config.get("called")
    name, changes = (held.get("name"), held.get("changes")) if isinstance(held, Mapping) else (None, None)
    return Called(name if _is_name(name) else None, changes if isinstance(changes, Mapping) else None)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MOST_LETTERS and value.isprintable() and not value.isspace()


def continued(run: RunDir, called: Called) -> Called:
    """``called``; what it leaves open is as it was when the run in this folder was begun."""
    held = called_in(run.read_json("config.json") or {})
    return Called(called.name or held.name, held.changes if called.changes is None else called.changes)


def keeps_name(run: RunDir, called: Called) -> list[str]:
    """A note where a finished run was asked for by another name than it has."""
    own = called_in(run.read_json("config.json") or {}).name
    if called.name in (None, own):
        return []
    had = "without a name of its own" if own is None else f"as {own!r}"
    return [f"this run was made before, {had}; it keeps its name, and {called.name!r} is not used"]


def title(recipe: str, called: Called, dataset: str | None = None) -> str:
    """The run in a heading: its name, or its recipe, on ``dataset`` if that is to be said, and how it differs."""
    if called.name is not None:
        return called.name if dataset is None else f"{called.name} on {dataset}"
    changes = {k: v for k, v in (called.changes or {}).items() if k != "dataset" or dataset is None}
    return SEPARATOR.join([recipe if dataset is None else f"{recipe} on {dataset}", *changed_settings(changes)])


def folder_label(recipe: str, dataset: str, called: Called) -> str:
    """What the name of the run's folder begins with: as many of the changes as fit are in it."""
    if called.name is not None:
        return called.name
    label = f"{recipe}-{dataset}"
    for text in changed_settings({k: v for k, v in (called.changes or {}).items() if k != "dataset"}):
        longer = f"{label}-{text}"
        if not slug(longer).endswith(slug(text)):  # a part of a value, where it is cut, would be another value
            break
        label = longer
    return label


def changed_settings(changes: Settings) -> list[str]:
    """Settings in short: ``model=vit``, ``lr 3e-4``, ``hidden 64,64``, ``early_stopping off``.

    A component's setting that was set to null is left out: another one stands in its place.
    """
    shown = {path: value for path, value in changes.items() if value is not None or path.startswith("train.")}
    times = Counter(map(_short_path, shown))
    names = {path: short if times[short := _short_path(path)] == 1 else path for path in shown}
    return [
        f"{path}={value}" if "." not in path else f"{names[path]} {_short_value(value)}"
        for path, value in shown.items()
    ]


def flat_settings(config: Mapping[str, Any]) -> dict[str, Json]:
    """The settings in a parsed ``config.json`` by the paths that ``--set`` takes: ``model``, ``model.hidden``, ...

    The seed and what a run is called are none of them. The version of a component is, where it is not 1.
    """
    flat: dict[str, Json] = {}
    for key, value in config.items():
        if key not in ("schema", "fingerprint", "recipe", "called", "seed"):
            _flatten(key, value, flat)
    return flat


def _flatten(path: str, value: Json, flat: dict[str, Json]) -> None:
    if not isinstance(value, Mapping):
        flat[path] = value
        return
    inner = value
    if {"name"} < {*value} <= {"name", "args", "version"}:  # a component
        flat[path], args, version = value["name"], value.get("args"), value.get("version")
        changed = {} if version in (None, 1) else {"version": version}
        inner = {**(args if isinstance(args, Mapping) else {}), **changed}
    for key, item in inner.items():
        _flatten(f"{path}.{key}", item, flat)


def differing(several: Sequence[Mapping[str, Json]]) -> list[dict[str, Json]]:
    """Of each of ``several`` settings, those that are not the same in all."""
    shared = {
        path for path, value in several[0].items() if all(path in one and one[path] == value for one in several[1:])
    }
    return [{path: value for path, value in one.items() if path not in shared} for one in several]


def _short_path(path: str) -> str:
    """``lr`` for ``optimizer.lr``, ``early_stopping.patience`` for ``train.early_stopping.patience``."""
    return "start_from" if path == "start_from.run" else path.partition(".")[2]


def _short_value(value: Json) -> str:
    if value is None or isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, int | float):
        return shortest(value)
    if isinstance(value, str):
        return PurePath(value).name or value
    if isinstance(value, Sequence) and not any(isinstance(item, Sequence | Mapping) for item in value):
        return ",".join(map(_short_value, value)) or "[]"
    return "on" if isinstance(value, Mapping) else as_typed(value)
