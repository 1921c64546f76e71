"""Explaining a network: which pictures, what it predicts, its maps, and the check that the maps matter.

The pictures are a run's validation images, or files that the user names. They are never test images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Generator, Tensor

from netdepth.errors import BadInput, StorageError
from netdepth.files.likeness import PictureStatistics
from netdepth.files.pictures import SUFFIXES
from netdepth.models import Network
from netdepth.progress import CountProgress
from netdepth.stats.intervals import Estimate, mean_interval
from netdepth.text import thousands
from netdepth.tools.common import own_picture
from netdepth.tools.explain import maps as mapping
from netdepth.training.finished import Run

__all__ = [
    "PASSES", "Check", "Examination", "MeanMap", "Pictures", "examine", "heat", "picture_files", "spread",
    "validation_pictures",
]  # fmt: skip

MAX_FILES = 10_000
"""Picture files that a user may name; all of them are held in memory."""

REPEATS = 3
"""Random maps of each kind, per picture."""
Act = Literal["deletion", "insertion"]
Order = Literal["map", "moved", "scattered"]
ACTS: tuple[Act, ...] = ("deletion", "insertion")
CONTROLS: tuple[Order, ...] = ("moved", "scattered")
ORDERS: tuple[Order, ...] = ("map", *(control for control in CONTROLS for _ in range(REPEATS)))
PASSES = 3 + 2 * (len(mapping.FRACTIONS) - 2) * len(ORDERS)
"""How often the network sees a picture, whole or in parts, in the check."""

CHUNK_PIXELS, CHUNK_IMAGES = 2**18, 256
"""The most that one forward pass sees; at least one picture."""
BLUR_SHARE = 8
"""Insertion begins from a blur whose sigma is the shorter side divided by this."""

Report = Callable[[int], None]


# --- the pictures ---


@dataclass(frozen=True)
class Pictures:
    """Pictures to explain: ``inputs`` uint8 ``[N, C, H, W]``, ``labels`` int64 ``[N]`` with -1 for an unknown class.

    ``names`` identifies each (a file, or an index in the validation part), ``source`` says in plain values where they
    come from, ``kind`` in words. ``notes`` say what was done to them.
    """

    inputs: Tensor
    labels: Tensor
    names: Sequence[str]
    kind: str
    source: Mapping[str, str | list[str]]
    notes: Sequence[str] = ()


def spread(indices: Sequence[int], count: int) -> list[int]:
    """At most ``count`` of ``indices``, evenly spread: always the same ones, and none selected by eye."""
    count = min(count, len(indices))
    return [indices[i * len(indices) // count] for i in range(count)]


def validation_pictures(run: Run, data_dir: Path | None, classes: Sequence[int], most: int) -> Pictures:
    """At most ``most`` validation images of ``run``'s ``classes``, evenly spread. The test part stays sealed.

    Raises:
        BadInput: the data here are not those of the run, or there is no validation image of these classes.
        StorageError: the data are not here.
    """
    hint = "name pictures of your own with --images"
    try:
        splits = run.data(data_dir)
    except (BadInput, StorageError) as error:
        raise type(error)(f"explain needs the validation images of the run; or {hint}: {error}") from None
    indices = torch.isin(splits.val.labels, torch.tensor(classes)).nonzero()[:, 0].tolist()
    if not indices:
        raise BadInput(f"run {run.path.name} has no validation images of these classes; {hint}")
    chosen = spread(indices, most)
    return Pictures(
        inputs=splits.val.inputs[chosen],
        labels=splits.val.labels[chosen],
        names=[f"val {index}" for index in chosen],
        kind="validation images",
        source={"part": "val", "dataset": splits.spec.name, "split_digest": splits.spec.split_digest},
    )


def picture_files(
    paths: Sequence[Path],
    shape: tuple[int, int, int],
    classes: Sequence[str],
    *,
    only: Sequence[int] | None = None,
    invert: bool = False,
    seen: PictureStatistics | None = None,
) -> Pictures:
    """Picture files, and the pictures in folders, brought to ``shape`` (C, H, W) as ``image-folder`` does it.

    A picture in a folder named like one of ``classes`` has that class; the class of others is unknown. With ``only``,
    pictures of other classes are left out. The notes begin with pictures that are unlike those ``seen`` in training.

    Raises:
        BadInput: a file that is missing or no picture, a folder without any, too many files, none of ``only``.
    """
    known = {name: index for index, name in enumerate(classes)}
    files = [file for path in paths for file in (_pictures_below(path) if path.is_dir() else [path])]
    labels = [known.get(file.absolute().parent.name, -1) for file in files]
    if only is not None:
        files = [file for file, label in zip(files, labels, strict=True) if label in only]
        labels = [label for label in labels if label in only]
        if not files:
            names = ", ".join(classes[label] for label in only)
            raise BadInput(f"none of the --images lies in a folder named like one of the --classes: {names}")
    if len(files) > MAX_FILES:
        raise BadInput(f"--images names {thousands(len(files))} pictures; at most {thousands(MAX_FILES)} are allowed")
    pixels, notes, warnings = [], [], []
    with CountProgress("reading pictures", len(files)) as report:
        for file in files:
            picture = own_picture(file, shape, seen, invert=invert)
            pixels.append(torch.tensor(picture.pixels))
            notes += [] if picture.note is None else [f"{file}: {picture.note}"]
            warnings += [] if picture.warning is None else [f"{file}: {picture.warning}"]
            report.add(1)
    return Pictures(
        inputs=torch.stack(pixels),
        labels=torch.tensor(labels),
        names=[str(file) for file in files],
        kind="picture" if len(files) == 1 else "pictures",
        source={"files": [str(file) for file in files]},
        notes=warnings + notes,
    )


def _pictures_below(folder: Path) -> list[Path]:
    """The pictures in ``folder`` and in its folders, sorted; names that begin with a dot are left out."""
    try:
        files = sorted(p for pattern in ("*", "*/*") for p in folder.glob(pattern) if p.suffix.lower() in SUFFIXES)
    except OSError as error:
        raise BadInput(f"cannot read {str(folder)!r}: {error.strerror or error}") from None
    files = [file for file in files if not any(part.startswith(".") for part in file.relative_to(folder).parts)]
    if not files:
        raise BadInput(f"folder {str(folder)!r} and its folders hold no picture ({', '.join(SUFFIXES)})")
    return files


# --- what the network does with them ---


@dataclass(frozen=True)
class MeanMap:
    """The mean picture ``[C, H, W]`` and map ``[H, W]`` (0..1) of ``count`` pictures with the same predicted class."""

    count: int
    picture: Tensor
    map: Tensor


@dataclass(frozen=True)
class Check:
    """The deletion and insertion curves of ``n`` pictures, for the maps and for the controls.

    ``curves[act][order]``: the mean probability of the predicted class at `maps.FRACTIONS`; ``bands`` has the "low" and
    "high" end of its 95 % interval (the mean itself for a single picture). ``areas``: the area under the curves of the
    single pictures; ``differences[act][control]``: that of the map minus the control's, paired by picture.
    """

    n: int
    repeats: int
    fractions: Sequence[float]
    curves: Mapping[Act, Mapping[Order, list[float]]]
    bands: Mapping[Act, Mapping[Order, Mapping[Literal["low", "high"], list[float]]]]
    areas: Mapping[Act, Mapping[Order, Estimate]]
    differences: Mapping[Act, Mapping[Order, Estimate]]


@dataclass(frozen=True)
class Examination:
    """What the network does with ``pictures``: ``probabilities`` ``[N, num_classes]``, predicted classes ``answers``
    ``[N]``.

    ``chosen`` are the indices of the pictures that count in the mean maps and in the check; ``maps`` computes the maps
    of any others too. ``means`` has a mean map per predicted class.
    """

    evidence: mapping.Evidence
    pictures: Pictures
    probabilities: Tensor
    answers: Tensor
    chosen: Sequence[int]
    maps: Callable[[Sequence[int]], Tensor]
    means: Mapping[int, MeanMap]
    check: Check

    @property
    def right(self) -> Tensor:
        """Whether each prediction is the true class; False where that is unknown."""
        return self.answers == self.pictures.labels


def examine(
    model: Network, pictures: Pictures, *, classes: Sequence[int], count: int, progress: bool = True
) -> Examination:
    """Classify ``pictures``, choose ``count`` of them evenly by true class, compute their maps and check them.

    Raises:
        BadInput: the network's outputs are not finite.
    """
    device = next(model.parameters()).device
    size = (pictures.inputs.shape[2], pictures.inputs.shape[3])
    chunk = max(1, min(CHUNK_IMAGES, CHUNK_PIXELS // math.prod(size)))
    evidence = mapping.find_evidence(model, pictures.inputs[:2].to(device))
    with CountProgress("predictions", len(pictures.inputs), shown=progress) as report:
        probabilities = _probabilities(model, pictures.inputs, chunk, report.add)
    answers = probabilities.argmax(1)
    chosen = _chosen(pictures.labels, classes, count)

    def maps_of(indices: Sequence[int]) -> Tensor:
        """Maps ``[N, H, W]`` at the pictures' size, on the CPU."""
        parts = (torch.split(tensor[indices], chunk) for tensor in (pictures.inputs, answers))
        found = [
            mapping.evidence_maps(model, evidence, images.to(device), wanted.to(device)).values
            for images, wanted in zip(*parts, strict=True)
        ]
        return torch.cat([mapping.upsampled(values, size).cpu() for values in found])

    inputs, predicted, maps = pictures.inputs[chosen], answers[chosen], maps_of(chosen)
    with CountProgress("deleting and inserting pixels", PASSES * len(chosen), shown=progress) as report:
        check = _check(model, inputs, predicted, maps, chunk, report.add)
    shown = heat(maps)
    means = {}
    for label in sorted(set(predicted.tolist())):
        same = predicted == label
        means[label] = MeanMap(int(same.sum()), inputs[same].float().mean(0), shown[same].mean(0))
    return Examination(evidence, pictures, probabilities, answers, chosen, maps_of, means, check)


