"""What no rearrangement of the code may change: fingerprints, the form of files, verdicts, old runs, the command line.

What is expected stands in ``frozen.json``. It is made anew, on purpose and never to make a test pass, by

    python tests/test_frozen.py --write

Modules that may move are reached through `support.frozen_access` alone. Values of runs are not here (numbers depend
on the machine; ``tools/frozen_weights.py`` compares them on one), nor words: sentences may be told better.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import functools
import importlib
import inspect
import io
import json
import math
import os
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas
import pytest
from support import frozen_access as access

import netdepth as nd
from netdepth import errors
from netdepth.config import (
    Component,
    EarlyStopping,
    Overfitting,
    RunConfig,
    Runtime,
    StartFrom,
    TrainConfig,
    from_json,
    to_json,
)
from netdepth.studyspec import SOURCE, Axis, Nuisance, Primary, StudySpec

TESTS = Path(__file__).resolve().parent
FROZEN = TESTS / "frozen.json"
OLD = TESTS / "faults" / "stores" / "0.1.0"
PUBLISHED = sorted((TESTS.parent / "docs" / "studies").glob("*/study.json"))
KEPT = ("config", "registry", "errors", "overrides", "studyspec")
"""Modules of the package that keep their names."""

DATA, SPLIT, WEIGHTS = "d" * 64, "5" * 64, "0" * 64
"""Digests that stand for any data, any split of them and the weights of any run."""


@functools.cache
def frozen() -> dict[str, Any]:
    """What is expected."""
    found: dict[str, Any] = json.loads(FROZEN.read_text())
    return found


def same(now: Any, before: Any, path: str = "") -> list[str]:
    """The places where two documents differ; floats may by 1e-9 of their size."""
    if isinstance(now, dict) and isinstance(before, dict):
        keys = sorted({*now, *before})
        lines = [f"{path}.{key} is there only {'now' if key in now else 'before'}" for key in keys]
        lines = [line for key, line in zip(keys, lines, strict=True) if (key in now) != (key in before)]
        return lines + [
            line for k in keys if k in now and k in before for line in same(now[k], before[k], f"{path}.{k}")
        ]
    if isinstance(now, list) and isinstance(before, list) and len(now) == len(before):
        pairs = enumerate(zip(now, before, strict=True))
        return [line for index, (a, b) in pairs for line in same(a, b, f"{path}[{index}]")]
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (now, before))
    equal = math.isclose(now, before, rel_tol=1e-9, abs_tol=0.0) if numbers else now == before
    return [] if equal and type(now) is type(before) else [f"{path}: {str(before)[:80]} before, {str(now)[:80]} now"]


def kept(now: Mapping[str, Any], before: Mapping[str, Any]) -> list[str]:
    """As `same`, for names to which others may be added."""
    return same({key: now[key] for key in now if key in before}, dict(before))


# --- fingerprints -----------------------------------------------------------------------------


def fingerprint_of(config: RunConfig, data: str = DATA, split: str = SPLIT, weights: str = WEIGHTS) -> str:
    """The fingerprint of ``config``; a run that it starts from or learns from is held by ``weights``."""
    alone, start = config, config.start_from
    if start is not None:
        alone = dataclasses.replace(alone, start_from=None)
        start = dataclasses.replace(start, sha256=weights)
    objective = access.components()["objective"].resolve(config.objective)
    if "teacher" in objective.args:
        alone = dataclasses.replace(alone, objective=Component("cross-entropy"))
        objective = dataclasses.replace(objective, args={**objective.args, "sha256": weights})
    whole = dataclasses.replace(access.resolved(alone), start_from=start, objective=objective)
    return access.fingerprint(whole, data, split)


def fingerprints() -> dict[str, Any]:
    """Of every recipe; of a study its own, its source's and its cells'."""
    found: dict[str, Any] = {}
    for name, recipe in access.recipes().items():
        if isinstance(recipe, RunConfig):
            found[name] = fingerprint_of(recipe)
            continue
        cells = {f"{cell.condition} | {cell.level}": fingerprint_of(cell.config) for cell in recipe.cells}
        source = None if recipe.source is None else fingerprint_of(recipe.source)
        found[name] = {"study": recipe.fingerprint(), "source": source, "cells": cells}
    return found


def test_fingerprints_of_recipes() -> None:
    assert kept(fingerprints(), frozen()["fingerprints"]) == []


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.parent.name)
def test_published_runs_have_the_fingerprints_of_their_settings(path: Path) -> None:
    study = json.loads(path.read_text())
    spec = from_json(StudySpec, study["spec"], "spec")
    with (path.parent / "table.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    weights = (study.get("source") or {}).get("weights_sha256", WEIGHTS)
    made = {
        (cell.condition, int(cell.level)): fingerprint_of(cell.config, row["data_digest"], row["split_digest"], weights)
        for cell in spec.cells
    }
    assert spec.fingerprint() == study["fingerprint"]
    assert made == {(run["condition"], run["depth"]): run["fingerprint"] for run in study["runs"]}


# --- the form of files ------------------------------------------------------------------------

TYPES = {
    dict: "object",
    list: "list",
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    type(None): "null",
}
DATA_KEYS = {"levels", "counts", "files", "layer_grad_norms", "lr_scale", "nonfinite"}
"""Objects whose keys are data, as are all keys of digits and all paths of settings."""
FILE = re.compile(r".*\.(json|safetensors)")
VARIES = re.compile(r"\$\.(commit|uncommitted_changes|device_name|cpu|matmul|memory_format|pictures)\b")
"""What cannot be said of every machine in ``environment.json``."""


def form(document: Any) -> dict[str, str]:
    """``$.a.b[].*``: the types of every place of a JSON document, elements of lists and keys that are data as one."""
    places: dict[str, set[str]] = {}

    def walk(value: Any, path: str, key: str) -> None:
        places.setdefault(path, set()).add(TYPES[type(value)])
        if isinstance(value, list):
            for item in value:
                walk(item, f"{path}[]", key)
        elif isinstance(value, dict):
            for name, item in value.items():
                data = key in DATA_KEYS or name.isdecimal() or ("." in name and not FILE.fullmatch(name))
                walk(item, f"{path}.{'*' if data else name}", name)

    walk(document, "$", "")
    return {path: " | ".join(sorted(types)) for path, types in sorted(places.items())}


def merged(forms: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """One form for several documents."""
    places: dict[str, set[str]] = {}
    for one in forms:
        for path, types in one.items():
            places.setdefault(path, set()).update(types.split(" | "))
    return {path: " | ".join(sorted(types)) for path, types in sorted(places.items())}


def contents(path: Path) -> dict[str, str]:
    """The form of one file of a run or study: JSON, its lines, arrays or the columns of a table."""
    if path.suffix == ".json":
        return form(json.loads(path.read_bytes()))
    if path.suffix == ".jsonl":
        return form([json.loads(line) for line in path.read_bytes().splitlines()])
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            return {name: f"{arrays[name].dtype} of {arrays[name].ndim} dimensions" for name in arrays.files}
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            return {name: f"column {index}" for index, name in enumerate(next(csv.reader(file)))}
    if path.suffix == ".safetensors":
        from safetensors.numpy import load_file

        return {name: f"{array.dtype} of {array.ndim} dimensions" for name, array in sorted(load_file(path).items())}
    return {}


def kind(path: Path, folder: Path) -> str:
    """``path`` within its ``folder``, with a star for a number of steps."""
    return re.sub(r"(?<=[/-])\d+(?=[./])", "*", path.relative_to(folder).as_posix())


def files_of(folders: Iterable[Path], tensors: bool) -> dict[str, dict[str, str]]:
    """The form of the files of run folders by their kind, those of tensors alone or all others."""
    found: dict[str, list[dict[str, str]]] = {}
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            inside = path.relative_to(folder).parts
            hidden = any(part.startswith(".") for part in inside) or inside[0] == "export"
            if path.is_file() and not hidden and (path.suffix == ".safetensors") is tensors:
                found.setdefault(kind(path, folder), []).append(contents(path))
    files = {name: merged(forms) for name, forms in sorted(found.items())}
    if "environment.json" in files:
        known = files["environment.json"].items()
        files["environment.json"] = {name: "anything" if VARIES.match(name) else types for name, types in known}
    return files


DIGITS = Component("mnist5k")
SHORT = TrainConfig(budget="6it", eval_every="3it", batch_size=32)
SMALL = RunConfig(DIGITS, Component("mlp", {"width": 4, "depth": 3}), train=SHORT)
FAILING = """
from netdepth.config import Component, RunConfig, TrainConfig
from support.frozen_access import components

