"""``nd.probe``: a linear probe, which says what the features of a finished run are worth on a data set.

import netdepth as nd

found = nd.probe("baseline-mlp", dataset="fashion-mnist")
found.table()                        # a pandas frame, one row per classifier
found.sentences                      # the answer in words
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from netdepth import data
from netdepth.config import Component, Json, RunConfig, digest, to_json
from netdepth.data import Split, Splits
from netdepth.errors import BadInput
from netdepth.files.atomic import storage
from netdepth.overrides import apply_overrides, dataset_overrides
from netdepth.progress import CountProgress
from netdepth.runs.folder import RunDir
from netdepth.stats.exact import mcnemar
from netdepth.tools.common import Opened, open_weights
from netdepth.tools.linear_probe import features as f
from netdepth.tools.linear_probe.page import AgainstPixels, Counts, Result, Row, Tried, draw, sentences
from netdepth.training.finished import Run
from netdepth.training.published import Published
from netdepth.training.resolve import COMPONENTS

if TYPE_CHECKING:
    import pandas

__all__ = ["FOLDER", "LinearProbe", "probe"]

FOLDER = "transfer"
"""In a run's folder: holds a folder per probed data set with ``probe.json``, ``test_access.json`` and a picture."""

IMAGES = 5_000
"""Training images to which the classifiers are fitted by default: linear models on all images take an hour."""

PURPOSE = "the classifiers that were chosen on validation, tested in one pass"
VERSION = 1


@dataclass(frozen=True)
class LinearProbe:
    """A finished linear probe: its ``result``, kept in the folder ``path``; ``cached``: it existed before the call."""

    path: Path
    result: Result
    cached: bool

    @property
    def document(self) -> Mapping[str, Json]:
        """The content of ``probe.json``."""
        return RunDir(self.path).read_json("probe.json") or {}

    @property
    def sentences(self) -> list[str]:
        """The answer in words."""
        return sentences(self.result)

    @property
    def figure(self) -> Path:
        """The picture; it is drawn if it does not exist."""
        return draw(self.path, self.result)

    def table(self) -> pandas.DataFrame:
        """One row per features and classifier."""
        import pandas

        rows = to_json(self.result.probes)
        return pandas.DataFrame([{key: value for key, value in row.items() if key != "tried"} for row in rows])


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
) -> LinearProbe:
    """Fit simple classifiers to a run's features of ``dataset`` and to its pixels; test each once.

    k (neighbours) and C (linear SVM, logistic regression) are chosen on validation. Test images are opened when all
    are chosen, which is logged in the same way as for a run. The results are kept in the run's folder, also while it
    works: a second call continues, or returns at once.

    Args:
        run: a `Run`, a path, or a unique prefix of a folder's name; or a ``.safetensors`` file of weights, beside which
            the results are kept.
        dataset: as ``--dataset`` names it, or a component with settings.
        overrides: settings of it, such as ``"dataset.val_size=1000"``.
        weights: ``best`` or ``last``; the reported ones if None.
        images: training images to fit to, at most, drawn with equal class shares; None: all.
        data_dir: the data folder. runs_dir: the runs folder. threads: of the CPU.
        fresh: forget earlier results. progress: show it.

    Raises:
        BadInput: the run is unfinished, the data do not fit its network, or there are no validation images.
        Locked: another process works in the run's folder.
    """
    component = COMPONENTS["dataset"].resolve(_component(dataset, overrides) if isinstance(dataset, str) else dataset)
    found = open_weights(run, weights, runs_dir)
    splits, network = data.load(component, data_dir=data_dir), found.network.float()
    if splits.spec.targets:
        raise BadInput(f"--dataset {component.name} has values for labels; a linear probe classifies")
    if isinstance(found.source, Published):
        home = RunDir(found.source.path.with_name(found.source.path.stem + "-probe"))
        found.source.sized(splits.spec.input_shape)
    else:
        home = found.source.dir
    if tuple(splits.spec.input_shape) != tuple(network.input_shape):
        raise BadInput(
            f"--dataset {component.name}: its images of {list(splits.spec.input_shape)} do not fit "
            f"{found.name}, whose network takes {list(network.input_shape)}"
        )
    if len(splits.val) == 0:
        raise BadInput(f"--dataset {component.name} leaves no validation images, on which k and C are chosen")
    images = None if images is None or images >= len(splits.train) else images
    setting = {
        "version": VERSION,
        "weights_sha256": found.sha256,
        "data_digest": splits.spec.data_digest,
        "split_digest": splits.spec.split_digest,
        "images": images,
    }
    folder = RunDir(home.path / FOLDER / f"{component.name}-{digest(setting)[:10]}")
    with storage(home.path):
        home.path.mkdir(exist_ok=True)
    with home.lock():
        with storage(folder.path):
            folder.path.mkdir(parents=True, exist_ok=True)
        document = None if fresh else folder.read_json("probe.json")
        if document is not None:
            return LinearProbe(folder.path, Result.from_json(document), cached=True)
        if fresh:
            for name in ("validation.json", "probe.png"):
                (folder.path / name).unlink(missing_ok=True)
        result = _probed(folder, found, splits, images, threads, progress)
        folder.write_json("probe.json", to_json(result))
    return LinearProbe(folder.path, result, cached=False)


