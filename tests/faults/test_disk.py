"""The disk fails, fills, or the machine stops in the middle of a write: nothing that was saved is lost."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.disks import mount, small_disk

from faults.disk import KINDS
from faults.kill import Children
from faults.record import Faults
from faults.subjects import Subject, small
from netdepth.runs.folder import RunDir

pytestmark = pytest.mark.faults

OLD = {"model": b"old" * 5000, "optimizer": b"state" * 9000}
NEW = {"model": b"new" * 5000, "optimizer": b"other" * 9000}


class Struck:
    """One child whose disk was struck: which changes it made, its exit code, what it said."""

    def __init__(self, children: Children, root: Path, job: dict[str, object], fault: str, number: int) -> None:
        self.number = number
        log, out = root.with_suffix(".log"), root.with_suffix(".txt")
        out.unlink(missing_ok=True)
        shims = [["faults.phases:eager"], ["faults.disk:fail", str(root), str(log), fault, number]]
        self.status = children.run({**job, "out": str(out), "shims": shims}).status
        self.changes = log.read_text()
        self.said = out.read_text() if out.exists() else ""


def strikes(
    children: Children,
    root: Path,
    job: dict[str, object],
    fault: str,
    reset: Callable[[], None],
    kinds: str = "wsrdm",
    every: int = 1,
) -> Iterator[Struck]:
    """Strike ``job`` at its changes of these ``kinds``, at one in ``every``; ``reset`` makes ``root`` as before."""
    plain = Struck(children, root, job, fault, -1)
    assert plain.status == 0, plain.said
    for number in [number for number, kind in enumerate(plain.changes) if kind in kinds][::every]:
        reset()
        yield Struck(children, root, job, fault, number)
    reset()


CASES = {
    "beside an older one": [(10, OLD)],
    "of a step that is there": [(10, OLD), (20, NEW)],
    "in place of a damaged one": [(10, OLD), (20, {"model": b"damaged"})],
}


@pytest.mark.parametrize("fault", ["crash", "power"])
def test_a_save_that_ends_at_any_step(children: Children, faults: Faults, tmp_path: Path, fault: str) -> None:
    """Saving and pruning, as the engine does: the old checkpoint loads or the new one, and none that is half there."""
    name = {"crash": "crash", "power": "power cut"}[fault]
    with faults.drill(2, f"{name} at each step of a checkpoint save") as drill:
        for case, there in CASES.items():
            root = tmp_path / case.replace(" ", "-") / "run"
            job = {"call": "faults.subjects:save_and_prune", "args": [str(root), 20]}
            left(root, there)
            for struck in strikes(children, root, job, fault, functools.partial(left, root, there)):
                kind = KINDS[struck.changes[-1]]
                with drill.injection(f"{case}, {kind} {struck.number}", at=kind):
                    run = RunDir(root)
                    assert all(run.load_checkpoint(step) for step in run.checkpoints() if (step, there) != DAMAGED)
                    assert run.newest_checkpoint() in ((10, OLD), (20, NEW)), run.notes
                    with run.lock():
                        assert not list(root.glob("*/.*.tmp")), "what was left half-written is swept away"
                        run.save_checkpoint(20, NEW)
                    assert RunDir(root).newest_checkpoint() == (20, NEW)


DAMAGED = (20, CASES["in place of a damaged one"])


def left(root: Path, there: list[tuple[int, dict[str, bytes]]]) -> None:
    """Make ``root`` hold the checkpoints of ``there``, in which one of "damaged" is."""
    shutil.rmtree(root, ignore_errors=True)
    (root / "checkpoints").mkdir(parents=True)
    run = RunDir(root)
    for step, files in there:
        run.save_checkpoint(step, files)
        if files["model"] == b"damaged":
            (root / "checkpoints" / str(step) / "model").write_bytes(b"damage")


@pytest.mark.parametrize("fault", ["crash", "power"])
def test_a_run_that_ends_at_any_change_of_the_disk(
    children: Children, faults: Faults, tmp_path: Path, fault: str
) -> None:
    """A whole run, from its first file to its result: the same command ends with the bits of the one left alone."""
    subject = small(tmp_path)
    children.run(subject.job(tmp_path / "whole", tmp_path / "whole.txt", []))
    name = {"crash": "crash", "power": "power cut"}[fault]
    kinds = "wsrdm" if faults.scale == "long" else "r"  # after a rename something new is there
    with faults.drill(2, f"{name} at changes of the disk during a whole run") as drill:
        root = tmp_path / "struck"
        for struck in strikes(children, root, subject.job(root, root, []), fault, clear(root), kinds):
            kind = KINDS[struck.changes[-1]]
            with drill.injection(f"{kind} {struck.number}", at=kind):
                assert struck.status == 137
                check_whole(subject, root)
                subject.complete(children, tmp_path / "whole", root)


@pytest.mark.parametrize("fault", ["ENOSPC", "EIO"])
def test_a_disk_that_says_no(children: Children, faults: Faults, tmp_path: Path, fault: str) -> None:
    """One line that names the path and the bytes, exit code 74, earlier checkpoints whole; then it goes on."""
    subject = small(tmp_path)
    children.run(subject.job(tmp_path / "whole", tmp_path / "whole.txt", []))
    name = {"ENOSPC": "no space from the n-th write on", "EIO": "I/O error at the n-th write or fsync"}[fault]
    with faults.drill(3, name) as drill:
        root = tmp_path / "struck"
        kinds = {"ENOSPC": "wm", "EIO": "ws"}[fault]
        every = 1 if faults.scale == "long" else EVERY
        for struck in strikes(children, root, subject.job(root, root, []), fault, clear(root), kinds, every):
            kind = struck.changes[struck.number]
            with drill.injection(f"{KINDS[kind]} {struck.number}", at=KINDS[kind]):
                check_refusal(struck, root, writing=kind == "w")
                check_whole(subject, root)
                if faults.scale == "long" or drill.injected % 2 == 0:
                    subject.complete(children, tmp_path / "whole", root)


EVERY = 4
"""In a quick drill one change in so many is refused, and half of these runs are begun again and followed to their end.

