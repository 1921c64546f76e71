"""``board``: TensorBoard on the runs. A person waits for its start, so this file imports little."""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from netdepth.commands import Answer
from netdepth.errors import BadInput
from netdepth.runs.folder import runs_root

__all__ = ["board", "board_command"]

SERVER_SECONDS = 5.0
"""How long the data server may take to say its port; it needs some hundredths of a second."""


def board(args: argparse.Namespace) -> Answer:
    """TensorBoard on the runs, until it is interrupted."""
    folder = args.folder or runs_root(args.runs_root)
    if not folder.is_dir():
        raise BadInput(f"no folder {str(folder)!r} to show; train something first, or name a folder of runs")
    if not any("tfevents" in name for _, _, files in os.walk(folder) for name in files):
        raise BadInput(f"no events of TensorBoard below {str(folder)!r}; of a run: netdepth sync RUN --to tensorboard")
    try:
        with _data_server(folder) as address:
            code = subprocess.call(board_command(folder, args.port, address))
    except KeyboardInterrupt:
        code = 0
    return Answer({"folder": folder}, lambda: None, 1 if code else 0)


def board_command(logdir: Path, port: int | None = None, data_server: str | None = None) -> list[str]:
    """The command that shows every run below ``logdir`` on this machine's loopback address only.

    ``data_server`` is the address of a server that reads them; without it TensorBoard starts one.
    """
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir), "--host", "127.0.0.1"]
    command += [] if data_server is None else ["--grpc_data_provider", data_server]
    return command if port is None else [*command, "--port", str(port)]


@contextlib.contextmanager
def _data_server(logdir: Path) -> Iterator[str | None]:
    """TensorBoard's own data server and its address, or None where TensorBoard comes without one.

    It reads the events while TensorBoard is still being imported. TensorBoard would start it after that, look for its
    port after 10 ms, and if that is too early wait for half a second.
    """
    try:
        from tensorboard_data_server import server_binary
    except ImportError:
        binary = None
    else:
        binary = server_binary()
    if binary is None:
        yield None
        return
    settings = [f"--logdir={logdir}", "--reload=5", "--port=0", "--port-file=/dev/stdout", "--die-after-stdin"]
    with subprocess.Popen([binary, *settings], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        try:
            said = select.select([server.stdout], [], [], SERVER_SECONDS)[0] and server.stdout.readline().strip()
            yield f"localhost:{int(said)}" if said else None
        finally:
            server.kill()