@components()["schedule"].register("breaks")
def breaks(total_steps: int, steps_per_epoch: int):
    "A rate that cannot be computed after the third step."
    def factor(step: int) -> float:
        if step > 3 and total_steps > 3:
            raise ArithmeticError("no rate")
        return 1.0
    return factor

def run():
    train = TrainConfig(budget="6it", eval_every="3it", batch_size=32)
    model = Component("mlp", {"width": 4, "depth": 3})
    return RunConfig(Component("mnist5k"), model, schedule=Component("breaks"), train=train)
"""


class Answer(NamedTuple):
    """What a command line answered."""

    code: int
    out: str
    err: str


def command(*words: object) -> Answer:
    """Run ``python -m netdepth`` in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["netdepth", *map(str, words)])
        patch.setenv("COLUMNS", "100")
        with pytest.raises(SystemExit) as stopped:
            runpy.run_module("netdepth", run_name="__main__")
    return Answer(int(stopped.value.code or 0), out.getvalue(), err.getvalue())


def failing(root: Path) -> subprocess.Popen[bytes]:
    """A process that leaves a failed run under ``root``; one of its own, as it registers a component."""
    root.mkdir(parents=True)
    own = root / "own.py"
    own.write_text(FAILING)
    path = os.pathsep.join(filter(None, (str(TESTS), os.environ.get("PYTHONPATH"))))
    argv = [sys.executable, "-m", "netdepth", "train", f"{own}:run", "--runs", str(root), "--track", "none"]
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(argv, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def studies() -> tuple[StudySpec, StudySpec]:
    """A study of depth with a tuned rate, and one of ways of training with a source."""
    conditions = {"plain": {"model.shortcut": "none"}, "residual": {"model.shortcut": "identity"}}
    depth = StudySpec(
        name="deep",
        question="Does it work?",
        base=dataclasses.replace(SMALL, model=Component("mlp", {"width": 4})),
        scientific=(Axis.of_depths((2, 4)), Axis("condition", conditions)),
        seeds=(0, 1, 2),
        primary=(Primary("depth", 4, "plain"), Primary("shortcut", 4, "residual", "plain")),
        smallest_effect=0.02,
        nuisance=(Nuisance("optimizer.lr", "tuned", (1e-3, 1e-2), (7,)),),
    )
    first, second = (Component("mnist5k", {"classes": list(names)}) for names in ("01234", "56789"))
    small = Component("mlp", {"hidden": [4]})
    begin = {"start_from.run": SOURCE, "start_from.freeze": ["layer1"], "objective": "cross-entropy"}
    ways = StudySpec(
        name="ways",
        question="Which way?",
        base=RunConfig(second, small, train=SHORT),
        source=RunConfig(first, small, train=SHORT, seed=4),
        scientific=(
            Axis("depth", {"2": {"model.hidden": [4]}}),
            Axis("condition", {"scratch": {"start_from": None}, "head": begin}),
        ),
        seeds=(0, 1),
        primary=(Primary("condition", 2, "head", "scratch"),),
        smallest_effect=0.01,
    )
    return depth, ways


@dataclasses.dataclass(frozen=True)
class Made:
    """Run folders and study folders that were made, and how the command line ended."""

    root: Path
    runs: Mapping[str, Path]
    studies: Mapping[str, Path]
    codes: Mapping[str, int]
    attributes: Mapping[str, list[str]]

    def forms(self) -> dict[str, Any]:
        """The form of every file, and which kinds of file each run and study has."""
        inside = [path.parent for study in self.studies.values() for path in sorted(study.glob("*/config.json"))]
        pages = {
            name: {
                path.name: contents(path) for path in sorted(study.iterdir()) if path.is_file() and path.name[0] != "."
            }
            for name, study in self.studies.items()
        }
        names = sorted({name for page in pages.values() for name in page})
        return {
            "run": files_of([*self.runs.values(), *inside], tensors=False),
            "tensors": {name: files_of([run], tensors=True) for name, run in self.runs.items()},
            "study": {name: merged(page[name] for page in pages.values() if name in page) for name in names},
            "files": {
                **{name: sorted({*files_of([run], False), *files_of([run], True)}) for name, run in self.runs.items()},
                **{name: sorted(page) for name, page in pages.items()},
            },
        }


def make(root: Path) -> Made:
    """Short runs of every kind, two studies with their pages, and a failed run."""
    other = failing(root / "failing")
    runtime = Runtime(device="cpu", threads=1, runs_root=root)
    train = functools.partial(nd.train, runtime=runtime, progress=False)
    watched = dataclasses.replace(SHORT, early_stopping=EarlyStopping(), overfitting=Overfitting())
    stacked = train(dataclasses.replace(SMALL, train=watched), seeds=[0, 1])
    runs = {"stacked": stacked[0]}
    small_conv = Component("resnet", {"width": 4, "depth": 8})
    runs["convolutional"] = train(
        dataclasses.replace(SMALL, model=small_conv, augmentation=Component("crop-flip"), optimizer=Component("sgd"))
    )
    start = StartFrom(str(stacked[1].path), freeze=("layer1",), unfreeze_every="3it", lr_scale={"layer2": 0.5})
    runs["fine-tuned"] = train(dataclasses.replace(SMALL, start_from=start))
    runs["distilled"] = train(
        dataclasses.replace(SMALL, objective=Component("distill", {"teacher": str(stacked[1].path)}))
    )
    runs["diverged"] = train(dataclasses.replace(SMALL, optimizer=Component("sgd", {"lr": 1e30})))
    assert all(run.figure for run in runs.values()), "drawn when asked for"
    folders = {name: run.path for name, run in runs.items()}
    made = [nd.study(spec, runtime=runtime, workers=0, progress=False) for spec in studies()]
    for study in made:
        study.report()

    codes = {"a run that fails": other.wait()}
    (folders["failed"],) = (path.parent for path in root.glob("failing/*/*/failure.json"))
    attributes = {
        type(thing).__name__: sorted(name for name in dir(thing) if not name.startswith("_"))
        for thing in (stacked[0], made[0])
    }
    return Made(root, folders, {study.path.name: study.path for study in made}, codes, attributes)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    root = tmp_path_factory.mktemp("frozen")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(root / "cache"))
        yield make(root / "runs")


