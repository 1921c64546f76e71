"""What can be used, and what works on this machine: ``list``, ``data``, ``check``, ``doctor``."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import importlib.util
import inspect
import json
import platform
import tempfile
import timeit
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from netdepth.commands import Answer, runtime_of, say
from netdepth.commands.settings import default_of, list_settings
from netdepth.config import Json, RunConfig, Runtime, to_json, type_name
from netdepth.errors import NetdepthError
from netdepth.registry import REGISTRIES, Entry, registry_of
from netdepth.runs.folder import runs_root
from netdepth.runs.table import describe_component
from netdepth.studyspec import DEPTH, StudySpec
from netdepth.text import duration, print_table, thousands

__all__ = ["check", "data_fetch", "data_list", "data_verify", "doctor", "list_components"]


def list_components(args: argparse.Namespace) -> Answer:
    """Names and summaries of one kind or all; with -v every setting. Every path of ``--set`` for "settings"."""
    if args.kind == "settings":
        return list_settings()
    found: dict[str, list[Entry[Any]]] = {}
    for kind in [args.kind] if args.kind else [f"{kind}s" for kind in REGISTRIES]:
        registry = registry_of(kind.removesuffix("s"))
        found[kind] = [registry.entry(name) for name in registry.names()]

    def show() -> None:
        for kind, entries in found.items():
            if not args.verbose:
                print_table((kind, ""), [[one.name + " (study)" * _is_study(one), one.summary] for one in entries])
            for entry in entries if args.verbose else ():
                say(f"{entry.name} (version {entry.version})")
                say(*(f"    {line}" for line in (inspect.getdoc(entry.function) or "").splitlines()))
                if entry.fields:
                    rows = [[s.name, type_name(s.type), json.dumps(default_of(s)), s.meaning] for s in entry.fields]
                    print_table(("setting", "type", "default", "meaning"), rows, spare=(1,))
                elif kind == "recipes":
                    for key, value in _settings(entry.function()).items():
                        say(f"    {key:<10} {describe_component(value) or json.dumps(value)}")
                print()

    return Answer({kind: [_component(kind, entry) for entry in entries] for kind, entries in found.items()}, show)


def _component(kind: str, entry: Entry[Any]) -> Mapping[str, Json]:
    """What ``--json`` says of a component."""
    return {
        "name": entry.name,
        **({"study": _is_study(entry)} if kind == "recipes" else {}),
        "version": entry.version,
        "summary": entry.summary,
        "settings": [
            {"name": s.name, "type": type_name(s.type), "default": default_of(s), "meaning": s.meaning}
            for s in entry.fields
        ],
    }


def _is_study(entry: Entry[Any]) -> bool:
    """Whether a recipe says that it returns a study."""
    return entry.function.__annotations__.get("return") in (StudySpec, StudySpec.__name__)


def _settings(made: RunConfig | StudySpec) -> Mapping[str, Json]:
    """What a recipe returned, key by key; a study by what is varied in it and the config it varies."""
    if not isinstance(made, StudySpec):
        return dict(to_json(made))
    levels = [int(level) if made.factor == DEPTH else level for level in made.levels]
    keys = ("conditions", "seeds", "smallest_effect")
    return {
        "question": made.question,
        **({} if made.factor is None else {f"{made.factor}s": levels}),
        **{key: getattr(made, key) for key in keys},
        "primary": f"{len(made.primary)} planned comparisons",
        **to_json(made.base.with_seed(made.seeds[0])),
    }


def data_list(args: argparse.Namespace) -> Answer:
    """Every data set and where it is."""
    from netdepth.data.manage import list_datasets

    found = list_datasets(args.data)

    def show() -> None:
        cells = [
            [row.name, row.title, " / ".join(thousands(count) for count in row.sizes.values()), row.where, row.licence]
            for row in found
        ]
        print_table(("name", "title", "train / val / test", "where", "licence"), cells, spare=(4, 1))
        for row in found if args.verbose else ():
            if row.digests:
                say(f"{row.name}: into {row.cache}, or into DIR/{row.name} with --data DIR; sha256 {row.measured}")
                say(*(f"    {name}  sha256 {sha256}" for name, sha256 in row.digests.items()))
                say(*(f"    from {mirror}/" for mirror in row.mirrors))

    return Answer({"datasets": [dataclasses.asdict(row) for row in found]}, show)


def data_fetch(args: argparse.Namespace) -> Answer:
    """Download what is missing, verified."""
    from netdepth.data.manage import fetch

    places = {name: fetch(name, args.data) for name in args.names}

    def show() -> None:
        say(*(f"{name}: {'comes with the package' if path is None else path}" for name, path in places.items()))

    return Answer({"datasets": places}, show)


def data_verify(args: argparse.Namespace) -> Answer:
    """Digests of the files that are here; exit 1 if one is wrong or missing."""
    from netdepth.data.manage import verify

    rows = {name: verify(name, args.data) for name in args.names}
    bad = any(row.status != "ok" for found in rows.values() for row in found)

    def show() -> None:
        cells = [
            [name, row.file, row.status, row.path or "", row.message] for name, found in rows.items() for row in found
        ]
        print_table(("name", "file", "state", "path", ""), cells)

    return Answer({name: [dataclasses.asdict(row) for row in found] for name, found in rows.items()}, show, int(bad))


def doctor(args: argparse.Namespace) -> Answer:
    """What works here; exit 1 if training cannot."""
    checks = examine(runtime_of(args))
    bad = any(check.state == "bad" for check in checks)

    def show() -> None:
        print_table(("", "state", "found"), [[check.what, check.state, check.found] for check in checks])

    return Answer({"checks": [dataclasses.asdict(check) for check in checks]}, show, int(bad))


def check(args: argparse.Namespace) -> Answer:
    """The conformance suites over what a user's file registers."""
    from netdepth.conformance import check_file

    findings = check_file(args.file, args.data)
    broken = [finding for finding in findings if not finding.kept]

    def show() -> None:
        rows = [(f"{f.kind} {f.name}", f.promise, "ok" if f.kept else "FAILED", f.detail) for f in findings]
        print_table(("component", "requirement", "", "seen"), rows)
        say(f"{args.file}: {len(findings) - len(broken)} of {len(findings)} checks passed")

    return Answer({"findings": [dataclasses.asdict(f) for f in findings]}, show, 1 if broken else 0)