def heat(maps: Tensor) -> Tensor:
    """The part of ``maps`` ``[B, H, W]`` that is drawn: evidence for the class, as a share of its picture's maximum."""
    above = maps.clamp(min=0)
    return above / above.amax((1, 2), keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny)


def _probabilities(model: Network, inputs: Tensor, chunk: int, report: Report) -> Tensor:
    """Float64 ``[N, num_classes]``, on the CPU."""
    device = next(model.parameters()).device
    parts = []
    with torch.inference_mode():
        for images in torch.split(inputs, chunk):
            parts.append(model(images.to(device)).double().softmax(1).cpu())
            report(len(images))
    probabilities = torch.cat(parts)
    if not probabilities.isfinite().all():
        raise BadInput("the network's outputs are not finite, so there is nothing to explain")
    return probabilities


def _chosen(labels: Tensor, classes: Sequence[int], count: int) -> list[int]:
    """Indices of ``count`` pictures: as many of every class, if classes are known."""
    if not (labels >= 0).any():
        return spread(range(len(labels)), count)
    groups = [(labels == label).nonzero()[:, 0].tolist() for label in (-1, *classes)]
    groups = [group for group in groups if group]
    share, rest = divmod(count, len(groups))
    return sorted(
        index for number, group in enumerate(groups) for index in spread(group, share + (number < rest)) if group
    )


