"""Row 5: data files damaged or made to harm: one line or the right content, little memory, nothing elsewhere."""

from __future__ import annotations

import gzip
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.cifar_archives import ARCHIVES, World, make_world, packed
from test_data_fuzz import append, cut_out, flip_bits, mutated_case, noise, truncate

from faults.ground import tree
from faults.record import Faults
from netdepth.config import Component
from netdepth.data import load
from netdepth.errors import BadInput, StorageError

pytestmark = pytest.mark.faults

BYTES = (flip_bits, truncate, append, cut_out, noise)
MEMORY_LIMIT = 1_000_000_000


class Ground:
    """Data of every kind under ``root``; the cache of decoded pictures lies in it too, and nothing else may change."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.root, self.cache = root, root / "cache"
        patch.setenv("XDG_CACHE_HOME", str(self.cache))
        patch.chdir(root)
        self.cifar: World = make_world(root / "cifar", patch)
        self.outside = root / "outside"
        self.outside.mkdir()
        Image.new("L", (4, 4), 9).save(self.outside / "secret.png")

    def idx(self, number: int, rng: random.Random) -> str:
        return mutated_case(self.root / "idx", number, rng)

    def archive(self, number: int, rng: random.Random) -> str:
        """An archive of CIFAR is damaged as a file or inside; its digest refuses it before it is read."""
        form = rng.choice(("binary", "python"))
        data, damage = ARCHIVES["cifar10", form], rng.choice(BYTES)
        damaged = packed(damage(gzip.decompress(data), rng)) if number % 2 else damage(data, rng)
        path = self.cifar.put("cifar10", form, damaged)
        assert "found sha256" in self.cifar.refused("cifar10")
        path.unlink()
        return "refused"

    def picture(self, number: int, rng: random.Random) -> str:
        """One picture of a folder is damaged; what is still a picture may be used."""
        folder = self.root / "pictures"
        place = put_pictures(folder, rng)
        path = folder / "train" / rng.choice(("ant", "bee")) / place
        data = path.read_bytes()
        path.write_bytes(rng.choice(BYTES)(data, rng) if number % 2 else lying_header(data, rng))
        return outcome_of(lambda: load(Component("image-folder", {"path": str(folder)}), data_dir=None))

    def layout(self, number: int, rng: random.Random) -> str:
        """A folder of pictures holds what it should not: pipes, links that lead nowhere or around, odd names."""
        folder = self.root / "layout"
        put_pictures(folder, rng)
        part = folder / rng.choice(("train", "train/ant", "train/bee", "."))
        name = rng.choice(("x.png", "\x1b[31m.png", "new\nline", "x", "é" * 60, "-rf", "..png", "a\u202etxt.png"))
        kind = rng.choice(("file", "pipe", "broken", "circle", "folder", "outward"))
        path = part / name
        if kind == "file":
            path.write_bytes(rng.randbytes(40))
        elif kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        else:
            ends = {"broken": "nowhere", "circle": name, "outward": str(self.outside / "secret.png")}
            path.symlink_to(ends[kind])
        try:
            return outcome_of(lambda: load(Component("image-folder", {"path": str(folder)}), data_dir=None))
        finally:
            path.rmdir() if kind == "folder" else path.unlink()


def put_pictures(folder: Path, rng: random.Random) -> str:
    """Two pictures of each class below ``folder``; the name of the one that is to be damaged."""
    suffix = rng.choice(("png", "jpg", "tif", "bmp", "webp", "gif"))
    for label, name in enumerate(("ant", "bee")):
        (folder / "train" / name).mkdir(parents=True, exist_ok=True)
        for index in range(2):
            pixels = np.full((6, 6, 3), 60 * (2 * label + index), np.uint8)
            for old in (folder / "train" / name).glob(f"{index}.*"):
                old.unlink()
            Image.fromarray(pixels).save(folder / "train" / name / f"{index}.{suffix}")
    return f"0.{suffix}"


def lying_header(data: bytes, rng: random.Random) -> bytes:
    """The picture says that it has other dimensions than it has."""
    changed = bytearray(data)
    jpeg, elsewhere = data.find(b"\xff\xc0") + 5, rng.randrange(26)
    at = 16 if data.startswith(b"\x89PNG") else jpeg if data.startswith(b"\xff\xd8") else elsewhere
    changed[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\0\1\0\0", rng.randbytes(4)))
    return bytes(changed)


def outcome_of(attempt: Callable[[], object]) -> str:
    """``refused`` in one line, or ``loaded``."""
    try:
        attempt()
    except (BadInput, StorageError) as error:
        line = str(error)
    else:
        return "loaded"
    assert "\n" not in line
    return "refused"


KINDS = ("idx", "archive", "picture", "layout")


def test_mutated_data(faults: Faults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(5)
    ground = Ground(tmp_path, monkeypatch)
    outcomes: dict[str, int] = {}
    with faults.drill(5, "data files mutated", quick=500, long=5000) as drill:
        for number in range(drill.count):
            kind = KINDS[number % len(KINDS)]
            with drill.injection(f"{kind} {number}", at={"idx": "gzip and IDX", "archive": "tar"}.get(kind, kind)):
                outcome = getattr(ground, kind)(number // len(KINDS), rng)
                outcomes[outcome.split()[-1]] = outcomes.get(outcome.split()[-1], 0) + 1
        drill.measured |= dict(sorted(outcomes.items()))
        with drill.injection("all of them: what lies outside", at="outside"):
            assert sorted(os.listdir(tmp_path)) == ["cache", "cifar", "idx", "layout", "outside", "pictures"]
            assert list(tree(ground.outside)) == [str(ground.outside / "secret.png")]
    assert outcomes["refused"] > drill.count // 2


BOMBS = Path(__file__).with_name("bombs.py")


def test_bombs_cost_less_than_a_gigabyte(faults: Faults, tmp_path: Path) -> None:
    """All in one process, which ends with the most memory that any of them made it hold."""
    done = subprocess.run(
        [sys.executable, str(BOMBS), str(tmp_path)], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    *bombs, (_, peak) = [json.loads(line) for line in done.stdout.splitlines()]
    with faults.drill(5, "bombs in data files", quick=len(bombs)) as drill:
        for name, said in bombs:
            with drill.injection(name, at=name.partition(":")[0]):
                assert said.count("\n") == 0
                assert said.startswith("used: ") == name.endswith("(a picture)"), said
        with drill.injection("memory of the process", at="memory"):
            assert peak < MEMORY_LIMIT, f"{peak:,} bytes"
        drill.measured["peak_MB_of_the_process"] = round(peak / 1e6)
        assert os.listdir(tmp_path) == ["data"], "nothing is written beside the data"
