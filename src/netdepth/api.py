"""What ``import netdepth as nd`` offers: train, load, predict, sync.

import netdepth as nd

run = nd.train("baseline-mlp", seed=0)
run.result["test"]["best"]["accuracy"]
run.metrics()                       # a pandas frame, one row per evaluation
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netdepth.config import RunConfig, Runtime, from_json
from netdepth.errors import BadInput, RunFailed
from netdepth.overrides import apply_overrides, dataset_overrides, parse_seeds
from netdepth.runs.folder import RunDir, find_run, runs_root

if TYPE_CHECKING:
    import pandas

    from netdepth.data import Splits
    from netdepth.models import Network
    from netdepth.tools.convert import Published

__all__ = ["Prediction", "Run", "load", "open_network", "plan", "predict", "sync", "train"]


@dataclass(frozen=True)
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
    def result(self) -> dict[str, Any]:
        """``result.json``; empty while the run is unfinished."""
        return self.dir.result() or {}

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the network's outputs."""
        return tuple((self.dir.read_json("split.json") or {}).get("classes", ()))

    @property
    def figure(self) -> Path | None:
        """The learning curves, if they were drawn."""
        path = self.path / "figures" / "learning_curves.png"
        return path if path.exists() else None

    def metrics(self) -> pandas.DataFrame:
        """``metrics.jsonl`` as a frame, one row per evaluation."""
        import pandas

        return pandas.DataFrame(self.dir.read_metrics())

    def model(self, weights: str | None = None) -> Network:
        """The network with its ``best`` or ``last`` weights (the reported ones if None), in eval mode.

        Raises:
            BadInput: the run is unfinished, or its checkpoint is missing or damaged.
        """
        from netdepth.training.parent import network_of, weights_of

        return network_of(weights_of(self.dir, weights))

    def weights(self, weights: str | None = None) -> tuple[str, bytes]:
        """``best`` or ``last`` (the reported ones if None), and the run's safetensors file of those weights.

        Raises:
            BadInput: as `model`.
        """
        from netdepth.training.parent import weights_of

        found = weights_of(self.dir, weights)
        return found.which, found.content

    def data(self, data_dir: Path | None = None) -> Splits:
        """The data set of the run, split as it was; its test part stays sealed.

        Raises:
            BadInput: what is here are other data, or another split of them.
            StorageError: the data are not here.
        """
        return _load_data(self, data_dir)

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


def plan(
    recipe: str | RunConfig,
    *,
    seed: int | None = None,
    seeds: str | Sequence[int] | None = None,
    dataset: str | None = None,
    overrides: Sequence[str] = (),
) -> tuple[str, list[RunConfig], list[str]]:
    """The runs a command asks for: (recipe name, one config per seed, announcements).

    Without ``seed`` and ``seeds`` the recipe's own seed is kept (0, or that of a ``config.json``).

    Raises:
        BadInput: an unknown recipe, override or seed.
    """
    from netdepth import recipes

    if isinstance(recipe, RunConfig):
        name, config = recipe.model.name, recipe
    else:
        name, config = recipes.resolve(recipe)
    texts = [*dataset_overrides(dataset), *overrides]
    config, notes = apply_overrides(config, texts)
    if seeds is not None:
        chosen: Sequence[int] = parse_seeds(seeds) if isinstance(seeds, str) else list(seeds)
    else:
        chosen = (config.seed if seed is None else seed,)
    return name, [dataclasses.replace(config, seed=s) for s in chosen], notes


