"""Finished runs: the folder as Python sees it (`Run`), and its weights, held by digest, built into a network again.

A run that starts from another (``start_from``), one that learns from another (``objective.teacher``) and every tool for
a finished network read weights here, and nowhere else.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch

from netdepth import data, models
from netdepth.config import Component, StartFrom, from_json
from netdepth.errors import BadInput, NetdepthError
from netdepth.runs import RunResult
from netdepth.runs.find import find_run
from netdepth.runs.folder import RunDir, runs_root
from netdepth.training.checkpoint import MODEL, load_weights
from netdepth.training.own import find_own
from netdepth.training.published import SUFFIX, begin_with_file, pinned_file

if TYPE_CHECKING:
    import pandas

__all__ = ["Run", "Weights", "begin_with", "find_weights", "load", "name_of", "network_of", "pinned", "weights_of"]


@dataclasses.dataclass(frozen=True)
class Weights:
    """``which`` weights of a finished ``run``: the bytes of their file and the sha256 of those."""

    run: RunDir
    which: str
    content: bytes
    sha256: str


def weights_of(run: RunDir, which: str | None = None) -> Weights:
    """The ``best`` or ``last`` weights of ``run``, those that its result reports if None.

    Raises:
        BadInput: the run is unfinished, or its checkpoint is missing, damaged or not what its result was made with.
    """
    result = run.result()
    if result is None or run.split() is None:
        raise BadInput(f"run {run.path.name} is {run.status()}; only a finished run has weights to use")
    which = which or result.get("reported") or "last"
    if which not in ("best", "last"):
        raise BadInput(f"weights = {which!r} is not acceptable; it takes best or last")
    step = result.get("best_step") if which == "best" else result.get("steps")
    if result.get("status") == "diverged" and (which != "best" or step is None):
        best = "" if result.get("best_step") is None else "; its best weights, from before that, can be used"
        raise BadInput(
            f"run {run.path.name} diverged (its loss was no longer finite), so it has no {which} weights{best}"
        )
    files = None if step is None else run.load_checkpoint(step)
    if files is None:
        raise BadInput(f"run {run.path.name} has no intact checkpoint of its {which} weights (step {step})")
    sha256 = hashlib.sha256(files[MODEL]).hexdigest()
    if which == result.get("reported") and sha256 != result.get("weights_sha256"):
        raise BadInput(f"the {which} weights of run {run.path.name} are not those its result was computed with")
    return Weights(run, which, files[MODEL], sha256)


def network_of(weights: Weights) -> models.Network:
    """The network of a run with ``weights``, in eval mode, in the precision it was trained in.

    Raises:
        BadInput: files that are whole but do not fit one another.
    """
    run = weights.run
    config, split = run.read_json("config.json") or {}, run.split()
    if split is None or split.input_shape is None:
        raise BadInput(f"run {run.path.name} cannot be loaded: its split.json does not say how large its images are")
    try:
        find_own(run, "model")
        component = from_json(Component, config["model"], "config.model")
        model = models.build(component, split.input_shape, split.outputs)
        if config["train"]["precision"] == "float64":
            model = model.to(torch.float64)
        load_weights(model, weights.content)
    except NetdepthError:
        raise
    except Exception as error:  # files that are not of one run make the libraries raise anything
        reason = " ".join(str(error).split())[:200]
        raise BadInput(f"run {run.path.name} cannot be loaded: its files do not fit one another ({reason})") from None
    return model.eval()


def find_weights(text: str, which: str | None, sha256: str | None, root: Path | None, what: str) -> Weights:
    """The weights of the run that ``text`` names under ``root``; ``what`` is the setting that names it.

    Raises:
        BadInput: no such run, an unfinished one, or weights that are not those of ``sha256``.
    """
    try:
        found = weights_of(find_run(text, runs_root(root)), which)
    except BadInput as error:
        raise BadInput(f"{what}: {error}") from None
    if sha256 is not None and sha256 != found.sha256:
        raise BadInput(
            f"{what}: the {found.which} weights of run {text!r} are {found.sha256[:10]}, not {sha256[:10]} as this "
            "config says: the run was altered or made again"
        )
    return found


def name_of(run: RunDir, root: Path | None) -> str:
    """How a config names ``run``: from the runs folder on where it lies there, so that the folder can be moved."""
    path, base = run.path.resolve(), runs_root(root).resolve()
    return str(path.relative_to(base)) if path.is_relative_to(base) else str(path)


def pinned(start: StartFrom, root: Path | None) -> StartFrom:
    """``start`` with the run (under ``root``) or the file that it names fixed by the digest of its weights.

    Raises:
        BadInput: there is none such, it is unfinished, or its weights are not those of ``start.sha256``.
    """
    if start.run.endswith(SUFFIX):
        return pinned_file(start)
    parent = find_weights(start.run, start.weights, start.sha256, root, "start_from")
    found: dict[str, Any] = {"run": name_of(parent.run, root), "weights": parent.which, "sha256": parent.sha256}
    return dataclasses.replace(start, **found)


def begin_with(model: models.Network, start: StartFrom, root: Path | None) -> None:
    """Give ``model`` the weights that ``start`` names, in place; with ``reset_head`` its last stage stays as drawn.

    The buffers come too: running statistics and the normalisation of the images, which stays that of the parent run.
    A file of weights (``start.run`` ends in ``.safetensors``) without a normalisation gets ImageNet's.

    Raises:
        BadInput: the parent run is missing, altered or another network; a stage that the network does not have.
    """
    stages = list(model.stage_paths())
    for key, names in (("freeze", start.freeze), ("lr_scale", start.lr_scale)):
        for name in names:
            if name not in stages:
                raise BadInput(f"start_from.{key} names {name!r}; the stages of this network are {', '.join(stages)}")
    if set(start.freeze) >= set(stages) and start.unfreeze_every is None:
        raise BadInput("start_from.freeze names every stage, so nothing is left to train; leave one out")
    if start.run.endswith(SUFFIX):
        begin_with_file(model, pinned_file(start))
        return
    parent = find_weights(start.run, start.weights, start.sha256, root, "start_from")
    head = stages[-1]
    own, given = model.state_dict(), safetensors.torch.load(parent.content)
    kept = {name for name in own if start.reset_head and model.stage_of(name) == head}
    fits = {name: tuple(tensor.shape) for name, tensor in own.items() if name not in kept}
    found = {name: tuple(tensor.shape) for name, tensor in given.items() if name not in kept}
    if fits != found:
        raise BadInput(f"start_from: run {start.run!r} has another network: {_difference(fits, found, head)}")
    model.load_state_dict({**given, **{name: own[name] for name in kept}})


def _difference(own: Mapping[str, Sequence[int]], given: Mapping[str, Sequence[int]], head: str) -> str:
    """The first parameter in which two networks differ, as a person reads it."""
    name = next(name for name in [*own, *given] if own.get(name) != given.get(name))
    there, here = ("missing" if shape is None else f"{list(shape)}" for shape in (given.get(name), own.get(name)))
    remedy = "; start_from.reset_head=true draws the last stage anew" if name.startswith(f"{head}.") else ""
    return f"{name} is {there} there and {here} here; use the same model, and images of the same size{remedy}"


@dataclasses.dataclass(frozen=True)
class Run:
    """A run folder as Python sees it."""

    dir: RunDir

    @property
    def path(self) -> Path:
        return self.dir.path

    @property
    def config(self) -> dict[str, Any]:
        """``config.json``."""
        return self.dir.read_json("config.json") or {}

    @property
    def result(self) -> RunResult:
        """``result.json``; empty while the run is unfinished."""
        return self.dir.result() or RunResult()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the network's outputs; empty for a run that learns values."""
        split = self.dir.split()
        return () if split is None else split.classes

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the values, in the order of the network's outputs; empty for a run that learns classes."""
        split = self.dir.split()
        return () if split is None else split.targets

    @property
    def figure(self) -> Path | None:
        """The learning curves, if they were drawn."""
        path = self.path / "figures" / "learning_curves.png"
        return path if path.exists() else None

    def metrics(self) -> pandas.DataFrame:
        """``metrics.jsonl`` as a frame, one row per evaluation."""
        import pandas

        return pandas.DataFrame(self.dir.read_metrics())

    def model(self, weights: str | None = None) -> models.Network:
        """The network with its ``best`` or ``last`` weights (the reported ones if None), in eval mode.

        Raises:
            BadInput: the run is unfinished, or its checkpoint is missing or damaged.
        """
        return network_of(weights_of(self.dir, weights))

    def weights(self, weights: str | None = None) -> tuple[str, bytes]:
        """``best`` or ``last`` (the reported ones if None), and the run's safetensors file of those weights.

        Raises:
            BadInput: as `model`.
        """
        found = weights_of(self.dir, weights)
        return found.which, found.content

    def data(self, data_dir: Path | None = None) -> data.Splits:
        """The data set of the run, split as it was; its test part stays sealed.

        Raises:
            BadInput: what is here are other data, or another split of them.
            StorageError: the data are not here.
        """
        split, name = self.dir.split(), self.path.name
        if split is None or not self.config.get("dataset"):
            raise BadInput(f"run {name} does not say what its data are: config.json or split.json lacks it")
        find_own(self.dir, "dataset")
        component = from_json(Component, self.config["dataset"], "config.dataset")
        splits = data.load(component, data_dir=data_dir)
        for key in ("data_digest", "split_digest"):
            if getattr(split, key) != getattr(splits.spec, key):
                raise BadInput(f"run {name} was made with other data: {component.name} here has another {key}")
        return splits

    def __repr__(self) -> str:
        return f"Run({self.path.name!r}, {self.dir.status()})"

    def _repr_html_(self) -> str:
        import base64
        import html

        title = f"<p><code>{html.escape(self.path.name)}</code>: {html.escape(self.dir.status())}</p>"
        if self.figure is None:
            return title
        picture = base64.b64encode(self.figure.read_bytes()).decode()
        return f'{title}<img alt="learning curves" src="data:image/png;base64,{picture}" style="max-width:100%">'


def load(run: str | Path, runs_dir: Path | None = None) -> Run:
    """The run at a path, or the one whose folder name begins with ``run``.

    Raises:
        BadInput: none or several match.
    """
    return Run(find_run(str(run), runs_root(runs_dir)))
