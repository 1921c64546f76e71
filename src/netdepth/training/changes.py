"""In what a config differs from a recipe: what a run is called by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from netdepth.config import RunConfig, Settings, to_json
from netdepth.training.resolve import COMPONENTS

__all__ = ["changes"]


def changes(config: RunConfig, base: RunConfig) -> Settings:
    """The settings in which ``config`` differs from ``base``, by path, as ``--set`` takes them.

    Of another component than that of ``base``: its name, and what differs from its own defaults.
    """
    found: dict[str, Any] = {}
    for part, registry in COMPONENTS.items():
        own, before = registry.resolve(getattr(config, part)), registry.resolve(getattr(base, part))
        known = dict(before.args)
        if own.name != before.name:
            found[part] = own.name
            known = {setting.name: setting.default for setting in registry.entry(own.name).fields}
        _differ(to_json(own.args), to_json(known), part, found)
    for rest in ("train", "start_from"):
        _differ(to_json(getattr(config, rest)) or {}, to_json(getattr(base, rest)) or {}, rest, found)
    return found


def _differ(own: Mapping[str, Any], before: Mapping[str, Any], path: str, found: dict[str, Any]) -> None:
    """Add to ``found`` the values of ``own`` that are others than those of ``before``."""
    for key, value in own.items():
        other = before.get(key)
        if isinstance(value, Mapping) and isinstance(other, Mapping):
            _differ(value, other, f"{path}.{key}", found)
        elif value != other:
            found[f"{path}.{key}"] = value
