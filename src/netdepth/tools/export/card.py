"""A model card: what a network is, its data, its accuracy and how to load it, on one page."""

from __future__ import annotations

import json

import netdepth
from netdepth.data import DatasetSpec
from netdepth.data.fetch import SOURCES
from netdepth.tools.export.formats import TOLERANCE, Parity
from netdepth.training.finished import Run, Weights

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
    run: Run,
    weights: Weights,
    spec: DatasetSpec,
    *,
    file: str,
    to: str,
    file_sha256: str,
    parity: Parity,
    checked_on: str,
) -> str:
    """The card of the ``weights`` of ``run``, trained on the data of ``spec``, in Markdown.

    Args:
        file, to, file_sha256: the exported file's name, format and digest.
        parity, checked_on: how well the file agrees with the network, on images of which part.
    """
    config = {key: value for key, value in run.config.items() if key != "schema"}
    result, classes = run.result, spec.classes
    shape = ", ".join(map(str, spec.input_shape))
    shown = ", ".join(classes[:20]) + (f" and {len(classes) - 20} more" if len(classes) > 20 else "")
    lines = [
        f"# {run.path.resolve().name}",
        "",
        f"A network that sorts images into {len(classes)} classes: model `{config['model']['name']}`, depth "
        f"{result['depth']}, {result['num_params']:,} parameters, trained by netdepth {netdepth.__version__} on "
        f"{spec.title}. These are the {weights.which} weights of the run; it ended as "
        f"{str(result['status']).replace('_', ' ')} after {result['steps']:,} steps.",
        "",
        "## Use",
        "",
        f"- Input `pixels`: uint8 `[N, {shape}]` (images, channels, rows, columns), 0 to 255. Do not scale or "
        "normalise them: the network contains the statistics it was trained with.",
        f"- Output `logits`: `[N, {len(classes)}]`, in the order {shown}. Their softmax gives probabilities.",
        f"- Checked on {parity.images:,} {checked_on} images: logits equal the trained network's to "
        f"{parity.logit:.1e} of the largest, probabilities to {parity.probability:.1e} ({TOLERANCE:g} is allowed).",
        "",
        "```python",
        LOADING[to].format(file=file, shape=shape, classes=len(classes)),
        "```",
        "",
        "## Data",
        "",
        *_data(spec),
        "",
        "## Metrics",
        "",
        *_metrics(run, weights, spec),
        "",
        "## Digests",
        "",
        f"- this file, sha256: `{file_sha256}`",
        f"- weights as the run saved them, sha256: `{weights.sha256}`",
        f"- data: `{spec.data_digest}`",
        f"- split: `{spec.split_digest}`",
        f"- config (fingerprint): `{config['fingerprint']}`, seed {config['seed']}",
        "",
        "## Config",
        "",
        "```json",
        json.dumps(config, indent=1),
        "```",
    ]
    return "\n".join(lines) + "\n"


def _data(spec: DatasetSpec) -> list[str]:
    source = SOURCES.get(spec.name)
    sizes = ", ".join(f"{spec.sizes[part]:,} {PARTS[part]}" for part in PARTS if spec.sizes.get(part))
    lines = [f"- {spec.title} (`{spec.name}`): {sizes} images"]
    lines.append(f"- licence of the data: {UNKNOWN_LICENCE if source is None else source.licence}")
    if source is not None and source.files:
        lines.append(f"- origin: {source.origin}")
    if spec.note:
        lines.append(f"- {spec.note}")
    return lines


def _metrics(run: Run, weights: Weights, spec: DatasetSpec) -> list[str]:
    """The run's own evaluation of these weights, every part with its n."""
    lines = [f"| part | n | {' | '.join(METRICS.values())} |", f"| --- | ---: |{' ---: |' * len(METRICS)}"]
    for part, words in PARTS.items():
        scores = (run.result.get(part) or {}).get(weights.which)
        if scores is not None:
            cells = ["-" if scores[key] is None else f"{scores[key]:.6g}" for key in METRICS]
            lines.append(f"| {words} | {spec.sizes[part]:,} | {' | '.join(cells)} |")
    lines += ["", "Accuracy and the others are fractions. One run: a mean over seeds says how much they vary."]
    if not run.result.get("test"):
        lines.append("The test images were never read.")
    return lines
