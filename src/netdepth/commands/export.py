"""``netdepth export``: the network of a run as a file for others."""

from __future__ import annotations

import argparse
import dataclasses

from netdepth.commands.answer import Answer
from netdepth.text import printable, size

__all__ = ["export"]


def export(args: argparse.Namespace) -> Answer:
    """An ONNX or safetensors file that was checked against the network, and its model card."""
    from netdepth.tools.export import export

    made = export(args.run, to=args.to, out=args.out, weights=args.weights, data_dir=args.data, runs_dir=args.runs_root)

    def show() -> None:
        parity = made.parity
        print(printable(f"{made.file}: {size(made.bytes)}, sha256 {made.sha256}"))
        print(
            f"the same network on {parity.images:,} images: logits to {parity.logit:.1e} of the largest, "
            f"probabilities to {parity.probability:.1e}, the same class {parity.same_class:,} times"
        )
        print(printable(f"model card: {made.card}"))

    return Answer(dataclasses.asdict(made), show)
