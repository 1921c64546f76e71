"""Augmentation in a run: of training batches and of nothing else, by seed and step, also when a run continues."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from support.real_runs import CONFIG
from support.real_stacks import digits

from netdepth import data
from netdepth.config import Component, Runtime, TrainConfig, derive_seed
from netdepth.data.augment import AUGMENTATIONS, Batches
from netdepth.training.run import Finished, run

AUGMENTED = dataclasses.replace(
    CONFIG,
    model=Component("resnet", {"depth": 8, "width": 4}),
    augmentation=Component("crop-flip", {"cutout": 4}),
    train=TrainConfig(budget="4ep", eval_every="4it", batch_size=64),
)


def few() -> data.Splits:
    """As few images as do: 3 steps an epoch."""
    train, val = (data.Split(part.inputs[:160], part.labels[:160]) for part in (digits().train, digits().val))
    return dataclasses.replace(digits(), train=train, val=val, test=None)


def made(root: Path) -> Finished:
    runtime = Runtime(runs_root=root, threads=1, device="cpu", probes=False)
    return run(AUGMENTED, runtime, name="augmented", quiet=True, splits=few())


def test_each_replica_of_a_batch_has_the_stream_of_its_seed_and_step() -> None:
    train = digits().train
    augment = AUGMENTATIONS.build(Component("crop-flip"), (1, 28, 28))
    plain, altered = Batches(train, 16, (3, 5)), Batches(train, 16, (3, 5), augment)
    for step in (0, 7):
        (inputs, labels), (found, same_labels) = plain(step), altered(step)
        replicas = zip((3, 5), inputs.chunk(2), strict=True)
        assert torch.equal(found, torch.cat([augment(x, derive_seed(seed, "augment", step)) for seed, x in replicas]))
        assert torch.equal(labels, same_labels)
        assert not torch.equal(found, inputs)


def test_no_image_but_those_of_training_steps_is_altered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the evaluations along training nor the final ones, which see the training images as they are."""
    build, seen = AUGMENTATIONS.build, []

    def counting(*context: object) -> object:
        augment = build(*context)
        return lambda images, seed: (seen.append(len(images)), augment(images, seed))[1]

    monkeypatch.setattr(AUGMENTATIONS, "build", counting)
    result = made(tmp_path).result
    assert sum(seen) == 4 * len(few().train)
    assert len(seen) == result["steps"]
