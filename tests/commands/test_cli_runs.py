"""`netdepth runs`: only real run folders go, and a finished run loses nothing that it still needs."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import shutil
from pathlib import Path

import pytest
from support.cli_world import Ask, World
from support.made_runs import add_checkpoint, make_run

from netdepth.errors import BadInput, Locked
from netdepth.recipes import resolve_study
from netdepth.runs.folder import RunDir, drop_optimizer_states, folder_size, remove
from netdepth.studies.folder import StudyDir, StudyDocument
from netdepth.text import STATUS_WORDS


def test_list_shows_every_run_with_status_and_size(world: World, ask: Ask) -> None:
    make_run(world.runs, seed=2, finish=False)
    make_run(world.runs, seed=3, failure="disk full")
    (make_run(world.runs, seed=4).path / "result.json").write_text("{")
    document = json.loads(ask("runs", "list", "--json")[1])
    statuses = [run["status"] for run in document["runs"]]
    assert statuses == ["stopped_early", "stopped_early", "unfinished", "failed", "unreadable"]
    assert all(run["bytes"] == folder_size(Path(run["folder"])) > 0 for run in document["runs"])
    code, out, _ = ask("runs", "list")
    assert code == 0
    assert all(STATUS_WORDS[status] in out for status in statuses)


def test_list_takes_filters_and_prints_csv(world: World, ask: Ask) -> None:
    make_run(world.runs, fingerprint="b" * 10, lr=0.01, recipe="other")
    code, out, _ = ask("runs", "list", "--filter", "lr<0.005", "--sort", "val_loss", "--csv")
    (line,) = csv.DictReader(io.StringIO(out))
    assert (code, line["recipe"], line["seeds"], line["status"]) == (0, "baseline-mlp", "0,1", "stopped_early")
    assert float(line["val_loss"]) == pytest.approx(0.07)
    out = ask("runs", "list", "--best", "1")[1]
    assert "2 seeds" in out
    assert "1 configuration, 2 runs in" in out
    assert "2 configurations" not in ask("runs", "list", "--best", "1", "--flat")[1]
    code, _, err = ask("runs", "list", "--sort", "los")
    assert (code, "choose from: age" in err) == (2, True)


def test_rm_asks_and_takes_no_for_an_answer(world: World, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    before = world.tree()
    for reply in ("", "n", "yess"):
        monkeypatch.setattr("builtins.input", lambda _, reply=reply: reply)
        assert ask("runs", "rm", "baseline-mlp-s0")[0] == 0
        assert world.tree() == before
    monkeypatch.setattr("builtins.input", lambda _: "y")
    assert ask("runs", "rm", "baseline-mlp-s0")[0] == 0
    assert [path.name for path in (world.runs / "single").iterdir()] == ["baseline-mlp-s1-0123456789"]


def test_rm_yes_removes_what_is_named_once(world: World, ask: Ask) -> None:
    argv = ["runs", "rm", "baseline-mlp-s0", "baseline-mlp-s0", "baseline-mlp-s1", "--yes", "--json"]
    code, out, _ = ask(*argv)
    assert code == 0
    assert len(json.loads(out)["removed"]) == 2
    assert list((world.runs / "single").iterdir()) == []


def named(world: World) -> list[str]:
    return sorted(str(path.parent.relative_to(world.runs)) for path in world.runs.glob("*/*/config.json"))


def make_study(world: World, name: str, count: int = 2) -> Path:
    """A study's folder with ``count`` runs and a report."""
    spec = dataclasses.replace(resolve_study("depth-mlp5k"), name=name)
    for seed in range(count):
        make_run(world.runs, study=name, seed=seed, recipe="plain")
    study = StudyDir(world.runs / name)
    study.write(StudyDocument.unplanned(spec))
    for part in ("table.csv", "report.html", "sources.json", "figures/a.png", "workers/0.log"):
        (study.path / part).parent.mkdir(exist_ok=True)
        (study.path / part).write_text("made")
    return study.path


def test_rm_takes_all_seeds_of_a_configuration_by_prefix_or_fingerprint(world: World, ask: Ask) -> None:
    for seed in (1, 10):
        make_run(world.runs, seed=seed, recipe="other", fingerprint="abcdef0123")
    code, _, err = ask("runs", "rm", "other-s1", "--yes")  # s1 and s10: a seed is never guessed
    assert code == 2
    assert "it could be single/other-s1-abcdef0123, single/other-s10-abcdef0123" in err
    make_run(world.runs, seed=2, recipe="other", fingerprint="abcdef0999")
    code, _, err = ask("runs", "rm", "oth", "--yes")
    assert code == 2
    assert "single/other (fingerprint abcdef0123), single/other (fingerprint abcdef0999)" in err
    assert len(named(world)) == 5
    assert ask("runs", "rm", "abcdef0123", "single/other-s1-abcdef0123", "--yes")[0] == 0
    assert ask("runs", "rm", "other", "--yes")[0] == 0
    assert named(world) == ["single/baseline-mlp-s0-0123456789", "single/baseline-mlp-s1-0123456789"]


