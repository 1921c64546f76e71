"""Groups of runs in worker processes on this machine; every run has an outcome, also when its worker dies.

Every way to execute jobs has the same form: ``execute(jobs, workers, on_event, ...)`` makes the jobs in their
order, as many at once as there are workers, and calls ``on_event`` with the events of `netdepth.studies.worker`.
It returns when every job has reported `Done`.

The pool is our own and not `concurrent.futures`: there, one dead worker breaks the whole pool; a worker cannot be
told to save, has no log, no core and no memory allocator of its own.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from netdepth.config import to_json
from netdepth.errors import Interrupted, NetdepthError
from netdepth.files.atomic import storage
from netdepth.runs.folder import RunDir
from netdepth.studies.worker import Done, Event, Job, Report, Retry, failed_outcomes, read_event, work
from netdepth.training.signals import signals_as_errors, signals_ignored

__all__ = ["ATTEMPTS", "JobQueue", "execute", "execute_here", "saved_on_signals"]

ATTEMPTS = 2
"""How often a group is started if its worker dies."""

COMMAND = (sys.executable, "-P", "-m", "netdepth.studies.worker")

HUGE_PAGES = ":".join(
    f"glibc.malloc.{name}={value}"
    for name, value in {"hugetlb": 1, "mmap_threshold": 1 << 32, "trim_threshold": 1 << 32, "top_pad": 1 << 26}.items()
)
"""`GLIBC_TUNABLES` of a worker: all its memory in one growing heap of large pages (Linux with glibc; ignored
elsewhere). A step of a stack touches tens of megabytes, more than the address translations of small pages that a
processor remembers: 4 to 14 % of a step (docs/experiments.md)."""

SAVING_SECONDS = 60.0
"""How long a worker may take to save before it is killed."""


def execute(jobs: Sequence[Job], workers: int, on_event: Report, *, logs: Path) -> None:
    """Make ``jobs`` in ``workers`` processes of this machine; ``logs`` keeps what they print on stderr.

    Raises:
        Interrupted: a signal came; the workers have saved.
        StorageError: ``logs`` cannot be written.
    """
    with storage(logs):
        logs.mkdir(parents=True, exist_ok=True)
    workers = min(workers, len(jobs))
    pool = _Pool(JobQueue(jobs, ATTEMPTS, on_event), on_event, logs, _cores(workers))
    try:
        with saved_on_signals(lambda: pool.close(signal.SIGTERM)):
            pool.serve(workers)
    finally:
        pool.close()


def _cores(workers: int) -> list[int]:
    """One core for each worker where there are as many workers as cores; otherwise none.

    A stack that moves to another core loses its caches: 7 % of a study (docs/experiments.md). With cores to
    spare, workers are not pinned, so that two studies do not meet on the first few cores.
    """
    if not hasattr(os, "sched_setaffinity"):
        return []
    cores = sorted(os.sched_getaffinity(0))
    return cores if len(cores) == workers else []


def execute_here(jobs: Sequence[Job], on_event: Report) -> None:
    """Make ``jobs`` one after another in this process: no process to start, but a crash ends everything."""
    with saved_on_signals(lambda: None):  # a run saves itself
        for job in jobs:
            on_event(Done(job.group, work(job, on_event)))


@contextlib.contextmanager
def saved_on_signals(save: Callable[[], None]) -> Iterator[None]:
    """On SIGINT and SIGTERM call ``save``, then raise the `Interrupted` of a study."""
    try:
        with signals_as_errors():
            yield
    except (KeyboardInterrupt, Interrupted) as error:
        with signals_ignored():
            save()
        number = error.exit_code - 128 if isinstance(error, Interrupted) else signal.SIGINT
        raise Interrupted("interrupted; the runs are saved; the same command continues the study", number) from None


class JobQueue:
    """The jobs that wait. A job whose worker died waits again, until it was started ``attempts`` times."""

    def __init__(self, jobs: Sequence[Job], attempts: int, on_event: Report) -> None:
        self._waiting = deque(jobs)
        self._most = attempts
        self._on_event = on_event
        self._started: collections.Counter[int] = collections.Counter()

    def __len__(self) -> int:
        return len(self._waiting)

    def take(self) -> Job:
        """The next job, which starts now."""
        job = self._waiting.popleft()
        self._started[job.group] += 1
        return job

    def lost(self, job: Job, reason: str) -> None:
        """The worker of ``job`` died: try it again at once, or give it up."""
        if self._started[job.group] < self._most:
            self._waiting.appendleft(job)
            self._on_event(Retry(job.group, reason))
        else:
            self.give_up(job, f"{reason} ({self._most} times)")

    def give_up(self, job: Job, reason: str) -> None:
        """End ``job`` as failed; every unfinished run gets a ``failure.json``."""
        outcomes = failed_outcomes(job, reason, 1)
        for outcome in outcomes:
            if outcome.error is not None and outcome.path is not None and (outcome.path / "config.json").exists():
                with contextlib.suppress(NetdepthError):  # the outcome says it too
                    RunDir(outcome.path).write_failure("WorkerDied", reason)
        self._on_event(Done(job.group, outcomes))


class _Worker:
    """One worker process and its present job."""

    def __init__(self, slot: int, logs: Path, core: int | None) -> None:
        self.slot = slot
        self.log = logs / f"worker-{slot}.log"
        self.job: Job | None = None
        self._buffer = b""
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "GLIBC_TUNABLES": os.environ.get("GLIBC_TUNABLES", HUGE_PAGES),
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),  # it finds the modules of this process
        }
        with storage(self.log):
            stderr: IO[bytes] = open(self.log, "ab")  # noqa: SIM115 - closed by the next statement
        with stderr:
            self._log_start = stderr.tell()
            self.process = subprocess.Popen(
                COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=environment,
                start_new_session=True,  # Ctrl-C reaches the study, which tells its workers
            )
        if core is not None:
            with contextlib.suppress(OSError):  # it ended at once: its closed stdout says so
                os.sched_setaffinity(self.process.pid, {core})  # before it has threads: they inherit it
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin, self.process.stdout

    def give(self, job: Job) -> None:
        self.job = job
        with contextlib.suppress(OSError):  # it is dead: its closed stdout says so next
            self.stdin.write(json.dumps(to_json(job)).encode() + b"\n")
            self.stdin.flush()

    def poll(self) -> list[Event] | None:
        """The events that have come; None when the process has ended."""
        data = os.read(self.stdout.fileno(), 1 << 16)
        if not data:
            return None
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        return [read_event(line) for line in lines]

    def exit_reason(self) -> str:
        """Why the process ended, with the last line of its log."""
        code = self.process.wait()
        how = f"of {signal.Signals(-code).name}" if code < 0 else f"with exit status {code}"
        last = ""
        with contextlib.suppress(OSError):
            lines = self.log.read_bytes()[self._log_start :].decode(errors="replace").split("\n")
            last = next((f": {line.strip()[:200]}" for line in reversed(lines) if line.strip()), "")
        return f"worker {self.slot} died {how}{last} (log: {self.log})"

    def end(self) -> None:
        """Close its stdin, which ends it, and wait."""
        with contextlib.suppress(OSError):
            self.stdin.close()
        try:
            self.process.wait(SAVING_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.stdout.close()


class _Pool:
    def __init__(self, queue: JobQueue, on_event: Report, logs: Path, cores: Sequence[int]) -> None:
        self._queue = queue
        self._on_event = on_event
        self._logs = logs
        self._cores = cores
        self._workers: dict[int, _Worker] = {}
        self._selector = selectors.DefaultSelector()

    def serve(self, workers: int) -> None:
        for slot in range(workers):
            self._start(slot)
        while self._workers:
            for key, _ in self._selector.select():
                worker: _Worker = key.data
                events = worker.poll()
                if events is None:
                    self._reap(worker)
                    continue
                for event in events:
                    self._on_event(event)
                    if isinstance(event, Done):
                        worker.job = None
                        self._next_job(worker)

    def _start(self, slot: int) -> None:
        if not self._queue:
            return
        worker = self._workers[slot] = _Worker(slot, self._logs, self._cores[slot] if self._cores else None)
        self._selector.register(worker.stdout, selectors.EVENT_READ, worker)
        self._next_job(worker)

    def _next_job(self, worker: _Worker) -> None:
        if self._queue:
            worker.give(self._queue.take())
        else:
            self._retire(worker)

    def _reap(self, worker: _Worker) -> None:
        """Start another worker in place of one that died."""
        reason = worker.exit_reason()
        self._retire(worker)
        if worker.job is not None:
            self._queue.lost(worker.job, reason)
        self._start(worker.slot)

    def _retire(self, worker: _Worker) -> None:
        self._selector.unregister(worker.stdout)
        del self._workers[worker.slot]
        worker.end()

    def close(self, number: signal.Signals | None = None) -> None:
        """End every worker; after the signal ``number`` one with a job saves first."""
        workers = list(self._workers.values())
        self._workers.clear()
        for worker in workers:
            if number is not None:
                worker.process.send_signal(number)
        for worker in workers:
            worker.end()
        self._selector.close()
        with contextlib.suppress(OSError):
            for log in self._logs.glob("worker-*.log"):
                if log.stat().st_size == 0:
                    log.unlink()
            self._logs.rmdir()  # only an empty folder goes