def _component(text: str, overrides: Sequence[str]) -> Component:
    config = RunConfig(dataset=Component("mnist"), model=Component("mlp"))  # only its data set is used
    for item in overrides:
        if not item.startswith("dataset."):
            raise BadInput(f"--set {item}: a probe takes settings of its data set, such as dataset.val_size=1000")
    return apply_overrides(config, [*dataset_overrides(text), *overrides])[0].dataset


def _probed(
    folder: RunDir,
    weights: Opened,
    splits: Splits,
    images: int | None,
    threads: int,
    progress: bool,
) -> Result:
    """Choose on validation, then test once. ``validation.json`` holds what was tried, so that a kill loses one fit."""
    spec, part = splits.spec, f.subset(splits.train, images)
    kinds = ("network", "pixels")

    def of(split: Split, kind: str) -> f.Features:
        if kind == "pixels":
            return f.pixels_of(split, spec.data_digest)
        return f.features_of(weights.network, split, spec.data_digest, weights.sha256)

    train, val = ({kind: of(split, kind) for kind in kinds} for split in (part, splits.val))
    # By features and classifier, such as "network knn": accuracy on validation by the value of k or C.
    tried: dict[str, dict[str, float]] = (folder.read_json("validation.json") or {}).get("tried", {})
    fits = [
        (kind, classifier, value) for kind in kinds for classifier in f.CANDIDATES for value in f.CANDIDATES[classifier]
    ]
    with CountProgress("fitting classifiers", len(fits), shown=progress) as shown:
        for kind, classifier, value in fits:
            known = tried.setdefault(f"{kind} {classifier}", {})
            if repr(value) not in known and (classifier != "knn" or value <= len(part)):
                known[repr(value)] = float(f.right_answers(classifier, value, train[kind], val[kind], threads).mean())
                folder.write_json("validation.json", {"tried": tried})
            shown.add(1)
    chosen = {key: max(known, key=lambda value: known[value]) for key, known in tried.items()}  # a tie: the first

    test = None if splits.test is None else splits.test.open_test(PURPOSE, folder.log_test_access)
    right_on_test: dict[str, np.ndarray] = {}
    with CountProgress("testing the chosen classifiers", len(chosen), shown=progress) as shown:
        for key, best in chosen.items():
            kind, classifier = key.split()
            if test is not None:
                right_on_test[key] = f.right_answers(classifier, float(best), train[kind], of(test, kind), threads)
            shown.add(1)
    from scipy.stats import binomtest

    rows = []
    for key, best in chosen.items():
        kind, classifier = key.split()
        accuracy = low = high = against_pixels = None
        if key in right_on_test:
            right = right_on_test[key]
            ends = binomtest(int(right.sum()), len(right)).proportion_ci(method="wilson")
            accuracy, low, high = float(right.mean()), float(ends.low), float(ends.high)
            if kind == "network":
                compared = mcnemar(right, right_on_test[f"pixels {classifier}"])
                against_pixels = AgainstPixels(compared.first, compared.second, compared.p)
        rows.append(
            Row(
                features=kind,
                classifier=classifier,
                setting="k" if classifier == "knn" else "C",
                value=float(best),
                val_accuracy=tried[key][best],
                test_accuracy=accuracy,
                low=low,
                high=high,
                against_pixels=against_pixels,
                tried=tuple(Tried(float(value), found) for value, found in tried[key].items()),
            )
        )
    counts = splits.train.labels.bincount(minlength=len(spec.classes))
    return Result(
        run=weights.name,
        weights=weights.which,
        version=VERSION,
        weights_sha256=weights.sha256,
        data_digest=spec.data_digest,
        split_digest=spec.split_digest,
        images=images,
        dataset=spec.name,
        title=spec.title,
        note=spec.note,
        dimensions={kind: int(train[kind].values.shape[1]) for kind in kinds},
        n=Counts(len(part), len(splits.val), None if test is None else len(test)),
        classes=len(spec.classes),
        chance=1 / len(spec.classes),
        most_frequent_class=None if test is None else float((test.labels == int(counts.argmax())).double().mean()),
        probes=tuple(rows),
    )
