"""Count what docs/architecture.md limits: size of the code, circles of imports, small modules, untyped dictionaries.

    python tools/structure.py            print one line per target
    python tools/structure.py --check    the same; exits 1 if a limit is broken

An import is every ``import`` statement, also inside a function. Imports under ``TYPE_CHECKING`` do not run; circles
that only they close are counted apart. ``from package import name`` imports ``package.name`` where that is a module,
else the package. A module is loaded by name if its name is a string in a file that calls ``import_module`` or runs
``-m``, or if its package hands its ``__path__`` to the registry, which imports every file there.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "netdepth"
UNTYPED = re.compile(r"\b(dict|Mapping|MutableMapping)\[str, Any\]")
SHORT = 60


@dataclass(frozen=True)
class Module:
    """One file, and the modules that it imports when it runs, imports for annotations, and loads by name."""

    path: Path
    tree: ast.Module
    lines: int
    imports: set[str]
    annotations: set[str]
    by_name: set[str]


def modules() -> dict[str, Module]:
    """Every module of the package by its dotted name."""
    paths = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        paths[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return {name: _module(name, path, paths.keys()) for name, path in paths.items()}


def _module(name: str, path: Path, known: Iterable[str]) -> Module:
    text = path.read_text()
    tree = ast.parse(text)
    nodes = list(ast.walk(tree))
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    blocks = [node.body for node in nodes if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)]
    guarded = {inner for body in blocks for statement in body for inner in ast.walk(statement)}
    imports = {found for node in nodes if node not in guarded for found in _imported(node, package, known)} - {name}
    annotations = {found for node in guarded for found in _imported(node, package, known)} - {name} - imports
    strings = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    by_name: set[str] = set()
    if "-m" in strings or any(isinstance(node, ast.Attribute) and node.attr == "import_module" for node in nodes):
        by_name = {module for module in known if module in strings or module.removeprefix("netdepth.") in strings}
    if any(isinstance(node, ast.Name) and node.id == "__path__" for node in nodes):
        by_name |= {module for module in known if module.rpartition(".")[0] == package}
    return Module(path, tree, text.count("\n"), imports, annotations, by_name)


def _imported(node: ast.AST, package: str, known: Iterable[str]) -> set[str]:
    """The modules of the package that an import statement imports."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        above = package.split(".")[: package.count(".") + 2 - node.level] if node.level else []
        names = [".".join(filter(None, [*above, node.module, alias.name])) for alias in node.names]
    else:
        return set()
    parents = {name: name.rpartition(".")[0] for name in names}
    return {name if name in known else parents[name] for name in names} & set(known)


def circles(graph: dict[str, set[str]]) -> list[str]:
    """Groups of modules that reach each other by imports."""
    reached: dict[str, set[str]] = {}
    for start in graph:
        seen, waiting = set[str](), [start]
        while waiting:
            new = graph[waiting.pop()] - seen
            seen |= new
            waiting += new
        reached[start] = seen
    groups = {tuple(sorted(other for other in seen if name in reached[other])) for name, seen in reached.items()}
    return [" ".join(name.removeprefix("netdepth.") for name in group) for group in sorted(groups) if group]


def reading_list(heading: str) -> list[Path]:
    """The files in the first table below this heading of docs/architecture.md."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    table = re.search(rf"^#+ {heading}\n(?:[^|].*\n|\n)*((?:\|.*\n)+)", text, re.MULTILINE)
    names = re.findall(r"^\| `(?:src/netdepth/)?([\w/]+\.py)`", table[1], re.MULTILINE) if table else []
    return [SOURCE / name for name in names]


def count() -> bool:
    """Print every count; whether all are within their limits."""
    found = modules()
    kept = True

    def say(what: str, value: float, limit: float | None = None, which: Iterable[str] = ()) -> None:
        nonlocal kept
        over = limit is not None and value > limit
        kept = kept and not over
        end = "" if limit is None else f"  limit {limit:,}{', BROKEN' if over else ''}"
        print(f"{what:<50}{value:>10,}{end}{': ' if which else ''}{'; '.join(which)}")

    say("lines of src", sum(module.lines for module in found.values()), 20_500)
    say("files of src", len(found), 130)
    for what in ("one run", "one study"):
        listed = reading_list(f"To understand {what}")
        if not listed:
            print(f"to understand {what}: not written yet, docs/architecture.md has no such section")
            continue
        there = [path for path in listed if path.is_file()]
        say(f"files to understand {what}", len(listed), 12)
        say(f"lines to understand {what}", sum(path.read_text().count("\n") for path in there), 2_600)
        absent = [str(path.relative_to(SOURCE)) for path in listed if path not in there]
        say("files named there that do not exist", len(absent), 0, absent)
    when_run = circles({name: module.imports for name, module in found.items()})
    say("circles of imports", len(when_run), 0, when_run)
    annotated = circles({name: module.imports | module.annotations for name, module in found.items()})
    say("circles with imports for annotations", len(annotated), None, annotated)
    importers = [name for module in found.values() for name in module.imports]
    excluded = {name for module in found.values() for name in module.by_name}
    excluded |= {name for name, module in found.items() if module.path.stem in ("__init__", "__main__")}
    small = [name for name in found.keys() - excluded if found[name].lines < SHORT and importers.count(name) == 1]
    say(f"modules under {SHORT} lines with a single importer", len(small), 8, sorted(small))
    nodes = (node for module in found.values() for node in ast.walk(module.tree) if isinstance(node, ast.FunctionDef))
    untyped = [UNTYPED.findall(f"{ast.unparse(node.args)} {ast.unparse(node.returns or node.args)}") for node in nodes]
    say("functions with dict[str, Any] in their signature", sum(map(bool, untyped)))
    say("lines of tests", sum(path.read_text().count("\n") for path in (ROOT / "tests").rglob("*.py")), 20_000)
    sizes = [path.stat().st_size for path in (ROOT / "docs").rglob("*") if path.is_file()]
    say("megabytes of docs", round(sum(sizes) / 1e6, 2), 4)
    longest = max(found.values(), key=lambda module: module.lines)
    say("lines of the longest file", longest.lines, None, [str(longest.path.relative_to(SOURCE))])
    return kept


if __name__ == "__main__":
    sys.exit(0 if count() or "--check" not in sys.argv[1:] else 1)
