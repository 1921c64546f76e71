"""What every tracker shares: the interface, the registry, the names, the shapes of values."""

from __future__ import annotations

import importlib.util
import json
import math
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeGuard

from netdepth.errors import BadInput
from netdepth.files.atomic import one_at_a_time, restored
from netdepth.registry import Registry
from netdepth.runs import MetricsRecord, Part, RunResult
from netdepth.runs.folder import RunDir, slug
from netdepth.runs.naming import flat_settings

if TYPE_CHECKING:
    from PIL import ImageFont

__all__ = [
    "NAMES", "TRACKERS", "Tracker", "Values", "confusion_matrix", "final_metrics", "flat_config", "heatmap",
    "mirror_folder", "run_id", "tracker_record",
]  # fmt: skip


class Tracker(Protocol):
    """One mirror of one run. It has its process to itself and may raise, which ends that mirror only.

    Called in this order: ``start`` once, ``log`` per evaluation, ``artifact`` per file,
    ``finish`` once. Records are plain dicts in which NaN and infinities are floats again.
    """

    def start(self, config: Mapping[str, object]) -> None:
        """``config.json`` of the run, with ``split.json`` and ``environment.json`` as keys of their names; for a run of
        a study also ``study``, ``condition`` and ``depth``, and ``phase`` ("tuning") if it only tuned a setting."""

    def log(self, record: Mapping[str, object], step: int) -> None:
        """Scalars; vectors or dicts of numbers as histograms; matrices as figures."""

    def artifact(self, path: Path) -> None:
        """A file of the run: the best weights, a picture."""

    def finish(self, result: RunResult) -> None:
        """``result.json``, or ``{"status": "interrupted" | "failed"}`` of a run that has none."""


TRACKERS: Registry[Tracker] = Registry("tracker")
"""Name -> function of ``(run_dir: Path)``. A tracker writes into `mirror_folder`."""

NAMES = {
    "train_loss": "train/loss",
    "train_accuracy": "train/accuracy",
    "val_loss": "val/loss",
    "val_accuracy": "val/accuracy",
    "grad_norm": "gradients/norm",
    "layer_grad_norms": "gradients/layer_norms",
    "gap": "overfitting/gap",
    "overfit_count": "overfitting/count",
    "overfit_onset_epoch": "overfitting/onset_epoch",
}
"""Field of ``metrics.jsonl`` -> name in every tracker; other fields keep theirs."""

RESERVED = ("checkpoints", "figures", "probes")


def mirror_folder(run_dir: Path, name: str) -> Path:
    """``<run>/<tracker name>``, the only place a tracker writes to; it is emptied before a rebuild.

    TensorBoard alone writes a file beside it, because it calls a run by the folder of its events.

    Raises:
        BadInput: the name is one of the run folder's own or not fit for a folder.
    """
    if name in RESERVED or name != slug(name):
        raise BadInput(
            f"a tracker cannot be named {name!r}; use lower-case letters, digits and hyphens, "
            f"and none of {', '.join(RESERVED)}"
        )
    return run_dir / name


def run_id(run_dir: Path) -> str:
    """Eight hex digits that are the run's own and stay with its folder, in ``mirror.json``.

    The fingerprint alone names a computation: two people who do the same one have two runs.
    """
    run = RunDir(run_dir)
    with one_at_a_time(run_dir):  # two trackers may be the first at the same moment
        found = (run.read_json("mirror.json") or {}).get("id")
        if not isinstance(found, str) or found != slug(found):
            found = uuid.uuid4().hex[:8]
            run.write_json("mirror.json", {"id": found})
    return found


def tracker_record(record: MetricsRecord) -> dict[str, object]:
    """One line of ``metrics.jsonl`` under the trackers' names, without its flags and what is null."""
    kept = {key: item for key, item in restored(record).items() if key not in ("step", "best") and item is not None}
    return {
        NAMES.get(key, re.sub("^val_", "val/", key)): item  # a metric of the user's own is there as val_<name>
        for key, item in kept.items()
    }


@dataclass(frozen=True)
class Values:
    """A record sorted by shape, matrices as PNG; what is no number is left out."""

    scalars: dict[str, float] = field(default_factory=dict)
    vectors: dict[str, list[float]] = field(default_factory=dict)
    pictures: dict[str, bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, record: Mapping[str, object]) -> Values:
        """Sort ``record``. Vectors keep only finite numbers, which is all that a histogram can hold."""
        values = cls()
        for name, item in record.items():
            if _number(item):
                values.scalars[name] = item
                continue
            items = list(item.values()) if isinstance(item, Mapping) else item
            if not isinstance(items, list) or not items:
                continue
            if all(_number(x) or x is None for x in items):
                finite = [x for x in items if x is not None and math.isfinite(x)]
                values.vectors.update({name: finite} if finite else {})
            elif all(isinstance(row, list) and row and all(map(_number, row)) for row in items):
                values.pictures[name] = heatmap(items, name)
        return values


