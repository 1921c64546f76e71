"""What is minimised. Of classes evaluation always reports plain cross-entropy in nats, whatever was minimised; of
values (``mse``, ``mae``) the loss that was.

A run that distils learns from a teacher, held by its digest. With ``teacher_sees="original"`` the targets are its
logits of every training image as it is, whatever is done to the image before the student sees it: one pass, kept in the
data cache. With ``"augmented"`` it sees the very batch that the student does ("consistent teaching", Beyer et al. 2022,
"Knowledge distillation: A good teacher is patient and consistent", §3.1): a forward pass of the teacher in every step.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from netdepth import data
from netdepth.config import Component, Json, RunConfig, Runtime, digest, to_json
from netdepth.data.fetch import user_cache
from netdepth.errors import BadInput
from netdepth.files.atomic import write_if_possible
from netdepth.progress import CountProgress
from netdepth.registry import Registry, as_factory
from netdepth.training.finished import Weights, find_weights, network_of
from netdepth.training.optim import SCHEDULES, WatchingSchedule
from netdepth.training.process import find_device
from netdepth.training.regression import Regression, constant_loss

__all__ = [
    "OBJECTIVES", "CrossEntropy", "Distillation", "Objective", "cached_logits", "data_for_objective",
    "data_record", "find_teacher", "learns_values", "prepare", "refuse_other_labels", "set_teacher",
]  # fmt: skip

CHUNK_PIXELS = 500 * 32 * 32
"""Most pixels per forward pass of a teacher."""

Objective = Callable[[Tensor, Tensor], Tensor]
"""(logits ``[B, K]``, labels ``[B]``) to the mean loss, a scalar; one that `learns_values`: (outputs ``[B, K]``,
targets ``[B, K]``)."""

OBJECTIVES: Registry[Objective] = Registry("objective", as_factory)
"""An objective function takes its settings and returns an `Objective`. Also taken: a function of logits and labels with
settings that have defaults."""


def learns_values(objective: Objective | None) -> bool:
    """Whether ``objective`` learns values, float targets, instead of classes: it says so in its ``targets``."""
    return getattr(objective, "targets", "classes") == "values"


def data_for_objective(config: RunConfig) -> Component:
    """The data set of a filled-in ``config``; where it leaves open what its labels are, the objective decides.

    Raises:
        BadInput: it says otherwise, or has classes where the objective learns values; an accuracy is watched then.
    """
    dataset, entry = config.dataset, data.DATASETS.entry(config.dataset.name)
    takes = "values" if learns_values(OBJECTIVES.build(config.objective)) else "classes"
    said = dataset.args.get("targets")
    if takes == "values":
        what = f"objective {config.objective.name!r} learns values, which have no accuracy"
        if config.train.early_stopping is not None and config.train.early_stopping.monitor == "val_accuracy":
            raise BadInput(f"{what}: train.early_stopping.monitor = 'val_accuracy'; it takes val_loss")
        if isinstance(SCHEDULES.build(config.schedule, 1, 1), WatchingSchedule):
            raise BadInput(f"{what}, and schedule {config.schedule.name!r} follows the training error; take another")
    if entry.origin is not None:  # a user's own says in its spec what it has
        return dataset
    if "targets" not in dataset.args:
        if takes == "values":
            raise _other_labels(config, "classes")
        return dataset
    if said not in (None, takes):
        good = "objective mse or mae" if takes == "classes" else "another objective"
        raise BadInput(
            f"dataset.targets = {said!r}, and objective {config.objective.name!r} learns {takes}; "
            f"take {good}, or leave dataset.targets null"
        )
    return dataclasses.replace(dataset, args={**dataset.args, "targets": "values" if takes == "values" else None})


def refuse_other_labels(config: RunConfig, spec: data.DatasetSpec) -> None:
    """Refuse data whose labels are not what the objective learns."""
    if learns_values(OBJECTIVES.build(config.objective)) != bool(spec.targets):
        raise _other_labels(config, "values" if spec.targets else "classes")


def _other_labels(config: RunConfig, has: str) -> BadInput:
    learns, better = "values", "take data with numbers for labels (nd.dataset, arrays:, csv:, parquet:)"
    if has == "values":
        learns, better = "classes", "take objective mse or mae"
    return BadInput(
        f"objective {config.objective.name!r} learns {learns}, and {config.dataset.name} has {has}; {better}"
    )


def data_record(splits: data.Splits, objective: Objective) -> dict[str, Json]:
    """``split.json``: what is known of the data, with the loss of knowing nothing of an image; of values their names
    (``targets``) instead of classes."""
    spec, pictures = to_json(splits.spec), to_json(splits.pictures)
    if not splits.spec.targets:
        del spec["targets"]
        seen = {"label_entropy": splits.label_entropy, "pictures": pictures}
        return {**spec, **seen, "without_val": list(splits.without_val)}
    del spec["classes"]
    return {**spec, "constant_loss": constant_loss(objective, splits.train.labels), "pictures": pictures}


@OBJECTIVES.register("mse")
def mse() -> Objective:
    """The mean squared error, of numbers instead of classes (regression)."""
    return Regression("mse")


@OBJECTIVES.register("mae")
def mae() -> Objective:
    """The mean absolute error, of numbers instead of classes (regression)."""
    return Regression("mae")


class CrossEntropy:
    """Mean cross-entropy in nats with optional label smoothing (Szegedy et al. 2016, §7) and class weights, as
    `torch.nn.functional.cross_entropy` has them: with weights the mean is a weighted one over the batch.

    ``class_weights`` are those asked for; `set_class_weights` turns them into ``weights`` ``[K]``.
    """

    def __init__(self, label_smoothing: float, class_weights: list[float] | Literal["balanced"] | None = None) -> None:
        self.label_smoothing, self.class_weights = label_smoothing, class_weights
        self.weights: Tensor | None = None

    @property
    def plain(self) -> bool:
        """Whether it is the cross-entropy that every evaluation reports."""
        return self.label_smoothing == 0 and self.class_weights is None

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        weights = None if self.weights is None else self.weights.to(logits.dtype)
        return F.cross_entropy(logits, labels, weight=weights, label_smoothing=self.label_smoothing)


@OBJECTIVES.register("cross-entropy", added=("class_weights",))
def cross_entropy(
    *,
    label_smoothing: Annotated[float, "share of the target spread evenly over the classes"] = 0.0,
    class_weights: Annotated[
        list[float] | Literal["balanced"] | None,
        "a weight for each class, in their order; balanced: the inverse of its share of the training labels",
    ] = None,
) -> Objective:
    """Cross-entropy against the labels."""
    if not 0 <= label_smoothing < 1:
        raise BadInput(f"objective.label_smoothing = {label_smoothing} is out of range; it takes 0 to below 1")
    if isinstance(class_weights, list) and (not any(class_weights) or min(class_weights) < 0):
        raise BadInput(
            f"objective.class_weights = {class_weights} is not acceptable; it takes numbers of 0 or more, not all 0"
        )
    return CrossEntropy(label_smoothing, class_weights)


def set_class_weights(objective: CrossEntropy, splits: data.Splits, device: torch.device) -> None:
    """Give ``objective`` its weight of each class. ``"balanced"`` are N / (K n_c) for n_c of the N training images, so
    that every class weighs as much as all others do, and an image 1 in the mean.

    Raises:
        BadInput: a list of another length than there are classes.
    """
    classes, wanted = splits.spec.classes, objective.class_weights
    if isinstance(wanted, list) and len(wanted) != len(classes):
        names = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
        raise BadInput(
            f"objective.class_weights has {len(wanted)} numbers; {splits.spec.name} has {len(classes)} classes: {names}"
        )
    if wanted == "balanced":
        counts = torch.bincount(splits.train.labels.cpu(), minlength=len(classes)).double()
        present = counts > 0  # a class without training images has no loss to weigh
        wanted = torch.where(present, counts.sum() / (present.sum() * counts.clamp(min=1)), 0.0).tolist()
    objective.weights = None if wanted is None else torch.tensor(wanted, dtype=torch.float64, device=device)


class Distillation:
    """alpha T² KL(softmax(t / T) || softmax(z / T)) + (1 - alpha) CE(z, labels), for logits z and a teacher's t.

    Hinton, Vinyals & Dean 2015, "Distilling the Knowledge in a Neural Network", §2. Gradients of the soft part shrink
    as 1 / T², which the factor T² takes back. The paper has cross-entropy where this has KL: they differ by the
    entropy of the teacher, which no weight of the student moves, and KL is 0 where the student says the same.

    ``soft_targets`` gives a teacher's logits ``[B, K]`` of a batch: uint8 images ``[B, C, H, W]`` as trained on, and
    their indices in the training part ``[B]``. `set_teacher` sets it.
    """

    def __init__(self, temperature: float, alpha: float, augmented: bool) -> None:
        self.temperature, self.alpha, self.augmented = temperature, alpha, augmented
        self.soft_targets: Callable[[Tensor, Tensor], Tensor] | None = None

    def __call__(self, logits: Tensor, labels: Tensor, soft: Tensor | None = None) -> Tensor:
        """The mean loss in nats; without ``soft`` (or with alpha 0) that of the labels alone."""
        hard = F.cross_entropy(logits, labels)
        if soft is None or self.alpha == 0:
            return hard
        t = self.temperature
        student, teacher = F.log_softmax(logits / t, 1), F.log_softmax(soft.to(logits.dtype) / t, 1)
        divergence = F.kl_div(student, teacher, reduction="batchmean", log_target=True)
        return self.alpha * t * t * divergence + (1 - self.alpha) * hard


@OBJECTIVES.register("distill", example={"teacher": "a-run"}, unhashed=("teacher", "weights"))
def distill(
    *,
    teacher: Annotated[str, "the run to learn from: a path or a unique prefix of its folder's name"],
    temperature: Annotated[float, "T: both sets of logits are divided by it"] = 4.0,
    alpha: Annotated[float, "share of the soft targets; the labels have the rest"] = 0.9,
    teacher_sees: Annotated[
        Literal["original", "augmented"],
        "original: targets of each training image as it is, computed once; augmented: of each batch, computed anew",
    ] = "original",
    weights: Annotated[Literal["best", "last"] | None, "the teacher's weights; null: those it reports"] = None,
    sha256: Annotated[str | None, "digest of those weights; filled in when the run is found"] = None,
) -> Objective:
    """Distillation: soft targets of a teacher beside the labels (Hinton et al. 2015)."""
    if not 0 < temperature <= 1000:
        raise BadInput(f"objective.temperature = {temperature} is out of range; it takes numbers above 0, to 1000")
    if not 0 <= alpha <= 1:
        raise BadInput(f"objective.alpha = {alpha} is out of range; it takes 0 to 1")
    return Distillation(temperature, alpha, teacher_sees == "augmented")


# --- the teacher ------------------------------------------------------------------------------


def find_teacher(objective: Component, root: Path | None) -> Weights:
    """The weights of the teacher that ``objective``, with all its settings, names; raises as `find_weights` does."""
    run, *pinned = (objective.args[name] for name in ("teacher", "weights", "sha256"))
    which, sha256 = (None if value is None else str(value) for value in pinned)
    return find_weights(str(run), which, sha256, root, "objective.teacher")


def prepare(objective: Objective, config: RunConfig, splits: data.Splits, runtime: Runtime) -> None:
    """Give ``objective`` what it takes from the data or from another run.

    Raises:
        BadInput: as `set_class_weights` and `set_teacher`.
    """
    if isinstance(objective, CrossEntropy):
        set_class_weights(objective, splits, find_device(runtime.device))
    elif isinstance(objective, Distillation):
        set_teacher(objective, config, splits, runtime)


def set_teacher(objective: Distillation, config: RunConfig, splits: data.Splits, runtime: Runtime) -> None:
    """Give ``objective`` the teacher that the filled-in ``config`` names.

    Raises:
        BadInput: the teacher is missing or altered, knows other classes or images, or was trained on another split,
            so that it has seen images which are set aside here.
        StorageError: the cache cannot be written.
    """
    teacher = find_teacher(config.objective, runtime.runs_root)
    _check(teacher, splits.spec)
    device = find_device(runtime.device)
    if objective.augmented:
        network = network_of(teacher).to(device).requires_grad_(False)
        objective.soft_targets = lambda inputs, indices: network(inputs)
    else:
        logits = cached_logits(teacher, splits, device).to(device)
        objective.soft_targets = lambda inputs, indices: logits.index_select(0, indices)


def cached_logits(teacher: Weights, splits: data.Splits, device: torch.device) -> Tensor:
    """float32 logits ``[N, K]`` of the training images, from the cache or computed now.

    On a CPU by one thread and one route of matrix products, so that they do not depend on the run that asks first. A
    damaged file of the cache is replaced.
    """
    about = {"teacher": teacher.sha256, "split": splits.spec.split_digest, "data": splits.spec.data_digest}
    key = digest({**about, "torch": torch.__version__, "device": device.type})[:32]
    path = user_cache() / "teachers" / f"{key}.safetensors"
    logits = _read(path, (len(splits.train), len(splits.spec.classes)))
    if logits is None:
        logits = _computed(network_of(teacher), splits.train, device, teacher.run.path.name).contiguous()
        mark = {"sha256": data.splits.array_digest(logits.numpy())}
        write_if_possible(path, safetensors.torch.save({"logits": logits}, mark))
    return logits


def _read(path: Path, shape: tuple[int, int]) -> Tensor | None:
    """What `cached_logits` wrote, if it is whole and of this ``shape``."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            logits: Tensor = file.get_tensor("logits")
            mark = (file.metadata() or {}).get("sha256")
    except (OSError, safetensors.SafetensorError):  # not there, cut short, no such file
        return None
    whole = tuple(logits.shape) == shape and logits.dtype == torch.float32
    return logits if whole and data.splits.array_digest(logits.numpy()) == mark else None


