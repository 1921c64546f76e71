"""What the tools share: opening a run, the file that ``--out`` names, answers in a notebook."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from netdepth.errors import BadInput
from netdepth.files.likeness import PictureStatistics
from netdepth.files.pictures import ReadPicture, read_picture
from netdepth.models import Network
from netdepth.training.finished import Run, load, network_of, weights_of
from netdepth.training.published import SUFFIX, Published, open_published

__all__ = [
    "Opened",
    "html_answer",
    "open_run",
    "open_weights",
    "output_file",
    "own_picture",
    "refuse_values",
    "seen_by",
]


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
) -> ReadPicture:
    """The picture at ``path`` brought to ``shape`` (C, H, W), inverted where ``invert``. Its warning says why an answer
    may mean nothing, by `read_picture` and by comparison with ``seen``.

    Raises:
        BadInput: `read_picture` refuses it.
    """
    picture = read_picture(path, shape)
    taken, other = (255 - picture.pixels, picture.pixels) if invert else (picture.pixels, 255 - picture.pixels)
    warnings = [picture.warning] if picture.warning else []
    if seen is not None and (differences := seen.differences(taken)):
        warnings.append(f"unlike the pictures that this network was trained on: {'; '.join(differences)}")
        if not seen.differences(other):
            hint = "not inverted it is like them: leave out" if invert else "inverted it is like them: add"
            warnings.append(f"{hint} --invert")
    return ReadPicture(taken, picture.note, "; ".join(warnings) or None)


@dataclass(frozen=True)
class Opened:
    """The ``network`` of ``source``, which is called ``name``, in eval mode; ``which`` weights it has (``best`` or
    ``last`` of a run, ``published`` in a file) and their ``sha256``."""

    source: Run | Published
    name: str
    which: str
    sha256: str
    network: Network


def open_weights(run: Run | Path | str, weights: str | None = None, runs_dir: Path | None = None) -> Opened:
    """The ``weights`` of a run, those that it reports if None; or those in a ``.safetensors`` file.

    Raises:
        BadInput: no such run, an unfinished one, a file that fits no network, ``weights`` of a file.
    """
    if isinstance(run, Run) or not str(run).endswith(SUFFIX):
        run = open_run(run, runs_dir)
        found = weights_of(run.dir, weights)
        return Opened(run, run.path.resolve().name, found.which, found.sha256, network_of(found))
    if weights is not None:
        raise BadInput(f"--weights {weights} is for a run; {run} holds one set of weights")
    file = open_published(Path(run))
    return Opened(file, file.path.name, "published", file.sha256, file.model)


def refuse_values(run: Run | Published, what: str) -> None:
    """Refuse, in one line, a run that learns values for ``what`` is about classes alone."""
    if isinstance(run, Run) and run.targets:
        raise BadInput(f"run {run.path.resolve().name} learns values ({', '.join(run.targets)}), and {what}")


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
