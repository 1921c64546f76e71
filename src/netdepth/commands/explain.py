"""The command ``explain``: where a network looks, and whether that matters."""

from __future__ import annotations

import argparse
import textwrap

from netdepth.commands.answer import Answer, runtime_of
from netdepth.text import printable

__all__ = ["explain"]

SHOWN_NOTES = 5


def explain(args: argparse.Namespace) -> Answer:
    """Class activation maps of a run or of published weights: contact sheet, mean maps, deletion check."""
    from netdepth.tools import explain as api

    found = api.explain(
        args.run,
        images=args.images,
        classes=args.classes,
        count=args.count,
        out=args.out,
        names=args.names,
        invert=args.invert,
        runtime=runtime_of(args),
    )

    def show() -> None:
        print(textwrap.fill(printable(found.words), width=100))
        for note in found.notes[:SHOWN_NOTES]:
            print(printable(f"note: {note}"))
        if len(found.notes) > SHOWN_NOTES:
            print(f"note: and {len(found.notes) - SHOWN_NOTES} more such")
        for name, path in found.figures.items():
            print(printable(f"{name}: {path}"))
        print(printable(f"numbers: {found.file}"))

    paths = {"figures": {name: str(path) for name, path in found.figures.items()}, "file": str(found.file)}
    return Answer({**found.numbers, **paths, "notes": found.notes}, show)
