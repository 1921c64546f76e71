"""The study that a person asks for: a recipe's, with other seeds, levels, data or settings."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from netdepth.config import Component
from netdepth.errors import BadInput, choose
from netdepth.overrides import apply_overrides, dataset_overrides, parse_seeds
from netdepth.studyspec import DEPTH, Nuisance, StudySpec
from netdepth.text import listed

__all__ = ["ask"]

TUNING_SEEDS = (1000, 1001, 1002)
TUNING_FACTORS = (0.1, 0.3, 1.0, 3.0)
"""``--tune`` tries the recipe's own value times these: half a decade apart, where depth moves the best one down."""


def ask(
    recipe: str | StudySpec,
    *,
    seeds: int | str | Sequence[int] | None = None,
    depths: str | Sequence[int] | None = None,
    levels: str | Sequence[float | str] | None = None,
    dataset: str | Component | None = None,
    overrides: Sequence[str] = (),
    tune: str | None = None,
    source: str | None = None,
    max_looks: int | str | None = None,
) -> tuple[StudySpec, list[str]]:
    """The study of ``recipe`` with the changes that the user asks for, and notes about them.

    Args:
        recipe: a name, ``file.py:function``, a ``study.json`` or a `StudySpec`.
        seeds: a count, a list, or either as the command line writes it.
        depths: other depths of a study whose factor is depth; planned comparisons at other depths are dropped.
        levels: the same for any factor: numbers or names.
        dataset: another data set for all cells.
        overrides: ``path=value`` for all cells, of settings that the study does not vary.
        tune: a setting, such as ``"lr"``, to be tuned per cell.
        source: a finished run to start from or to learn from, instead of the study's own.
        max_looks: how many times its results may be judged while seeds are added; ``"open"`` for any number.

    Raises:
        BadInput: an unknown name (with the nearest one), or a setting that cannot be changed.
    """
    from netdepth import recipes

    spec = recipe if isinstance(recipe, StudySpec) else recipes.resolve_study(recipe)
    if source is not None:
        spec = spec.with_source(source)
    texts = [*dataset_overrides(dataset), *overrides]
    for text in texts:
        _refuse_varied(spec, text)
    base, notes = apply_overrides(spec.base, texts)
    spec = dataclasses.replace(spec, base=base)
    wanted = _levels(spec, depths, levels)
    if wanted is not None:
        spec, lost = spec.with_levels(wanted)
        if lost:
            planned = len(lost) + len(spec.primary)
            notes.append(
                f"{len(lost)} of the {planned} planned comparisons cannot be made at these {spec.factor_name}s"
            )
    if seeds is not None and spec.seeds_of:
        some = f"study {spec.name!r} has seeds of its own for {listed([*spec.seeds_of])}"
        raise BadInput(f"--seeds {seeds}: {some}; change them in the study")
    if seeds is not None:
        chosen = parse_seeds(str(seeds)) if isinstance(seeds, int | str) else tuple(seeds)
        spec = dataclasses.replace(spec, seeds=chosen)
    if max_looks is not None:
        spec = dataclasses.replace(spec, max_looks=_max_looks(max_looks))
    return spec if tune is None else _tuned(spec, tune), notes


def _max_looks(given: int | str) -> int | None:
    if given == "open":
        return None
    if not re.fullmatch(r"[1-9]\d{0,2}", str(given), re.ASCII):
        raise BadInput(f"--max-looks {given} is not acceptable; it takes a number from 1, or open")
    return int(given)


def _refuse_varied(spec: StudySpec, text: str) -> None:
    path = text.partition("=")[0]
    for axis in spec.scientific:
        varied = {name for settings in axis.levels.values() for name in settings}
        if path in varied or any(path.startswith(f"{name}.") for name in varied):
            option = "depths" if axis.name == DEPTH else "levels"
            how = f"; use --{option} for other {spec.factor_name}s" if axis.name == spec.factor else ""
            raise BadInput(f"--set {text}: the study varies {path} itself (axis {axis.name!r}){how}")
    if any(item.path == path and item.how == "tuned" for item in spec.nuisance):
        raise BadInput(f"--set {text}: the study tunes {path} for every cell")


def _levels(
    spec: StudySpec, depths: str | Sequence[int] | None, levels: str | Sequence[float | str] | None
) -> Sequence[float | str] | None:
    """The levels that are asked for in either way."""
    if levels is None:
        if depths is not None and spec.factor != DEPTH:
            factor = f"compares levels of {spec.factor!r}; use --levels" if spec.factor else "compares no levels"
            raise BadInput(f"--depths {depths}: study {spec.name!r} {factor}")
        return None if depths is None else _depths(depths)
    if depths is not None:
        raise BadInput(f"--depths {depths} and --levels {levels} are both given; use one of them")
    found = [part.strip() for part in levels.split(",") if part.strip()] if isinstance(levels, str) else [*levels]
    if not found or len({*map(str, found)}) < len(found):
        raise BadInput(f"--levels {levels!r} is not acceptable; it takes levels of the study's factor, each once")
    return (
        _depths(levels if isinstance(levels, str) else [int(level) for level in found])
        if spec.factor == DEPTH
        else found
    )


def _depths(given: str | Sequence[int]) -> tuple[int, ...]:
    if isinstance(given, str) and not re.fullmatch(r"\d{1,6}(,\d{1,6})*,?", given, re.ASCII):
        raise BadInput(f"--depths {given!r} is not acceptable; it takes a list such as 2,8,24")
    found = tuple(int(part) for part in given.split(",") if part) if isinstance(given, str) else tuple(given)
    if not found or len(set(found)) < len(found) or min(found) < 1:
        raise BadInput(f"--depths {given!r} is not acceptable; it takes depths from 1, each once")
    return found


def _tuned(spec: StudySpec, what: str) -> StudySpec:
    from netdepth.training.resolve import COMPONENTS

    known = {"lr": "optimizer.lr", **{item.path.rpartition(".")[2]: item.path for item in spec.nuisance}}
    name = next((short for short, path in known.items() if what == path), what)
    path = known[choose(name, known, "setting to tune:")]
    if any(item.path == path and item.how == "tuned" for item in spec.nuisance):
        return spec
    part, _, setting = path.partition(".")
    own = COMPONENTS[part].resolve(getattr(spec.base, part)).args.get(setting) if part in COMPONENTS else None
    if not isinstance(own, int | float) or isinstance(own, bool) or own <= 0:
        raise BadInput(f"--tune {what}: {path} = {own!r} is not a number above 0; only such a setting can be tuned")
    values = tuple(float(f"{own * factor:.6g}") for factor in TUNING_FACTORS)
    others = tuple(item for item in spec.nuisance if item.path != path)
    item = Nuisance(path, how="tuned", values=values, seeds=TUNING_SEEDS)
    return dataclasses.replace(spec, nuisance=(*others, item))
