"""Somebody's runs trained again: equal bits, altered files, another machine, and what cannot be repeated."""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.tiny_studies import make, tiny_spec

from netdepth.cli import main
from netdepth.config import Runtime
from netdepth.errors import BadInput
from netdepth.runs.folder import RunDir
from netdepth.runs.repeat import Pair, shift
from netdepth.studies.replay import Replay, replay


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study: six runs in two stacks."""
    return make(tmp_path_factory.mktemp("made"), tiny_spec()).study.path


@pytest.fixture(scope="module")
def picked(made: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The run that the replay seed 1 chooses, wherever the study lies."""
    runtime = Runtime(runs_root=tmp_path_factory.mktemp("first"), device="cpu")
    (found,) = [run for run in replay(made, 1, runtime, seed=1, workers=0, progress=False).runs if run.chosen]
    assert found.finding == "same bits"
    return found.run.name


@pytest.fixture
def theirs(made: Path, tmp_path: Path) -> Path:
    """A copy of it, as a student hands it in."""
    return shutil.copytree(made, tmp_path / "anna" / "tiny")


@pytest.fixture
def again(tmp_path: Path) -> Callable[..., Replay]:
    """`replay` in a runs folder of our own, in this process."""
    runtime = Runtime(runs_root=tmp_path / "ours", device="cpu")
    return lambda of, number=1, seed=1, **more: replay(
        of, number, runtime, seed=seed, workers=0, progress=False, **more
    )