def _check(model: Network, inputs: Tensor, answers: Tensor, maps: Tensor, chunk: int, report: Report) -> Check:
    """Delete and insert pixels in the order of each map and of its controls; the repeats of a picture are averaged."""
    device = next(model.parameters()).device
    generator = Generator().manual_seed(0)
    blank = model.normalize.mean.round().clamp(0, 255).to(torch.uint8)
    sigma = min(inputs.shape[2:]) / BLUR_SHARE
    parts = []
    for images, classes, own in zip(*(torch.split(one, chunk) for one in (inputs, answers, maps)), strict=True):
        compared = [
            own,
            *(mapping.moved(own, generator) for _ in range(REPEATS)),
            *(mapping.scattered(own, generator) for _ in range(REPEATS)),
        ]
        orders = [mapping.ranks(one, generator).to(device) for one in compared]
        images = images.to(device)
        blur = mapping.blurred(images, sigma)
        found = mapping.curves(model, images, classes.to(device), orders, blank=blank, blur=blur, report=report)
        parts.append(found.cpu())
    curves = torch.cat(parts, dim=2)  # [2, orders, n, 11]
    kinds: tuple[Order, ...] = ("map", *CONTROLS)
    rows = {kind: [i for i, order in enumerate(ORDERS) if order == kind] for kind in kinds}
    single = {kind: curves[:, rows[kind]].mean(1) for kind in kinds}  # [2, n, 11]
    areas = {kind: mapping.area(single[kind]) for kind in kinds}  # [2, n]
    return Check(
        n=curves.shape[2],
        repeats=REPEATS,
        fractions=mapping.FRACTIONS,
        curves={act: {kind: single[kind][i].mean(0).tolist() for kind in kinds} for i, act in enumerate(ACTS)},
        bands={act: {kind: _band(single[kind][i]) for kind in kinds} for i, act in enumerate(ACTS)},
        areas={act: {kind: mean_interval(areas[kind][i].tolist()) for kind in kinds} for i, act in enumerate(ACTS)},
        differences={
            act: {kind: mean_interval((areas["map"][i] - areas[kind][i]).tolist()) for kind in CONTROLS}
            for i, act in enumerate(ACTS)
        },
    )


def _band(curves: Tensor) -> dict[Literal["low", "high"], list[float]]:
    """Student's interval of the mean of ``curves`` ``[n, 11]`` at every fraction."""
    means = [mean_interval(values.tolist()) for values in curves.T]
    low = [one.value if one.low is None else one.low for one in means]
    high = [one.value if one.high is None else one.high for one in means]
    return {"low": [float(value or 0.0) for value in low], "high": [float(value or 0.0) for value in high]}
