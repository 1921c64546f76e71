"""From a StudySpec to its run folders, in one process: only what is missing, seeds added, tuning, what goes wrong."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.made_study_folders import unbegun_study
from support.tiny_studies import CONDITIONS, finished, make, set_in, timeless, tiny_spec

from netdepth import data
from netdepth.config import to_json
from netdepth.errors import BadInput, RunFailed
from netdepth.runs.folder import RunDir
from netdepth.studies.folder import PlannedRun, find_study
from netdepth.studies.run import choose_values
from netdepth.studyspec import Nuisance

TUNED = Nuisance("optimizer.lr", how="tuned", values=(0.01, 0.001), seeds=(7, 8))


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The seeds of every group that is made."""
    from netdepth.training import run as training_run

    made: list[list[int]] = []
    real = training_run.run_stack

    def spy(resolved: Any, seeds: Any, *args: Any, **kwargs: Any) -> Any:
        made.append(list(seeds))
        return real(resolved, seeds, *args, **kwargs)

    monkeypatch.setattr(training_run, "run_stack", spy)
    return made


def test_a_study_makes_its_runs_where_it_said_it_would(tmp_path: Path) -> None:
    done = make(tmp_path, tiny_spec())
    study = done.study
    assert study.path == tmp_path / "tiny"
    assert study.spec == tiny_spec()
    runs = study.runs()
    assert [(run.condition, int(run.level), run.seed) for run in runs] == [
        ("plain", d, s) for d in (2, 4) for s in range(3)
    ]
    for run in runs:
        assert run.folder == f"plain-depth-{run.level}-mnist5k-s{run.seed}-{run.fingerprint}"
        config, environment = (
            RunDir(study.path / str(run.folder)).read_json(f"{name}.json") for name in ("config", "environment")
        )
        assert config is not None
        assert environment is not None
        assert (config["seed"], config["model"]["args"]["depth"]) == (run.seed, int(run.level))
        assert (config["fingerprint"], environment["threads"]) == (run.fingerprint, 1)
        assert (environment["made"], environment["seeds"]) == ("cohort", [0, 1, 2])
    assert len(finished(study)) == done.made == len(done.outcomes) == 6
    assert done.failed == []
    plan = study.document.plan
    assert plan is not None
    assert [group.seeds for group in plan.groups] == [(0, 1, 2), (0, 1, 2)]
    assert (timeless(study)["status"] == "completed").all()


