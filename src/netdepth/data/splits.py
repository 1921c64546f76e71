"""The form of every data set: three disjoint parts of uint8 images, the test part sealed."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from netdepth.config import derive_seed, digest, require
from netdepth.data.fetch import Source
from netdepth.errors import BadInput, choose
from netdepth.files.likeness import PictureStatistics, picture_statistics
from netdepth.registry import Registry
from netdepth.text import listed

__all__ = [
    "DATASETS", "SPLIT_SEED", "Classes", "DatasetSpec", "SealedTest", "Split", "Splits", "TestSize", "ValShare",
    "ValSize", "array_digest", "assembled", "divide", "drawn_parts", "pixel_mean", "repeated", "set_aside",
    "stratified_choice", "train_statistics", "with_classes",
]  # fmt: skip

SPLIT_SEED = 0
"""The seed of every split: all runs, with any seed, have the same one."""


@dataclass(frozen=True)
class Split:
    """One part of a data set: ``inputs`` uint8 ``[N, C, H, W]``, ``labels`` int64 ``[N]``; where values are learned
    instead of classes, float32 ``[N, K]``."""

    inputs: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> Split:
        """The same part on ``device``."""
        return Split(self.inputs.to(device), self.labels.to(device))


@dataclass(frozen=True)
class DatasetSpec:
    """What is known of a data set without looking at an image; a run writes it to ``split.json``.

    ``input_shape`` is (C, H, W). ``sizes`` counts train, val and test. ``files`` maps each official file to the
    sha256 of its decompressed content; ``data_digest`` is one digest over all data, ``split_digest`` one over the
    indices of every part. ``note`` is what a reader of its numbers must know, or empty. ``repeated`` counts the
    pictures of val and of test that have the same pixels as a training picture, where it was looked for. Data whose
    labels are values have no ``classes`` but ``targets``, the names of the K values.
    """

    name: str
    title: str
    input_shape: tuple[int, int, int]
    classes: tuple[str, ...]
    sizes: dict[str, int]
    files: dict[str, str]
    data_digest: str
    split_digest: str
    note: str = ""
    repeated: dict[str, int] = field(default_factory=dict)
    targets: tuple[str, ...] = ()

    @property
    def outputs(self) -> int:
        """How many numbers a network for these data gives for an image: one per class, or one per value."""
        return len(self.targets or self.classes)


class SealedTest:
    """The test part behind a seal: opened once per run, for a stated purpose.

    ``on_open`` is called with the purpose before any test image is handed out; training writes
    ``test_access.json`` there.
    """

    def __init__(self, load: Callable[[], Split], size: int) -> None:
        self._load = load
        self.size = size
        self.opened_for: list[str] = []

    def again(self) -> SealedTest:
        """The same test part behind an unbroken seal."""
        return SealedTest(self._load, self.size)

    def open_test(self, purpose: str, on_open: Callable[[str], None] | None = None) -> Split:
        """The test part, once.

        Raises:
            BadInput: it was opened before.
        """
        if self.opened_for:
            raise BadInput(
                f"the test set was already opened for {self.opened_for[0]!r}; it is not opened again for {purpose!r}: "
                "evaluate all weights in one pass"
            )
        self.opened_for.append(purpose)
        if on_open is not None:
            on_open(purpose)
        return self._load()


@dataclass(frozen=True)
class Splits:
    """A data set ready to train on. ``test`` is None where the source has none."""

    spec: DatasetSpec
    train: Split
    val: Split
    test: SealedTest | None

    @functools.cached_property
    def statistics(self) -> tuple[Tensor, Tensor]:
        """`train_statistics` of the training part, computed once."""
        return train_statistics(self.train)

    @functools.cached_property
    def pixel_mean(self) -> Tensor:
        """`pixel_mean` of the training part, computed once."""
        return pixel_mean(self.train)

    @functools.cached_property
    def pictures(self) -> PictureStatistics:
        """`picture_statistics` of the training part, computed once."""
        return picture_statistics(self.train.inputs.numpy())

    @functools.cached_property
    def label_entropy(self) -> float:
        """Entropy (nats) of the training labels: the loss of knowing how frequent each class is, and nothing else."""
        shares = torch.bincount(self.train.labels).double() / len(self.train)
        return float(torch.special.entr(shares).sum())

    @property
    def without_val(self) -> tuple[str, ...]:
        """The classes that have no validation picture, where there are classes and validation at all."""
        if self.spec.targets:
            return ()
        there = set(self.val.labels.tolist())
        return tuple(name for label, name in enumerate(self.spec.classes) if label not in there) if there else ()

    def for_another_run(self) -> Splits:
        """The same data with an unbroken seal, for one of several runs that train together."""
        return self if self.test is None else dataclasses.replace(self, test=self.test.again())


DATASETS: Registry[Splits] = Registry("dataset")
"""Every data set: a function of the local data folder (None: the usual places) and its own settings."""


Classes = Annotated[list[str] | None, "only the images of these classes, by name; null: all"]
ValSize = Annotated[int, "training images set aside for validation, drawn with equal class shares"]
ValShare = Annotated[
    int | float | None,
    "validation taken from train: a count, or a share below 1; null: 0.1 if none is given",
]
TestSize = Annotated[
    int | float | None, "test taken from data that are not divided: a count, or a share below 1; null: 0.1"
]


def divide(
    source: Source,
    classes: tuple[str, ...],
    images: np.ndarray,
    labels: np.ndarray,
    parts: tuple[np.ndarray, np.ndarray, np.ndarray],
    open_test: Callable[[], Split],
    *,
    files: dict[str, str],
    data_digest: str,
) -> Splits:
    """``images`` uint8 ``[N, C, H, W]`` and ``labels`` int64 ``[N]`` as `Splits`.

    ``parts`` are the indices of train, val and test; those of test count in what ``open_test`` reads.
    """
    train, val = (Split(torch.from_numpy(images[part]), torch.from_numpy(labels[part])) for part in parts[:2])
    channels, height, width = images.shape[1:]
    spec = DatasetSpec(
        name=source.name,
        title=source.title,
        input_shape=(channels, height, width),
        classes=classes,
        sizes=dict(zip(("train", "val", "test"), map(len, parts), strict=True)),
        files=files,
        data_digest=data_digest,
        split_digest=array_digest(*parts),
    )
    return Splits(spec, train, val, SealedTest(open_test, len(parts[2])))


def with_classes(splits: Splits, classes: Sequence[str] | None) -> Splits:
    """The images of some ``classes`` of ``splits``, labelled by their order there: another data set, with its digests.

    Validation is drawn before the classes are chosen, so that the choice does not change which images it holds.

    Raises:
        BadInput: a class that the data set does not have, one named twice, fewer than two.
    """
    if classes is None:
        return splits
    spec = splits.spec
    for name in classes:
        choose(name, spec.classes, f"class of {spec.name}:")
    if len(set(classes)) < max(len(classes), 2):
        raise BadInput(f"dataset.classes = {list(classes)} is not acceptable; it takes two names or more, each once")
    new_label = torch.full((len(spec.classes),), -1)
    for index, name in enumerate(classes):
        new_label[spec.classes.index(name)] = index

    def part(split: Split) -> Split:
        labels = new_label[split.labels]
        kept = torch.nonzero(labels >= 0).squeeze(1)
        return Split(split.inputs.index_select(0, kept), labels.index_select(0, kept))

    train, val, sealed, test = part(splits.train), part(splits.val), splits.test, None
    sizes = {"train": len(train), "val": len(val)}
    if sealed is not None:

        def chosen() -> Split:
            return part(sealed.again().open_test("the images of some classes"))

        sizes["test"] = len(chosen())  # to count labels is not to look at images
        test = SealedTest(chosen, sizes["test"])
    narrowed = dataclasses.replace(
        spec,
        classes=tuple(classes),
        sizes=sizes,
        title=f"{spec.title}; classes {', '.join(classes)}",
        data_digest=digest({"of": spec.data_digest, "classes": list(classes)}),
        split_digest=digest({"of": spec.split_digest, "classes": list(classes)}),
    )
    return Splits(narrowed, train, val, test)


def array_digest(*arrays: np.ndarray) -> str:
    """sha256 over dtype, shape and bytes of ``arrays`` in order."""
    sha = hashlib.sha256()
    for array in arrays:
        contiguous = np.ascontiguousarray(array)
        sha.update(f"{contiguous.dtype.str}{contiguous.shape}".encode())
        sha.update(contiguous.data)
    return sha.hexdigest()


def set_aside(labels: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices to train on, and `stratified_choice` of ``size`` others for validation; both sorted."""
    chosen = stratified_choice(labels, size)
    return np.setdiff1d(np.arange(len(labels)), chosen, assume_unique=True), chosen