def train(
    recipe: str | RunConfig,
    *,
    seed: int | None = None,
    seeds: str | Sequence[int] | None = None,
    dataset: str | None = None,
    overrides: Sequence[str] = (),
    runtime: Runtime | None = None,
    progress: bool = True,
) -> Run | list[Run]:
    """Train ``recipe`` (a name, ``file.py:function``, a ``config.json`` or a `RunConfig`).

    Returns:
        The run; with ``seeds`` (a count or list as text, or a sequence) a list of runs.

    Raises:
        BadInput: what the command line would answer with exit 2.
        RunFailed: a run could not finish; the others did.
    """
    from netdepth import recipes
    from netdepth.report.learning_curves import learning_curves
    from netdepth.training.launch import launch, settle

    runtime = runtime or Runtime()
    for module in runtime.imports:
        recipes.import_user(module)
    name, configs, _ = plan(recipe, seed=seed, seeds=seeds, dataset=dataset, overrides=overrides)
    outcomes = launch(name, configs, runtime, progress=progress)
    runs = [Run(RunDir(outcome.path)) for outcome in outcomes if outcome.path is not None]
    for run in runs:
        if run.figure is None:
            learning_curves(run.dir)
    settle(outcomes)
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    if failed:
        raise RunFailed("; ".join(f"seed {outcome.seed}: {outcome.error}" for outcome in failed))
    return runs[0] if seeds is None else runs


def load(run: str | Path, runs_dir: Path | None = None) -> Run:
    """The run at a path, or the one whose folder name begins with ``run``.

    Raises:
        BadInput: none or several match.
    """
    return Run(find_run(str(run), runs_root(runs_dir)))


def sync(run: str | Path, *, to: str, runs_dir: Path | None = None, wandb_online: bool = False) -> Path:
    """Rebuild the ``to`` (``"tensorboard"``, ``"wandb"``) mirror of a run from its folder alone."""
    from netdepth.trackers.mirror import sync as rebuild

    return rebuild(load(run, runs_dir).dir, to, wandb_online=wandb_online)


def _load_data(run: Run, data_dir: Path | None) -> Splits:
    from netdepth import data
    from netdepth.config import Component

    split = run.dir.read_json("split.json")
    if split is None or not run.config.get("dataset"):
        raise BadInput(f"run {run.path.name} does not say what its data are: config.json or split.json lacks it")
    component = from_json(Component, run.config["dataset"], "config.dataset")
    splits = data.load(component, data_dir=data_dir)
    for key, found in (("data_digest", splits.spec.data_digest), ("split_digest", splits.spec.split_digest)):
        if split.get(key) != found:
            raise BadInput(f"run {run.path.name} was made with other data: {component.name} here has another {key}")
    return splits


@dataclass(frozen=True)
class Prediction:
    """What a network says of one picture: ``label``, and every class with its probability, most likely first."""

    path: Path
    label: str
    probabilities: list[tuple[str, float]]
    note: str | None


def open_network(text: str, runs_dir: Path | None = None, names: Path | None = None) -> Run | Published:
    """What ``predict`` and ``explain`` take: a run, or published weights in a ``.safetensors`` file.

    ``names`` is a text file with the name of each class of such weights, one a line.

    Raises:
        BadInput: none or several runs match, a file that is not what it should be, ``names`` for a run.
    """
    from netdepth.tools.convert import open_published

    if not text.endswith(".safetensors"):
        if names is not None:
            raise BadInput(
                f"--names {str(names)!r} is for published weights (FILE.safetensors); a run has its own names"
            )
        return load(text, runs_dir)
    try:
        lines = None if names is None else names.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot read --names {str(names)!r}: {getattr(error, 'strerror', None) or error}") from None
    return open_published(Path(text), lines)


def predict(run: Run | Published, images: Sequence[Path], *, invert: bool = False) -> list[Prediction]:
    """Classify picture files with the reported weights of ``run``, or with published ones.

    A picture, JPEG or PNG, is turned to the network's channels and size as those of ``image-folder`` are
    (`netdepth.files.pictures.read_picture`); ``invert`` swaps black and white (MNIST digits are white on black).

    Raises:
        BadInput: a file that is not a readable picture, or an unfinished run.
    """
    import torch

    from netdepth.files.pictures import read_picture

    if isinstance(run, Run):
        model, classes = run.model(), run.classes
    else:
        model, classes = run.model, run.classes
    predictions = []
    for path in images:
        array, note = read_picture(Path(path), model.input_shape)
        pixels = torch.tensor(255 - array if invert else array)
        with torch.inference_mode():
            shares = model(pixels.unsqueeze(0))[0].double().softmax(0).tolist()
        ranked = sorted(zip(classes, shares, strict=True), key=lambda item: -item[1])
        predictions.append(Prediction(Path(path), ranked[0][0], ranked, note))
    return predictions
