"""Running a user's own file: what leaves it is one line that names the place."""

from __future__ import annotations

import hashlib
import importlib
import re
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from netdepth.errors import BadInput, NetdepthError

__all__ = ["UserCode", "import_user", "reason_of"]


def import_user(text: str) -> ModuleType:
    """``--import``: run a user's ``file.py``, or import an installed module, for what it registers.

    The same file with the same content runs once per process.

    Raises:
        BadInput: it does not exist, or an exception left it.
    """
    path = Path(text)
    if not text.endswith(".py"):
        if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", text):
            raise BadInput(f"{text!r} is neither a Python file (FILE.py) nor the name of a module")
        try:
            with UserCode(f"module {text!r}"):
                return importlib.import_module(text)
        except BadInput as error:
            missing = error.__cause__
            if isinstance(missing, ModuleNotFoundError) and f"{text}.".startswith(f"{missing.name}."):
                raise BadInput(f"cannot import {text!r}: {missing}") from None
            raise
    try:
        source = path.read_bytes()
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot read {text!r}: {reason_of(error)}") from None
    key = hashlib.sha256(str(path.resolve()).encode(errors="surrogateescape") + b"\0" + source).hexdigest()[:10]
    name = f"netdepth_user_{re.sub(r'[^0-9A-Za-z]', '_', path.stem)}_{key}"
    if name in sys.modules:
        return sys.modules[name]
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module  # before running: dataclasses look their module up by name
    try:
        with UserCode(text):
            exec(compile(source, str(path), "exec"), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    return module


class UserCode:
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


def reason_of(error: Exception) -> str:
    """An OSError without the path it repeats; anything else as it is."""
    return str((isinstance(error, OSError) and error.strerror) or error)
