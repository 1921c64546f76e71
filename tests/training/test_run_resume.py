"""A stopped, killed, damaged or crashed run continues to the bits of the uninterrupted one, or says why not."""

import json
import signal
import subprocess
import sys
import time

import pytest
from support.real_runs import CONFIG, make, same, weights

from netdepth.config import RunConfig, Runtime, TrainConfig, to_json
from netdepth.errors import BadInput, Interrupted, Locked
from netdepth.progress import TrainProgress
from netdepth.runs.folder import RunDir
from netdepth.training import loop
from netdepth.training.launch import exit_code, launch
from netdepth.training.run import run


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return make(tmp_path_factory.mktemp("reference"))


def interrupted_after(monkeypatch, evaluations, error=KeyboardInterrupt):
    """Make the run stop as if a signal came after so many evaluations."""
    seen = []
    original = TrainProgress.evaluated

    def evaluated(self, record):
        original(self, record)
        seen.append(record)
        if len(seen) == evaluations:
            raise error

    monkeypatch.setattr(TrainProgress, "evaluated", evaluated)


@pytest.mark.parametrize("evaluations", [1, 2, 3])
def test_a_stopped_run_continues_to_the_same_bits(reference, tmp_path, monkeypatch, evaluations):
    with monkeypatch.context() as patch:
        interrupted_after(patch, evaluations)
        with pytest.raises(Interrupted) as stopped:
            make(tmp_path)
    assert stopped.value.exit_code == 130
    folder = next((tmp_path / "single").iterdir())
    assert RunDir(folder).status() == "unfinished"
    finished = make(tmp_path)
    assert any(f"continued from step {47 * evaluations}" in note for note in finished.notes)
    same(reference.run, finished.run)


def test_a_killed_run_continues_from_its_newest_checkpoint(reference, tmp_path, monkeypatch):
    class Killed(BaseException):
        """Nothing the conductor could handle, as after SIGKILL."""

    with monkeypatch.context() as patch:
        patch.setattr(loop, "WRITE_EVERY_SECONDS", 0.0)
        interrupted_after(patch, 3, Killed)
        with pytest.raises(Killed):
            make(tmp_path)
    folder = RunDir(next((tmp_path / "single").iterdir()))
    with open(folder.path / "metrics.jsonl", "ab") as handle:
        handle.write(b'{"schema": 1, "step": 188, "half a li')
    finished = make(tmp_path)
    assert any("continued from step 141" in note for note in finished.notes)
    same(reference.run, finished.run)


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_damaged_checkpoint_is_announced_and_the_one_before_used(reference, tmp_path, monkeypatch, damage):
    with monkeypatch.context() as patch:
        patch.setattr(loop, "WRITE_EVERY_SECONDS", 0.0)
        interrupted_after(patch, 3)
        with pytest.raises(Interrupted):
            make(tmp_path)
    folder = RunDir(next((tmp_path / "single").iterdir()))
    assert folder.checkpoints() == [94, 141]
    path = folder.path / "checkpoints" / "141" / "optimizer.safetensors"
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[-5] ^= 1
        path.write_bytes(content)
    elif damage == "truncate":
        path.write_bytes(content[:100])
    else:
        path.unlink()
    finished = make(tmp_path)
    assert any("141 is damaged" in note for note in finished.notes)
    assert any("continued from step 94" in note for note in finished.notes)
    same(reference.run, finished.run)


@pytest.mark.parametrize("damaged", [[141], [94, 141]])
def test_what_was_damaged_is_written_anew(tmp_path, monkeypatch, damaged):
    """The run ends at step 141, whose damaged checkpoint must not stay; with both gone it starts from scratch."""
    config = RunConfig(CONFIG.dataset, CONFIG.model, train=TrainConfig(budget="3ep", batch_size=64))
    expected = make(tmp_path / "whole", config)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "WRITE_EVERY_SECONDS", 0.0)
        interrupted_after(patch, 3)
        with pytest.raises(Interrupted):
            make(tmp_path, config)
    folder = RunDir(next((tmp_path / "single").iterdir()))
    assert folder.checkpoints() == [94, 141]
    for step in damaged:
        path = folder.path / "checkpoints" / str(step) / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-1])
    finished = make(tmp_path, config)
    assert sum("is damaged" in note for note in finished.notes) == len(damaged)
    same(expected.run, finished.run)
    assert all(finished.run.load_checkpoint(step) for step in finished.run.checkpoints())


