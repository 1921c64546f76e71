"""A model card: what a network is, its data, its accuracy and how to load it (the template ``card.md``)."""

from __future__ import annotations

import json

import netdepth
from netdepth.data import DatasetSpec
from netdepth.data.fetch import SOURCES
from netdepth.runs import METRICS, Part
from netdepth.text import plain, thousands
from netdepth.tools.common import Opened
from netdepth.tools.export.formats import TOLERANCE, Parity
from netdepth.training.finished import Run
from netdepth.training.published import Published

__all__ = ["model_card", "weights_card"]

PARTS: dict[Part, str] = {"train": "training", "val": "validation", "test": "test"}


def weights_card(weights: Published, *, file: str, to: str, parity: Parity) -> str:
    """The card of a network that was published as a file of ``weights``, in Markdown: what is known of it here."""
    shape = ", ".join(map(str, weights.model.input_shape))
    names = ", ".join(weights.classes[:20]) + (" …" if len(weights.classes) > 20 else "")
    return f"""# {weights.path.stem}

Model `{weights.component.name}` of depth {weights.model.depth} for {len(weights.classes)} classes, as {to}: `{file}`.
Made by netdepth {netdepth.__version__} from `{weights.path.name}`, sha256 `{weights.sha256}`. That file does not say on
which data it was trained, or how well it does: ask whoever published it.

- Input `pixels`: uint8 `[N, {shape}]`, 0 to 255. Do not normalise them: the network contains a normalisation.
- Output `logits`: `[N, {len(weights.classes)}]`, in the order {names}.
- Checked on {parity.images} images of noise: logits equal the network's to {parity.logit:.1e} of the largest.
"""


def model_card(
    run: Run, weights: Opened, spec: DatasetSpec, *, file: str, to: str, file_sha256: str, parity: Parity,
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
        name=weights.name,
        version=netdepth.__version__,
        config=config,
        config_text=json.dumps(config, indent=1),
        result=run.result,
        weights=weights,
        spec=spec,
        warnings=() if (split := run.dir.split()) is None else split.warnings,
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
