"""The end of a run: the best and the last weights on every part, the test part opened once."""

from __future__ import annotations

import hashlib
import io
from typing import Any

import numpy as np
from torch import Tensor

from netdepth import data, models
from netdepth.atomic import write_atomic
from netdepth.config import RunConfig
from netdepth.engine.checkpoint import MODEL, Checkpointer, Snapshot
from netdepth.engine.evaluate import class_report, logits_of, metrics
from netdepth.engine.stopping import BestTracker, OverfitDetector
from netdepth.store import RunDir

__all__ = ["final_result"]


def final_result(
    config: RunConfig,
    splits: data.Splits,
    model: models.Network,
    saver: Checkpointer,
    best: BestTracker,
    overfit: OverfitDetector,
    folder: RunDir,
    status: str,
) -> dict[str, Any]:
    """Evaluate the best and the last weights on every part, the test part in one pass, and sum up.

    Where the last weights are the best, they are evaluated once.
    """
    device = next(model.parameters()).device
    reported = "best" if config.train.early_stopping and saver.best else "last"
    last = None if status == "diverged" else saver.newest
    snapshots: dict[str, Snapshot | None] = {"best": saver.best, "last": last}
    parts = {"train": splits.train, "val": splits.val}
    if splits.test is not None:
        splits.test.on_open = lambda purpose: _log_test_access(folder, purpose)
        parts["test"] = splits.test.open_test("final evaluation of the best and the last weights")
    sections: dict[str, dict[str, Any]] = {part: {} for part in parts}
    shown: tuple[Tensor, Tensor] | None = None
    for which, snapshot in snapshots.items():
        if which == "last" and snapshot is not None and snapshot is snapshots["best"]:
            sections = {part: {"best": found["best"], "last": found["best"]} for part, found in sections.items()}
            continue
        if snapshot is not None:
            model.load_state_dict(snapshot.model)
        for part, split in parts.items():
            if snapshot is None or len(split) == 0:
                sections[part][which] = dict.fromkeys(
                    ("loss", "accuracy", "precision_weighted", "recall_weighted", "f1_weighted"), float("nan")
                )
                continue
            logits = logits_of([model], split.to(device))[0].cpu()
            sections[part][which] = metrics(logits, split.labels)
            if snapshot is snapshots[reported] and part == ("test" if "test" in parts else "val"):
                shown = logits, split.labels
    report: dict[str, Any] = {"per_class": None, "confusion": None}
    if shown is not None:
        report = class_report(*shown, splits.spec.classes)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, logits=shown[0].numpy(), labels=shown[1].numpy())
        write_atomic(folder.path / "predictions.npz", buffer.getvalue())
    weights = snapshots[reported]
    return {
        "status": status,
        "steps": saver.newest.step if saver.newest else 0,
        "best_step": best.step,
        "best_epoch": best.epoch,
        "depth": model.depth,
        "num_params": sum(p.numel() for p in model.parameters()),
        "reported": reported,
        "weights_sha256": hashlib.sha256(weights.files(None)[MODEL]).hexdigest() if weights else None,
        "train": sections["train"],
        "val": sections["val"],
        "test": sections.get("test"),
        **report,
        "evaluated_on": "test" if "test" in parts else "val",
        "overfit_onset_epoch": overfit.onset_epoch,
        "gap": {w: sections["val"][w]["loss"] - sections["train"][w]["loss"] for w in snapshots},
    }


def _log_test_access(folder: RunDir, purpose: str) -> None:
    log = folder.read_json("test_access.json") or {"opened": []}
    folder.write_json("test_access.json", {"opened": [*log["opened"], purpose]})
