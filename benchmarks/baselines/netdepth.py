"""netdepth with everything on that a user has on: metrics, run folder, checkpoints, a live bar.

A turn is a whole run of `EPOCHS` epochs into a folder that is thrown away. Its time is the mean
of ``seconds`` in the later records of metrics.jsonl: the wall time from one record to the next,
with what came between them, be it a checkpoint, a metric or a drawing of the bar. The first
record is the warm-up. Trackers are off.
"""

from __future__ import annotations

import os
import pty
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from baselines.session import open_session

EPOCHS = 5


@contextmanager
def terminal() -> Iterator[None]:
    """A terminal for stderr, so that the bar is drawn as a user sees it; another process reads it."""
    master, slave = pty.openpty()
    reader = subprocess.Popen(["cat"], stdin=master, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.close(master)
    before = sys.stderr
    try:
        with os.fdopen(slave, "w") as sys.stderr:
            yield
    finally:
        sys.stderr = before
        reader.wait()


def main() -> None:
    session = open_session()
    os.environ["TERM"] = "xterm-256color"
    from netdepth.api import train
    from netdepth.config import Runtime

    overrides = [
        f"train.budget={EPOCHS}ep",
        f"train.batch_size={session.batch_size}",
        "train.early_stopping=null",
    ]
    seed = 0
    while True:
        with tempfile.TemporaryDirectory() as folder:
            runtime = Runtime(device="cpu", threads=session.threads, runs_root=Path(folder), data_dir=session.data_dir)
            with terminal():
                run = train("baseline-mlp", seed=seed, overrides=overrides, runtime=runtime)
            records = run.dir.read_metrics()
        seconds = statistics.mean(record["seconds"] for record in records[1:])
        session.epoch_done(records[-1]["val_accuracy"], seconds=seconds, epochs=len(records))
        seed += 1


if __name__ == "__main__":
    main()
