"""``list settings``: every path that ``--set`` takes, with its type, its default and its meaning."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import json
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from netdepth.commands import Answer
from netdepth.config import Component, Json, RunConfig, to_json, type_name
from netdepth.overrides import COMMON
from netdepth.registry import REGISTRIES, Field, registry_of
from netdepth.text import print_table

__all__ = ["default_of", "list_settings", "settings"]

HEADER = ("path", "of", "type", "default", "meaning")


@dataclass(frozen=True)
class Setting:
    """A path as ``--set`` writes it, and the component ``of`` whose setting it is (None: every run has it)."""

    path: str
    of: str | None
    type: str
    default: Json
    meaning: str


def list_settings() -> Answer:
    """Every setting of a run."""
    found = list(settings())
    options = {path: f"--{name.replace('_', '-')}" for name, path in COMMON.items()}

    def show() -> None:
        for _, part in itertools.groupby(found, lambda one: one.path.partition(".")[0]):
            rows = []
            for one in part:
                option = f" ({options[one.path]})" if one.path in options else ""
                rows.append([one.path, one.of or "", one.type, json.dumps(one.default), one.meaning + option])
            print_table(HEADER, rows, spare=(1, 2))

    return Answer({"settings": [dataclasses.asdict(one) for one in found], "options": options}, show)


def settings() -> Iterator[Setting]:
    """The settings of a run in the order of `RunConfig`; those of components by the name of each."""
    hints = typing.get_type_hints(RunConfig)
    for part in dataclasses.fields(RunConfig):
        if part.name in REGISTRIES:
            registry = registry_of(part.name)
            default = part.default.name if isinstance(part.default, Component) else "required"
            names = " | ".join(map(repr, registry.names()))
            yield Setting(part.name, None, names, default, f"the {part.name}, by its name")
            for name in registry.names():
                for field in registry.entry(name).fields:
                    kind = type_name(field.type)
                    yield Setting(f"{part.name}.{field.name}", name, kind, default_of(field), field.meaning)
        elif part.name != "seed":  # which has an option of its own, and --set refuses it
            kinds = [
                kind for kind in typing.get_args(hints[part.name]) or (hints[part.name],) if kind is not type(None)
            ]
            yield from _fields(kinds[0], part.name)


def _fields(kind: type[Any], path: str) -> Iterator[Setting]:
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        where, meaning = f"{path}.{field.name}", field.metadata.get("meaning", "")
        own = next((one for one in typing.get_args(hints[field.name]) if dataclasses.is_dataclass(one)), None)
        missing = field.default is dataclasses.MISSING
        made = field.default_factory() if field.default_factory is not dataclasses.MISSING else "required"
        default = to_json(made if missing else field.default)
        takes = "object or null" if own is not None else field.metadata.get("takes") or type_name(hints[field.name])
        yield Setting(where, None, takes, default, meaning)
        if isinstance(own, type):
            yield from _fields(own, where)


def default_of(setting: Field) -> Json:
    """The default of a component's setting, ``required`` where it has none."""
    found: Json = "required" if setting.default is inspect.Parameter.empty else setting.default
    return found