def drawn_parts(
    labels: Mapping[str, np.ndarray],
    data: str,
    *,
    val_size: int | float | None,
    test_size: int | float | None,
    pooled: bool,
) -> tuple[dict[str, tuple[str, np.ndarray]], str]:
    """Train, val and test (where there is one): the part that each is taken from, and the indices there; and a note on
    those that were drawn from one pool.

    ``labels`` ``[N]`` are those of every part that there is (values ``[N, K]`` are drawn from as if all were of one
    class), and ``data`` is what errors call them. Validation is drawn from train unless it is a part; test as well if
    the data are ``pooled`` (not divided by whom they come from).

    Raises:
        BadInput: a size of what is a part already; one that leaves a class nothing to train on.
    """
    if test_size is not None and not pooled:
        raise BadInput(f"dataset.test_size = {test_size!r}, but {data} is divided already; leave it null")
    if val_size is not None and "val" in labels:
        raise BadInput(f"dataset.val_size = {val_size!r}, but {data} has validation data; leave it null")
    drawn = "at random" if labels["train"].ndim > 1 else "with equal class shares"
    labels = {part: np.zeros(len(held), np.int64) if held.ndim > 1 else held for part, held in labels.items()}
    order = {part: (part, np.arange(len(held))) for part, held in labels.items()}
    train, classes, note = order["train"][1], len(np.unique(labels["train"])), ""
    tested = _count("test_size", test_size, len(train), classes) if pooled else 0
    if tested:
        order["test"] = "train", stratified_choice(labels["train"], tested, stream=1)
        train = np.setdiff1d(train, order["test"][1], assume_unique=True)
    if "val" not in labels:
        wanted = _count("val_size", val_size, len(train), classes)
        kept, chosen = set_aside(labels["train"][train], wanted)
        order |= {"train": ("train", train[kept]), "val": ("train", train[chosen])}
        if pooled:
            sizes = f"{wanted:,} validation and {tested:,} test pictures"
            note = f"{sizes} were drawn {drawn}, by seed {SPLIT_SEED}"
    return {part: order[part] for part in ("train", "val", "test") if part in order}, note


