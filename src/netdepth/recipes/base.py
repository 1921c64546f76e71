"""The registry of recipes, in a file of its own so that recipe files can import it."""

from __future__ import annotations

from netdepth.config import RunConfig
from netdepth.registry import Registry

__all__ = ["RECIPES"]

RECIPES: Registry[RunConfig] = Registry("recipe")
