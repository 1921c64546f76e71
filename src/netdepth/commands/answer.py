"""What every command answers with."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from netdepth.config import Runtime
from netdepth.text import printable

__all__ = ["Answer", "given", "runtime_of", "say", "warn"]


@dataclass(frozen=True)
class Answer:
    """``document`` for ``--json``, ``show`` for a person, the exit ``code``."""

    document: dict[str, Any]
    show: Callable[[], None]
    code: int = 0


def say(*lines: object) -> None:
    """Print each line with control characters escaped."""
    for line in lines:
        print(printable(line))


def warn(text: str) -> None:
    """Print a warning on stderr."""
    print(printable(f"netdepth: warning: {text}"), file=sys.stderr)


def given(args: argparse.Namespace, *names: str) -> dict[str, Any]:
    """The options ``names``, which the API calls the same."""
    return {name: getattr(args, name) for name in names}


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
