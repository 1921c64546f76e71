"""What a person types, as configs and seeds: ``--set path=value``, ``--lr`` and the like, ``--seeds``.

Standard library only.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from netdepth.config import MAX_SEED, Component, RunConfig, TrainConfig, from_json, require, to_json
from netdepth.errors import BadInput, choose

__all__ = ["COMMON", "apply_overrides", "common_overrides", "dataset_overrides", "parse_seeds"]

TRAIN = tuple(field.name for field in dataclasses.fields(TrainConfig))
WITH_SETTINGS = ("early_stopping", "overfitting", "lr_scale")
"""What of ``train`` and ``start_from`` has settings of its own."""

COMMON = {
    "optimizer": "optimizer", "lr": "optimizer.lr", "epochs": "train.budget", "batch_size": "train.batch_size",
    "width": "model.width", "depth": "model.depth",
}  # fmt: skip
"""Settings that have an option of their own, ``--lr`` and so on, by its name; ``--epochs 5`` is ``5ep``."""

MEANT = {
    **COMMON, "learning_rate": "optimizer.lr", "weight_decay": "optimizer.weight_decay",
    "momentum": "optimizer.momentum", "budget": "train.budget", "batch": "train.batch_size",
    "precision": "train.precision", "patience": "train.early_stopping.patience", "hidden": "model.hidden",
    "activation": "model.activation", "dropout": "model.dropout", "init": "model.init", "val_size": "dataset.val_size",
    "label_smoothing": "objective.label_smoothing", "class_weights": "objective.class_weights",
}  # fmt: skip
"""Where a setting stands that people look for under its last name, or under another."""


def parse_seeds(text: str) -> tuple[int, ...]:
    """``"5"`` is five seeds 0..4, ``"0,3,7"`` is those three, ``"7,"`` is seed 7 alone.

    Raises:
        BadInput: anything else, a repeated seed, or more than 10,000 seeds.
    """
    good = "a count such as 5 (seeds 0 to 4) or a list such as 0,3,7"
    if not re.fullmatch(r"\d{1,19}(,\d{1,19})*,?", text, re.ASCII):
        raise BadInput(f"--seeds {text!r} is not acceptable; it takes {good}")
    if "," not in text:
        require(1 <= int(text) <= 10_000, "--seeds", text, f"{good}, at most 10000")
        return tuple(range(int(text)))
    seeds = tuple(int(part) for part in text.split(",") if part)
    require(len(set(seeds)) == len(seeds), "--seeds", text, "each seed once")
    require(max(seeds) <= MAX_SEED, "--seeds", text, f"seeds up to {MAX_SEED}")
    return seeds


def dataset_overrides(text: str | Component | None) -> list[str]:
    """``--dataset NAME`` as texts for `apply_overrides`; ``NAME:PATH`` sets ``dataset.path`` too, made absolute.
    A component, such as that of `netdepth.dataset`, is taken as it is.

    Raises:
        BadInput: no path behind the colon.
    """
    if text is None:
        return []
    if isinstance(text, Component):
        return [f"dataset={json.dumps(to_json(text))}"]
    name, colon, path = text.partition(":")
    if colon and not path:
        raise BadInput(f"--dataset {text!r} names no file or folder; write {name}:PATH")
    where = [f"dataset.path={json.dumps(os.path.abspath(os.path.expanduser(path)))}"] if colon else []
    return [f"dataset={name}", *where]


def common_overrides(given: Mapping[str, object], overrides: Iterable[str]) -> list[str]:
    """``overrides`` with the settings ``given`` by the names of `COMMON` (None: not given), as `apply_overrides` takes
    them. The optimizer comes first, because its name drops settings; the others last, for the model they belong to.

    Raises:
        BadInput: a setting is given in both ways.
    """
    texts = list(overrides)
    first: list[str] = []
    last: list[str] = []
    for name, path in COMMON.items():
        value = given.get(name)
        if value is None:
            continue
        option = f"--{name.replace('_', '-')}"
        twice = next((text for text in texts if text.partition("=")[0] == path), None)
        if twice is not None:
            raise BadInput(f"{option} {value} and --set {twice} are both given; use one of them")
        (first if path == name else last).append(f"{path}={value}ep" if name == "epochs" else f"{path}={value}")
    return [*first, *texts, *last]


def apply_overrides(config: RunConfig, overrides: Iterable[str]) -> tuple[RunConfig, list[str]]:
    """Apply ``--set`` texts such as ``model.width=64`` or ``optimizer=sgd``, in order.

    V is read as JSON, else taken as text. Replacing a component by name drops its settings.

    Returns:
        The new config, and one announcement per component that lost settings.

    Raises:
        BadInput: no ``=``, an unknown path, a value of the wrong type.
    """
    data = to_json(config)
    notes: list[str] = []
    for text in overrides:
        path, equals, raw = text.partition("=")
        if not equals or not path:
            raise BadInput(f"--set {text!r} is not acceptable; write it as path=value, e.g. model.width=64")
        if path.partition(".")[0] == "seed":
            raise BadInput("--set seed=... is not acceptable; use --seed or --seeds")
        _assign(data, path, _value(raw), notes)
    return from_json(RunConfig, data, "config"), notes


def _value(raw: str) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return raw


def _assign(data: dict[str, Any], path: str, value: Any, notes: list[str]) -> None:
    head, _, rest = path.partition(".")
    unknown = head not in data or (head == "train" and rest and rest.partition(".")[0] not in TRAIN)
    if unknown and (meant := MEANT.get(path.rpartition(".")[2])) not in (None, path):
        example = "5ep" if meant == "train.budget" else "VALUE"
        raise BadInput(f"unknown --set path: {path!r} (did you mean {meant!r}?); write --set {meant}={example}")
    choose(head, data, "--set path:")
    target, component = data[head], head not in ("train", "start_from")
    if path in ("model.width", "model.depth"):
        target = data[head] = _without_hidden(target, rest, value, notes)
    if rest and component:
        data[head] = {**target, "args": {**target["args"], rest: value}, "version": None}
    elif rest:
        key, dot, leaf = rest.partition(".")  # train.early_stopping.patience, start_from.lr_scale.stage1
        if dot and key not in WITH_SETTINGS:
            raise BadInput(f"--set {path}: {head}.{key} has no settings of its own; write {head}.{key}=value")
        held = (target or {}).get(key)
        inner = {**(held if isinstance(held, dict) else {}), leaf: value} if dot else value
        data[head] = {**(target or {}), key: inner}
    elif isinstance(value, dict):
        data[head] = to_json(from_json(Component, value, head)) if component else value
    elif head == "start_from" and (value is None or isinstance(value, str)):
        data[head] = None if value is None else {**(target or {}), "run": value, "sha256": None}
    elif not component or not isinstance(value, str):
        raise BadInput(f"--set {path}={value!r} is not acceptable; it takes a name or an object")
    elif target["name"] != value:
        if target["args"]:
            dropped = ", ".join(f"{key}={item!r}" for key, item in sorted(target["args"].items()))
            notes.append(f"{head} {target['name']} -> {value}: dropped {dropped}")
        data[head] = {"name": value, "args": {}, "version": None}


def _without_hidden(model: dict[str, Any], name: str, value: Any, notes: list[str]) -> dict[str, Any]:
    """``model`` made ready for a ``width`` or a ``depth`` where it has a list of ``hidden`` widths instead."""
    hidden = model["args"].get("hidden")
    if not isinstance(hidden, list) or not hidden or value is None:
        return model
    instead = {"width": hidden[0] if len(set(hidden)) == 1 else None, "depth": len(hidden) + 1} | {name: value}
    if instead["width"] is None:
        raise BadInput(
            f"model.depth = {value!r} needs a width too, because model.hidden = {json.dumps(hidden)} has unequal "
            "widths; give the width first (--set model.width=VALUE, or --width)"
        )
    notes.append(f"model.hidden {json.dumps(hidden)} -> width {instead['width']}, depth {instead['depth']}")
    return {**model, "args": {**model["args"], **instead, "hidden": None}}
