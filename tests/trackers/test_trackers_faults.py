"""What a tracker's fault costs: a note and no more than the deadline. The W&B client in it is the real one."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.disks import small_disk
from support.tracked_runs import finish_run, finished_run, new_run, record, wandb_history

from netdepth.errors import StorageError
from netdepth.trackers import TRACKERS, Mirrors, sync
from netdepth.trackers.mirror import family

GRACE = 2.0
"""Seconds past its deadline that `Mirrors.finish` may take: to kill and reap, on a machine that has other work too."""


needs_proc = pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks into /proc, which this system lacks")


def finish(mirrors: Mirrors, seconds: float) -> list[str]:
    """Finish within the deadline with no process left, neither running nor unreaped."""
    processes = [child.process for child in mirrors._children]
    begun = time.monotonic()
    notes = mirrors.finish(begun + seconds)
    assert time.monotonic() - begun < seconds + GRACE
    assert family(mirrors._token) == []
    assert all(process.returncode is not None for process in processes)
    return notes


def wait_for(condition: Callable[[], object], what: str, seconds: float = 40.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.05)


def rebuild_hint(run_dir: Path, tracker: str) -> str:
    return f"; rebuild it with: netdepth sync {run_dir} --to {tracker}"


def wandb_cores(mirrors: Mirrors) -> list[int]:
    """The client's own processes; each leads a session of its own, out of reach of a kill of the group."""
    pids = family(mirrors._token)
    cores = [pid for pid in pids if b"wandb-core" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert all(os.getsid(pid) == pid for pid in cores)
    return cores


def test_wandb_online_without_a_key_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    run = finished_run(tmp_path, 1)
    (note,) = finish(Mirrors.start(run.path, ["wandb"], wandb_online=True), 30.0)
    assert note.startswith("tracker wandb: ")
    assert "api_key not configured" in note.lower() or "no api key" in note.lower()


@needs_proc
@pytest.mark.slow
def test_wandb_core_that_is_stopped(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    run.append_metrics(record(1))
    mirrors = Mirrors.start(run.path, ["tensorboard", "wandb"])
    wait_for(lambda: list(run.path.glob("wandb/*-run-*/run-*.wandb")), "the start of the W&B run")
    (core,) = wandb_cores(mirrors)
    os.kill(core, signal.SIGSTOP)
    for epoch in (2, 3):
        run.append_metrics(record(epoch))
    finish_run(run, 3)
    notes = finish(mirrors, 4.0)
    assert notes == [
        f"tracker wandb: stopped after 4 s, before the mirror was complete{rebuild_hint(run.path, 'wandb')}"
    ]
    assert not Path(f"/proc/{core}").exists() or "Z" in Path(f"/proc/{core}/stat").read_text()
    sync(run, "wandb")  # what the note says to do
    assert list(wandb_history(run)) == [40, 80, 120]


@pytest.mark.slow
def test_full_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "2m") as disk:
        run = new_run(disk)
        mirrors = Mirrors.start(run.path, TRACKERS.names())
        run.append_metrics(record(1))
        wait_for(lambda: list(run.path.glob("wandb/*-run-*/run-*.wandb")), "the start of the W&B run")
        for epoch in range(2, 60):
            run.append_metrics(record(epoch))
        finish_run(run, 59)
        with contextlib.suppress(OSError), open(disk / "fill", "wb", buffering=0) as fill:
            while True:
                fill.write(bytes(4096))
        notes = finish(mirrors, 20.0)
        assert [note.split(":")[0] for note in notes] == [f"tracker {name}" for name in TRACKERS.names()]
        assert all(rebuild_hint(run.path, name) in note for name, note in zip(TRACKERS.names(), notes, strict=True))
        with pytest.raises(StorageError, match="tracker tensorboard: "):
            sync(run, "tensorboard")
        (disk / "fill").unlink()
        sync(run, "wandb")
        assert len(wandb_history(run)) == 59


BAD = """
import os, signal, subprocess, sys, time
from pathlib import Path
from netdepth.trackers import TRACKERS

def misbehave():
{fault}

@TRACKERS.register("bad")
def bad(run_dir: Path):
    "A tracker with a fault."
    return Bad()

class Bad:
    def start(self, config):
        if {where!r} == "start": misbehave()
    def log(self, record, step):
        if {where!r} == "log": misbehave()
    def artifact(self, path):
        if {where!r} == "artifact": misbehave()
    def finish(self, result):
        if {where!r} == "finish": misbehave()
"""

FAULTS = {
    "raise": "    raise RuntimeError('the server\\nsaid no')",
    "exit": "    os._exit(7)",
    "crash": "    os.kill(os.getpid(), signal.SIGSEGV)",
    "hang": "    time.sleep(3600)",
    # Deaf to SIGTERM, with a child in another session that is stopped and holds the output open.
    "cling": (
        "    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "    child = subprocess.Popen(['sleep', '3600'], start_new_session=True)\n"
        "    os.kill(child.pid, signal.SIGSTOP)\n"
        "    while True:\n"
        "        time.sleep(1)"
    ),
}


@needs_proc
@pytest.mark.parametrize(
    ("fault", "where", "note"),
    [
        ("raise", "log", "RuntimeError: the server said no"),
        ("crash", "finish", "ended with status -11"),
        ("cling", "start", "stopped after "),
    ],
)
def test_a_tracker_that_misbehaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, where: str, note: str
) -> None:
    source = tmp_path / "bad_tracker.py"
    source.write_text(BAD.format(fault=FAULTS[fault], where=where))
    monkeypatch.setitem(TRACKERS._entries, "bad", TRACKERS.entry("tensorboard"))
    run = finished_run(tmp_path, 2)
    before = (run.path / "metrics.jsonl").read_bytes()
    mirrors = Mirrors.start(run.path, ["bad"], imports=[str(source)])
    if fault == "cling":
        wait_for(lambda: len(family(mirrors._token)) == 2, "the start of the tracker's child")
    seconds = 1.0 if note.startswith("stopped") else 20.0
    (said,) = finish(mirrors, seconds)
    assert said.startswith(f"tracker bad: {note}")
    assert said.endswith(rebuild_hint(run.path, "bad"))
    assert (run.path / "metrics.jsonl").read_bytes() == before


def test_a_tracker_that_cannot_start_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = finished_run(tmp_path, 1)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    (note,) = finish(Mirrors.start(run.path, ["tensorboard"]), 1.0)
    assert note.startswith("tracker tensorboard: could not start (No such file or directory)")
