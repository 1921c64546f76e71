"""The one registry: a name stands for a function, and the function's signature is the schema.

A component function takes what its package supplies as positional parameters. Its own settings are its keyword-only
parameters and all others that have a default. A setting's type is its annotation, ``Annotated[type, "meaning"]`` to
say what it means, or else the type of its default. From that one declaration come the defaults in ``config.json``, the
checks behind ``--set`` and the table of ``netdepth list ... -v``.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import pkgutil
import sys
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from netdepth.config import Component, Settings, from_json, type_name
from netdepth.errors import BadInput, choose
from netdepth.owncode import Origin, origin_of, user_code

__all__ = [
    "REGISTRIES", "Entry", "Field", "Registry", "as_factory", "coerce", "import_package_modules", "import_room",
    "registry_of", "required", "type_name",
]  # fmt: skip

REGISTRIES: Mapping[str, str] = {
    "recipe": "netdepth.recipes:RECIPES",
    "model": "netdepth.models:MODELS",
    "dataset": "netdepth.data:DATASETS",
    "optimizer": "netdepth.training.optim:OPTIMIZERS",
    "schedule": "netdepth.training.optim:SCHEDULES",
    "augmentation": "netdepth.data.augment:AUGMENTATIONS",
    "objective": "netdepth.training.objectives:OBJECTIVES",
    "metric": "netdepth.training.evaluate:METRICS",
    "tracker": "netdepth.trackers:TRACKERS",
}
"""Every registry by its kind: the module that has it, imported when it is asked for, and its name there."""

T = TypeVar("T")
Function = TypeVar("Function", bound=Callable[..., Any])


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
    ``origin`` says where a component outside this package comes from, whose changes no version number
    announces; ``module`` is the one that registered it. ``example`` holds settings for trying it out, where the
    defaults alone do not make one. ``package`` is the installed package that it cannot work without.
    """

    name: str
    function: Callable[..., T]
    version: int
    added: frozenset[str]
    fields: tuple[Field, ...]
    origin: Origin | None = None
    example: Settings = field(default_factory=dict)
    unhashed: frozenset[str] = frozenset()
    package: str | None = None
    module: str = ""

    @property
    def source(self) -> str | None:
        """The sha256 by which a component outside this package is known (`Origin.source`); None for our own."""
        return None if self.origin is None else self.origin.source

    @property
    def summary(self) -> str:
        """First line of the docstring of the function, or of the class, not of one above it."""
        return inspect.cleandoc(self.function.__doc__ or "").partition("\n")[0]


class Registry(Generic[T]):
    """Named component functions of one kind ("model", "dataset", ...).

    ``adapt`` makes a component function of the other forms that the kind takes from users, such as a class.
    """

    def __init__(self, kind: str, adapt: Callable[[Callable[..., Any]], Callable[..., T]] | None = None) -> None:
        self.kind = kind
        self._adapt = adapt
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
    ) -> Callable[[Function], Function]:
        """Register the decorated function as ``name``; a duplicate name is an error.

        A cell of a notebook, and a user's file, may be run again: what it registers then replaces what it registered
        before. Raise ``version`` when a default or the meaning of a setting changes.
        """

        def decorate(function: Function) -> Function:
            scope = sys._getframe(1).f_globals
            origin = origin_of(function, scope)
            if name in self._entries and (origin is None or not origin.may_replace(self._entries[name].origin)):
                raise BadInput(f"a {self.kind} named {name!r} is registered already; choose another name")
            made = function if self._adapt is None else self._adapt(function)
            self._entries[name] = Entry(
                name, made, version, frozenset(added), _fields(made), origin, example or {}, frozenset(unhashed),
                package, scope["__name__"],
            )  # fmt: skip
            return function

        return decorate

    def names(self) -> list[str]:
        """Registered names, sorted."""
        return sorted(self._entries)

    def entry(self, name: str) -> Entry[T]:
        """The entry called ``name``; raises BadInput with the good names and the nearest."""
        try:
            return self._entries[choose(name, self._entries, self.kind)]
        except BadInput as error:
            raise BadInput(f"{error}; for one of your own: --import FILE.py (docs/your-own.md)") from None

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
        """Call the component's function with the package's ``context`` and its resolved settings.

        Raises:
            BadInput: as `resolve`; for a component of the user's own also whatever leaves it, with the line.
        """
        resolved = self.resolve(component)
        entry = self._entries[resolved.name]
        with contextlib.nullcontext() if entry.origin is None else user_code(f"{self.kind} {entry.name!r}"):
            return entry.function(*context, **resolved.args)

    def hashed(self, component: Component) -> Settings:
        """The part of a resolved component that enters the fingerprint."""
        entry = self.entry(component.name)
        defaults = {setting.name: setting.default for setting in entry.fields}
        left_out = entry.unhashed | {k for k in entry.added if component.args.get(k) == defaults[k]}
        args = {k: v for k, v in component.args.items() if k not in left_out}
        source = entry.source
        own: Settings = {} if source is None else {"source": source}
        return {"name": component.name, "version": component.version, "args": args, **own}


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


