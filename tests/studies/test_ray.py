"""Runs over Ray: finding, starting and leaving one, and a real local Ray of a head and two nodes.

One node that is killed half-way loses nothing: a drill of row 11 (``tests/faults``).
"""

from __future__ import annotations

import dataclasses
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
from faults.record import Faults
from support.ray_jobs import digests, jobs_in, made_here, outcomes_of, small

from netdepth.config import Component, RunConfig, TrainConfig
from netdepth.errors import BadInput, Interrupted
from netdepth.files.usercode import import_user
from netdepth.studies import ray as ray_module
from netdepth.studies.ray import check_address, examine_node, execute, last_line
from netdepth.studies.worker import Event, Progress, Retry


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
    code = "import sys, pathlib, test_ray; test_ray.own_ray(pathlib.Path(sys.argv[1]))"
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
    assert time.monotonic() - began < 60, "Ray itself would try for minutes"


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


# --- a cluster of three nodes ---------------------------------------------------------------------

# A user's file registers what the workers must find. This one also lets checkpoints be written at once, so that a
# lost run has something to continue from, and says which process of which node ran it.
IMPORTED = """
import os
from pathlib import Path
from typing import Annotated

import netdepth.training.loop
import ray
from netdepth.models import MODELS
from netdepth.models.mlp import mlp

netdepth.training.loop.WRITE_EVERY_SECONDS = 0.2
if ray.is_initialized():
    node = Path(__file__).parent / ray.get_runtime_context().get_node_id()
    node.mkdir(exist_ok=True)
    (node / str(os.getpid())).touch()

@MODELS.register("mine")
def mine(input_shape, num_classes, generator, *, width: Annotated[int, "units"] = 8):
    "A small MLP under a name that only this file knows."
    return mlp(input_shape, num_classes, generator, hidden=[width])
"""

HEALTH = {"initial_delay_ms": 0, "period_ms": 500, "timeout_ms": 2000, "failure_threshold": 3}
"""A node is given up after two seconds of silence, not after half a minute."""


