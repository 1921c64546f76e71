"""Looking after run folders: their sizes, removing one, dropping what a finished run no longer needs."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from netdepth.errors import BadInput
from netdepth.files.atomic import storage, write_atomic
from netdepth.runs.folder import MANIFEST, RunDir

__all__ = ["check_removable", "drop_optimizer_states", "folder_size", "remove"]

OPTIMIZER_FILE = "optimizer.safetensors"


def folder_size(path: Path) -> int:
    """Bytes of all files below ``path``; links are counted as links."""
    total = 0
    for folder, _, files in os.walk(path):
        total += sum(os.lstat(os.path.join(folder, name)).st_size for name in files)
    return total


def check_removable(run: RunDir, root: Path) -> None:
    """Refuse anything that is not surely a run folder of ``root``.

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

    The manifest forgets the file before the file goes, so the checkpoint stays whole throughout.
    An unfinished run keeps everything, for it needs them to continue.

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
            manifest = _manifest(folder)
            file = folder / OPTIMIZER_FILE
            if manifest is None or not file.is_file():
                continue
            digests = {name: value for name, value in manifest["sha256"].items() if name != OPTIMIZER_FILE}
            text = json.dumps({**manifest, "sha256": digests}, indent=1)
            write_atomic(folder / MANIFEST, text.encode())
            with storage(file):
                freed += file.stat().st_size
                file.unlink()
    return freed


def _manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a checkpoint, None where it is damaged: such a folder is left as it is."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return manifest if isinstance(manifest, dict) and isinstance(manifest.get("sha256"), dict) else None
