"""What a person types, as configs and seeds: ``--set path=value`` and ``--seeds``. Standard library only."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from typing import Any

from netdepth.config import MAX_SEED, RunConfig, from_json, require, to_json
from netdepth.errors import BadInput, choose

__all__ = ["apply_overrides", "dataset_overrides", "parse_seeds"]


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


def dataset_overrides(text: str | None) -> list[str]:
    """``--dataset NAME`` as texts for `apply_overrides`; ``NAME:PATH`` sets ``dataset.path`` too, made absolute.

    Raises:
        BadInput: no path behind the colon.
    """
    if text is None:
        return []
    name, colon, path = text.partition(":")
    if colon and not path:
        raise BadInput(f"--dataset {text!r} names no folder; write {name}:PATH")
    where = [f"dataset.path={json.dumps(os.path.abspath(os.path.expanduser(path)))}"] if colon else []
    return [f"dataset={name}", *where]


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
        if path == "seed":
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
    choose(head, data, "--set path:")
    target = data[head]
    if head == "train" and rest:
        key, _, leaf = rest.partition(".")
        choose(key, target, "--set path: train.")
        if not leaf:
            target[key] = value
            return
        if key not in ("early_stopping", "overfitting"):
            raise BadInput(f"--set {path}: train.{key} has no settings of its own; write train.{key}=value")
        target[key] = {**(target[key] or {}), leaf: value}
    elif head == "start_from":
        if rest:
            key, dot, stage = rest.partition(".")  # start_from.lr_scale.stage1=0.1
            if dot and key != "lr_scale":
                raise BadInput(
                    f"--set {path}: start_from.{key} has no settings of its own; write start_from.{key}=value"
                )
            start = dict(target or {})
            held = start.get(key)
            start[key] = {**(held if isinstance(held, dict) else {}), stage: value} if dot else value
            data[head] = start
        elif value is None or isinstance(value, dict):
            data[head] = value
        elif isinstance(value, str):
            data[head] = {**(target or {}), "run": value, "sha256": None}
        else:
            raise BadInput(f"--set start_from={value!r} is not acceptable; it takes a run, an object or null")
    elif head != "train" and rest:
        target["args"] = {**target["args"], rest: value}
        target["version"] = None
    elif head != "train" and isinstance(value, str):
        if target["name"] != value:
            if target["args"]:
                dropped = ", ".join(f"{key}={item!r}" for key, item in sorted(target["args"].items()))
                notes.append(f"{head} {target['name']} -> {value}: dropped {dropped}")
            data[head] = {"name": value, "args": {}, "version": None}
    elif isinstance(value, dict):
        data[head] = value
    else:
        raise BadInput(f"--set {path}={value!r} is not acceptable; it takes a name or an object")
