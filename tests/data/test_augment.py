"""Augmentation against a slow reference, one image at a time, and what is random in it."""

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from netdepth.config import Component, derive_seed
from netdepth.data import Split
from netdepth.data.augment import AUGMENTATIONS, Batches
from netdepth.errors import BadInput

SHAPE = (3, 10, 7)  # neither square nor even
SETTINGS = [
    {},
    {"pad": 2, "fill": 7},
    {"flip": False},
    {"pad": 0},
    {"pad": 0, "flip": False},
    {"cutout": 4},
    {"cutout": 5, "fill": 200, "pad": 3},
    {"cutout": 7, "pad": 0, "flip": False},
    {"cutout": 1},
]


def make(shape=SHAPE, **args):
    return AUGMENTATIONS.build(Component("crop-flip", args), shape)


def images(n=64, shape=SHAPE, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, 256, (n, *shape), dtype=torch.uint8, generator=generator)


def slow(batch, seed, *, pad=4, flip=True, cutout=0, fill=0):
    """The same pictures made one by one with NumPy, from the draws as the documentation orders them."""
    n, c, h, w = batch.shape
    generator = torch.Generator().manual_seed(seed)
    tops, lefts, mirrored = (torch.randint(k, (n,), generator=generator).tolist() for k in (2 * pad + 1,) * 2 + (2,))
    if cutout:
        ys, xs = (torch.randint(k, (n,), generator=generator).tolist() for k in (h, w))
    made = []
    for i, image in enumerate(batch.numpy()):
        if flip and mirrored[i]:
            image = np.ascontiguousarray(image[:, :, ::-1])
        canvas = np.full((c, h + 2 * pad, w + 2 * pad), fill, dtype=np.uint8)
        canvas[:, pad : pad + h, pad : pad + w] = image
        image = canvas[:, tops[i] : tops[i] + h, lefts[i] : lefts[i] + w].copy()
        if cutout:
            y, x = ys[i] - cutout // 2, xs[i] - cutout // 2
            image[:, max(y, 0) : min(y + cutout, h), max(x, 0) : min(x + cutout, w)] = fill
        made.append(image)
    return torch.from_numpy(np.stack(made))


@pytest.mark.parametrize("args", SETTINGS, ids=str)
@pytest.mark.parametrize("shape", [SHAPE, (1, 8, 8)], ids=str)
def test_a_batch_equals_the_slow_reference(args, shape):
    args = {**args, "pad": min(args.get("pad", 4), min(shape[1:]) - 1)}
    augment = make(shape, **args)
    for seed, n in ((0, 64), (2**63 - 1, 1), (5, 3)):
        batch = images(n, shape, seed)
        before = batch.clone()
        made = augment(batch, seed)
        assert made.dtype == torch.uint8
        assert torch.equal(made, slow(batch, seed, **args))
        assert torch.equal(batch, before)


def test_memory_format_and_slices_of_the_input_do_not_matter():
    batch = images()
    expected = make(cutout=3)(batch, 1)
    assert torch.equal(make(cutout=3)(batch.to(memory_format=torch.channels_last), 1), expected)
    twice = batch.repeat_interleave(2, dim=0)[::2]
    assert torch.equal(make(cutout=3)(twice, 1), expected)


def test_each_replica_of_a_batch_has_the_stream_of_its_seed_and_step():
    train, augment = Split(images(), torch.arange(64)), make()
    plain, altered = Batches(train, 16, (3, 5)), Batches(train, 16, (3, 5), augment)
    for step in (0, 7):
        (inputs, labels), (found, same_labels) = plain(step), altered(step)
        replicas = zip((3, 5), inputs.chunk(2), strict=True)
        assert torch.equal(found, torch.cat([augment(x, derive_seed(seed, "augment", step)) for seed, x in replicas]))
        assert torch.equal(labels, same_labels)
        assert not torch.equal(found, inputs)


def test_none_returns_its_input():
    batch = images()
    assert AUGMENTATIONS.build(Component("none"), SHAPE)(batch, 3) is batch


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"pad": -1}, "augmentation.pad = -1 is out of range; it takes 0 to 6"),
        ({"pad": 7}, "augmentation.pad = 7 is out of range; it takes 0 to 6"),
        ({"cutout": 8}, "augmentation.cutout = 8 is out of range; it takes 0 to 7"),
        ({"fill": 256}, "augmentation.fill = 256 is out of range; it takes 0 to 255"),
        ({"cutuot": 8}, "did you mean 'cutout'"),
    ],
)
def test_refusals_are_one_line(args, message):
    with pytest.raises(BadInput) as error:
        make(**args)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


class Counting(TorchFunctionMode):
    """Counts the calls of PyTorch's functions."""

    calls = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.calls += 1
        return function(*args, **(kwargs or {}))


def test_a_batch_is_made_at_once_not_image_by_image():
    augment, counts = make(cutout=3), []
    for n in (1, 512):
        batch = images(n)
        with Counting() as counting:
            augment(batch, 0)
        counts.append(counting.calls)
    assert counts[0] == counts[1] > 0
