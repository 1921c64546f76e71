"""``netdepth landscape``: the loss around the weights of runs, side by side."""

from __future__ import annotations

import argparse
import textwrap

from netdepth.commands.answer import Answer, runtime_of
from netdepth.text import printable

__all__ = ["landscape"]


def landscape(args: argparse.Namespace) -> Answer:
    """Slices of the loss and the Hessian's extreme eigenvalues: a picture, numbers, words."""
    from netdepth.tools.landscape import landscape

    seen = landscape(
        *args.names,
        grid=args.grid,
        radius=args.radius,
        images=args.images,
        seed=args.seed,
        weights=args.weights,
        curvature=not args.no_curvature,
        out=args.out,
        data_dir=args.data,
        runs_dir=args.runs_root,
        runtime=runtime_of(args),
    )

    def show() -> None:
        print(textwrap.fill(printable(seen.words), 110, break_on_hyphens=False))
        for file in seen.files:
            print(printable(f"numbers: {file}"))
        print(printable(f"picture: {seen.figure}"))

    document = {"records": seen.records, "words": seen.words, "files": list(seen.files), "figure": seen.figure}
    return Answer(document, show)
