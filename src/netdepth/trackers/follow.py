"""``python -m netdepth.trackers.follow TASK``: mirror a run folder live, or finished ones one after another.

A folder is replayed from its beginning and then followed until ``result.json`` appears or the
process that started this one ends (which closes our standard input). Every run has a line on
standard error, ``[0] done`` or ``[0] error: …``; an error is the last thing that this process does.
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
from pathlib import Path

from netdepth.config import Component
from netdepth.errors import BadInput, NetdepthError, StorageError
from netdepth.files.atomic import restored
from netdepth.files.usercode import import_user
from netdepth.runs import RunResult
from netdepth.runs.folder import RunDir
from netdepth.trackers.base import TRACKERS, Tracker, mirror_folder, tracker_record
from netdepth.trackers.mirror import TOKEN, Labels, end_family

__all__ = ["follow", "main"]

POLL_SECONDS = 0.2
NICE = 5
GRACE_SECONDS = 30.0
"""How long this process outlives the one that started it; enough for the last upload."""


def follow(run: RunDir, tracker: Tracker, stop: threading.Event, labels: Labels | None = None) -> None:
    """Drive ``tracker`` over the whole life of ``run``; once ``stop`` is set, with what is there.

    ``labels`` join the config that the tracker gets: what the run's study calls it.

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
    config.update(labels or {})
    tracker.start(config)
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


def _mirror(run_dir: Path, component: Component, labels: Labels, stop: threading.Event) -> None:
    import filelock

    name = component.name
    folder = mirror_folder(run_dir, name)
    tracker = TRACKERS.build(component, run_dir)
    # The follower of a killed training lives on for its grace; two must not write the same mirror.
    with filelock.FileLock(run_dir / f".tracker-{name}.lock", timeout=GRACE_SECONDS + 5):
        if folder.exists():
            shutil.rmtree(folder)
        follow(RunDir(run_dir), tracker, stop, labels)


def main(text: str) -> int:
    """Mirror the runs of a task: JSON with ``tracker``, ``options``, ``imports``, ``once``, ``runs`` and ``labels``.

    Returns:
        The exit status: 0 done, 1 the tracker failed, 2 bad input, 74 disk or I/O.
    """
    task = json.loads(text)
    stop = _Stop()
    if task["once"]:
        os.nice(NICE)
        stop.set()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    if stat.S_ISFIFO(os.fstat(0).st_mode):
        threading.Thread(target=_watch_parent, args=(stop,), daemon=True).start()
    component = Component(task["tracker"], task["options"])
    for number, (run, labels) in enumerate(zip(task["runs"], task["labels"], strict=True)):
        try:
            for module in task["imports"]:
                import_user(module)
            _mirror(Path(run), component, labels, stop)
        except Exception as error:  # a tracker may raise anything; one line is what the user needs
            _tell(f"[{number}] error: {_words(error)}")
            return _status(error)  # the next run gets a process without what this one left behind
        _tell(f"[{number}] done")
    return 0


class _Stop(threading.Event):
    """Set when no more records come. Whoever waits for it has time, and so lets the training go first from then on.

    Not before: a short run is over while its tracker is still starting, and then waits for it.
    """

    waited = False

    def wait(self, timeout: float | None = None) -> bool:
        if not self.waited:
            self.waited = True
            os.nice(NICE)
        return super().wait(timeout)


def _status(error: Exception) -> int:
    if isinstance(error, NetdepthError):
        return error.exit_code
    return StorageError.exit_code if isinstance(error, OSError) else 1


def _words(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, NetdepthError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _tell(line: str) -> None:
    # Past sys.stderr, whose buffer would fail once more at exit: the log may lie on the disk that is full.
    with contextlib.suppress(OSError):
        os.write(2, f"{line}\n".encode())


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
