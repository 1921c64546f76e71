"""One run over two processes equals the same run in one; shares of batches; what is refused."""

from __future__ import annotations

import dataclasses
import math

import pytest
import safetensors.torch
import torch
from support import parallel_ranks
from support.parallel_ranks import RUNS
from support.real_runs import make, timeless

from netdepth import data
from netdepth.cli import main
from netdepth.config import Component, RunConfig, Runtime, TrainConfig
from netdepth.data.augment import AUGMENTATIONS, Batches
from netdepth.errors import BadInput
from netdepth.runs.folder import list_runs
from netdepth.training import parallel
from netdepth.training.gradients import autograd_gradients
from netdepth.training.objectives import OBJECTIVES
from netdepth.training.parallel import Follower, Leader, joined
from netdepth.training.process import configure
from netdepth.training.resolve import build_model, fill_in
from netdepth.training.stack import Stack

TOLERANCE = {"float64": 1e-12, "float32": 1e-5}
"""Relative, on every number of every step. Sums over a batch are made in another order, and nothing else differs."""


@pytest.fixture(scope="module")
def splits():
    return data.load(Component("mnist5k"), data_dir=None)


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """The runs folder that two processes filled, and how each of them ended."""
    folder = tmp_path_factory.mktemp("together")
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    processes = parallel_ranks.start(folder, store.port)
    try:
        ended = [(process.communicate(timeout=600)[1], process.returncode) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return folder, ended


def close(value, other, tolerance):
    """Whether two records are the same, numbers but for ``tolerance``."""
    if isinstance(value, dict):
        return value.keys() == other.keys() and all(close(value[k], other[k], tolerance) for k in value)
    if isinstance(value, float):
        return math.isclose(value, other, rel_tol=tolerance, abs_tol=tolerance)
    return value == other


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_give_the_run_of_one(together, tmp_path, name):
    folder, ended = together
    (two,) = list_runs(folder / name) or [pytest.fail(str(ended))]
    one = make(tmp_path, RUNS[name], probes=False).run
    tolerance = TOLERANCE[RUNS[name].train.precision]
    records, others = one.read_metrics(), two.read_metrics()
    assert len(records) == len(others)
    for record, other in zip(records, others, strict=True):
        assert close(timeless(record), timeless(other), tolerance), (record, other)
    result, other = timeless(one.result()), timeless(two.result())
    assert result.pop("weights_sha256") != other.pop("weights_sha256") or name == "diverged"
    assert close(result, other, tolerance)
    assert result["status"] == {"stopped early": "stopped_early", "diverged": "diverged"}.get(name, "completed")
    assert two.path.name == one.path.name, "the world is no part of the fingerprint"
    made_in = [run.read_json("environment.json") for run in (one, two)]
    assert [(made["world_size"], made["backend"]) for made in made_in] == [(1, None), (2, "gloo")]
    assert two.read_json("test_access.json")["opened"] == one.read_json("test_access.json")["opened"]


def test_why_a_follower_cannot_go_on_is_said_by_rank_0(together):
    _, ended = together
    assert [code for _, code in ended] == [2, 2]
    assert "2: rank 1: no such file here" in ended[0][0]
    assert not ended[1][0]


def test_with_batch_norm_every_rank_has_its_own_statistics_and_those_of_rank_0_are_kept(together, splits):
    """One step against autograd on each half of the batch: the gradient is the weighted mean of theirs."""
    config = fill_in(parallel_ranks.BATCH_NORM)
    images, labels = Batches(splits.train, 127, [0])(0)
    halves = [build_model(config, splits).train() for _ in range(2)]
    losses = []
    for half, place in zip(halves, (slice(0, 64), slice(64, 127)), strict=True):
        loss = torch.nn.functional.cross_entropy(half(images[place]), labels[place]) * len(labels[place]) / 127
        loss.backward()
        losses.append(float(loss.detach()))
    (run,) = list_runs(together[0] / "batch norm")
    saved = safetensors.torch.load(run.load_checkpoint(1)["model.safetensors"])
    for (name, first), second in zip(halves[0].named_parameters(), halves[1].parameters(), strict=True):
        torch.testing.assert_close(saved[name], first.detach() - 0.1 * (first.grad + second.grad))
    for name, buffer in halves[0].named_buffers():
        torch.testing.assert_close(saved[name], buffer, rtol=1e-12, atol=1e-12)
    assert math.isclose(run.read_metrics()[0]["train_loss"], sum(losses), rel_tol=1e-12)


@pytest.mark.parametrize("augmented", [False, True])
@pytest.mark.parametrize(("world", "batch_size"), [(3, 128), (5, 2996), (2, 2999)])
def test_shares_of_a_batch_are_the_batch(splits, world, batch_size, augmented):
    augment = AUGMENTATIONS.build(Component("crop-flip"), splits.spec.input_shape) if augmented else None
    whole = Batches(splits.train, batch_size, [3], augment)
    shares = [Batches(splits.train, batch_size, [3], augment, (rank, world)) for rank in range(world)]
    for step in (0, whole.steps_per_epoch - 1, whole.steps_per_epoch):
        inputs, labels = whole(step)
        parts = [share(step) for share in shares]
        assert torch.equal(torch.cat([images for images, _ in parts]), inputs)
        assert torch.equal(torch.cat([labels for _, labels in parts]), labels)
        sizes = [len(labels) for _, labels in parts]
        assert max(sizes) - min(sizes) <= 1
        assert sizes == sorted(sizes, reverse=True)
        assert {share.size(step) for share in shares} == {len(labels)}


def test_alone_nothing_is_wrapped_joined_or_said(monkeypatch):
    def gradients(inputs, labels):
        raise AssertionError

    assert parallel.ALONE.share(gradients, None, None, 0) is gradients
    parallel.ALONE.begin(None, torch.device("cpu"))
    with joined() as team:
        assert team is parallel.ALONE
    assert not torch.distributed.is_initialized()
    monkeypatch.setenv("WORLD_SIZE", "4")  # as some clusters set it, without the rest of torchrun's variables
    assert (parallel.world_size(), parallel.rank()) == (1, 0)


@pytest.fixture
def torchrun(monkeypatch):
    for name, value in parallel_ranks.environment(0, 9).items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    "command",
    ["study depth-mlp5k", "quickstart", "train baseline-mlp --seeds 2", "data list", "doctor"],
)
def test_what_torchrun_cannot_share_is_refused_in_one_line(torchrun, capsys, command):
    assert main(command.split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "not possible under torchrun (WORLD_SIZE = 2)" in line


@pytest.mark.parametrize(
    ("batch_size", "ranks", "refused"),
    [(128, 1, False), (2999, 1, True), (1, 1, True), (2, 1, False), (4000, 1, False),
     (128, 2, False), (2998, 2, True), (2997, 2, True), (2996, 2, False), (3, 2, True)],
)  # fmt: skip
def test_batch_norm_never_sees_a_single_image(splits, batch_size, ranks, refused):
    model = Component("mlp", {"hidden": [4], "norm": "batch"})

    def built(size):
        config = RunConfig(Component("mnist5k"), model, train=TrainConfig(batch_size=size))
        return build_model(fill_in(config), splits, ranks)

    if not refused:
        built(batch_size)
        return
    with pytest.raises(BadInput, match="leaves a batch of one") as error:
        built(batch_size)
    built(int(str(error.value).rpartition(" ")[2]))  # what the message proposes


@pytest.mark.parametrize(("pixels", "refused"), [(28, False), (1, True)])
def test_batch_norm_of_images_trains_on_a_single_one_that_has_several_pixels(splits, pixels, refused):
    few = dataclasses.replace(
        splits,
        train=data.Split(splits.train.inputs[:9, :, :pixels, :pixels], splits.train.labels[:9]),
        spec=dataclasses.replace(splits.spec, input_shape=(1, pixels, pixels)),
    )
    config = RunConfig(Component("mnist5k"), Component("resnet", {"depth": 8}), train=TrainConfig(batch_size=4))
    if refused:
        with pytest.raises(BadInput, match=r"leaves a batch of one.*such as 5"):
            build_model(fill_in(config), few)
    else:
        model = build_model(fill_in(config), few)
        assert int(model.norm.num_batches_tracked) == 0  # asking leaves the network as it was
        assert bool((model.norm.running_mean == 0).all())


def test_ranks_divide_the_cores_of_their_machine(monkeypatch):
    monkeypatch.setattr("netdepth.training.process.available_cores", lambda: 4)
    much, team = 2**40, Follower(1, 2)
    try:
        assert configure(Runtime(device="cpu"), much).threads == 4
        assert configure(Runtime(device="cpu"), much, team=team).threads == 2
        assert configure(Runtime(device="cpu", threads=3), much, team=team).threads == 3
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("asked", "cuda", "device"),
    [("auto", False, "auto"), ("cpu", True, "cpu"), ("auto", True, "cuda:1"), ("cuda", True, "cuda:1")],
)
def test_every_rank_has_the_card_of_its_number(monkeypatch, asked, cuda, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    assert Follower(1, 2).device(asked) == device
    with pytest.raises(BadInput, match="every rank takes the card of its number"):
        Follower(1, 2).device("cuda:0")
    assert parallel.ALONE.device("cuda:0") == "cuda:0"
    assert Follower(1, 2).backend(torch.device("cuda:1")) == "nccl"


def test_a_run_begun_in_two_processes_is_not_continued_in_one(together, tmp_path):
    """Nor the other way round; what is finished is returned as it is."""
    folder, _ = together
    recorded = list_runs(folder / "handwritten")[0].environment()
    with pytest.raises(BadInput, match=r"started in 2 processes, not 1.*with torchrun --nproc-per-node 2, or"):
        configure(Runtime(), recorded=recorded)
    with pytest.raises(BadInput, match=r"started in one process, not 2.*without torchrun"):
        configure(Runtime(), recorded=dataclasses.replace(recorded, world_size=1), team=Leader(0, 2))
    assert make(folder / "handwritten", RUNS["handwritten"]).cached


GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize("name", ["cpu", pytest.param("cuda", marks=GPU)])
def test_gloo_and_nccl_carry_a_step(name):
    """A world of one: what can be seen of NCCL with a single card."""
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    team = Leader(0, 1, store)
    try:
        device = torch.device(team.device(name))
        team.connect(device)
        model = build_model(fill_in(RUNS["handwritten"]), data.load(Component("mnist5k"), data_dir=None)).to(device)
        stack = Stack([model])
        inputs = torch.randint(0, 256, (8, 1, 28, 28), dtype=torch.uint8, device=device)
        labels = torch.arange(8, device=device)
        gradients = autograd_gradients(stack, OBJECTIVES.build(Component("cross-entropy")))
        expected, right = gradients(inputs, labels)
        wanted = stack.gradient.clone()
        loss, hits = team.exchange(gradients, stack, inputs, labels, 8)
        assert torch.equal(stack.gradient, wanted)
        assert (loss, hits) == (expected, right)
        assert team.number(7) == 7
        team.release()
    finally:
        team.close()
