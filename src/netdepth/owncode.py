"""Code of the user's own: what it is known by in a fingerprint, and the line of it that an error comes from.

A component that was registered in a file is known by the content of that file and of the files in its folder that it
imports. What was typed into a notebook or at a prompt has no file: it is known by its source (`inspect.getsource`) and
by that of everything it refers to. Where even that is missing, it is known by nothing, and no run of it is used again.
"""

from __future__ import annotations

import ast
import contextlib
import dis
import functools
import hashlib
import inspect
import sys
import sysconfig
import tokenize
import traceback
import types
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netdepth.errors import BadInput, NetdepthError
from netdepth.ownvalues import values_of

__all__ = [
    "USER_MODULE", "Origin", "digest_of", "files_of", "is_users", "module_file", "origin_of", "place_of", "user_code",
]  # fmt: skip

USER_MODULE = "netdepth_user_"
"""How the modules are called that `netdepth.files.usercode` makes of files."""
PACKAGE = Path(__file__).resolve().parent
INSTALLED = tuple({Path(sysconfig.get_path(key)).resolve() for key in ("stdlib", "platstdlib", "purelib", "platlib")})
FOREIGN = {"site-packages", "dist-packages"}


# --- errors -------------------------------------------------------------------------------------


@contextlib.contextmanager
def user_code(what: str) -> Iterator[None]:
    """Turn what leaves a user's code into one line that names the place: ``what`` failed, in which line of the user's,
    and why. ``what`` is the file itself or the component."""
    try:
        yield
    except (NetdepthError, KeyboardInterrupt):
        raise
    except BaseException as error:  # a user's code may raise anything, SystemExit too
        reason = " ".join(str(error).split())
        place = place_of(error, what)
        raise BadInput(f"{what} failed{place}: {type(error).__name__}{reason and ': '}{reason}") from error


def place_of(error: BaseException, file: str = "") -> str:
    """`` at line 3 of my.py``: the last line of the user's that ``error`` came through, also if it was raised further
    in. Empty if there is none; without the name of the ``file`` that the reader knows."""
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        name, line = error.filename, error.lineno
    else:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if is_users(frame.filename)]
        frames = [frame for frame in frames if frame.filename != "<string>"] or frames
        if not frames:
            return ""
        name, line = frames[-1].filename, frames[-1].lineno or 0
    if name == file or not line:
        return f" at line {line}" if line else ""
    return f" at line {line} of {Path(name).name if Path(name).is_file() else 'a cell'}"


@functools.cache
def is_users(filename: str) -> bool:
    """Whether code of a file, or of what has no file, is the user's: neither netdepth's nor installed."""
    if filename.startswith("<frozen"):
        return False
    path = Path(filename).resolve() if not filename.startswith("<") else Path(filename)
    inside = any(path.is_relative_to(place) for place in (PACKAGE, *INSTALLED))
    return not inside and not FOREIGN & set(path.parts)


# --- files --------------------------------------------------------------------------------------


def files_of(path: Path, module: str = "") -> dict[str, bytes]:
    """The content of ``path`` and of every file of its folder that it imports, and that those import, by module name.

    The file itself has the name ``module``, or ``""``. In a package (``a.b``) the folder is the one that holds ``a``.
    Imports are read, not run, so one that is made by ``importlib`` is not among them.

    Raises:
        OSError: ``path`` cannot be read.
    """
    path = path.resolve()
    depth, root = module.count(".") + (path.name == "__init__.py"), path.parent
    if module and depth < len(path.parents) and module_file(path.parents[depth], module) == path:
        root = path.parents[depth]
    inside = module.partition(".")[0] if not is_users(str(root / "x.py")) else None
    found: dict[str, bytes] = {}
    waiting = [(module, path)]
    while waiting:
        name, file = waiting.pop()
        found[name] = file.read_bytes()
        for other in _imports(found[name], name if file.name == "__init__.py" else name.rpartition(".")[0]):
            top, beside = other.partition(".")[0], module_file(root, other)
            wanted = top != "netdepth" and inside in (None, top)
            if wanted and other not in found and beside is not None and beside != path:
                waiting.append((other, beside))
    return found


