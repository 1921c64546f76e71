"""Checkpoints with flipped bits, cut short, or swapped with others: none is loaded, and what is used is told."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.real_runs import CONFIG, make, same
from support.real_stacks import Killed, stopping

from faults.record import Faults
from netdepth.config import Runtime
from netdepth.runs.folder import RunDir
from netdepth.training import loop
from netdepth.training.run import run

pytestmark = pytest.mark.faults

FILES = ("model.safetensors", "optimizer.safetensors", "state.json", "MANIFEST.json")
OLDER, NEWER = 94, 141
"""The two steps at which the run that is mutated has checkpoints."""

EVERY = 50
"""One mutation in so many is followed to the end of the run."""


def flip_bits(folder: Path, other: Path, draw: random.Random) -> str:
    """Flip one bit, or a few."""
    path = folder / draw.choice(FILES)
    content = bytearray(path.read_bytes())
    for _ in range(draw.choice((1, 1, 1, 2, 8))):
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)
    return "bits flipped"


def cut_short(folder: Path, other: Path, draw: random.Random) -> str:
    """Cut a file at any byte, or empty it, or append something."""
    path = folder / draw.choice(FILES)
    size = path.stat().st_size
    os.truncate(path, draw.choice((0, size - 1, draw.randrange(size), size + draw.randrange(1, 4096))))
    return "cut or grown"


def take_away(folder: Path, other: Path, draw: random.Random) -> str:
    (folder / draw.choice(FILES)).unlink()
    return "a file gone"


def overwrite(folder: Path, other: Path, draw: random.Random) -> str:
    """A page of zeros or of noise, as a disk leaves it."""
    path = folder / draw.choice(FILES)
    content = bytearray(path.read_bytes())
    start = draw.randrange(len(content))
    page = content[start : start + 512]
    content[start : start + 512] = draw.choice((bytes(len(page)), draw.randbytes(len(page))))
    path.write_bytes(content)
    return "a page overwritten"


def swap_file(folder: Path, other: Path, draw: random.Random) -> str:
    """A file of the checkpoint before, or of another run's at the same step."""
    source = draw.choice((folder.parent / str(OLDER), other / folder.name))
    name = draw.choice(FILES)
    shutil.copyfile(source / name, folder / name)
    return "a file swapped"


def swap_folder(folder: Path, other: Path, draw: random.Random) -> str:
    """The whole checkpoint before under this step's name, or another run's whole checkpoint of this step."""
    source = draw.choice((folder.parent / str(OLDER), other / folder.name))
    shutil.rmtree(folder)
    shutil.copytree(source, folder)
    return "a checkpoint swapped"


MUTATIONS: tuple[Callable[[Path, Path, random.Random], str], ...] = (
    flip_bits, flip_bits, flip_bits, flip_bits, cut_short, cut_short, take_away, overwrite, swap_file, swap_folder,
)  # fmt: skip


def stopped(root: Path, seed: int) -> RunDir:
    """A run killed after its third evaluation, with two checkpoints."""
    runtime = Runtime(runs_root=root, threads=1, device="cpu", probes=False)
    with pytest.raises(Killed):
        run(CONFIG.with_seed(seed), runtime, name="test", watch=stopping(3, Killed))
    (folder,) = (RunDir(path) for path in (root / "single").iterdir())
    assert folder.checkpoints() == [OLDER, NEWER]
    return folder


def test_mutated_checkpoints(faults: Faults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "WRITE_EVERY_SECONDS", 0.0)
    there, other = stopped(tmp_path / "there", 0), stopped(tmp_path / "other", 1)
    whole = {step: there.load_checkpoint(step) for step in (OLDER, NEWER)}
    expected = make(tmp_path / "whole", probes=False)
    newer, kept = there.path / "checkpoints" / str(NEWER), tmp_path / "kept"
    shutil.copytree(newer, kept)
    draw = random.Random(4)
    with faults.drill(4, "checkpoint mutated", quick=500, long=10_000) as drill:
        for number in range(drill.count):
            change = draw.choice(MUTATIONS)
            with drill.injection(f"mutation {number}, {change.__name__}") as fell:
                fell.append(change(newer, other.path / "checkpoints", draw))
                reader = RunDir(there.path)
                found = reader.newest_checkpoint()
                if found != (NEWER, whole[NEWER]):  # white space in a manifest may change and mean the same
                    assert found == (OLDER, whole[OLDER])
                    (note,) = reader.notes
                    assert f"checkpoint {newer} is damaged" in note
                    assert "using the one before" in note
                if number % EVERY == 0:
                    copy = tmp_path / "copy"
                    shutil.copytree(there.path.parents[1], copy)
                    made = make(copy, probes=False)
                    same(expected.run, made.run)
                    step = OLDER if reader.notes else NEWER
                    assert [n for n in made.notes if f"continued from step {step}" in n]
                    assert [n for n in made.notes if "is damaged" in n] or not reader.notes
            shutil.rmtree(tmp_path / "copy", ignore_errors=True)
            shutil.rmtree(newer)
            shutil.copytree(kept, newer)
        drill.notes.append(f"one in {EVERY} was followed to the run's end: equal bit for bit")


def test_metrics_cut_at_every_byte(faults: Faults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The valid prefix is used, the loss is told, and a run that goes on ends with the same bits."""
    monkeypatch.setattr(loop, "WRITE_EVERY_SECONDS", 0.0)
    there = stopped(tmp_path / "there", 0)
    path = there.path / "metrics.jsonl"
    content = path.read_bytes()
    expected = make(tmp_path / "whole", probes=False)
    lines = content.splitlines(keepends=True)
    assert len(lines) == 3
    ends = [sum(map(len, lines[:n])) for n in range(len(lines) + 1)]
    followed = {0, *(end + by for end in ends for by in (-1, 0, 1))} | set(range(0, len(content), 397))
    with faults.drill(8, "metrics.jsonl cut at every byte of its last three lines") as drill:
        for cut in range(len(content)):
            with drill.injection(f"cut at byte {cut}", at="at a line's end" if cut in ends else "within a line"):
                path.write_bytes(content[:cut])
                reader = RunDir(there.path)
                steps = [record["step"] for record in reader.read_metrics()]
                assert steps == [47, 94, 141][: content[:cut].count(b"\n")]
                assert bool(reader.notes) == (cut not in ends)
                if cut in followed:
                    copy = tmp_path / "copy"
                    shutil.copytree(there.path.parents[1], copy)
                    made = make(copy, probes=False)
                    same(expected.run, made.run)
                    told = [note for note in made.notes if "ignored" in note or "has no record" in note]
                    assert told, made.notes
                    going_on = [note for note in made.notes if "continued from" in note]
                    assert [f"step {OLDER} " in note for note in going_on] == ([True] if OLDER in steps else [])
            shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        followed_now = len([cut for cut in followed if 0 <= cut < len(content)])
        drill.notes.append(f"{followed_now} cuts were followed to the run's end: equal bit for bit")
