"""Running the same command again: finished runs stay, others continue, what does not fit is refused."""

import shutil
from pathlib import Path

import pytest
from support.real_runs import CONFIG
from support.real_stacks import (
    ENDING,
    SEEDS,
    changed,
    folders,
    make_alone,
    make_stack,
    notes,
    poison,
    same_stack,
    stopping,
)

from netdepth.config import EarlyStopping, Runtime
from netdepth.errors import BadInput, Interrupted, Locked, RunFailed, StorageError
from netdepth.runs.folder import RunDir
from netdepth.training import loop
from netdepth.training.launch import exit_code, launch


@pytest.mark.usefixtures("eager")
def test_damaged_checkpoints_of_the_last_step_do_not_stay(reference, tmp_path):
    with pytest.raises(Interrupted):
        make_stack(tmp_path, probes=True, watch=stopping(4))
    stopped = folders(tmp_path)
    for folder in stopped:
        assert folder.checkpoints() == [36, 48]
        path = folder.path / "checkpoints" / "48" / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-1])
    made = make_stack(tmp_path, probes=True)
    assert any("is damaged" in note for note in notes(made))
    same_stack(reference, made)
    assert all(folder.load_checkpoint(step) for folder in stopped for step in folder.checkpoints())


def test_a_run_begun_elsewhere_is_refused_in_one_line(tmp_path):
    with pytest.raises(Interrupted):
        make_stack(tmp_path, watch=stopping(2))
    with pytest.raises(BadInput, match=r"started with threads = 1, not 2.*another --runs folder"):
        make_stack(tmp_path, threads=2)
    folder = folders(tmp_path)[-1]
    environment = folder.read_json("environment.json")
    folder.write_json("environment.json", {**environment, "torch": "2.0.0"})
    with pytest.raises(BadInput, match=r"started with torch = 2\.0\.0"):
        make_stack(tmp_path)


def test_a_crash_is_recorded_retried_and_does_not_stop_the_other_seeds(tmp_path, monkeypatch):
    original = loop.choose_gradients

    def crashing(stack, objective):
        raise RuntimeError("out of\nluck")

    runtime = Runtime(runs_root=tmp_path, threads=1)
    monkeypatch.setattr(loop, "choose_gradients", crashing)
    (outcome,) = launch("test", [CONFIG], runtime, progress=False)
    assert (outcome.status, outcome.exit_code) == ("failed", 1)
    assert "RuntimeError: out of luck" in outcome.error
    (folder,) = folders(tmp_path)
    assert outcome.path == folder.path
    assert folder.status() == "failed"
    assert folder.read_json("failure.json")["message"] == "out of\nluck"

    first = iter([crashing])
    monkeypatch.setattr(loop, "choose_gradients", lambda *args: next(first, original)(*args))
    outcomes = launch("test", [CONFIG.with_seed(1), CONFIG], runtime, progress=False)
    assert [o.status for o in outcomes] == ["failed", "completed"]
    assert exit_code(outcomes) == 1
    assert folder.status() == "completed"
    assert not (folder.path / "failure.json").exists()


def test_a_finished_replica_stays_in_the_stack(reference, tmp_path):
    """The others are made anew in a stack of the same size, with the same bits."""
    make_stack(tmp_path, probes=True)
    first, second, last = folders(tmp_path)
    first.clear()
    (second.path / "failure.json").write_text("{}")  # its result was there and the last sync of it failed
    (last.path / "result.json").unlink()
    made = make_stack(tmp_path, probes=True)
    assert [replica.cached for replica in made] == [False, True, False]
    assert made[1].run.notes == []
    assert not (second.path / "failure.json").exists()
    same_stack(reference, made)


def test_a_diverged_replica_stays_in_the_stack(tmp_path, monkeypatch):
    config = changed(early_stopping=EarlyStopping(patience=9))  # so that the best is reported
    with monkeypatch.context() as patch:
        poison(patch, index=0, step=30)
        expected = make_stack(tmp_path / "whole", config, probes=True)
    with monkeypatch.context() as patch:
        poison(patch, index=0, step=30)
        with pytest.raises(Interrupted):  # the divergence counts as an evaluation of its own
            make_stack(tmp_path / "parts", config, probes=True, watch=stopping(4))
    assert [folder.status() for folder in folders(tmp_path / "parts")] == ["diverged", "unfinished", "unfinished"]
    same_stack(expected, make_stack(tmp_path / "parts", config, probes=True))


