"""``nd.landscape``: the loss around the weights of runs, as picture, numbers and words.

import netdepth as nd

found = nd.landscape("plain-depth-24", "residual-depth-24")
found.words
found.slices[0].loss                 # n rows of n losses
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from netdepth.config import MAX_SEED, Json, Runtime, from_json
from netdepth.data import Splits
from netdepth.errors import BadInput
from netdepth.files.atomic import restored
from netdepth.models import Network, describe
from netdepth.progress import CountProgress
from netdepth.text import plain
from netdepth.tools.common import html_answer, open_run, output_file, refuse_values
from netdepth.tools.landscape import surface
from netdepth.tools.landscape.picture import draw_landscape, landscape_words
from netdepth.tools.landscape.surface import Curvature, Setting, Slice
from netdepth.training.finished import Run, network_of, weights_of
from netdepth.training.layers import probe_batch
from netdepth.training.process import configure

__all__ = ["Landscape", "landscape"]

FOLDER = "landscapes"
MAX_RUNS = 6
LIMITS = {"grid": (3, 501), "images": (1, 10_000_000), "seed": (0, MAX_SEED)}
CHEAP = 2**20
"""Multiply-adds of one image below which the grid and the images are more by default."""
GRID, IMAGES = {"cheap": 41, "expensive": 25}, {"cheap": 1000, "expensive": 500}
"""Points a side and training images by default."""
SAVE_SECONDS = 10.0
"""A kill loses no more than this and the current point."""


@dataclass(frozen=True)
class Landscape:
    """A slice per run, each in one of ``files``, with a picture and words."""

    runs: tuple[Run, ...]
    slices: tuple[Slice, ...]
    words: str
    files: tuple[Path, ...]
    figure: Path

    @property
    def records(self) -> list[Mapping[str, Json]]:
        """The slices in plain values, as their files hold them; NaN and infinities are in their places."""
        return [found.as_json() for found in self.slices]

    def _repr_html_(self) -> str:
        return html_answer(self.words, {"loss landscapes": self.figure})


@dataclass(frozen=True)
class _Job:
    """One run with what is needed to compute its slice."""

    run: Run
    model: Network
    images: Tensor
    labels: Tensor
    setting: Setting

    @property
    def file(self) -> str:
        one = self.setting
        return f"{FOLDER}/{one.weights}-{one.grid}x{one.grid}-r{plain(one.radius)}-n{one.images}-s{one.seed}.json"


def landscape(
    *runs: str | Path | Run,
    grid: int | None = None,
    radius: float = 1.0,
    images: int | None = None,
    seed: int = 0,
    weights: Literal["best", "last"] | None = None,
    curvature: bool = True,
    out: Path | None = None,
    data_dir: Path | None = None,
    runs_dir: Path | None = None,
    runtime: Runtime | None = None,
    progress: bool = True,
) -> Landscape:
    """Filter-normalised slices of the loss around the weights of ``runs``, and the Hessian's extreme eigenvalues.

    Only training images are used. The numbers go to ``landscapes/`` in each run's folder while they are computed; an
    interrupted computation continues, and a finished one is not repeated. The picture shows all runs on one scale.

    Args:
        runs: paths or unique prefixes of names, up to six. All get the same random directions.
        grid: points a side, odd; by default 41, or 25 for a network of a million multiply-adds an image or more.
        radius: the slice's half side; at 1 a direction is as long as the weights it moves.
        images: training images, evenly spread; by default 1,000, or 500 for such a network.
        seed: of the two directions.
        weights: ``best`` or ``last``; those the run reports if None.
        curvature: compute the largest and the smallest eigenvalue of the Hessian too.
        out: the picture's path; by default ``figures/`` in the run's folder, or beside it for several runs.

    Raises:
        BadInput: an unfinished run, other data than the run's, a setting out of range.
        StorageError: the data are not here, or a folder cannot be written.
        Locked: another process works in the run's folder.
    """
    chosen = [open_run(run, runs_dir) for run in runs]
    for run in chosen:
        refuse_values(run, "a landscape is drawn of the cross-entropy of classes")
    _check(chosen, {"grid": grid, "images": images, "seed": seed})
    if out is not None:
        output_file(out, ".png")
    opened = [weights_of(run.dir, weights) for run in chosen]
    models = [network_of(found) for found in opened]
    cost = max(describe(model).multiply_adds for model in models)
    size = "cheap" if cost < CHEAP else "expensive"
    grid, images = grid or GRID[size], images or IMAGES[size]
    surface.coordinates(grid, radius)  # complains before the data are loaded
    # The layers of a small network keep one thread busy and no second one, however many images there are.
    process = configure(runtime or Runtime(), cost if cost < CHEAP else cost * images)
    jobs = []
    for run, found, model, splits in zip(chosen, opened, models, _data(chosen, data_dir), strict=True):
        inputs, labels = (part.to(process.device) for part in probe_batch(splits.train, images))
        setting = Setting(
            run=run.path.resolve().name,
            weights=found.which,
            weights_sha256=found.sha256,
            dataset=splits.spec.name,
            data_digest=splits.spec.data_digest,
            split_digest=splits.spec.split_digest,
            part="train",
            images=len(labels),
            seed=seed,
            grid=grid,
            radius=radius,
            batch_norm="stored statistics",
        )
        jobs.append(_Job(run, model.to(process.device), inputs, labels, setting))
    slices = []
    for job in jobs:
        with job.run.dir.lock():
            slices.append(_slice(job, curvature, progress))
    figure = draw_landscape([run.dir for run in chosen], slices, out)
    files = tuple(job.run.path / job.file for job in jobs)
    return Landscape(tuple(chosen), tuple(slices), landscape_words(slices), files, figure)


def _check(runs: Sequence[Run], numbers: dict[str, int | None]) -> None:
    if not 1 <= len(runs) <= MAX_RUNS:
        raise BadInput(f"landscape takes 1 to {MAX_RUNS} runs, not {len(runs)}")
    paths = [run.path.resolve() for run in runs]
    for path in paths:
        if paths.count(path) > 1:
            raise BadInput(f"run {path.name} is named twice")
    for name, value in numbers.items():
        low, high = LIMITS[name]
        if value is not None and not low <= value <= high:
            raise BadInput(f"{name} = {value} is out of range; it takes {low} to {high}")


def _data(runs: Sequence[Run], data_dir: Path | None) -> list[Splits]:
    """The data of every run; those that runs share are loaded once."""
    loaded: dict[str, Splits] = {}
    found = []
    for run in runs:
        split = run.dir.split()
        key = str([run.config.get("dataset"), split and (split.data_digest, split.split_digest)])
        loaded[key] = loaded.get(key) or run.data(data_dir)
        found.append(loaded[key])
    return found


def _slice(job: _Job, curvature: bool, progress: bool) -> Slice:
    """The slice of one run: its file as far as it goes; the rest is computed and saved on the way."""
    steps = surface.coordinates(job.setting.grid, job.setting.radius)
    saved = _saved(job)
    losses = [] if saved is None else [value for row in saved.loss for value in row]

    def with_losses(complete: bool, **more: Any) -> Slice:
        rows = [losses[i : i + len(steps)] for i in range(0, len(losses), len(steps))]
        return Slice(**dataclasses.asdict(job.setting), coordinates=steps, complete=complete, loss=rows, **more)

    def save(found: Slice) -> None:
        job.run.dir.write_json(job.file, found.as_json())

    try:
        for _ in _compute(job, steps, losses, progress):
            save(with_losses(complete=False))
    except KeyboardInterrupt:
        save(with_losses(complete=False))
        raise
    guessing = math.log(job.model.num_classes)
    summary = surface.describe_surface(with_losses(complete=True).loss, steps[1] - steps[0], guessing)
    known = None if saved is None else saved.curvature
    found = with_losses(complete=True, summary=summary, guessing=guessing, curvature=known)
    if found != saved:
        save(found)
    if curvature and known is None:
        found = dataclasses.replace(found, curvature=_curvature(job, progress))
        save(found)
    return found


def _compute(job: _Job, steps: list[float], losses: list[float], progress: bool) -> Iterator[None]:
    """Append the missing values to ``losses``; yields when it is time to save."""
    total, saved_at = len(steps) ** 2, time.monotonic()
    if len(losses) == total:
        return
    directions = surface.filter_directions(job.model, job.setting.seed)
    with CountProgress(f"landscape of {job.run.path.name}", total, len(losses), shown=progress) as shown:
        for loss in surface.slice_losses(job.model, job.images, job.labels, directions, steps, len(losses)):
            losses.append(loss)
            shown.advance(len(losses))
            if time.monotonic() - saved_at >= SAVE_SECONDS:
                yield
                saved_at = time.monotonic()


def _saved(job: _Job) -> Slice | None:
    """The slice in the job's file; None if there is none, or the file is damaged or of another setting."""
    try:
        document = job.run.dir.read_json(job.file)
        found: Slice | None = None if document is None else from_json(Slice, restored(document), finite=False)
    except (BadInput, AttributeError, TypeError, ValueError, ZeroDivisionError):
        return None  # damaged: it is computed again
    same = found is not None and dataclasses.asdict(job.setting).items() <= dataclasses.asdict(found).items()
    return found if same else None


def _curvature(job: _Job, progress: bool) -> Curvature:
    """The extreme eigenvalues of the Hessian on the same images; the smallest only if the loss is finite."""
    product, seed = surface.HessianProduct(job.model, job.images, job.labels), job.setting.seed

    def display(which: str) -> CountProgress:
        title = f"{which} eigenvalue of {job.run.path.name}"
        return CountProgress(title, surface.MAX_PRODUCTS, at_most=True, shown=progress)

    with display("largest") as shown:
        for largest in surface.largest_eigenvalue(product, product.size, device=product.device, seed=seed):
            shown.advance(largest.products, f"{plain(largest.value, 4)}, residual {plain(largest.residual, 2)}")
    smallest = None
    if math.isfinite(largest.value):
        with display("smallest") as shown:
            smallest = surface.smallest_eigenvalue(
                product, product.size, device=product.device, seed=seed, counted=shown.advance
            )
    return surface.Curvature(surface.TOLERANCE, surface.MAX_PRODUCTS, product.size, largest, smallest)
