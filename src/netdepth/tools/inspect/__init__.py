"""What happens to the signal inside a run's network, layer by layer: numbers, picture, words."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from netdepth import models
from netdepth.config import SCHEMA, Component, RunConfig, from_json
from netdepth.errors import BadInput, StorageError
from netdepth.runs.folder import RunDir
from netdepth.text import thousands
from netdepth.tools.common import open_run
from netdepth.tools.inspect.picture import draw_layers
from netdepth.tools.inspect.statistics import read_statistics, words
from netdepth.training.checkpoint import MODEL, load_weights
from netdepth.training.finished import Run
from netdepth.training.layers import Statistics, probe, probe_batch
from netdepth.training.objectives import OBJECTIVES
from netdepth.training.own import find_own
from netdepth.training.resolve import build_model, fill_in

__all__ = ["Inspection", "inspect"]


@dataclass(frozen=True)
class Inspection:
    """The network of ``run``: its layers, and their statistics at some steps of training, ``kept`` in files of the
    run or measured now."""

    run: RunDir
    description: models.Description
    statistics: Sequence[Statistics]
    kept: bool
    words: str
    figure: Path | None
    notes: Sequence[str]

    @property
    def title(self) -> str:
        """A line about the network."""
        return (
            f"{self.run.path.name}: depth {self.description.depth}, {thousands(self.description.parameters)} parameters"
        )

    def as_json(self) -> Mapping[str, object]:
        """The document of ``netdepth inspect --json``."""
        return {
            "run": self.run.path.resolve().name,
            "folder": self.run.path,
            "status": self.run.status(),
            **dataclasses.asdict(self.description),
            "probes": [({"schema": SCHEMA} if self.kept else {}) | one.as_json() for one in self.statistics],
            "training_gradients": [
                {key: record.get(key) for key in ("step", "epoch", "layer_grad_norms")}
                for record in self.run.read_metrics()
                if record.get("layer_grad_norms")
            ],
            "words": self.words,
            "figure": self.figure,
            "notes": self.notes,
        }


def inspect(name: str | Path | Run, *, data_dir: Path | None = None, runs_dir: Path | None = None) -> Inspection:
    """Look inside the network of the run ``name``: a run, a path or a unique prefix of a folder name.

    A run that kept no layer statistics of its start is measured now.

    Raises:
        BadInput: no such run, or its folder does not say what its network or its data are.
        StorageError: it has to be measured, and its data are not here.
    """
    run = open_run(name, runs_dir)
    description = models.describe(_network(run))
    found, notes = read_statistics(run.dir), []
    kept = any(one.step == 0 for one in found)
    if not kept:
        found = _measured(run, data_dir, runs_dir)
        of = "the initial weights" + " and the newest checkpoint" * (len(found) > 1)
        notes.append(f"measured now from {of}: the run kept no layer statistics of its start")
    figure: Path | None = None
    try:
        figure = draw_layers(run.dir, found) if found[0].layers else None
    except StorageError as error:  # a folder that cannot be written can still be read
        notes.append(f"no picture: {error}")
    return Inspection(run.dir, description, found, kept, words(found, run.dir.status()), figure, notes)


def _network(run: Run) -> models.Network:
    """The network of ``run`` with meaningless weights: only its shape is used.

    Raises:
        BadInput: the folder does not say what the network is.
    """
    config, split = run.config, run.dir.split()
    if not config.get("model") or split is None or split.input_shape is None or not split.outputs:
        raise BadInput(f"run {run.path.name} does not say what its network is: config.json or split.json lacks it")
    find_own(run.dir, "model")
    component = from_json(Component, config["model"], "config.model")
    return models.build(component, split.input_shape, split.outputs)


def _measured(run: Run, data_dir: Path | None, root: Path | None) -> list[Statistics]:
    """Layer statistics of the initial weights, drawn again, and of the newest checkpoint.

    Raises:
        BadInput: the data here are not those of the run.
        StorageError: the data are not here.
    """
    find_own(run.dir)
    fields = {field.name for field in dataclasses.fields(RunConfig)}
    config = from_json(RunConfig, {key: value for key, value in run.config.items() if key in fields})
    config = fill_in(config, runs_root=root)
    try:
        splits = run.data(data_dir)
    except (BadInput, StorageError) as error:
        raise type(error)(
            f"run {run.path.name} kept no layer statistics; measuring them needs its data: {error}"
        ) from None
    torch.set_num_threads(1)  # initial weights are drawn on one thread
    model = build_model(config, splits, runs_root=root)
    batch, objective = probe_batch(splits.train), OBJECTIVES.build(config.objective)
    found = [probe(model, *batch, objective=objective)]
    newest = run.dir.newest_checkpoint()
    if newest is not None:
        step, files = newest
        load_weights(model, files[MODEL])
        epochs = {record["step"]: record["epoch"] for record in run.dir.read_metrics()}
        found.append(probe(model, *batch, step, epochs.get(step, float("nan")), objective))
    return found