def test_a_run_begun_elsewhere_is_refused_in_one_line(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        interrupted_after(patch, 2)
        with pytest.raises(Interrupted):
            make(tmp_path)
    with pytest.raises(BadInput, match=r"begun with threads = 1, not 2.*--fresh"):
        run(CONFIG, Runtime(runs_root=tmp_path, threads=2), name="test", quiet=True)
    folder = RunDir(next((tmp_path / "single").iterdir()))
    environment = folder.read_json("environment.json")
    folder.write_json("environment.json", {**environment, "torch": "2.0.0"})
    with pytest.raises(BadInput, match=r"begun with torch = 2\.0\.0"):
        make(tmp_path)
    assert make(tmp_path, fresh=True).result["status"] == "completed"


def test_sigterm_saves_and_the_same_command_continues(reference, tmp_path):
    path = tmp_path / "config.json"
    slow = RunConfig(dataset=CONFIG.dataset, model=CONFIG.model, train=TrainConfig(budget="600ep", batch_size=64))
    path.write_text(json.dumps(to_json(slow)))
    code = (
        "import sys; from netdepth import recipes; from netdepth.config import Runtime;"
        "from netdepth.training.run import run; from netdepth.errors import NetdepthError\n"
        f"name, config = recipes.resolve({str(path)!r})\n"
        f"try: run(config, Runtime(runs_root={str(tmp_path)!r}, threads=1), name=name)\n"
        "except NetdepthError as error: print(error); sys.exit(error.exit_code)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "single"
    until = time.monotonic() + 60
    while not any(p.stat().st_size > 2000 for p in metrics.glob("*/metrics.jsonl")):
        assert time.monotonic() < until, "no evaluation within a minute"
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 143, output
    folder = RunDir(next(metrics.iterdir()))
    (newest, _) = folder.newest_checkpoint()
    assert f"saved up to step {newest}" in output
    assert newest >= 47
    # The weights of that moment are those of an uninterrupted run of the same length.
    expected = make(tmp_path / "whole", RunConfig(
        dataset=CONFIG.dataset, model=CONFIG.model, train=TrainConfig(budget=f"{newest}it", batch_size=64)
    ))  # fmt: skip
    assert weights(expected.run, newest) == weights(folder, newest)


def test_two_processes_never_train_in_one_folder(reference, tmp_path):
    path = reference.run.path
    code = (
        "import sys, time; from pathlib import Path; from netdepth.runs.folder import RunDir\n"
        f"with RunDir(Path({str(path)!r})).lock(): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(Locked, match="in use by another process"):
            make(path.parents[1])
    finally:
        holder.kill()
        holder.communicate()
    assert make(path.parents[1]).cached  # the lock died with its holder


def test_a_crash_is_recorded_retried_and_does_not_stop_the_other_seeds(tmp_path, monkeypatch):
    original = loop.choose_gradients

    def crashing(stack, objective):
        raise RuntimeError("out of\nluck")

    runtime = Runtime(runs_root=tmp_path, threads=1)
    monkeypatch.setattr(loop, "choose_gradients", crashing)
    (outcome,) = launch("test", [CONFIG], runtime, progress=False)
    assert (outcome.status, outcome.exit_code) == ("failed", 1)
    assert "RuntimeError: out of luck" in outcome.error
    assert outcome.path == next((tmp_path / "single").iterdir())
    folder = RunDir(next((tmp_path / "single").iterdir()))
    assert folder.status() == "failed"
    assert folder.read_json("failure.json")["message"] == "out of\nluck"

    first = iter([crashing])
    monkeypatch.setattr(loop, "choose_gradients", lambda *args: next(first, original)(*args))
    outcomes = launch("test", [CONFIG.with_seed(1), CONFIG], runtime, progress=False)
    assert [o.status for o in outcomes] == ["failed", "completed"]
    assert exit_code(outcomes) == 1
    assert folder.status() == "completed"
    assert not (folder.path / "failure.json").exists()


BROKEN = """
from netdepth.trackers import TRACKERS

class Broken:
    def start(self, config): pass
    def log(self, record, step): raise RuntimeError("no luck")
    def artifact(self, path): pass
    def finish(self, result): pass

@TRACKERS.register("broken")
def broken(run_dir):
    "Raises at the first record."
    return Broken()
"""


def test_a_tracker_that_raises_changes_no_bit_of_the_run(reference, tmp_path, monkeypatch):
    from netdepth.recipes import import_user
    from netdepth.trackers import TRACKERS

    monkeypatch.setattr(TRACKERS, "_entries", dict(TRACKERS._entries))  # other tests see the built-in ones
    path = tmp_path / "mine.py"
    path.write_text(BROKEN)
    import_user(str(path))
    finished = make(tmp_path / "runs", trackers=("broken",), imports=(str(path),))
    notes = finished.mirrors.finish(time.monotonic() + 20)
    assert len(notes) == 1
    assert "tracker broken: RuntimeError: no luck; rebuild it with: netdepth sync" in notes[0]
    same(reference.run, finished.run)


def test_a_run_that_finished_all_the_same_is_not_called_failed(tmp_path):
    made = make(tmp_path, CONFIG)
    (made.run.path / "failure.json").write_text("{}")  # the result was there and its last sync failed
    again = make(tmp_path, CONFIG)
    assert again.cached
    assert not (made.run.path / "failure.json").exists()
