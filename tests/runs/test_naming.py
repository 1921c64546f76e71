"""What a run is called: shown in headings and folders, and never what it is found by."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.real_runs import CONFIG, make

from netdepth import api
from netdepth.config import Runtime
from netdepth.errors import BadInput
from netdepth.runs.folder import slug
from netdepth.runs.naming import Called, called_in, changed_settings, folder_label, title
from netdepth.training.changes import changes

CHANGES = {"dataset": "fashion-mnist", "model": "vit", "optimizer.lr": 0.0003, "train.budget": "5ep"}


def test_a_title_and_a_folder_say_what_differs_from_the_recipe() -> None:
    called = Called(changes=CHANGES)
    assert title("baseline-mlp", called) == "baseline-mlp · dataset=fashion-mnist · model=vit · lr 3e-4 · budget 5ep"
    assert (
        title("baseline-mlp", called, "fashion-mnist")
        == "baseline-mlp on fashion-mnist · model=vit · lr 3e-4 · budget 5ep"
    )
    assert slug(folder_label("baseline-mlp", "mnist", called)) == "baseline-mlp-mnist-model-vit-lr-3e-4-budget-5ep"
    assert slug(folder_label("baseline-mlp-cifar10", "mnist", called)) == "baseline-mlp-cifar10-mnist-model-vit-lr-3e-4"
    assert (title("x", Called("my try")), folder_label("x", "mnist", Called("my try"))) == ("my try", "my try")


@pytest.mark.parametrize(
    ("path", "value", "shown"),
    [
        ("optimizer.lr", 0.01, "lr 0.01"),
        ("model.hidden", [64, 32], "hidden 64,32"),
        ("train.early_stopping", None, "early_stopping off"),
        ("train.early_stopping.patience", 9, "early_stopping.patience 9"),
        ("train.overfitting", {"patience": 3}, "overfitting on"),
        ("dataset.path", "/home/ada/pets", "path pets"),
        ("start_from.run", "single/parent-s0-0123456789", "start_from parent-s0-0123456789"),
        ("model.pre_activation", True, "pre_activation on"),
        ("optimizer.lr", 1 / 3, "lr 0.3333333333333333"),
    ],
)
def test_settings_in_short_read_back_to_their_values(path: str, value: object, shown: str) -> None:
    assert changed_settings({path: value}) == [shown]  # type: ignore[dict-item]


def test_two_settings_of_one_last_name_are_told_apart() -> None:
    assert changed_settings({"model.width": 4, "schedule.width": 5}) == ["model.width 4", "schedule.width 5"]
    assert changed_settings({"model.hidden": None, "model.width": 4}) == ["width 4"]


def test_what_differs_is_what_is_computed_otherwise() -> None:
    default = api.plan("baseline-mlp", overrides=["optimizer.lr=0.001", "model.init=default"])[1][0]
    base = api.plan("baseline-mlp")[1][0]
    assert changes(default, base) == {}
    texts = ["model=cnn", "model.dropout=0.25", "train.early_stopping.patience=7"]
    other = api.plan("baseline-mlp", overrides=texts)[1][0]
    assert changes(other, base) == {"model": "cnn", "train.early_stopping.patience": 7}


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "x" * 101])
def test_a_name_is_one_printable_line(name: str) -> None:
    with pytest.raises(BadInput, match="--name"):
        Called(name)
    assert called_in({"called": {"name": name, "changes": 3}}) == Called()


def test_a_run_keeps_its_name_and_is_found_under_every_other(tmp_path: Path) -> None:
    runtime = Runtime(runs_root=tmp_path, probes=False)
    old = make(tmp_path, probes=False).run  # as it was called before there were names
    assert api.train_runs(CONFIG, runtime, run_name="new", progress=False).outcomes[0].notes[0] == (
        "this run was made before, without a name of its own; it keeps its name, and 'new' is not used"
    )
    assert [path.name for path in (tmp_path / "single").iterdir() if path.is_dir()] == [old.path.name]

    found = api.train(CONFIG, seed=1, name="my try", runtime=runtime, progress=False)
    assert not isinstance(found, list)
    assert found.path.name.startswith("my-try-s1-")
    assert found.config["called"] == {"name": "my try"}
    (found.path / "result.json").unlink()  # unfinished: continued without its name, it keeps it
    again = api.train(str(found.path / "config.json"), runtime=runtime, progress=False)
    assert (again.path, again.config["called"]["name"]) == (found.path, "my try")
