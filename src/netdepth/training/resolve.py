"""From a config to a run that can be computed: all settings, the data, the fingerprint, the untrained network.

`resolve` does it, once per run, in the process that has its data. The parts that need no data (`fill_in`,
`fingerprint`) can be called alone.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from netdepth import data, models
from netdepth.config import RunConfig, Runtime, derive_seed, digest
from netdepth.errors import BadInput
from netdepth.models.init import rescale_lsuv
from netdepth.owncode import user_code
from netdepth.registry import REGISTRIES, Registry, registry_of
from netdepth.runs import DataDigests
from netdepth.training.evaluate import metric_names
from netdepth.training.finished import begin_with, name_of, pinned
from netdepth.training.gradients import has_handwritten_pass
from netdepth.training.objectives import OBJECTIVES, data_for_objective, find_teacher, refuse_other_labels
from netdepth.training.optim import OPTIMIZERS, SCHEDULES, WatchingSchedule, elementwise
from netdepth.training.process import find_device
from netdepth.training.torch_optim import trial_parameter

__all__ = ["COMPONENTS", "ResolvedConfig", "build_model", "fill_in", "fingerprint", "multiplies_bf16", "resolve"]

COMPONENTS: dict[str, Registry[Any]] = {
    field.name: registry_of(field.name) for field in dataclasses.fields(RunConfig) if field.name in REGISTRIES
}
"""The registry of each part of a `RunConfig`."""
LSUV_IMAGES = 512
"""Training images, evenly spread and the same for every seed, on which LSUV rescales the weights."""
WEIGHT_TYPES = {"float32": torch.float32, "float64": torch.float64, "bf16": torch.float32}
"""The type of the weights by ``train.precision``. With "bf16" only the products and convolutions of a training step are
in bfloat16; weights, gradients, the optimizer's state, batch norm, the loss and every evaluation are float32."""
BF16_CPU = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")
"""What `torch.cpu.get_capabilities` calls the instructions for bfloat16, on x86 and ARM."""
BF16_CUDA = (8, 0)
"""The first compute capability with them (Ampere)."""


@dataclass(frozen=True)
class ResolvedConfig:
    """A run as it will be computed: the same for all its seeds, of which ``config.seed`` is one."""

    config: RunConfig
    """With every default filled in, its precision decided, and other runs fixed by their digest."""
    splits: data.Splits
    fingerprint: str

    @functools.cached_property
    def stackable(self) -> bool:
        """Whether several seeds can train as one stack (`run_stack`); decided by the config alone."""
        config, objective = self.config, OBJECTIVES.build(self.config.objective)
        if config.start_from is not None or config.train.precision == "bf16" or not elementwise(config.optimizer):
            return False
        if isinstance(SCHEDULES.build(config.schedule, 1, 1), WatchingSchedule):
            return False
        if not models.class_of(config.model.name).handwritten:
            return False
        network = models.build(config.model, (1, 1, 1), 2)  # the images' shape and classes decide nothing here
        return has_handwritten_pass(network, objective)


def resolve(config: RunConfig, runtime: Runtime, splits: data.Splits | None = None) -> ResolvedConfig:
    """``config`` made ready to run; its data set is loaded unless its ``splits`` are given.

    Raises:
        BadInput: as `fill_in`; the data set cannot be split in this way, or its labels are not what is learned.
        StorageError: the data are not on this machine.
    """
    config = fill_in(config, runtime.device, runtime.runs_root)
    splits = splits or data.load(config.dataset, data_dir=runtime.data_dir)
    refuse_other_labels(config, splits.spec)
    return ResolvedConfig(config, splits, fingerprint(config, splits.spec))


def fill_in(config: RunConfig, device: str = "auto", runs_root: Path | None = None) -> RunConfig:
    """``config`` with every component's defaults filled in and checked, and its precision decided for ``device``.

    A parent run or a teacher that it names is looked up in ``runs_root`` and fixed by its digest.

    Raises:
        BadInput: a component refuses a setting, or a named run is missing, unfinished or altered.
    """
    parts: dict[str, Any] = {name: registry.resolve(getattr(config, name)) for name, registry in COMPONENTS.items()}
    config = dataclasses.replace(config, **parts)
    _refuse_settings_out_of_range(config)
    config = dataclasses.replace(config, dataset=data_for_objective(config))
    if config.train.precision == "auto":
        lower = models.class_of(config.model.name).gains_from_bf16 and multiplies_bf16(find_device(device))
        train = dataclasses.replace(config.train, precision="bf16" if lower else "float32")
        config = dataclasses.replace(config, train=train)
    if config.start_from is not None:
        config = dataclasses.replace(config, start_from=pinned(config.start_from, runs_root))
    if "teacher" in config.objective.args:
        teacher = find_teacher(config.objective, runs_root)
        fixed = {"teacher": name_of(teacher.run, runs_root), "weights": teacher.which, "sha256": teacher.sha256}
        args = {**config.objective.args, **fixed}
        config = dataclasses.replace(config, objective=dataclasses.replace(config.objective, args=args))
    return config


