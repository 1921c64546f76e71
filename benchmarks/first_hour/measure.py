"""The newcomer's hour, netdepth beside Lightning with TensorBoard: commands, own lines and seconds, all measured.

    python3 -m venv hour && . hour/bin/activate
    pip install -c constraints.txt -r benchmarks/first_hour/requirements.txt && pip install -c constraints.txt .
    python benchmarks/first_hour/measure.py

Runs every row of rows/ on both sides, one after the other, in folders that are deleted, and writes
benchmarks/results/first_hour.json and first_hour.md. Exit status 1 if netdepth misses a row.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from counting import Command, own_lines, read_commands, read_files, typed
from goals import ROWS, SIDES, Missed, Row, Side
from table import render

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
RESULT = HERE.parent / "results" / "first_hour.json"
BASE = "first-result"
"""The row whose files the later ones start from."""
COMMAND_SECONDS = 900
WARM = "import lightning.pytorch.cli, matplotlib.pyplot, netdepth.training.run, scipy.stats, torchmetrics"


@dataclass(frozen=True)
class Measured:
    """One side of one row."""

    typed: list[str]
    commands: int
    lines: int
    seconds: float
    reached: bool
    found: str


def make_data(folder: Path) -> None:
    """The digits that come with netdepth in the place of torchvision's, and pictures "of one's own": the digits turned.

    ``data/digits.npz`` for the Lightning side, in netdepth's order: training, validation, then test part. Own pictures
    lie in ``mine.npz`` under the names that Keras gives, 4,000 for training and 1,000 for the test.
    """
    import numpy as np

    sys.path.insert(0, str(CHECKOUT / "src"))
    from netdepth.data.mnist5k import mnist5k

    digits = mnist5k(None)
    assert digits.test is not None
    learn, test = (digits.train, digits.val), digits.test.open_test("the first hour's data")
    arrays = {
        "x_train": np.concatenate([part.inputs[:, 0].numpy() for part in learn]),
        "y_train": np.concatenate([part.labels.numpy() for part in learn]),
        "x_test": test.inputs[:, 0].numpy(),
        "y_test": test.labels.numpy(),
    }
    (folder / "data").mkdir()
    np.savez(folder / "data" / "digits.npz", **arrays)
    turned = {name: np.rot90(array, axes=(1, 2)) if name[0] == "x" else array for name, array in arrays.items()}
    np.savez(folder / "mine.npz", **turned)


def environment(port: int) -> dict[str, str]:
    """Commands find this interpreter's environment first, and this checkout's netdepth; no settings of the caller's."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("NETDEPTH_", "PL_", "WANDB_"))}
    binaries = Path(sys.executable).parent
    return {
        **kept,
        "PATH": f"{binaries}{os.pathsep}{kept.get('PATH', os.defpath)}",
        "PYTHONPATH": str(CHECKOUT / "src"),
        "MPLBACKEND": "Agg",
        "PORT": str(port),
        "CONSTRAINTS": str(CHECKOUT / "constraints.txt"),
        "NETDEPTH": str(CHECKOUT),
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port: int = probe.getsockname()[1]
        return port


def kill(process: subprocess.Popen[bytes]) -> None:
    """The command and all that it started: it is a process group of its own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def run(command: Command, folder: Path, variables: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Run one line of a list to its end, or until it is to be killed, or (``&``) only start it."""
    line = command.line.rstrip("& ") if command.stays else command.line
    with log.open("ab") as output:
        process = subprocess.Popen(
            ["bash", "-c", line],
            cwd=folder,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    if command.stays:
        return process
    end, ended = time.monotonic() + COMMAND_SECONDS, None
    try:
        while (ended := process.poll()) is None and time.monotonic() < end:
            if command.killed_when is not None and next(folder.glob(command.killed_when), None) is not None:
                break
            time.sleep(0.005)
    finally:
        kill(process)
    if command.killed_when is not None and ended is not None:
        raise Missed(f"ended before it could be killed: {command.line}")
    if command.killed_when is None and ended != 0:
        tail = " ".join(log.read_text(errors="replace").split()[-30:])
        raise Missed(f"exit {ended}: {tail}")
    return process


@contextlib.contextmanager
def placed(files: dict[str, str], folder: Path) -> Iterator[None]:
    """The user's files of a row, as long as it runs."""
    for name, text in files.items():
        (folder / name).write_text(text)
    try:
        yield
    finally:
        for name in files:
            (folder / name).unlink(missing_ok=True)


def measure(row: Row, side: str, folder: Path) -> Measured:
    """Run one side of a row in its working folder and look at what it left."""
    source = HERE / "rows" / row.name / side
    commands = read_commands((source / "commands.txt").read_text())
    base = read_files(HERE / "rows" / BASE / side)
    files = read_files(source)
    port, log = free_port(), folder / "printed.log"
    variables = environment(port)
    log.unlink(missing_ok=True)
    log.touch()
    staying: list[subprocess.Popen[bytes]] = []
    started = time.perf_counter()

    def act(check: Callable[[Side], str]) -> str:
        for command in commands:
            process = run(command, folder, variables, log)
            if command.stays:
                staying.append(process)
        return check(Side(folder, log.read_text(errors="replace"), port))

    with placed({**base, **files}, folder):
        try:
            # A board counts until it shows the curves: its check waits for them. Other checks take milliseconds.
            found, reached = act(row.check(side)), True
        except Missed as missed:
            found, reached = str(missed), False
        finally:
            seconds = time.perf_counter() - started
            for process in staying:
                kill(process)
    return Measured(
        typed=[command.line for command in commands],
        commands=sum(typed(command.line) for command in commands),
        lines=own_lines(files, {} if row.name == BASE else base),
        seconds=round(seconds, 2) if commands else 0.0,
        reached=reached,
        found=found,
    )


def install(side: str) -> Measured:
    """One side's ``pip install`` in an environment made for it."""
    commands = read_commands((HERE / "rows" / "install" / side / "commands.txt").read_text())
    with tempfile.TemporaryDirectory(prefix="first-hour-") as name:
        folder = Path(name)
        subprocess.run([sys.executable, "-m", "venv", folder / "new"], check=True)
        variables = environment(0)
        del variables["PYTHONPATH"]
        variables["PATH"] = f"{folder / 'new' / 'bin'}{os.pathsep}{variables['PATH']}"
        started, found, reached = time.perf_counter(), "installed in a new environment", True
        try:
            for command in commands:
                run(command, folder, variables, folder / "printed.log")
            asked = {"netdepth": "netdepth --version", "lightning": "python -c 'import lightning, tensorboard'"}[side]
            seconds = time.perf_counter() - started
            run(Command(asked), folder, variables, folder / "printed.log")
        except Missed as missed:
            seconds, found, reached = time.perf_counter() - started, str(missed), False
    count = sum(typed(command.line) for command in commands)
    return Measured([command.line for command in commands], count, 0, round(seconds, 2), reached, found)


def measured_rows(names: list[str], sides: tuple[str, ...], with_install: bool) -> dict[str, dict[str, Any]]:
    """Every row asked for, its sides in turn; the machine's load before each."""
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="first-hour-") as name:
        folders = {side: Path(name) / side for side in SIDES}
        for folder in folders.values():
            folder.mkdir()
            make_data(folder)
        for helper in (HERE / "given").glob("*.py"):
            shutil.copy(helper, folders["lightning"])
        subprocess.run([sys.executable, "-c", WARM], check=True, env=environment(0))
        for row in ROWS:
            if row.name not in names or (row.name == "install" and not with_install):
                continue
            found[row.name] = {"load": round(os.getloadavg()[0], 2)}
            for side in sides:
                one = install(side) if row.name == "install" else measure(row, side, folders[side])
                found[row.name][side] = asdict(one)
                costs = f"{one.commands} commands, {one.lines} lines, {one.seconds:6.1f} s"
                said = f"{costs}, {'reached' if one.reached else 'MISSED'}: {one.found}"
                print(f"{row.title:15} {side:10} {said}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--with-install", action="store_true", help="measure pip install, too; else kept from before")
    parser.add_argument(
        "--only", metavar="ROWS", help="measure these rows, separated by commas; the others are kept from before"
    )
    parser.add_argument("--side", choices=SIDES, help="this side alone; nothing is written")
    parser.add_argument("--render", action="store_true", help="only make the table from the JSON file")
    given = parser.parse_args()
    if not given.render:
        known = [row.name for row in ROWS]
        names = given.only.split(",") if given.only else known
        if wrong := sorted(set(names) - set(known)):
            sys.exit(f"unknown rows: {', '.join(wrong)}; choose from: {', '.join(known)}")
        rows = measured_rows(names, (given.side,) if given.side else SIDES, given.with_install)
        if given.side:
            return
        before = json.loads(RESULT.read_text())["rows"] if RESULT.is_file() else {}
        document = {
            "schema": 1,
            "what": "commands, own lines and seconds of a newcomer's first hour, netdepth beside Lightning",
            "system": system(),
            "rows": {name: row for name in known if (row := rows.get(name, before.get(name)))},
        }
        RESULT.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    document = json.loads(RESULT.read_text())
    text = render(document)
    RESULT.with_suffix(".md").write_text(text)
    print(text)
    if not all(row["netdepth"]["reached"] for row in document["rows"].values()):
        sys.exit(1)


def system() -> str:
    import importlib.metadata as packages

    versions = ", ".join(f"{name} {packages.version(name)}" for name in ("torch", "lightning", "tensorboard"))
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {versions}"


if __name__ == "__main__":
    main()
