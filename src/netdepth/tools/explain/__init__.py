"""``nd.explain``: where a network looks, as pictures, and whether that matters, as numbers.

import netdepth as nd

found = nd.explain(nd.load("res8-cifar10-jpeg-s0"))
found.words                          # the answer in words
found.figures["sheet"]               # path of the contact sheet
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netdepth.config import SCHEMA, Runtime
from netdepth.errors import BadInput, choose
from netdepth.files.atomic import write_atomic
from netdepth.files.records import jsonable
from netdepth.tools.predict import open_network
from netdepth.training.finished import Run

if TYPE_CHECKING:
    from torch import Tensor

    from netdepth.tools.convert.published import Published
    from netdepth.tools.explain.examine import Examined

__all__ = ["Explanation", "explain"]

MOST, FEWEST = 200, 20
"""Pictures that count in the mean maps and in the check, where nothing else is asked for."""
LOOKED_AT = 2000
"""Validation images that are answered, so that right and wrong ones can be shown."""
MULTIPLY_ADDS = 2e12
"""About what either may cost, a minute or so on two cores; a large network looks at fewer pictures."""


@dataclass(frozen=True)
class Explanation:
    """What `explain` made: ``words``, ``figures`` by name (``sheet``, ``means``, ``check``), the ``numbers`` and
    their ``file``, and ``notes``."""

    words: str
    figures: dict[str, Path]
    numbers: dict[str, Any]
    file: Path
    notes: list[str]

    def _repr_html_(self) -> str:
        import base64
        import html

        def element(name: str, path: Path) -> str:
            picture = base64.b64encode(path.read_bytes()).decode()
            return f'<img alt="{name}" src="data:image/png;base64,{picture}" style="max-width:100%">'

        return f"<p>{html.escape(self.words)}</p>" + "".join(element(*item) for item in self.figures.items())


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
    """Maps of where the evidence for an answer lies, on validation images or on pictures of one's own.

    Args:
        run: a run, a prefix of its name, or a ``.safetensors`` file of published weights.
        images: picture files or folders of them; None: the run's validation images. Test images are never read.
        classes: the true classes that are looked at and have a row; None: all, of which ten are shown.
        count: how many pictures count in the mean maps and in the check; None: 200, down to 20 for a large network.
        out: the contact sheet's file; the others lie beside it. None: in the run's ``figures``.
        names: a text file with the class names of published weights, one a line.
        invert: swap black and white in ``images``.
        runtime: device, threads, folders.

    Raises:
        BadInput: what the command line would answer with exit 2.
        StorageError: the data are not here, or a file cannot be written.
    """
    from netdepth.models import describe
    from netdepth.tools.explain import examine as explaining
    from netdepth.tools.explain.subjects import given_pictures, validation_pictures
    from netdepth.training.process import configure

    runtime = runtime or Runtime()
    if isinstance(run, str | Path):
        run = open_network(str(run), runtime.runs_root, names)
    given = [Path(path) for path in ([images] if isinstance(images, str | Path) else images or [])]
    if images is not None and not given:
        raise BadInput("images = [] names no picture; None takes the run's validation images")
    target = _target(run, out, bool(given))
    model = run.model() if isinstance(run, Run) else run.model
    known = run.classes
    chosen = None if classes is None else [known.index(choose(name, known, "class")) for name in dict.fromkeys(classes)]
    wanted = list(range(len(known))) if chosen is None else chosen
    cost = describe(model).multiply_adds
    looked_at = min(LOOKED_AT, int(MULTIPLY_ADDS / cost))
    count = count or min(MOST, max(FEWEST, int(MULTIPLY_ADDS / (cost * explaining.PASSES))))
    if not given:
        if not isinstance(run, Run):
            raise BadInput(f"{run.path} comes without validation images; name pictures with --images")
        subjects = validation_pictures(run.dir, runtime.data_dir, wanted, max(looked_at, count))
    else:
        subjects = given_pictures(given, model.input_shape, known, only=chosen, invert=invert)
    process = configure(runtime, 64 * cost)
    examined = explaining.examine(model.to(process.device), subjects, classes=wanted, count=count, progress=progress)
    return _written(run, examined, chosen, target)


def _target(run: Run | Published, out: Path | None, given: bool) -> Path:
    """The sheet's file; the other files have its name with a word more."""
    if out is not None:
        if out.suffix.lower() != ".png":
            raise BadInput(f"--out {str(out)!r} has to end in .png")
        return out
    name = "explain-images.png" if given else "explain.png"
    if isinstance(run, Run):
        return run.path / "figures" / name
    return run.path.with_name(f"{run.path.stem}-{name}")