A write and the two fsyncs after it take turns, so that all three are refused."""


def clear(root: Path) -> Callable[[], None]:
    return lambda: shutil.rmtree(root, ignore_errors=True)


def check_refusal(struck: Struck, root: Path, writing: bool) -> None:
    """It was told in one line with exit code 74."""
    assert struck.status == 74, f"exit {struck.status}: {struck.said[-500:]}"
    errors = [line for line in struck.said.splitlines() if "error" in line]
    assert len(errors) == 1, struck.said[-500:]
    assert "Traceback" not in struck.said
    assert str(root) in errors[0]
    if writing:
        assert " bytes" in errors[0], errors[0]


def check_whole(subject: Subject, root: Path) -> None:
    """Every checkpoint that is there is whole and has its record."""
    for run in subject.folders(root):
        assert all(run.load_checkpoint(step) for step in run.checkpoints()), run.notes
        assert set(run.checkpoints()) <= {record["step"] for record in run.read_metrics()}


def test_a_file_system_of_one_megabyte(children: Children, faults: Faults, tmp_path: Path) -> None:
    subject = small(tmp_path, hidden=56)  # 180 kB of weights and twice as much of Adam's state: one fits, two do not
    children.run(subject.job(tmp_path / "whole", tmp_path / "whole.txt", []))
    with (
        small_disk(tmp_path / "disk", "1m") as disk,
        faults.drill(3, "a file system of one megabyte") as drill,
        drill.injection("1 MB"),
    ):
        root = disk / "runs"
        trace = children.run(subject.job(root, tmp_path / "said.txt", [["faults.phases:eager"]]))
        said = (tmp_path / "said.txt").read_text()
        assert trace.status == 74, said
        (line,) = [line for line in said.splitlines() if "error" in line]
        assert str(root) in line
        assert " bytes" in line
        assert "No space left" in line
        (run,) = subject.folders(root)
        assert run.newest_checkpoint() is not None
        check_whole(subject, root)
        mount("-o", "remount,size=20m", str(disk))
        trace = children.run(subject.job(root, tmp_path / "again.txt", []))
        assert trace.status == 0, (tmp_path / "again.txt").read_text()
        subject.compare(tmp_path / "whole", root)
