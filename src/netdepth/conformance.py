"""What every component must do, ours and yours: ``netdepth check my.py`` runs these checks over a user's file.

Each suite takes a registered name, builds it with its default settings (or the ``example`` it was
registered with) and yields each requirement and whether it is met.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from netdepth import data, models
from netdepth.config import Component, RunConfig, digest
from netdepth.data.augment import AUGMENTATIONS
from netdepth.data.splits import array_digest
from netdepth.errors import BadInput
from netdepth.recipes import RECIPES, import_user
from netdepth.registry import REGISTRIES, registry_of
from netdepth.runs.folder import RunDir
from netdepth.studies.resolve import without_parent_run
from netdepth.studyspec import StudySpec
from netdepth.text import plain
from netdepth.trackers import TRACKERS
from netdepth.training.evaluate import METRICS, own_names
from netdepth.training.objectives import OBJECTIVES, learns_values
from netdepth.training.optim import OPTIMIZERS, SCHEDULES, descend
from netdepth.training.resolve import COMPONENTS, fill_in
from netdepth.training.torch_optim import TorchOptimizer, trial_parameter

__all__ = ["Finding", "check_component", "check_file", "print_weights"]

SHAPE, CLASSES, BATCH = (1, 28, 28), 10, 6
SHA256 = 64
"""Hex digits."""


@dataclass(frozen=True)
class Finding:
    """One requirement (``promise``) of one component, met (``kept``) or not; ``detail`` says what was seen."""

    kind: str
    name: str
    promise: str
    kept: bool
    detail: str = ""


Promises = Iterator[tuple[str, bool, str]]


def check_file(path: str, data_dir: Path | None = None) -> list[Finding]:
    """Import ``path`` and check all that it registers.

    Raises:
        BadInput: it cannot be imported, or registers nothing.
    """
    registries = {kind: registry_of(kind) for kind in REGISTRIES}
    before = {kind: {name: registry.entry(name) for name in registry.names()} for kind, registry in registries.items()}
    module, findings = import_user(path).__name__, []
    for kind, registry in registries.items():
        entries = {name: registry.entry(name) for name in registry.names()}
        own = [name for name, entry in entries.items() if before[kind].get(name) != entry or entry.module == module]
        for name in own:
            findings += check_component(kind, name, data_dir)
        if kind == "model" and own:
            findings += _in_other_processes(path, own)
    if not findings:
        raise BadInput(f"{path} registers nothing; decorate a function: @netdepth.models.MODELS.register(...)")
    return findings


def _in_other_processes(path: str, names: Sequence[str]) -> list[Finding]:
    """Whether each model of a user's file has the same weights in two other processes, in which text has other hashes
    and sets another order."""
    code = "import sys; from netdepth import conformance; conformance.print_weights(*sys.argv[1:])"
    command = [sys.executable, "-c", code, path, *names]

    def answer(hash_seed: str) -> dict[str, str]:
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            return dict.fromkeys(names, (done.stderr.strip().splitlines() or ["it ended without a word"])[-1][-300:])
        found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
        return found

    with ThreadPoolExecutor() as both:
        answers = list(both.map(answer, ("1", "2")))
    found = []
    for name in names:
        first, second = (answer[name] for answer in answers)
        kept, detail = first == second and len(first) == SHA256, first[:12] if len(first) == SHA256 else first
        found.append(Finding("model", name, "has the same weights in two processes", kept, detail))
    return found


def print_weights(path: str, *names: str) -> None:
    """Print, as JSON, a sha256 of the untrained weights of each of the models ``names`` that ``path`` registers."""
    with contextlib.redirect_stdout(sys.stderr):  # what a user's file prints is no answer
        import_user(path)
        parts = (Component(name, models.MODELS.entry(name).example) for name in names)
        weights = (models.build(part, SHAPE, CLASSES).state_dict() for part in parts)
        digests = [digest({key: array_digest(tensor.numpy()) for key, tensor in held.items()}) for held in weights]
    print(json.dumps(dict(zip(names, digests, strict=True))))


def check_component(kind: str, name: str, data_dir: Path | None = None) -> list[Finding]:
    """Run the suite of ``kind`` over the component ``name``; an exception is a requirement that is not met."""
    entry = registry_of(kind).entry(name)
    component = Component(name, entry.example)
    findings = []
    if entry.summary or entry.origin is None:  # what users write for themselves needs none
        findings.append(Finding(kind, name, "has a docstring", bool(entry.summary), entry.summary))
    promise = "works with its default settings"
    try:
        for promise, kept, detail in SUITES[kind](component, data_dir):
            findings.append(Finding(kind, name, promise, kept, detail))
    except Exception as error:  # a user's code may raise anything, which is what is reported
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        findings.append(Finding(kind, name, f"works (the check before this error: {promise})", False, reason))
    return findings


def _model(component: Component, data_dir: Path | None) -> Promises:
    model = models.build(component, SHAPE, CLASSES, seed=0)
    images = torch.randint(0, 256, (BATCH, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    logits = model(images)
    shape = tuple(logits.shape)
    yield f"maps uint8 {[BATCH, *SHAPE]} to logits {[BATCH, CLASSES]}", shape == (BATCH, CLASSES), str(list(shape))
    loss = torch.nn.functional.cross_entropy(logits, torch.arange(BATCH) % CLASSES)
    yield "has a finite loss", bool(torch.isfinite(loss)), plain(float(loss.detach()), 4)
    loss.backward()  # type: ignore[no-untyped-call]
    without = [key for key, p in model.named_parameters() if p.requires_grad and p.grad is None]
    yield "gives every parameter a gradient", not without, ", ".join(without)
    homeless = [key for key, _ in model.named_parameters() if model.stage_of(key) is None]
    yield "has every parameter in a stage", not homeless, ", ".join(homeless) or ", ".join(model.stage_paths())
    layers = len(models.describe(model).layers)
    yield "counts its depth (weight layers on the main path)", 1 <= model.depth <= layers, f"{model.depth} of {layers}"
    first, again, other = (models.build(component, SHAPE, CLASSES, seed=s).state_dict() for s in (0, 0, 1))
    yield "has the weights its seed decides", all(torch.equal(first[k], again[k]) for k in first), ""
    yield "has other weights with another seed", any(not torch.equal(first[k], other[k]) for k in first), ""


def _dataset(component: Component, data_dir: Path | None) -> Promises:
    splits, again = (data.load(component, data_dir=data_dir) for _ in range(2))
    yield "is the same every time", splits.spec == again.spec, splits.spec.split_digest[:12]
    parts = {"train": splits.train, "val": splits.val}
    if splits.test is not None:
        parts["test"] = splits.test.open_test("checking the data set")
    for part, split in parts.items():
        inputs, labels = split.inputs, split.labels
        good = inputs.dtype == torch.uint8 and tuple(inputs.shape[1:]) == splits.spec.input_shape and inputs.dim() == 4
        yield f"{part} images are uint8 [N, C, H, W]", good, f"{inputs.dtype} {list(inputs.shape)}"
        if splits.spec.targets:
            known = labels.dtype == torch.float32 and labels.shape == (len(labels), splits.spec.outputs)
            known = known and bool(labels.isfinite().all())
            yield f"{part} labels are finite float32 values [N, K]", known, f"{labels.dtype} {list(labels.shape)}"
        else:
            known = labels.dtype == torch.int64 and bool(((labels >= 0) & (labels < len(splits.spec.classes))).all())
            yield f"{part} labels are int64 class numbers", known, f"{labels.dtype}"
        size = splits.spec.sizes.get(part)
        yield f"{part} has the size it states", len(inputs) == len(labels) == size, f"{len(inputs)}, stated {size}"


def _optimizer(component: Component, data_dir: Path | None) -> Promises:
    flat = trial_parameter()
    optimizer, before = OPTIMIZERS.build(component, flat), float(flat.detach().norm())
    descend(flat, optimizer, 1e-2, 7)  # neither even nor a multiple of 5: a step counted outside the state shows
    yield "lowers a quadratic", float(flat.detach().norm()) < before, ""
    other = trial_parameter()
    restored = OPTIMIZERS.build(component, other)
    with torch.no_grad():
        other.copy_(flat)
    if isinstance(restored, TorchOptimizer):
        restored.load(optimizer.state)
    else:
        for name, tensor in restored.state.items():
            tensor.copy_(optimizer.state[name])
    descend(flat, optimizer, 1e-2, 5)
    descend(other, restored, 1e-2, 5)
    yield "continues from a saved state to the same bits", torch.equal(flat, other), _few(optimizer.state)


def _few(names: Iterable[str]) -> str:
    shown = [*names]
    return ", ".join([*shown[:4], "..."] if len(shown) > 4 else shown)


def _augmentation(component: Component, data_dir: Path | None) -> Promises:
    augment = AUGMENTATIONS.build(component, (3, 16, 16))
    images = torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    before = images.clone()
    made = augment(images, 1)
    good = made.dtype == images.dtype and made.shape == images.shape
    yield "keeps images uint8 and their shape", good, f"{made.dtype} {list(made.shape)}"
    yield "leaves the images it was given as they were", torch.equal(images, before), ""
    torch.manual_seed(5)  # a draw of the global generator would differ now
    yield "is a function of images and seed", torch.equal(augment(images, 1), made), ""


def _schedule(component: Component, data_dir: Path | None) -> Promises:
    for total in (1, 2, 1000):
        factors = [SCHEDULES.build(component, total, 10)(step) for step in range(total)]
        good = all(0 <= factor < float("inf") for factor in factors)
        seen = f"{plain(min(factors), 3)} to {plain(max(factors), 3)}"
        yield f"has finite factors of 0 or more over {total} steps", good, seen


def _objective(component: Component, data_dir: Path | None) -> Promises:
    logits = torch.linspace(-1, 1, BATCH * CLASSES).view(BATCH, CLASSES).requires_grad_()
    objective, labels = OBJECTIVES.build(component), torch.arange(BATCH) % CLASSES
    if learns_values(objective):
        labels = torch.linspace(2, 3, BATCH * CLASSES).view(BATCH, CLASSES)
    loss = objective(logits, labels)
    yield "is a finite scalar", loss.dim() == 0 and bool(torch.isfinite(loss)), plain(float(loss.detach()), 4)
    loss.backward()  # type: ignore[no-untyped-call]
    yield "has a gradient", logits.grad is not None and bool(logits.grad.abs().sum() > 0), ""


def _metric(component: Component, data_dir: Path | None) -> Promises:
    own_names()
    metric, labels = METRICS.build(component), torch.arange(BATCH) % CLASSES
    logits = torch.randn(BATCH, CLASSES, generator=torch.Generator().manual_seed(0))
    value = metric(logits, labels)
    yield "returns a number", math.isfinite(float(value)), plain(float(value), 4)
    yield "returns the same one again", metric(logits, labels) == value, ""


def _tracker(component: Component, data_dir: Path | None) -> Promises:
    config = {"fingerprint": "0123456789", "seed": 0, "recipe": "check", "train": {}}
    with tempfile.TemporaryDirectory() as folder:
        run = RunDir.create(Path(folder), "check", 0, "0123456789")
        run.write_json("config.json", config)
        tracker = TRACKERS.build(component, run.path)
        tracker.start({**config, "split": {"classes": ["a", "b"]}})
        yield "starts", True, ""
        record = {"train/loss": 0.5, "val/loss": float("nan"), "gradients/layer_norms": {"a": 1.0, "b": 2.0}}
        tracker.log({**record, "epoch": 1.0, "seconds": 0.1}, 10)
        yield "takes a record with NaN and a histogram", True, ""
        tracker.finish({"status": "completed", "reported": "last", "confusion": [[1, 0], [0, 1]], "test": None})
        yield "finishes", True, ""


def _recipe(component: Component, data_dir: Path | None) -> Promises:
    made = RECIPES.build(component)
    yield "returns a RunConfig or a StudySpec", isinstance(made, RunConfig | StudySpec), type(made).__name__
    configs = [made] if isinstance(made, RunConfig) else [cell.config for cell in made.cells]
    if isinstance(made, StudySpec) and made.source is not None:
        configs.append(made.source)
    for config in configs:
        COMPONENTS["objective"].resolve(config.objective)
        fill_in(without_parent_run(config))
    yield "names components and settings that exist", True, ""


SUITES: dict[str, Callable[[Component, Path | None], Promises]] = {kind: globals()[f"_{kind}"] for kind in REGISTRIES}
"""The checks of each kind of component."""
