"""Training on a CUDA GPU: recorded steps, no waiting, continuing, diverging. Skipped where there is none."""

import contextlib
import dataclasses
import math
from unittest import mock

import pytest
import torch
from support.real_runs import weights
from support.real_stacks import stopping

from netdepth.config import Component, RunConfig, Runtime, TrainConfig
from netdepth.data import Split
from netdepth.data.augment import AUGMENTATIONS, Batches
from netdepth.errors import Interrupted
from netdepth.models import build
from netdepth.training import loop
from netdepth.training.fit import Tick, fit
from netdepth.training.gradients import choose_gradients
from netdepth.training.objectives import OBJECTIVES
from netdepth.training.optim import OPTIMIZERS, SCHEDULES
from netdepth.training.resolve import resolve
from netdepth.training.run import run, run_stack
from netdepth.training.stack import Stack

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")

CE = OBJECTIVES.build(Component("cross-entropy"))
RESNET = Component("resnet", {"depth": 8, "width": 4})
MODELS = [
    RESNET,
    Component("resnet", {"depth": 8, "width": 4, "shortcut": "none"}),
    Component("resnet", {"depth": 11, "width": 4, "block": "bottleneck", "shortcut": "projection"}),
    Component("cnn", {"channels": [4, 8], "hidden": 16, "dropout": 0.0}),
    Component("mlp", {"hidden": [16, 16]}),
]


@pytest.fixture(autouse=True)
def _exact(monkeypatch):
    """float32 is float32, as in a run."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def images(count):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8, generator=generator)
    return Split(pixels, torch.randint(0, 5, (count,), generator=generator))


def trained(model, *, recorded=True, bf16=False, device="cuda", double=True, epochs=8):
    """Every batch's loss and the weights after some epochs of three batches, the last of them smaller."""
    network = build(model, (3, 16, 16), 5, seed=1)
    stack = Stack([(network.double() if double else network).to(device)], channels_last=True, bf16=bf16)
    sgd = OPTIMIZERS.build(Component("sgd", {"lr": 0.02, "weight_decay": 1e-4}), stack.flat)
    with (
        contextlib.nullcontext() if recorded else mock.patch("netdepth.training.gradients.replayed", lambda step: step)
    ):
        gradients = choose_gradients(stack, CE)
    crops = AUGMENTATIONS.build(Component("crop-flip", {"pad": 2}), (3, 16, 16))
    batches = Batches(images(88).to(torch.device(device)), 32, [3], crops)
    stack.models[0].train()
    losses = []
    for step in range(epochs * batches.steps_per_epoch):
        loss, _ = gradients(*batches(step))
        losses.append(loss)
        sgd.step(0.02)
    buffers = [buffer.double().cpu() for buffer in stack.models[0].buffers()]
    return torch.cat(losses).double().cpu(), stack.flat.detach().double().cpu(), buffers


@pytest.mark.parametrize("model", MODELS, ids=lambda model: f"{model.name}-{model.args.get('shortcut', '')}")
def test_recorded_steps_are_those_made_kernel_by_kernel_and_those_of_the_cpu(model):
    losses, flat, buffers = trained(model)
    for reference in (trained(model, recorded=False), trained(model, device="cpu")):
        assert torch.allclose(losses, reference[0], rtol=1e-8)
        assert torch.allclose(flat, reference[1], rtol=1e-6, atol=1e-9)
        for buffer, expected in zip(buffers, reference[2], strict=True):
            assert torch.allclose(buffer, expected, rtol=1e-7)


