"""Making a cohort again: what is finished rides along, what does not fit is refused, what crashed is retried."""

import dataclasses
import subprocess
import sys

import pytest
from support.real_cohorts import (
    CONFIG,
    ENDING,
    SEEDS,
    folders,
    make_alone,
    make_cohort,
    poison,
    same_cohort,
    stopping,
)

from netdepth.config import EarlyStopping
from netdepth.errors import BadInput, Interrupted, Locked, RunFailed, StorageError
from netdepth.runs.folder import RunDir
from netdepth.training import loop


def test_a_finished_member_rides_along(reference, tmp_path):
    """The others are made anew in a stack of the same size, with the same bits."""
    make_cohort(tmp_path, probes=True)
    first, _, last = folders(tmp_path)
    first.clear()
    (last.path / "result.json").unlink()
    made = make_cohort(tmp_path, probes=True)
    assert [member.cached for member in made] == [False, True, False]
    assert made[1].run.notes == []
    same_cohort(reference, made)


def test_a_diverged_member_rides_along(tmp_path, monkeypatch):
    train = dataclasses.replace(CONFIG.train, early_stopping=EarlyStopping(patience=9))  # so that the best is reported
    config = dataclasses.replace(CONFIG, train=train)
    with monkeypatch.context() as patch:
        poison(patch, lane=0, step=30)
        expected = make_cohort(tmp_path / "whole", config, probes=True)
    with monkeypatch.context() as patch:
        poison(patch, lane=0, step=30)
        with pytest.raises(Interrupted):  # the divergence counts as an evaluation of its own
            make_cohort(tmp_path / "parts", config, probes=True, watch=stopping(4))
    assert [folder.status() for folder in folders(tmp_path / "parts")] == ["diverged", "unfinished", "unfinished"]
    same_cohort(expected, make_cohort(tmp_path / "parts", config, probes=True))


def test_a_finished_cohort_is_returned_at_once(reference, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("something was computed")

    root = reference[0].run.path.parents[1]
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*") if p.name != ".lock"}
    monkeypatch.setattr("netdepth.training.run.train_stack", refuse)
    monkeypatch.setattr("netdepth.training.run.build_model", refuse)
    again = make_cohort(root, probes=True)
    assert [member.cached for member in again] == [True] * len(SEEDS)
    assert [member.result for member in again] == [member.run.result() for member in reference]
    assert {p: p.stat().st_mtime_ns for p in before} == before
    alone = make_alone(root, seeds=(1,))
    assert alone[0].cached, "a member is an ordinary run to who asks for it alone"


def test_fresh_makes_every_member_again(reference, tmp_path):
    make_cohort(tmp_path, probes=True)
    (folders(tmp_path)[0].path / "left.over").touch()
    made = make_cohort(tmp_path, probes=True, fresh=True)
    assert not any(member.cached for member in made)
    same_cohort(reference, made)


HOLDER = """
import sys; from pathlib import Path; from netdepth.runs.folder import RunDir
with RunDir(Path(sys.argv[1])).lock():
    print("held", flush=True); sys.stdin.read()
"""


def test_a_member_in_use_elsewhere_locks_the_cohort_and_frees_the_others(reference):
    root = reference[0].run.path.parents[1]
    last = folders(root)[2]
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(last.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(Locked, match=f"{last.path.name} is in use by another process"):
            make_cohort(root)
        for folder in folders(root)[:2]:
            with folder.lock():
                pass
    finally:
        holder.communicate("")
    assert all(member.cached for member in make_cohort(root))


def test_a_member_begun_in_another_stack_is_refused_in_one_line(tmp_path):
    with pytest.raises(Interrupted):
        make_cohort(tmp_path, watch=stopping(2))
    for seeds in [(0, 1), (1,), (2, 1, 0), (0, 1, 2, 3)]:
        with pytest.raises(BadInput, match=r"begun in a stack of the seeds \[0, 1, 2\], .*--fresh") as refused:
            make_cohort(tmp_path, seeds=seeds)
        assert "\n" not in str(refused.value)
    assert [folder.checkpoints() for folder in folders(tmp_path)[:3]] == [[24]] * len(SEEDS)


@pytest.mark.parametrize("known", [True, False], ids=["seeds recorded", "made before stacks were recorded"])
def test_a_run_begun_alone_is_refused_by_a_cohort(tmp_path, known):
    with pytest.raises(Interrupted):
        make_cohort(tmp_path, seeds=(1,), watch=stopping(2))
    (folder,) = folders(tmp_path)
    if not known:
        recorded = folder.read_json("environment.json")
        folder.write_json("environment.json", {k: recorded[k] for k in recorded if k not in ("seeds", "stack", "made")})
    with pytest.raises(BadInput, match=r"test-mnist5k-s1-\w+ was begun .*--fresh"):
        make_cohort(tmp_path)
    assert make_alone(tmp_path, seeds=(1,))[0].run.notes == ["continued from step 24 (epoch 2)"]


def test_a_crash_stands_in_every_unfinished_folder_and_is_retried(ending, tmp_path, monkeypatch):
    original = loop.choose_gradients
    after = ending[1].result["steps"] + 5

    def crashing(stack, objective):
        gradients, steps = original(stack, objective), iter(range(10**6))

        def compute(inputs, labels):
            if next(steps) == after:
                raise RuntimeError("out of\nluck")
            return gradients(inputs, labels)

        return compute

    with monkeypatch.context() as patch:
        patch.setattr(loop, "choose_gradients", crashing)
        with pytest.raises(RunFailed, match="RuntimeError: out of luck") as failed:
            make_cohort(tmp_path, ENDING, probes=True)
    made = folders(tmp_path)
    assert [folder.status() for folder in made] == ["failed", "stopped_early", "failed"]
    assert made[0].read_json("failure.json")["message"] == "out of\nluck"
    assert failed.value.path == made[0].path
    continued = make_cohort(tmp_path, ENDING, probes=True)
    same_cohort(ending, continued)


def test_the_failure_names_a_member_that_failed(ending, tmp_path, monkeypatch):
    """Not one that finished while the others trained."""
    original = RunDir.write_json

    def full(self, name, value):
        if name == "result.json" and "-s2-" in self.path.name:
            raise StorageError("cannot write result.json: no space left")
        original(self, name, value)

    with monkeypatch.context() as patch:
        patch.setattr(RunDir, "write_json", full)
        with pytest.raises(StorageError) as failed:
            make_cohort(tmp_path, ENDING, probes=True)
    assert failed.value.path in [f.path for f in folders(tmp_path) if f.status() == "failed"]
    same_cohort(ending, make_cohort(tmp_path, ENDING, probes=True))
