"""What the files of a finished run say of one another: whether its result is the one that they give.

Each function returns faults, a line each that begins with the file that is wrong. The seal (`netdepth.runs.seal`) tells
that a file was altered; what stands here also holds where a run has none, or where it was written anew.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from netdepth.config import Duration
from netdepth.errors import BadInput
from netdepth.runs import MetricsRecord
from netdepth.runs.compare import predictions_of
from netdepth.runs.folder import RunDir
from netdepth.runs.seal import AGAIN, EVALUATION, PICTURES, PREDICTIONS, WEIGHTS_FILE, opened, sha256_of
from netdepth.runs.table import field_of, number_of

__all__ = ["access_faults", "name_faults", "prediction_faults", "record_faults", "repeated", "weight_faults"]

CLOSE = 1e-6
"""How far a metric that is computed here from stored logits may be from the one of the result, of its size."""
MEASURED_TWICE = 2e-3
"""How far the last record may be from the result: the same weights on the same images, in another order of summation,
where a few of the images may then lie on the other side."""


def name_faults(run: RunDir, config: Mapping[str, Any]) -> Iterator[str]:
    """The folder's name against its ``config.json``."""
    seed, mark = config.get("seed"), config.get("fingerprint")
    if run.path.is_symlink():
        yield "it is a link to another folder"
    if not run.path.name.endswith(f"-s{seed}-{mark}"):
        yield f"config.json says seed {seed} and fingerprint {mark}; the folder has another name"


def record_faults(
    records: Sequence[MetricsRecord], result: Mapping[str, Any], config: Mapping[str, Any], sizes: Mapping[str, int]
) -> Iterator[str]:
    """``metrics.jsonl`` against the result: steps, the best step, the end, and the validation metrics of both weights.

    ``sizes`` counts the images of each part.
    """
    if not records:
        yield "metrics.jsonl has no record, and there is a result"
        return
    last, status = records[-1], result.get("status")
    # A run that diverges in the first step after an evaluation has a record of it at the same step.
    if any(b["step"] < a["step"] + (not b.get("diverged")) for a, b in itertools.pairwise(records)):
        yield "metrics.jsonl: its steps do not rise"
    lost = bool(last.get("diverged"))
    if lost != (status == "diverged"):
        yield f"result.json says {status}, the last record that the run {'diverged' if lost else 'did not diverge'}"
    steps = result.get("steps")
    if not lost and steps != last["step"]:
        yield f"result.json says {steps} steps, metrics.jsonl ends at {last['step']}"
    budget = _budget(config, sizes)
    if status == "completed" and budget not in (None, last["step"]):
        yield f"result.json says completed; the budget is {budget} steps, and metrics.jsonl ends at {last['step']}"
    marked = [record for record in records if record.get("best") is True]
    best = marked[-1] if marked else None
    if best is not None and best["step"] != result.get("best_step"):
        yield f"result.json says the best step is {result.get('best_step')}, metrics.jsonl says {best['step']}"
    onset = last.get("overfit_onset_epoch")
    if "overfit_onset_epoch" in last and onset != result.get("overfit_onset_epoch"):
        yield f"result.json: overfit_onset_epoch is not the {onset} of metrics.jsonl"
    few = max(MEASURED_TWICE, 3 / max(sizes.get("val", 0), 1))
    for which, record in (("last", None if lost else last), ("best", best)):
        for name in ("loss", "accuracy"):
            told = number_of(field_of(result, f"val.{which}.{name}"))
            seen = None if record is None else _value(record, f"val_{name}")
            if seen is None or told is None or not math.isfinite(seen):  # a loss can be too large for its precision
                continue
            near = abs(told - seen) <= few if name == "accuracy" else _near(told, seen, MEASURED_TWICE)
            if not near:
                yield f"result.json: val.{which}.{name} is {told:.6g}, metrics.jsonl says {seen:.6g}"


def _value(record: MetricsRecord, name: str) -> float | None:
    stored: Any = record
    return number_of(field_of(stored, name))


