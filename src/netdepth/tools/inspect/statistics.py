"""Layer statistics of a run, read back, as a table and in words: what happens to the signal, layer by layer.

They are measured at initialisation and at some steps of training (`netdepth.training.layers`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TextIO

from netdepth.config import from_json
from netdepth.errors import BadInput
from netdepth.files.atomic import restored
from netdepth.models import LayerInfo
from netdepth.runs.folder import RunDir
from netdepth.studies.cells import CHANCE_SHARE, VANISHING_RATIO
from netdepth.text import capitalised, compact, fixed, number, percent, print_table, thousands
from netdepth.training.layers import Layer, Statistics

__all__ = ["print_statistics", "read_statistics", "words"]

LARGEST = 1e300
"""A larger finite number was not measured: a logarithmic axis of it overflows."""
MAX_ROWS = 14
HEADER = ("#", "layer", "output", "parameters", "gradient", "grad/weight", "variance", "dead", "cosine")

GROWTH = 1e4
"""A signal explodes if the variance of the last hidden representation over the first one's is above this, and vanishes
if it is below the inverse, also if the gradients of all layers shrink alike (zero biases)."""
EXPLODING_RATIO = 1e3
"""First-to-last gradient ratio above which a gradient explodes, as deep batch-normalised plain nets show it
(Yang et al. 2019, "A Mean Field Theory of Batch Normalization")."""
WEAK_RATIO = 1e-2
ALIKE = 0.99
"""Mean cosine similarity of different images from which a network can hardly distinguish them (8 degrees)."""
SILENT = 0.5
"""Share of dead units from which a layer counts; a quarter of the layers is worth a sentence."""


def read_statistics(run: RunDir) -> list[Statistics]:
    """The layer statistics in ``probes/*.json`` in the order of their steps.

    Raises:
        BadInput: a file that holds no layer statistics, or those of another network.
    """
    found: list[Statistics] = []
    for path in sorted((run.path / "probes").glob("*.json")):
        document = run.read_json(f"probes/{path.name}") or {}
        try:
            found.append(from_json(Statistics, restored(document), finite=False))
            _check(found[-1].layers)
        except (BadInput, AttributeError, TypeError, ValueError):
            raise BadInput(
                f"{path} does not hold the layer statistics of this release; remove it, and inspect measures again"
            ) from None
        if [layer.name for layer in found[-1].layers] != [layer.name for layer in found[0].layers]:
            raise BadInput(f"{path} belongs to another network than the files before it; remove it")
    return sorted(found, key=lambda one: one.step)


def _check(layers: Sequence[Layer]) -> None:
    """Raise ValueError if a number was not measured."""
    for layer in layers:
        measured = (layer.grad_norm, layer.weight_norm, layer.grad_to_weight, layer.activation_var, layer.dead_fraction)
        sizes = all(0 < size < LARGEST for size in layer.shape) and layer.shape
        if not sizes or any(LARGEST < abs(value) < math.inf for value in measured if value is not None):
            raise ValueError(f"layer {layer.name!r} has numbers that were not measured")


# --- as a table ---


def print_statistics(
    title: str, layers: Sequence[LayerInfo], found: Sequence[Statistics], stream: TextIO | None = None
) -> None:
    """The layers in the first and in the last of ``found`` (at least one) as tables.

    Args:
        title: a line about the network.
        layers: each weight layer, in order.
        stream: stdout if None.
    """
    shown = _shown(len(layers))
    for one in [found[0], *found[1:][-1:]]:
        measured = {layer.name: layer for layer in one.layers}
        rows = []
        for index in shown:
            layer = layers[index]
            output = "×".join(map(str, layer.output_shape))
            row = [index + 1, layer.name, output, thousands(layer.parameters)]
            rows.append([*row, *_cells(measured.get(layer.name))])
        heading = f"{title}, {one.moment}: loss {number(one.loss)}"
        print_table(HEADER, rows, right=(0, 2, 3, 4, 5, 6, 7, 8), title=heading, spare=(3, 5, 2), stream=stream)
    if len(shown) < len(layers):
        print(f"{len(layers) - len(shown)} of {len(layers)} layers are left out here; --json has them all", file=stream)
    print(
        f"gradient: norm of the weight's gradient over {found[0].batch or 'the'} training images; variance and cosine "
        "(between\ndifferent images): of the input of the next layer; dead: units that are zero for every image\n",
        file=stream,
    )


def _shown(count: int) -> list[int]:
    """Indices of at most `MAX_ROWS` layers: spread evenly from the first to the last hidden one, and the last layer."""
    if count <= MAX_ROWS:
        return list(range(count))
    return [*(round(i * (count - 2) / (MAX_ROWS - 2)) for i in range(MAX_ROWS - 1)), count - 1]


def _cells(layer: Layer | None) -> list[str]:
    if layer is None:
        return ["-"] * 5
    sizes = [compact(value) for value in (layer.grad_norm, layer.grad_to_weight, layer.activation_var)]
    return [*sizes, percent(layer.dead_fraction, 0), "-" if layer.cosine is None else fixed(layer.cosine, 4)]


# --- in words ---


def words(found: Sequence[Statistics], status: str = "completed") -> str:
    """Sentences on the first and the last of ``found`` (in the order of their steps, at least one).

    ``status`` is that of the run, as `netdepth.runs.folder.RunDir.status` has it.
    """
    first, last = found[0], found[-1]
    if not first.layers:
        return "The network has no linear or convolution layer to inspect."
    sentences = [_signal(first), _alike(first), _dead(first), _training(first, last, status)]
    return " ".join(sentence for sentence in sentences if sentence)


def _signal(first: Statistics) -> str:
    """How the signal passes the untrained network."""
    when, ratio, growth, head = first.moment, first.gradient_ratio, first.growth, first.layers[-1]
    if first.not_finite is not None:
        return f"{capitalised(when)} {first.not_finite}: the signal explodes."
    if len(first.layers) == 1:
        return "The network has one layer: nothing lies between the images and the loss."
    if head.grad_norm == 0:
        return f"{capitalised(when)} not even the last layer has a gradient: it receives only zeros."
    if head.weight_norm == 0:
        return f"{capitalised(when)} the last layer's weights are zero, so no gradient passes it before the first step."
    if ratio < VANISHING_RATIO:
        share = f"{compact(ratio, 1)} of the last layer's gradient" if ratio else "no gradient at all"
        return f"Layer 1 receives {share}: the signal vanishes {when}."
    if growth is not None and growth < 1 / GROWTH:
        return (
            f"The activation variance of the last hidden layer is {compact(growth, 1)} of the first one's: "
            f"the signal vanishes {when}."
        )
    loss = f"the loss is {_loss(first)} (guessing: {compact(first.chance, 4)})"
    if growth is not None and growth > GROWTH:
        return (
            f"The activation variance of the last hidden layer is {compact(growth, 1)} times that of the first, and "
            f"{loss}: the signal explodes {when}."
        )
    if ratio > EXPLODING_RATIO:
        return f"Layer 1 receives {compact(ratio)} times the last layer's gradient: the gradient explodes {when}."
    weakened = " weakened" if ratio < WEAK_RATIO else ""
    text = f"{capitalised(when)} the signal gets through{weakened}"
    text += f": layer 1 receives {compact(ratio)} times the last layer's gradient"
    if growth is not None and len(first.layers) > 2:
        change = f"grows {compact(growth)}-fold" if growth >= 1 else f"falls to {compact(growth)} of its value"
        text += f", and the activation variance {change} from the first hidden layer to the last"
    return f"{text}; but {loss}." if first.loss > 2 * first.chance else f"{text}."


def _alike(first: Statistics) -> str:
    """Whether different images still look different to the last layer."""
    if first.similarity is None or first.similarity < ALIKE:
        return ""
    return (
        f"Two different images reach the last layer with a cosine similarity of {_similar(first.similarity)}: "
        "the network can hardly distinguish two images."
    )


def _dead(first: Statistics) -> str:
    shares = {index: layer.dead_fraction or 0.0 for index, layer in enumerate(first.layers[:-1], start=1)}
    silent = [index for index, share in shares.items() if share >= SILENT]
    if not silent or 4 * len(silent) < len(shares):
        return ""
    worst = max(silent, key=lambda index: shares[index])
    if len(silent) == 1:
        return f"In layer {worst}, {percent(shares[worst], 0)} of the units are zero for every image."
    return (
        f"In {len(silent)} of {len(shares)} hidden layers half of the units or more are zero for every image "
        f"(layer {worst}: {percent(shares[worst], 0)})."
    )


def _training(first: Statistics, last: Statistics, status: str) -> str:
    """What training changed from ``first`` to ``last``."""
    if status == "diverged":
        detail = f" ({last.moment} {last.not_finite})" if last is not first and last.not_finite else ""
        return f"Training diverged: the loss was no longer finite{detail}."
    if last is first:
        why = {"unfinished": "the run is unfinished", "failed": "the run failed"}.get(
            status, "nothing later was measured"
        )
        return f"The effect of training is unknown: {why}."
    so_far = {"unfinished": "So far, ", "failed": "The run failed; "}.get(status, "")
    when = f"{so_far}{last.moment}" if so_far else capitalised(last.moment)
    if last.not_finite is not None:
        return f"{when} {last.not_finite}."
    start, chance = f"{when} the loss on these images is {_loss(last)}", compact(last.chance, 4)
    if last.loss > 2 * last.chance:
        return f"{start}, far above that of guessing ({chance}): training did not bring the loss down."
    if last.loss >= CHANCE_SHARE * last.chance:
        return f"{start}, no better than guessing ({chance}): {_why_stuck(first, last)}."
    return f"{start} (guessing: {chance}): training {_overcome(first, last)}."


def _why_stuck(first: Statistics, last: Statistics) -> str:
    lost = first.gradient_ratio < VANISHING_RATIO
    if lost and last.gradient_ratio < VANISHING_RATIO:
        return "training did not bring the signal back"
    return "nothing was learned" + (", although the gradient now reaches layer 1" if lost else "")


def _overcome(first: Statistics, last: Statistics) -> str:
    """The words after "training", for a network that learned something."""
    parts = []
    if first.gradient_ratio < VANISHING_RATIO and first.layers[-1].weight_norm != 0:
        share = f"{compact(last.gradient_ratio)} times the last layer's gradient"
        lost = last.gradient_ratio < VANISHING_RATIO
        parts.append(
            f"works nevertheless ({share})" if lost else f"brought the signal back (layer 1 now receives {share})"
        )
    if first.growth is not None and last.growth is not None and first.growth > GROWTH:
        effect = "reduced" if last.growth <= GROWTH else "did not reduce"
        parts.append(f"{effect} the growth of the activation variance (now {compact(last.growth)} times)")
    before, after = first.similarity, last.similarity
    if before is not None and after is not None and before >= ALIKE:
        parts.append(
            f"pulled different images apart (cosine similarity now {fixed(after)})"
            if after < ALIKE
            else f"left different images close together (cosine similarity {_similar(after)})"
        )
    return " and ".join(parts) if parts else "works"


def _loss(found: Statistics) -> str:
    return compact(found.loss, 4)


def _similar(cosine: float) -> str:
    return fixed(cosine, 4) if cosine < 0.99995 else "more than 0.9999"
