"""What a person asks of a study: the recipes, what can be changed of them, the command and its answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.made_study_folders import unbegun_study
from support.tiny_studies import CONDITIONS, tiny_spec

from netdepth.api import Study, study
from netdepth.config import Component, Runtime
from netdepth.errors import BadInput, Locked, RunFailed
from netdepth.recipes import RECIPES, resolve, resolve_study
from netdepth.studies.ask import TUNING_SEEDS, ask
from netdepth.studies.folder import StudyDir
from netdepth.studies.reach import out_of_reach
from netdepth.studies.resolve import without_parent_run
from netdepth.studyspec import Nuisance, StudySpec
from netdepth.training.resolve import fill_in as resolve_config

STUDIES = [name for name in RECIPES.names() if isinstance(RECIPES.build(Component(name)), StudySpec)]

# --- recipes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_is_one_that_the_packages_accept(name: str) -> None:
    spec = resolve_study(name)
    assert spec.name == name
    assert out_of_reach(spec) == []  # its seeds can decide what it names
    assert [item.how for item in spec.nuisance if item.path == "optimizer.lr"] == ["fixed"]  # stated
    assert not spec.early_stopping
    for cell in spec.cells:
        depth = resolve_config(without_parent_run(cell.config)).model.args.get("depth")
        assert depth in (None, int(cell.level))  # None: the widths of the layers say it
    assert RECIPES.entry(name).summary.startswith(f"netdepth study {name}:")


def test_a_saved_study_is_a_recipe(tmp_path: Path) -> None:
    spec = resolve_study("depth-mlp5k")
    path = unbegun_study(tmp_path, spec).path / "study.json"
    assert resolve_study(str(path)) == spec
    with pytest.raises(BadInput, match="is a study"):
        resolve(str(path))


# --- what can be changed ----------------------------------------------------------------------


def test_what_is_asked_changes_every_cell() -> None:
    spec, notes = ask("depth-mlp", seeds="0,3", dataset="mnist5k", overrides=["train.budget=1ep"], depths="2,8,24")
    assert (spec.seeds, spec.levels) == ((0, 3), ("2", "8", "24"))
    assert {(c.config.dataset.name, c.config.train.budget) for c in spec.cells} == {("mnist5k", "1ep")}
    assert {(p.family, int(p.level)) for p in spec.primary} == {
        ("depth", 8), ("depth", 24), ("shortcut", 8), ("shortcut", 24),
    }  # fmt: skip
    assert notes == ["23 of the 35 planned comparisons cannot be made at these depths"]
    assert spec.fingerprint() != resolve_study("depth-mlp").fingerprint()
    assert ask("depth-mlp", seeds=5)[0].fingerprint() == resolve_study("depth-mlp").fingerprint()
    assert ask("depth-mlp", depths=[4, 16])[0].primary[0].level == "16"  # the shallowest is compared with, not compared


def test_depths_that_cannot_be_derived_must_be_levels_of_the_study() -> None:
    axis = tiny_spec().scientific[0]
    levels = {depth: {**settings, "model.width": 8} for depth, settings in axis.levels.items()}
    spec = tiny_spec(scientific=(type(axis)("depth", levels), tiny_spec().scientific[1]))
    assert ask(spec, depths=[4])[0].levels == ("4",)
    with pytest.raises(BadInput, match="unknown depth of the study: '3'"):
        ask(spec, depths=[2, 3])


def test_tuning_turns_the_stated_rate_into_a_grid_around_it() -> None:
    spec, _ = ask("depth-mlp", tune="lr")
    assert spec.nuisance == (Nuisance("optimizer.lr", "tuned", (1e-4, 3e-4, 1e-3, 3e-3), TUNING_SEEDS),)
    assert ask("depth-mlp", tune="optimizer.lr")[0] == spec
    assert ask(spec, tune="lr")[0] == spec
    rate = ask("depth-mlp", tune="lr", overrides=["optimizer.lr=0.02"])[0].nuisance[0].values
    assert rate == (0.002, 0.006, 0.02, 0.06)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"overrides": ["model.depth=8"]}, r"varies model.depth itself \(axis 'depth'\); use --depths"),
        ({"overrides": ["model.init=he"]}, r"varies model.init itself \(axis 'condition'\)$"),
        ({"overrides": ["model.widht=8"]}, None),
        ({"overrides": ["train.bugdet=1ep"]}, "did you mean 'budget'"),
        ({"overrides": ["optimizer.lr=1"], "tune": "lr"}, None),
        ({"depths": "2;8"}, "--depths '2;8' is not acceptable; it takes a list such as 2,8,24"),
        ({"depths": ()}, "takes depths from 1, each once"),
        ({"depths": (2, 2)}, "takes depths from 1, each once"),
        ({"seeds": "x"}, "--seeds 'x' is not acceptable"),
        ({"seeds": "1000,1", "tune": "lr"}, "tuned on seed 1000 of the study; take other seeds"),
        ({"tune": "rate"}, "unknown setting to tune: 'rate'.*choose from: lr"),
        ({"dataset": "mnist", "overrides": ["dataset"]}, "write it as path=value"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_one_line(asked: dict[str, Any], said: str | None) -> None:
    if said is None:  # known to the packages only, or no contradiction
        ask("depth-mlp", **asked)
        return
    with pytest.raises(BadInput, match=said) as error:
        ask("depth-mlp", **asked)
    assert "\n" not in str(error.value)


def test_a_tuned_setting_cannot_be_set() -> None:
    spec, _ = ask("depth-mlp", tune="lr")
    with pytest.raises(BadInput, match=r"the study tunes optimizer\.lr for every cell"):
        ask(spec, overrides=["optimizer.lr=0.1"])


# --- Python -----------------------------------------------------------------------------------


def test_a_notebook_gets_table_verdict_and_html(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import asyncio

    import netdepth as nd

    runtime = Runtime(runs_root=tmp_path, device="cpu", probes=False)

    async def cell() -> Study:
        found: Study = nd.study(tiny_spec(conditions=CONDITIONS), seeds=2, workers=0, runtime=runtime, progress=False)
        return found

    made = asyncio.run(cell())
    assert made.path == tmp_path / "tiny"
    assert len(made.table()) == 8
    assert made.verdict().spec.name == "tiny"
    page = made._repr_html_()
    assert "does it work?" in page
    assert all(sentence.text.split(":")[0] in page for sentence in made.verdict().sentences)
    assert repr(made) == "Study('tiny', 8 runs planned)"
    assert "2 seeds cannot decide the comparison" in capsys.readouterr().err


def test_study_is_a_function_of_the_package_whatever_was_imported_before() -> None:
    import netdepth as nd

    assert nd.study is study
    assert "study" in dir(nd)


def test_failed_runs_and_locks_are_errors_in_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = Runtime(runs_root=tmp_path, device="cpu", probes=False)
    monkeypatch.setattr("netdepth.training.run.train_stack", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(RunFailed, match=r"6 of 6 runs failed; .*ZeroDivisionError"):
        study(tiny_spec(), workers=0, runtime=runtime, progress=False)
    with StudyDir(tmp_path / "tiny").lock(), pytest.raises(Locked, match="being run by another process"):
        study(tiny_spec(), workers=0, runtime=runtime, progress=False)