@pytest.mark.parametrize("part", ["run", "tensors", "study", "files"])
def test_the_form_of_files(made: Made, part: str) -> None:
    assert same(made.forms()[part], frozen()["forms"][part]) == []


def test_what_a_run_and_a_study_offer(made: Made) -> None:
    for name, attributes in frozen()["attributes"].items():
        assert set(attributes) - set(made.attributes[name]) == set()


# --- verdicts ---------------------------------------------------------------------------------


def wordless(verdict: Mapping[str, Any]) -> dict[str, Any]:
    """A verdict without what is told in words: every label, number, interval and run of its cells and comparisons."""
    silent = dict(verdict)
    for part in ("cells", "comparisons"):
        silent[part] = [{key: value for key, value in item.items() if key != "words"} for item in verdict[part]]
    del silent["sentences"]
    silent["warnings"] = len(verdict["warnings"])
    return silent


def published_form() -> dict[str, str]:
    return merged(form(json.loads(path.with_name("verdict.json").read_text())) for path in PUBLISHED)


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.parent.name)
def test_published_verdicts(path: Path) -> None:
    spec = from_json(StudySpec, json.loads(path.read_text())["spec"], "spec")
    before = json.loads(path.with_name("verdict.json").read_text())
    text = path.with_name("table.csv").read_text()
    table = pandas.read_csv(io.StringIO(text), dtype={axis.name: str for axis in spec.scientific})
    now = json.loads(json.dumps(access.verdict_of(table, spec)))
    assert text.partition("\n")[0].split(",") == frozen()["published"]["columns"]
    assert same(wordless(now), wordless(before)) == []
    for part in ("cells", "comparisons"):
        assert all(item["words"] for item in now[part])
    assert bool(now["sentences"]) is bool(before["sentences"])
    runs = {run["folder"] for run in json.loads(path.read_text())["runs"]}
    assert runs.issuperset(run for sentence in now["sentences"] for run in sentence["runs"])
    assert set(form(now)) <= set(frozen()["published"]["form"])


