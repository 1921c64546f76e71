"""Row 13: mutated command lines and configs: no traceback, one line, nothing touched, and the nearest match named."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from support.cli_world import World
from support.mutated_lines import build_safe_world, check, check_mutated_config, mutated_lines

from faults.ground import answer
from faults.record import Faults
from netdepth.cli import DISCARDING, KINDS

pytestmark = pytest.mark.faults


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return build_safe_world(tmp_path, monkeypatch)


COMMANDS = [
    "train",
    "study",
    "report",
    "verdict",
    "compare",
    "inspect",
    "predict",
    "convert",
    "doctor",
    "board",
    "sync",
]
OPTIONS = ["--seeds", "--dataset", "--device", "--fresh", "--track", "--threads", "--data", "--runs", "--json"]
RECIPES = ["baseline-mlp", "depth-mlp", "depth-mlp5k"]


def drawn(count: int, strategy: st.SearchStrategy[Any], act: Callable[[Any], None]) -> None:
    """``count`` examples of ``strategy``, the same every time, none of them shrunk: the drill counts all."""

    @settings(
        max_examples=count,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def one(value: Any) -> None:
        act(value)

    one()


def test_mutated_lines_and_configs(faults: Faults, world: World) -> None:
    with faults.drill(13, "command lines and configs, mutated", quick=300, long=50_000) as drill:

        def line(argv: list[str]) -> None:
            with drill.injection(repr(argv)[:200], at="command line"):
                check(world, argv, world.folder.parent)

        def config(data: Any) -> None:
            with drill.injection("a config", at="config.json"):
                check_mutated_config(world, data)

        drawn(drill.count // 2, mutated_lines(), line)
        drawn(drill.count - drill.count // 2, st.data(), config)


def misspelt(word: str) -> Iterator[str]:
    """A letter left out, doubled, exchanged with its neighbour or replaced."""
    start = 2 if word.startswith("--") else 0
    for at in range(start + 1, len(word) - 1):
        yield word[:at] + word[at + 1 :]
        yield word[:at] + word[at] + word[at:]
        yield word[:at] + word[at + 1] + word[at] + word[at + 2 :]
        yield word[:at] + "q" + word[at + 1 :]


def places(world: World) -> dict[str, Callable[[str], list[object]]]:
    """Where a name can be mistyped: the names of each place, and the command line with one of them."""
    config = json.loads((world.folder / "config.json").read_text())

    def with_key(word: str) -> list[object]:
        path = Path(world.folder.parent, "key.json")
        path.write_text(json.dumps({**config, "train": {**config["train"], word: "1ep"}}))
        return ["train", path]

    return {
        **{f"command {name}": lambda word: [word] for name in COMMANDS},
        **{f"option {name}": lambda word: ["train", "baseline-mlp", word] for name in OPTIONS},
        **{f"recipe {name}": lambda word: ["train", word] for name in RECIPES},
        **{f"kind {name}": lambda word: ["list", word] for name in KINDS},
        "setting train.budget": lambda word: ["train", "baseline-mlp", "--set", f"{word}=1ep"],
        "setting model.hidden": lambda word: ["train", "baseline-mlp", "--set", f"{word}=[4]"],
        "model resnet": lambda word: ["train", "baseline-mlp", "--set", f"model={word}"],
        "optimizer adam": lambda word: ["train", "baseline-mlp", "--set", f"optimizer={word}"],
        "data set fashion-mnist": lambda word: ["train", "baseline-mlp", "--dataset", word],
        "tracker tensorboard": lambda word: ["train", "baseline-mlp", "--track", word],
        "key batch_size": with_key,
        "run baseline-mlp-s0": lambda word: ["compare", word],
    }


def test_the_nearest_match_is_named(faults: Faults, world: World) -> None:
    """Every misspelling of every name by one letter, however many; one that is a name itself is no misspelling."""
    every = [(kind, word, line) for kind, line in places(world).items() for word in set(misspelt(kind.split()[-1]))]
    known = {kind.split()[-1] for kind in places(world)}
    with faults.drill(13, "names misspelt by one letter", quick=len(every)) as drill:
        for kind, word, line in sorted(every, key=lambda item: item[:2]):
            name = kind.split()[-1]
            nameless = ".." in word  # nothing is near an empty name: the good ones are listed
            if word not in known and not name.startswith(word) and not nameless:
                with drill.injection(f"{kind}: {word}", at=kind.rpartition(" ")[0]):
                    check_nearest(answer(*line(word)).line, name, word)


def check_nearest(line: str, name: str, word: str) -> None:
    """``name`` is proposed for ``word``, or the part of it that is misspelt, or something that is as near; of an option
    that discards something none is."""

    def nearness(one: str) -> float:
        return SequenceMatcher(None, word, one).ratio()

    hint = line.partition("did you mean ")[2].partition(")")[0] or line.partition("nearest")[2]
    named = re.findall(r"[\w.-]+", hint)
    if name in DISCARDING and not hint:
        return
    assert not {*named} & {*DISCARDING}, line
    assert any(name in one or one in name.split(".") or nearness(one) >= nearness(name) for one in named), line
