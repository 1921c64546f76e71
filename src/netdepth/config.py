"""What is computed: typed, frozen, JSON in and out, fingerprinted. Standard library only.

`RunConfig` says everything that decides the numbers of a run and is hashed; `Runtime` says
where and how it runs and never is.
"""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import functools
import hashlib
import json
import math
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from netdepth.errors import BadInput, choose

__all__ = [
    "SCHEMA",
    "Component",
    "Duration",
    "EarlyStopping",
    "Json",
    "Overfitting",
    "RunConfig",
    "Runtime",
    "Settings",
    "StartFrom",
    "TrainConfig",
    "canonical_json",
    "derive_seed",
    "digest",
    "from_json",
    "require",
    "to_json",
    "type_name",
]

SCHEMA = 1
"""Version of every JSON file netdepth writes."""

if TYPE_CHECKING:
    Json: TypeAlias = bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"] | None
else:
    Json = Any  # `from_json` reads annotations, and takes every value here
"""A value as JSON has it."""

Settings: TypeAlias = Mapping[str, Json]
"""Settings by their names, or by their paths as ``--set`` takes them."""

Stream = Literal["init", "order", "augment", "dropout", "split", "landscape", "curvature"]
MAX_SEED = 2**63 - 1


def derive_seed(seed: int, stream: Stream, *index: int) -> int:
    """The 63-bit seed of a named random stream, e.g. ``derive_seed(0, "order", epoch)``.

    Streams are independent of one another, so the augmentation of step t or the order of
    epoch e is known without replaying what came before.
    """
    text = ":".join([str(seed), stream, *map(str, index)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


@dataclass(frozen=True)
class Duration:
    """A length of training: ``64000it`` (optimizer steps) or ``164ep`` (epochs)."""

    value: int
    unit: Literal["it", "ep"]

    @classmethod
    def parse(cls, text: object, path: str = "duration") -> Duration:
        match = re.fullmatch(r"(\d{1,12})(it|ep)", text, re.ASCII) if isinstance(text, str) else None
        if match is None or int(match[1]) == 0:
            raise BadInput(f"{path} = {text!r} is not a duration; it takes {DURATIONS}")
        return cls(int(match[1]), "it" if match[2] == "it" else "ep")

    def steps(self, steps_per_epoch: int) -> int:
        """The duration in optimizer steps."""
        return self.value if self.unit == "it" else self.value * steps_per_epoch

    def __str__(self) -> str:
        return f"{self.value}{self.unit}"


@dataclass(frozen=True)
class Component:
    """A named choice with its settings; its registry fills in what is left out."""

    name: str
    args: Settings = field(default_factory=dict)
    version: int | None = None


def require(condition: bool, path: str, value: object, good: str) -> None:
    """Raise BadInput, naming ``path``, ``value`` and the ``good`` values, unless ``condition`` holds."""
    if not condition:
        wrong = "not acceptable" if isinstance(value, str) else "out of range"
        raise BadInput(f"{path} = {value!r} is {wrong}; it takes {good}")


def _said(default: Any, meaning: str, takes: str | None = None) -> Any:
    """A field with what ``netdepth list settings`` says of it, and what it takes where its type does not say that."""
    return field(default=default, metadata={"meaning": meaning, "takes": takes})


@dataclass(frozen=True)
class EarlyStopping:
    """Stop after ``patience`` evaluations in which ``monitor`` did not improve by ``min_delta``."""

    monitor: Literal["val_loss", "val_accuracy"] = _said("val_loss", "the metric that has to improve")
    patience: int = _said(5, "evaluations without improvement before training stops")
    min_delta: float = _said(0.0, "how much better counts as an improvement")

    def __post_init__(self) -> None:
        require(self.patience >= 1, "early_stopping.patience", self.patience, "1 or more")
        require(self.min_delta >= 0, "early_stopping.min_delta", self.min_delta, "0 or more")


@dataclass(frozen=True)
class Overfitting:
    """Overfitting: in ``patience`` evaluations in a row, the validation loss is more than ``delta`` nats above its best
    while the training loss is below its value at that best."""

    patience: int = _said(3, "evaluations in a row that count as overfitting")
    delta: float = _said(0.0, "nats by which the validation loss is above its best")
    action: Literal["flag", "stop"] = _said("flag", "flag: only say so; stop: end the training")

    def __post_init__(self) -> None:
        require(self.patience >= 1, "overfitting.patience", self.patience, "1 or more")
        require(self.delta >= 0, "overfitting.delta", self.delta, "0 or more (nats)")


DURATIONS = "steps, written as 2000it, or epochs, as 20ep"


@dataclass(frozen=True)
class TrainConfig:
    """How long and how a network is trained; ``batch_size`` is global, over all processes."""

    budget: str = _said("20ep", "length of the training", DURATIONS)
    eval_every: str = _said("1ep", "how often the network is evaluated on validation data", DURATIONS)
    batch_size: int = _said(128, "images per step, over all processes")
    early_stopping: EarlyStopping | None = _said(None, "when to stop early; null: never")  # noqa: RUF009
    overfitting: Overfitting | None = _said(None, "how overfitting is found; null: not at all")  # noqa: RUF009
    precision: Literal["float32", "float64", "bf16", "auto"] = _said("float32", "precision of a training step")
    grad_clip_norm: float | None = _said(None, "largest norm of the whole gradient; null: no limit")

    def __post_init__(self) -> None:
        for name in ("budget", "eval_every"):
            object.__setattr__(self, name, str(Duration.parse(getattr(self, name), f"train.{name}")))
        require(1 <= self.batch_size <= 2**20, "train.batch_size", self.batch_size, "1 to 1048576")
        if self.grad_clip_norm is not None:
            require(self.grad_clip_norm > 0, "train.grad_clip_norm", self.grad_clip_norm, "a number above 0, or null")


@dataclass(frozen=True)
class StartFrom:
    """A finished run whose weights a run begins with (transfer learning), and what of them is trained.

    ``run`` is a path or a unique prefix of a folder name; ``weights`` None are those that its result reports. Or it is
    a file of published weights, FILE.safetensors.
    ``sha256`` is that of their file: it is filled in when the run is found, it alone is hashed, and from then on
    other weights are refused. ``reset_head`` initialises the last stage again, which other classes need. The stages in
    ``freeze`` stay as they are; with ``unfreeze_every`` the last of them, nearest to the head, joins the training
    after so long, then the one before, and so on (Howard & Ruder 2018, "Universal Language Model Fine-tuning",
    §3.3). ``lr_scale`` multiplies the learning rate of stages by name (ibid., §3.2). `Network.stage_paths` names
    them.
    """

    run: str = field(metadata={"meaning": "the finished run to start from: a path or the beginning of its name"})
    weights: Literal["best", "last"] | None = _said(None, "which of its weights; null: those that it reports")
    sha256: str | None = _said(None, "digest of those weights; null: filled in")
    reset_head: bool = _said(True, "draw the last stage anew, as other classes need")
    freeze: tuple[str, ...] = _said((), "stages that stay as they are", 'a list of stages, such as ["stem","stage1"]')
    unfreeze_every: str | None = _said(None, "how often one more frozen stage joins the training", DURATIONS)
    lr_scale: Mapping[str, float] = field(
        default_factory=dict,
        metadata={"meaning": "factor of the learning rate by stage", "takes": 'an object, such as {"stem":0.1}'},
    )

    def __post_init__(self) -> None:
        require(bool(self.run.strip()), "start_from.run", self.run, "a run (a path or a prefix), or FILE.safetensors")
        if self.unfreeze_every is not None:
            length = Duration.parse(self.unfreeze_every, "start_from.unfreeze_every")
            object.__setattr__(self, "unfreeze_every", str(length))
            require(
                bool(self.freeze), "start_from.unfreeze_every", str(length), "null where start_from.freeze is empty"
            )
        for stage, factor in self.lr_scale.items():
            number = isinstance(factor, int | float) and not isinstance(factor, bool) and 0 < factor < 1e9
            require(number, f"start_from.lr_scale.{stage}", factor, "a number above 0 (start_from.freeze for none)")

    def hashed(self) -> Settings:
        """The part that enters the fingerprint: the weights themselves, not where they lie."""
        return {key: value for key, value in to_json(self).items() if key not in ("run", "weights")}


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides the numbers of one run."""

    dataset: Component
    model: Component
    objective: Component = Component("cross-entropy")
    optimizer: Component = Component("adam")
    schedule: Component = Component("constant")
    augmentation: Component = Component("none")
    train: TrainConfig = TrainConfig()
    seed: int = 0
    start_from: StartFrom | None = None

    def __post_init__(self) -> None:
        require(0 <= self.seed <= MAX_SEED, "seed", self.seed, f"0 to {MAX_SEED}")

    @property
    def augmented(self) -> bool:
        """Whether training images are altered. If not, the field, which was added later, is in no fingerprint."""
        return self.augmentation.name != "none"

    def with_seed(self, seed: int) -> RunConfig:
        return dataclasses.replace(self, seed=seed)


DEFAULT_TRACKERS = ("tensorboard",)
"""The trackers of ``netdepth train`` unless ``--track`` names others."""


@dataclass(frozen=True)
class Runtime:
    """Where and how a run is computed; no field of it enters the fingerprint.

    ``runs_root`` None means ``$NETDEPTH_RUNS`` or ``./runs``; ``data_dir`` None means
    ``$NETDEPTH_DATA``, then the user cache. ``fresh`` ignores what the run folder holds.
    ``sealed`` never opens the test part, for choosing settings on validation; such runs lie in
    ``runs/tuning`` and their test metrics are null. ``probes``: record layer statistics during training.
    """

    device: str = "auto"
    threads: int | None = None
    trackers: tuple[str, ...] = ()
    wandb_online: bool = False
    runs_root: Path | None = None
    data_dir: Path | None = None
    imports: tuple[str, ...] = ()
    fresh: bool = False
    sealed: bool = False
    probes: bool = True


# --- JSON -------------------------------------------------------------------------------------


def to_json(value: Any) -> Any:
    """Dataclasses as plain dicts, tuples as lists, paths as text; the inverse of `from_json`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def from_json(kind: Any, data: Any, path: str = "config", takes: str | None = None, *, finite: bool = True) -> Any:
    """``data``, parsed from JSON, as the annotated type ``kind``; refuses rather than guesses.

    ``kind`` is a dataclass or what a field of one, or a setting of a component, is annotated with. An int is accepted
    where a float is asked for, a bool never for a number. ``takes`` says in words what is accepted (else `type_name`).
    NaN and infinities are numbers unless ``finite``.

    Raises:
        BadInput: naming ``path``, the bad value and the good ones: an unknown key (with the nearest), a missing one, a
            value of the wrong type.
    """
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return data
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _dataclass_from_json(kind, data, path, finite)
    if origin is Literal:
        if type(data) is int and str(data) in args:
            return str(data)  # --set reads branch_scale=1 as the number
        if isinstance(data, str):
            return choose(data, [a for a in args if isinstance(a, str)], path)
        if data in args and type(data) in map(type, args):
            return data
    elif origin in (typing.Union, types.UnionType):
        if data is None and type(None) in args:
            return None
        *others, last = (a for a in args if a is not type(None))
        for other in others:
            with contextlib.suppress(BadInput):
                return from_json(other, data, path, takes, finite=finite)
        if data is not None:
            kinds = [kind for kind in (*others, last) if kind is not int or float not in args]  # any number
            several = " or ".join(PLAIN.get(kind, type_name(kind)) for kind in kinds) if others else None
            return from_json(last, data, path, takes or several, finite=finite)
    elif origin in (list, tuple):
        if isinstance(data, list | tuple):
            items = (from_json(args[0], item, f"{path}[{i}]", finite=finite) for i, item in enumerate(data))
            return origin(items)
    elif (origin or kind) in (dict, Mapping, collections.abc.Mapping):
        if isinstance(data, Mapping) and all(isinstance(key, str) for key in data):
            return dict(data)
    elif kind is Path and isinstance(data, str):
        return Path(data)
    elif kind is float:
        with contextlib.suppress(OverflowError):  # an int can be too large
            if isinstance(data, int | float) and not isinstance(data, bool):
                found = float(data)
                if math.isfinite(found) or not finite:
                    return found
    elif isinstance(kind, type) and isinstance(data, kind) and not (kind is int and isinstance(data, bool)):
        return data
    raise BadInput(f"{path} = {_shown(data)} is not acceptable; it takes {takes or PLAIN.get(kind, type_name(kind))}")


PLAIN = {float: "a number", int: "a whole number", str: "text", bool: "true or false"}
"""What a message calls these types."""


def _dataclass_from_json(kind: type, data: Any, path: str, finite: bool) -> Any:
    if isinstance(data, str) and kind is Component:
        return Component(data)
    if not isinstance(data, Mapping):
        raise BadInput(f"{path} = {_shown(data)} is not acceptable; it takes an object of {kind.__name__} fields")
    hints, fields = _type_hints(kind), {field.name: field for field in dataclasses.fields(kind)}
    names = {field.metadata["was"]: field.name for field in fields.values() if "was" in field.metadata}
    values = {}
    for key, item in data.items():
        if key in names:  # an earlier name of a field that is text now and was a number
            key, item = names[key], str(item) if type(item) is int else item
        choose(key, fields, f"key in {path}:")
        inner = key if path == "config" else f"{path}.{key}"  # as `--set` writes it
        values[key] = from_json(hints[key], item, inner, fields[key].metadata.get("takes"), finite=finite)
    missing = sorted(name for name, field in fields.items() if field.default is field.default_factory)
    missing = [name for name in missing if name not in values]
    if missing:
        raise BadInput(f"{path} lacks {', '.join(missing)}")
    return kind(**values)


_type_hints = functools.cache(typing.get_type_hints)
"""A ``study.json`` names hundreds of runs: without the cache their annotations are two thirds of its reading."""


def type_name(kind: Any) -> str:
    """A type as a user reads it: ``int``, ``'relu' | 'tanh'``, ``list of int``, ``int or null``."""
    if kind is Any:
        return "anything"
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return " | ".join(repr(a) for a in args)
    if origin in (typing.Union, types.UnionType):
        kinds = [a for a in args if a is not int or float not in args]
        names = {type(None): "null", float: "float" if kinds == [*args] else "number"}
        return " or ".join(names.get(a) or type_name(a) for a in kinds)
    if origin in (list, tuple):
        return f"list of {type_name(args[0])}"
    return getattr(kind, "__name__", str(kind))


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def canonical_json(value: Any) -> bytes:
    """Sorted, compact, without NaN: the bytes that are hashed."""
    return json.dumps(to_json(value), sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def digest(value: Any) -> str:
    """sha256 of the canonical JSON, in hex."""
    return hashlib.sha256(canonical_json(value)).hexdigest()
