"""What every command answers with."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from netdepth.config import Runtime

__all__ = ["Answer", "runtime_of"]


@dataclass(frozen=True)
class Answer:
    """``document`` for ``--json``, ``show`` for a person, the exit ``code``."""

    document: dict[str, Any]
    show: Callable[[], None]
    code: int = 0


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