def test_a_finished_stack_is_returned_at_once(reference, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("something was computed")

    root = reference[0].run.path.parents[1]
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*") if p.name != ".lock"}
    monkeypatch.setattr("netdepth.training.run.train_stack", refuse)
    monkeypatch.setattr("netdepth.training.run.build_model", refuse)
    again = make_stack(root, probes=True)
    assert [replica.cached for replica in again] == [True] * len(SEEDS)
    assert [replica.result for replica in again] == [replica.run.result() for replica in reference]
    assert {p: p.stat().st_mtime_ns for p in before} == before
    alone = make_alone(root, seeds=(1,))
    assert alone[0].cached, "a replica is an ordinary run to who asks for it alone"


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_text("[]")], ids=["missing", "not a config"])
def test_a_finished_run_without_its_config_is_refused(reference, tmp_path, damage):
    shutil.copytree(reference[0].run.path.parents[1], tmp_path, dirs_exist_ok=True)
    damage(folders(tmp_path)[0].path / "config.json")
    with pytest.raises(BadInput, match=r"config\.json"):
        make_stack(tmp_path, probes=True)


def test_fresh_makes_every_replica_again(reference, tmp_path):
    make_stack(tmp_path, probes=True)
    (folders(tmp_path)[0].path / "left.over").touch()
    made = make_stack(tmp_path, probes=True, fresh=True)
    assert not any(replica.cached for replica in made)
    same_stack(reference, made)


def test_fresh_removes_nothing_while_it_may_be_refused(reference, tmp_path):
    make_stack(tmp_path, probes=True)
    with pytest.raises(BadInput, match="--device"):
        make_stack(tmp_path, probes=True, fresh=True, device="cuda:99")
    same_stack(reference, make_stack(tmp_path, probes=True))


def test_a_replica_in_use_elsewhere_locks_the_stack_and_frees_the_others(reference):
    root = reference[0].run.path.parents[1]
    *others, last = folders(root)
    with last.lock():
        with pytest.raises(Locked, match=f"{last.path.name} is in use by another process"):
            make_stack(root)
        for folder in others:
            with folder.lock():
                pass
    assert all(replica.cached for replica in make_stack(root))


def test_a_replica_begun_in_another_stack_is_refused_in_one_line(tmp_path):
    with pytest.raises(Interrupted):
        make_stack(tmp_path, watch=stopping(2))
    for seeds in [(0, 1), (1,), (2, 1, 0), (0, 1, 2, 3)]:
        with pytest.raises(
            BadInput, match=r"started in a stack with the seeds \[0, 1, 2\], .*another --runs folder"
        ) as refused:
            make_stack(tmp_path, seeds=seeds)
        assert "\n" not in str(refused.value)
    assert [folder.checkpoints() for folder in folders(tmp_path)[:3]] == [[24]] * len(SEEDS)


@pytest.mark.parametrize("known", [True, False], ids=["seeds recorded", "made before stacks were recorded"])
def test_a_run_begun_alone_is_refused_by_a_stack(tmp_path, known):
    with pytest.raises(Interrupted):
        make_stack(tmp_path, seeds=(1,), watch=stopping(2))
    (folder,) = folders(tmp_path)
    if not known:
        recorded = folder.read_json("environment.json")
        folder.write_json("environment.json", {k: recorded[k] for k in recorded if k not in ("seeds", "stack", "made")})
    with pytest.raises(BadInput, match=r"test-mnist5k-s1-\w+ was started .*another --runs folder"):
        make_stack(tmp_path)
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
            make_stack(tmp_path, ENDING, probes=True)
    made = folders(tmp_path)
    assert [folder.status() for folder in made] == ["failed", "stopped_early", "failed"]
    assert made[0].read_json("failure.json")["message"] == "out of\nluck"
    assert failed.value.path == made[0].path
    continued = make_stack(tmp_path, ENDING, probes=True)
    same_stack(ending, continued)


def test_the_failure_names_a_replica_that_failed(ending, tmp_path, monkeypatch):
    """Not one that finished while the others trained."""
    original = RunDir.write_json

    def full(self, name, value):
        if name == "result.json" and "-s2-" in self.path.name:
            raise StorageError("cannot write result.json: no space left")
        original(self, name, value)

    with monkeypatch.context() as patch:
        patch.setattr(RunDir, "write_json", full)
        with pytest.raises(StorageError) as failed:
            make_stack(tmp_path, ENDING, probes=True)
    assert failed.value.path in [f.path for f in folders(tmp_path) if f.status() == "failed"]
    same_stack(ending, make_stack(tmp_path, ENDING, probes=True))
