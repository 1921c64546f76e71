"""``nd.explain``: where a network looks, as pictures, and whether that matters, as numbers.

import netdepth as nd

found = nd.explain(nd.load("res8-cifar10-jpeg-s0"))
found.words                          # the answer in words
found.figures["sheet"]               # path of the contact sheet
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from netdepth.config import SCHEMA, Json, Runtime
from netdepth.errors import BadInput, choose
from netdepth.files.atomic import jsonable, write_atomic
from netdepth.models import describe
from netdepth.tools.common import html_answer, output_file, refuse_values, seen_by
from netdepth.tools.explain import sheet as sheets
from netdepth.tools.explain.examine import (
    PASSES,
    Examination,
    examine,
    picture_files,
    spread,
    validation_pictures,
)  # fmt: skip
from netdepth.tools.predict import open_network
from netdepth.training.finished import Run
from netdepth.training.process import configure
from netdepth.training.published import Published

__all__ = ["Explanation", "explain"]

MOST, FEWEST = 200, 20
"""Pictures that count in the mean maps and in the check, by default."""
CLASSIFIED = 2000
"""Validation images that are classified, so that correct and wrong ones can be shown."""
MULTIPLY_ADDS = 2e12
"""About the most that either may cost, a minute or so on two cores; a large network gets fewer pictures."""


@dataclass(frozen=True)
class Explanation:
    """What `explain` wrote: ``words``, ``figures`` by name (``sheet``, ``means``, ``check``), the ``numbers`` as their
    JSON ``file`` holds them, and ``notes``."""

    words: str
    figures: dict[str, Path]
    numbers: Mapping[str, Json]
    file: Path
    notes: list[str]

    def _repr_html_(self) -> str:
        return html_answer(self.words, self.figures)


def explain(
    run: Run | Published | Path | str,
    *,
    images: Path | str | Sequence[Path | str] | None = None,
    classes: Sequence[str] | None = None,
    count: int | None = None,
    out: Path | None = None,
    names: Path | None = None,
    invert: bool = False,
    runtime: Runtime | None = None,
    progress: bool = True,
) -> Explanation:
    """Maps of where the evidence for a prediction lies, on validation images or on your own pictures.

    Args:
        run: a run, a prefix of its name, or a ``.safetensors`` file of published weights.
        images: picture files or folders of them; None: the run's validation images. Test images are never read.
        classes: the true classes that are used and have a row; None: all, of which ten are shown.
        count: how many pictures count in the mean maps and in the check; None: 200, down to 20 for a large network.
        out: the contact sheet's file; the others lie beside it. None: in the run's ``figures``.
        names: a text file with the class names of published weights, one a line.
        invert: swap black and white in ``images``.
        runtime: device, threads, folders.

    Raises:
        BadInput: the cases in which the command exits with 2.
        StorageError: the data are not here, or a file cannot be written.
    """
    runtime = runtime or Runtime()
    if isinstance(run, str | Path):
        run = open_network(str(run), runtime.runs_root, names)
    files = [Path(path) for path in ([images] if isinstance(images, str | Path) else images or [])]
    if images is not None and not files:
        raise BadInput("images = [] names no picture; None takes the run's validation images")
    refuse_values(run, "explain shows evidence for classes")
    target = _sheet_file(run, bool(files)) if out is None else output_file(out, ".png", in_new_folder=True)
    model = run.model() if isinstance(run, Run) else run.model
    known = run.classes
    chosen = None if classes is None else [known.index(choose(name, known, "class")) for name in dict.fromkeys(classes)]
    wanted = list(range(len(known))) if chosen is None else chosen
    cost = describe(model).multiply_adds
    count = count or min(MOST, max(FEWEST, int(MULTIPLY_ADDS / (cost * PASSES))))
    if files:
        seen = seen_by(run, model)
        pictures = picture_files(files, model.input_shape, known, only=chosen, invert=invert, seen=seen)
    elif isinstance(run, Run):
        most = max(count, min(CLASSIFIED, int(MULTIPLY_ADDS / cost)))
        pictures = validation_pictures(run, runtime.data_dir, wanted, most)
    else:
        raise BadInput(f"{run.path} comes without validation images; name pictures with --images")
    process = configure(runtime, 64 * cost)
    found = examine(model.to(process.device), pictures, classes=wanted, count=count, progress=progress)
    return _written(run, found, chosen, target)


def _sheet_file(run: Run | Published, own_pictures: bool) -> Path:
    name = "explain-images.png" if own_pictures else "explain.png"
    return run.path / "figures" / name if isinstance(run, Run) else run.path.with_name(f"{run.path.stem}-{name}")


def _written(run: Run | Published, found: Examination, chosen: Sequence[int] | None, target: Path) -> Explanation:
    """The pictures and the numbers of ``found`` on disk: the contact sheet in ``target``, the others beside it."""
    title, names, labels = run.path.name, run.classes, found.pictures.labels
    present = sorted(set(labels.tolist()))
    shown = present if chosen is not None else spread(present, sheets.MAX_ROWS)
    notes = list(found.pictures.notes)
    if bool((labels >= 0).all()):
        sheet, indices = sheets.class_sheet(found, names, shown, title)
        if len(shown) < len(present):
            notes.append(f"{len(shown)} of {len(present)} classes are shown; name others with --classes")
    else:
        sheet, indices = sheets.picture_sheet(found, names, title)
        shown = sorted(found.means)
    files = {"sheet": target} | {name: target.with_name(f"{target.stem}-{name}.png") for name in ("means", "check")}
    sizes = {"sheet": sheets.draw_sheet(sheet, target)}
    sizes["check"] = sheets.draw_check(title, found.check, files["check"])
    means = sheets.mean_sheet(found, names, shown, title)
    if means is not None:
        sizes["means"] = sheets.draw_sheet(means, files["means"])
    figures = {name: path for name, path in files.items() if name in sizes}
    words = sheets.answer_words(found)
    numbers: Mapping[str, Json] = {
        "run": title,
        "weights_sha256": run.result["weights_sha256"] if isinstance(run, Run) else run.sha256,
        **_numbers(found, names, indices),
        "words": words,
        "figures": {
            name: {"file": path.name, "width": sizes[name][0], "height": sizes[name][1]}
            for name, path in figures.items()
        },
    }
    file = target.with_suffix(".json")
    write_atomic(file, json.dumps({"schema": SCHEMA, **jsonable(numbers)}, indent=1, allow_nan=False).encode() + b"\n")
    return Explanation(words, figures, numbers, file, notes)


def _numbers(found: Examination, names: Sequence[str], indices: Sequence[int]) -> Mapping[str, Json]:
    """The part of the JSON file that comes from ``found``; a mean map is kept at 16 by 16 cells or fewer."""

    def cells(mean: Tensor) -> list[list[float]]:
        small = adaptive_avg_pool2d(mean[None], (min(16, mean.shape[0]), min(16, mean.shape[1])))[0]
        return [[round(value, 4) for value in row] for row in small.tolist()]

    def row(index: int) -> Mapping[str, Json]:
        answer, label = int(found.answers[index]), int(pictures.labels[index])
        shares = found.probabilities[index]
        return {
            "picture": pictures.names[index],
            "class": names[label] if label >= 0 else None,
            "answer": names[answer],
            "probability": float(shares[answer]),
            "probability_of_class": float(shares[label]) if label >= 0 else None,
        }

    pictures = found.pictures
    known = bool((pictures.labels >= 0).any())
    return {
        "evidence": asdict(found.evidence),
        "images": {
            "n": len(pictures.inputs),
            "right": int(found.right.sum()) if known else None,
            "kind": pictures.kind,
            **pictures.source,
        },
        "sheet": [row(index) for index in indices],
        "means": [
            {"class": names[label], "n": mean.count, "map": cells(mean.map)}
            for label, mean in sorted(found.means.items())
        ],
        "check": {"pictures": [pictures.names[index] for index in found.chosen], **asdict(found.check)},
    }
