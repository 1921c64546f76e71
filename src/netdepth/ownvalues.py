"""What a user's own file computes when it is run, and a part of it uses: ``K = int(sys.argv[1])``, an option, a setting
from the environment. The digest of the file does not know such a value, so it enters the fingerprint beside it.

Values that follow from the source alone (``K = 8``, ``W = 2 * K``) are not among them.
"""

from __future__ import annotations

import argparse
import ast
import functools
import hashlib
import inspect
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from netdepth.errors import BadInput

__all__ = ["refuse_others", "values_of"]

PLAIN = (type(None), bool, int, float, complex, str, bytes)
FIXED = (
    ast.Constant, ast.Name, ast.UnaryOp, ast.BinOp, ast.BoolOp, ast.Compare, ast.List, ast.Tuple, ast.Set, ast.Dict,
    ast.operator, ast.unaryop, ast.boolop, ast.cmpop, ast.expr_context,
)  # fmt: skip
"""What an expression is made of whose value follows from the source."""


def values_of(codes: Any, things: list[Any]) -> dict[str, str]:
    """The computed values that ``things`` and what they refer to use, as text by name, sorted.

    ``codes(thing)`` gives the functions of the user's that a function or class holds, with the names that each looks
    up in its module.
    """
    found: dict[str, str] = {}
    waiting, seen = list(things), set()
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, type):
            waiting += thing.__bases__
        for function, names in codes(thing):
            for name, value, file in _looked_up(function, names):
                if isinstance(value, types.FunctionType | type | functools.partial):
                    waiting.append(value.func if isinstance(value, functools.partial) else value)
                elif name in _computed_in(file):
                    text = _as_text(value, function.__code__.co_names)
                    found |= {name: text} if text is not None else {}
            for name, value in inspect.getclosurevars(
                function
            ).nonlocals.items():  # what a function around it was given
                if isinstance(value, types.FunctionType | type):
                    waiting.append(value)
                elif (text := _as_text(value, function.__code__.co_names)) is not None:
                    found[name] = text
    return dict(sorted(found.items()))


def refuse_others(what: str, then: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Raises BadInput, a line that names them, if ``what`` was made with other values ``then`` than it has ``now``."""
    other = {name: text for name, text in then.items() if now.get(name) != text}
    if other:
        was = ", ".join(f"{name} = {text}" for name, text in other.items())
        here = ", ".join(f"{name} = {now[name]}" if name in now else f"no {name}" for name in other)
        raise BadInput(
            f"{what} was made with {was}, which its file computes; here it has {here}; see that it is the same"
        )


def _looked_up(function: types.FunctionType, names: set[str]) -> Iterator[tuple[str, Any, str]]:
    """Each name that ``function`` looks up, also in a module (``cfg.K``): name, value, and the file that binds it."""
    scope = function.__globals__
    for name in sorted(names & scope.keys()):
        value = scope[name]
        if isinstance(value, types.ModuleType):
            inside = vars(value)
            for attribute in function.__code__.co_names:
                if attribute in inside:
                    yield attribute, inside[attribute], str(inside.get("__file__", ""))
        else:
            yield name, value, str(scope.get("__file__", ""))


def _as_text(value: Any, names: tuple[str, ...]) -> str | None:
    """``value``, of options those that are in ``names``; None for what is no value, and for a path, which decides
    nothing."""
    if isinstance(value, PLAIN):
        return None if isinstance(value, str) and "/" in value and Path(value).exists() else repr(value)
    if isinstance(value, argparse.Namespace | types.SimpleNamespace):
        value = {key: one for key, one in vars(value).items() if key in names}
    if isinstance(value, dict):
        pairs = [(repr(key), _as_text(one, names)) for key, one in value.items()]
        return "{" + ", ".join(f"{key}: {text}" for key, text in pairs if text is not None) + "}"
    if isinstance(value, list | tuple | set | frozenset):
        texts = [str(_as_text(one, names)) for one in value]
        return f"[{', '.join(sorted(texts) if isinstance(value, set | frozenset) else texts)}]"
    if type(value).__module__.partition(".")[0] in ("torch", "numpy") and hasattr(value, "tolist"):
        content = repr(value.tolist())
        return content if len(content) < 60 else hashlib.sha256(content.encode()).hexdigest()[:16]
    return None


@functools.lru_cache(maxsize=64)
def _computed_in(file: str) -> frozenset[str]:
    """The names of a file that are bound to what its source does not say."""
    try:
        tree = ast.parse(Path(file).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return frozenset()
    found: set[str] = set()
    _statements(tree.body, Path(file).parent, found, False)
    for node in ast.walk(tree):
        found |= set(node.names) if isinstance(node, ast.Global) else set()
    return frozenset(found)


def _statements(body: list[ast.stmt], folder: Path, found: set[str], inside: bool) -> None:
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Import):
            continue
        if isinstance(statement, ast.ImportFrom):
            file = str(folder.joinpath(*(statement.module or "").split(".")).with_suffix(".py"))
            theirs = _computed_in(file) if statement.module and Path(file).is_file() else frozenset()
            found |= {alias.asname or alias.name for alias in statement.names if alias.name in theirs}
            continue
        blocks = [getattr(statement, part, []) for part in ("body", "orelse", "finalbody")]
        blocks += [handler.body for handler in getattr(statement, "handlers", [])]
        for block in blocks:
            _statements(block, folder, found, True)
        if not any(blocks):
            parts = [statement.value] if hasattr(statement, "value") and statement.value is not None else []
            computed = inside or any(_computes(part, found) for part in parts)
        else:
            computed = True
        targets = [node for part in ast.iter_child_nodes(statement) if not any(part in block for block in blocks)
                   for node in ast.walk(part)]  # fmt: skip
        if computed:
            found |= {node.id for node in targets if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
            changed = [node.value for node in targets if isinstance(node, ast.Subscript | ast.Attribute)
                       and isinstance(node.ctx, ast.Store)]  # fmt: skip
            found |= {node.id for node in changed if isinstance(node, ast.Name)}


def _computes(expression: ast.AST, computed: set[str]) -> bool:
    return any(
        not isinstance(node, FIXED) or (isinstance(node, ast.Name) and node.id in computed)
        for node in ast.walk(expression)
    )