def _budget(config: Mapping[str, Any], sizes: Mapping[str, int]) -> int | None:
    """The steps that the run was to make; None where its files do not say."""
    train = config.get("train")
    try:
        batch, images = train["batch_size"], sizes["train"]  # type: ignore[index]
        return Duration.parse(str(train["budget"])).steps(-(-images // batch))  # type: ignore[index]
    except (KeyError, TypeError, ValueError, ZeroDivisionError, BadInput):
        return None


def prediction_faults(run: RunDir, result: Mapping[str, Any], sizes: Mapping[str, int]) -> tuple[list[str], str | None]:
    """``predictions.npz`` against the metrics, the classes and the confusion matrix of the result; and the digest of
    its labels, which all runs on the same images share."""
    if result.get("confusion") is None and not (run.path / PREDICTIONS).exists():
        return [], None
    try:
        logits, labels = predictions_of(run)
    except BadInput:
        return [f"{PREDICTIONS} is missing or damaged"], None
    part, which = str(result.get("evaluated_on")), str(result.get("reported"))
    if labels.ndim == 2 and all(
        np.issubdtype(one.dtype, np.number) for one in (logits, labels)
    ):  # values are learned, no classes
        return list(_metric_faults(result, part, which, _value_metrics(logits, labels))), _digest_of(labels, "<f8")
    classes = logits.shape[1]
    if not np.issubdtype(logits.dtype, np.floating):
        return [f"{PREDICTIONS}: its logits are no numbers"], None
    if not np.issubdtype(labels.dtype, np.integer) or not 0 <= labels.min() <= labels.max() < classes:
        return [f"{PREDICTIONS}: its labels are no classes"], None
    labels = labels.astype(np.int64)
    faults = []
    if sizes.get(part) not in (None, len(labels)):
        faults.append(f"{PREDICTIONS} is of {len(labels)} images, the {part} part has {sizes[part]}")
    matrix = np.bincount(labels * classes + logits.argmax(1), minlength=classes * classes).reshape(classes, classes)
    if matrix.tolist() != result.get("confusion"):
        faults.append(f"{PREDICTIONS} gives another confusion matrix than result.json")
    given = {"loss": _cross_entropy(logits.astype(np.float64), labels), **_scores(matrix)}
    faults += _metric_faults(result, part, which, given)
    recalls = np.diag(matrix) / np.maximum(matrix.sum(axis=1), 1)
    listed = result.get("per_class")
    told_recalls = [number_of(one.get("recall")) for one in listed or () if isinstance(one, Mapping)]
    if len(told_recalls) != classes:
        faults.append("result.json: per_class is not of these classes")
    elif not all(
        told is not None and _near(told, value, CLOSE) for told, value in zip(told_recalls, recalls, strict=True)
    ):
        faults.append(f"result.json: per_class is not what {PREDICTIONS} gives")
    return faults, _digest_of(labels, "<i8")


def _metric_faults(result: Mapping[str, Any], part: str, which: str, given: Mapping[str, float]) -> Iterator[str]:
    for name, value in given.items():
        told = number_of(field_of(result, f"{part}.{which}.{name}"))
        if told is not None and not _near(told, value, CLOSE):
            yield f"result.json: {part}.{which}.{name} is {told:.6g}, {PREDICTIONS} gives {value:.6g}"


def _digest_of(labels: np.ndarray, kind: str) -> str:
    """The same for the same labels or targets, whatever type of number holds them."""
    return hashlib.sha256(np.ascontiguousarray(labels, dtype=kind).tobytes()).hexdigest()


def access_faults(run: RunDir, result: Mapping[str, Any]) -> Iterator[str]:
    """``test_access.json``: the test part was opened once, to evaluate the run, unless it was to stay sealed."""
    purposes = [purpose for purpose in opened(run) if purpose != PICTURES]
    if result.get("test") is None:
        if purposes:
            yield f"test_access.json: the test part was opened ({purposes[0]!r}), and the result has no test metrics"
        return
    if not purposes:
        yield "test_access.json does not say that the test part was opened, and the result has test metrics"
    elif others := [purpose for purpose in purposes[1:] if purpose != AGAIN]:
        yield f"test_access.json: the test part was opened {len(purposes)} times, also for {others[0]!r}"
    elif purposes[0] not in (EVALUATION, AGAIN):
        yield f"test_access.json: the test part was opened for {purposes[0]!r}"


def repeated(run: RunDir) -> int:
    """How often the final evaluation was begun again after an interruption, by ``test_access.json``."""
    return opened(run).count(AGAIN)


def weight_faults(run: RunDir, result: Mapping[str, Any]) -> Iterator[str]:
    """The checkpoints that are there against the result and their manifests."""
    step = result.get("best_step") if result.get("reported") == "best" else result.get("steps")
    for one in run.checkpoints():
        path = run.path / "checkpoints" / str(one) / WEIGHTS_FILE
        if not path.is_file():
            continue
        sha256 = sha256_of(path)
        try:
            if run.manifest(one)["sha256"].get(WEIGHTS_FILE) != sha256:
                yield f"checkpoints/{one}/{WEIGHTS_FILE} is not the one that its manifest names"
        except (OSError, ValueError, RecursionError) as error:
            yield f"checkpoints/{one}: {error}"
        if one == step and result.get("weights_sha256") not in (None, sha256):
            yield f"checkpoints/{one}/{WEIGHTS_FILE} is not what the result was computed with (weights_sha256)"


def _near(told: float, given: float, near: float) -> bool:
    """Whether two values of a metric are the same but for rounding; NaN is NaN."""
    if math.isnan(told) or math.isnan(given):
        return math.isnan(told) and math.isnan(given)
    return told == given or math.isclose(told, given, rel_tol=near, abs_tol=near / 10)


def _cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """The mean in nats."""
    top = logits.max(axis=1)
    with np.errstate(all="ignore"):
        whole = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
        return float((whole - logits[np.arange(len(labels)), labels]).mean())


def _value_metrics(outputs: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """As `netdepth.training.regression.value_metrics`."""
    outputs, targets = outputs.astype(np.float64), targets.astype(np.float64)
    errors = outputs - targets
    left, scatter = (errors**2).sum(0), ((targets - targets.mean(0)) ** 2).sum(0)
    r2 = np.where(scatter > 0, 1 - left / np.where(scatter > 0, scatter, 1), left == 0)
    return {
        "mse": float((errors**2).mean()),
        "mae": float(np.abs(errors).mean()),
        "r2": float(r2.mean()) if len(targets) > 1 else math.nan,
    }


def _scores(matrix: np.ndarray) -> dict[str, float]:
    """Accuracy, and precision, recall and F1 weighted by class frequency, 0 where undefined."""
    hits, predicted, actual = np.diag(matrix), matrix.sum(axis=0), matrix.sum(axis=1)
    weights = actual / actual.sum()
    each = {
        "precision": hits / np.maximum(predicted, 1),
        "recall": hits / np.maximum(actual, 1),
        "f1": 2 * hits / np.maximum(predicted + actual, 1),
    }
    return {
        "accuracy": float(hits.sum() / matrix.sum()),
        **{f"{name}_weighted": float(weights @ values) for name, values in each.items()},
    }