def test_again_makes_only_what_is_missing_whatever_the_cores(
    tmp_path: Path, groups: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make(tmp_path, tiny_spec()).study
    before, table, plan = finished(study), timeless(study), study.document.plan
    groups.clear()
    monkeypatch.setattr("netdepth.training.process.available_cores", lambda: 64)
    assert make(tmp_path, tiny_spec()).made == 0
    assert (groups, finished(study)) == ([], before)

    lost = study.path / str(study.runs()[4].folder)
    shutil.rmtree(lost)
    again = make(tmp_path, tiny_spec())
    assert groups == [[0, 1, 2]]  # the whole stack, since its size changes bits; two replicas ride along
    assert again.made == 1
    after = finished(study)
    assert {name for name in after if after[name] != before.get(name)} == {lost.name}
    pd.testing.assert_frame_equal(timeless(study), table)
    assert study.document.plan == plan


def test_seeds_added_form_new_stacks_and_one_look_more(tmp_path: Path, groups: list[list[int]]) -> None:
    first = make(tmp_path, tiny_spec()).study
    before = finished(first)
    groups.clear()
    more = make(tmp_path, tiny_spec(seeds=(0, 1, 2, 3, 4)))
    assert more.study.path == first.path
    assert groups == [[3, 4], [3, 4]]
    assert (more.made, more.study.spec.looks, more.study.spec.seeds) == (4, 2, (0, 1, 2, 3, 4))
    assert before.items() <= finished(first).items()
    fewer = make(tmp_path, tiny_spec(seeds=(0, 1)))  # a plan is not shortened
    assert (fewer.made, len(fewer.outcomes), fewer.study.spec.looks) == (0, 10, 2)
    with pytest.raises(BadInput, match="drops seed 0; name all planned seeds and some new ones"):
        make(tmp_path, tiny_spec(seeds=(3, 9)))


def test_another_question_of_the_same_name_has_a_folder_of_its_own(tmp_path: Path) -> None:
    first = make(tmp_path, tiny_spec()).study
    other = set_in(tiny_spec(), budget="2it")
    second = make(tmp_path, other).study
    assert second.path == tmp_path / f"tiny-{other.fingerprint()}"
    assert make(tmp_path, other).study.path == second.path
    assert first.spec == tiny_spec()
    assert find_study("tiny", tmp_path).path == first.path
    assert find_study(second.path.name[:8], tmp_path).path == second.path
    with pytest.raises(BadInput, match=r"no study 'tni' .* the nearest are tiny"):
        find_study("tni", tmp_path)
    with pytest.raises(BadInput, match="taken by runs without a study"):
        make(tmp_path, tiny_spec(name="single"))


def test_cells_that_are_the_same_computation_share_their_runs(tmp_path: Path, groups: list[list[int]]) -> None:
    spec = tiny_spec(conditions={"plain": CONDITIONS["plain"], "twin": CONDITIONS["plain"]})
    study = make(tmp_path, spec).study
    assert len(groups) == 2
    assert len(study.runs()) == 12
    assert len({run.folder for run in study.runs()}) == 6


def test_fresh_removes_the_runs_of_the_study_and_nothing_else(tmp_path: Path) -> None:
    study = make(tmp_path, tiny_spec(seeds=(0, 1, 2))).study
    make(tmp_path, tiny_spec(seeds=(0, 1, 2, 3)))
    (study.path / "notes.txt").write_text("mine")
    again = make(tmp_path, tiny_spec(seeds=(0, 1)), fresh=True)
    assert (again.made, again.study.spec.looks, len(finished(study))) == (4, 1, 4)
    assert (study.path / "notes.txt").exists()


@pytest.mark.parametrize("folder", ["../victim", "/victim", "..", ".", "", "a/b", "a\0b", 7])
def test_fresh_removes_no_folder_outside_whatever_study_json_names(tmp_path: Path, folder: object) -> None:
    study = unbegun_study(tmp_path / "runs", tiny_spec())
    (tmp_path / "victim").mkdir()
    document = json.loads((study.path / "study.json").read_text())
    document["runs"][1]["folder"] = str(tmp_path / "victim") if folder == "/victim" else folder
    (study.path / "study.json").write_text(json.dumps(document))
    with pytest.raises(BadInput, match=r"study\.json is damaged: .*folder = .*; restore it"):
        make(tmp_path / "runs", tiny_spec(), fresh=True)
    assert (tmp_path / "victim").is_dir()


def test_a_run_that_fails_does_not_stop_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from netdepth.training import run as training_run

    real, broken = training_run.train_stack, {4}

    def train_stack(config: Any, networks: Any, *args: Any, **kwargs: Any) -> float:
        if networks[0].depth in broken:
            raise ZeroDivisionError("as asked")
        return real(config, networks, *args, **kwargs)

    monkeypatch.setattr(training_run, "train_stack", train_stack)
    done = make(tmp_path, tiny_spec())
    assert len(done.outcomes) == 6
    assert [outcome.status for outcome in done.outcomes] == ["completed"] * 3 + ["failed"] * 3
    assert {outcome.exit_code for outcome in done.failed} == {1}
    assert "ZeroDivisionError: as asked" in str(done.failed[0].error)
    assert list(timeless(done.study)["status"]) == ["completed"] * 3 + ["failed"] * 3
    broken.clear()
    assert make(tmp_path, tiny_spec()).failed == []  # tried again


def test_a_study_whose_data_changed_refuses_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, tiny_spec())
    real = data.load

    def load(component: Any, *, data_dir: Any) -> Any:
        found = real(component, data_dir=data_dir)
        return dataclasses.replace(found, spec=dataclasses.replace(found.spec, data_digest="other"))

    monkeypatch.setattr(data, "load", load)
    with pytest.raises(BadInput, match="its data or the code of a component changed; start it again in another"):
        make(tmp_path, tiny_spec())


def test_a_level_that_makes_another_depth_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    axis = dataclasses.replace(tiny_spec().scientific[0], levels={"2": {"model.depth": 2}, "5": {"model.depth": 4}})
    spec = tiny_spec(scientific=(axis, tiny_spec().scientific[1]), primary=())
    with pytest.raises(BadInput, match="level 5 of axis depth makes a network of depth 4"):
        make(tmp_path, spec)
    assert list(tmp_path.iterdir()) == []


