"""A run's probes in a paragraph: what happens to the signal at initialisation, and what training did about it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from netdepth.studies.cells import CHANCE_SHARE, VANISHING_RATIO
from netdepth.tools.inspect.tables import brief, moment

__all__ = ["words"]

Probe = Mapping[str, Any]

GROWTH = 1e4
"""Variance of the last hidden representation over the first one's above which a signal explodes; below
the inverse it vanishes, also where the gradients of all layers shrink alike (zero biases)."""
EXPLODING_RATIO = 1e3
"""First-to-last gradient ratio above which a gradient explodes, as deep batch-normalised plain nets show it
(Yang et al. 2019, "A Mean Field Theory of Batch Normalization")."""
WEAK_RATIO = 1e-2
ALIKE = 0.99
"""Mean cosine similarity of different images from which a network can hardly tell them apart (8 degrees)."""
SILENT = 0.5
"""Share of dead units that makes a layer count; a quarter of the layers is worth a sentence."""


def words(probes: Sequence[Probe], status: str = "completed") -> str:
    """Sentences on the first and the last of ``probes`` (in the order of their steps, at least one).

    Args:
        probes: each with ``step``, ``epoch`` and what `netdepth.training.layers.probe` returns.
        status: of the run, as `netdepth.runs.folder.RunDir.status` has it.
    """
    first, last = probes[0], probes[-1]
    if not first["layers"]:
        return "The network has no linear or convolution layer to look at."
    begin = [_signal(first), _alike(first), _dead(first)]
    return " ".join(text for text in [*begin, _training(first, last, status)] if text)


# --- one probe ---------------------------------------------------------------------------------


def _signal(probe: Probe) -> str:
    """How the signal gets through the untrained network."""
    when, ratio, growth = moment(probe), probe["gradient_ratio"], _growth(probe)
    broken = _not_finite(probe)
    if broken is not None:
        return f"{_capital(when)} {broken}: the signal explodes."
    if len(probe["layers"]) == 1:
        return "The network has one layer: nothing lies between the images and the loss."
    if probe["layers"][-1]["grad_norm"] == 0:
        return f"{_capital(when)} not even the last layer has a gradient: nothing but zeros reaches it."
    if probe["layers"][-1]["weight_norm"] == 0:
        return f"{_capital(when)} the last layer's weights are zero, so no gradient passes it before the first step."
    if ratio < VANISHING_RATIO:
        share = f"{brief(ratio, 1)} of the last layer's gradient" if ratio else "no gradient at all"
        return f"Layer 1 receives {share}: the signal vanishes {when}."
    if growth is not None and growth < 1 / GROWTH:
        return (
            f"The activation variance of the last hidden layer is {brief(growth, 1)} of the first one's: "
            f"the signal vanishes {when}."
        )
    guess = f"where guessing costs {_chance(probe):.4g}"
    if growth is not None and growth > GROWTH:
        return (
            f"The activation variance of the last hidden layer is {brief(growth, 1)} times that of the first, and the "
            f"loss is {_loss(probe)} {guess}: the signal explodes {when}."
        )
    if ratio > EXPLODING_RATIO:
        return f"Layer 1 receives {brief(ratio)} times the last layer's gradient: the gradient explodes {when}."
    text = "the signal gets through" + (" weakened" if ratio < WEAK_RATIO else "")
    text = f"{_capital(when)} {text}: layer 1 receives {brief(ratio)} times the last layer's gradient"
    if growth is not None and len(_hidden(probe)) > 1:
        change = f"grows {brief(growth)}-fold" if growth >= 1 else f"falls to {brief(growth)} of itself"
        text += f", and the activation variance {change} from the first hidden layer to the last"
    loud = probe["loss"] > 2 * _chance(probe)
    return f"{text}; but the loss is {_loss(probe)} {guess}." if loud else f"{text}."


def _alike(probe: Probe) -> str:
    """Whether different inputs still look different to the head."""
    cosine = _cosine(probe)
    if cosine is None or cosine < ALIKE:
        return ""
    return (
        f"Two different images reach the last layer with a cosine similarity of {_similar(cosine)}: "
        "the network can hardly tell two images apart."
    )


def _dead(probe: Probe) -> str:
    shares = {index: row["dead_fraction"] or 0.0 for index, row in enumerate(_hidden(probe), start=1)}
    silent = [index for index, share in shares.items() if share >= SILENT]
    if not silent or 4 * len(silent) < len(shares):
        return ""
    worst = max(silent, key=lambda index: shares[index])
    if len(silent) == 1:
        return f"In layer {worst}, {100 * shares[worst]:.0f} % of the units are silent for every image."
    return (
        f"In {len(silent)} of {len(shares)} hidden layers half of the units or more are silent for every image "
        f"(layer {worst}: {100 * shares[worst]:.0f} %)."
    )


# --- what became of it -------------------------------------------------------------------------


def _training(first: Probe, last: Probe, status: str) -> str:
    """What training changed between the two probes."""
    if status == "diverged":
        trail = f" ({moment(last)} {broken})" if last is not first and (broken := _not_finite(last)) else ""
        return f"Training diverged: the loss was no longer finite{trail}."
    if last is first:
        end = {"unfinished": "the run is unfinished", "failed": "the run failed"}.get(status, "only this was measured")
        return f"What training made of it is not known: {end}."
    broken = _not_finite(last)
    so_far = {"unfinished": "So far, ", "failed": "The run failed; "}.get(status, "")
    when = f"{so_far}{moment(last)}" if so_far else _capital(moment(last))
    if broken is not None:
        return f"{when} {broken}."
    start = f"{when} the loss on these images is {_loss(last)}"
    chance = _chance(last)
    if last["loss"] > 2 * chance:
        return f"{start}, far above that of guessing ({chance:.4g}): training did not tame the network."
    if last["loss"] >= CHANCE_SHARE * chance:
        return f"{start}, no better than guessing ({chance:.4g}): {_why_stuck(first, last)}."
    return f"{start} (guessing: {chance:.4g}): training {_overcome(first, last)}."


def _why_stuck(first: Probe, last: Probe) -> str:
    lost = first["gradient_ratio"] < VANISHING_RATIO
    if lost and last["gradient_ratio"] < VANISHING_RATIO:
        return "training did not bring the signal back"
    return "nothing was learned" + (", although the gradient now reaches layer 1" if lost else "")


def _overcome(first: Probe, last: Probe) -> str:
    """What follows "training", of a network that learned something."""
    done = []
    before, ratio = first["gradient_ratio"], last["gradient_ratio"]
    if before < VANISHING_RATIO and first["layers"][-1]["weight_norm"] != 0:
        share = f"{brief(ratio)} times the last layer's gradient"
        back = not ratio < VANISHING_RATIO
        done.append(
            f"brought the signal back (layer 1 now receives {share})" if back else f"went on all the same ({share})"
        )
    was, now = _growth(first), _growth(last)
    if was is not None and now is not None and was > GROWTH:
        done.append(f"{'tamed' if now <= GROWTH else 'did not tame'} the activation variance (now {brief(now)} times)")
    alike, told = _cosine(first), _cosine(last)
    if alike is not None and told is not None and alike >= ALIKE:
        done.append(
            f"pulled different images apart (cosine similarity now {told:.2f})"
            if told < ALIKE
            else f"left different images close together (cosine similarity {_similar(told)})"
        )
    return " and ".join(done) if done else "works"


# --- readings ----------------------------------------------------------------------------------


def _hidden(probe: Probe) -> Sequence[Mapping[str, Any]]:
    rows: Sequence[Mapping[str, Any]] = probe["layers"][:-1]
    return rows


def _growth(probe: Probe) -> float | None:
    """Activation variance of the last hidden layer over the first one's; None without hidden layers or signal."""
    hidden = _hidden(probe)
    if not hidden or not hidden[0]["activation_var"]:
        return None
    return float(hidden[-1]["activation_var"] / hidden[0]["activation_var"])


def _cosine(probe: Probe) -> float | None:
    """Between different images in what the last layer receives."""
    hidden = _hidden(probe)
    return hidden[-1]["cosine"] if hidden else None


def _chance(probe: Probe) -> float:
    """The loss of guessing all classes alike, ln C."""
    return math.log(probe["layers"][-1]["shape"][-1])


def _not_finite(probe: Probe) -> str | None:
    """What is NaN or infinite, in words."""
    for key, text in (
        ("activation_var", "the activations are not finite from layer {} on"),
        ("grad_norm", "the gradient of layer {} is not finite"),
    ):
        for index, row in enumerate(probe["layers"], start=1):
            if not math.isfinite(row[key]):
                return text.format(index)
    return None if math.isfinite(probe["loss"]) else "the loss is not finite"


def _loss(probe: Probe) -> str:
    return brief(probe["loss"], 4)


def _similar(cosine: float) -> str:
    return f"{cosine:.4f}" if cosine < 0.99995 else "more than 0.9999"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