@torch.inference_mode()
def _computed(network: nn.Module, split: data.Split, device: torch.device, name: str) -> Tensor:
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("highest")
    try:
        network = network.to(device)
        chunk = max(1, min(500, CHUNK_PIXELS // math.prod(split.inputs.shape[2:])))
        parts = []
        with CountProgress(f"asking the teacher {name}", len(split)) as report:
            for pixels in torch.split(split.inputs, chunk):
                parts.append(network(pixels.to(device)).float().cpu())
                report.add(len(pixels))
        return torch.cat(parts)
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)


def _check(teacher: Weights, spec: data.DatasetSpec) -> None:
    split, what = teacher.run.split(), f"objective.teacher: run {teacher.run.path.name}"
    assert split is not None  # a run without one has no weights
    if split.targets:
        raise BadInput(f"{what} learns values; a teacher of objective distill knows classes")
    if (split.input_shape, split.classes) != (tuple(spec.input_shape), tuple(spec.classes)):
        raise BadInput(
            f"{what} knows {len(split.classes)} classes of {split.name} in images of {list(split.input_shape or ())}; "
            f"{spec.name} has other ones: {len(spec.classes)} classes, {list(spec.input_shape)}"
        )
    if split.data_digest == spec.data_digest and split.split_digest != spec.split_digest:
        raise BadInput(
            f"{what} was trained on another split of {spec.name}, which may hold images that are set aside for "
            "validation here; train it with the same dataset.val_size"
        )
