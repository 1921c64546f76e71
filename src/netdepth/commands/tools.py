"""Commands that look at finished runs or carry their networks elsewhere: each is one call of `netdepth.tools`."""

from __future__ import annotations

import argparse
import dataclasses
import textwrap

from netdepth.commands import Answer, runtime_of, say, warn
from netdepth.errors import BadInput, StorageError
from netdepth.text import number, percent, print_table, printable, scientific, size, thousands

__all__ = ["convert", "explain", "export", "inspect", "landscape", "predict", "probe"]

SHOWN_NOTES = 5


def inspect(args: argparse.Namespace) -> Answer:
    """Model table, gradients and activations per layer, as a picture and in words."""
    from netdepth.tools.inspect import inspect
    from netdepth.tools.inspect.statistics import print_statistics

    seen = inspect(args.run, data_dir=args.data, runs_dir=args.runs_root)

    def show() -> None:
        print_statistics(seen.title, seen.description.layers, seen.statistics)
        print(textwrap.fill(printable(seen.words), width=100))
        say(*(f"note: {note}" for note in seen.notes))
        if seen.figure is not None:
            say(f"picture: {seen.figure}")

    return Answer(seen.as_json(), show)


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
        out=args.out,
        curvature=not args.no_curvature,
        data_dir=args.data,
        runs_dir=args.runs_root,
        runtime=runtime_of(args),
    )

    def show() -> None:
        print(textwrap.fill(printable(seen.words), 110, break_on_hyphens=False))
        say(*(f"numbers: {file}" for file in seen.files), f"picture: {seen.figure}")

    document = {"records": seen.records, "words": seen.words, "files": list(seen.files), "figure": seen.figure}
    return Answer(document, show)


def probe(args: argparse.Namespace) -> Answer:
    """kNN, a linear SVM and logistic regression on frozen features: table, sentences, picture."""
    from netdepth.tools import linear_probe as api
    from netdepth.tools.linear_probe.page import print_result

    if args.images is not None and args.all_images:
        raise BadInput(f"--images {args.images} and --all-images are both given; use one of them")
    found = api.probe(
        args.run,
        dataset=args.dataset,
        overrides=args.overrides,
        weights=args.weights,
        fresh=args.fresh,
        images=None if args.all_images else args.images or api.IMAGES,
        data_dir=args.data,
        runs_dir=args.runs_root,
        threads=args.threads or 1,
    )
    notes = ["found there already, computed before"] if found.cached else []
    try:
        figure = found.figure
    except StorageError as error:
        figure = None
        notes.append(f"no picture: {error}")

    def show() -> None:
        print_result(found.result)
        say(*found.sentences, *(f"note: {note}" for note in notes), f"kept in: {found.path}")
        if figure is not None:
            say(f"picture: {figure}")

    document = {**found.document, "folder": found.path, "sentences": found.sentences, "figure": figure, "notes": notes}
    return Answer(document, show)


def predict(args: argparse.Namespace) -> Answer:
    """Labels for pictures, or the values that a run has learned."""
    from netdepth.tools import predict as tool

    predictions = tool.predict(tool.open_network(args.run, args.runs_root, args.names), args.images, invert=args.invert)

    def show() -> None:
        rows = []
        valued = bool(predictions and predictions[0].values)
        for one in predictions:
            others = ", ".join(f"{name} {percent(share)}" for name, share in one.probabilities[1:3])
            note = "; ".join(filter(None, ("see the warning" if one.warning else "", one.note)))
            shown = [number(value) for _, value in one.values]
            rows.append([one.path, *(shown or [one.label, percent(one.probabilities[0][1]), others]), note])
        if valued:
            names = [name for name, _ in predictions[0].values]
            print_table(("picture", *map(printable, names), "note"), rows, right=range(1, len(names) + 1))
        else:
            print_table(("picture", "label", "probability", "next", "note"), rows, right=(2,), spare=(3,))
        warned = [one for one in predictions if one.warning]
        for one in warned[:SHOWN_NOTES]:
            warn(f"{one.path}: {one.warning}")
        if len(warned) > SHOWN_NOTES:
            warn(f"and {len(warned) - SHOWN_NOTES} more of {len(predictions)} pictures")

    told = [dataclasses.asdict(one) for one in predictions]
    for document in told:
        if not document["values"]:
            del document["values"]
    return Answer({"predictions": told}, show)


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
        say(*(f"note: {note}" for note in found.notes[:SHOWN_NOTES]))
        if len(found.notes) > SHOWN_NOTES:
            print(f"note: and {len(found.notes) - SHOWN_NOTES} more such")
        say(*(f"{name}: {path}" for name, path in found.figures.items()), f"numbers: {found.file}")

    paths = {"figures": {name: str(path) for name, path in found.figures.items()}, "file": str(found.file)}
    return Answer({**found.numbers, **paths, "notes": found.notes}, show)


def export(args: argparse.Namespace) -> Answer:
    """An ONNX or safetensors file that was checked against the network, and its model card."""
    from netdepth.tools.export import export

    made = export(args.run, to=args.to, out=args.out, weights=args.weights, data_dir=args.data, runs_dir=args.runs_root)

    def show() -> None:
        parity = made.parity
        say(f"{made.file}: {size(made.bytes)}, sha256 {made.sha256}")
        print(
            f"the same network on {thousands(parity.images)} images: logits to {scientific(parity.logit)} of the "
            f"largest, probabilities to {scientific(parity.probability)}, "
            f"the same class {thousands(parity.same_class)} times"
        )
        say(f"model card: {made.card}")

    return Answer(dataclasses.asdict(made), show)


def convert(args: argparse.Namespace) -> Answer:
    """Weights from a pickle into safetensors, read where nothing in them can run."""
    from netdepth.tools.convert import convert

    made = convert(args.file, args.out, skip=args.skip, normalization=args.normalization)

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
        say(*lines)

    return Answer(dataclasses.asdict(made), show)
