"""Mutated command lines and configs, and what holds for each: no traceback, one line, nothing else touched."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import platformdirs
import pytest
from hypothesis import strategies as st

from netdepth.cli import main
from support.cli_world import World, build_world

LINES = [
    ["train", "baseline-mlp", "--seed", "3", "--dataset", "mnist5k", "--set", "train.budget=2ep", "--threads", "1"],
    ["train", "baseline-mlp", "--seeds", "0,2", "--set", "model.hidden=[8,8]", "--track", "none", "--json"],
    ["train", "my.py:tiny", "--import", "my.py", "--set", "optimizer=sgd", "--set", "optimizer.lr=0.1", "--fresh"],
    ["train", "config.json", "--device", "cpu", "--track", "tensorboard,wandb", "--wandb-online"],
    ["quickstart", "--seed", "1", "--runs", "somewhere"],
    ["study", "depth-mlp5k", "--seeds", "9", "--depths", "2,8,32", "--set", "train.budget=2ep", "--workers", "2"],
    ["study", "depth-mlp5k", "--tune", "lr", "--no-report", "--json"],
    ["compare", "baseline-mlp-s0", "baseline-mlp-s1", "--markdown"],
    ["compare", "baseline-mlp-s0", "--csv", "--json"],
    ["predict", "baseline-mlp-s0", "my.py", "--invert"],
    ["explain", "baseline-mlp-s0", "--images", "my.py", "--count", "5", "--classes", "1", "--out", "a.png"],
    ["data", "list", "--data", "."],
    ["list", "models", "-v"],
    ["runs", "list", "--json"],
    ["runs", "rm", "baseline-mlp-s0"],
    ["board", "here", "--port", "6006"],
]
HOSTILE = [
    "", " ", "-", "--", "---", "-1", "--set", "--seed=", "--seeds=1,1", "=", "a.b=1", "model=", "train.budget=1e9ep",
    "..", "/", "../../etc/passwd", "\0", "\n", "\x1b[31m", "\udcff", "é", "٣", "💥", "a" * 5000, "9" * 400, "NaN",
    "null", "[", "{}", '{"a":' * 2000, "$(id)", "`id`", "%s%n", "my.py:", "my.py:broken", ":", "config.json",
    "--json=1", "train.seed=1", "seed=1", "model.hidden=[1e400]", "model.hidden=[0]", "model={}", "train=3",
    'model={"name":1}', "optimizer.lr=NaN",
]  # fmt: skip


def build_safe_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """The stand-in world, in which predictions, removals and TensorBoard are stand-ins as well."""
    from netdepth.errors import BadInput

    world = build_world(tmp_path, monkeypatch)

    def refuse(*_: Any, **__: Any) -> None:
        raise BadInput("refused by the stand-in")

    monkeypatch.setattr("netdepth.tools.predict.predict", refuse)
    monkeypatch.setattr("netdepth.tools.explain.explain", refuse)
    monkeypatch.setattr("netdepth.data.manage.fetch", refuse)
    monkeypatch.setattr("netdepth.studies.removal.remove_all", refuse)
    monkeypatch.setattr("subprocess.call", lambda command: 0)
    world.launch("warm", [], None)
    return world


# --- watching what is opened for writing -----------------------------------------------------------

_watched: list[str] | None = None
CHANGES = {"os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.link", "os.symlink", "os.truncate", "shutil.rmtree"}


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _watched is None:
        return
    if event == "open":
        path, mode, flags = arguments
        if isinstance(path, str | bytes | os.PathLike) and (
            (isinstance(mode, str) and set(mode) & set("wax+")) or (mode is None and flags & (os.O_WRONLY | os.O_RDWR))
        ):
            _watched.append(os.fsdecode(path))
    elif event in CHANGES:
        _watched.append(os.fsdecode(arguments[0]))


sys.addaudithook(_audit)


@contextlib.contextmanager
def watching() -> Iterator[list[str]]:
    """Paths that this process opens for writing, makes, renames or removes."""
    global _watched
    _watched = found = []
    try:
        yield found
    finally:
        _watched = None


def check(world: World, argv: list[str], allowed: Path) -> int:
    """Run ``argv`` and assert what holds for every command line; writes are allowed below ``allowed`` alone."""
    before = world.tree()
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), watching() as written:
        code = main(argv)
    assert code in (0, 2), err.getvalue()
    assert "Traceback" not in err.getvalue()
    assert "\x1b" not in out.getvalue() + err.getvalue()
    if code == 2:
        assert err.getvalue().startswith("netdepth: error: ")
        assert err.getvalue().count("\n") == 1
        assert out.getvalue() == ""
    elif "--json" in argv and "--help" not in argv and "--version" not in argv and "-h" not in argv:
        json.loads(out.getvalue())
    places = (allowed, Path(platformdirs.user_cache_dir("netdepth")).resolve())  # a cache of the test's own home
    outside = [path for path in written if not any(Path(path).resolve().is_relative_to(place) for place in places)]
    outside = [path for path in outside if "__pycache__" not in path and path != os.devnull]
    assert outside == [], outside
    assert world.tree() == before
    return code


@st.composite
def mutated_lines(draw: st.DrawFn) -> list[str]:
    """A good command line with one to four words dropped, doubled, swapped, replaced or misspelt."""
    line = list(draw(st.sampled_from(LINES)))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(line)))
        act = draw(st.sampled_from(["drop", "double", "swap", "hostile", "text", "misspell", "foreign"]))
        word = line[place] if place < len(line) else ""
        if act == "drop":
            del line[place : place + 1]
        elif act == "double":
            line.insert(place, word)
        elif act == "swap" and line:
            other = draw(st.integers(0, len(line) - 1))
            line[place - 1], line[other] = line[other], line[place - 1]
        elif act == "hostile":
            line[place : place + 1] = [draw(st.sampled_from(HOSTILE))]
        elif act == "text":
            line[place : place + 1] = [draw(st.text(max_size=12))]
        elif act == "misspell" and word:
            at = draw(st.integers(0, len(word) - 1))
            line[place] = word[:at] + draw(st.characters()) + word[at + draw(st.integers(0, 1)) :]
        elif act == "foreign":
            line.insert(place, draw(st.sampled_from([word for other in LINES for word in other])))
    return line


# --- config.json -----------------------------------------------------------------------------------

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_subnormal=False)
    | st.text(max_size=8)
    | st.sampled_from(HOSTILE),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every key path in ``value``, the empty one for the whole included."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in items for place in places(item, (*path, key)))]


def check_mutated_config(world: World, data: st.DataObject) -> None:
    """Train from a config with up to three places replaced, removed or added."""
    config = json.loads((world.folder / "config.json").read_text())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from(places(config)))
        parent = config
        for key in place[:-1]:
            parent = parent[key]
        act = data.draw(st.sampled_from(["replace", "delete", "add"]))
        if not place or not isinstance(parent, dict):
            continue
        if act == "delete":
            del parent[place[-1]]
        else:
            key = place[-1] if act == "replace" else data.draw(st.text(max_size=8))
            parent[key] = data.draw(json_values)
    text = json.dumps(config).encode()
    if data.draw(st.integers(0, 9)) == 0:  # one in ten is damaged as a file
        generator = random.Random(data.draw(st.integers(0, 2**32)))
        damaged = bytearray(text)
        for _ in range(generator.randint(1, 5)):
            damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        text = bytes(damaged[: generator.randrange(len(damaged) + 1)])
    path = world.folder.parent / "mutated.json"
    path.write_bytes(text)
    check(world, ["train", str(path), "--track", "none"], world.folder.parent / "made")
    assert path.read_bytes() == text
