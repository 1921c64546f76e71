"""The registry of recipes, in a file of its own so that recipe files can import it."""

from __future__ import annotations

from typing import Any

from netdepth.registry import Registry

__all__ = ["RECIPES"]

RECIPES: Registry[Any] = Registry("recipe")
"""Functions that return a `RunConfig` or a `StudySpec`; who calls one checks which (`resolve`)."""