# --- doctor ---


@dataclass(frozen=True)
class Check:
    """One thing looked at: ``ok``, ``missing`` (something works less) or ``bad`` (training cannot work)."""

    what: str
    state: Literal["ok", "missing", "bad"]
    found: str


def examine(runtime: Runtime) -> list[Check]:
    """Versions, device, threads, trackers, data, and whether cache and runs folder can be written."""
    from netdepth.data.fetch import user_cache
    from netdepth.trackers import TRACKERS

    packages = [TRACKERS.entry(name).package for name in TRACKERS.names()]
    return [
        *_machine(runtime),
        *(_tracker(package) for package in packages if package is not None),
        *_data(runtime),
        _writable("runs folder", runs_root(runtime.runs_root)),
        _writable("data cache", user_cache()),
    ]


def _machine(runtime: Runtime) -> list[Check]:
    import torch

    from netdepth import __version__
    from netdepth.training.process import ONE_THREAD_BELOW, configure, environment

    versions = f"netdepth {__version__}, Python {platform.python_version()}, torch {torch.__version__}"
    checks = [Check("versions", "ok", versions)]
    try:
        found = environment(configure(runtime, ONE_THREAD_BELOW), seeds=(0,))
    except NetdepthError as error:
        return [*checks, Check("device", "bad", str(error))]
    few = "" if runtime.threads else ", 1 for small networks"
    threads = f"{found.threads} of {found.cores} cores{few}; matrix products by {found.matmul}"
    same = found.deterministic
    bits = "the same seed on this machine gives the same bits" if same else "the same seed may give other bits here"
    return [
        *checks,
        Check("device", "ok", f"{found.device} ({found.device_name or found.cpu})"),
        Check("threads", "ok", threads),
        Check("cost", "ok", f"an epoch of the baseline on MNIST takes about {duration(_baseline_epoch())}"),
        Check("repeatable", "ok" if same else "missing", bits),
    ]


def _baseline_epoch() -> float:
    """Seconds for 860 steps of the baseline's network at batch 64, from the fastest of three short trials."""
    import torch

    from netdepth import models, recipes
    from netdepth.training.gradients import choose_gradients
    from netdepth.training.objectives import CrossEntropy
    from netdepth.training.optim import OPTIMIZERS
    from netdepth.training.stack import Stack

    _, config = recipes.resolve("baseline-mlp")
    stack = Stack([models.build(config.model, (1, 28, 28), 10)])
    gradients = choose_gradients(stack, CrossEntropy(0.0))
    optimizer = OPTIMIZERS.build(config.optimizer, stack.flat)
    images, labels = torch.randint(0, 256, (64, 1, 28, 28), dtype=torch.uint8), torch.arange(64) % 10

    def step() -> None:
        gradients(images, labels)
        optimizer.step(1e-3)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as a run of this size does
    seconds = min(timeit.repeat(step, repeat=3, number=40)) / 40
    torch.set_num_threads(threads)
    return 860 * seconds


def _tracker(package: str) -> Check:
    if importlib.util.find_spec(package) is None:
        return Check(package, "missing", f"not installed; training works without it: pip install {package}")
    return Check(package, "ok", f"version {importlib.metadata.version(package)}")


def _data(runtime: Runtime) -> list[Check]:
    from netdepth.data.manage import list_datasets

    checks = []
    for row in list_datasets(runtime.data_dir):
        here = row.where != "not here" and " of " not in row.where
        hint = "" if here else f"; get it with: netdepth data fetch {row.name}"
        checks.append(Check(f"data {row.name}", "ok" if here else "missing", row.where + hint))
    return checks


def _writable(what: str, path: Path) -> Check:
    """Try a file in ``path``, or in the nearest folder above it that exists; it is gone afterwards."""
    folder = path.absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return Check(what, "bad", f"cannot write {folder}: {error.strerror or error}")
    return Check(what, "ok", f"{path} ({'writable' if folder == path.absolute() else 'can be made'})")