# --- tuning -----------------------------------------------------------------------------------


def test_tuning_chooses_per_cell_on_validation_with_the_test_part_sealed(
    tmp_path: Path, groups: list[list[int]]
) -> None:
    spec = tiny_spec(nuisance=(TUNED,))
    study = make(tmp_path, spec).study
    tuned = study.document.tuning
    assert tuned is not None
    assert tuned.chosen is not None
    assert (len(tuned.runs), len(tuned.chosen)) == (2 * 2 * 2, 2)
    for item in tuned.runs:
        run = RunDir(study.path / str(item.folder))
        result = run.result()
        assert result is not None
        assert (result["test"], item.seed in TUNED.seeds) == (None, True)
        assert not (run.path / "test_access.json").exists()
    assert tuned.chosen == choose_values(study.path, tuned.runs)
    rates = {item.level: item.value for item in tuned.chosen}
    for planned in study.runs():
        config = RunDir(study.path / str(planned.folder)).read_json("config.json")
        assert config is not None
        assert config["optimizer"]["args"]["lr"] == rates[planned.level]
    groups.clear()
    assert make(tmp_path, spec).made == 0
    assert make(tmp_path, dataclasses.replace(spec, seeds=(0, 1, 2, 3))).made == 2
    assert groups == [[3], [3]]  # what was chosen stays chosen
    assert study.document.tuning == tuned


def test_a_tuned_whole_number_stays_whole_when_the_study_continues(tmp_path: Path) -> None:
    spec = tiny_spec(nuisance=(dataclasses.replace(TUNED, path="train.batch_size", values=(16, 32)),))
    make(tmp_path, spec)
    more = make(tmp_path, dataclasses.replace(spec, seeds=(0, 1, 2, 3)))
    assert (more.made, more.study.path.name) == (2, "tiny")
    assert make(tmp_path, more.study.spec).made == 0  # also as `study.json` says it


def _tuning_runs(root: Path, losses: dict[float, list[float | None]]) -> list[PlannedRun]:
    runs = []
    for value, found in losses.items():
        for seed, loss in enumerate(found):
            folder = root / f"{value}-{seed}"
            folder.mkdir()
            status = "diverged" if loss is None else "completed"
            RunDir(folder).write_json("result.json", {"status": status, "val": {"last": {"loss": loss}}})
            planned = PlannedRun(
                condition="plain", level="2", value=value, levels={"depth": "2"}, seed=seed, folder=folder.name
            )
            runs.append(planned)
    return runs


@pytest.mark.parametrize(
    ("losses", "best", "means"),
    [
        ({0.001: [0.5, 0.7], 0.01: [0.4, 0.6]}, 0.01, [0.6, 0.5]),
        ({0.01: [0.5, 0.5], 0.001: [0.5, 0.5]}, 0.001, [0.5, 0.5]),  # equal: the smaller
        ({0.001: [2.0, 2.0], 0.01: [0.1, None]}, 0.001, [2.0, None]),  # a diverged seed is infinitely bad
        ({0.01: [None, None], 0.003: [None, 1.0]}, 0.003, [None, None]),
    ],
)
def test_the_value_with_the_smallest_mean_loss_is_chosen(
    tmp_path: Path, losses: dict[float, list[float | None]], best: float, means: list[float | None]
) -> None:
    (chosen,) = choose_values(tmp_path, _tuning_runs(tmp_path, losses))
    assert chosen.value == best
    assert [item.val_loss for item in chosen.means] == pytest.approx(means)
    assert [item.value for item in chosen.means] == sorted(losses)
    json.dumps(to_json(chosen), allow_nan=False)


def test_a_tuning_run_that_is_not_there_stops_the_choice(tmp_path: Path) -> None:
    runs = _tuning_runs(tmp_path, {0.1: [1.0]})
    shutil.rmtree(tmp_path / str(runs[0].folder))
    with pytest.raises(RunFailed, match="not finished, so no value can be chosen"):
        choose_values(tmp_path, runs)


def test_two_tuned_settings_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    other = dataclasses.replace(TUNED, path="train.batch_size", values=(16, 32))
    with pytest.raises(BadInput, match=r"tunes optimizer.lr, train.batch_size; one setting can be tuned"):
        make(tmp_path, tiny_spec(nuisance=(TUNED, other)))
    assert list(tmp_path.iterdir()) == []
