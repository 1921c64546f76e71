"""Answers, maps, mean maps, and the check that the maps matter."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from netdepth.errors import BadInput
from netdepth.models import Network
from netdepth.progress import CountProgress
from netdepth.stats.intervals import Estimate, mean_interval
from netdepth.tools.explain import deletion
from netdepth.tools.explain import maps as cam
from netdepth.tools.explain.subjects import Subjects, spread

__all__ = ["PASSES", "REPEATS", "Check", "Examined", "examine", "heat"]

REPEATS = 3
"""Random maps of each kind, per picture."""

ORDERS = ("map", *["moved"] * REPEATS, *["scattered"] * REPEATS)
PASSES = 3 + 2 * (len(deletion.FRACTIONS) - 2) * len(ORDERS)
"""How often the network sees a picture, whole or in parts, in the check."""

CHUNK_PIXELS, CHUNK_IMAGES = 2**18, 256
"""A forward pass sees no more than these, one picture at least."""

BLUR_SHARE = 8
"""Insertion begins from a blur whose sigma is the shorter side over this."""

Report = Callable[[int], None]


@dataclass(frozen=True)
class Check:
    """The deletion and insertion curves of ``n`` pictures, for the maps and for the controls.

    ``curves[act][order]``: the mean probability of the answer at `deletion.FRACTIONS`; act "deletion" or
    "insertion", order "map", "moved" or "scattered"; ``bands`` has the "low" and "high" end of its 95 % interval
    (the mean itself for a single picture). ``areas`` has the area under each picture's curve as an
    estimate, ``differences[act][control]`` that of the map minus the control's, paired by picture.
    """

    n: int
    repeats: int
    fractions: Sequence[float]
    curves: Mapping[str, Mapping[str, list[float]]]
    bands: Mapping[str, Mapping[str, Mapping[str, list[float]]]]
    areas: Mapping[str, Mapping[str, Estimate]]
    differences: Mapping[str, Mapping[str, Estimate]]

    def as_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Examined:
    """What was found out about ``subjects``; ``probabilities`` ``[N, num_classes]``, ``answers`` ``[N]``.

    ``chosen`` are the pictures that count in the mean maps and the check, ``maps`` those of any picture that is
    asked for. Of a class, ``means`` has how many of the chosen were answered with it, their mean picture
    ``[C, H, W]`` and their mean map ``[H, W]`` in 0..1.
    """

    evidence: cam.Evidence
    subjects: Subjects
    probabilities: Tensor
    answers: Tensor
    chosen: Sequence[int]
    maps: Callable[[Sequence[int]], Tensor]
    means: Mapping[int, tuple[int, Tensor, Tensor]]
    check: Check

    @property
    def right(self) -> Tensor:
        """Whether each answer is the true class; never where none is known."""
        return self.answers == self.subjects.labels


def examine(
    model: Network, subjects: Subjects, *, classes: Sequence[int], count: int, progress: bool = True
) -> Examined:
    """Answer ``subjects``, choose ``count`` of them evenly by true class, make their maps and check them.

    Raises:
        BadInput: the network's answers are not finite.
    """
    evidence = cam.find_evidence(model, subjects.inputs[:2].to(next(model.parameters()).device))
    per = max(1, min(CHUNK_IMAGES, CHUNK_PIXELS // math.prod(subjects.inputs.shape[2:])))
    with CountProgress("answers", len(subjects.inputs), shown=progress) as report:
        probabilities = _answered(model, subjects.inputs, per, report.add)
    answers = probabilities.argmax(1)
    chosen = _chosen(subjects, classes, count)

    def maps_of(places: Sequence[int]) -> Tensor:
        return _maps(model, evidence, subjects.inputs[places], answers[places], per)

    pictures, maps = subjects.inputs[chosen], maps_of(chosen)
    with CountProgress("deleting and inserting pixels", PASSES * len(chosen), shown=progress) as report:
        check = _checked(model, pictures, answers[chosen], maps, per, report.add)
    means = _means(pictures, answers[chosen], maps)
    return Examined(evidence, subjects, probabilities, answers, chosen, maps_of, means, check)


def heat(maps: Tensor) -> Tensor:
    """What is shown of ``maps`` ``[B, H, W]``: evidence for the class, as a share of the most in its own picture."""
    above = maps.clamp(min=0)
    return above / above.amax((1, 2), keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny)


def _answered(model: Network, inputs: Tensor, per: int, report: Report) -> Tensor:
    """Probabilities float64 ``[N, num_classes]``, on the CPU."""
    device = next(model.parameters()).device
    made = []
    with torch.inference_mode():
        for images in torch.split(inputs, per):
            made.append(model(images.to(device)).double().softmax(1).cpu())
            report(len(images))
    probabilities = torch.cat(made)
    if not probabilities.isfinite().all():
        raise BadInput("the network's answers are not finite, so there is nothing to explain")
    return probabilities


def _chosen(subjects: Subjects, classes: Sequence[int], count: int) -> list[int]:
    """Places of ``count`` pictures: as many of every class, where classes are known."""
    if not subjects.labelled:
        return spread(range(len(subjects.inputs)), count)
    groups = [(subjects.labels == label).nonzero()[:, 0].tolist() for label in (-1, *classes)]
    groups = [group for group in groups if group]
    share, rest = divmod(count, len(groups))
    return sorted(
        place for number, group in enumerate(groups) for place in spread(group, share + (number < rest)) if group
    )


def _maps(model: Network, evidence: cam.Evidence, inputs: Tensor, classes: Tensor, per: int) -> Tensor:
    """Maps ``[N, H, W]`` at the pictures' size, on the CPU."""
    device = next(model.parameters()).device
    size = (inputs.shape[2], inputs.shape[3])
    made = []
    for images, wanted in zip(torch.split(inputs, per), torch.split(classes, per), strict=True):
        found = cam.evidence_maps(model, evidence, images.to(device), wanted.to(device)).values
        made.append(cam.upsampled(found, size).cpu())
    return torch.cat(made)