def _refuse_settings_out_of_range(config: RunConfig) -> None:
    """Build what needs no data, on a few parameters: what it refuses is refused before anything is written."""
    optimizer = OPTIMIZERS.build(config.optimizer, trial_parameter())
    with user_code(f"optimizer {config.optimizer.name!r}"):
        optimizer.step(0.0)
    SCHEDULES.build(config.schedule, 1, 1)
    metric_names(OBJECTIVES.build(config.objective))


def multiplies_bf16(device: torch.device) -> bool:
    """Whether the device has instructions for bfloat16 products; without them bf16 is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= BF16_CUDA
    capabilities = torch.cpu.get_capabilities()
    return device.type == "cpu" and any(capabilities.get(name, False) for name in BF16_CPU)


def fingerprint(config: RunConfig, spec: DataDigests) -> str:
    """The first 10 hex digits of a digest of what is computed: filled-in config without seed, data, split."""
    parts = {name: registry.hashed(getattr(config, name)) for name, registry in COMPONENTS.items()}
    if not config.augmented:
        del parts["augmentation"]
    if config.start_from is not None:
        parts["start_from"] = config.start_from.hashed()
    content = {**parts, "train": config.train, "data": spec.data_digest, "split": spec.split_digest}
    return digest(content)[:10]


def build_model(
    config: RunConfig, splits: data.Splits, ranks: int = 1, runs_root: Path | None = None
) -> models.Network:
    """The untrained network of a filled-in ``config``, with the training part's statistics; one that starts from
    another run (looked up in ``runs_root``) has that run's weights and statistics instead.

    Raises:
        BadInput: batch norm that cannot train on a batch, or the share of one of ``ranks`` processes, that would hold a
            single image; a parent run that does not fit.
    """
    model = models.build(
        config.model, splits.spec.input_shape, splits.spec.outputs, seed=derive_seed(config.seed, "init")
    ).to(WEIGHT_TYPES[config.train.precision])
    mean, std = splits.statistics
    model.normalize.set_statistics(splits.pixel_mean if model.pixel_mean else mean, std)
    images, batch = len(splits.train), config.train.batch_size
    if not _trains_on(model, _smallest_share(images, batch, ranks), config.model.name):
        sizes = (size for size in range(batch + 1, batch + images) if _smallest_share(images, size, ranks) > 1)
        better = next(sizes, None)
        where = f" for one of {ranks} processes" if ranks > 1 else ""
        raise BadInput(
            f"train.batch_size = {batch} leaves a batch of one of {images} training images{where}, which batch norm "
            f"cannot train on here; take another{f', such as {better}' if better else ''}"
        )
    if config.start_from is not None:
        begin_with(model, config.start_from, runs_root)
    elif model.lsuv:
        count = min(LSUV_IMAGES, len(splits.train))
        rescale_lsuv(model, splits.train.inputs[torch.arange(count) * len(splits.train) // count])
    return model


def _smallest_share(images: int, batch: int, ranks: int) -> int:
    """How many images the smallest batch, divided over ``ranks``, has for one of them (`Batches`)."""
    return min(batch, images % batch or batch) // ranks


def _trains_on(model: models.Network, images: int, name: str) -> bool:
    """Whether ``model`` can train on a batch of so few ``images``: batch norm needs two values of each channel, which
    one image has where it is larger than a pixel there. PyTorch is asked, once; the network stays as it is."""
    if images > 1:
        return True
    if images == 0:
        return not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad(), user_code(f"model {name!r}"):
            copy.deepcopy(model).train()(torch.zeros(1, *model.input_shape, dtype=torch.uint8))
    except BadInput as error:
        if "more than 1 value per channel" not in str(error.__cause__):
            raise
        return False
    return True
