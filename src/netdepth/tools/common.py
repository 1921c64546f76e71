"""What the tools share: opening a run, the file that ``--out`` names, answers in a notebook."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from netdepth.errors import BadInput
from netdepth.files.likeness import PictureStatistics
from netdepth.files.pictures import read_picture
from netdepth.models import Network
from netdepth.training.finished import Run, load
from netdepth.training.published import Published

__all__ = ["OwnPicture", "html_answer", "open_run", "output_file", "own_picture", "seen_by"]


@dataclass(frozen=True)
class OwnPicture:
    """A user's picture as ``pixels`` uint8 ``[C, H, W]``; ``note`` says how it was resized, ``warning`` why an answer
    may mean nothing."""

    pixels: Tensor
    note: str | None
    warning: str | None


def seen_by(run: Run | Published, model: Network) -> PictureStatistics:
    """How the pictures look that ``model``, the network of ``run``, was trained on: from ``split.json``; of a run
    that does not say, and of published weights, the network's own normalisation alone."""
    split = run.dir.split() if isinstance(run, Run) else None
    if split is not None and split.pictures is not None:
        return split.pictures
    mean, scale = model.normalize.mean.double().mean(), model.normalize.scale.double().mean()
    return PictureStatistics.of_normalization(float(mean), float(1 / scale))


def own_picture(
    path: Path, shape: tuple[int, int, int], seen: PictureStatistics | None, *, invert: bool = False
) -> OwnPicture:
    """The picture at ``path`` brought to ``shape`` (C, H, W), inverted where ``invert``, and compared with ``seen``.

    Raises:
        BadInput: `read_picture` refuses it.
    """
    pixels, note, lost = read_picture(path, shape)
    taken, other = (255 - pixels, pixels) if invert else (pixels, 255 - pixels)
    differences = [] if seen is None else seen.differences(taken)
    warnings = [] if lost is None else [lost]
    if seen is not None and differences:
        warnings.append(f"unlike the pictures that this network was trained on: {'; '.join(differences)}")
        if not seen.differences(other):
            hint = "not inverted it is like them: leave out" if invert else "inverted it is like them: add"
            warnings.append(f"{hint} --invert")
    return OwnPicture(torch.tensor(taken), note, "; ".join(warnings) or None)


def open_run(run: Run | Path | str, runs_dir: Path | None = None) -> Run:
    """``run`` itself, or the run at a path, or the one whose folder name begins with it.

    Raises:
        BadInput: none or several match.
    """
    return run if isinstance(run, Run) else load(run, runs_dir)


def output_file(out: Path, suffix: str, *, in_new_folder: bool = False) -> Path:
    """``out``, if it ends in ``suffix`` and lies in a folder that exists (or may be created: ``in_new_folder``).

    Raises:
        BadInput: it does not.
    """
    if out.suffix.lower() != suffix:
        raise BadInput(f"--out {str(out)!r} has to end in {suffix}")
    if not in_new_folder and not out.parent.is_dir():
        raise BadInput(f"the folder of --out {str(out)!r} does not exist")
    return out


def html_answer(words: str, figures: Mapping[str, Path]) -> str:
    """A paragraph and pictures (by what they show) for a notebook."""

    def element(name: str, path: Path) -> str:
        picture = base64.b64encode(path.read_bytes()).decode()
        return f'<img alt="{html.escape(name)}" src="data:image/png;base64,{picture}" style="max-width:100%">'

    return f"<p>{html.escape(words)}</p>" + "".join(element(*item) for item in figures.items())
