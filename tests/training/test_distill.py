"""Distillation against a formula written out, its cached targets, and what it refuses."""

import dataclasses

import pytest
import torch
from support.real_runs import make, same, weights
from support.real_stacks import stackable
from test_finetune import SECOND, SOURCE
from torch.nn import functional as F

from netdepth import data
from netdepth.config import Component, Runtime
from netdepth.data.augment import Batches
from netdepth.data.fetch import user_cache
from netdepth.errors import BadInput
from netdepth.training.finished import network_of, weights_of
from netdepth.training.objectives import OBJECTIVES, Distillation, cached_logits, set_teacher
from netdepth.training.resolve import fill_in, fingerprint

STUDENT = dataclasses.replace(SOURCE, model=Component("mlp", {"hidden": [6]}), seed=5)


def learning(path, **args):
    return dataclasses.replace(STUDENT, objective=Component("distill", {"teacher": str(path), **args}))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return make(tmp_path_factory.mktemp("teacher"), SOURCE)


@pytest.fixture(scope="module")
def splits():
    return data.load(SOURCE.dataset, data_dir=None)


@pytest.mark.parametrize(("temperature", "alpha"), [(1.0, 0.5), (4.0, 0.9), (20.0, 1.0), (0.5, 0.3)])
def test_the_loss_and_its_gradient_are_hintons(temperature, alpha):
    generator = torch.Generator().manual_seed(0)
    logits, soft = (torch.randn(7, 5, generator=generator, dtype=torch.float64) * 3 for _ in range(2))
    labels = torch.arange(7) % 5
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss = Distillation(temperature, alpha, False)(ours, labels, soft)
    p, q = torch.softmax(soft / temperature, 1), torch.softmax(theirs / temperature, 1)
    entropy = -(p * p.log()).sum(1).mean()
    cross = -(p * q.log()).sum(1).mean()  # the paper's soft part, whose gradient it is
    hard = -torch.log_softmax(theirs, 1)[torch.arange(7), labels].mean()
    expected = alpha * temperature**2 * (cross - entropy) + (1 - alpha) * hard
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    loss.backward()
    expected.backward()
    assert torch.allclose(ours.grad, theirs.grad, rtol=1e-10, atol=1e-14)


def test_alpha_0_is_cross_entropy_to_the_bit(teacher, tmp_path):
    logits = torch.randn(9, 5, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(9) % 5
    loss = Distillation(4.0, 0.0, False)(logits, labels, torch.zeros(9, 5))
    assert torch.equal(loss, F.cross_entropy(logits, labels))
    normed = Component("mlp", {"hidden": [6], "norm": "batch"})  # no handwritten pass, so that both take the same one
    plain = make(tmp_path / "plain", dataclasses.replace(STUDENT, model=normed))
    soft = make(tmp_path / "soft", dataclasses.replace(learning(teacher.run.path, alpha=0.0), model=normed))
    assert weights(plain.run, 48) == weights(soft.run, 48)


def test_the_student_learns_from_the_teacher_and_again_to_the_same_bits(teacher, tmp_path):
    first, again = (make(tmp_path / name, learning(teacher.run.path)) for name in ("first", "again"))
    same(first.run, again.run)
    hard = make(tmp_path / "hard", STUDENT)
    assert first.result["weights_sha256"] != hard.result["weights_sha256"]
    assert first.result["val"]["last"]["accuracy"] > 0.3  # chance is 0.2


def test_targets_are_computed_once_and_a_damaged_cache_is_made_again(teacher, splits):
    source = weights_of(teacher.run)
    logits = cached_logits(source, splits, torch.device("cpu"))
    with torch.inference_mode():
        assert torch.equal(logits, network_of(source)(splits.train.inputs))
    (path,) = (user_cache() / "teachers").iterdir()
    written, stamp = path.read_bytes(), path.stat().st_mtime_ns
    assert torch.equal(cached_logits(source, splits, torch.device("cpu")), logits)
    assert path.stat().st_mtime_ns == stamp
    for damaged in (written[:-1] + bytes([written[-1] ^ 1]), written[:100], b""):
        path.write_bytes(damaged)
        assert torch.equal(cached_logits(source, splits, torch.device("cpu")), logits)
        assert path.read_bytes() == written


@pytest.mark.parametrize("sees", ["original", "augmented"])
def test_what_the_teacher_sees_of_an_augmented_batch(teacher, splits, tmp_path, sees):
    config = fill_in(learning(teacher.run.path, teacher_sees=sees))
    objective = OBJECTIVES.build(config.objective)
    set_teacher(objective, config, splits, Runtime(device="cpu"))
    batches = Batches(splits.train, 16, [0], lambda images, seed: 255 - images, indexed=True)
    inputs, labels, indices = batches(3)
    originals = splits.train.inputs[indices]
    assert torch.equal(inputs, 255 - originals)
    assert torch.equal(labels, splits.train.labels[indices])
    seen = originals if sees == "original" else inputs
    with torch.inference_mode():
        expected = network_of(weights_of(teacher.run))(seen)
    assert torch.allclose(objective.soft_targets(inputs, indices), expected, atol=1e-5)
    augmented = dataclasses.replace(config, augmentation=Component("crop-flip", {"pad": 2}))
    assert make(tmp_path, augmented).result["status"] == "completed"


def test_the_digest_is_hashed_and_the_name_is_not(teacher, splits, monkeypatch):
    monkeypatch.setenv("NETDEPTH_RUNS", str(teacher.run.path.parent.parent))
    configs = [fill_in(learning(text)) for text in (teacher.run.path, teacher.run.path.name)]
    assert len({fingerprint(config, splits.spec) for config in configs}) == 1
    assert not stackable(configs[0])
    assert configs[0].objective.args["sha256"] == teacher.result["weights_sha256"]
    other = dataclasses.replace(configs[0].objective, args={**configs[0].objective.args, "sha256": "0" * 64})
    altered = dataclasses.replace(configs[0], objective=other)
    assert fingerprint(altered, splits.spec) != fingerprint(configs[0], splits.spec)
    with pytest.raises(BadInput, match="altered or made again"):
        fill_in(altered)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": Component("mnist5k", {"classes": SECOND})}, "has other ones: 5 classes"),
        ({"dataset": Component("mnist5k")}, "knows 5 classes of mnist5k"),
        ({"objective": Component("distill")}, "objective 'distill' needs teacher"),
        ({"objective": Component("distill", {"teacher": "x"})}, "objective.teacher: no run 'x'"),
        ({"objective": Component("distill", {"teacher": "x", "alpha": 1.5})}, "objective.alpha = 1.5"),
        ({"objective": Component("distill", {"teacher": "x", "temperature": 0.0})}, "objective.temperature = 0.0"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(teacher, tmp_path, changes, message):
    config = dataclasses.replace(learning(teacher.run.path), **changes)
    with pytest.raises(BadInput, match=message):
        make(tmp_path, config)


def test_a_teacher_of_another_split_is_refused(teacher, tmp_path, splits, monkeypatch):
    moved = dataclasses.replace(splits, spec=dataclasses.replace(splits.spec, split_digest="f" * 64))
    monkeypatch.setattr(data, "load", lambda *_, **__: moved)
    with pytest.raises(BadInput, match="was trained on another split of mnist5k"):
        make(tmp_path, learning(teacher.run.path))
