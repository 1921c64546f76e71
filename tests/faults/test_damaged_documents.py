"""Row 13, of files: the JSON of a store is altered anywhere; every command that reads it answers, none breaks down."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.mutated_lines import places

from faults.ground import answer, run_at, store_at
from faults.record import Faults

pytestmark = pytest.mark.faults

VALUES: list[Any] = [
    None, True, -1, 0, 3.5, 1e308, 10**400, "", "x", "../../escaped", "\x1b[31m", "NaN", "9" * 5000, [], {},
    [[]], {"a": {}},
]  # fmt: skip


def altered(document: Any, rng: random.Random) -> str:
    """Replace or remove one to three things in ``document``; says which."""
    told = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        here = places(document)[1:]
        if not here:
            break
        *parents, last = rng.choice(here)
        inner = document
        for key in parents:
            inner = inner[key]
        if rng.random() < 0.2:
            del inner[last]
        else:
            inner[last] = rng.choice(VALUES)
        told.append(".".join(map(str, [*parents, last])))
    return ", ".join(told)


def test_altered_documents(faults: Faults, tmp_path: Path) -> None:
    rng = random.Random(13)
    picture = tmp_path / "x.png"
    Image.new("L", (28, 28), 30).save(picture)
    whole = store_at(tmp_path / "whole")
    files = sorted(path.relative_to(whole) for path in whole.rglob("*.json") if "checkpoints" not in path.parts)
    with faults.drill(13, "documents of a store, altered", quick=12, long=1000) as drill:
        for number in range(drill.count):
            store = store_at(tmp_path / "runs", whole)
            name = Path("tiny/study.json") if number % 3 == 0 else rng.choice(files)
            document = json.loads((store / name).read_text())
            told = altered(document, rng)
            (store / name).write_text(json.dumps(document))
            run = name.parts[1] if len(name.parts) > 2 else run_at(store).name
            argv = [["runs", "list"], ["compare", run], ["inspect", run], ["predict", run, picture]]
            if name.parts[0] == "tiny":
                argv += [["verdict", "tiny"], *([["report", "tiny"]] if number % 10 == 0 else [])]
            with drill.injection(f"{name}: {told}", at=name.name if len(name.parts) < 4 else "probes"):
                for words in argv:
                    said = answer(*words, "--runs", store)
                    assert said.code in (0, 2), f"{words}: {said.err}"
                    assert said.code == 0 or said.line, said.err
                    assert "\x1b" not in said.out + said.err
                assert not (tmp_path / "escaped").exists()
