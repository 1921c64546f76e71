"""What each command does: it works, and answers with a JSON document and a way to show it to a person."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from netdepth.config import Runtime
from netdepth.errors import BadInput, choose
from netdepth.overrides import common_overrides
from netdepth.text import printable

__all__ = ["Answer", "command", "overrides_of", "runtime_of", "say", "trackers_of", "warn"]


@dataclass(frozen=True)
class Answer:
    """``document`` for ``--json``, ``show`` for a person, the exit ``code``."""

    document: Mapping[str, object]
    show: Callable[[], None]
    code: int = 0


def say(*lines: object) -> None:
    """Print each line with control characters escaped."""
    for line in lines:
        print(printable(line))


def warn(text: str) -> None:
    """Print a warning on stderr."""
    print(printable(f"netdepth: warning: {text}"), file=sys.stderr)


def runtime_of(args: argparse.Namespace, trackers: tuple[str, ...] = ()) -> Runtime:
    return Runtime(
        device=args.device,
        threads=args.threads,
        trackers=trackers,
        wandb_online=getattr(args, "wandb_online", False),
        runs_root=args.runs_root,
        data_dir=args.data,
        imports=tuple(args.imports),
        fresh=getattr(args, "fresh", False),
        sealed=getattr(args, "sealed", False),
    )


def overrides_of(args: argparse.Namespace) -> list[str]:
    """What ``--set``, ``--lr`` and the like change."""
    return common_overrides(vars(args), args.overrides)


def trackers_of(args: argparse.Namespace) -> tuple[str, ...]:
    """The trackers that ``--track`` names.

    Raises:
        BadInput: an unknown name, or ``--wandb-online`` without a tracker that can upload.
    """
    if args.track == "none" and not args.wandb_online:
        return ()
    from netdepth.trackers import TRACKERS
    from netdepth.trackers.mirror import can_go_online

    names = dict.fromkeys(choose(name, [*TRACKERS.names(), "none"], "tracker") for name in args.track.split(","))
    if "none" in names and len(names) > 1:
        raise BadInput(f"--track {args.track}: none stands alone")
    found = tuple(name for name in names if name != "none")
    if args.wandb_online and not any(map(can_go_online, found)):
        able = " or ".join(f"--track {name}" for name in TRACKERS.names() if can_go_online(name))
        raise BadInput(f"--wandb-online needs a tracker that can upload: {able}")
    return found


MODULES = {
    "train": ("train",),
    "study": ("quickstart", "study"),
    "report": ("report", "verdict"),
    "runs": ("compare", "runs_gc", "runs_list", "runs_rm", "sync"),
    "board": ("board",),
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
