"""``nd.landscape``: the loss around the weights of runs, as picture, numbers and words.

import netdepth as nd

seen = nd.landscape("plain-depth-24", "residual-depth-24")
seen.words
seen.records[0]["loss"]              # n rows of n losses
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from netdepth.config import MAX_SEED, Runtime
from netdepth.errors import BadInput
from netdepth.progress import CountProgress
from netdepth.training.finished import Run, load

if TYPE_CHECKING:
    from torch import Tensor

    from netdepth.data import Splits
    from netdepth.models import Network

__all__ = ["Landscape", "landscape"]

FOLDER = "landscapes"
MAX_RUNS = 6
LIMITS = {"grid": (3, 501), "images": (1, 10_000_000), "seed": (0, MAX_SEED)}
CHEAP = 2**20
"""Multiply-adds of one image below which the grid and the images are more by default."""
GRID, IMAGES = {"cheap": 41, "dear": 25}, {"cheap": 1000, "dear": 500}
"""Points a side and training images, where they are not given."""
SAVE_SECONDS = 10.0
"""A kill loses no more than this and the point it falls into."""


@dataclass(frozen=True)
class Landscape:
    """What was found: a record per run as its JSON file among ``files`` holds it (but NaN and infinities stand in
    their places), a picture, words."""

    runs: tuple[Run, ...]
    records: list[dict[str, Any]]
    words: str
    files: tuple[Path, ...]
    figure: Path

    def _repr_html_(self) -> str:
        import base64
        import html

        picture = base64.b64encode(self.figure.read_bytes()).decode()
        said = f"<p>{html.escape(self.words)}</p>"
        return f'{said}<img alt="loss landscapes" src="data:image/png;base64,{picture}" style="max-width:100%">'


@dataclass(frozen=True)
class _Job:
    """One run, ready to be looked at; ``identity`` is what decides its numbers."""

    run: Run
    model: Network
    images: Tensor
    labels: Tensor
    identity: dict[str, Any]
    file: str


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

    On training images alone. The numbers go to ``landscapes/`` in each run's folder as they are computed; what is
    there already is not computed again, and what was interrupted goes on. The picture shows all runs on one scale.

    Args:
        runs: paths or unique prefixes of names, up to six. All see the same draws of directions.
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
    from netdepth.models import describe
    from netdepth.tools.landscape.picture import landscape_picture
    from netdepth.tools.landscape.words import landscape_words
    from netdepth.training.process import configure

    chosen = [run if isinstance(run, Run) else load(run, runs_dir) for run in runs]
    _check(chosen, {"grid": grid, "images": images, "seed": seed}, out)
    models = [run.model(weights) for run in chosen]
    cost = max(describe(model).multiply_adds for model in models)
    size = "cheap" if cost < CHEAP else "dear"
    grid, images = grid or GRID[size], images or IMAGES[size]
    _grid(grid, radius)
    splits = _data(chosen, data_dir)
    settings = {"images": images, "seed": seed, "grid": grid, "radius": radius}
    # The layers of a small network keep one thread busy and no second one, however many images there are.
    process = configure(runtime or Runtime(), cost if cost < CHEAP else cost * images)
    jobs = [
        _job(run, model.to(process.device), part, settings, weights)
        for run, model, part in zip(chosen, models, splits, strict=True)
    ]
    records = []
    for job in jobs:
        with job.run.dir.lock():
            records.append(_record(job, curvature, progress))
    figure = landscape_picture([run.dir for run in chosen], records, out)
    files = tuple(job.run.path / job.file for job in jobs)
    return Landscape(tuple(chosen), records, landscape_words(records), files, figure)


def _check(runs: Sequence[Run], whole: dict[str, int | None], out: Path | None) -> None:
    if not 1 <= len(runs) <= MAX_RUNS:
        raise BadInput(f"landscape takes 1 to {MAX_RUNS} runs, not {len(runs)}")
    paths = [run.path.resolve() for run in runs]
    for path in paths:
        if paths.count(path) > 1:
            raise BadInput(f"run {path.name} is named twice")
    for name, value in whole.items():
        low, high = LIMITS[name]
        if value is not None and not low <= value <= high:
            raise BadInput(f"{name} = {value} is out of range; it takes {low} to {high}")
    if out is not None and (out.suffix != ".png" or not out.parent.is_dir()):
        raise BadInput(f"--out {str(out)!r} is not usable; it takes a .png in a folder that is there")


def _grid(grid: int, radius: float) -> list[float]:
    from netdepth.tools.landscape.surface import coordinates

    return coordinates(grid, radius)


def _data(runs: Sequence[Run], data_dir: Path | None) -> list[Splits]:
    """The data of every run, those that runs share loaded once."""
    loaded: dict[str, Splits] = {}
    keys = []
    for run in runs:
        split = run.dir.read_json("split.json") or {}
        keys.append(str([run.config.get("dataset"), split.get("data_digest"), split.get("split_digest")]))
        if keys[-1] not in loaded:
            loaded[keys[-1]] = run.data(data_dir)
    return [loaded[key] for key in keys]


def _job(run: Run, model: Network, splits: Splits, settings: dict[str, Any], weights: str | None) -> _Job:
    from netdepth.training.layers import probe_batch

    images, labels = (
        part.to(next(model.parameters()).device) for part in probe_batch(splits.train, settings["images"])
    )
    which, saved = run.weights(weights)
    identity = {
        "run": run.path.resolve().name,
        "weights": which,
        "weights_sha256": hashlib.sha256(saved).hexdigest(),
        "dataset": splits.spec.name,
        "data_digest": splits.spec.data_digest,
        "split_digest": splits.spec.split_digest,
        "part": "train",
        **settings,
        "images": len(labels),
        "batch_norm": "stored statistics",
    }
    name = f"{which}-{settings['grid']}x{settings['grid']}-r{settings['radius']:g}-n{len(labels)}-s{settings['seed']}"
    return _Job(run, model, images, labels, identity, f"{FOLDER}/{name}.json")


def _record(job: _Job, curvature: bool, progress: bool) -> dict[str, Any]:
    """The record of one run: read as far as it is there, the rest computed and saved on the way."""
    from netdepth.tools.landscape.surface import describe_surface

    steps = _grid(job.identity["grid"], job.identity["radius"])
    saved = _read(job)
    known = saved.get("loss") or []
    losses = [value for row in known for value in row]
    record: dict[str, Any] = {**job.identity, "coordinates": steps}

    def put(**more: Any) -> None:
        record.update(more)
        job.run.dir.write_json(job.file, record)

    try:
        for _ in _computed(job, steps, losses, progress):
            put(complete=False, loss=_rows(losses, len(steps)))
    except KeyboardInterrupt:
        put(complete=False, loss=_rows(losses, len(steps)))
        raise
    record |= {"complete": True, "loss": _rows(losses, len(steps))}
    record["summary"] = describe_surface(record["loss"], steps[1] - steps[0], math.log(job.model.num_classes))
    record["guessing"] = math.log(job.model.num_classes)
    record["curvature"] = saved.get("curvature")
    if record != saved:
        put()
    if curvature and record["curvature"] is None:
        put(curvature=_curvature(job, progress))
    return record


def _computed(job: _Job, steps: list[float], losses: list[float], progress: bool) -> Iterator[None]:
    """Append to ``losses`` what is missing; yields when it is time to save."""
    from netdepth.tools.landscape.surface import filter_directions, slice_losses

    total, saved_at = len(steps) ** 2, time.monotonic()
    if len(losses) == total:
        return
    directions = filter_directions(job.model, job.identity["seed"])
    title = f"landscape of {job.run.path.name}"
    with CountProgress(title, total, len(losses), shown=progress) as shown:
        for loss in slice_losses(job.model, job.images, job.labels, directions, steps, len(losses)):
            losses.append(loss)
            shown.advance(len(losses))
            if time.monotonic() - saved_at >= SAVE_SECONDS:
                yield
                saved_at = time.monotonic()


def _rows(losses: list[float], width: int) -> list[list[float]]:
    return [losses[i : i + width] for i in range(0, len(losses), width)]


def _read(job: _Job) -> dict[str, Any]:
    """The record that is there, with NaN and infinities back in their places; empty if it is of something else."""
    try:
        saved = job.run.dir.read_json(job.file) or {}
        if any(saved.get(key) != value for key, value in job.identity.items()):
            return {}
        for place, kind in saved.pop("nonfinite", {}).items():
            *inner, last = (int(i) if i.isdecimal() else i for i in re.findall(r"\w+", place))
            holder: Any = saved
            for step in inner:
                holder = holder[step]
            holder[last] = float(kind)
        whole, rest = divmod(sum(map(len, saved["loss"])), len(saved["coordinates"]))
        if [len(row) for row in saved["loss"]] != [len(saved["coordinates"])] * whole + [rest] * (rest > 0):
            return {}
    except (BadInput, AttributeError, LookupError, TypeError, ValueError):  # not of this hand: it is made again
        return {}
    del saved["schema"]
    return saved


def _curvature(job: _Job, progress: bool) -> dict[str, Any]:
    """The extreme eigenvalues of the Hessian on the same images; neither where the loss is not finite."""
    from netdepth.tools.landscape.curvature import (
        MAX_PRODUCTS,
        TOLERANCE,
        HessianProduct,
        largest_eigenvalue,
        smallest_eigenvalue,
    )

    product = HessianProduct(job.model, job.images, job.labels)
    found: dict[str, Any] = {"tolerance": TOLERANCE, "max_products": MAX_PRODUCTS, "size": product.size}
    with CountProgress(
        f"largest eigenvalue of {job.run.path.name}", MAX_PRODUCTS, at_most=True, shown=progress
    ) as shown:
        for largest in largest_eigenvalue(product, product.size, device=product.device, seed=job.identity["seed"]):
            shown.advance(largest.products, f"{largest.value:.4g}, residual {largest.residual:.2g}")
    found["largest"] = dataclasses.asdict(largest)
    if not math.isfinite(largest.value):
        return found | {"smallest": None}
    with CountProgress(
        f"smallest eigenvalue of {job.run.path.name}", MAX_PRODUCTS, at_most=True, shown=progress
    ) as shown:
        smallest = smallest_eigenvalue(
            product, product.size, device=product.device, seed=job.identity["seed"], counted=shown.advance
        )
    return found | {"smallest": dataclasses.asdict(smallest)}