def _count(setting: str, size: int | float | None, examples: int, classes: int) -> int:
    """The number of ``examples`` that ``size`` stands for: a count, or a share (one example at least). None is a share
    of 0.1, or what the ``classes``, of which each keeps one to train on, leave of it."""
    if size is None:
        return max(0, min(max(1, round(0.1 * examples)), examples - classes))
    if 0 < size < 1:
        return max(1, round(size * examples))
    require(isinstance(size, int), f"dataset.{setting}", size, "a count, or a share below 1")
    return int(size)


def assembled(
    name: str,
    title: str,
    classes: tuple[str, ...],
    parts: Mapping[str, tuple[Split, np.ndarray]],
    *,
    files: Mapping[str, str],
    data_digest: str,
    notes: Sequence[str],
    again: Mapping[str, np.ndarray],
    targets: tuple[str, ...] = (),
) -> Splits:
    """``parts`` (train, val, and test where there is one), each with its indices in the data, as `Splits`.

    ``targets`` are the names of the values where the labels are such. ``again`` are the images of val and test that
    train has too (`repeated`). Empty ``notes`` are left out.
    """
    train, val, test = (parts[part][0] if part in parts else None for part in ("train", "val", "test"))
    assert train is not None
    assert val is not None
    _, channels, height, width = train.inputs.shape
    tested = set() if test is None or targets else set(test.labels.tolist())
    untested = [repr(name) for label, name in enumerate(classes) if tested and label not in tested]
    if untested:
        count = f"{len(untested)} of {len(classes)} classes ({listed(untested, most=5)})"
        notes = [*notes, f"test has no picture of {count}: its numbers say nothing of them"]
    spec = DatasetSpec(
        name=name,
        title=title,
        input_shape=(channels, height, width),
        classes=classes,
        sizes={part: len(one) for part, (one, _) in parts.items()},
        files=dict(files),
        data_digest=data_digest,
        split_digest=array_digest(*(indices for _, indices in parts.values())),
        note="; ".join(filter(None, notes)),
        repeated={part: len(found) for part, found in again.items() if len(found)},
        targets=targets,
    )
    return Splits(spec, train, val, None if test is None else SealedTest(lambda: test, len(test)))


