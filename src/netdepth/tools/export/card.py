"""A model card: what a network is, what it was made from, how good it is and how to load it, on one page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from netdepth.data.fetch import Source
from netdepth.tools.export.parity import TOLERANCE, Parity

__all__ = ["model_card"]

PARTS = {"train": "training", "val": "validation", "test": "test"}
METRICS = {
    "loss": "loss (nats)",
    "accuracy": "accuracy",
    "precision_weighted": "weighted precision",
    "recall_weighted": "weighted recall",
    "f1_weighted": "weighted F1",
}
UNKNOWN_LICENCE = "not stated: the data set was registered by a file of the user's own"

LOADING = {
    "onnx": """\
import numpy as np, onnxruntime

session = onnxruntime.InferenceSession("{file}")
pixels = np.zeros((1, {shape}), dtype=np.uint8)   # your images
logits = session.run(["logits"], {{"pixels": pixels}})[0]""",
    "safetensors": """\
from safetensors import safe_open

with safe_open("{file}", "pt") as file:
    described = file.metadata()             # model, classes, input_shape, digests: JSON as text
    weights = {{name: file.get_tensor(name) for name in file.keys()}}

# the network itself, with netdepth
import json
from netdepth import models
from netdepth.config import Component

model = models.build(Component(**json.loads(described["model"])), ({shape}), {classes})
model.load_state_dict(weights)
logits = model.eval()(pixels)               # uint8 [N, {shape}]""",
}


def model_card(
    *,
    name: str,
    file: str,
    to: str,
    weights: str,
    weights_sha256: str,
    file_sha256: str,
    config: Mapping[str, Any],
    split: Mapping[str, Any],
    result: Mapping[str, Any],
    source: Source | None,
    parity: Parity,
    checked_on: str,
    made_by: str,
) -> str:
    """The card in Markdown.

    Args:
        name: of the run.
        file, to: the exported file's name and format.
        weights, weights_sha256: ``best`` or ``last``, and the digest of their safetensors file.
        config, split, result: the run's ``config.json``, ``split.json`` and ``result.json``.
        source: what is known of the data set; None for one from a user's file.
        parity, checked_on: how well the file agrees with the network, on images of which part.
        made_by: the version of netdepth.
    """
    shape = ", ".join(map(str, split["input_shape"]))
    classes = split["classes"]
    shown = ", ".join(classes[:20]) + (f" and {len(classes) - 20} more" if len(classes) > 20 else "")
    loading = LOADING[to].format(file=file, shape=shape, classes=len(classes))
    lines = [
        f"# {name}",
        "",
        f"A network that sorts images into {len(classes)} classes: model `{config['model']['name']}`, depth "
        f"{result['depth']}, {result['num_params']:,} parameters, trained by netdepth {made_by} on {split['title']}. "
        f"These are the {weights} weights of the run; it ended as {str(result['status']).replace('_', ' ')} after "
        f"{result['steps']:,} steps.",
        "",
        "## Use",
        "",
        f"- Input `pixels`: uint8 `[N, {shape}]` (images, channels, rows, columns), 0 to 255. Nothing is "
        "to be scaled or normalised before: the network carries the statistics it was trained with.",
        f"- Output `logits`: `[N, {len(classes)}]`, in the order {shown}. Their softmax are probabilities.",
        f"- Checked on {parity.images:,} {checked_on} images: logits as the trained network's to "
        f"{parity.logit:.1e} of the largest, probabilities to {parity.probability:.1e} ({TOLERANCE:g} is allowed).",
        "",
        "```python",
        loading,
        "```",
        "",
        "## Data",
        "",
        *_data(split, source),
        "",
        "## Metrics",
        "",
        *_metrics(weights, split, result),
        "",
        "## Digests",
        "",
        f"- this file, sha256: `{file_sha256}`",
        f"- weights as the run saved them, sha256: `{weights_sha256}`",
        f"- data: `{split['data_digest']}`",
        f"- split: `{split['split_digest']}`",
        f"- config (fingerprint): `{config['fingerprint']}`, seed {config['seed']}",
        "",
        "## Config",
        "",
        "```json",
        json.dumps(config, indent=1),
        "```",
    ]
    return "\n".join(lines) + "\n"


def _data(split: Mapping[str, Any], source: Source | None) -> list[str]:
    sizes = ", ".join(f"{split['sizes'][part]:,} {PARTS[part]}" for part in PARTS if split["sizes"].get(part))
    lines = [f"- {split['title']} (`{split['name']}`): {sizes} images"]
    lines.append(f"- licence of the data: {UNKNOWN_LICENCE if source is None else source.licence}")
    if source is not None and source.files:
        lines.append(f"- origin: {source.origin}")
    if split.get("note"):
        lines.append(f"- {split['note']}")
    return lines


def _metrics(weights: str, split: Mapping[str, Any], result: Mapping[str, Any]) -> list[str]:
    """The run's own evaluation of these weights, every part with its n."""
    lines = [f"| part | n | {' | '.join(METRICS.values())} |", f"| --- | ---: |{' ---: |' * len(METRICS)}"]
    for part, words in PARTS.items():
        scores = (result.get(part) or {}).get(weights)
        if scores is not None:
            cells = ["-" if scores[key] is None else f"{scores[key]:.6g}" for key in METRICS]
            lines.append(f"| {words} | {split['sizes'][part]:,} | {' | '.join(cells)} |")
    lines += ["", "Accuracy and the others are fractions. One run: a mean over seeds says how much they vary."]
    if not result.get("test"):
        lines.append("The test images were never looked at.")
    return lines
