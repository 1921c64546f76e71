"""The seal of a finished run: digests of its files, written into ``result.json`` when the run ends.

    "seal": {
        "files":   {"config.json": sha256, "metrics.jsonl": ..., "probes/init.json": ..., ...},
        "weights": {"<step>": sha256 of checkpoints/<step>/model.safetensors, ...},
        "opened":  what the test part was opened for,
        "sha256":  of all that stands above and of the rest of result.json
    }

It tells a file that was altered afterwards from the one that the run left. It is no signature: who writes every digest
anew has a seal that holds.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from netdepth.config import SCHEMA, Json, digest
from netdepth.files.atomic import jsonable
from netdepth.runs import RunResult
from netdepth.runs.folder import RunDir
from netdepth.text import count

__all__ = [
    "AGAIN",
    "EVALUATION",
    "PICTURES",
    "PREDICTIONS",
    "WEIGHTS_FILE",
    "broken",
    "opened",
    "sha256_of",
    "write_sealed",
]

PREDICTIONS = "predictions.npz"
WEIGHTS_FILE = "model.safetensors"
FILES = ("config.json", "environment.json", "split.json", "metrics.jsonl", PREDICTIONS)
"""What the seal holds beside the layer statistics; what can be made again, and checkpoints, may be left out later."""

EVALUATION = "final evaluation of the best and the last weights"
AGAIN = f"{EVALUATION}, begun again: it had been interrupted"
PICTURES = "report: the pictures that the run got wrong"
"""What a run's test part is opened for: to evaluate it, by training; for its page, once the result is written."""


def write_sealed(run: RunDir, result: RunResult) -> RunResult:
    """Write ``result.json`` with the seal of the files that are there; returns it with the seal.

    Raises:
        StorageError: the disk refuses.
    """
    files = [*FILES, *(f"probes/{path.name}" for path in sorted((run.path / "probes").glob("*.json")))]
    weights: dict[str, str] = {}
    for step in run.checkpoints():
        with contextlib.suppress(OSError, ValueError, RecursionError, KeyError):  # one that is damaged is no weights
            weights[str(step)] = run.manifest(step)["sha256"][WEIGHTS_FILE]
    seal: dict[str, Json] = {
        "files": {name: sha256_of(run.path / name) for name in files if (run.path / name).is_file()},
        "weights": weights,
        "opened": opened(run),
    }
    cleaned = jsonable(result)
    if not cleaned["nonfinite"]:
        del cleaned["nonfinite"]
    whole: Any = {**result, "seal": {**seal, "sha256": _digest({"schema": SCHEMA, **cleaned}, seal)}}
    run.write_json("result.json", whole)
    sealed: RunResult = whole
    return sealed


def broken(run: RunDir, stored: Mapping[str, Any]) -> list[str] | None:
    """What the seal in the parsed result.json ``stored`` does not hold of, a line each; None where there is no seal.

    Weights may be missing, and pictures for the page of the run may have been looked at since.
    """
    if "seal" not in stored:
        return None
    seal = stored["seal"]
    files, weights, once = (
        (seal.get("files"), seal.get("weights"), seal.get("opened")) if isinstance(seal, dict) else (None, None, None)
    )
    if not isinstance(files, dict) or not isinstance(weights, dict) or not isinstance(once, list):
        return ["the seal in result.json is damaged"]
    faults = []
    rest = {name: value for name, value in stored.items() if name != "seal"}
    if _digest(rest, {"files": files, "weights": weights, "opened": once}) != seal.get("sha256"):
        faults.append("result.json is not as the run left it: its seal does not hold")
    for name, sha256 in files.items():
        if not _is_inside(name):
            faults.append(f"the seal names {name!r}, which is no file of a run")
        elif not (run.path / name).is_file():
            faults.append(f"{name} is missing; the run left one")
        elif sha256_of(run.path / name) != sha256:
            faults.append(f"{name} is not as the run left it")
    for name in FILES:
        if name not in files and (run.path / name).exists():
            faults.append(f"{name} was added after the run ended")
    for step, sha256 in weights.items():
        path = run.path / "checkpoints" / step / WEIGHTS_FILE
        if step.isdecimal() and path.is_file() and sha256_of(path) != sha256:
            faults.append(f"checkpoints/{step}/{WEIGHTS_FILE} holds other weights than the run left")
    now = opened(run)
    if now[: len(once)] != once or {*now[len(once) :]} - {PICTURES}:
        faults.append(
            f"test_access.json is not as the run left it: it had {count(len(once), 'opening')}, now {len(now)}"
        )
    return faults


def opened(run: RunDir) -> list[str]:
    """What ``test_access.json`` says that the test part was opened for; nothing where there is none.

    Raises:
        BadInput: it is damaged.
    """
    found = (run.read_json("test_access.json") or {}).get("opened")
    return [str(purpose) for purpose in found] if isinstance(found, list) else []


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hex."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _digest(result: Mapping[str, Json], seal: Mapping[str, Json]) -> str | None:
    try:
        return digest({**result, "seal": seal})
    except (ValueError, TypeError, RecursionError):  # NaN in a file from elsewhere
        return None


def _is_inside(name: str) -> bool:
    return name in FILES or (name.startswith("probes/") and name.count("/") == 1 and ".." not in name)