def required(function: Callable[..., Any]) -> list[str]:
    """The names of the positional parameters without a default: what the package supplies, never a setting."""
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.kind in POSITIONAL and p.default is p.empty]


def as_factory(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, of what it is required to be given, as a component: settings in, ``function`` with them out.

    One without required parameters is such a component already.
    """
    if not required(function):
        return function

    def component(**settings: Any) -> Callable[..., Any]:
        return functools.partial(function, **settings)

    return functools.update_wrapper(component, function)


POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def _fields(function: Callable[..., Any]) -> tuple[Field, ...]:
    hints, supplied = _hints(inspect.unwrap(function)), required(function)
    fields = []
    for parameter in inspect.signature(function).parameters.values():
        name, default, kind = parameter.name, parameter.default, parameter.kind
        by_name = kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        if by_name and name not in supplied:
            type_, meaning = _setting(hints.get(name), default)
            if type_ is not None:
                fields.append(Field(name, type_, default, meaning))
    return tuple(fields)


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Annotations by parameter; none of them where one names what does not exist."""
    try:
        return typing.get_type_hints(function.__init__ if isinstance(function, type) else function, include_extras=True)  # type: ignore[misc]
    except Exception:  # evaluating a user's annotations runs the user's code
        return {}


def _setting(hint: Any, default: Any) -> tuple[Any, str]:
    """Type and meaning of a parameter; type None if JSON cannot hold what it takes, so that it is no setting."""
    if typing.get_origin(hint) is typing.Annotated:
        kind, meaning = typing.get_args(hint)[:2]
        return kind, str(meaning)
    says_nothing = default is None or default is inspect.Parameter.empty
    kind = _plain(hint) if hint is not None else Any if says_nothing else None
    if kind is None and not says_nothing:
        kind = _type_of(default)
    if kind is not None and kind is not Any and default is None:
        kind = kind | None
    return kind, ""


def _plain(hint: Any) -> Any:
    """``hint`` without types that are not JSON's, such as the Tensor of ``float | Tensor``; None if none is left."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint in (bool, int, float, str, Any, Path, type(None)) or origin is typing.Literal:
        return hint
    if origin in (typing.Union, types.UnionType):
        left = [kind for kind in map(_plain, args) if kind is not None]
        return typing.Union[tuple(left)] if set(left) - {type(None)} else None  # noqa: UP007
    if origin in (list, tuple):
        item = _plain(args[0])
        return None if item is None else list[item] if origin is list else tuple[item, ...]  # type: ignore[valid-type]
    return hint if origin in (dict, Mapping) else None


def _type_of(default: Any) -> Any:
    """What a setting takes whose only declaration is its ``default``: for 0, written for 0.0, any number."""
    if type(default) is int:
        return int | float
    if isinstance(default, list | tuple):
        items = {_type_of(item) for item in default}
        item = items.pop() if len(items) == 1 else Any
        return None if item is None else list[item] if isinstance(default, list) else tuple[item, ...]  # type: ignore[valid-type]
    return type(default) if type(default) in (bool, float, str, dict) else None
