"""Finding, starting and leaving a Ray: addresses, loopback alone, and one line where there is none."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from support.ray_jobs import jobs_in, small

from netdepth.errors import BadInput
from netdepth.studies.ray import check_address, examine_node, execute, last_line
from netdepth.studies.worker import Event


@pytest.fixture(autouse=True)
def _environment() -> Iterator[None]:
    """Ray changes variables of this process."""
    with mock.patch.dict(os.environ):
        os.environ.pop("RAY_ADDRESS", None)
        yield


# --- without Ray ------------------------------------------------------------------------------------


def test_ray_that_is_not_installed_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BadInput) as caught:
        execute(jobs_in(tmp_path, small(1), 1), 1, pytest.fail, address="auto")
    assert str(caught.value) == "--ray needs Ray, which is not installed; get it with: pip install netdepth[ray]"
    assert [name for name in os.listdir(tmp_path) if name.startswith(".")] == []


def test_no_workers_and_a_cluster_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"--workers 0 .* --ray .*; give one of them"):
        execute(jobs_in(tmp_path, small(1), 1), 0, pytest.fail, address="auto")


def test_a_marker_that_comes_late_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "mark"
    later = threading.Timer(0.3, path.write_text, ["token"])
    later.start()
    assert set(examine_node(str(path), "token")) == {"netdepth", "torch"}
    later.join()


def test_an_error_of_ray_comes_to_its_last_line() -> None:
    assert last_line(ValueError("\x1b[36mray::f()\x1b[39m\n  File x\n\nValueError: no\n\n")) == "ValueError: no"
    assert last_line(ValueError()) == "ValueError"


# --- a Ray of its own ---------------------------------------------------------------------------------


def listening(port: int) -> set[str]:
    """The addresses on which something of this machine listens at ``port``, as ``/proc`` writes them."""
    found = set()
    for name in ("tcp", "tcp6"):
        for line in Path("/proc/net", name).read_text().splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            address, _, number = local.partition(":")
            if int(number, 16) == port and state == "0A":
                found.add(address)
    return found


def own_ray(root: Path) -> None:
    """Make a run on a Ray of its own and print what is seen of it meanwhile, in a process that had none."""
    import ray

    seen: dict[str, Any] = {}

    def on_event(event: Event) -> None:
        if not seen:
            (node,) = ray.nodes()
            ports = [node["NodeManagerPort"], node["ObjectManagerPort"], node["RuntimeEnvAgentPort"]]
            ports.append(int(ray.get_runtime_context().gcs_address.rpartition(":")[2]))
            seen["address"], seen["cpus"] = node["NodeManagerAddress"], node["Resources"]["CPU"]
            seen["listening"] = [sorted(listening(port)) for port in ports]

    def handler(*_: Any) -> None:
        raise AssertionError

    signal.signal(signal.SIGTERM, handler)
    execute(jobs_in(root, small(1), 1), 1, on_event, address="auto")
    seen["handler"] = signal.getsignal(signal.SIGTERM) is handler
    seen["over"] = not ray.is_initialized()
    print(json.dumps(seen))


@pytest.mark.ray
@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads /proc, which this system lacks")
def test_a_ray_of_its_own_listens_on_loopback_and_is_ended(tmp_path: Path) -> None:
    del os.environ["RAY_AUTH_MODE"]  # as it is for a user
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    code = "import sys, pathlib, test_cluster; test_cluster.own_ray(pathlib.Path(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)  # and nothing else stands there
    ports = seen.pop("listening")
    assert seen == {"address": "127.0.0.1", "cpus": 1.0, "handler": True, "over": True}
    loopback = {"0100007F", "0000000000000000FFFF00000100007F"}
    assert all(addresses and set(addresses) <= loopback for addresses in ports), ports


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.mark.ray
@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_where_nothing_answers_is_one_line_at_once(scheme: str) -> None:
    address = f"{scheme}127.0.0.1:{free_port()}"
    began = time.monotonic()
    with pytest.raises(BadInput, match=f"no Ray cluster answers at {address} .*refused.*start one with: ray start"):
        check_address(address)
    assert time.monotonic() - began < 5


@pytest.mark.ray
def test_a_ray_that_ended_without_a_word_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = f"127.0.0.1:{free_port()}"
    monkeypatch.setattr("ray._private.services.find_bootstrap_address", lambda folder: gone)
    assert check_address("auto") == "local"
    with socket.create_server(("127.0.0.1", 0)) as server:
        there = f"127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr("ray._private.services.find_bootstrap_address", lambda folder: there)
        assert check_address("auto") == there
    monkeypatch.setenv("RAY_ADDRESS", gone)
    with pytest.raises(BadInput, match=f"no Ray cluster answers at {gone}"):
        check_address("auto")


@pytest.mark.ray
@pytest.mark.parametrize(
    "address", ["", "here", "127.0.0.1", "host:", "host:six", "host:123456", "http://host:6379", "a b:1"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(BadInput, match="is no address; it takes auto, HOST:PORT or ray://HOST:PORT"):
        check_address(address)
