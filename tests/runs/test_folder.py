"""The run folder: atomic, digested, found by prefix, honest about damage."""

import hashlib
import json
import math
import os
import shutil
import threading
import time

import pytest

from netdepth.errors import BadInput, StorageError
from netdepth.files.atomic import one_at_a_time, write_atomic
from netdepth.runs import folder as store
from netdepth.runs.find import find_run
from netdepth.runs.folder import RunDir, list_runs, slug


@pytest.fixture
def folder(tmp_path):
    return RunDir.create(tmp_path / "single", "Baseline MLP!", 3, "0123456789")


def test_the_folder_is_named_by_slug_seed_and_fingerprint(folder, tmp_path):
    assert folder.path.name == "baseline-mlp-s3-0123456789"
    assert RunDir.create(tmp_path / "single", "other name", 3, "0123456789").path == folder.path
    assert RunDir.create(tmp_path / "single", "other name", 13, "0123456789").path != folder.path


def test_slugs_are_safe_file_names():
    texts = ("a b/../c", "<script>", "", "..", "Ünïcode", "x" * 99)
    assert [slug(text) for text in texts] == ["a-b-c", "script", "run", "run", "n-code", "x" * 48]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, call):
    path = tmp_path / "file.json"
    write_atomic(path, b"old")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store.os, call, full)
    with pytest.raises(StorageError, match=r"cannot write 3 bytes to .*file.json: No space left on device") as error:
        write_atomic(path, b"new")
    assert error.value.exit_code == 74
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file.json"]


def test_only_the_checkpoints_to_keep_remain(folder):
    for step in (10, 20, 30, 40, 50):
        folder.save_checkpoint(step, {"model": b"x"})
    folder.drop_checkpoints({20, 40, 50, 60})
    assert folder.checkpoints() == [20, 40, 50]


def test_probes_of_steps_beyond_are_removed(folder):
    for name in ("init", "step-10", "step-20", "step-x"):
        folder.write_json(f"probes/{name}.json", {"step": 0})
    folder.truncate_probes(10)
    assert sorted(p.stem for p in (folder.path / "probes").iterdir()) == ["init", "step-10", "step-x"]


@pytest.mark.parametrize("name", ["model", "MANIFEST.json"])
def test_every_flipped_bit_is_noticed(folder, name):
    folder.save_checkpoint(10, {"model": b"0123456789"})
    path = folder.path / "checkpoints" / "10" / name
    original = path.read_bytes()
    for i in range(len(original) * 8):
        flipped = bytearray(original)
        flipped[i // 8] ^= 1 << i % 8
        path.write_bytes(flipped)
        loaded = folder.load_checkpoint(10)
        # A flip in the manifest may spell the same content (white space) or name an absent file.
        assert loaded is None or loaded == {"model": b"0123456789"}
    if name == "model":
        assert len(folder.notes) == len(original) * 8


def test_a_manifest_cannot_name_files_elsewhere(folder, tmp_path):
    (tmp_path / "secret").write_bytes(b"secret")
    folder.save_checkpoint(10, {"model": b"x"})
    manifest = {"schema": 1, "step": 10, "sha256": {"../../../../secret": hashlib.sha256(b"secret").hexdigest()}}
    (folder.path / "checkpoints" / "10" / "MANIFEST.json").write_text(json.dumps(manifest))
    assert folder.load_checkpoint(10) is None


def test_a_checkpoint_of_another_run_is_announced_and_not_used(folder, tmp_path):
    other = RunDir.create(tmp_path / "single", "mlp", 4, "0123456789")
    for run, seed in ((folder, 3), (other, 4)):
        run.write_json("config.json", {"fingerprint": "0123456789", "seed": seed})
        run.save_checkpoint(10, {"model": str(seed).encode()})
    other.save_checkpoint(20, {"model": b"4"})
    shutil.move(other.path / "checkpoints" / "20", folder.path / "checkpoints")
    assert folder.newest_checkpoint() == (10, {"model": b"3"})
    (note,) = folder.notes
    assert "damaged (it is of another run, 0123456789-s4); using the one before" in note


def test_a_checkpoint_from_before_they_named_their_run_is_read(folder):
    folder.save_checkpoint(10, {"model": b"x"})
    path = folder.path / "checkpoints" / "10" / "MANIFEST.json"
    path.write_text(path.read_text().replace('"run": null,', ""))
    folder.write_json("config.json", {"fingerprint": "0123456789", "seed": 3})
    assert folder.newest_checkpoint() == (10, {"model": b"x"})


def test_nan_and_infinities_become_null_with_a_flag_and_floats_survive_exactly(folder):
    value = 0.1 + 0.2
    numbers = {"loss": math.nan, "train_accuracy": math.nan, "norms": {"a": math.inf, "b": value}}
    folder.append_metrics({"step": 1, **numbers})
    (record,) = folder.read_metrics()
    assert record["loss"] is None
    assert record["norms"] == {"a": None, "b": value}
    assert record["nonfinite"] == {"loss": "nan", "train_accuracy": "nan", "norms.a": "inf"}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 99}', "null", '{"schema": "1"}', "[" * 100_000])
