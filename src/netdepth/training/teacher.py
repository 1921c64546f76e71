"""A teacher's answers to the training images: computed once, kept in the data cache, held by digest.

Two ways in which a teacher can meet augmented training. With ``teacher_sees="original"`` the targets are its logits of
every training image as it is, whatever is done to the image before the student sees it: one pass, kept. With
``"augmented"`` it sees the very batch that the student does ("consistent teaching", Beyer et al. 2022, "Knowledge
distillation: A good teacher is patient and consistent", §3.1): a forward pass of the teacher in every step.
"""

from __future__ import annotations

import math
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from netdepth import data
from netdepth.config import RunConfig, Runtime, digest
from netdepth.data.fetch import user_cache
from netdepth.errors import BadInput
from netdepth.files.atomic import storage, write_atomic
from netdepth.progress import CountProgress
from netdepth.training.finished import Weights, find_weights, network_of
from netdepth.training.objectives import Distillation
from netdepth.training.process import find_device

__all__ = ["cached_logits", "teach"]

CHUNK_PIXELS = 500 * 32 * 32


def teach(objective: Distillation, config: RunConfig, splits: data.Splits, runtime: Runtime) -> None:
    """Let ``objective`` know the teacher that the resolved ``config`` names.

    Raises:
        BadInput: the teacher is missing or altered, knows other classes or images, or was trained on another split,
            so that it has seen images which are set aside here.
        StorageError: the cache cannot be written.
    """
    args = config.objective.args
    source = find_weights(args["teacher"], args["weights"], args["sha256"], runtime.runs_root, "objective.teacher")
    _check(source, splits.spec)
    device = find_device(runtime.device)
    if objective.augmented:
        network = network_of(source).to(device).requires_grad_(False)

        def of_batch(inputs: Tensor, indices: Tensor) -> Tensor:
            with torch.no_grad():
                logits: Tensor = network(inputs)
            return logits

        objective.soft_targets = of_batch
        return
    logits = cached_logits(source, splits, device).to(device)
    objective.soft_targets = lambda inputs, indices: logits.index_select(0, indices)


def cached_logits(source: Weights, splits: data.Splits, device: torch.device) -> Tensor:
    """float32 logits ``[N, K]`` of the training images, from the cache or computed now.

    On a CPU by one thread and one route of matrix products, so that they do not depend on who asks first. A file of the
    cache that is damaged is made again.
    """
    about = {"teacher": source.sha256, "split": splits.spec.split_digest, "data": splits.spec.data_digest}
    key = digest({**about, "torch": torch.__version__, "device": device.type})[:32]
    path = user_cache() / "teachers" / f"{key}.safetensors"
    shape = (len(splits.train), len(splits.spec.classes))
    found = _read(path, shape)
    if found is not None:
        return found
    logits = _computed(network_of(source), splits.train, device, source.run.path.name)
    content = {"logits": logits.contiguous()}
    with storage(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, safetensors.torch.save(content, {"sha256": data.splits.array_digest(logits.numpy())}))
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


def _check(source: Weights, spec: data.DatasetSpec) -> None:
    split = source.run.read_json("split.json") or {}
    what = f"objective.teacher: run {source.run.path.name}"
    if list(split["input_shape"]) != list(spec.input_shape) or list(split["classes"]) != list(spec.classes):
        raise BadInput(
            f"{what} knows {len(split['classes'])} classes of {split['name']} in images of {split['input_shape']}; "
            f"{spec.name} has other ones: {len(spec.classes)} classes, {list(spec.input_shape)}"
        )
    if split["data_digest"] == spec.data_digest and split["split_digest"] != spec.split_digest:
        raise BadInput(
            f"{what} was trained on another split of {spec.name}, which may hold images that are set aside for "
            "validation here; train it with the same dataset.val_size"
        )