def stratified_choice(labels: np.ndarray, size: int, stream: int = 0) -> np.ndarray:
    """Sorted indices of ``size`` examples whose class shares are those of ``labels``.

    Shares are rounded by largest remainder, ties by class number, but every class keeps one example that is not
    chosen: without it a network could not learn the class. The draw depends on ``SPLIT_SEED`` and ``stream`` alone.

    Raises:
        BadInput: ``size`` leaves a class nothing to train on.
    """
    classes, counts = np.unique(labels, return_counts=True)
    most = len(labels) - len(classes)
    if not 0 <= size <= most:
        setting = "test_size" if stream else "val_size"
        raise BadInput(
            f"{setting} = {size} is out of range; it takes 0 to {most}: each of the {len(classes):,} classes of "
            f"{len(labels):,} examples keeps one to train on"
        )
    generator = np.random.Generator(np.random.PCG64(derive_seed(SPLIT_SEED, "split", stream)))
    exact = counts * size / len(labels)
    quota = np.floor(exact).astype(int)
    while (missing := size - quota.sum()) > 0:  # once, unless a class with one example left is passed over
        order = np.argsort(quota - exact, kind="stable")
        quota[order[quota[order] < counts[order] - 1][:missing]] += 1
    chosen = [
        generator.permutation(np.flatnonzero(labels == label))[:n] for label, n in zip(classes, quota, strict=True)
    ]
    return np.sort(np.concatenate(chosen)) if chosen else np.empty(0, dtype=np.int64)


def repeated(train: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Indices of the images of ``other`` uint8 ``[N, ...]`` whose pixels are those of one of ``train``.

    A checksum finds the candidates (a collision could name one too many), a sha256 decides.
    """
    known = {zlib.crc32(image.tobytes()) for image in train}
    sums = [zlib.crc32(image.tobytes()) for image in other]
    found = [index for index, mark in enumerate(sums) if mark in known]
    wanted = {sums[index] for index in found}
    same = {_sha(image) for image in train if found and zlib.crc32(image.tobytes()) in wanted}
    return np.array([index for index in found if _sha(other[index]) in same], dtype=np.int64)


def _sha(image: np.ndarray) -> bytes:
    return hashlib.sha256(image.tobytes()).digest()


def train_statistics(split: Split) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation per channel, each float64 ``[C]``, of pixels scaled to [0, 1].

    Counted in integers and divided once: exact to the last bit on any device, for any number of threads and
    any order of the examples. A constant channel has deviation 1.

    Raises:
        BadInput: there is no pixel to count.
    """
    if split.inputs.numel() == 0:
        raise BadInput("the training part is empty: there are no pixels to take a mean of")
    means, stds = [], []
    parts = torch.split(split.inputs, 4096)  # memory-mapped images may not fit into memory, not even one channel
    for channel in range(split.inputs.shape[1]):
        counted = [torch.bincount(images[:, channel].reshape(-1), minlength=256) for images in parts]
        counts = torch.stack(counted).sum(0).tolist()
        n = sum(counts)
        total = sum(value * count for value, count in enumerate(counts))
        squares = sum(value * value * count for value, count in enumerate(counts))
        variance = n * squares - total * total  # n² times the variance
        means.append(total / (255 * n))
        stds.append(math.sqrt(variance / (255 * n) ** 2) if variance else 1.0)
    return torch.tensor(means, dtype=torch.float64), torch.tensor(stds, dtype=torch.float64)


def pixel_mean(split: Split) -> Tensor:
    """Mean image of ``split``, float64 ``[C, H, W]``, of pixels scaled to [0, 1] (He et al. 2016, §4.2).

    Counted in integers and divided once: exact to the last bit, as in `train_statistics`.
    """
    total = torch.zeros(split.inputs.shape[1:], dtype=torch.int64, device=split.inputs.device)
    for images in torch.split(split.inputs, 1024):  # a sum converts its input, to eight times the size
        total += images.sum(0, dtype=torch.int64)
    return (total.double() / (255 * len(split))).cpu()
