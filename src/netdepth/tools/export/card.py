"""A model card: what a network is, its data, its accuracy and how to load it (the template ``card.md``)."""

from __future__ import annotations

import json

import netdepth
from netdepth.data import DatasetSpec
from netdepth.data.fetch import SOURCES
from netdepth.runs import METRICS, Part
from netdepth.text import plain, thousands
from netdepth.tools.export.formats import TOLERANCE, Parity
from netdepth.training.finished import Run, Weights

__all__ = ["model_card"]

PARTS: dict[Part, str] = {"train": "training", "val": "validation", "test": "test"}


def model_card(
    run: Run, weights: Weights, spec: DatasetSpec, *, file: str, to: str, file_sha256: str, parity: Parity,
    checked_on: str,
) -> str:  # fmt: skip
    """The card of the ``weights`` of ``run``, trained on the data of ``spec``, in Markdown.

    Args:
        file, to, file_sha256: the exported file's name, format and digest.
        parity, checked_on: how well the file agrees with the network, on images of which part.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    config = {key: value for key, value in run.config.items() if key != "schema"}
    metrics = []
    for part, words in PARTS.items():
        scores = (run.result.get(part) or {}).get(weights.which)
        if scores is not None:
            cells = [plain(scores[key]) for key in METRICS]
            metrics.append([words, thousands(spec.sizes[part]), *cells])
    environment = Environment(
        loader=PackageLoader("netdepth.tools.export", ""), undefined=StrictUndefined, autoescape=False,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    return environment.get_template("card.md").render(
        name=run.path.resolve().name,
        version=netdepth.__version__,
        config=config,
        config_text=json.dumps(config, indent=1),
        result=run.result,
        weights=weights,
        spec=spec,
        sizes=[f"{thousands(spec.sizes[part])} {words}" for part, words in PARTS.items() if spec.sizes.get(part)],
        source=SOURCES.get(spec.name),
        shape=", ".join(map(str, spec.input_shape)),
        metrics=metrics,
        file=file,
        to=to,
        file_sha256=file_sha256,
        parity=parity,
        tolerance=TOLERANCE,
        checked_on=checked_on,
    )
