"""Studies of training conditions: the parent run is made first; conditions are compared by validation error."""

import dataclasses
import json

import pytest
from support.tiny_studies import make

from netdepth import data
from netdepth.config import Component, RunConfig, Runtime, TrainConfig
from netdepth.data.splits import with_classes
from netdepth.errors import BadInput
from netdepth.recipes import RECIPES
from netdepth.report.check import check_report
from netdepth.report.page import write_report
from netdepth.runs.folder import RunDir, list_runs
from netdepth.studies.ask import ask
from netdepth.studies.forecast import forecast
from netdepth.studies.resolve import make_parent_run
from netdepth.studyspec import SOURCE, Axis, Primary, StudySpec

FIRST, SECOND = list("01234"), list("56789")
TRAIN = TrainConfig(budget="30it", eval_every="30it", batch_size=64)
BASE = RunConfig(Component("mnist5k", {"classes": SECOND}), Component("mlp", {"hidden": [16]}), train=TRAIN)
FROM = RunConfig(Component("mnist5k", {"classes": FIRST}), Component("mlp", {"hidden": [16]}), train=TRAIN, seed=4)
CONDITIONS = {
    "from scratch": {"start_from": None},
    "head only": {"start_from.run": SOURCE, "start_from.freeze": ["layer1"]},
}
TEACHING = {
    "hard labels": {"objective": "cross-entropy"},
    "distilled": {"objective": "distill", "objective.teacher": SOURCE},
}


def spec(conditions=CONDITIONS, base=BASE, seeds=7, **changes):
    reference, *others = conditions
    fields = {
        "name": "ways",
        "question": "Which condition?",
        "base": base,
        "source": FROM,
        "scientific": (Axis("depth", {"2": {"model.hidden": [16]}}), Axis("condition", conditions)),
        "seeds": tuple(range(seeds)),
        "primary": tuple(Primary("condition", 2, name, reference) for name in others),
        "smallest_effect": 0.01,
        "max_looks": 1,
    }
    return StudySpec(**{**fields, **changes})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make(tmp_path_factory.mktemp("runs"), spec())


def test_the_parent_run_is_trained_first_and_once_and_fixed_by_its_digest(made):
    study, root = made.study, made.study.path.parent
    single = [run for run in list_runs(root) if run.path.parent.name == "single"]
    assert [run.path.name for run in single] == [f"ways-source-mnist5k-s4-{single[0].path.name[-10:]}"]
    assert study.document.source.run == f"single/{single[0].path.name}"
    assert study.document.source.weights_sha256 == single[0].result()["weights_sha256"]
    written = single[0].result() and (single[0].path / "result.json").stat().st_mtime_ns
    again = make(root, spec())
    assert again.made == 0
    assert (single[0].path / "result.json").stat().st_mtime_ns == written
    started = [run for run in study.runs() if run.condition == "head only"]
    config = json.loads((study.path / started[0].folder / "config.json").read_text())
    assert config["start_from"]["run"] == study.document.source.run
    assert config["start_from"]["sha256"] == study.document.source.weights_sha256


def test_a_parent_run_without_validation_images_is_refused(made, monkeypatch):
    whole, none = RunDir.result, {which: {"accuracy": None} for which in ("best", "last")}
    monkeypatch.setattr(RunDir, "result", lambda run: {**(whole(run) or {}), "val": none})
    with pytest.raises(BadInput, match="has no validation error"):
        make_parent_run(spec(), Runtime(runs_root=made.study.path.parent), progress=False)


def test_two_conditions_are_compared_pair_by_pair_by_validation_error(made):
    from netdepth.stats.exact import sign_flip_test
    from netdepth.stats.family import spending
    from netdepth.studies.comparison import WORSE
    from netdepth.studies.table import study_table
    from netdepth.studies.verdict import verdict

    table = study_table(made.study)
    found = verdict(table, made.study.spec)
    (contrast,) = [c for c in found.contrasts if c.primary]
    errors = {name: 1 - part.set_index("seed")["val_last_accuracy"] for name, part in table.groupby("condition")}
    differences = (errors["head only"] - errors["from scratch"]).tolist()
    assert contrast.difference.value == pytest.approx(sum(differences) / 7)
    assert contrast.tests.exact_p == sign_flip_test(differences).p
    assert contrast.tests.p == max(contrast.tests.exact_p, contrast.tests.t_p)
    assert contrast.corrected_p == pytest.approx(contrast.tests.p * spending(1, made.study.spec.max_looks))
    assert contrast.label in (*WORSE, "helps")
    word = "lower" if contrast.label == "helps" else "higher"
    said = " ".join(sentence.text for sentence in found.sentences)
    assert "Head only against from scratch at depth 2: " in said
    assert f"{word} validation error. Mean validation error" in said
    assert f"Head only has a {word} validation error than from scratch: " in found.answer
    assert "7 pairs of runs by seed" in said
    assert "exact sign-flip test" in said
    misleading = ("what depth does", "trains better", "trains worse", "nothing to compare", "overfitting", "harder to")
    assert [words for words in misleading if words in said] == []
    assert contrast.harm is None, "it is not about the training loss"


def test_the_page_says_who_wins_and_is_made_of_the_folders(made):
    page = write_report(made.study)
    checked = check_report(made.study)
    assert (checked.faults, checked.notes) == ((), ())
    text = page.with_name("report.md").read_text()
    parts = ("percentage points", "McNemar", "The parent run is single/ways-source", "7 pairs of runs")
    assert [part for part in parts if part not in text] == []
    misleading = ("difference of training losses", "residual and plain nets", "hat depth does")
    assert [words for words in misleading if words in text] == []


