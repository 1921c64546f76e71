"""From the RECIPE of the command line to a config: a name, ``file.py:function`` or a ``config.json``."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import json
import re
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from netdepth.config import SCHEMA, RunConfig, from_json
from netdepth.errors import BadInput, NetdepthError, choose
from netdepth.recipes.base import RECIPES

__all__ = ["import_user", "resolve"]

SAVED_KEYS = ("schema", "fingerprint", "recipe")
"""What ``config.json`` of a run folder holds besides the RunConfig."""


def resolve(text: str) -> tuple[str, RunConfig]:
    """The name and config that ``text`` stands for.

    A ``config.json`` answers with the recipe name saved in it, else its folder's name;
    ``file.py:function`` with the function's name.

    Raises:
        BadInput: nothing of that name (with the nearest), a file that cannot be read or run,
            a function that returns something else.
    """
    if text.lower().endswith(".json"):
        return _from_file(Path(text))
    path, colon, function = text.rpartition(":")
    if (colon and path.endswith(".py")) or text.endswith(".py"):
        return _from_function(Path(path if colon else text), function if colon else "")
    if text not in RECIPES.names() and Path(text).is_dir():
        raise BadInput(f"recipe {text!r} is a folder; name the config.json in it, a recipe or file.py:function")
    return text, _call(RECIPES.entry(text).function, f"recipe {text!r}")


def import_user(text: str) -> ModuleType:
    """``--import``: run a user's ``file.py``, or import an installed module, for what it registers.

    The same file with the same content runs once per process.

    Raises:
        BadInput: it does not exist, or an exception left it.
    """
    path = Path(text)
    if not text.endswith(".py"):
        if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", text):
            raise BadInput(f"--import {text!r} is neither a file.py nor a module name")
        with _UserCode(f"module {text!r}"):
            return importlib.import_module(text)
    try:
        source = path.read_bytes()
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot read {text!r}: {_reason(error)}") from None
    key = hashlib.sha256(str(path.resolve()).encode(errors="surrogateescape") + b"\0" + source).hexdigest()[:10]
    name = f"netdepth_user_{re.sub(r'[^0-9A-Za-z]', '_', path.stem)}_{key}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_loader(name, loader=None, origin=str(path))
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    module.__file__ = str(path)
    sys.modules[name] = module  # before running: dataclasses look their module up by name
    try:
        with _UserCode(text):
            exec(compile(source, str(path), "exec"), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    return module


class _UserCode:
    """Turns what leaves a user's code into one line that names the place."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if error is None or isinstance(error, NetdepthError | KeyboardInterrupt):
            return
        frames = traceback.extract_tb(trace)
        line = error.lineno if isinstance(error, SyntaxError) else frames[-1].lineno if len(frames) > 1 else None
        where = f" at line {line}" if line else ""
        reason = " ".join(str(error).split())
        raise BadInput(f"{self.what} failed{where}: {type(error).__name__}: {reason}") from error


def _from_function(path: Path, function: str) -> tuple[str, RunConfig]:
    module = import_user(str(path))
    own = {name for name, value in vars(module).items() if inspect.isfunction(value) and not name.startswith("_")}
    if not function:
        raise BadInput(f"{str(path)!r} needs a function: write {path}:{min(own, default='name')}")
    choose(function, own, f"function of {path}:")
    return function, _call(getattr(module, function), f"{path}:{function}")


def _call(function: Any, what: str) -> RunConfig:
    with _UserCode(what):
        config = function()
    if not isinstance(config, RunConfig):
        raise BadInput(f"{what} returns {type(config).__name__}; it must return a RunConfig")
    return config


def _from_file(path: Path) -> tuple[str, RunConfig]:
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"cannot read config {str(path)!r}: {_reason(error)}") from None
    if not isinstance(data, dict):
        raise BadInput(f"config {str(path)!r} holds a {type(data).__name__}; it must hold a JSON object")
    if data.get("schema", SCHEMA) != SCHEMA:
        raise BadInput(f"config {str(path)!r} has schema {data['schema']!r}; this netdepth reads schema {SCHEMA}")
    name = data.get("recipe")
    fields = {key: value for key, value in data.items() if key not in SAVED_KEYS}
    config: RunConfig = from_json(RunConfig, fields, "config")
    return (name if isinstance(name, str) and name else path.resolve().parent.name or "config"), config


def _reason(error: Exception) -> str:
    """An OSError without the path it repeats; anything else as it is."""
    return str((isinstance(error, OSError) and error.strerror) or error)
