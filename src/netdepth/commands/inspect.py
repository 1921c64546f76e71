"""``netdepth inspect``: what happens to the signal inside a run's network, layer by layer."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netdepth.commands.answer import Answer
from netdepth.config import Component, RunConfig, from_json
from netdepth.errors import BadInput, StorageError
from netdepth.runs.folder import RunDir, find_run, runs_root
from netdepth.text import printable

if TYPE_CHECKING:
    from netdepth.models import Network

__all__ = ["inspect"]


def inspect(args: argparse.Namespace) -> Answer:
    """Model table, gradients and activations per layer, as a picture and in words."""
    from netdepth import models
    from netdepth.tools.inspect.picture import layers_picture
    from netdepth.tools.inspect.tables import print_inspection, read_probes
    from netdepth.tools.inspect.words import words

    run = find_run(args.run, runs_root(args.runs_root))
    network = _network(run)
    description = models.describe(network)
    probes, notes = read_probes(run), []
    if not any(probe["step"] == 0 for probe in probes):
        probes = _measured(run, args.data, args.runs_root)
        source = "the initial weights" + " and the newest checkpoint" * (len(probes) > 1)
        notes.append(f"measured now from {source}: the run kept no probe of its start")
    text = words(probes, run.status())
    figure: Path | None = None
    try:
        figure = layers_picture(run, probes) if probes[0]["layers"] else None
    except StorageError as error:  # a run of somebody else's can still be read
        notes.append(f"no picture: {error}")
    layers = [dataclasses.asdict(layer) for layer in description.layers]
    title = f"{run.path.name}: depth {description.depth}, {description.parameters:,} parameters"

    def show() -> None:
        print_inspection(title, layers, probes, text)
        for note in notes:
            print(printable(f"note: {note}"))
        if figure is not None:
            print(printable(f"picture: {figure}"))

    document = {
        "run": run.path.resolve().name,
        "folder": run.path,
        "status": run.status(),
        "depth": description.depth,
        "parameters": description.parameters,
        "multiply_adds": description.multiply_adds,
        "layers": layers,
        "probes": probes,
        "training_gradients": _training_gradients(run),
        "words": text,
        "figure": figure,
        "notes": notes,
    }
    return Answer(document, show)


def _network(run: RunDir) -> Network:
    """The network of ``run`` with weights of no meaning: its shape is what counts.

    Raises:
        BadInput: the folder does not say what the network is.
    """
    from netdepth import models

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
    import torch

    from netdepth import data
    from netdepth.training.checkpoint import MODEL, load_weights
    from netdepth.training.layers import probe, probe_batch
    from netdepth.training.run import build_model, resolve

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
