"""The run folder: the one truth about a run, written atomically, read with suspicion.

    <slug>-s<seed>-<fingerprint>/
        config.json environment.json split.json    written first
        metrics.jsonl                               one line per evaluation, append-only
        probes/init.json probes/step-<step>.json    gradients and activations per layer
        checkpoints/<step>/                         files and MANIFEST.json with their sha256
        predictions.npz test_access.json
        result.json                                 written last: its presence means finished
        failure.json                                why a run could not finish

No torch here and no pickle: a checkpoint is named bytes; what the JSON files hold is typed in `netdepth.runs`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from netdepth.config import SCHEMA, from_json
from netdepth.errors import BadInput
from netdepth.files.atomic import (
    fsync_file,
    jsonable,
    locked,
    one_at_a_time,
    read_json,
    remove_folder,
    storage,
    write_atomic,
    write_folder,
)
from netdepth.runs import Environment, Manifest, MetricsRecord, RunResult, SplitRecord, fits

__all__ = [
    "RunDir", "check_removable", "drop_optimizer_states", "folder_size", "list_runs",
    "metrics_record", "remove", "runs_root", "slug",
]  # fmt: skip

MANIFEST = "MANIFEST.json"
OPTIMIZER_FILE = "optimizer.safetensors"


def runs_root(given: Path | None = None) -> Path:
    """``--runs``, else ``$NETDEPTH_RUNS``, else ``./runs``."""
    return Path(given or os.environ.get("NETDEPTH_RUNS") or "runs")


def slug(text: str) -> str:
    """A folder-name part: lower-case letters, digits and single hyphens, 48 at most."""
    cleaned = "".join(c if c.isascii() and c.isalnum() else "-" for c in text.lower())
    return "-".join(part for part in cleaned.split("-") if part)[:48].strip("-") or "run"


class RunDir:
    """One run's folder. Reading never needs the lock; writing needs `lock`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notes: list[str] = []
        """Repairs and fallbacks made while reading, for the user to see."""

    @classmethod
    def create(cls, study: Path, name: str, seed: int, fingerprint: str) -> RunDir:
        """The folder of this config and seed in ``study``: an existing one, whatever its slug, or a new one."""
        tail = f"-s{seed}-{fingerprint}"
        with storage(study):
            study.mkdir(parents=True, exist_ok=True)
            with one_at_a_time(study):  # two recipes may describe the same run and start at the same moment
                existing = sorted(path for path in study.glob(f"*{tail}") if path.is_dir())
                path = existing[0] if existing else study / (slug(name) + tail)
                if not path.is_symlink():  # which `lock` refuses
                    (path / "checkpoints").mkdir(parents=True, exist_ok=True)
        return cls(path)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for writing; the lock dies with its process.

        Raises:
            Locked: another process holds it.
            BadInput: it is a link or holds one: files elsewhere would be written or removed.
        """
        with storage(self.path):
            link = next((path for path in (self.path, *self.path.iterdir()) if path.is_symlink()), None)
        if link is not None:
            raise BadInput(f"{link} is a link; a run is continued or removed only in a folder of its own files")
        with locked(self.path, f"{self.path} is in use by another process; wait for it or use another --runs"):
            self._sweep()
            yield

    def _sweep(self) -> None:
        """Remove the temporary files of a killed process; the lock is held, so nobody else writes."""
        for left in [*self.path.glob(".*.tmp"), *self.path.glob("*/.*.tmp")]:
            shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)

    def remove_if_unused(self) -> None:
        """Remove the folder if it holds no file: its run was refused. The lock is held."""
        if not any(path.is_file() for path in self.path.rglob("*") if path.name != ".lock"):
            shutil.rmtree(self.path)

    # --- JSON files ---

    def write_json(self, name: str, value: Mapping[str, object]) -> None:
        """Write ``name`` atomically with the schema number; NaN and Inf as null with a flag."""
        cleaned = jsonable(value)
        if not cleaned["nonfinite"]:
            del cleaned["nonfinite"]
        text = json.dumps({"schema": SCHEMA, **cleaned}, indent=1, allow_nan=False)
        path = self.path / name
        with storage(path):
            path.parent.mkdir(exist_ok=True)
        write_atomic(path, text.encode() + b"\n")

    def read_json(self, name: str) -> dict[str, Any] | None:
        """The parsed file of this folder, or None; errors as in the function `read_json`."""
        return read_json(self.path / name, "restore it, or use another --runs")

    def split(self) -> SplitRecord | None:
        """``split.json``, or None where there is none.

        Raises:
            BadInput: also if it describes no data.
        """
        value = self.read_json("split.json")
        try:
            return None if value is None else SplitRecord.from_json(value)
        except (TypeError, ValueError):
            path = self.path / "split.json"
            raise BadInput(f"{path} does not describe a data set; restore it, or use another --runs") from None

    def environment(self) -> Environment | None:
        """``environment.json``, or None where there is none.

        Raises:
            BadInput: also if one of its fields is missing or of another type.
        """
        value = self.read_json("environment.json")
        if value is None:
            return None
        known = {name: item for name, item in value.items() if name in Environment.__dataclass_fields__}
        found: Environment = from_json(Environment, known, str(self.path / "environment.json"))
        return found

    def result(self) -> RunResult | None:
        """``result.json``, or None while the run is unfinished.

        Raises:
            BadInput: also if one of its fields is of another type.
        """
        found: Any = self.read_json("result.json")
        if found is not None and not fits(RunResult, found):
            raise BadInput(f"{self.path / 'result.json'} does not describe a result; restore it, or use another --runs")
        return cast(RunResult | None, found)

    def write_failure(self, error: str, message: str) -> None:
        """Say in ``failure.json`` which error ended the run."""
        self.write_json("failure.json", {"error": error, "message": message})

    def status(self) -> str:
        """``completed``, ``stopped_early``, ``stopped_overfit``, ``diverged``, ``failed`` or ``unfinished``."""
        result = self.result()
        if result is not None:
            return result.get("status", "unknown")
        return "failed" if (self.path / "failure.json").exists() else "unfinished"

    def log_test_access(self, purpose: str) -> None:
        """Add to ``test_access.json`` what the test part is opened for."""
        opened = (self.read_json("test_access.json") or {"opened": []})["opened"]
        self.write_json("test_access.json", {"opened": [*opened, purpose]})

    # --- metrics ---

    def append_metrics(self, record: MetricsRecord) -> None:
        """Append one evaluation to ``metrics.jsonl``."""
        path = self.path / "metrics.jsonl"
        line = json.dumps({"schema": SCHEMA, **jsonable(record)}, allow_nan=False).encode() + b"\n"
        with storage(path, len(line)), open(path, "ab") as handle:
            handle.write(line)

    def read_metrics(self) -> list[MetricsRecord]:
        """The records of ``metrics.jsonl`` before the first damaged line; `notes` tells how many lines are dropped."""
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return []
        lines = path.read_bytes().split(b"\n")
        tail = lines.pop()
        records: list[MetricsRecord] = []
        for record in map(metrics_record, lines):
            if record is None:
                break
            records.append(record)
        lost = len(lines) - len(records) + bool(tail)
        if lost:
            note = f"{path}: {lost} damaged line(s) after record {len(records)} ignored"
            if note not in self.notes:
                self.notes.append(note)
        return records

    def truncate_metrics(self, step: int) -> list[MetricsRecord]:
        """Keep only the valid records up to ``step``, that of a checkpoint; returns them."""
        records = [r for r in self.read_metrics() if r["step"] <= step]
        text = "".join(json.dumps(r, allow_nan=False) + "\n" for r in records)
        write_atomic(self.path / "metrics.jsonl", text.encode())
        return records

    def truncate_probes(self, step: int) -> None:
        """Keep only the probes made up to ``step``."""
        for path in (self.path / "probes").glob("step-*.json"):
            if path.stem.removeprefix("step-").isdecimal() and int(path.stem.removeprefix("step-")) > step:
                with storage(path):
                    path.unlink()

    # --- checkpoints ---

    def save_checkpoint(self, step: int, files: Mapping[str, bytes]) -> None:
        """Write ``checkpoints/<step>/`` in one step with its digests; the metrics before it are synced first."""
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        manifest = json.dumps({"schema": SCHEMA, "step": step, "run": self._identity(), "sha256": digests}, indent=1)
        folder, files = self.path / "checkpoints" / str(step), {**files, MANIFEST: manifest.encode()}
        metrics = self.path / "metrics.jsonl"
        if metrics.exists():
            with storage(metrics):
                fsync_file(metrics)
        write_folder(folder, files)

    def _identity(self) -> str | None:
        """Fingerprint and seed from ``config.json``, which name the run; None if it cannot be read."""
        try:
            config = json.loads((self.path / "config.json").read_bytes())
            return f"{config['fingerprint']}-s{config['seed']}"
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def checkpoints(self) -> list[int]:
        """Steps that have a checkpoint folder, ascending; `load_checkpoint` tells whether it is whole."""
        root = self.path / "checkpoints"
        return sorted(int(p.name) for p in root.iterdir() if p.name.isdecimal()) if root.is_dir() else []

    def drop_checkpoints(self, keep: Collection[int]) -> None:
        """Remove every checkpoint but those in ``keep``; a resumed run must not find one it did not continue from."""
        for step in set(self.checkpoints()) - set(keep):
            with contextlib.suppress(OSError):  # a folder that stays only takes space
                remove_folder(self.path / "checkpoints" / str(step))

    def manifest(self, step: int) -> Manifest:
        """The manifest of ``checkpoints/<step>/``.

        Raises:
            OSError, ValueError, RecursionError: it is missing, damaged or of another schema, step or run.
        """
        manifest: Any = json.loads((self.path / "checkpoints" / str(step) / MANIFEST).read_bytes())
        digests = manifest.get("sha256") if isinstance(manifest, dict) else None
        if not isinstance(digests, dict):
            raise ValueError("its manifest has no digests")
        if manifest.get("schema") != SCHEMA or manifest.get("step") != step or any("/" in name for name in digests):
            raise ValueError("its manifest is of another schema or step")
        own = self._identity()
        if own is not None and manifest.get("run", own) not in (own, None):  # older manifests do not name their run
            raise ValueError(f"it is of another run, {manifest['run']}")
        return cast(Manifest, manifest)

    def load_checkpoint(self, step: int) -> dict[str, bytes] | None:
        """The files of ``checkpoints/<step>/`` if every digest holds, else None with a note."""
        folder = self.path / "checkpoints" / str(step)
        try:
            digests = self.manifest(step)["sha256"]
            files = {name: (folder / name).read_bytes() for name in digests}
            for name, data in files.items():
                if hashlib.sha256(data).hexdigest() != digests[name]:
                    raise ValueError(f"the digest of {name} does not match")
        except (OSError, ValueError, RecursionError) as error:
            self.notes.append(f"checkpoint {folder} is damaged ({error}); using the one before")
            return None
        return files

    def newest_checkpoint(self) -> tuple[int, dict[str, bytes]] | None:
        """The newest checkpoint whose digests hold, with its step."""
        loaded = ((step, self.load_checkpoint(step)) for step in reversed(self.checkpoints()))
        return next(((step, files) for step, files in loaded if files is not None), None)

    def clear(self) -> None:
        """Remove everything but the lock file (``--fresh``)."""
        with storage(self.path):
            for item in self.path.iterdir():
                if item.name == ".lock":
                    continue
                if item.is_dir() and not item.is_symlink():
                    shutil.rmtree(item)
                else:
                    item.unlink()
            (self.path / "checkpoints").mkdir()


def metrics_record(line: bytes) -> MetricsRecord | None:
    """One line of ``metrics.jsonl``, None if it is damaged or of another schema."""
    try:
        record: Any = json.loads(line)
    except (ValueError, RecursionError):
        return None
    valid = isinstance(record, dict) and record.get("schema") == SCHEMA and "step" in record
    return record if valid and fits(MetricsRecord, record) else None


def list_runs(root: Path) -> list[RunDir]:
    """Every run folder below ``root`` (``root/<study>/<run>``), sorted by path."""
    if not root.is_dir():
        return []
    return [RunDir(p.parent) for p in sorted(root.glob("*/*/config.json"))]


# --- removal ---


def folder_size(path: Path) -> int:
    """Bytes of all files below ``path``; links are counted as links."""
    return sum(os.lstat(os.path.join(folder, name)).st_size for folder, _, files in os.walk(path) for name in files)


def check_removable(run: RunDir, root: Path) -> None:
    """Refuse a folder that is not certainly a run folder of ``root``.

    Raises:
        BadInput: it lies elsewhere, is a link, or its name does not end in its own seed and fingerprint.
    """
    path = run.path
    if path.is_symlink() or path.resolve().parent.parent != root.resolve():
        raise BadInput(f"{path} is not a run folder inside {root}; name its runs folder with --runs")
    config = run.read_json("config.json") or {}
    if not path.resolve().name.endswith(f"-s{config.get('seed')}-{config.get('fingerprint')}"):
        raise BadInput(f"{path} does not carry the seed and fingerprint of its config.json; it is left alone")


def remove(run: RunDir, root: Path) -> int:
    """Remove a run folder of ``root``; returns the bytes freed.

    Raises:
        BadInput: see `check_removable`.
        Locked: the run is being trained.
        StorageError: the disk refuses.
    """
    check_removable(run, root)
    with run.lock():
        freed = folder_size(run.path)
        with storage(run.path):
            shutil.rmtree(run.path)
    return freed


def drop_optimizer_states(run: RunDir) -> int:
    """Delete the optimizer states in the checkpoints of a finished run; returns the bytes freed.

    The manifest is written without the file before the file is removed, so the checkpoint is whole at every moment.
    An unfinished run keeps everything, because it needs them to continue.

    Raises:
        Locked: the run is being trained.
        StorageError: the disk refuses.
    """
    if run.result() is None:
        return 0
    freed = 0
    with run.lock():
        for step in run.checkpoints():
            folder = run.path / "checkpoints" / str(step)
            file = folder / OPTIMIZER_FILE
            try:
                manifest = run.manifest(step)
            except (OSError, ValueError, RecursionError):  # a damaged checkpoint is left as it is
                continue
            if file.is_file():
                digests = {name: digest for name, digest in manifest["sha256"].items() if name != OPTIMIZER_FILE}
                write_atomic(folder / MANIFEST, json.dumps({**manifest, "sha256": digests}, indent=1).encode())
                with storage(file):
                    freed += file.stat().st_size
                    file.unlink()
    return freed