def test_the_form_of_published_verdicts() -> None:
    assert PUBLISHED
    assert same(published_form(), frozen()["published"]["form"]) == []


# --- what was stored --------------------------------------------------------------------------


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLD, tmp_path / "old", copy_function=shutil.copyfile))


def test_runs_of_an_earlier_release_load(old: Path) -> None:
    folders = sorted(path.parent.name for path in old.glob("*/*/config.json"))
    assert folders == sorted(frozen()["old"])
    for name in folders:
        run = nd.load(name, old)
        assert digest_of(run) == frozen()["old"][name]
        if run.result.get("weights_sha256"):
            assert run.model().training is False
            assert len(run.metrics()) == len((run.path / "metrics.jsonl").read_bytes().splitlines())


def digest_of(run: Any) -> list[Any]:
    """The fingerprint, the state and the weights of a stored run, and what it is configured to be."""
    fields = {key: value for key, value in run.config.items() if key not in ("schema", "fingerprint", "recipe")}
    assert kept(to_json(from_json(RunConfig, fields, "config")), fields) == []
    return [run.config["fingerprint"], run.result.get("status"), run.result.get("weights_sha256")]


def test_a_study_of_an_earlier_release_is_judged(old: Path) -> None:
    done = command("verdict", "tiny", "--runs", old, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)


