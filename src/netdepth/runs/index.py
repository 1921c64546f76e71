"""All runs of a runs folder in short, quickly: what was read of a run is kept while its files are as they were.

    <user cache>/runs/<digest of the runs folder>.json

The folder is always looked at: every run's files are listed, and what is kept of a run counts only if size, times and
inode of each file that it was read from are the same, and if it was read by this code. So the index can be deleted at
any time and is never believed over the folder. A file that was changed in the last seconds is read again next time,
because a clock's tick might hide another change.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import platformdirs

from netdepth.config import SCHEMA, Json, Settings
from netdepth.errors import BadInput, NetdepthError
from netdepth.files.atomic import write_atomic
from netdepth.runs.folder import RunDir
from netdepth.runs.naming import flat_settings
from netdepth.runs.table import Quantity, quantities_of, run_row

__all__ = ["ListedRun", "read_runs"]

READ = ("config.json", "failure.json", "metrics.jsonl", "result.json", "split.json")
"""The files of a run's folder that its line is read from."""
SETTLED = 3.0
"""Seconds after which a file is believed to show by its times that it was changed again."""
VAL_ACCURACY = Quantity("val_accuracy", "val accuracy", "val", "accuracy", percent=True)

OF_ROW = (
    "status", "error", "recipe", "dataset", "fingerprint", "seed", "num_params", "epochs",
    "best_epoch", "seconds",
)  # fmt: skip
"""What is kept of a run's row as it is."""

State = tuple[str, ...]
"""Name, size, times of change and inode of each file that was read."""


@dataclass(frozen=True)
class KeptRun:
    """What is kept of a run: its settings by path, and its values by the key of each quantity."""

    status: str
    error: str | None
    recipe: str | None
    dataset: str | None
    fingerprint: str | None
    seed: int | None
    num_params: float | None
    epochs: float | None
    best_epoch: float | None
    seconds: float | None
    name: str | None
    changes: Settings | None
    settings: Settings
    values: Mapping[str, float | None]
    test_best_accuracy: float | None


@dataclass(frozen=True)
class ListedRun:
    """A run in ``study`` (a folder of the runs folder): what is ``kept`` of it, the ``size`` of its folder in bytes,
    and when a file of it that is read was ``changed`` last, in seconds since 1970."""

    path: Path
    study: str
    kept: KeptRun
    size: int
    changed: float


def read_runs(root: Path) -> list[ListedRun]:
    """Every run folder below ``root`` (``root/<study>/<run>``), sorted by path."""
    file = _file_of(root)
    before, now = _load(file), time.time()
    runs: list[ListedRun] = []
    held: dict[str, tuple[State, KeptRun]] = {}
    for study, path in _folders(root):
        size, state, changed = _look_at(path)
        key = f"{study}/{path.name}"
        known = before.get(key)
        kept = known[1] if known is not None and state is not None and known[0] == state else _read(RunDir(path))
        runs.append(ListedRun(path, study, kept, size, changed))
        if state is not None and changed < now - SETTLED:
            held[key] = state, kept
    if held != before:
        _save(file, held)
    return runs


def _folders(root: Path) -> Iterator[tuple[str, Path]]:
    """The run folders and what they lie in; a link to a folder is followed, as in `list_runs`."""
    for study in _inside(root):
        for run in _inside(study):
            if os.path.exists(os.path.join(run, "config.json")):
                yield study.name, Path(run.path)


def _inside(folder: Path | os.DirEntry[str]) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if entry.is_dir()), key=lambda entry: entry.name)
    except OSError:
        return []


def _look_at(path: Path) -> tuple[int, State | None, float]:
    """Bytes of all files of a run, the state of those that are read (None if one is a link), and their last change."""
    size, changed, linked = 0, 0.0, path.is_symlink()
    state: list[str] = []
    folders = [str(path)]
    while folders:
        folder = folders.pop()
        with contextlib.suppress(OSError), os.scandir(folder) as entries:  # removed meanwhile
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                    continue
                seen = entry.stat(follow_symlinks=False)
                size += seen.st_size
                if entry.name in READ and folder == str(path):
                    linked |= entry.is_symlink()
                    changed = max(changed, seen.st_mtime)
                    times = f"{seen.st_mtime_ns} {seen.st_ctime_ns}"
                    state.append(f"{entry.name} {seen.st_size} {times} {seen.st_ino}")
    return size, None if linked else tuple(sorted(state)), changed


def _read(run: RunDir) -> KeptRun:
    row = run_row(run)
    config: Mapping[str, Any] = {}
    with contextlib.suppress(BadInput):  # the row says so
        config = run.read_json("config.json") or {}
    return KeptRun(
        **{key: getattr(row, key) for key in OF_ROW},
        name=row.called.name,
        changes=row.called.changes,
        settings=flat_settings(config),
        values={quantity.key: quantity.of(row) for quantity in (*quantities_of([row]), VAL_ACCURACY)},
        test_best_accuracy=row.scores["test_best_accuracy"],
    )


# --- what is kept ---


def _file_of(root: Path) -> Path:
    digest = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()
    return Path(platformdirs.user_cache_dir("netdepth")) / "runs" / f"{digest}.json"


def _load(file: Path) -> dict[str, tuple[State, KeptRun]]:
    """What is kept, by study and folder; nothing where the file is missing, damaged or of other code."""
    try:
        held = json.loads(file.read_bytes())
        if (held["schema"], held["code"]) != (SCHEMA, _code_digest()):
            return {}
        return {key: (tuple(state), KeptRun(**kept)) for key, (state, kept) in held["runs"].items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}


def _save(file: Path, held: Mapping[str, tuple[State, KeptRun]]) -> None:
    """A cache that cannot be written is no fault: the next list reads the folders."""
    runs: Json = {key: [state, asdict(kept)] for key, (state, kept) in held.items()}
    with contextlib.suppress(OSError, NetdepthError):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, json.dumps({"schema": SCHEMA, "code": _code_digest(), "runs": runs}).encode())


@functools.cache
def _code_digest() -> str:
    """sha256 of the code that reads a run: what other code has kept is not what this would read."""
    found = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        found.update(path.read_bytes())
    return found.hexdigest()
