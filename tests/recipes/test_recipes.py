"""Recipes: what they hold, that a saved config is one, that users' files are kept apart."""

from __future__ import annotations

import dataclasses
import inspect
import json
import sys
from pathlib import Path

import pytest

from netdepth.config import Component, RunConfig, to_json
from netdepth.errors import BadInput
from netdepth.recipes import RECIPES, import_user, resolve, resolve_study
from netdepth.studyspec import Axis
from netdepth.training.resolve import fill_in as resolve_components

RUNS = [name for name in RECIPES.names() if isinstance(RECIPES.build(Component(name)), RunConfig)]
"""Recipes of a single run; those of studies have their own tests."""

FILE = """
from dataclasses import dataclass
from netdepth.config import Component, RunConfig

@dataclass
class Settings:
    width: int = 4

def tiny():
    return RunConfig(Component("mnist5k"), Component("mlp", {"hidden": [Settings().width]}))
"""


def test_a_condition_has_a_label_for_people_beside_its_key() -> None:
    spec = resolve_study("depth-mlp")
    labels = [spec.label_of(condition) for condition in spec.conditions]
    assert labels[3] == "residual, He init, scaled branches"
    assert len(set(labels)) == len(spec.conditions)
    grid = dataclasses.replace(
        spec,
        scientific=(*spec.scientific, Axis("width", {"narrow": {"model.width": 8}, "wide": {"model.width": 64}})),
        primary=(),
    )
    assert grid.label_of("plain he, wide") == "plain, He init, wide"
    assert "He init" not in json.dumps(to_json(spec))


def test_the_docstring_promises_what_the_expected_numbers_say() -> None:
    expected = json.loads((Path(__file__).parents[1] / "expected.json").read_text())["baseline-mlp"]
    text = inspect.getdoc(RECIPES.entry("baseline-mlp").function) or ""
    words = " ".join(text.split())
    assert f"accuracy at least {100 * expected['accuracy']:.2f} %" in words
    assert f"weighted precision at least {100 * expected['precision_weighted']:.2f} %" in words
    assert f"loss at most {expected['loss']}" in words


@pytest.mark.parametrize("name", RUNS)
def test_a_saved_config_gives_the_same_run(name: str, tmp_path: Path) -> None:
    assert RECIPES.entry(name).summary.startswith(f"netdepth train {name}"), "the docstring opens with the command"
    config = dataclasses.replace(resolve_components(resolve(name)[1]), seed=5)
    saved = {"schema": 1, "fingerprint": "0" * 10, "recipe": name, **to_json(config)}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(saved))
    assert resolve(str(path)) == (name, config)
    path.write_text(json.dumps(to_json(config)))
    assert resolve(str(path)) == (tmp_path.name, config), "without a recipe it is called after its folder"


def test_a_users_file_runs_and_names_its_function(tmp_path: Path) -> None:
    path = tmp_path / "json.py"  # the name of a module of the standard library: it must not replace it
    path.write_text(FILE)
    name, config = resolve(f"{path}:tiny")
    assert (name, config.model.args) == ("tiny", {"hidden": [4]})
    assert sys.modules["json"] is json


def test_the_same_file_runs_once_and_a_changed_one_again(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("import random\nvalue = random.random()\n")
    first = import_user(str(path))
    assert import_user(str(path)) is first
    path.write_text("value = 2\n")
    assert import_user(str(path)).value == 2


def test_an_installed_module_can_be_imported_by_name() -> None:
    assert import_user("json.decoder").__name__ == "json.decoder"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def f(:", r"failed at line 1: SyntaxError"),
        ("\n1 / 0", r"failed at line 2: ZeroDivisionError: division by zero"),
        ("raise SystemExit('bye')", r"failed at line 1: SystemExit: bye"),
        ("raise ValueError('two\\nlines')", r"ValueError: two lines$"),
        ("import no_such_module_here", r"ModuleNotFoundError"),
        ("x = 1", r"unknown function of .*choose from: none"),
        ("def recipe(needed): pass", r"TypeError: recipe\(\) missing 1 required"),
        ("def recipe(): return {}", r"returns dict; it must return a RunConfig or a StudySpec"),
        ("\x00", r"failed"),
    ],
)
def test_a_file_that_fails_is_one_line(tmp_path: Path, source: str, message: str) -> None:
    path = tmp_path / "bad.py"
    path.write_text(source)
    before = set(sys.modules)
    with pytest.raises(BadInput, match=message) as caught:
        resolve(f"{path}:recipe")
    assert "\n" not in str(caught.value)
    left = [name for name in set(sys.modules) - before if name.startswith("netdepth_user_bad")]
    assert not left or "def recipe" in source or source == "x = 1"


@pytest.mark.parametrize("text", ["x.y.", "a b", "../up", "1module", ""])
def test_what_is_no_module_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="nor the name of a module"):
        import_user(text)


def test_a_folder_is_not_a_recipe(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"is a folder; name the config\.json in it"):
        resolve(str(tmp_path))


@pytest.mark.parametrize("text", ["[]", '"a"', "{", '{"schema": 2}', "\xff", "[" * 100_000])
def test_a_config_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(BadInput, match="config"):
        resolve(str(path))