@pytest.fixture(scope="module")
def cluster(_shared_home: Path) -> Iterator[Any]:
    """A real Ray of this machine: a head without a CPU to give and two nodes with one each."""
    from ray.cluster_utils import Cluster

    health = {f"health_check_{name}": value for name, value in HEALTH.items()}
    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 100 << 20, "_system_config": health}
    with mock.patch.dict(os.environ):
        os.environ |= {"HOME": str(_shared_home), "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        made = Cluster(initialize_head=True, head_node_args=head)
        try:
            for _ in range(2):
                made.add_node(num_cpus=1, object_store_memory=100 << 20)
            yield made
        finally:
            made.shutdown()


@pytest.mark.ray
def test_a_runs_folder_that_the_nodes_do_not_see_is_refused_by_its_name(
    tmp_path: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node of another machine sees another file, or none, under the name of the marker."""
    write = ray_module.write_atomic
    monkeypatch.setattr(ray_module, "write_atomic", lambda path, text: write(path, b"another folder's"))
    with pytest.raises(BadInput, match="does not see the runs folder") as caught:
        execute(jobs_in(tmp_path / "ray", small(1), 1), None, pytest.fail, address=cluster.address)
    assert f"{tmp_path / 'ray'}; give --runs a folder" in str(caught.value)
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    monkeypatch.setattr(ray_module, "_versions", lambda: {"netdepth": "9.9", "torch": "1.0"})
    with pytest.raises(BadInput, match=r"Ray node \S+ has netdepth .*torch .*; this study is made with netdepth 9.9"):
        execute(jobs_in(tmp_path / "ray", small(1), 1), None, pytest.fail, address=cluster.address)


@pytest.mark.ray
def test_a_cluster_without_what_a_run_needs_is_refused(tmp_path: Path, cluster: Any) -> None:
    (job,) = jobs_in(tmp_path / "ray", small(1), 1)
    job = dataclasses.replace(job, runtime=dataclasses.replace(job.runtime, device="cuda"))
    with pytest.raises(
        BadInput, match=f"the Ray cluster at {cluster.address} has no node with a CPU and a GPU to give"
    ):
        execute([job], None, pytest.fail, address=cluster.address)


@pytest.mark.ray
def test_a_group_that_is_lost_every_time_is_given_up_and_the_others_go_on(
    tmp_path: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadly = tmp_path / "deadly.py"
    deadly.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    monkeypatch.chdir(tmp_path)  # a relative path: the workers are elsewhere
    good, bad = jobs_in(tmp_path / "ray", small(2), 2)
    bad = dataclasses.replace(bad, runtime=dataclasses.replace(bad.runtime, imports=("deadly.py",)))
    events: list[Event] = []
    execute([bad, good], 1, events.append, address=cluster.address)
    by_seed = {outcome.seed: outcome for outcome in outcomes_of(events)}
    assert by_seed[0].status == "completed"
    assert (by_seed[1].status, by_seed[1].exit_code) == ("failed", 1)
    failed = str(by_seed[1].error)
    assert "a Ray task was lost: " in failed
    assert failed.endswith("(4 times)")
    assert "\n" not in failed
    assert [event.group for event in events if isinstance(event, Retry)] == [1, 1, 1]


@pytest.mark.ray
def test_a_study_that_is_interrupted_has_saved_and_continues_to_the_same_bits(tmp_path: Path, cluster: Any) -> None:
    config = small(600)  # long enough that the signal comes in time
    jobs, address = jobs_in(tmp_path / "ray", config, 1), cluster.address

    def stop(event: Event) -> None:
        if isinstance(event, Progress) and event.step > 300:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="the same command continues") as caught:
        execute(jobs, None, stop, address=address)
    assert caught.value.exit_code == 130
    (folder,) = (tmp_path / "ray" / "tiny").iterdir()
    if (folder / "result.json").exists():
        pytest.skip("the run was over before the signal reached it: this machine is too busy to tell")
    (saved, *_) = os.listdir(folder / "checkpoints")
    assert int(saved) > 0
    events: list[Event] = []
    execute(jobs, None, events.append, address=address)
    outcomes = outcomes_of(events)
    assert any("continued from step" in note for note in outcomes[0].notes)
    assert digests(outcomes) == made_here(tmp_path / "here", config, 1)


@pytest.mark.ray
def test_killed_node(
    faults: Faults, tmp_path: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last test of the cluster, which has one node less afterwards."""
    with faults.drill(11, "Ray node killed") as drill, drill.injection("a node of two", at="training"):
        lose_a_node(tmp_path, cluster, monkeypatch, capsys)


def lose_a_node(
    tmp_path: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A node that is killed half-way loses nothing."""
    import ray

    from netdepth.training import loop

    monkeypatch.setattr(loop, "WRITE_EVERY_SECONDS", loop.WRITE_EVERY_SECONDS)
    imported = tmp_path / "mine.py"
    imported.write_text(IMPORTED)
    config = RunConfig(
        dataset=Component("mnist5k"),
        model=Component("mine", {"width": 16}),
        train=TrainConfig(budget="150ep", batch_size=64, eval_every="5ep"),
    )
    import_user(str(imported))
    events: list[tuple[float, Event]] = []
    under_way: dict[int, int] = {}
    killed: list[float] = []

    def on_event(event: Event) -> None:
        events.append((time.monotonic(), event))
        if isinstance(event, Progress):
            under_way[event.group] = event.step
        # Each of the two nodes has one group; both have written checkpoints by now.
        if not killed and sum(step > 2000 for step in under_way.values()) == 2:
            mine = ray.get_runtime_context().get_node_id()  # the node that this process speaks to
            (other, *_) = [node for node in cluster.worker_nodes if node.node_id != mine]
            for process in (tmp_path / other.node_id).iterdir():
                os.kill(int(process.name), signal.SIGKILL)
            cluster.remove_node(other, allow_graceful=False)
            killed.append(time.monotonic())

    begun = time.monotonic()
    execute(jobs_in(tmp_path / "ray", config, 3, [str(imported)]), None, on_event, address=cluster.address)
    assert capsys.readouterr().out == ""
    told = [event for _, event in events]
    outcomes = outcomes_of(told)
    assert killed
    assert {event.group for event in told if isinstance(event, Retry)} & {0, 1}
    assert sorted(outcome.seed for outcome in outcomes) == [0, 1, 2]
    assert {outcome.status for outcome in outcomes} == {"completed"}, outcomes
    assert any("continued from step" in note for outcome in outcomes for note in outcome.notes)
    assert [name for name in os.listdir(tmp_path / "ray") if name.startswith(".")] == []
    assert digests(outcomes) == made_here(tmp_path / "here", config, 3, [str(imported)])
    for group in range(3):
        times = [at for at, event in events if isinstance(event, Progress) and event.group == group]
        assert len(times) <= 3 + 2 * (times[-1] - begun), "two a second; those of a busy second arrive together"
