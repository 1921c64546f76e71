"""Real stacks on the embedded digits: how tests make them, stop them, kill them and compare their folders."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from netdepth import data
from netdepth.config import Component, EarlyStopping, RunConfig, Runtime, TrainConfig
from netdepth.errors import Interrupted
from netdepth.runs.folder import RunDir
from netdepth.training import loop, process
from netdepth.training.resolve import resolve
from netdepth.training.run import Finished, run_stack
from support.real_runs import make, same

SEEDS = (0, 1, 2)
CONFIG = RunConfig(
    dataset=Component("mnist5k"),
    model=Component("mlp", {"hidden": [12, 12], "init": "he"}),
    optimizer=Component("adam", {"lr": 3e-3}),
    train=TrainConfig(budget="4ep", batch_size=64),
)
"""Twelve steps per epoch of `digits`, the last of 46 images."""

PER_EPOCH = 12


def changed(config: RunConfig = CONFIG, model: Mapping[str, Any] | None = None, **train: Any) -> RunConfig:
    """``config`` with other settings of the model or of the training."""
    args = {**config.model.args, **(model or {})}
    return dataclasses.replace(config, model=Component("mlp", args), train=dataclasses.replace(config.train, **train))


ENDING = dataclasses.replace(
    changed(model={"hidden": [16]}, budget="6ep", precision="float64", early_stopping=EarlyStopping(patience=1)),
    optimizer=Component("adam", {"lr": 0.1}),
)
"""At so high a rate the validation loss soon stops falling: seed 1 stops first, then seed 0, and seed 2 not at all."""

LOAD = data.load


def stackable(config: RunConfig) -> bool:
    """Whether seeds of ``config`` can train as one stack."""
    return resolve(config, Runtime(device="cpu"), digits()).stackable


@functools.cache
def digits() -> data.Splits:
    """Every fourth of the embedded digits, prepared once for all tests of a process."""
    splits = LOAD(CONFIG.dataset, data_dir=None)
    test = fourth(splits.test.open_test("taking a fourth of it for tests"))
    return dataclasses.replace(
        splits, train=fourth(splits.train), val=fourth(splits.val), test=data.SealedTest(lambda: test, len(test))
    )


def fourth(split: data.Split) -> data.Split:
    return data.Split(split.inputs[::4].contiguous(), split.labels[::4].contiguous())


def few() -> data.Splits:
    """As few images as do: 3 steps an epoch, and no test part."""
    train, val = (data.Split(part.inputs[:160], part.labels[:160]) for part in (digits().train, digits().val))
    return dataclasses.replace(digits(), train=train, val=val, test=None)


@contextlib.contextmanager
def quickly() -> Iterator[None]:
    """Leave out what costs every run the same and decides no bit of it: preparing the data, asking git."""
    with (
        mock.patch.object(data, "load", return_value=digits()),
        mock.patch.object(process, "_code_version", return_value=(None, None)),
    ):
        yield


class Killed(BaseException):
    """Nothing that the training loop could handle, as after SIGKILL."""


class Watching:
    """A watcher that calls ``look(number of this evaluation, record)``."""

    def __init__(self, look: Callable[[int, Any], None] = lambda number, record: None) -> None:
        self.look = look
        self.seen = 0

    @contextlib.contextmanager
    def __call__(self, title: str, total_steps: int, steps_per_epoch: int) -> Iterator[Watching]:
        yield self

    def advance(self, step: int) -> None:
        pass

    def evaluated(self, record: Any) -> None:
        self.seen += 1
        self.look(self.seen, record)


def stopping(after: int, error: type[BaseException] | BaseException = KeyboardInterrupt) -> Watching:
    """Raises ``error`` once ``after`` evaluations were made."""

    def look(number: int, record: Any) -> None:
        if number == after:
            raise error

    return Watching(look)


SIGTERM = Interrupted("interrupted", signal.SIGTERM)


def make_stack(
    root: Path,
    config: RunConfig = CONFIG,
    seeds: Sequence[int] = SEEDS,
    *,
    watch: Watching | None = None,
    **runtime: Any,
) -> list[Finished]:
    """The runs of ``seeds`` as one stack, by default without probes."""
    where = Runtime(**{"runs_root": root, "threads": 1, "device": "cpu", "probes": False, **runtime})
    with quickly():
        return run_stack(resolve(config, where), seeds, where, name="test", study="single", watch=watch or Watching())


def make_alone(root: Path, config: RunConfig = CONFIG, seeds: Sequence[int] = SEEDS, **runtime: Any) -> list[Finished]:
    """The same runs, each for itself."""
    with quickly():
        return [make(root, config.with_seed(seed), **{"probes": False, **runtime}) for seed in seeds]


def folders(root: Path) -> list[RunDir]:
    """The run folders below ``root`` in the order of their seeds (below ten)."""
    return [RunDir(path) for path in sorted((root / "single").iterdir())]


def same_stack(expected: Sequence[Finished], found: Sequence[Finished]) -> None:
    """Every replica has the same bits, the same probes and files of the same names."""
    for a, b in zip(expected, found, strict=True):
        same_folder(a.run, b.run)


def same_folder(a: RunDir, b: RunDir) -> None:
    """Two run folders have the same bits, the same probes and files of the same names."""
    assert files(a) == files(b), f"only one has {files(a) ^ files(b)}"
    same(a, b)
    for path in (a.path / "probes").glob("*"):
        assert path.read_bytes() == (b.path / "probes" / path.name).read_bytes(), path.name


def files(folder: RunDir) -> set[str]:
    """The files of a run; whole checkpoints apart, whose number depends on when they were written."""
    paths = {str(p.relative_to(folder.path)) for p in folder.path.rglob("*") if p.is_file()}
    return {path for path in paths if not path.startswith("checkpoints/") or path[12] == "."} - {".lock"}


def poison(monkeypatch: pytest.MonkeyPatch, index: int, step: int) -> None:
    """The loss of ``index`` is NaN at ``step`` (counted from the start of this process's training)."""
    original = loop.choose_gradients

    def poisoned(stack: Any, objective: Any) -> Any:
        gradients, steps = original(stack, objective), iter(range(10**6))

        def compute(inputs: Any, labels: Any) -> Any:
            loss, right = gradients(inputs, labels)
            if next(steps) == step:
                loss[index] = float("nan")
                for block in stack.blocks(stack.gradient):
                    block[index] = float("nan")
            return loss, right

        return compute

    monkeypatch.setattr(loop, "choose_gradients", poisoned)


def notes(made: Sequence[Finished]) -> list[str]:
    """What the user is told of the folders, replica after replica."""
    return [note for replica in made for note in replica.run.notes]