def module_file(root: Path, name: str) -> Path | None:
    """The file of the module ``name`` below ``root``, if it is there."""
    base = root.joinpath(*name.split("."))
    return next((file for file in (base / "__init__.py", base.with_name(f"{base.name}.py")) if file.is_file()), None)


def digest_of(files: Mapping[str, bytes]) -> str:
    """sha256 of what `files_of` found: of a file without neighbours that of its content."""
    (_, content), *others = files.items()
    own = hashlib.sha256(content).hexdigest()
    parts = [own, *(f"{name} {hashlib.sha256(data).hexdigest()}" for name, data in sorted(others))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest() if others else own


def _imports(content: bytes, package: str) -> Iterator[str]:
    """Names of the modules that a source of ``package`` may import, each after the packages that hold it."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):  # running it says so
        return
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*filter(None, parts), *([node.module] if node.module else [])])
            names = [base, *(f"{base}.{alias.name}".strip(".") for alias in node.names)]
        for name in filter(None, names):
            steps = name.split(".")
            yield from (".".join(steps[: i + 1]) for i in range(len(steps)))


# --- where a component comes from ---------------------------------------------------------------


@dataclass(eq=False)
class Origin:
    """Where a component of the user's own was registered: the ``module`` and its globals, ``scope``; its ``file``
    with the `digest_of` its ``content`` and neighbours, or None and the ``typed`` object that has no file.

    ``sha256`` is what the component of a file is known by: ``content``, with the function's own file where that is
    none of these. ``token`` is unlike any other, for what nothing is known by.
    """

    module: str
    scope: Mapping[str, Any]
    file: Path | None = None
    content: str = ""
    sha256: str = ""
    typed: Any = None
    token: str = ""
    function: Any = None

    @property
    def source(self) -> str:
        """What enters the fingerprint. What has no file is looked at each time: a later cell may change what it
        refers to."""
        if self.file is not None or self.typed is None:
            values = self.values
            return hashlib.sha256(f"{self.sha256}\n{values}".encode()).hexdigest() if values else self.sha256
        text, unknown = _known_by(self.typed)
        return hashlib.sha256((text + (self.token if unknown else "")).encode()).hexdigest()

    @property
    def values(self) -> dict[str, str]:
        """What its ``function`` uses that the file computed when it was run (`values_of`)."""
        return values_of(_functions_of, [self.function]) if self.file is not None else {}

    @property
    def importable(self) -> str:
        """What ``--import`` takes to run it again: its file, or the name of an installed module."""
        installed = self.module in sys.modules and not self.module.startswith(USER_MODULE) and self.module != "__main__"
        return self.module if installed else str(self.file)

    @property
    def unknown(self) -> str:
        """What of it has no source, so that no run of it can be known again; empty if all has."""
        return "" if self.typed is None else ", ".join(_known_by(self.typed)[1])

    def unlike_before(self) -> str:
        """`unknown`; if anything is, ``source`` is another one from now on."""
        unknown = self.unknown
        if unknown:
            self.token = uuid.uuid4().hex
        return unknown

    def may_replace(self, other: Origin | None) -> bool:
        """Whether a name that ``other`` took may be taken again: the same cell, or the same file, run once more."""
        if other is None:
            return False
        if self.module == other.module == "__main__":
            return True
        return self.file is not None and self.file == other.file and self.scope is not other.scope


def origin_of(function: Callable[..., Any], scope: Mapping[str, Any]) -> Origin | None:
    """Where ``function``, registered by code with the globals ``scope``, comes from; None if it is netdepth's own.

    What an installed torch has is known by its name: its versions, as those of all that torch computes, are recorded
    and not hashed.
    """
    home, module = getattr(function, "__module__", None) or "", scope["__name__"]
    if home.startswith("netdepth."):
        return None
    if home.startswith("torch."):
        name = f"{home}.{getattr(function, '__qualname__', repr(function))}"
        return Origin(module, scope, sha256=hashlib.sha256(name.encode()).hexdigest())
    here, defined = scope.get("__file__"), _file_of(function)
    if not here or not Path(here).is_file() or (defined is not None and not Path(defined).is_file()):
        return Origin(module, scope, typed=function, token=uuid.uuid4().hex)
    path = Path(here).resolve()
    files = files_of(path, "" if module.startswith(USER_MODULE) or module == "__main__" else module)
    content = digest = digest_of(files)
    elsewhere = b"" if defined is None else Path(defined).read_bytes()
    if defined is not None and elsewhere not in files.values():
        digest = hashlib.sha256(content.encode() + elsewhere).hexdigest()
    return Origin(module, scope, path, content, digest, function=function)


def _functions_of(thing: Any) -> Iterator[tuple[types.FunctionType, set[str]]]:
    """The functions of the user's in a function or class, each with the names that it looks up in its module."""
    for item in vars(thing).values() if isinstance(thing, type) else [thing]:
        inner = getattr(item, "__func__", getattr(item, "fget", item))
        inner = inspect.unwrap(inner) if callable(inner) else inner
        if isinstance(inner, types.FunctionType) and is_users(inner.__code__.co_filename):
            yield inner, set(_globals_in(inner.__code__))


def _file_of(thing: Any) -> str | None:
    """The file, or what stands for one, in which a function or class was written; None if it does not say."""
    if isinstance(thing, type):
        codes = (_code_of(item) for item in vars(thing).values())
        names = (code.co_filename for code in codes if code is not None and code.co_filename != "<string>")
        return next(names, None)
    return getattr(_code_of(thing), "co_filename", None)


def _code_of(thing: Any) -> types.CodeType | None:
    inner = getattr(thing, "__func__", getattr(thing, "fget", thing))
    return getattr(inspect.unwrap(inner) if callable(inner) else inner, "__code__", None)


# --- what has no file ---------------------------------------------------------------------------

PLAIN = (type(None), bool, int, float, complex, str, bytes, range, slice, type(Ellipsis), type(NotImplemented))
MADE_BY_PYTHON = {
    "__module__", "__dict__", "__weakref__", "__doc__", "__qualname__", "__annotations__", "__firstlineno__",
    "__static_attributes__", "__parameters__", "__orig_bases__", "__abstractmethods__", "_abc_impl", "__annotate__",
    "__annotate_func__", "__annotations_cache__", "__dataclass_params__", "__dataclass_fields__", "__match_args__",
    "__type_params__",
}  # fmt: skip
"""Entries of a class that follow from its source, or decide nothing."""
METHOD = ("__func__", "__self__")
WRAPPERS: Mapping[type, tuple[str, ...]] = {
    functools.partial: ("func", "args", "keywords"), functools.cached_property: ("func",),
    property: ("fget", "fset", "fdel"), staticmethod: METHOD, classmethod: METHOD, types.MethodType: METHOD,
}  # fmt: skip
"""What is made of functions, and its parts."""
NO_SOURCE = (OSError, TypeError, SyntaxError, tokenize.TokenError)


def _known_by(thing: Any) -> tuple[str, list[str]]:
    """``thing`` and all that it refers to as text that is the same in every process, and what of it is unknown."""
    reader = _Reader()
    return reader.text(thing, getattr(thing, "__qualname__", type(thing).__name__)), reader.unknown


class _Reader:
    def __init__(self) -> None:
        self.seen: dict[int, int] = {}
        self.kept: list[Any] = []
        self.unknown: list[str] = []

    def text(self, value: Any, name: str) -> str:
        """``value``, called ``name``, as text."""
        if isinstance(value, PLAIN):
            return repr(value)
        if id(value) in self.seen:
            return f"<seen {self.seen[id(value)]}>"
        self.seen[id(value)] = len(self.seen)
        self.kept.append(value)  # an id is another object's once this one is gone
        if isinstance(value, tuple | list):
            return f"{type(value).__name__}[{', '.join(self.text(item, name) for item in value)}]"
        if isinstance(value, set | frozenset):
            return f"set{sorted(self.text(item, name) for item in value)}"
        if isinstance(value, dict):
            return f"dict {self.text([*value.items()], name)}"
        if isinstance(value, types.ModuleType):
            return self._module(value)
        if isinstance(value, types.FunctionType | type):
            return self._written(value, name)
        for kind, parts in WRAPPERS.items():
            if isinstance(value, kind):
                return f"{type(value).__name__} {self.text([getattr(value, part, None) for part in parts], name)}"
        return self._object(value, name)

    def _file(self, file: str, module: str) -> str:
        try:
            return digest_of(files_of(Path(file), module))
        except (OSError, IndexError):
            return self._not_known(module)

    def _module(self, module: types.ModuleType) -> str:
        file = getattr(module, "__file__", None)
        known = file is None or not is_users(file)
        return f"module {module.__name__ if known else self._file(str(file), module.__name__)}"

    def _written(self, thing: Any, name: str) -> str:
        """A function or a class: by name if it is installed, by its file if it has one, else by its source."""
        module, by_name = thing.__module__ or "", f"{thing.__module__}.{thing.__qualname__}"
        home = getattr(sys.modules.get(module), "__file__", None)
        if not isinstance(thing, type):
            file = thing.__code__.co_filename
            if not is_users(file):
                return f"{by_name} {self.text(getattr(thing, '__wrapped__', None), name)}"
            return f"{self._file(file, module)} {by_name}" if Path(file).is_file() else self._function(thing, name)
        if module == "__main__" or module not in sys.modules:
            return self._class(thing, name)
        return by_name if home is None or not is_users(home) else f"{self._file(home, module)} {by_name}"

    def _function(self, function: types.FunctionType, name: str) -> str:
        try:
            source = inspect.getsource(function.__code__)
        except NO_SOURCE:
            return self._not_known(name)
        parts = [source, self.text([function.__defaults__, function.__kwdefaults__], f"a default of {name}")]
        for free, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            try:
                parts.append(f"{free} = {self.text(cell.cell_contents, free)}")
            except ValueError:  # it is not set yet
                continue
        for other in sorted(set(_globals_in(function.__code__))):
            if other in function.__globals__:
                parts.append(f"{other} = {self.text(function.__globals__[other], other)}")
        return "\n".join(parts)

    def _class(self, cls: type, name: str) -> str:
        fields = vars(cls).get("__dataclass_fields__", {})
        above = (*cls.__bases__, type(cls))
        parts = [f"class {cls.__qualname__}", *(self.text(base, base.__qualname__) for base in above)]
        for key, value in sorted(vars(cls).items()):
            made = fields and getattr(_code_of(value), "co_filename", "") == "<string>"
            if key not in MADE_BY_PYTHON and not made and not isinstance(value, types.MemberDescriptorType):
                parts.append(f"{key} = {self.text(value, f'{name}.{key}')}")
        for key, field in fields.items():
            parts.append(f"{key}: {field.type} = {self.text(getattr(cls, key, None), f'{name}.{key}')}")
        return "\n".join(parts)

    def _object(self, value: Any, name: str) -> str:
        kind, module = type(value), type(value).__module__ or ""
        if isinstance(value, types.BuiltinFunctionType | types.MethodDescriptorType):
            return f"{getattr(value, '__module__', '')}.{value.__qualname__}"
        if module.partition(".")[0] in ("torch", "numpy") and kind.__name__ in ("Tensor", "ndarray", "Parameter"):
            array = value.detach().cpu().numpy() if module.startswith("torch") else value
            if array.dtype != object:
                return f"{array.dtype}{array.shape} {hashlib.sha256(array.tobytes()).hexdigest()}"
        small = module == "torch" and kind.__name__ in ("dtype", "device", "layout", "memory_format", "Size")
        if small or module.startswith(("typing", "pathlib")):
            return repr(value)
        return self._not_known(name)

    def _not_known(self, name: str) -> str:
        self.unknown.append(name)
        return f"unknown {name}"


def _globals_in(code: types.CodeType) -> Iterator[str]:
    """The names that ``code``, and what is defined in it, looks up in its module."""
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"):
            yield str(step.argval)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _globals_in(constant)