def _number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def flat_config(config: Mapping[str, object]) -> dict[str, bool | int | float | str]:
    """The hyperparameters of ``config.json`` as one level: ``model``, ``model.width``, ``seed``, ``condition``."""
    settings = flat_settings({key: value for key, value in config.items() if key not in ("split", "environment")})
    more = {key: config.get(key) for key in ("seed", "recipe")}
    return {  # a text among numbers would make a list of names of a range
        path: value if isinstance(value, bool | int | float | str) else json.dumps(value)
        for path, value in {**settings, **more}.items()
        if value is not None
    }


def final_metrics(result: RunResult) -> dict[str, float]:
    """All metrics of the reported weights: ``test/…``, and ``final/train/…``, ``final/val/…`` beside the curves."""
    metrics: dict[str, float] = {}
    prefixes: dict[Part, str] = {"test": "test", "val": "final/val", "train": "final/train"}
    for part, prefix in prefixes.items():
        values = (result.get(part) or {}).get(result.get("reported", ""), {})
        metrics.update({f"{prefix}/{name}": value for name, value in values.items() if _number(value)})
    return metrics


def confusion_matrix(result: RunResult, config: Mapping[str, object]) -> bytes | None:
    """The confusion matrix of the result as a PNG, or None where there is none."""
    matrix = result.get("confusion")
    if not matrix:
        return None
    split = config.get("split")
    classes = split.get("classes", ()) if isinstance(split, Mapping) else ()
    classes = [str(name) for name in classes or range(len(matrix))]
    return heatmap(matrix, f"confusion matrix ({result.get('evaluated_on', 'test')})", classes, "predicted", "true")


def heatmap(
    matrix: Sequence[Sequence[float]], title: str, labels: Sequence[str] = (), across: str = "", down: str = ""
) -> bytes:
    """A matrix ``[rows][columns]`` as a PNG of 600 x 600; cells carry their numbers up to 20 rows.

    Drawn without matplotlib, whose import takes longer than all else in a mirror: the end of a short run waits for it.
    """
    import io

    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    image, left, top, side = Image.new("RGB", (600, 600), "white"), 120, 50, 456
    draw = ImageDraw.Draw(image)

    def write(text: str, x: float, y: float, *, height: int = 12, anchor: str = "mm", colour: str = "black") -> None:
        draw.text((left + x, top + y), text, colour, _font(height), anchor)

    def write_upright(text: str, x: float, y: float, height: int = 12) -> None:
        font = ImageFont.TransposedFont(_font(height), Image.Transpose.ROTATE_90)
        _, _, wide, high = font.getbbox(text)
        draw.text((left + x - wide / 2, top + y - high / 2), text, "black", font)

    values = np.array(matrix, dtype=float)
    known = np.isfinite(values)
    finite = np.where(known, values, 0.0)
    low, high = min(finite.min(), 0.0), max(finite.max(), 0.0)
    shades = (finite - low) / (high - low or 1.0)
    colours = np.rint(LIGHT + (np.array(DARK) - LIGHT) * shades[..., None])
    colours = np.where(known[..., None], colours, NO_NUMBER).astype(np.uint8)
    image.paste(Image.fromarray(colours).resize((side, side), Image.Resampling.NEAREST), (left, top))
    draw.rectangle((left, top, left + side, top + side), outline="black")
    write(title, side / 2, -25, height=15)
    write(across, side / 2, 539, height=15)
    write_upright(down, -104, side / 2, 15)
    high_cell, wide_cell = side / np.array(values.shape)
    for index, label in enumerate(labels if len(labels) <= 20 else ()):
        write(_short(label, 14), -6, (index + 0.5) * high_cell, anchor="rm")
        if max(map(len, labels)) <= 3:
            write(label, (index + 0.5) * wide_cell, side + 12)
        else:
            write_upright(_short(label, 10), (index + 0.5) * wide_cell, side + 40)
    for (i, j), value in np.ndenumerate(values) if len(values) <= 20 else ():
        colour = "white" if known[i, j] and shades[i, j] > 0.5 else "black"
        write(f"{value:g}", (j + 0.5) * wide_cell, (i + 0.5) * high_cell, colour=colour)
    buffer = io.BytesIO()
    image.save(buffer, format="png")
    return buffer.getvalue()


LIGHT, DARK, NO_NUMBER = (247, 251, 255), (8, 48, 107), (220, 220, 220)
"""The colours of the smallest and the largest value, and of what is no number."""


def _font(height: int) -> ImageFont.FreeTypeFont:
    """The font that matplotlib brings, which has more letters than Pillow's own."""
    from PIL import ImageFont

    found = importlib.util.find_spec("matplotlib")
    folder = Path(str(found and found.origin)).parent / "mpl-data" / "fonts" / "ttf"
    return ImageFont.truetype(str(folder / "DejaVuSans.ttf"), height)


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
