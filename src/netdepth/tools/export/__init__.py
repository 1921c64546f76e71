"""``nd.export``: the network of a run as a file for others, with a model card beside it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

import netdepth
from netdepth.config import to_json
from netdepth.data import DatasetSpec
from netdepth.errors import choose
from netdepth.files.atomic import write_atomic
from netdepth.tools.common import Opened, open_weights, output_file, refuse_values
from netdepth.tools.export.card import model_card, weights_card
from netdepth.tools.export.formats import FORMATS, Format, Parity, compare
from netdepth.training.finished import Run
from netdepth.training.layers import probe_batch
from netdepth.training.published import Published

__all__ = ["Exported", "export"]

FOLDER = "export"
NOISE = 8
"""Images of noise for a network that comes without data."""
IMAGES = 1000
"""Validation images, evenly spread, on which the file has to agree with the network."""


@dataclass(frozen=True)
class Exported:
    """The file, its model card, and how closely it agrees with the trained network."""

    file: Path
    card: Path
    bytes: int
    sha256: str
    parity: Parity


def export(
    run: str | Path | Run,
    *,
    to: Literal["onnx", "safetensors"],
    out: Path | None = None,
    weights: Literal["best", "last"] | None = None,
    data_dir: Path | None = None,
    runs_dir: Path | None = None,
) -> Exported:
    """Write the network of ``run`` to ``out`` and a model card to the same path with ``.md`` at its end.

    ``run`` may be a ``.safetensors`` file of weights; without data of its own, it is compared on noise.

    The file takes uint8 pixels ``[N, C, H, W]`` and gives logits ``[N, K]``. Its bytes are loaded again and have to
    give the network's logits on real validation images (`netdepth.tools.export.formats.compare`) before it is written.

    Args:
        run: a path or a unique prefix of a run's name, or a file of weights.
        out: by default ``export/<run>.onnx`` or ``.safetensors`` in the run's folder; of a file ``<file>-export``.
        weights: ``best`` or ``last``; those the run reports if None.

    Raises:
        BadInput: an unfinished run, other data than the run's, an ``out`` that does not end in the format's suffix, or
            ONNX without the packages it needs.
        RunFailed: the exported file does not compute what the network does; nothing is written.
        StorageError: the data are not here, or the file cannot be written.
    """
    form = FORMATS[choose(to, FORMATS, "--to")]
    form.check()
    found = open_weights(run, weights, runs_dir)
    if isinstance(found.source, Published):
        return _exported_file(found.source, form, to, out)
    run, model = found.source, found.network
    refuse_values(run, "export checks and describes networks of classes only; run.weights() gives its safetensors file")
    default = run.path / FOLDER / (found.name + form.suffix)
    file = default if out is None else output_file(out, form.suffix)
    splits = run.data(data_dir)
    part = "validation" if len(splits.val) else "training"
    images = probe_batch(splits.val if len(splits.val) else splits.train, IMAGES)[0]
    content = form.write(model, _metadata(run, found, splits.spec))
    parity = compare(model, form.read(content), images)
    sha256 = hashlib.sha256(content).hexdigest()
    card = model_card(
        run, found, splits.spec, file=file.name, to=to, file_sha256=sha256, parity=parity, checked_on=part
    )
    return _written(file, content, card, parity)


def _written(file: Path, content: bytes, card: str, parity: Parity) -> Exported:
    page = file.with_name(file.name + ".md")
    write_atomic(file, content, parents=True)
    write_atomic(page, card.encode())
    return Exported(file, page, len(content), hashlib.sha256(content).hexdigest(), parity)


def _exported_file(weights: Published, form: Format, to: str, out: Path | None) -> Exported:
    """The network of a file of weights. There are no images of its own, so both compute the same noise."""
    default = weights.path.with_name(f"{weights.path.stem}-export{form.suffix}")
    file = default if out is None else output_file(out, form.suffix)
    model, shape = weights.model, weights.model.input_shape
    content = form.write(
        model,
        {
            "format": "pt",
            "made_by": f"netdepth {netdepth.__version__}",
            "source": weights.path.name,
            "weights_sha256": weights.sha256,
            "model": json.dumps(to_json(weights.component)),
            "input_shape": json.dumps(list(shape)),
            "classes": json.dumps(list(weights.classes)),
        },
    )
    noise = torch.randint(0, 256, (NOISE, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    parity = compare(model, form.read(content), noise)
    return _written(file, content, weights_card(weights, file=file.name, to=to, parity=parity), parity)


def _metadata(run: Run, weights: Opened, spec: DatasetSpec) -> dict[str, str]:
    """The file's own description of its content; values that are not text are JSON."""
    return {
        "format": "pt",
        "made_by": f"netdepth {netdepth.__version__}",
        "run": weights.name,
        "weights": weights.which,
        "weights_sha256": weights.sha256,
        "model": json.dumps({key: run.config["model"][key] for key in ("name", "args")}),
        "input_shape": json.dumps(list(spec.input_shape)),
        "classes": json.dumps(list(spec.classes)),
        "dataset": spec.name,
        "data_digest": spec.data_digest,
        "split_digest": spec.split_digest,
    }
