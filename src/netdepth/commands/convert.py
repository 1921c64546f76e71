"""The command ``convert``: a file of published weights into safetensors."""

from __future__ import annotations

import argparse
import dataclasses

from netdepth.commands.answer import Answer
from netdepth.text import printable, size

__all__ = ["convert"]


def convert(args: argparse.Namespace) -> Answer:
    """Weights from a pickle into safetensors, read where nothing in them can run."""
    from netdepth.tools.convert import convert

    made = convert(args.file, args.out)

    def show() -> None:
        lines = [f"{made.out}: {made.tensors} tensors, {size(made.bytes)}, {made.fits}"]
        if made.unwrapped:
            lines.append(f"taken from the entry {'.'.join(made.unwrapped)}")
        if made.stripped:
            lines.append(f"{''.join(made.stripped)} removed from the front of every name")
        if made.shared:
            lines.append(f"{made.shared} tensors that share memory with another are stored in full")
        if made.dropped:
            more = f" and {made.dropped_count - len(made.dropped)} more"
            left = ", ".join(made.dropped) + (more if made.dropped_count > len(made.dropped) else "")
            lines.append(f"left out: {left}")
        lines.append(f"made from {made.source} with sha256 {made.sha256}")
        print("\n".join(printable(line) for line in lines))

    return Answer(dataclasses.asdict(made), show)
