"""Runs over a real local Ray of a head and two nodes; one that is killed half-way loses nothing (`lose_a_node`)."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from support.ray_jobs import digests, jobs_in, made_here, outcomes_of, small

from netdepth.config import Component, RunConfig, TrainConfig
from netdepth.errors import BadInput, Interrupted
from netdepth.files.usercode import import_user
from netdepth.studies import ray as ray_module
from netdepth.studies.ray import execute
from netdepth.studies.worker import Event, Progress, Retry

pytestmark = pytest.mark.ray

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


@pytest.fixture(autouse=True)
def _environment() -> Iterator[None]:
    """Ray changes variables of this process."""
    with mock.patch.dict(os.environ):
        os.environ.pop("RAY_ADDRESS", None)
        yield


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


def test_a_cluster_without_what_a_run_needs_is_refused(tmp_path: Path, cluster: Any) -> None:
    (job,) = jobs_in(tmp_path / "ray", small(1), 1)
    job = dataclasses.replace(job, runtime=dataclasses.replace(job.runtime, device="cuda"))
    with pytest.raises(
        BadInput, match=f"the Ray cluster at {cluster.address} has no node with a CPU and a GPU to give"
    ):
        execute([job], None, pytest.fail, address=cluster.address)


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


def test_a_study_that_is_interrupted_has_saved_and_continues_to_the_same_bits(tmp_path: Path, cluster: Any) -> None:
    config = small(1200)  # long enough that the signal comes in time
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


def lose_a_node(
    tmp_path: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A node that is killed half-way loses nothing: the drill is in ``tests/faults``."""
    import ray

    from netdepth.models import MODELS
    from netdepth.training import loop as conduct

    monkeypatch.setattr(MODELS, "_entries", dict(MODELS._entries))
    monkeypatch.setattr(conduct, "WRITE_EVERY_SECONDS", conduct.WRITE_EVERY_SECONDS)
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

    execute(jobs_in(tmp_path / "ray", config, 4, [str(imported)]), None, on_event, address=cluster.address)
    assert capsys.readouterr().out == ""
    told = [event for _, event in events]
    outcomes = outcomes_of(told)
    assert killed
    assert {event.group for event in told if isinstance(event, Retry)} & {0, 1}
    assert sorted(outcome.seed for outcome in outcomes) == [0, 1, 2, 3]
    assert {outcome.status for outcome in outcomes} == {"completed"}, outcomes
    assert any("continued from step" in note for outcome in outcomes for note in outcome.notes)
    assert [name for name in os.listdir(tmp_path / "ray") if name.startswith(".")] == []
    assert digests(outcomes) == made_here(tmp_path / "here", config, 4, [str(imported)])
    for group in range(4):
        times = [at for at, event in events if isinstance(event, Progress) and event.group == group]
        assert len(times) <= 3 + 2 * (times[-1] - times[0])
