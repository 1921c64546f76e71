"""``nd.probe``: what the features of a finished run are worth on a data set.

import netdepth as nd

found = nd.probe("baseline-mlp", dataset="fashion-mnist")
found.table()                        # a pandas frame, one row per classifier
found.sentences                      # the answer in words
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netdepth.config import Component, RunConfig, digest
from netdepth.errors import BadInput
from netdepth.files.atomic import storage
from netdepth.overrides import apply_overrides, dataset_overrides
from netdepth.runs.folder import RunDir
from netdepth.training.finished import Run, load

if TYPE_CHECKING:
    import pandas

    from netdepth.data import Splits
    from netdepth.models import Network
    from netdepth.training.finished import Weights

__all__ = ["FOLDER", "Probe", "probe"]

FOLDER = "transfer"
"""Of a run's folder: holds a folder per data set probed with ``probe.json``, ``test_access.json`` and a picture."""

IMAGES = 5_000
"""Training images that the classifiers are fitted to, unless more are asked for: linear models on all take an hour."""

PURPOSE = "the classifiers that were chosen on validation, tested in one pass"
VERSION = 1


@dataclass(frozen=True)
class Probe:
    """A finished probe: ``document`` is ``probe.json`` in ``path``; ``cached``: it was there already."""

    path: Path
    document: Mapping[str, Any]
    cached: bool

    @property
    def sentences(self) -> list[str]:
        """What it says, in words."""
        from netdepth.tools.linear_probe.page import sentences

        return sentences(self.document)

    @property
    def figure(self) -> Path:
        """The picture, drawn if it is not there."""
        from netdepth.tools.linear_probe.page import picture

        return picture(self.path, self.document)

    def table(self) -> pandas.DataFrame:
        """One row per features and classifier."""
        import pandas

        return pandas.DataFrame([{k: v for k, v in row.items() if k != "tried"} for row in self.document["probes"]])

    def __repr__(self) -> str:
        return f"Probe({str(self.path)!r})"


def probe(
    run: str | Path | Run,
    *,
    dataset: str | Component,
    overrides: Sequence[str] = (),
    weights: str | None = None,
    images: int | None = IMAGES,
    data_dir: Path | None = None,
    runs_dir: Path | None = None,
    threads: int = 1,
    fresh: bool = False,
    progress: bool = True,
) -> Probe:
    """Fit simple classifiers to a run's features of ``dataset`` and to its pixels; test each once.

    k (neighbours) and C (linear SVM, logistic regression) are chosen on validation. Test images are opened when all
    is chosen, which is logged as a run's own opening is. What was found is kept in the run's folder, also while it
    goes on: a second call continues, or returns at once.

    Args:
        run: a `Run`, a path, or a unique prefix of a folder's name.
        dataset: as ``--dataset`` names it, or a component with settings.
        overrides: settings of it, such as ``"dataset.val_size=1000"``.
        weights: ``best`` or ``last``; the reported ones if None.
        images: training images to fit to, at most, drawn with equal class shares; None: all.
        data_dir: the data folder. runs_dir: the runs folder. threads: of the CPU.
        fresh: forget what was found. progress: show some.

    Raises:
        BadInput: the run is unfinished, the data do not fit its network, or there is nothing to choose on.
        Locked: another process works in the run's folder.
    """
    from netdepth import data
    from netdepth.training.finished import network_of, weights_of
    from netdepth.training.resolve import COMPONENTS

    found = run if isinstance(run, Run) else load(run, runs_dir)
    source = weights_of(found.dir, weights)
    component = COMPONENTS["dataset"].resolve(_component(dataset, overrides) if isinstance(dataset, str) else dataset)
    splits = data.load(component, data_dir=data_dir)
    network = network_of(source).float()
    if tuple(splits.spec.input_shape) != tuple(network.input_shape):
        raise BadInput(
            f"--dataset {component.name}: its images of {list(splits.spec.input_shape)} do not fit run "
            f"{found.path.name}, whose network takes {list(network.input_shape)}"
        )
    if len(splits.val) == 0:
        raise BadInput(f"--dataset {component.name} leaves no validation images, on which k and C are chosen")
    about = {
        "version": VERSION,
        "weights_sha256": source.sha256,
        "data_digest": splits.spec.data_digest,
        "split_digest": splits.spec.split_digest,
        "images": None if images is None or images >= len(splits.train) else images,
    }
    folder = RunDir(found.path / FOLDER / f"{component.name}-{digest(about)[:10]}")
    with found.dir.lock():
        with storage(folder.path):
            folder.path.mkdir(parents=True, exist_ok=True)
        document = None if fresh else folder.read_json("probe.json")
        if document is not None:
            return Probe(folder.path, document, cached=True)
        if fresh:
            for name in ("validation.json", "probe.png"):
                (folder.path / name).unlink(missing_ok=True)
        folder.write_json("probe.json", _made(folder, network, source, splits, about, threads, progress))
        document = folder.read_json("probe.json")
        assert document is not None
    return Probe(folder.path, document, cached=False)


