"""The registry of recipes, and from the RECIPE of the command line to a config or a study: a name,
``file.py:function``, a saved JSON file."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

from netdepth.config import SCHEMA, Component, RunConfig, from_json
from netdepth.errors import BadInput, choose
from netdepth.files.usercode import import_user, reason_of
from netdepth.owncode import user_code
from netdepth.registry import Registry
from netdepth.studyspec import StudySpec

__all__ = ["ADAM", "RECIPES", "import_user", "resolve", "resolve_study"]

RECIPES: Registry[Any] = Registry("recipe")
"""Functions that return a `RunConfig` or a `StudySpec`; `resolve` and `resolve_study` check which."""

ADAM = Component("adam", {"lr": 1e-3})
"""The optimizer of most recipes."""

SAVED_KEYS = ("schema", "fingerprint", "recipe", "called")
"""What ``config.json`` of a run folder holds besides the RunConfig."""


def resolve(text: str) -> tuple[str, RunConfig]:
    """The name and config that ``text`` stands for.

    A ``config.json`` answers with the recipe name saved in it, else its folder's name;
    ``file.py:function`` with the function's name.

    Raises:
        BadInput: nothing of that name (with the nearest), a file that cannot be read or run,
            a function that returns something else, a study.
    """
    name, found = _resolve(text)
    if isinstance(found, StudySpec):
        raise BadInput(f"{text} is a study; run it with: netdepth study {text}")
    return name, found


def resolve_study(text: str) -> StudySpec:
    """The study that ``text`` stands for: a recipe's name, ``file.py:function`` or a ``study.json``.

    Raises:
        BadInput: as `resolve`; a recipe of a single run.
    """
    _, found = _resolve(text)
    if isinstance(found, RunConfig):
        raise BadInput(f"{text} is not a study; run it with: netdepth train {text}")
    return found


def _resolve(text: str) -> tuple[str, RunConfig | StudySpec]:
    if text.lower().endswith(".json"):
        return _from_file(Path(text))
    path, colon, function = text.rpartition(":")
    if (colon and path.endswith(".py")) or text.endswith(".py"):
        return _from_function(Path(path if colon else text), function if colon else "")
    if text not in RECIPES.names() and Path(text).is_dir():
        raise BadInput(f"recipe {text!r} is a folder; name the config.json in it, a recipe or file.py:function")
    return text, _call(RECIPES.entry(text).function, f"recipe {text!r}")


def _from_function(path: Path, function: str) -> tuple[str, RunConfig | StudySpec]:
    module = import_user(str(path))
    own = {name for name, value in vars(module).items() if inspect.isfunction(value) and not name.startswith("_")}
    if not function:
        raise BadInput(f"{str(path)!r} needs a function: write {path}:{min(own, default='name')}")
    choose(function, own, f"function of {path}:")
    return function, _call(getattr(module, function), f"{path}:{function}")


def _call(function: Any, what: str) -> RunConfig | StudySpec:
    with user_code(what):
        config = function()
    if not isinstance(config, RunConfig | StudySpec):
        raise BadInput(f"{what} returns {type(config).__name__}; it must return a RunConfig or a StudySpec")
    return config


def _from_file(path: Path) -> tuple[str, RunConfig | StudySpec]:
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"cannot read config {str(path)!r}: {reason_of(error)}") from None
    if not isinstance(data, dict):
        raise BadInput(f"config {str(path)!r} holds a {type(data).__name__}; it must hold a JSON object")
    if data.get("schema", SCHEMA) != SCHEMA:
        raise BadInput(f"config {str(path)!r} has schema {data['schema']!r}; this netdepth reads schema {SCHEMA}")
    if "spec" in data:
        spec: StudySpec = from_json(StudySpec, data["spec"], "study.json: spec")
        return spec.name, spec
    name = data.get("recipe")
    fields = {key: value for key, value in data.items() if key not in SAVED_KEYS}
    config: RunConfig = from_json(RunConfig, fields, "config")
    return (name if isinstance(name, str) and name else path.resolve().parent.name or "config"), config
