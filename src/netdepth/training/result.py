"""The end of runs: the best and the last weights on every part, the test part opened once per run."""

from __future__ import annotations

import functools
import hashlib
import io
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from netdepth import data
from netdepth.files.atomic import write_atomic
from netdepth.runs.folder import RunDir
from netdepth.training.checkpoint import MODEL, Snapshot
from netdepth.training.evaluate import class_report, logits_of, metrics
from netdepth.training.replica import Member
from netdepth.training.stack import Stack

__all__ = ["finish"]

PURPOSE = "final evaluation of the best and the last weights"
METRICS = ("loss", "accuracy", "precision_weighted", "recall_weighted", "f1_weighted")
WEIGHTS = ("best", "last")

Seen = dict[str, tuple[dict[str, float], Tensor]]
"""Per part of the data: metrics, and logits ``[N, K]``."""


def finish(members: Sequence[Member], splits: data.Splits, stack: Stack, started: float) -> None:
    """Evaluate ``members``, whose training has ended and is saved, and write each a ``result.json``.

    Best and last weights see the test part in one opening; where they are the same they are
    evaluated once. The lanes' weights are overwritten. ``total_seconds`` counts from ``started``
    (`time.perf_counter`), evaluation and writing included.
    """
    if not members:
        return
    parts = {"train": splits.train, "val": splits.val}
    for member in members:
        test = splits.for_another_run().test  # a seal of its own for every run
        if test is not None:
            parts["test"] = test.open_test(PURPOSE, functools.partial(_log_test_access, member.folder))
    seen: dict[tuple[int, str], Seen] = {}
    for which in WEIGHTS:
        kept = {member.lane: snapshot for member in members if (snapshot := _kept(member, which)) is not None}
        same = {member.lane for member in members if which == "last" and kept.get(member.lane) is member.saver.best}
        for lane in same & set(kept):
            seen[lane, which] = seen[lane, "best"]
        lanes = [lane for lane in kept if lane not in same]
        for lane in lanes:
            stack.models[lane].load_state_dict(kept[lane].model)
            seen[lane, which] = {}
        for part, split in parts.items():
            if lanes and len(split):
                for lane, logits in zip(lanes, logits_of(stack, lanes, split.to(stack.flat.device)), strict=True):
                    seen[lane, which][part] = metrics(logits.cpu(), split.labels), logits.cpu()
    for member in members:
        result = _result(member, {which: seen.get((member.lane, which), {}) for which in WEIGHTS}, parts, splits)
        result["depth"] = stack.models[member.lane].depth
        result["num_params"] = sum(p.numel() for p in stack.models[member.lane].parameters())
        result["seconds"] = member.seconds
        result["total_seconds"] = time.perf_counter() - started
        member.folder.write_json("result.json", result)
        member.result = result


def _kept(member: Member, which: str) -> Snapshot | None:
    """The weights called ``which``; a run that diverged has no last ones."""
    if which == "best":
        return member.saver.best
    return None if member.status == "diverged" else member.saver.newest


def _result(member: Member, seen: dict[str, Seen], parts: dict[str, data.Split], splits: data.Splits) -> dict[str, Any]:
    reported = "best" if member.config.train.early_stopping and member.saver.best else "last"
    # A diverged run has no last weights; without validation images there are no best ones, and nothing to judge by.
    unknown: dict[str, Any] = dict.fromkeys(METRICS, float("nan") if member.status == "diverged" else None)
    scores = {part: {w: seen[w][part][0] if part in seen[w] else unknown for w in WEIGHTS} for part in parts}
    shown = "test" if "test" in parts else "val"
    report: dict[str, Any] = {"per_class": None, "confusion": None}
    if shown in seen[reported]:
        logits, labels = seen[reported][shown][1], parts[shown].labels
        report = class_report(logits, labels, splits.spec.classes)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, logits=logits.numpy(), labels=labels.numpy())
        write_atomic(member.folder.path / "predictions.npz", buffer.getvalue())
    weights = _kept(member, reported)
    return {
        "status": member.status,
        "steps": member.saver.newest.step if member.saver.newest else 0,
        "best_step": member.best.step,
        "best_epoch": member.best.epoch,
        "reported": reported,
        "weights_sha256": hashlib.sha256(weights.files(None)[MODEL]).hexdigest() if weights else None,
        "train": scores["train"],
        "val": scores["val"],
        "test": scores.get("test"),
        **report,
        "evaluated_on": shown,
        "overfit_onset_epoch": member.overfit.onset_epoch,
        "gap": {w: _gap(scores["train"][w]["loss"], scores["val"][w]["loss"]) for w in WEIGHTS},
    }


def _gap(train: float | None, val: float | None) -> float | None:
    return None if train is None or val is None else val - train


def _log_test_access(folder: RunDir, purpose: str) -> None:
    log = folder.read_json("test_access.json") or {"opened": []}
    folder.write_json("test_access.json", {"opened": [*log["opened"], purpose]})