def test_bf16_stays_near_float32():
    low, exact = trained(RESNET, bf16=True, double=False)[0], trained(RESNET, double=False)[0]
    assert not torch.equal(low, exact)
    assert torch.allclose(low, exact, rtol=0.05)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_between_two_evaluations_nothing_waits_for_the_gpu(precision):
    stack = Stack([build(RESNET, (3, 16, 16), 5, seed=1).cuda()], channels_last=True, bf16=precision == "bf16")
    sgd = OPTIMIZERS.build(Component("sgd", {"lr": 0.02}), stack.flat)
    split = images(88).to(torch.device("cuda"))
    batches = Batches(split, 32, [3], AUGMENTATIONS.build(Component("crop-flip", {"cutout": 4}), (3, 16, 16)))
    config = TrainConfig(budget="30it", eval_every="10it", batch_size=32, precision=precision)
    inner = choose_gradients(stack, CE)
    calls = 0

    def watched(inputs, labels):
        nonlocal calls
        calls += 1
        if calls > 12:  # recordings are made by now
            torch.cuda.set_sync_debug_mode("default" if calls % 10 in (0, 1) else "error")
        return inner(inputs, labels)

    try:
        events = [
            event
            for event in fit(stack, watched, sgd, SCHEDULES.build(Component("constant"), 30, 3), batches, split, config)
            if not isinstance(event, Tick)
        ]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert calls == 30
    assert len(events) == 3


CONFIG = RunConfig(
    dataset=Component("mnist5k"),
    model=RESNET,
    optimizer=Component("sgd", {"lr": 0.05}),
    augmentation=Component("crop-flip", {"pad": 2, "flip": False}),
    train=TrainConfig(budget="4ep", batch_size=128),
)


def make(tmp_path, config=CONFIG, **settings):
    return run(config, Runtime(runs_root=tmp_path, device="cuda"), name="test", quiet=True, **settings)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_run_learns_and_agrees_with_the_cpu(tmp_path, precision):
    config = dataclasses.replace(CONFIG, train=dataclasses.replace(CONFIG.train, precision=precision))
    made = make(tmp_path / "gpu", config)
    beside = run(CONFIG, Runtime(runs_root=tmp_path / "cpu", device="cpu", threads=4), name="test", quiet=True)
    first, second = made.run.read_metrics()[0], beside.run.read_metrics()[0]
    assert first["train_loss"] == pytest.approx(second["train_loss"], rel=0.02)
    assert made.result["val"]["last"]["accuracy"] == pytest.approx(beside.result["val"]["last"]["accuracy"], abs=0.04)
    recorded = made.run.read_json("environment.json")
    assert (recorded["device"], recorded["deterministic"]) == ("cuda", False)
    assert recorded["device_name"] == torch.cuda.get_device_name()


def test_a_stopped_run_continues(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "WRITE_EVERY_SECONDS", 0.0)
    whole = make(tmp_path / "whole")
    with pytest.raises(Interrupted):
        make(tmp_path / "stopped", watch=stopping(2))
    continued = make(tmp_path / "stopped")
    assert any("continued from step" in note for note in continued.notes)
    assert [r["step"] for r in continued.run.read_metrics()] == [r["step"] for r in whole.run.read_metrics()]
    assert continued.result["train"]["last"]["loss"] == pytest.approx(whole.result["train"]["last"]["loss"], rel=0.2)
    assert weights(continued.run, continued.result["steps"])


def test_divergence_is_a_result(tmp_path):
    config = dataclasses.replace(CONFIG, optimizer=Component("sgd", {"lr": 1e12}))
    made = make(tmp_path, config)
    assert made.result["status"] == "diverged"
    assert made.run.read_metrics()[-1]["nonfinite"]


def test_seeds_of_an_mlp_are_a_stack_here_too(tmp_path):
    config = RunConfig(Component("mnist5k"), Component("mlp", {"hidden": [16]}), train=TrainConfig(budget="2ep"))
    runtime = Runtime(runs_root=tmp_path, device="cuda")
    made = run_stack(resolve(config, runtime), range(3), runtime, name="test", study="together")
    for finished in made:
        assert math.isfinite(finished.result["train"]["last"]["loss"])
        assert finished.result["val"]["last"]["accuracy"] > 0.5
