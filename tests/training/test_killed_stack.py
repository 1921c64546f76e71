"""A stack killed at any moment continues to the bits of the uninterrupted one."""

import itertools
import random

import pytest
from support.real_stacks import ENDING, PER_EPOCH, SEEDS, Killed, folders, make_stack, notes, same_stack

from netdepth.files import atomic
from netdepth.runs import folder as store
from netdepth.runs.folder import RunDir
from netdepth.training import loop
from netdepth.training.checkpoint import Checkpointer


def killed_at(patch, number):
    """Raise `Killed` in place of the ``number``-th change of the disk (from 0); returns the counter of changes."""
    changes = itertools.count()

    def counted(original):
        def change(*args, **kwargs):
            if next(changes) == number:
                raise Killed
            return original(*args, **kwargs)

        return change

    patch.setattr(atomic, "write_synced", counted(atomic.write_synced))
    patch.setattr(store.os, "rename", counted(store.os.rename))
    patch.setattr(RunDir, "append_metrics", counted(RunDir.append_metrics))
    patch.setattr(RunDir, "drop_checkpoints", counted(RunDir.drop_checkpoints))
    return changes


def kill_and_continue(monkeypatch, root, numbers, expected):
    """Kill at each of ``numbers`` in turn, every time going on from what is there, and compare the end."""
    for number in numbers:
        with monkeypatch.context() as patch:
            killed_at(patch, number)
            try:
                make_stack(root, ENDING, probes=True)
            except Killed:
                continue
        break
    same_stack(expected, make_stack(root, ENDING, probes=True))


@pytest.fixture(scope="module")
def changes(tmp_path_factory):
    """How often a whole stack changes the disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "WRITE_EVERY_SECONDS", 0.0)
        counter = killed_at(patch, -1)
        make_stack(tmp_path_factory.mktemp("counted"), ENDING, probes=True)
    return next(counter)


@pytest.mark.slow
@pytest.mark.usefixtures("eager")
def test_a_stack_killed_at_any_change_of_the_disk_continues_to_the_same_bits(ending, changes, tmp_path, monkeypatch):
    """At every seventh, which meets every kind of file and every replica."""
    assert changes > 100
    for number in range(0, changes, 7):
        kill_and_continue(monkeypatch, tmp_path / str(number), [number], ending)


@pytest.mark.slow
@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("stream", range(4))
def test_a_stack_killed_over_and_over_continues_to_the_same_bits(ending, changes, tmp_path, monkeypatch, stream):
    draw = random.Random(stream)
    kill_and_continue(monkeypatch, tmp_path, [draw.randrange(changes // 3) for _ in range(12)], ending)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("act", ["write", "prune"])
def test_killed_while_some_replicas_are_saved_and_others_are_not(reference, tmp_path, monkeypatch, act):
    original = getattr(Checkpointer, act)
    calls = iter(range(100))

    def killing(self):
        if next(calls) == 2 * len(SEEDS) + 1:  # of the second replica, after the third evaluation
            raise Killed
        original(self)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpointer, act, killing)
        with pytest.raises(Killed):
            make_stack(tmp_path, probes=True)
    newest = [folder.checkpoints()[-1] // PER_EPOCH for folder in folders(tmp_path)]
    assert newest == ([3, 2, 2] if act == "write" else [3, 3, 3])
    made = make_stack(tmp_path, probes=True)
    common = min(newest)
    assert notes(made) == [f"continued from step {common * PER_EPOCH} (epoch {common})"] * len(SEEDS)
    same_stack(reference, made)
