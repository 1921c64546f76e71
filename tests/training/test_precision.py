"""bf16: what is computed in it and what is not, the rule behind "auto", and a step that never waits for its device."""

import copy

import pytest
import torch
from support.real_stacks import digits, stackable
from torch import nn

from netdepth.config import Component, RunConfig, TrainConfig
from netdepth.data import Split
from netdepth.data.augment import AUGMENTATIONS, Batches
from netdepth.errors import BadInput
from netdepth.models import build
from netdepth.training import resolve
from netdepth.training.evaluate import logits_of
from netdepth.training.fit import fit
from netdepth.training.gradients import autograd_gradients, choose_gradients
from netdepth.training.objectives import OBJECTIVES
from netdepth.training.optim import OPTIMIZERS, SCHEDULES
from netdepth.training.resolve import fill_in, fingerprint, multiplies_bf16
from netdepth.training.stack import Stack

CE = OBJECTIVES.build(Component("cross-entropy"))
CNN = Component("resnet", {"depth": 8, "width": 4})
MLP = Component("mlp", {"hidden": [8, 8]})


def config(model=CNN, asked="auto", **train):
    return RunConfig(Component("mnist5k"), model, train=TrainConfig(precision=asked, **train))


def batch(step, size=16):
    generator = torch.Generator().manual_seed(step)
    images = torch.randint(0, 256, (size, 3, 8, 8), dtype=torch.uint8, generator=generator)
    return images, torch.randint(0, 5, (size,), generator=generator)


def network(seed=1):
    return build(CNN, (3, 8, 8), 5, seed=seed)


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"amx_bf16": True, "avx512_bf16": False}, "bf16"),
        ({"bf16": True, "neon": True}, "bf16"),
        ({"avx512_f": True, "avx512_bf16": False}, "float32"),
        ({}, "float32"),
    ],
    ids=str,
)
def test_auto_is_bf16_for_convolutions_where_a_cpu_multiplies_it(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert fill_in(config(), "cpu").train.precision == expected
    assert fill_in(config(MLP), "cpu").train.precision == "float32"
    for asked in ("float32", "float64", "bf16"):
        assert fill_in(config(asked=asked), "cpu").train.precision == asked


@pytest.mark.parametrize(("generation", "expected"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_a_gpu_multiplies_it_from_ampere_on(monkeypatch, generation, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: generation)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": not expected})
    assert multiplies_bf16(torch.device("cuda", 1)) is expected


def test_what_a_resolved_config_and_its_fingerprint_hold_is_the_precision_itself(monkeypatch):
    spec = digits().spec
    marks = {asked: fingerprint(fill_in(config(asked=asked)), spec) for asked in ("float32", "float64", "bf16")}
    assert len(set(marks.values())) == 3
    for found, expected in ((True, "bf16"), (False, "float32")):
        monkeypatch.setattr(resolve, "multiplies_bf16", lambda device, found=found: found)
        resolved = fill_in(config(), "cpu")
        assert resolved.train.precision == expected
        assert fill_in(resolved) == resolved
        assert fingerprint(resolved, spec) == marks[expected]


def test_a_device_that_is_not_here_is_refused_where_it_decides():
    assert fill_in(config(asked="bf16"), "cuda:7").train.precision == "bf16"
    with pytest.raises(BadInput, match="--device"):
        fill_in(config(), "cuda:7")


def test_products_are_bf16_and_weights_gradients_statistics_optimizer_and_loss_float32():
    model = network()
    stack, plain = Stack([copy.deepcopy(model)], channels_last=True, bf16=True), Stack([model], channels_last=True)
    sgds = [OPTIMIZERS.build(Component("sgd", {"lr": 0.05}), each.flat) for each in (stack, plain)]
    seen = set()
    for module in stack.models[0].modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(lambda _module, _given, output: seen.add(output.dtype))
    compute, reference = autograd_gradients(stack, CE), autograd_gradients(plain, CE)
    before = [buffer.clone() for buffer in stack.models[0].buffers()]
    for step in range(3):
        (loss, right), (expected, _) = compute(*batch(step)), reference(*batch(step))
        assert loss.dtype == torch.float32
        assert right.dtype == torch.int64
        assert loss != expected
        assert torch.allclose(loss, expected, rtol=0.02)
        for sgd in sgds:
            sgd.step(sgd.lr)
    assert seen == {torch.bfloat16}
    kept = [stack.flat, stack.gradient, *sgds[0].state.values(), *stack.models[0].parameters()]
    assert {tensor.dtype for tensor in kept} == {torch.float32}
    buffers = dict(stack.models[0].named_buffers())
    assert {b.dtype for name, b in buffers.items() if not name.endswith("num_batches_tracked")} == {torch.float32}
    assert not all(torch.equal(a, b) for a, b in zip(before, buffers.values(), strict=True))
    error = (stack.flat - plain.flat).norm() / (plain.flat - Stack([network()], channels_last=True).flat).norm()
    assert error < 0.3, "it goes where float32 goes"


def test_evaluation_is_in_float32():
    stack, plain = (Stack([network()], channels_last=True, bf16=bf16) for bf16 in (True, False))
    split = Split(*batch(0, 40))
    (logits,), (expected,) = logits_of(stack, [0], split), logits_of(plain, [0], split)
    assert logits.dtype == torch.float32
    assert torch.equal(logits, expected)
    stack.models[0].eval()  # as it is in evaluation, so that bf16 is the only difference left
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert not torch.equal(stack.models[0](split.inputs).float(), expected)


def test_an_mlp_in_bf16_goes_through_autograd_and_is_not_stacked():
    def stack(bf16, seeds=(1,)):
        return Stack([build(MLP, (3, 8, 8), 5, seed=seed) for seed in seeds], bf16=bf16)

    assert choose_gradients(stack(True), CE).__qualname__.startswith("autograd")
    assert choose_gradients(stack(False), CE).__qualname__.startswith("mlp")
    loss, expected = (choose_gradients(stack(bf16), CE)(*batch(0))[0] for bf16 in (True, False))
    assert loss != expected
    assert torch.allclose(loss, expected, rtol=0.02)
    assert stackable(config(MLP, "float32"))
    assert not stackable(config(MLP, "bf16"))
    assert not stackable(config(CNN, "float32"))
    with pytest.raises(BadInput, match="in bf16 has no stacked pass"):
        choose_gradients(stack(True, (1, 2)), CE)


def test_nothing_is_read_from_a_device_that_is_not_the_cpu_until_the_evaluation():
    """On the "meta" device reading a value is an error, as on a GPU it would be a wait."""
    device = torch.device("meta")
    stack = Stack([network().to(device)], channels_last=True)
    images, labels = batch(0, 40)
    train = Split(images.to(device), labels.to(device))
    augment = AUGMENTATIONS.build(Component("crop-flip", {"pad": 1}), (3, 8, 8))
    steps = []

    class Counting:
        lr, state = 0.1, {}

        def step(self, lr):
            steps.append(lr)

    asked = TrainConfig(budget="4ep", eval_every="4ep", batch_size=16, grad_clip_norm=1.0)
    schedule = SCHEDULES.build(Component("cosine"), 12, 3)
    batches = Batches(train, 16, [0], augment)
    training = fit(stack, autograd_gradients(stack, CE), Counting(), schedule, batches, train, asked)
    with pytest.raises(Exception, match="meta"):
        list(training)
    assert len(steps) == 12, "all steps were made before the first value was asked for"