# --- the command line and the API -------------------------------------------------------------

USAGE = re.compile(r"(?<![\w-])--?[a-zA-Z][\w-]*")


def commands(words: tuple[str, ...] = ()) -> dict[str, list[str]]:
    """The options of every command and action, as their usage names them."""
    text = command(*words, "--help").out
    usage, _, rest = text.partition("\n\n")
    found = {" ".join(words) or "netdepth": sorted(set(USAGE.findall(usage)))}
    inner = re.search(r"^positional arguments:\n  (COMMAND|ACTION).*\n((?:    .*\n)*)", rest, re.MULTILINE)
    for name in re.findall(r"^ {4}(\S+)", inner[2], re.MULTILINE) if inner else []:
        found.update(commands((*words, name)))
    return found


def listed() -> dict[str, Any]:
    """Every component by its kind: version, and type and default of each setting."""
    kinds = json.loads(command("list", "--json", "--verbose").out)
    return {
        kind: {
            item["name"]: {
                "version": item.get("version"),
                "settings": {s["name"]: [s["type"], s.get("default")] for s in item.get("settings", [])},
            }
            for item in items
        }
        for kind, items in kinds.items()
    }


def api() -> dict[str, Any]:
    """The parameters of every public function, and the public names of modules that stay."""
    functions: Mapping[str, Callable[..., Any]] = {name: getattr(nd, name) for name in nd.__all__ if name[0] != "_"}
    modules = {name: importlib.import_module(f"netdepth.{name}") for name in KEPT}
    return {
        "functions": {
            name: [f"{p.kind.description}: {p.name} = {p.default!r}" if p.default is not p.empty
                   else f"{p.kind.description}: {p.name}" for p in inspect.signature(function).parameters.values()]
            for name, function in functions.items()
        },
        "modules": {name: dict.fromkeys(sorted(module.__all__), True) for name, module in modules.items()},
    }  # fmt: skip


def codes() -> dict[str, int]:
    """The exit code of every kind of error."""
    classes = ("RunFailed", "BadInput", "StorageError", "Locked")
    named = {name: getattr(errors, name).exit_code for name in classes}
    interrupted = {f"Interrupted by {number}": errors.Interrupted("", number).exit_code for number in (2, 15)}
    return {**named, **interrupted, "RankLost": errors.RankLost().exit_code}


def test_commands_and_their_options() -> None:
    assert same(commands(), frozen()["commands"]) == []


def test_components_and_their_settings() -> None:
    now = listed()
    assert sorted(now) == sorted(frozen()["components"])
    for name, before in frozen()["components"].items():
        assert kept(now[name], before) == []


def test_the_public_functions_and_modules() -> None:
    now = api()
    assert now["functions"] == frozen()["api"]["functions"]
    for name, before in frozen()["api"]["modules"].items():
        assert kept(now["modules"][name], before) == []


def test_exit_codes(made: Made, tmp_path: Path) -> None:
    import filelock

    assert codes() == frozen()["codes"]
    assert made.codes == {"a run that fails": 1}
    refused = command("train", "no-such-recipe", "--runs", tmp_path)
    assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
    assert command("train", "baseline-mlp", "--runs", tmp_path, "--data", tmp_path).code == 74
    assert command("train", made.runs["diverged"] / "config.json", "--runs", made.root, "--track", "none").code == 0
    run = made.runs["convolutional"]
    with filelock.FileLock(run / ".lock"):
        again = command("train", run / "config.json", "--runs", made.root, "--track", "none", "--fresh")
    assert again.code == 75, again.err


# --- making it anew ---------------------------------------------------------------------------


def everything() -> dict[str, Any]:
    """What ``frozen.json`` holds."""
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["XDG_CACHE_HOME"] = temporary
        evidence = make(Path(temporary) / "runs")
        forms = evidence.forms()
    header = PUBLISHED[0].with_name("table.csv").read_text().partition("\n")[0]
    stored = sorted(OLD.glob("*/*/config.json"))
    return {
        "fingerprints": fingerprints(),
        "forms": forms,
        "attributes": evidence.attributes,
        "published": {"columns": header.split(","), "form": published_form()},
        "old": {path.parent.name: digest_of(nd.load(path.parent)) for path in stored},
        "commands": commands(),
        "components": listed(),
        "api": api(),
        "codes": codes(),
    }


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        raise SystemExit(__doc__)
    FROZEN.write_text(json.dumps(everything(), indent=1) + "\n")
