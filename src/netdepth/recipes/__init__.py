"""Recipes: named functions that return a `RunConfig` or a `StudySpec`; a saved ``config.json`` is one as well."""

from netdepth.recipes.base import RECIPES, import_user, resolve, resolve_study
from netdepth.registry import import_package_modules

__all__ = ["RECIPES", "import_user", "resolve", "resolve_study"]

import_package_modules(__name__, __path__)