def _means(pictures: Tensor, answers: Tensor, maps: Tensor) -> dict[int, tuple[int, Tensor, Tensor]]:
    shown = heat(maps)
    found = {}
    for label in sorted(set(answers.tolist())):
        same = answers == label
        found[label] = (int(same.sum()), pictures[same].float().mean(0), shown[same].mean(0))
    return found


def _checked(model: Network, pictures: Tensor, answers: Tensor, maps: Tensor, per: int, report: Report) -> Check:
    device = next(model.parameters()).device
    generator = Generator().manual_seed(0)
    blank = model.normalize.mean.round().clamp(0, 255).to(torch.uint8)
    sigma = min(pictures.shape[2:]) / BLUR_SHARE
    made = []
    for images, classes, named in zip(*(torch.split(one, per) for one in (pictures, answers, maps)), strict=True):
        compared = [
            named,
            *(deletion.moved(named, generator) for _ in range(REPEATS)),
            *(deletion.scattered(named, generator) for _ in range(REPEATS)),
        ]
        orders = [deletion.ranks(one, generator).to(device) for one in compared]
        images = images.to(device)
        blur = deletion.blurred(images, sigma)
        found = deletion.curves(model, images, classes.to(device), orders, blank=blank, blur=blur, report=report)
        made.append(found.cpu())
    return _summed_up(torch.cat(made, dim=2))


def _summed_up(curves: Tensor) -> Check:
    """``[2, orders, n, 11]`` to means, areas and their differences, the repeats of a picture averaged first."""
    acts, kinds = ("deletion", "insertion"), ("map", "moved", "scattered")
    rows = {kind: [i for i, order in enumerate(ORDERS) if order == kind] for kind in kinds}
    single = {kind: curves[:, rows[kind]].mean(1) for kind in kinds}  # [2, n, 11]
    areas = {kind: deletion.area(single[kind]) for kind in kinds}  # [2, n]
    return Check(
        n=curves.shape[2],
        repeats=REPEATS,
        fractions=deletion.FRACTIONS,
        curves={act: {kind: single[kind][i].mean(0).tolist() for kind in kinds} for i, act in enumerate(acts)},
        bands={act: {kind: _band(single[kind][i]) for kind in kinds} for i, act in enumerate(acts)},
        areas={act: {kind: mean_interval(areas[kind][i].tolist()) for kind in kinds} for i, act in enumerate(acts)},
        differences={
            act: {kind: mean_interval((areas["map"][i] - areas[kind][i]).tolist()) for kind in kinds[1:]}
            for i, act in enumerate(acts)
        },
    )


def _band(curves: Tensor) -> dict[str, list[float]]:
    """Student's interval of the mean of ``curves`` ``[n, 11]`` at every share of the pixels."""
    means = [mean_interval(values.tolist()) for values in curves.T]
    ends = [(one.value, one.value) if one.low is None else (one.low, one.high) for one in means]
    return {side: [float(end[i] or 0.0) for end in ends] for i, side in enumerate(("low", "high"))}