def _component(text: str, overrides: Sequence[str]) -> Component:
    config = RunConfig(dataset=Component("mnist"), model=Component("mlp"))  # of which only the data set is asked
    for item in overrides:
        if not item.startswith("dataset."):
            raise BadInput(f"--set {item}: a probe takes settings of its data set, such as dataset.val_size=1000")
    return apply_overrides(config, [*dataset_overrides(text), *overrides])[0].dataset


def _made(
    folder: RunDir,
    network: Network,
    source: Weights,
    splits: Splits,
    about: Mapping[str, Any],
    threads: int,
    progress: bool,
) -> dict[str, Any]:
    """Choose on validation, then test once. ``validation.json`` holds what was tried, so that a kill loses one fit."""
    from netdepth.progress import CountProgress
    from netdepth.tools.linear_probe import features as f

    spec, part = splits.spec, f.subset(splits.train, about["images"])
    representations = {"network": source.sha256, "pixels": "pixels"}

    def of(split: Any, kind: str) -> f.Features:
        if kind == "pixels":
            return f.pixels_of(split, spec.data_digest)
        return f.features_of(network, split, spec.data_digest, source.sha256)

    train, val = ({name: of(split, name) for name in representations} for split in (part, splits.val))
    tried: dict[str, dict[str, float]] = (folder.read_json("validation.json") or {}).get("tried", {})
    with CountProgress(
        "fitting classifiers", len(representations) * sum(map(len, f.CANDIDATES.values())), shown=progress
    ) as on:
        for name in representations:
            for kind, candidates in f.CANDIDATES.items():
                known = tried.setdefault(f"{name} {kind}", {})
                for candidate in candidates:
                    if repr(candidate) not in known and (kind != "knn" or candidate <= len(part)):
                        known[repr(candidate)] = float(
                            f.right_answers(kind, candidate, train[name], val[name], threads).mean()
                        )
                        folder.write_json("validation.json", {"tried": tried})
                    on.add(1)
    chosen = {key: max(known, key=lambda value: known[value]) for key, known in tried.items()}  # a tie: the first
    test = None if splits.test is None else splits.test.open_test(PURPOSE, functools.partial(_log, folder))
    right = {}
    with CountProgress("testing the chosen", len(chosen), shown=progress) as on:
        for key, value in chosen.items():
            name, kind = key.split()
            if test is not None:
                right[key] = f.right_answers(kind, float(value), train[name], of(test, name), threads)
            on.add(1)
    rows = []
    for key, value in chosen.items():
        name, kind = key.split()
        rows.append(
            {
                "features": name,
                "classifier": kind,
                "setting": "k" if kind == "knn" else "C",
                "value": float(value),
                "val_accuracy": tried[key][value],
                **_tested(right.get(key), right.get(f"pixels {kind}") if name == "network" else None),
                "tried": [{"value": float(v), "val_accuracy": accuracy} for v, accuracy in tried[key].items()],
            }
        )
    counts = splits.train.labels.bincount(minlength=len(spec.classes))
    frequent = None if test is None else float((test.labels == int(counts.argmax())).double().mean())
    return {
        "run": source.run.path.resolve().name,
        "weights": source.which,
        **about,
        "dataset": spec.name,
        "title": spec.title,
        "note": spec.note,
        "dimensions": {name: int(train[name].values.shape[1]) for name in representations},
        "n": {"train": len(part), "val": len(splits.val), "test": None if test is None else len(test)},
        "classes": len(spec.classes),
        "chance": 1 / len(spec.classes),
        "most_frequent_class": frequent,
        "probes": rows,
    }


def _tested(right: Any, baseline: Any) -> dict[str, Any]:
    """Accuracy on test with Wilson's interval at 95 %, and McNemar's test against the same classifier on pixels."""
    from scipy.stats import binomtest

    from netdepth.stats.exact import mcnemar

    if right is None:
        return {"test_accuracy": None, "low": None, "high": None, "against_pixels": None}
    interval = binomtest(int(right.sum()), len(right)).proportion_ci(method="wilson")
    against = None
    if baseline is not None:
        found = mcnemar(right, baseline)
        against = {"only_network": found.first, "only_pixels": found.second, "p": found.p, "test": "McNemar, exact"}
    return {
        "test_accuracy": float(right.mean()),
        "low": float(interval.low),
        "high": float(interval.high),
        "against_pixels": against,
    }


def _log(folder: RunDir, purpose: str) -> None:
    log = folder.read_json("test_access.json") or {"opened": []}
    folder.write_json("test_access.json", {"opened": [*log["opened"], purpose]})
