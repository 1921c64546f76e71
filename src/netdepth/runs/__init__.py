"""Run folders: reading, writing, tables, comparison, removal; no torch. Here the documents of a folder as types.

Their fields are checked where a file is read, since a store may be somebody else's; those that only a later netdepth
knows are left alone. A result and the lines of ``metrics.jsonl`` go as they are to users, to pandas and to trackers,
so they are typed dictionaries; what netdepth alone reads is a dataclass.
"""

from __future__ import annotations

import contextlib
import functools
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Required, TypedDict

from netdepth.config import from_json
from netdepth.errors import BadInput
from netdepth.files.likeness import PictureStatistics
from netdepth.text import listed

__all__ = [
    "METRICS", "VALUE_METRICS", "WEIGHTS", "ClassScores", "DataDigests", "Environment", "Manifest", "MetricsRecord",
    "Origin", "OwnPart", "Part", "RunResult", "Scores", "SplitRecord", "fits",
]  # fmt: skip

METRICS = ("loss", "accuracy", "precision_weighted", "recall_weighted", "f1_weighted")
VALUE_METRICS = ("loss", "mse", "mae", "r2")
"""Of a run that learns values: the loss is that of its objective."""
WEIGHTS = ("best", "last")
MOST_NAMES = 5
"""Classes that are named one by one in a warning."""
MOST_PIXELS = 2**14
"""Along a side of an image, or channels, in a ``split.json`` that is believed."""


class MetricsRecord(TypedDict, total=False):
    """A line of ``metrics.jsonl``: one evaluation, after ``step`` optimizer steps (``epoch`` = step / steps per epoch).

    ``train_*`` are means over the period's batches, in training mode, as the weights moved; ``val_*``
    in eval mode at its end. Losses in nats, accuracies as fractions, ``gap`` = val_loss - train_loss.
    ``grad_norm`` and ``layer_grad_norms`` are those of the period's last step, as applied (clipped).
    ``seconds`` is wall time since the previous record was yielded; in a stack, a live replica's share
    of it. ``diverged``: the loss of the last step is NaN or Inf, and its update was not made; or a weight is
    NaN or Inf at the end of a period (an infinite weight can switch a unit off, so that the loss stays finite).
    The user's own metrics of the validation part are ``val_<name>``. A run that learns values has ``val_mse``,
    ``val_mae`` and ``val_r2`` instead of accuracies; its losses are the objective's, in the unit of the values.
    ``best`` and ``overfit_*`` are what the stopping rules say of it. In a file, NaN and Inf are null, and
    ``nonfinite`` names them.
    """

    step: Required[int]
    epoch: float
    lr: float | None
    train_loss: float | None
    train_accuracy: float | None
    val_loss: float | None
    val_accuracy: float | None
    val_mse: float | None
    val_mae: float | None
    val_r2: float | None
    gap: float | None
    grad_norm: float | None
    layer_grad_norms: dict[str, float]
    seconds: float
    diverged: bool
    best: bool
    overfit_count: int
    overfit_onset_epoch: float | None


Part = Literal["train", "val", "test"]
Scores = Mapping[str, Mapping[str, float | None]]
"""Metrics by name of the ``best`` and the ``last`` weights; None where there are none."""
ClassScores = Mapping[str, str | float]
"""``class``, ``precision``, ``recall``, ``f1`` and ``support`` of one class."""


class RunResult(TypedDict, total=False):
    """``result.json``: how a run ended, and the metrics of its best and last weights on every part of the data, the
    user's own among them.

    ``per_class`` and ``confusion`` ``[true][predicted]`` are those of the ``reported`` weights on the part
    ``evaluated_on``. ``continued_from`` is the `Origin` of a run that has one. ``seal`` holds the digests of the run's
    files (`netdepth.runs.seal`); runs from before it have none. NaN and Inf are null in the file, as in
    a `MetricsRecord`.
    """

    status: str
    steps: int
    best_step: int | None
    best_epoch: float | None
    reported: str
    weights_sha256: str | None
    train: Scores
    val: Scores
    test: Scores | None
    per_class: list[ClassScores] | None
    confusion: list[list[int]] | None
    evaluated_on: str
    overfit_onset_epoch: float | None
    gap: Mapping[str, float | None]
    depth: int
    num_params: int
    seconds: float
    total_seconds: float
    continued_from: Mapping[str, str | int]
    seal: Mapping[str, object]


class Manifest(TypedDict):
    """``MANIFEST.json`` of a checkpoint: what it says of its files."""

    sha256: dict[str, str]


@dataclass(frozen=True)
class Origin:
    """A finished ``run`` with the same config but for a smaller budget; this one goes on from its ``step``."""

    run: str
    step: int


@dataclass(frozen=True)
class OwnPart:
    """A component of a run that the user wrote: its ``kind`` and ``name``, the file (or installed module) that
    registers it, None for what was typed into a notebook, and the sha256 of what it is known by. ``values`` are what it
    uses that the file computed, as text by name."""

    kind: str
    name: str
    file: str | None
    sha256: str
    values: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Environment:
    """``environment.json``: what decides the bits of a run beside its config. Defaults are for runs that do not say.

    ``seeds`` are those of the stack the run is made in, its own alone if it is made alone.
    """

    netdepth: str
    commit: str | None = None
    uncommitted_changes: bool | None = None
    python: str | None = None
    torch: str
    numpy: str | None = None
    pictures: dict[str, str | None] | None = None
    system: str | None = None
    cpu: str | None = None
    capability: str | None = None
    """The vector instructions that PyTorch uses on this processor; older runs do not say."""
    cores: int | None = None
    device: str
    device_name: str | None = None
    threads: int
    matmul: str
    memory_format: str = "contiguous"
    """Runs from before there were convolutions do not say; nothing in them could lie otherwise."""
    world_size: int = 1
    backend: str | None = None
    flush_denormal: bool = True
    deterministic: bool | None = None
    made: str = "alone"
    stack: int = 1
    seeds: tuple[int, ...] | None = None
    continued_from: Origin | None = None
    own: tuple[OwnPart, ...] | None = None
    """The components of the user's own; None where all are netdepth's."""


