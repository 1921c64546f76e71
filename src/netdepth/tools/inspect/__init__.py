"""What happens to the signal inside a run's network, layer by layer: numbers, picture, words."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from netdepth import data, models
from netdepth.config import Component, RunConfig, from_json
from netdepth.errors import BadInput, StorageError
from netdepth.runs.folder import RunDir, find_run, runs_root
from netdepth.tools.inspect.picture import layers_picture
from netdepth.tools.inspect.tables import read_probes
from netdepth.tools.inspect.words import words
from netdepth.training.checkpoint import MODEL, load_weights
from netdepth.training.layers import probe, probe_batch
from netdepth.training.run import build_model, resolve

__all__ = ["Inspection", "inspect"]


@dataclass(frozen=True)
class Inspection:
    """What was seen inside the network of ``run``: its layers, and layer statistics at some steps of training."""

    run: RunDir
    description: models.Description
    probes: Sequence[Mapping[str, Any]]
    words: str
    figure: Path | None
    notes: Sequence[str]

    def as_json(self) -> dict[str, Any]:
        """The document of ``netdepth inspect --json``."""
        return {
            "run": self.run.path.resolve().name,
            "folder": self.run.path,
            "status": self.run.status(),
            **dataclasses.asdict(self.description),
            "probes": self.probes,
            "training_gradients": _training_gradients(self.run),
            "words": self.words,
            "figure": self.figure,
            "notes": self.notes,
        }


def inspect(name: str | Path, *, data_dir: Path | None = None, runs_dir: Path | None = None) -> Inspection:
    """Look inside the network of the run ``name``: a path or a unique prefix of a folder name.

    A run that kept no layer statistics of its start is measured now.

    Raises:
        BadInput: no such run, or its folder does not say what its network or its data are.
        StorageError: it has to be measured, and its data are not here.
    """
    run = find_run(str(name), runs_root(runs_dir))
    description = models.describe(_network(run))
    probes, notes = read_probes(run), []
    if not any(taken["step"] == 0 for taken in probes):
        probes = _measured(run, data_dir, runs_dir)
        of = "the initial weights" + " and the newest checkpoint" * (len(probes) > 1)
        notes.append(f"measured now from {of}: the run kept no layer statistics of its start")
    figure: Path | None = None
    try:
        figure = layers_picture(run, probes) if probes[0]["layers"] else None
    except StorageError as error:  # a run of somebody else's can still be read
        notes.append(f"no picture: {error}")
    return Inspection(run, description, probes, words(probes, run.status()), figure, notes)


def _network(run: RunDir) -> models.Network:
    """The network of ``run`` with weights of no meaning: its shape is what counts.

    Raises:
        BadInput: the folder does not say what the network is.
    """
    config, split = run.read_json("config.json") or {}, run.read_json("split.json") or {}
    shape, classes = split.get("input_shape"), split.get("classes")
    if not config.get("model") or not isinstance(shape, list) or len(shape) != 3 or not isinstance(classes, list):
        raise BadInput(f"run {run.path.name} does not say what its network is: config.json or split.json lacks it")
    component = from_json(Component, config["model"], "config.model")
    return models.build(component, (shape[0], shape[1], shape[2]), len(classes))


def _measured(run: RunDir, data_dir: Path | None, root: Path | None) -> list[dict[str, Any]]:
    """Probes of a run that kept none: of its initial weights, drawn again, and of its newest checkpoint.

    Raises:
        BadInput: the data here are others than those of the run.
        StorageError: the data are not here.
    """
    saved = run.read_json("config.json") or {}
    names = {field.name for field in dataclasses.fields(RunConfig)}
    config = from_json(RunConfig, {key: value for key, value in saved.items() if key in names})
    config = resolve(config, runs_root=root)
    try:
        splits = data.load(config.dataset, data_dir=data_dir)
    except StorageError as error:
        raise StorageError(f"run {run.path.name} kept no probes, and to measure now takes its data: {error}") from None
    split: Mapping[str, Any] = run.read_json("split.json") or {}
    for key, found in (("data_digest", splits.spec.data_digest), ("split_digest", splits.spec.split_digest)):
        if split.get(key) != found:
            raise BadInput(f"run {run.path.name} kept no probes, and {config.dataset.name} here has another {key}")
    torch.set_num_threads(1)  # initial weights are drawn on one thread
    model = build_model(config, splits, runs_root=root)
    batch = probe_batch(splits.train)
    probes = [{"step": 0, "epoch": 0.0, **probe(model, *batch)}]
    newest = run.newest_checkpoint()
    if newest is not None:
        step, files = newest
        load_weights(model, files[MODEL])
        epochs = {record["step"]: record["epoch"] for record in run.read_metrics()}
        probes.append({"step": step, "epoch": epochs.get(step, float("nan")), **probe(model, *batch)})
    return probes


def _training_gradients(run: RunDir) -> list[dict[str, Any]]:
    """Per evaluation, the gradient norm of every parameter in the training step before it."""
    return [
        {key: record.get(key) for key in ("step", "epoch", "layer_grad_norms")}
        for record in run.read_metrics()
        if record.get("layer_grad_norms")
    ]