def test_a_folder_name_in_two_studies_is_no_name(world: World, ask: Ask) -> None:
    make_run(world.runs, study="tuning")
    for command in (["inspect"], ["compare"], ["runs", "rm", "--yes"]):
        code, _, err = ask(*command, "baseline-mlp-s0")
        assert code == 2
        assert "single/baseline-mlp-s0-0123456789, tuning/baseline-mlp-s0-0123456789" in err
    assert ask("compare", "tuning/baseline-mlp-s0")[0] == 0


def test_rm_removes_a_study_and_leaves_what_is_not_its_own(world: World, ask: Ask) -> None:
    first, second = make_study(world, "depths-a"), make_study(world, "depths-b")
    (second / "notes.txt").write_text("mine")
    code, _, err = ask("runs", "rm", "depths", "--yes")
    assert (code, "it could be study depths-a, study depths-b" in err) == (2, True)
    make_run(world.runs, recipe="depths-again", seed=7)
    before = world.tree()
    code, _, err = ask("runs", "rm", "depths-a", "depths-", "--yes")
    assert (code, "run single/depths-again" in err) == (2, True)
    assert world.tree() == before
    code, out, _ = ask("runs", "rm", "depths-a", "depths-b/plain-s0", "depths-b", "--yes")
    assert code == 0
    assert "6 removed" in out
    assert f"left where it is: {second / 'notes.txt'}" in out
    assert not first.exists()
    assert [path.name for path in second.iterdir()] == ["notes.txt"]
    assert len(named(world)) == 3


def test_a_study_in_use_or_with_a_link_in_it_stays(world: World, ask: Ask) -> None:
    study = make_study(world, "depths")
    with StudyDir(study).lock():
        assert ask("runs", "rm", "depths", "--yes")[0] == 75
    (study / "plain-s9-0123456789").symlink_to(world.runs / "single" / "baseline-mlp-s0-0123456789")
    assert ask("runs", "rm", "depths", "--yes")[0] == 2
    assert (study / "study.json").is_file()
    assert len([name for name in named(world) if name.startswith("depths")]) == 3


def test_nothing_is_removed_unless_everything_may_be(world: World, ask: Ask) -> None:
    outside = make_run(world.folder / "elsewhere", seed=9)
    before = world.tree()
    code, _, err = ask("runs", "rm", "baseline-mlp-s0", str(outside.path), "--yes")
    assert code == 2
    assert "not a run folder inside" in err
    assert world.tree() == before


def test_folders_that_are_not_surely_runs_are_left_alone(world: World) -> None:
    run = make_run(world.runs, seed=5)
    renamed = world.runs / "single" / "my-precious"
    run.path.rename(renamed)
    link = world.runs / "single" / "baseline-mlp-s6-0123456789"
    target = make_run(world.folder / "elsewhere", seed=6).path
    link.symlink_to(target)
    study = world.runs / "linked-study"
    study.symlink_to(world.folder / "elsewhere" / "single")
    for path in (renamed, link, study / target.name, world.runs / "single"):
        with pytest.raises(BadInput):
            remove(RunDir(path), world.runs)
    assert renamed.is_dir()
    assert (target / "result.json").is_file()


def test_a_run_in_use_is_not_removed(world: World) -> None:
    run = make_run(world.runs, seed=0)
    with run.lock(), pytest.raises(Locked):
        remove(RunDir(run.path), world.runs)
    assert (run.path / "result.json").is_file()


def test_gc_frees_the_optimizer_states_and_the_checkpoint_stays_whole(world: World, ask: Ask) -> None:
    unfinished = make_run(world.runs, seed=2, finish=False)
    add_checkpoint(unfinished, 300)
    finished = make_run(world.runs, seed=0)
    before = folder_size(finished.path)
    code, out, _ = ask("runs", "gc", "--json")
    assert code == 0
    assert json.loads(out)["bytes"] == 2000  # 1000 in each of the two finished runs
    assert before - folder_size(finished.path) >= 1000
    files = finished.load_checkpoint(200)
    assert files is not None
    assert set(files) == {"model.safetensors", "state.json"}
    kept = unfinished.load_checkpoint(300)
    assert kept is not None
    assert "optimizer.safetensors" in kept
    assert json.loads(ask("runs", "gc", "--json")[1])["bytes"] == 0


def test_gc_leaves_damaged_checkpoints_and_goes_on_after_a_busy_run(world: World, ask: Ask) -> None:
    damaged = make_run(world.runs, seed=3)
    add_checkpoint(damaged, 100)
    (damaged.path / "checkpoints" / "100" / "MANIFEST.json").write_text("{")
    assert drop_optimizer_states(damaged) == 0
    assert (damaged.path / "checkpoints" / "100" / "optimizer.safetensors").is_file()
    with make_run(world.runs, seed=0).lock():
        document = json.loads(ask("runs", "gc", "--json")[1])
    assert document["bytes"] == 1000
    assert [path for path in document["skipped"] if "-s0-" in path]


def test_an_empty_runs_folder_is_no_error(world: World, ask: Ask) -> None:
    shutil.rmtree(world.runs)
    assert ask("runs", "list")[0] == 0
    assert ask("runs", "gc")[0] == 0
