"""The one door from `test_frozen` to modules that may move: when they do, only the imports here change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from netdepth.config import Component, RunConfig
from netdepth.registry import Registry
from netdepth.studyspec import StudySpec


def components() -> Mapping[str, Registry[Any]]:
    """The registry of each part of a `RunConfig`."""
    from netdepth.training.resolve import COMPONENTS

    return COMPONENTS


def recipes() -> dict[str, RunConfig | StudySpec]:
    """Every registered recipe, made."""
    from netdepth.recipes import RECIPES

    return {name: RECIPES.build(Component(name)) for name in RECIPES.names()}


def resolved(config: RunConfig) -> RunConfig:
    """``config``, which names no other run, with every default filled in, for a CPU."""
    from netdepth.training.resolve import fill_in

    return fill_in(config, "cpu")


def fingerprint(config: RunConfig, data_digest: str, split_digest: str) -> str:
    """The fingerprint of a resolved ``config`` on data with these digests."""
    from netdepth.data import DatasetSpec
    from netdepth.training.resolve import fingerprint as of

    spec = DatasetSpec(
        name="made",
        title="Made",
        input_shape=(1, 28, 28),
        classes=tuple("0123456789"),
        sizes={"train": 3000, "val": 1000, "test": 1000},
        files={},
        data_digest=data_digest,
        split_digest=split_digest,
    )
    return of(config, spec)


def verdict_of(table: Any, spec: StudySpec) -> dict[str, Any]:
    """What ``verdict.json`` says of a study's table."""
    from netdepth.studies.verdict import verdict

    return verdict(table, spec).as_json()
