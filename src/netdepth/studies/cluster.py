"""A Ray cluster to make runs on: connected to or started here, and looked at before the first run.

A Ray that is started here (``auto`` where none runs) listens on loopback only, without a dashboard and
without usage statistics. Any other must see the runs folder under the same path from every node and have
the same netdepth and torch.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from netdepth.errors import BadInput
from netdepth.files.atomic import write_atomic

__all__ = ["check", "connected", "last_line", "look", "look_around", "marker", "usable_nodes"]

ANSWER_SECONDS = 10.0
"""How long a cluster's address may take to accept a connection."""

NODE_SECONDS = 120.0
"""How long all nodes together may take to start a first process and look for the runs folder."""

SEEN_SECONDS = 5.0
"""How long a shared file system may take to show a new file on another node."""


def check(address: str) -> str:
    """What `connected` is to be given for ``--ray address``; "local" means a Ray of our own.

    Raises:
        BadInput: Ray is not installed, or nothing answers at ``address``.
    """
    try:
        import ray  # noqa: F401
    except ImportError:
        raise BadInput("--ray needs Ray, which is not installed; get it with: pip install netdepth[ray]") from None
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS") or "auto"
    if address in ("auto", "local"):
        return _running() or "local"
    if re.fullmatch(r"(ray://)?[^\s/]+:\d{1,5}", address) is None:
        raise BadInput(f"--ray {address!r} is no address; it takes auto, HOST:PORT or ray://HOST:PORT")
    try:
        _knock(address)
    except (OSError, OverflowError) as error:
        raise _unreachable(address, getattr(error, "strerror", None) or str(error)) from None
    return address


def _running() -> str | None:
    """The address of what ``ray start`` began on this machine, if it still answers.

    Any other Ray that can be found here is another program's own and ends with it.
    """
    from ray._private.services import find_bootstrap_address

    address: str | None = find_bootstrap_address(None)
    with contextlib.suppress(OSError):  # it ended without a word
        if address:
            _knock(address)
            return address
    return None


def _knock(address: str) -> None:
    """Raise OSError unless something accepts a connection: Ray itself would try for many minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS).close()


# --- the connection ---------------------------------------------------------------------------------


@contextlib.contextmanager
def connected(address: str, workers: int | None) -> Iterator[None]:
    """Inside, this process is connected to ``address`` as `check` gave it; an older connection is used and kept."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if ray.is_initialized():
        yield
        return
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)  # Ray puts a handler of its own in its place
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    with contextlib.redirect_stdout(sys.stderr):  # Ray prints the obituary of a node on stdout
        try:
            _init(address, workers, quiet)
            if main:
                signal.signal(signal.SIGTERM, before)
            yield
        finally:
            ray.shutdown()
            if main:
                signal.signal(signal.SIGTERM, before)


def _init(address: str, workers: int | None, quiet: Mapping[str, Any]) -> None:
    import ray
    from ray._private import ray_constants

    if address != "local":
        try:
            ray.init(address=address, **quiet)
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:  # no Ray, or another version
            raise _unreachable(address, last_line(error)) from None
        return
    # Which address a new Ray takes is no argument of `init`: it is loopback where clusters are off.
    clusters, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    try:
        ray.init(address="local", num_cpus=workers, include_dashboard=False, object_store_memory=100 << 20, **quiet)
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = clusters


def _unreachable(address: str, reason: str) -> BadInput:
    return BadInput(f"no Ray cluster answers at {address} ({reason}); start one with: ray start --head")


# --- before the first run ---------------------------------------------------------------------------


@contextlib.contextmanager
def marker(folder: Path) -> Iterator[tuple[str, str]]:
    """A file in ``folder`` and what it holds, by which a node knows that it sees the same folder."""
    token = uuid.uuid4().hex
    path = folder / f".shared-{token[:8]}"
    write_atomic(path, token.encode())
    try:
        yield str(path), token
    finally:
        path.unlink(missing_ok=True)


def usable_nodes(address: str, needed: Mapping[str, float]) -> list[Mapping[str, Any]]:
    """The living nodes that have the ``needed`` resources of one task.

    Raises:
        BadInput: there is none.
    """
    import ray

    def enough(resources: Mapping[str, float]) -> bool:
        return all(resources.get(name, 0.0) >= least for name, least in needed.items())

    nodes = [node for node in ray.nodes() if node["Alive"] and enough(node["Resources"])]
    if not nodes:
        raise BadInput(f"the Ray cluster at {address} has no node with a {' and a '.join(needed)} to give")
    return nodes


def look_around(nodes: Sequence[Mapping[str, Any]], mark: tuple[str, str]) -> None:
    """Ask every node whether it sees the runs folder and has the same netdepth and torch.

    Raises:
        BadInput: one does not.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, max_retries=0)(look)
    asked = {
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(*mark): node
        for node in nodes
    }
    ray.wait(list(asked), num_returns=len(asked), timeout=NODE_SECONDS)
    for answer, node in asked.items():
        name = node["NodeManagerAddress"]
        try:
            fault = ray.get(answer, timeout=0)
        except ray.exceptions.GetTimeoutError:
            raise BadInput(f"Ray node {name} started no process within {NODE_SECONDS:g} s") from None
        except ray.exceptions.RayError as error:
            raise BadInput(f"Ray node {name} cannot run netdepth: {last_line(error)}") from None
        here = _versions()
        if isinstance(fault, dict) and fault != here:
            told = ", ".join(f"{what} {fault[what]}" for what in here if fault[what] != here[what])
            wanted = ", ".join(f"{what} {here[what]}" for what in here if fault[what] != here[what])
            raise BadInput(f"Ray node {name} has {told}; this study is made with {wanted}")
        if isinstance(fault, str):
            raise BadInput(f"Ray node {name}: {fault}")


def _versions() -> dict[str, str]:
    return {"netdepth": version("netdepth"), "torch": version("torch")}


def look(path: str, token: str) -> str | dict[str, str]:
    """On a node: what is wrong with the runs folder, else the versions that decide a run's numbers."""
    until = time.monotonic() + SEEN_SECONDS
    while True:
        with contextlib.suppress(OSError):
            if Path(path).read_text() == token:
                return _versions()
        if time.monotonic() > until:
            folder = Path(path).parent
            return f"it does not see the runs folder {folder}; give --runs a folder on a file system all nodes share"
        time.sleep(0.1)


def last_line(error: BaseException) -> str:
    """What an error of Ray comes to: the last line that says something, without the traceback above it."""
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", str(error)).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
