"""``netdepth probe``: what a run's features are worth on a data set, beside raw pixels and chance."""

from __future__ import annotations

import argparse
from pathlib import Path

from netdepth.commands.answer import Answer
from netdepth.errors import BadInput, StorageError
from netdepth.text import printable

__all__ = ["probe"]


def probe(args: argparse.Namespace) -> Answer:
    """kNN, a linear SVM and logistic regression on frozen features: table, sentences, picture."""
    from netdepth.tools import linear_probe as api
    from netdepth.tools.linear_probe.page import print_probe

    if args.images is not None and args.all_images:
        raise BadInput(f"--images {args.images} and --all-images are both given; use one of them")
    images = None if args.all_images else args.images or api.IMAGES
    found = api.probe(
        args.run,
        dataset=args.dataset,
        overrides=args.overrides,
        weights=args.weights,
        images=images,
        data_dir=args.data,
        runs_dir=args.runs_root,
        threads=args.threads or 1,
        fresh=args.fresh,
    )
    figure: Path | None = None
    notes = ["found there already; --fresh makes it again"] if found.cached else []
    try:
        figure = found.figure
    except StorageError as error:
        notes.append(f"no picture: {error}")

    def show() -> None:
        print_probe(found.document)
        for sentence in found.sentences:
            print(printable(sentence))
        for note in notes:
            print(printable(f"note: {note}"))
        print(printable(f"kept in: {found.path}"))
        if figure is not None:
            print(printable(f"picture: {figure}"))

    document = {**found.document, "folder": found.path, "sentences": found.sentences, "figure": figure, "notes": notes}
    return Answer(document, show)
