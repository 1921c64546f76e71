"""The one registry: a name stands for a function, and the function's signature is the schema.

A component function takes what its package supplies as positional parameters and its own
settings as keyword-only parameters, each annotated ``Annotated[type, "meaning"]`` with a
default. From that one declaration come the defaults in ``config.json``, the checks behind
``--set`` and the table of ``netdepth list ... -v``.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import pkgutil
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from netdepth.config import Component, Settings, from_json, type_name
from netdepth.errors import BadInput, choose

__all__ = [
    "REGISTRIES", "Entry", "Field", "Registry", "coerce", "import_package_modules", "import_room", "registry_of",
    "type_name",
]  # fmt: skip

REGISTRIES: Mapping[str, str] = {
    "recipe": "netdepth.recipes:RECIPES",
    "model": "netdepth.models:MODELS",
    "dataset": "netdepth.data:DATASETS",
    "optimizer": "netdepth.training.optim:OPTIMIZERS",
    "schedule": "netdepth.training.optim:SCHEDULES",
    "augmentation": "netdepth.data.augment:AUGMENTATIONS",
    "objective": "netdepth.training.objectives:OBJECTIVES",
    "tracker": "netdepth.trackers:TRACKERS",
}
"""Every registry by its kind: the module that has it, imported when it is asked for, and its name there."""

T = TypeVar("T")


@dataclass(frozen=True)
class Field:
    """One setting of a component: ``type`` as annotated, ``default``, ``meaning`` in words."""

    name: str
    type: Any
    default: Any
    meaning: str


@dataclass(frozen=True)
class Entry(Generic[T]):
    """A registered component function with its schema.

    ``added`` names the settings that were added later: they stay out of the fingerprint while they
    have their default, so that old run folders keep their names. ``unhashed``
    names those that never enter it, such as a path: what they lead to is hashed in another way.
    ``source`` is the sha256 of the file that holds the function, for code outside this package,
    whose changes no version number announces. ``example`` holds settings for trying it out, where
    the defaults alone do not make one. ``package`` is the installed package that it cannot work without.
    """

    name: str
    function: Callable[..., T]
    version: int
    added: frozenset[str]
    fields: tuple[Field, ...]
    source: str | None = None
    example: Settings = field(default_factory=dict)
    unhashed: frozenset[str] = frozenset()
    package: str | None = None

    @property
    def summary(self) -> str:
        """First line of the function's docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]


class Registry(Generic[T]):
    """Named component functions of one kind ("model", "dataset", ...)."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Entry[T]] = {}

    def register(
        self,
        name: str,
        *,
        version: int = 1,
        added: Collection[str] = (),
        example: Settings | None = None,
        unhashed: Collection[str] = (),
        package: str | None = None,
    ) -> Callable[[Callable[..., T]], Callable[..., T]]:
        """Register the decorated function as ``name``; a duplicate name is an error.

        Raise ``version`` when a default or the meaning of a setting changes.
        """

        def decorate(function: Callable[..., T]) -> Callable[..., T]:
            if name in self._entries:
                raise BadInput(f"a {self.kind} named {name!r} is registered already; choose another name")
            fields, source = _fields(function), _source_digest(function)
            self._entries[name] = Entry(
                name, function, version, frozenset(added), fields, source, example or {}, frozenset(unhashed), package
            )
            return function

        return decorate

    def names(self) -> list[str]:
        """Registered names, sorted."""
        return sorted(self._entries)

    def entry(self, name: str) -> Entry[T]:
        """The entry called ``name``; raises BadInput with the good names and the nearest."""
        return self._entries[choose(name, self._entries, self.kind)]

    def resolve(self, component: Component) -> Component:
        """``component`` with defaults filled in, values checked and its version set.

        Raises:
            BadInput: unknown name or setting, a value of the wrong type, another version.
        """
        entry = self.entry(component.name)
        if component.version not in (None, entry.version):
            raise BadInput(
                f"{self.kind} {entry.name!r} is version {entry.version} here, the config asks for "
                f"version {component.version}; use the netdepth release that wrote it"
            )
        known = {setting.name: setting for setting in entry.fields}
        for key in component.args:
            choose(key, known, f"setting of {self.kind} {entry.name!r}:")
        args = {}
        for key, setting in known.items():
            value = component.args.get(key, setting.default)
            if value is inspect.Parameter.empty:
                raise BadInput(f"{self.kind} {entry.name!r} needs {key} ({type_name(setting.type)}: {setting.meaning})")
            args[key] = from_json(setting.type, value, f"{self.kind}.{key}")
        return Component(entry.name, args, entry.version)

    def build(self, component: Component, *context: Any) -> T:
        """Call the component's function with the package's ``context`` and its resolved settings."""
        resolved = self.resolve(component)
        return self._entries[resolved.name].function(*context, **resolved.args)

    def hashed(self, component: Component) -> Settings:
        """The part of a resolved component that enters the fingerprint."""
        entry = self.entry(component.name)
        defaults = {setting.name: setting.default for setting in entry.fields}
        left_out = entry.unhashed | {k for k in entry.added if component.args.get(k) == defaults[k]}
        args = {k: v for k, v in component.args.items() if k not in left_out}
        source: Settings = {} if entry.source is None else {"source": entry.source}
        return {"name": component.name, "version": component.version, "args": args, **source}


def coerce(value: Any, kind: Any, path: str) -> Any:
    """`from_json` under the name that users' files know."""
    return from_json(kind, value, path)


def registry_of(kind: str) -> Registry[Any]:
    """The registry of ``kind``, one of `REGISTRIES`, with all that its package registers."""
    module, _, name = REGISTRIES[kind].partition(":")
    found: Registry[Any] = getattr(importlib.import_module(module), name)
    return found


def import_package_modules(package: str, path: Iterable[str]) -> None:
    """Import every module of a package, so that adding a component is adding one file."""
    for module in pkgutil.iter_modules(path):
        importlib.import_module(f"{package}.{module.name}")


import_room = import_package_modules  # the name that users' files know


def _source_digest(function: Callable[..., Any]) -> str | None:
    """sha256 of a user's file (or of the function alone, where it was typed in); None for our own."""
    if function.__module__.startswith("netdepth."):
        return None
    try:
        content = Path(function.__code__.co_filename).read_bytes()
    except OSError:
        try:
            content = inspect.getsource(function).encode()
        except (OSError, TypeError):
            content = function.__code__.co_code
    return hashlib.sha256(content).hexdigest()


def _fields(function: Callable[..., Any]) -> tuple[Field, ...]:
    hints = typing.get_type_hints(function, include_extras=True)
    fields = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            continue
        annotation = hints[parameter.name]
        if typing.get_origin(annotation) is not typing.Annotated:
            raise TypeError(f"{function.__name__}.{parameter.name}: annotate as Annotated[type, 'meaning']")
        kind, meaning = typing.get_args(annotation)[:2]
        fields.append(Field(parameter.name, kind, parameter.default, str(meaning)))
    return tuple(fields)