def test_a_student_is_compared_with_itself_on_hard_labels(tmp_path):
    base = dataclasses.replace(BASE, dataset=FROM.dataset)
    done = make(tmp_path, spec(TEACHING, base, seeds=2, name="taught"))
    assert done.failed == []
    text = write_report(done.study).with_name("report.md").read_text()
    assert "distilled" in text
    assert "It is undecided whether distilled has a lower validation error than hard labels" in text


def test_a_dry_run_makes_nothing_and_knows_every_run(tmp_path):
    ahead = forecast(spec(), Runtime(runs_root=tmp_path, device="cpu"), calibrate=False)
    assert sum(len(group.seeds) for groups in ahead.missing.values() for group in groups) == 14
    assert list(tmp_path.iterdir()) == []
    make(tmp_path, spec(seeds=1, max_looks=2))
    later = forecast(spec(seeds=2, max_looks=2), Runtime(runs_root=tmp_path, device="cpu"))
    assert later.seconds is not None
    assert sum(len(names) for names in later.unfinished.values()) == 2


def test_a_run_of_ones_own_can_be_the_parent_run(made, tmp_path):
    run = made.study.path.parent / made.study.document.source.run
    other, _ = ask(spec(name="own"), source=str(run))
    assert other.source is None
    assert other.cells[1].config.start_from.run == str(run)
    assert make(tmp_path, dataclasses.replace(other, seeds=(0,))).failed == []
    with pytest.raises(BadInput, match="has no parent run and no teacher"):
        ask(other, source="another")


def test_some_classes_are_a_data_set_of_their_own():
    whole = data.load(Component("mnist5k"), data_dir=None)
    first, second = (with_classes(whole, classes) for classes in (FIRST, ["9", "5"]))
    assert first.spec.classes == tuple(FIRST)
    assert first.spec.sizes == {"train": 1500, "val": 500, "test": 500}
    kept = whole.train.labels < 5
    assert (first.train.inputs == whole.train.inputs[kept]).all()
    assert (first.train.labels == whole.train.labels[kept]).all()
    nines = second.train.inputs[second.train.labels == 0]
    assert (nines == whole.train.inputs[whole.train.labels == 9]).all()
    digests = [
        (s.spec.data_digest, s.spec.split_digest) for s in (whole, first, second, with_classes(whole, ["5", "9"]))
    ]
    assert len({d for d, _ in digests}) == len({s for _, s in digests}) == 4
    assert len(first.test.open_test("once")) == 500
    with pytest.raises(BadInput, match="already opened"):
        first.test.open_test("twice")
    assert whole.test.opened_for == []
    assert with_classes(whole, None) is whole
    for wrong, message in ((["0", "x"], "class of mnist5k"), (["0"], "two names or more"), (["0", "0"], "each once")):
        with pytest.raises(BadInput, match=message):
            with_classes(whole, wrong)


@pytest.mark.parametrize("name", [name for name in RECIPES.names() if name.startswith(("transfer-", "distill-"))])
def test_the_recipes_name_existing_stages_and_a_larger_teacher(name):
    from netdepth import models, recipes
    from netdepth.training.resolve import COMPONENTS

    made = recipes.resolve_study(name)
    shape = (3, 32, 32) if "cifar" in name else (1, 28, 28)
    for cell in made.cells:
        network = models.build(COMPONENTS["model"].resolve(cell.config.model), shape, 10)
        assert network.depth == int(cell.level)
        start = cell.config.start_from
        if start is not None:
            assert set(start.freeze) <= set(network.stage_paths())
            source = models.build(COMPONENTS["model"].resolve(made.source.model), shape, 10)
            assert {k: v.shape for k, v in source.state_dict().items()} == {
                k: v.shape for k, v in network.state_dict().items()
            }
        if cell.config.objective.name == "distill":
            teacher = models.build(COMPONENTS["model"].resolve(made.source.model), shape, 10)
            sizes = [sum(p.numel() for p in net.parameters()) for net in (network, teacher)]
            assert 2 * sizes[0] <= sizes[1]


@pytest.mark.slow
@pytest.mark.data("cifar10-jpeg")
@pytest.mark.data("fashion-mnist")
@pytest.mark.data("mnist")
@pytest.mark.parametrize("name", ["transfer-fashion-mnist", "transfer-cifar10-halves", "distill-mnist"])
def test_the_recipes_run_on_their_data(name, real_data, tmp_path):
    from netdepth import recipes

    def short(config):
        train = dataclasses.replace(config.train, budget="2it", eval_every="2it", early_stopping=None)
        narrow = {"width": 2} if "width" in config.model.args else {}  # every image is evaluated
        return dataclasses.replace(
            config, train=train, model=Component(config.model.name, {**config.model.args, **narrow})
        )

    whole = recipes.resolve_study(name)
    brief = dataclasses.replace(whole, base=short(whole.base), source=short(whole.source), seeds=(0,))
    done = make(tmp_path, brief, data_dir=real_data("cifar10-jpeg"))
    assert done.failed == []
    assert [outcome.status for outcome in done.outcomes] == ["completed"] * len(whole.cells)
    split = json.loads((done.study.path / done.study.runs()[0].folder / "split.json").read_text())
    sizes = {"transfer-fashion-mnist": (5_000, 55_000, 10_000), "transfer-cifar10-halves": (2_500, 22_500, 5_000)}
    assert tuple(split["sizes"].values()) == sizes.get(name, (55_000, 5_000, 10_000))
    if "halves" in name:
        assert split["classes"] == ["dog", "frog", "horse", "ship", "truck"]
        assert "not comparable" in split["note"]
