"""Studies of something else than depth: of any axis, of none, on several data sets, with unequal seeds."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pandas as pd
import pytest
from support.made_studies import CONDITIONS, make_spec
from support.made_study_folders import make_study
from support.tiny_studies import make, tiny_spec

from netdepth.api import Study
from netdepth.config import Component, Runtime, from_json, to_json
from netdepth.errors import BadInput
from netdepth.report.content import Content, markdown
from netdepth.report.data import read_study
from netdepth.report.page import page, page_faults, write_report
from netdepth.studies.ask import ask
from netdepth.studies.cells import cells_of
from netdepth.studies.combined import combined_cells
from netdepth.studies.folder import StudyDir, StudyDocument
from netdepth.studies.run import locate_study
from netdepth.studies.verdict import verdict
from netdepth.studyspec import Axis, Nuisance, Primary, StudySpec

WIDTH = Axis.of_values("width", "model.width", (64, 4, 16))
NAMES = Axis("optimizer", {"sgd": {"optimizer": "sgd"}, "adam": {}, "adamw": {"optimizer": "adamw"}})
TWINS = Axis("condition", CONDITIONS)


def of_width(**changes) -> StudySpec:
    given = {"scientific": (WIDTH, TWINS), "factor": "width", "primary": (Primary("depth", 64, "plain"),)}
    base = make_spec().base
    deep = dataclasses.replace(base, model=Component("mlp", {"width": 64, "depth": 4}))
    return make_spec(**{"base": deep, **given, **changes})


def of_optimizers(**changes) -> StudySpec:
    given = {"scientific": (NAMES,), "factor": "optimizer", "primary": (Primary("depth", "sgd", ""),)}
    return of_width(**{**given, "reference": "adam", **changes})


def table_of(spec: StudySpec, classes: dict[str, int] | None = None) -> pd.DataFrame:
    """A row per planned run with a made loss; ``classes`` by condition, else ten."""
    rows = []
    for number, cell in enumerate(spec.cells):
        for seed in spec.seeds_for(cell.condition):
            run = f"{cell.condition}-{cell.level}-{seed}"
            own = {"train_last_loss": 0.1 + 0.05 * number + 0.001 * seed, "val_last_accuracy": 0.9}
            place = {"run": run, "folder": run, "seed": seed, "status": "completed", **cell.levels}
            rows.append({**place, **own, "classes": (classes or {}).get(cell.condition, 10)})
    return pd.DataFrame(rows)


def test_numbers_ascend_and_names_stay_as_given() -> None:
    spec = of_width()
    assert (spec.levels, spec.reference_level, spec.other_levels) == (("4", "16", "64"), "4", ("16", "64"))
    assert [cell.config.model.args["width"] for cell in spec.cells] == [4, 16, 64] * 2
    named = of_optimizers()
    assert (named.levels, named.reference_level) == (("sgd", "adam", "adamw"), "adam")
    assert (spec.conditions, named.conditions) == (("plain", "residual"), ("",))


@pytest.mark.parametrize(
    ("spec", "levels", "words"),
    [
        (make_spec(), ("8",), "at depth 8"),
        (make_spec(), ("8", "32"), "from depth 8 on"),
        (make_spec(), ("2", "8"), "at depths 2 and 8"),
        (of_width(), ("64",), "at width 64"),
        (of_width(scientific=(Axis.of_values("lr", "optimizer.lr", (0.1, 1e-4)),), factor="lr", primary=()), ("0.1",),
         "at learning rate 0.1"),
        (of_optimizers(), ("adam",), "for optimizer adam"),
        (of_optimizers(), ("sgd", "adamw"), "for optimizers sgd and adamw"),
        (of_width(scientific=(TWINS,), factor=None, primary=()), ("",), ""),
    ],
)  # fmt: skip
def test_a_level_in_words(spec: StudySpec, levels: tuple[str, ...], words: str) -> None:
    assert spec.where(*levels) == words


def test_a_level_may_be_given_as_a_number_or_as_text() -> None:
    rates = Axis("lr", {"1e-3": {"optimizer.lr": 1e-3}, "0.1": {"optimizer.lr": 0.1}})
    spec = of_width(scientific=(rates,), factor="lr", reference=0.1, primary=(Primary("depth", 0.001, ""),))
    assert (spec.levels, spec.reference_level, spec.primary[0].level) == (("1e-3", "0.1"), "0.1", "1e-3")
    assert Primary("depth", 8, "plain") == Primary("depth", "8", "plain")


@pytest.mark.parametrize("make", [make_spec, of_width, of_optimizers])
def test_what_is_written_is_read_and_a_study_of_depth_is_written_as_ever(make, tmp_path: Path) -> None:
    spec = make()
    study = make_study(tmp_path, spec)
    stored = json.loads((study.path / "study.json").read_text())
    assert study.spec == spec
    assert study.read() == from_json(StudyDocument, stored)
    assert from_json(StudySpec, to_json(spec)).fingerprint() == spec.fingerprint() == stored["fingerprint"]
    runs = [run.get("depth", run.get("level")) for run in stored["runs"]]
    if make is make_spec:
        assert not {"factor", "reference", "metric", "seeds_of"} & set(stored["spec"])
        assert stored["spec"]["primary"][0] == {"family": "depth", "depth": 8, "condition": "plain", "against": None}
        assert set(runs) == {2, 8, 32}
    else:
        assert set(runs) == set(spec.levels)


def test_what_does_not_change_the_question_is_in_no_fingerprint() -> None:
    spec = make_spec()
    for same in ({"max_looks": 1}, {"seeds_of": {"plain": (1, 2)}}, {"factor": "depth"}, {"reference": "2"}):
        assert dataclasses.replace(spec, **same).fingerprint() == spec.fingerprint()
    others = ({"reference": "8", "primary": ()}, {"metric": "val_last_loss"}, {"effect": "relative"}, {"primary": ()})
    assert len({dataclasses.replace(spec, **other).fingerprint() for other in others} | {spec.fingerprint()}) == 5


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"factor": "widht"}, "did you mean 'width'"),
        ({"reference": "5"}, "unknown study.reference: '5'; choose from: 16, 4, 64"),
        ({"scientific": (TWINS,), "factor": None, "reference": "4"}, "the study has no factor"),
        ({"scientific": (TWINS,), "factor": None}, "the family 'depth' is about a factor"),
        ({"scientific": (Axis("width", {"4": {}, "4.0": {}}), TWINS)}, "has a number twice"),
        ({"scientific": (WIDTH, Axis("c", {"plain": {"model.width": 8}}))}, "both set model.width"),
        ({"primary": (Primary("depth", 4, "plain"),)}, "width 4 is the reference"),
        ({"primary": (Primary("trend", 4, "plain"),)}, "it is about all levels"),
        ({"primary": (Primary("interaction", 64, "plain"),)}, "condition against None"),
        ({"primary": (Primary("cells", 64, "plain"),)}, "is compared with itself"),
        ({"primary": (Primary("shortcut", 64, "plain", "residual", 4),)}, "against_level = '4'; only"),
        ({"primary": (Primary("depth", 64, "plain", margin=0.1),)}, "margin = 0.1"),
        ({"primary": (Primary("trend", None, "plain", aim="not worse"),)}, "about two cells"),
        ({"nuisance": (Nuisance("model.width"),)}, "varied by axis 'width'"),
        ({"metric": "test_last_accuracy"}, "training or validation data"),
        ({"metric": "val_last_top_2"}, "lower or higher"),
        ({"better": "lower"}, "no metric is named"),
        ({"seeds_of": {"plian": (1,)}}, "did you mean 'plain'"),
        ({"seeds_of": {"plain": 5}}, "a list of seeds"),
        ({"max_looks": 0}, "max_looks = 0"),
        ({"combine": "width"}, "unknown study.combine"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_refused_in_one_line(changes, words) -> None:
    with pytest.raises(BadInput, match=words) as error:
        of_width(**changes)
    assert "\n" not in str(error.value)


def test_a_fixed_rate_is_not_claimed_of_optimizers_that_bring_their_own() -> None:
    with pytest.raises(BadInput, match="axis 'optimizer' replaces optimizer; tune it or do not name it"):
        of_optimizers(nuisance=(Nuisance("optimizer.lr"),))
    tuned = of_optimizers(nuisance=(Nuisance("optimizer.lr", "tuned", (0.1, 0.01), (100,)),))
    assert tuned.nuisance[0].how == "tuned"


def test_a_condition_may_be_another_model_of_each_depth() -> None:
    models = {"mlp": {"model.width": 32}, "cnn": {"model": {"name": "resnet", "args": {"width": 4}}}}
    spec = make_spec(scientific=(Axis.of_depths((8, 14)), Axis("condition", models)), primary=())
    args = [(cell.config.model.name, cell.config.model.args["depth"]) for cell in spec.cells]
    assert args == [("mlp", 8), ("mlp", 14), ("resnet", 8), ("resnet", 14)]
    alone = make_spec(scientific=(Axis.of_depths((8,)), Axis("condition", models)), primary=())
    assert "depth" not in alone.cells[-1].config.model.args  # as in `cnn-small`: the model itself is of that depth


def test_levels_and_seeds_are_changed_as_asked() -> None:
    spec, notes = ask(of_width(), levels="16,128")
    assert (spec.levels, spec.primary, len(notes)) == (("16", "128"), (), 1)
    assert spec.cells[1].config.model.args["width"] == 128
    named, _ = ask(of_optimizers(), levels=["sgd", "adam"])
    assert (named.levels, named.primary, named.reference_level) == (("sgd", "adam"), of_optimizers().primary, "adam")
    assert ask(make_spec(), levels="2,16")[0].levels == ("2", "16")
    for change, words in (
        ({"depths": "2,4"}, "compares levels of 'width'; use --levels"),
        ({"levels": "4,many"}, "'many' is not acceptable; the levels of this study are numbers"),
        ({"levels": "4", "depths": "4"}, "both given"),
        ({"overrides": ["model.width=3"]}, "use --levels for other widths"),
    ):
        with pytest.raises(BadInput, match=words):
            ask(of_width(), **change)
    with pytest.raises(BadInput, match="seeds of its own for plain"):
        ask(of_width(seeds_of={"plain": (0, 1)}), seeds="5")


def test_a_declared_number_of_looks_is_kept(tmp_path: Path) -> None:
    spec = of_width(max_looks=2, seeds=(0, 1))
    twice = spec.extended(range(4))
    assert (twice.looks, twice.fingerprint()) == (2, spec.fingerprint())
    with pytest.raises(
        BadInput, match=r"declared 2 analyses before its runs \(max_looks = 2\), so no seeds can"
    ) as error:
        twice.extended(range(6))
    assert "\n" not in str(error.value)
    folder = StudyDir(tmp_path / spec.name)
    folder.path.mkdir()
    folder.write(StudyDocument.unplanned(dataclasses.replace(spec, max_looks=1)))
    with pytest.raises(BadInput, match="declared one analysis"):  # what was declared first holds
        locate_study(dataclasses.replace(spec, max_looks=5, seeds=(0, 1, 2)), Runtime(runs_root=tmp_path))


def test_unequal_seeds_grow_by_condition(tmp_path: Path) -> None:
    spec = of_width(seeds=(0, 1), seeds_of={"plain": range(4)}, max_looks=None)
    assert [len(spec.seeds_for(cell.condition)) for cell in spec.cells] == [4] * 3 + [2] * 3
    document = StudyDocument.unplanned(spec)
    assert len(document.runs) == 18
    folder = StudyDir(tmp_path / spec.name)
    folder.path.mkdir()
    folder.write(document)
    assert locate_study(spec, Runtime(runs_root=tmp_path))[1].spec == spec
    more = dataclasses.replace(spec, seeds_of={"plain": (0, 1, 2, 3, 7)})
    found = locate_study(more, Runtime(runs_root=tmp_path))[1].spec
    assert (found.looks, found.seeds_for("plain"), found.seeds_for("residual")) == (2, (0, 1, 2, 3, 7), (0, 1))
    cells, _ = cells_of(table_of(spec), spec)
    assert [len(cell.runs) for cell in cells.values()] == [4] * 3 + [2] * 3


def test_each_data_set_has_its_own_scale() -> None:
    sets = Axis("data", {"ten": {}, "five": {"dataset": {"name": "mnist5k", "args": {"classes": list("01234")}}}})
    spec = of_width(scientific=(WIDTH, sets), primary=(Primary("depth", 64, "ten"),), combine="data")
    cells, scale = cells_of(table_of(spec, {"five": 5}), spec)
    assert scale is None
    chances = {condition: cell.scale.chance for (condition, _), cell in cells.items()}
    assert (chances["ten"], chances["five"]) == (math.log(10), math.log(5))
    found = json.loads(json.dumps(verdict(table_of(spec, {"five": 5}), spec).as_json()))
    assert (found["factor"], found["classes"], found["cells"][5]["classes"]) == ("width", None, 5)
    mixed = table_of(spec, {"five": 5})
    mixed.loc[0, "classes"] = 7
    with pytest.raises(BadInput, match=r"different classes: \[7.0, 10.0\]"):
        cells_of(mixed, spec)


def test_data_sets_are_judged_together_by_their_means() -> None:
    sets = Axis("data", {"ten": {}, "five": {"dataset": {"name": "mnist5k", "args": {"classes": list("01234")}}}})
    spec = of_width(
        scientific=(WIDTH, TWINS, sets),
        primary=(
            Primary("depth", 64, "plain, all data"),
            Primary("shortcut", 64, "residual, all data", "plain, all data"),
        ),
        combine="data",
        seeds=(0, 1, 2),
        seeds_of={"plain, five": (0, 2, 5)},
    )
    assert spec.combined["plain, all data"] == ("plain, ten", "plain, five")
    assert spec.seeds_for("plain, all data") == (0, 2)
    table = table_of(spec, {name: 5 for name in spec.conditions if "five" in name})
    cells, _ = cells_of(table, spec)
    cells |= combined_cells(cells, spec)
    mine, parts = cells["plain, all data", "64"], [cells[name, "64"] for name in ("plain, ten", "plain, five")]
    by_seed = [{run.seed: run.loss for run in cell.runs} for cell in parts]
    shares = {s: (by_seed[0][s] / math.log(10) + by_seed[1][s] / math.log(5)) / 2 for s in (0, 2)}
    assert {run.seed: run.loss for run in mine.runs} == pytest.approx(shares)
    assert mine.runs[0].folders == ("plain, ten-64-0", "plain, five-64-0")
    found = verdict(table, spec)
    assert [c.cell.label for c in found.contrasts if c.primary] == ["plain", "residual"]
    assert json.dumps(found.as_json())
    with pytest.raises(BadInput, match="which has it in it"):
        dataclasses.replace(spec, primary=(Primary("shortcut", 64, "plain, ten", "plain, all data"),))


def test_the_column_of_the_metric_is_read() -> None:
    spec = of_width(metric="val_last_loss", seeds=(0, 1, 2))
    assert not spec.higher_is_better
    assert of_width(metric="val_last_accuracy").higher_is_better
    with pytest.raises(BadInput, match="val_last_loss"):
        cells_of(table_of(spec), spec)
    table = table_of(spec).assign(val_last_loss=0.25)
    cells, _ = cells_of(table, spec)
    assert {run.metric for cell in cells.values() for run in cell.runs} == {0.25}


OPTIMIZERS = {"scientific": (NAMES,), "factor": "optimizer", "reference": "adam", "primary": ()}
NO_FACTOR = {"scientific": (TWINS,), "factor": None, "primary": (Primary("shortcut", None, "residual", "plain"),)}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ("Each width against width 4", "| width 4 | width 16 | width 64 |", "## Every condition at every width")),
        (OPTIMIZERS, ("Each optimizer (", "| optimizer sgd | optimizer adam |", "1 condition, 3 optimizers, 2 seeds")),
        (NO_FACTOR, ("One condition against another (", "## Every condition\n", "2 conditions, 2 seeds")),
    ],
)
def test_a_page_says_what_is_varied(changes, words: tuple[str, ...], tmp_path: Path) -> None:
    data = read_study(make_study(tmp_path, of_width(seeds=(0, 1), **changes), epochs=1))
    text, html = markdown(Content(data), []), page(Content(data), drawn=False)
    assert not [part for part in words if part not in text]
    assert "\\\\n" not in text
    assert not [part for part in ("depth study", "at depth", "per depth", "against depth") if part in html.lower()]
    assert [*data.table.columns][:5] == ["run", "folder", "status", "condition", data.spec.factor or "seed"]


@pytest.mark.slow
@pytest.mark.parametrize(("changes", "name"), [({}, "width"), (OPTIMIZERS, "optimizer"), (NO_FACTOR, None)])
def test_figures_are_drawn_against_any_factor_or_none(changes, name: str | None, tmp_path: Path) -> None:
    study = make_study(tmp_path, of_width(seeds=(0, 1), **changes), epochs=1)
    write_report(study)
    assert page_faults(read_study(study), study.path / "report.html") == []
    pictures = {path.stem for path in (study.path / "figures").glob("*.png")}
    assert pictures == {f"against-{name}" if name else "by-condition", "gradient-flow", "learning-curves"}


def test_runs_of_a_study_of_optimizers_are_made_tuned_and_judged(tmp_path: Path) -> None:
    names = {"adam": {}, "sgd": {"optimizer": "sgd"}}
    spec = tiny_spec(
        scientific=(Axis("optimizer", names),),
        factor="optimizer",
        reference="sgd",
        seeds=(0, 1),
        primary=(Primary("depth", "adam", ""),),
        base=dataclasses.replace(tiny_spec().base, model=Component("mlp", {"width": 4, "depth": 2})),
        nuisance=(Nuisance("optimizer.lr", "tuned", (0.01, 0.1), (100,)),),
    )
    done = make(tmp_path, spec)
    stored = done.study.document
    assert {item.level for item in stored.tuning.chosen} == {"adam", "sgd"}
    assert all(run.folder.startswith(f"optimizer-{run.level}-mnist5k-s{run.seed}") for run in stored.runs)
    assert [run.levels for run in stored.runs[:1]] == [{"optimizer": "adam"}]
    for run in stored.runs:
        config = json.loads((done.study.path / run.folder / "config.json").read_text())
        assert config["optimizer"]["name"] == run.level
    study = Study(done.study)
    assert study.run("", "sgd", 1).config["optimizer"]["name"] == "sgd"
    with pytest.raises(BadInput, match="unknown optimizer of the study: 'sdg'"):
        study.run("", "sdg")
    (contrast,) = (item for item in study.verdict().contrasts if item.primary)
    assert (contrast.cell.level, contrast.against.level) == ("adam", "sgd")
    assert make(tmp_path, spec).made == 0