def test_unreadable_json_is_one_clear_line(folder, text):
    (folder.path / "result.json").write_text(text)
    with pytest.raises(BadInput, match=r"result\.json") as error:
        folder.result()
    assert "\n" not in str(error.value)


def test_a_split_that_describes_no_data_is_refused(folder):
    whole = {"input_shape": [1, 28, 28], "classes": ["a", "b"], "split_digest": "ab", "data_digest": None}
    folder.write_json("split.json", whole)
    assert folder.split().classes == ("a", "b")
    shapes = ([1, 28], [0, 28, 28], [True, 28, 28], [1, 28, "28"], [1, 28, 2**40])
    wrong = [{"input_shape": shape} for shape in shapes] + [{"classes": names} for names in ([], {"a": 1}, ["a", 1])]
    for change in (*wrong, {"split_digest": ["a"]}):
        folder.write_json("split.json", {**whole, **change})
        with pytest.raises(BadInput, match=r"split\.json does not describe a data set"):
            folder.split()


@pytest.mark.parametrize("change", [{"status": 5}, {"best_step": "9"}, {"test": [0.5]}, {"steps": True}])
def test_a_result_of_other_types_is_refused(folder, change):
    whole = {"status": "completed", "steps": 9, "best_step": None, "test": None, "of a later release": [1]}
    folder.write_json("result.json", whole)
    assert folder.result() == {"schema": 1, **whole}
    folder.write_json("result.json", {**whole, **change})
    with pytest.raises(BadInput, match=r"result\.json does not describe a result"):
        folder.result()


def test_a_record_of_other_types_is_a_damaged_line(folder):
    for record in ({"step": 1, "of a later release": 1}, {"step": 2, "epoch": 1}, {"step": 3, "val_loss": "low"}):
        folder.append_metrics(record)
    assert [record["step"] for record in folder.read_metrics()] == [1, 2]
    assert "1 damaged line(s) after record 2 ignored" in folder.notes[0]
    assert folder.truncate_metrics(1)[0]["of a later release"] == 1


def test_an_environment_is_checked_and_completed(folder):
    assert folder.environment() is None
    least = {"netdepth": "0.1.0", "torch": "2.0", "device": "cpu", "threads": 2, "matmul": "mkl"}
    folder.write_json("environment.json", {**least, "of a later release": 1})
    found = folder.environment()
    assert (found.threads, found.world_size, found.memory_format, found.seeds) == (2, 1, "contiguous", None)
    folder.write_json("environment.json", {**least, "threads": "2"})
    with pytest.raises(BadInput, match=r"environment\.json\.threads = '2' is not acceptable"):
        folder.environment()


def test_runs_are_found_by_path_or_unique_prefix(tmp_path):
    for seed in (0, 1):
        run = RunDir.create(tmp_path / "single", "mlp", seed, "0123456789")
        run.write_json("config.json", {})
    assert [r.path.name for r in list_runs(tmp_path)] == ["mlp-s0-0123456789", "mlp-s1-0123456789"]
    assert find_run("mlp-s1", tmp_path).path.name == "mlp-s1-0123456789"
    assert find_run(str(tmp_path / "single" / "mlp-s0-0123456789"), tmp_path / "elsewhere").path.name.startswith(
        "mlp-s0"
    )
    with pytest.raises(BadInput, match="ambiguous"):
        find_run("mlp", tmp_path)
    with pytest.raises(BadInput, match="the nearest are mlp-s1"):
        find_run("mpl-s1-0123456789", tmp_path)
    with pytest.raises(BadInput, match="holds no runs"):
        find_run("mlp", tmp_path / "nothing")


def test_a_run_has_one_folder_though_two_recipes_make_it_at_the_same_moment(tmp_path):
    found = []
    with one_at_a_time(tmp_path):
        thread = threading.Thread(target=lambda: found.append(RunDir.create(tmp_path, "another", 0, "0123456789").path))
        thread.start()
        time.sleep(0.1)
        assert list(tmp_path.iterdir()) == [], "it waits, though there is nothing yet"
        (tmp_path / "one-s0-0123456789").mkdir()
    thread.join()
    assert found == [tmp_path / "one-s0-0123456789"]


def test_clear_removes_everything_but_the_lock(folder):
    folder.append_metrics({"step": 1})
    folder.save_checkpoint(1, {"model": b"x"})
    with folder.lock():
        folder.clear()
    assert folder.checkpoints() == []
    assert set(os.listdir(folder.path)) <= {".lock", "checkpoints"}


def test_a_checkpoint_that_is_there_with_the_same_content_is_not_touched(folder):
    folder.save_checkpoint(10, {"model": b"ten"})
    before = (folder.path / "checkpoints" / "10").stat()
    folder.save_checkpoint(10, {"model": b"ten"})
    assert (folder.path / "checkpoints" / "10").stat() == before
    folder.save_checkpoint(10, {"model": b"other"})
    assert folder.newest_checkpoint() == (10, {"model": b"other"})
