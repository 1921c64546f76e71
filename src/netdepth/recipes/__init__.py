"""Recipes: named functions that return a `RunConfig`; a saved ``config.json`` is one as well."""

from netdepth.recipes import mlp as _mlp  # noqa: F401  (registers its recipes)
from netdepth.recipes.base import RECIPES
from netdepth.recipes.resolve import import_user, resolve

__all__ = ["RECIPES", "import_user", "resolve"]
