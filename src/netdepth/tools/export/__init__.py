"""``nd.export``: the network of a run as a file for others, with a model card beside it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import netdepth
from netdepth.errors import BadInput, choose
from netdepth.files.atomic import storage, write_atomic
from netdepth.training.finished import Run, load

if TYPE_CHECKING:
    from netdepth.tools.export.parity import Parity

__all__ = ["Exported", "export"]

FOLDER = "export"
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

    The file takes uint8 pixels ``[N, C, H, W]`` and gives logits ``[N, K]``. Its bytes are loaded again and have to
    give the network's logits on real validation images (`netdepth.tools.export.compare`) before anything is written.

    Args:
        run: a path or a unique prefix of a run's name.
        out: by default ``export/<run>.onnx`` or ``.safetensors`` in the run's folder.
        weights: ``best`` or ``last``; those the run reports if None.

    Raises:
        BadInput: an unfinished run, other data than the run's, an ``out`` that does not end in the format's suffix, or
            ONNX without the packages it needs.
        RunFailed: the exported file does not compute what the network does; nothing is written.
        StorageError: the data are not here, or the disk does not take the file.
    """
    from netdepth.data.fetch import SOURCES
    from netdepth.tools.export.card import model_card
    from netdepth.tools.export.formats import FORMATS
    from netdepth.tools.export.parity import compare
    from netdepth.training.layers import probe_batch

    form = FORMATS[choose(to, FORMATS, "--to")]
    form.check()
    run = run if isinstance(run, Run) else load(run, runs_dir)
    name = run.path.resolve().name
    file = _checked(out, form.suffix) if out is not None else run.path / FOLDER / (name + form.suffix)
    model = run.model(weights)
    splits = run.data(data_dir)
    part = "validation" if len(splits.val) else "training"
    images = probe_batch(splits.val if len(splits.val) else splits.train, IMAGES)[0]
    which, saved = run.weights(weights)
    digest = hashlib.sha256(saved).hexdigest()
    split = run.dir.read_json("split.json") or {}
    data = form.write(model, _metadata(run, name, which, digest, split))
    parity = compare(model, form.read(data), images)
    sha256 = hashlib.sha256(data).hexdigest()
    card = model_card(
        name=name,
        file=file.name,
        to=to,
        weights=which,
        weights_sha256=digest,
        file_sha256=sha256,
        config={key: value for key, value in run.config.items() if key != "schema"},
        split=split,
        result=run.result,
        source=SOURCES.get(split["name"]),
        parity=parity,
        checked_on=part,
        made_by=netdepth.__version__,
    )
    page = file.with_name(file.name + ".md")
    with storage(file):
        file.parent.mkdir(exist_ok=True)
    write_atomic(file, data)
    write_atomic(page, card.encode())
    return Exported(file, page, len(data), sha256, parity)


def _checked(out: Path, suffix: str) -> Path:
    if out.suffix != suffix:
        raise BadInput(f"--out {str(out)!r} has to end in {suffix}")
    if not out.parent.is_dir():
        raise BadInput(f"--out {str(out)!r} lies in no folder that is there")
    return out


def _metadata(run: Run, name: str, which: str, digest: str, split: dict[str, Any]) -> dict[str, str]:
    """What the file says of itself; values that are not text are JSON."""
    return {
        "format": "pt",
        "made_by": f"netdepth {netdepth.__version__}",
        "run": name,
        "weights": which,
        "weights_sha256": digest,
        "model": json.dumps({key: run.config["model"][key] for key in ("name", "args")}),
        "input_shape": json.dumps(split["input_shape"]),
        "classes": json.dumps(split["classes"]),
        "dataset": split["name"],
        "data_digest": split["data_digest"],
        "split_digest": split["split_digest"],
    }
