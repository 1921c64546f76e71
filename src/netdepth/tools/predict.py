"""``nd.predict``: picture files classified by a finished run, or by published weights; or given the values that a run
has learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from netdepth.errors import BadInput
from netdepth.text import number
from netdepth.tools.common import own_picture, seen_by
from netdepth.training.finished import Run, load
from netdepth.training.published import Published, open_published

__all__ = ["Prediction", "open_network", "predict"]


@dataclass(frozen=True)
class Prediction:
    """The prediction for one picture: ``label``, and every class with its probability, most likely first. Of a run that
    learns values: ``values``, each with its name, in the unit of the data; its ``label`` is the same as text.

    ``note`` says how the picture was resized; ``warning``, if it is not None, why the answer may mean nothing: the
    picture is unlike those the network was trained on (`netdepth.files.likeness`), or most of its grey levels are lost.
    """

    path: Path
    label: str
    probabilities: list[tuple[str, float]]
    note: str | None
    warning: str | None = None
    values: tuple[tuple[str, float], ...] = ()


def open_network(text: str, runs_dir: Path | None = None, names: Path | None = None) -> Run | Published:
    """The network that ``predict`` and ``explain`` use: a run, or published weights in a ``.safetensors`` file.

    ``names`` is a text file with the name of each class of such weights, one a line.

    Raises:
        BadInput: none or several runs match, a file that is not what it should be, ``names`` for a run.
    """
    if not text.endswith(".safetensors"):
        if names is not None:
            raise BadInput(
                f"--names {str(names)!r} is for published weights (FILE.safetensors); a run has its own names"
            )
        return load(text, runs_dir)
    try:
        lines = None if names is None else names.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot read --names {str(names)!r}: {getattr(error, 'strerror', None) or error}") from None
    return open_published(Path(text), lines)


def predict(run: Run | Published, images: Sequence[Path], *, invert: bool = False) -> list[Prediction]:
    """Classify picture files (or give their values) with the reported weights of ``run``, or with published ones.

    A picture is brought to the network's channels and size as those of ``image-folder`` are
    (`netdepth.files.pictures.read_picture`); ``invert`` swaps black and white (MNIST digits are white on black).

    Raises:
        BadInput: a file that is not a readable picture, or an unfinished run.
    """
    model, classes = run.model() if isinstance(run, Run) else run.model, run.classes
    targets = run.targets if isinstance(run, Run) else ()
    seen = seen_by(run, model)
    predictions = []
    for path in images:
        picture = own_picture(Path(path), model.input_shape, seen, invert=invert)
        with torch.inference_mode():
            outputs = model(torch.tensor(picture.pixels[None]))[0].double()
        if targets:
            values = tuple(zip(targets, outputs.tolist(), strict=True))
            said = number(values[0][1]) if len(values) == 1 else ", ".join(f"{n} {number(v)}" for n, v in values)
            predictions.append(Prediction(Path(path), said, [], picture.note, picture.warning, values))
            continue
        ranked = sorted(zip(classes, outputs.softmax(0).tolist(), strict=True), key=lambda item: -item[1])
        predictions.append(Prediction(Path(path), ranked[0][0], ranked, picture.note, picture.warning))
    return predictions
