"""The process that drills kill: ``python -m faults.child``, which has imported everything and forks on demand.

It reads one job per line on stdin, as JSON::

    {"call": "faults.subjects:make_stack", "args": [...], "shims": [["faults.phases:mark", path], ...], "out": path}

and answers with two lines: the id of the process forked for it, and how that ended (a negative number: the
signal). A fork saves the three seconds of importing torch and lets hundreds be killed; each is a process of
its own, which SIGKILL ends from outside as it would any other. What a shim does, it does in that process alone.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import traceback
from typing import Any, NoReturn

import faults.subjects  # noqa: F401
import netdepth.api
import netdepth.report.learning_curves
import netdepth.studies.run
import netdepth.training.run  # noqa: F401
from netdepth.data import mnist5k
from netdepth.report import style


def named(text: str) -> Any:
    """The object that ``module:name`` names."""
    module, _, name = text.partition(":")
    return getattr(importlib.import_module(module), name)


def work(job: dict[str, Any]) -> NoReturn:
    """Do ``job`` and end this process as the command line would."""
    out = os.open(job["out"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for own, given in ((0, nothing), (1, out), (2, out)):
        os.dup2(given, own)
    code = 1
    try:
        for shim, *args in job.get("shims", ()):
            named(shim)(*args)
        code = named(job["call"])(*job.get("args", ())) or 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def prepare() -> None:
    """Parse the embedded digits and import what draws figures, once for all jobs."""
    mnist5k._table(mnist5k.packaged_csv())
    style.svg(style.figure_of(1, 1)[0], "none", "none")


def main() -> None:
    prepare()
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            os.setsid()
            work(json.loads(line))
        print(child, file=answers, flush=True)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(status, file=answers, flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where this was begun in the background
    main()