def _written(run: Run | Published, examined: Examined, chosen: Sequence[int] | None, target: Path) -> Explanation:
    """The pictures and the numbers of ``examined`` on disk."""
    from netdepth.tools.explain.check_picture import draw_check
    from netdepth.tools.explain.sheet import draw_sheet
    from netdepth.tools.explain.sheets import MAX_ROWS, class_sheet, mean_sheet, picture_sheet
    from netdepth.tools.explain.subjects import spread

    title, names, labelled = run.path.name, run.classes, bool((examined.subjects.labels >= 0).all())
    present = sorted(set(examined.subjects.labels.tolist()))
    shown = present if chosen is not None else spread(present, MAX_ROWS)
    notes = list(examined.subjects.notes)
    if labelled:
        sheet, places = class_sheet(examined, names, shown, title)
        if len(shown) < len(present):
            notes.append(f"{len(shown)} of {len(present)} classes are shown; --classes names others")
    else:
        sheet, places = picture_sheet(examined, names, title)
    figures = {name: target.with_name(f"{target.stem}-{name}.png") for name in ("means", "check")}
    sizes = {"sheet": draw_sheet(sheet, target), "check": draw_check(title, examined.check, figures["check"])}
    means = mean_sheet(examined, names, shown if labelled else sorted(examined.means), title)
    if means is not None:
        sizes["means"] = draw_sheet(means, figures["means"])
    figures = {name: path for name, path in {"sheet": target, **figures}.items() if name in sizes}
    words = _words(examined, labelled)
    numbers = {
        "run": title,
        "weights_sha256": run.result["weights_sha256"] if isinstance(run, Run) else run.sha256,
        **_numbers(examined, names, places),
        "words": words,
        "figures": {
            name: {"file": path.name, "width": sizes[name][0], "height": sizes[name][1]}
            for name, path in figures.items()
        },
    }
    file = target.with_suffix(".json")
    write_atomic(file, json.dumps({"schema": SCHEMA, **jsonable(numbers)}, indent=1, allow_nan=False).encode() + b"\n")
    return Explanation(words, figures, numbers, file, notes)


def _words(examined: Examined, labelled: bool) -> str:
    """What was found, as a paragraph."""
    from netdepth.tools.explain.check_picture import METHODS, check_words

    subjects = examined.subjects
    method, n, right = examined.evidence.method, len(subjects.inputs), int(examined.right.sum())
    said = [f"{METHODS[method][:1].upper()}{METHODS[method][1:]}, {n:,} {subjects.kind}."]
    if method == "saliency":
        said.append(
            "The network has no feature maps; its gradients say where its answer is sensitive, which is not the same "
            "as where the evidence lies."
        )
    if labelled:
        said.append(f"{right:,} of {n:,} are answered rightly ({100 * right / n:.1f} %).")
    return " ".join([*said, *check_words(examined.check, subjects.kind)])


def _numbers(examined: Examined, names: Sequence[str], places: Sequence[int]) -> dict[str, Any]:
    """What ``explain.json`` holds of ``examined``; a mean map is kept at 16 by 16 cells or fewer."""
    from torch.nn.functional import adaptive_avg_pool2d

    def cells(mean: Tensor) -> list[list[float]]:
        small = adaptive_avg_pool2d(mean[None], (min(16, mean.shape[0]), min(16, mean.shape[1])))[0]
        return [[round(value, 4) for value in row] for row in small.tolist()]

    subjects = examined.subjects
    known = bool((subjects.labels >= 0).any())
    return {
        "evidence": asdict(examined.evidence),
        "images": {
            "n": len(subjects.inputs),
            "right": int(examined.right.sum()) if known else None,
            "kind": subjects.kind,
            **subjects.source,
        },
        "sheet": [_row(examined, names, place) for place in places],
        "means": [
            {"class": names[label], "n": count, "map": cells(mean)}
            for label, (count, _, mean) in sorted(examined.means.items())
        ],
        "check": {"pictures": [subjects.names[place] for place in examined.chosen], **examined.check.as_json()},
    }


def _row(examined: Examined, names: Sequence[str], place: int) -> dict[str, Any]:
    """One picture of the sheet in plain values."""
    answer, label = int(examined.answers[place]), int(examined.subjects.labels[place])
    shares = examined.probabilities[place]
    return {
        "picture": examined.subjects.names[place],
        "class": names[label] if label >= 0 else None,
        "answer": names[answer],
        "probability": float(shares[answer]),
        "probability_of_class": float(shares[label]) if label >= 0 else None,
    }