def state(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {str(p): (p.read_bytes(), p.stat().st_mtime_ns) for p in sorted(folder.rglob("*")) if p.is_file()}


def edit(path: Path, change: Callable[[dict], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_honest_runs_have_the_same_bits_and_stay_untouched(theirs: Path, again: Callable[..., Replay]) -> None:
    shutil.rmtree(next(theirs.glob("plain-depth-2-*-s0-*")) / "checkpoints")  # a student may leave them out
    before = state(theirs)
    done = again(theirs, 2)
    assert [run.finding for run in done.runs if run.chosen] == ["same bits"] * 2
    assert {run.finding for run in done.runs} == {"same bits"}
    assert done.code == 0
    assert (done.finished, done.planned) == (6, 6)
    assert state(theirs) == before
    assert [run.run for run in again(theirs, 2).runs] == [run.run for run in done.runs]  # and continues its folder
    assert again(theirs, 1, seed=2).runs[0].run.name != done.runs[0].run.name
    assert not list((theirs.parents[1] / "ours").glob("*/*/config.json"))  # no list of runs has them


def _loss(content: dict) -> None:
    content["val"]["last"]["loss"] -= 1e-6


def _record(run: RunDir) -> None:
    lines = (run.path / "metrics.jsonl").read_text().splitlines()
    first = json.loads(lines[0])
    first["train_loss"] -= 1e-6
    (run.path / "metrics.jsonl").write_text("\n".join([json.dumps(first), *lines[1:]]) + "\n")


def _predictions(run: RunDir) -> None:
    path = run.path / "predictions.npz"
    with np.load(path) as held:
        logits, labels = held["logits"].copy(), held["labels"]
    logits[0, 0] += 1
    np.savez_compressed(path, logits=logits, labels=labels)


CHEATS: dict[str, tuple[Callable[[RunDir], object], str]] = {
    "a better loss": (lambda run: edit(run.path / "result.json", _loss), "result.json val last loss"),
    "a better record": (_record, "metrics.jsonl at step 2 train_loss"),
    "other predictions": (_predictions, "predictions.npz has other logits"),
    "other settings": (
        lambda run: edit(run.path / "config.json", lambda c: c["optimizer"]["args"].update(lr=0.5)),
        "its config.json has the fingerprint",
    ),
    "another seed": (lambda run: edit(run.path / "config.json", lambda c: c.update(seed=9)), "that of another run"),
    "other weights": (
        lambda run: edit(run.path / "result.json", lambda c: c.update(weights_sha256="0" * 64)),
        "weights_sha256: 000000000000 there",
    ),
}


@pytest.mark.parametrize("cheat", CHEATS)
def test_what_was_altered_differs(cheat: str, theirs: Path, picked: str, again: Callable[..., Replay]) -> None:
    alter, words = CHEATS[cheat]
    chosen = theirs / picked
    alter(RunDir(chosen))
    done = again(theirs)
    (found,) = [run for run in done.runs if run.chosen]
    assert (found.run, found.finding, done.code) == (chosen, "differs", 1)
    assert words in found.why
    assert all(run.finding == "same bits" for run in done.runs if not run.chosen)


def test_a_seed_of_the_same_stack_that_is_damaged(theirs: Path, picked: str, again: Callable[..., Replay]) -> None:
    cell, mark = picked.rpartition("-s")[0], picked.rpartition("-")[2]
    first, second = (theirs / f"{cell}-s{seed}-{mark}" for seed in (0, 1))
    (first / "environment.json").unlink()
    (second / "result.json").write_text("{")
    done = again(theirs)
    found = {run.run: (run.finding, run.why) for run in done.runs}
    assert found[theirs / picked][0] == "same bits"
    assert found[first] == ("differs", "it has no environment.json, which every run writes first")
    assert found[second][0] == "differs"
    assert "result.json is not readable JSON" in found[second][1]


def elsewhere(run: RunDir, **values: float) -> None:
    """Make ``run`` one of another processor, with other bits and with ``values`` added to validation metrics."""
    edit(run.path / "environment.json", lambda c: c.update(cpu="another"))
    edit(run.path / "result.json", lambda c: c.update(weights_sha256="0" * 64))
    for name, more in values.items():
        edit(run.path / "result.json", lambda c, name=name, more=more: c["val"]["last"].__setitem__(
            name, c["val"]["last"][name] + more))  # fmt: skip


def test_another_machine_is_held_to_what_rounding_can_do(
    theirs: Path, picked: str, again: Callable[..., Replay]
) -> None:
    chosen = RunDir(theirs / picked)
    elsewhere(chosen, loss=1e-4)
    (found,) = [run for run in again(theirs).runs if run.chosen]
    assert found.finding == "same values"
    assert "other processor (another there" in found.why
    elsewhere(chosen, loss=30.0)
    done = again(theirs)
    (found,) = [run for run in done.runs if run.chosen]
    assert (found.finding, done.code) == ("differs", 1)
    assert "val loss" in found.why
    assert "outside ±" in found.why


def test_the_tolerance_alarms_in_one_of_a_hundred_honest_replays_at_most() -> None:
    draw, false, size = random.Random(0), 0, 400
    for _ in range(size):
        scatters = [[draw.gauss(1, 0.3) for _ in range(5)] for _ in range(6)]
        pairs = [Pair("loss", draw.gauss(1, 0.3), values[0], tuple(values)) for values in scatters]
        allowed = [(pair, pair.allowed(6)) for pair in pairs]
        false += any(limit is None or abs(pair.theirs - pair.ours) > limit for pair, limit in allowed)
    assert false <= 0.01 * size + 3 * math.sqrt(0.01 * size)
    assert Pair("loss", 1.0, 1.0005).allowed(6) == pytest.approx(1e-3, rel=0.01)  # equal to three digits
    assert Pair("loss", 1.0, 1.1, (1.0, 1.2)).allowed(6) is None  # two seeds do not say


def test_values_that_are_all_better_are_no_rounding() -> None:
    drift = [0.0004, -0.0002, 0.0, 0.0003, -0.0005]
    better = [Pair("val accuracy", 0.91 + step, 0.90) for step in drift]
    assert "val accuracy lies 0.01 above ours" in str(shift(better, 12))
    assert shift([Pair("val accuracy", 0.90 + step, 0.90) for step in drift], 12) is None
    assert shift(better[:4], 12) is None


def test_what_cannot_be_repeated_is_said(theirs: Path, picked: str, again: Callable[..., Replay]) -> None:
    chosen = RunDir(theirs / picked)
    edit(chosen.path / "config.json", lambda c: c["dataset"].update(name="image-folder", args={"path": "/nowhere"}))
    done = again(theirs)
    assert (done.runs[0].finding, done.code) == ("not repeated", 1)  # none could be
    assert "/nowhere" in done.runs[0].why
    edit(
        chosen.path / "config.json",
        lambda c: c.update(start_from={"run": "single/x-s0-0123456789", "sha256": "0" * 64}),
    )
    assert "it starts from single/x-s0-0123456789, which is not here" in again(theirs).runs[0].why
    for result in theirs.glob("*/result.json"):
        result.unlink()
    with pytest.raises(BadInput, match="no finished run"):
        again(theirs)
    with pytest.raises(BadInput, match="no run or study 'nothing'"):
        again("nothing")


def test_the_command_says_a_line_per_run(theirs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["study", str(theirs), "--replay", "1", "--runs", str(tmp_path / "ours"), "--workers", "0"]
    assert main(asked) == 0
    shown = capsys.readouterr()
    line, beside, last = shown.out.splitlines()
    assert ": same bits; weights " in line
    assert beside == "trained with them and compared, too: 2 runs (2 same bits)"
    assert last.startswith(f"1 of 6 finished runs of {theirs} trained again in ")
    assert "note: --replay-seed " in shown.err
    seed = shown.err.split("--replay-seed ")[1].split()[0]
    _record(RunDir(theirs / line.partition(":")[0]))
    assert main([*asked, "--replay-seed", seed, "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert [run["finding"] for run in document["runs"]] == ["differs", "same bits", "same bits"]
    assert main([*asked, "--lr", "1"]) == main(["study", "depth-mlp", "--replay-seed", "1"]) == 2
    said = capsys.readouterr().err
    assert "--lr cannot be given with --replay" in said
    assert "say how many: --replay 3" in said
