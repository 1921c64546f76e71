"""`convert`: a file of published weights into safetensors, in a process of its own.

A pickle is a program. `netdepth.tools.convert.reader` reads it with PyTorch's ``weights_only`` reader, which
builds tensors and plain containers and runs nothing else. That reader may have a hole, or the file may be made
to exhaust the machine. Therefore the reading process gets only the file as its standard input and a temporary
folder to work in, and its memory and time are limited by the size of the file.
"""

from __future__ import annotations

import difflib
import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from netdepth.config import Json, from_json
from netdepth.errors import BadInput, StorageError
from netdepth.files.atomic import fsync_folder, storage
from netdepth.text import duration, thousands

__all__ = ["Conversion", "convert"]

COMMAND = (sys.executable, "-P", "-m", "netdepth.tools.convert.reader")
MAX_BYTES = 4 * 2**30
"""The largest networks here have a sixteenth of this size."""
BASE_SECONDS, BYTES_PER_SECOND = 120.0, 10e6
"""Time for importing PyTorch on a busy machine, and for reading."""


@dataclass(frozen=True)
class Conversion:
    """What `convert` wrote to ``out``.

    ``model``, ``classes``, ``width`` and ``fits`` are those of `netdepth.training.published.Fit`. ``unwrapped`` are the
    entries around the weights, ``stripped`` the prefixes removed. ``shared`` counts tensors that shared memory with
    another. ``dropped`` names the first entries that were left out (no tensors, or beside the weights),
    ``dropped_count`` counts all.
    """

    source: Path
    out: Path
    sha256: str
    tensors: int
    bytes: int
    model: str | None
    classes: int | None
    width: int | None
    fits: str
    unwrapped: list[str]
    stripped: list[str]
    shared: int
    dropped: list[str]
    dropped_count: int


def convert(
    source: Path,
    out: Path | None = None,
    *,
    skip: Literal["both", "end", "none"] = "both",
    normalization: str | None = None,
) -> Conversion:
    """Write the weights in ``source`` to ``out``, by default beside it with the suffix ``.safetensors``.

    CIFAR ResNets under the usual names become a ``resnet``; ``skip`` and ``normalization`` are what their file does not
    say (`netdepth.tools.convert.cifar.Assumed`).

    Raises:
        BadInput: no such file, no weights, weights that need code to be read; an ``out`` that exists
            and is no earlier conversion.
        StorageError: ``out`` cannot be written.
    """
    assumed = {"skip": skip, "normalization": normalization}
    with _opened(source) as handle:
        length = os.fstat(handle.fileno()).st_size
        if length > MAX_BYTES:
            raise BadInput(f"{source} has {thousands(length)} bytes; weights are read up to {thousands(MAX_BYTES)}")
        if out is None:
            beside = source.with_stem(f"{source.stem}-netdepth") if source.suffix == ".safetensors" else source
            out = beside.with_suffix(".safetensors")
        _check_out(out)
        with storage(out), tempfile.TemporaryDirectory(prefix=".netdepth-convert-", dir=out.parent) as folder:
            target = Path(folder, "made").absolute()  # the process has another working folder
            target.touch()
            mode = target.stat().st_mode  # the permissions of this user's files; safetensors makes it private
            report = _read_apart(source, handle, target, length, assumed)
            made: Conversion = from_json(Conversion, {"source": str(source), "out": str(out), **report}, "conversion")
            target.chmod(mode)
            with open(target, "rb") as written:
                os.fsync(written.fileno())
            os.replace(target, out)
            fsync_folder(out.parent)
    return made


def _opened(source: Path) -> IO[bytes]:
    """``source`` for reading, if it is a file that may hold a pickle."""
    try:
        kind = source.stat().st_mode
        if stat.S_ISDIR(kind):
            raise BadInput(f"{source} is a folder; name a file of weights (.pth, .pt)")
        if not stat.S_ISREG(kind):  # opening a pipe would wait until somebody writes to it
            raise BadInput(f"{source} is a device or a pipe; name a file of weights (.pth, .pt)")
        return open(source, "rb")
    except FileNotFoundError:
        beside = sorted(path.name for path in source.parent.glob("*.pt*") if path.is_file())
        near = difflib.get_close_matches(source.name, beside, n=1, cutoff=0.5)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        there = ", ".join(beside[:5]) or "none"
        raise BadInput(f"no file {str(source)!r}{hint}; weights in its folder: {there}") from None
    except OSError as error:
        raise BadInput(f"cannot read {str(source)!r}: {error.strerror or error}") from None


def _check_out(out: Path) -> None:
    """Refuse to overwrite anything but an earlier conversion."""
    from safetensors import SafetensorError, safe_open

    if out.suffix != ".safetensors":
        raise BadInput(f"--out {str(out)!r} has to end in .safetensors")
    if not os.path.lexists(out):
        return
    try:
        with safe_open(out, "np") as file:
            ours = "source_sha256" in (file.metadata() or {})
    except (OSError, SafetensorError):
        ours = False
    if not ours:
        raise BadInput(f"{out} exists and was not made by convert; remove it, or give another --out")


def _read_apart(
    source: Path, handle: IO[bytes], target: Path, length: int, assumed: Mapping[str, str | None]
) -> Mapping[str, Json]:
    """Let a process rewrite ``handle`` to ``target``; its report has the fields of `Conversion` without the paths."""
    seconds = BASE_SECONDS + length / BYTES_PER_SECOND
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(
            [*COMMAND, str(target), str(length), source.name, json.dumps(assumed)],
            stdin=handle,
            capture_output=True,
            cwd=target.parent,
            env=environment,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BadInput(f"{source} could not be read within {duration(seconds)}") from None
    if done.returncode != 0:
        how = f"exit status {done.returncode}" if done.returncode > 0 else signal.Signals(-done.returncode).name
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2][:200]
        raise BadInput(f"{source} ended the process that read it with {how}{': ' if last else ''}{last}")
    report: Mapping[str, Json] = json.loads(done.stdout)
    if "error" in report:
        kind = StorageError if report["code"] == StorageError.exit_code else BadInput
        raise kind(f"{source} {report['error']}")
    return report
