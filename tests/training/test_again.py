"""Running the same command again: finished runs stay, others continue, what does not fit is refused."""

import json
import signal
import subprocess
import sys
import time

import pytest
from support.real_runs import CONFIG, make, same, weights
from support.real_stacks import ENDING, SEEDS, changed, folders, make_alone, make_stack, poison, same_stack, stopping

from netdepth.config import EarlyStopping, RunConfig, Runtime, TrainConfig, to_json
from netdepth.errors import BadInput, Interrupted, Locked, RunFailed, StorageError
from netdepth.runs.folder import RunDir
from netdepth.training import loop
from netdepth.training.launch import exit_code, launch
from netdepth.training.run import run


def lasting(budget):
    return RunConfig(CONFIG.dataset, CONFIG.model, train=TrainConfig(budget=budget, batch_size=64))


@pytest.mark.parametrize("damaged", [[141], [94, 141]])
def test_what_was_damaged_is_written_anew(tmp_path, monkeypatch, damaged):
    """The run ends at step 141, whose damaged checkpoint must not stay; with both gone it starts from scratch."""
    config = lasting("3ep")
    expected = make(tmp_path / "whole", config)
    monkeypatch.setattr(loop, "WRITE_EVERY_SECONDS", 0.0)
    with pytest.raises(Interrupted):
        make(tmp_path, config, watch=stopping(3))
    (folder,) = folders(tmp_path)
    assert folder.checkpoints() == [94, 141]
    for step in damaged:
        path = folder.path / "checkpoints" / str(step) / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-1])
    finished = make(tmp_path, config)
    assert sum("is damaged" in note for note in finished.notes) == len(damaged)
    same(expected.run, finished.run)
    assert all(finished.run.load_checkpoint(step) for step in finished.run.checkpoints())


def test_a_run_begun_elsewhere_is_refused_in_one_line(tmp_path):
    with pytest.raises(Interrupted):
        make(tmp_path, watch=stopping(2))
    with pytest.raises(BadInput, match=r"started with threads = 1, not 2.*--fresh"):
        run(CONFIG, Runtime(runs_root=tmp_path, threads=2), name="test", quiet=True)
    (folder,) = folders(tmp_path)
    environment = folder.read_json("environment.json")
    folder.write_json("environment.json", {**environment, "torch": "2.0.0"})
    with pytest.raises(BadInput, match=r"started with torch = 2\.0\.0"):
        make(tmp_path)
    assert make(tmp_path, fresh=True).result["status"] == "completed"


def test_sigterm_saves_and_the_same_command_continues(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(to_json(lasting("600ep"))))
    command = [sys.executable, "-m", "netdepth", "train", path, "--runs", tmp_path, "--threads", "1", "--device", "cpu"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while not any(p.stat().st_size > 2000 for p in tmp_path.glob("single/*/metrics.jsonl")):
        assert time.monotonic() < until, "no evaluation within a minute"
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 143, said
    (folder,) = folders(tmp_path)
    (newest, _) = folder.newest_checkpoint()
    assert f"saved up to step {newest}" in said
    assert newest >= 47
    # The weights of that moment are those of an uninterrupted run of the same length.
    expected = make(tmp_path / "whole", lasting(f"{newest}it"))
    assert weights(expected.run, newest) == weights(folder, newest)


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


# --- stacks ----------------------------------------------------------------------------------------


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


def test_fresh_makes_every_replica_again(reference, tmp_path):
    make_stack(tmp_path, probes=True)
    (folders(tmp_path)[0].path / "left.over").touch()
    made = make_stack(tmp_path, probes=True, fresh=True)
    assert not any(replica.cached for replica in made)
    same_stack(reference, made)


HOLDER = """
import sys; from pathlib import Path; from netdepth.runs.folder import RunDir
with RunDir(Path(sys.argv[1])).lock():
    print("held", flush=True); sys.stdin.read()
"""


def test_a_replica_in_use_elsewhere_locks_the_stack_and_frees_the_others(reference):
    root = reference[0].run.path.parents[1]
    last = folders(root)[2]
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(last.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(Locked, match=f"{last.path.name} is in use by another process"):
            make_stack(root)
        for folder in folders(root)[:2]:
            with folder.lock():
                pass
    finally:
        holder.communicate("")
    assert all(replica.cached for replica in make_stack(root))


def test_a_replica_begun_in_another_stack_is_refused_in_one_line(tmp_path):
    with pytest.raises(Interrupted):
        make_stack(tmp_path, watch=stopping(2))
    for seeds in [(0, 1), (1,), (2, 1, 0), (0, 1, 2, 3)]:
        with pytest.raises(BadInput, match=r"started in a stack with the seeds \[0, 1, 2\], .*--fresh") as refused:
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
    with pytest.raises(BadInput, match=r"test-mnist5k-s1-\w+ was started .*--fresh"):
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
