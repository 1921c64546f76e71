"""``python -m netdepth.trackers.follow RUN_DIR TASK``: mirror one run folder, live or afterwards.

The folder is replayed from its beginning and then followed until ``result.json`` appears or the
process that started this one ends (which closes our standard input). An error is one line on
standard error and an exit code.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import stat
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from netdepth.config import Component
from netdepth.errors import BadInput, NetdepthError, StorageError
from netdepth.files.atomic import restored
from netdepth.files.usercode import import_user
from netdepth.runs import RunResult
from netdepth.runs.folder import RunDir
from netdepth.trackers.base import TRACKERS, Tracker, heatmap, mirror_folder, tracker_record
from netdepth.trackers.mirror import TOKEN, end_family

__all__ = ["follow", "main"]

POLL_SECONDS = 0.2
GRACE_SECONDS = 30.0
"""How long this process outlives the one that started it; enough for the last upload."""


def follow(run: RunDir, tracker: Tracker, stop: threading.Event) -> None:
    """Drive ``tracker`` over the whole life of ``run``; once ``stop`` is set, with what is there.

    Raises:
        BadInput: the folder has no config.
        Exception: whatever the tracker raises.
    """
    metrics = run.path / "metrics.jsonl"
    # split.json is written after config.json; a tracker wants the class names in it.
    while not stop.is_set() and not (run.path / "split.json").exists() and not metrics.exists():
        stop.wait(POLL_SECONDS)
    config = run.read_json("config.json")
    if config is None:
        raise BadInput(f"{run.path} has no config.json; is it a run folder?")
    for part in ("split", "environment"):
        found = run.read_json(f"{part}.json")
        if found is not None:
            config[part] = {key: value for key, value in found.items() if key != "schema"}
    tracker.start(config)
    if not stop.is_set() and not (run.path / "result.json").exists():
        heatmap([[0.0]], "")  # matplotlib and its fonts, loaded now while there is time and not at the end
    step, seen = -1, None
    while True:
        # Looked at before the metrics: what precedes the end is then complete.
        ended, result = stop.is_set(), run.result()
        state = metrics.stat() if metrics.exists() else None
        if state is not None and (state.st_ino, state.st_size) != seen:
            seen = state.st_ino, state.st_size
            for record in run.read_metrics():
                if record["step"] > step:  # a resumed run cuts its file back; no step is given twice
                    step = record["step"]
                    tracker.log(tracker_record(record), step)
        if ended or result is not None:
            break
        stop.wait(POLL_SECONDS)
    if result is None:
        result = {"status": "failed" if run.status() == "failed" else "interrupted"}
    for path in _artifacts(run, result):
        tracker.artifact(path)
    tracker.finish(restored(result))


def _artifacts(run: RunDir, result: RunResult) -> list[Path]:
    weights = run.path / "checkpoints" / str(result.get("best_step")) / "model.safetensors"
    pictures = [*sorted(run.path.glob("*.png")), *sorted(run.path.glob("figures/*.png"))]
    return [weights, *pictures] if weights.exists() else pictures


def _watch_parent(stop: threading.Event) -> None:
    """Set ``stop`` when standard input closes, and end this process `GRACE_SECONDS` later in any case."""
    # os.read and not sys.stdin: a thread inside a buffered read aborts the interpreter's exit.
    while os.read(0, 4096):
        pass
    stop.set()
    time.sleep(GRACE_SECONDS)
    if TOKEN in os.environ:
        end_family(os.environ[TOKEN])
    os._exit(1)


def _mirror(run_dir: Path, component: Component, imports: Sequence[str], stop: threading.Event) -> None:
    import filelock

    for module in imports:
        import_user(module)
    name = component.name
    folder = mirror_folder(run_dir, name)
    tracker = TRACKERS.build(component, run_dir)
    # The follower of a killed training lives on for its grace; two must not write the same mirror.
    with filelock.FileLock(run_dir / f".tracker-{name}.lock", timeout=GRACE_SECONDS + 5):
        if folder.exists():
            shutil.rmtree(folder)
        follow(RunDir(run_dir), tracker, stop)


def main(run_dir: str, task: str) -> int:
    """Mirror ``run_dir``; ``task`` is JSON with ``tracker``, its ``options``, ``imports`` and ``once``.

    Returns:
        The exit status: 0 done, 1 the tracker failed, 2 bad input, 74 disk or I/O.
    """
    settings = json.loads(task)
    os.nice(5)
    stop = threading.Event()
    if settings["once"]:
        stop.set()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    if stat.S_ISFIFO(os.fstat(0).st_mode):
        threading.Thread(target=_watch_parent, args=(stop,), daemon=True).start()
    try:
        component = Component(settings["tracker"], settings["options"])
        _mirror(Path(run_dir), component, settings["imports"], stop)
    except Exception as error:  # a tracker may raise anything; one line is what the user needs
        text = " ".join(str(error).split())
        if not isinstance(error, NetdepthError):
            text = f"{type(error).__name__}: {text}" if text else type(error).__name__
        # Past sys.stderr, whose buffer would fail once more at exit: the log may lie on the disk that is full.
        with contextlib.suppress(OSError):
            os.write(2, f"error: {text}\n".encode())
        status = StorageError.exit_code if isinstance(error, OSError) else 1
        return error.exit_code if isinstance(error, NetdepthError) else status
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