class DataDigests(Protocol):
    """What a fingerprint holds of the data: the digests of `DatasetSpec`, or those that a run wrote down."""

    @property
    def data_digest(self) -> str | None: ...

    @property
    def split_digest(self) -> str | None: ...


@dataclass(frozen=True)
class SplitRecord:
    """What ``split.json`` says of a run's data; None, or empty, for what it does not say.

    ``input_shape`` is (C, H, W), ``sizes`` counts train, val and test. ``label_entropy``, in nats, is that of the
    training labels; ``pictures`` say how its training pictures look; older runs do not say. ``note`` is what a reader
    must know of the data. ``repeated`` counts the pictures of a part whose pixels are in train too, ``without_val`` are
    the classes without validation pictures. A run that learns values has no classes but ``targets``, the names of the
    values, and ``constant_loss``, the objective's loss of the best constant prediction of its training part.
    """

    name: str | None
    input_shape: tuple[int, int, int] | None
    classes: tuple[str, ...]
    sizes: Mapping[str, int]
    data_digest: str | None
    split_digest: str | None
    label_entropy: float | None
    pictures: PictureStatistics | None
    note: str = ""
    repeated: Mapping[str, int] = field(default_factory=dict)
    without_val: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    constant_loss: float | None = None

    @property
    def outputs(self) -> int:
        """How many numbers a network for these data gives for an image."""
        return len(self.targets or self.classes)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What makes the numbers on these data look better, or other, than they are."""
        names = {"val": "validation", "test": "test"}
        shown = [
            f"{number:,} of {self.sizes.get(part, 0):,} {names.get(part, part)} pictures are in train too (the same "
            f"pixels): {names.get(part, part)} numbers are too good"
            for part, number in self.repeated.items()
            if number
        ]
        if self.without_val:
            named = listed([*map(repr, self.without_val)], most=MOST_NAMES)
            shown.append(
                f"validation has no picture of {len(self.without_val)} of {len(self.classes)} classes ({named}): "
                "its numbers, early stopping and overfitting say nothing of them"
            )
        return tuple(shown)

    @classmethod
    def from_json(cls, value: Mapping[str, object]) -> SplitRecord:
        """The record in a parsed ``split.json``, whose types are checked.

        Raises:
            TypeError, ValueError: a shape, class or digest is none.
        """
        shape: Any = value.get("input_shape")
        if "input_shape" in value:
            channels, height, width = shape
            if not all(type(size) is int and 0 < size <= MOST_PIXELS for size in shape):
                raise ValueError("input_shape")
            shape = channels, height, width
        classes: Any = value.get("classes")
        if "classes" in value and not (isinstance(classes, list) and classes and all(map(_is_text, classes))):
            raise ValueError("classes")
        digests: Any = value.get("data_digest"), value.get("split_digest")
        if not all(digest is None or _is_text(digest) for digest in digests):
            raise ValueError("digest")
        pictures = None
        with contextlib.suppress(BadInput):
            pictures = from_json(PictureStatistics, value.get("pictures"), "pictures")
        targets: Any = value.get("targets", ())
        if not (isinstance(targets, list | tuple) and all(map(_is_text, targets))):
            raise ValueError("targets")
        constant = value.get("constant_loss")
        name, entropy, note = value.get("name"), value.get("label_entropy"), value.get("note")
        missing = value.get("without_val")
        return cls(
            name=name if isinstance(name, str) else None,
            input_shape=shape,
            classes=tuple(classes or ()),
            sizes=_counts(value.get("sizes")),
            data_digest=digests[0],
            split_digest=digests[1],
            label_entropy=entropy if isinstance(entropy, float) else None,
            pictures=pictures,
            note=note if isinstance(note, str) else "",
            repeated=_counts(value.get("repeated")),
            without_val=tuple(filter(_is_text, missing)) if isinstance(missing, list) else (),
            targets=tuple(targets),
            constant_loss=constant if isinstance(constant, float) else None,
        )


def _counts(value: object) -> dict[str, int]:
    return {key: size for key, size in value.items() if type(size) is int} if isinstance(value, dict) else {}


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def fits(document: type, value: Mapping[str, object]) -> bool:
    """Whether the fields of a parsed ``value`` that the typed dictionary ``document`` knows have its types."""
    known = _types(document)
    return all(type(item) in known[name] for name, item in value.items() if name in known)


@functools.cache
def _types(document: type) -> dict[str, set[type]]:
    """The types that the JSON of each field is parsed to; an integer is a number too."""
    found: dict[str, set[type]] = {}
    for name, hint in typing.get_type_hints(document).items():
        kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        plain = {typing.get_origin(kind) or kind for kind in kinds}
        found[name] = plain | ({int} if float in plain else set()) | ({dict} if Mapping in plain else set())
    return found
