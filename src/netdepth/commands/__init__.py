"""What each command does: it works, and answers with a JSON document and a way to show it to a person."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable

from netdepth.commands.answer import Answer

__all__ = ["Answer", "command"]

MODULES = {
    "train": ("train",),
    "study": ("quickstart", "study"),
    "report": ("report", "verdict"),
    "runs": ("board", "compare", "runs_gc", "runs_list", "runs_rm", "sync"),
    "tools": ("convert", "explain", "export", "inspect", "landscape", "predict", "probe"),
    "catalogue": ("check", "data_fetch", "data_list", "data_verify", "doctor", "list_components"),
}
"""The commands by the module of this package that has them. Only the module of the command that runs is imported."""


def command(name: str) -> Callable[[argparse.Namespace], Answer]:
    """The function of the command ``name``."""
    module = next(module for module, names in MODULES.items() if name in names)
    function: Callable[[argparse.Namespace], Answer] = getattr(
        importlib.import_module(f"netdepth.commands.{module}"), name
    )
    return function
