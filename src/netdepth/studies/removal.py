"""What ``netdepth runs rm`` takes: a run, the seeds of one configuration, or a whole study; and how a study goes.

A name that could be two things is refused, and nothing is removed unless everything that was named may be.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from netdepth.errors import BadInput
from netdepth.files.atomic import storage
from netdepth.runs.find import find_runs
from netdepth.runs.folder import RunDir, check_removable, folder_size, list_runs, remove
from netdepth.studies.folder import FILE, StudyDir, study_named
from netdepth.studies.ledger import FINISHED

__all__ = ["Removable", "removable", "remove_all"]

MADE = (FILE, FINISHED, "table.csv", "verdict.json", "report.html", "report.md", "sources.json", "figures", "workers")
"""What a study's folder holds beside its runs; all of it is netdepth's own."""


@dataclass(frozen=True)
class Removable:
    """Runs that may be removed, and the ``study`` that goes with them, if it is a study that was named."""

    runs: tuple[RunDir, ...]
    study: StudyDir | None = None

    @property
    def places(self) -> tuple[Path, ...]:
        """The folders that go: that of the study, or those of the runs."""
        paths = [run.path for run in self.runs] if self.study is None else [self.study.path]
        return tuple(path.resolve() for path in paths)

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return sum(map(folder_size, self.places))


def removable(text: str, root: Path) -> Removable:
    """The one study, run or configuration under ``root`` that ``text`` is, or is the beginning of.

    Raises:
        BadInput: it is nothing, or could be several; or a folder of it is not certainly one of ``root``.
    """
    study = study_named(text, root)
    if study is None:
        found = Removable(tuple(find_runs(text, root)))
    else:
        if study.path.is_symlink() or study.path.resolve().parent != root.resolve():
            raise BadInput(f"{study.path} is not a study's folder inside {root}; name its runs folder with --runs")
        study.read()  # a damaged one is left alone
        found = Removable(tuple(run for run in list_runs(root) if run.path.parent.name == study.path.name), study)
    for run in found.runs:
        check_removable(run, root)
    return found


def remove_all(chosen: Sequence[Removable], root: Path) -> tuple[list[Path], int, list[Path]]:
    """Remove what was ``chosen``; returns the folders of the runs and studies, the bytes freed, and what is left.

    Files in a study's folder that netdepth did not write stay, and so does the folder then.

    Raises:
        Locked: a run or a study of it is being trained; what stands before it is removed already.
        StorageError: the disk refuses.
    """
    removed: list[Path] = []
    freed, left = 0, []
    for one in chosen:
        with one.study.lock() if one.study is not None else contextlib.nullcontext():
            for run in one.runs:
                if run.path.exists():  # it may be named in two ways
                    freed += remove(run, root)
                    removed.append(run.path)
            if one.study is not None:
                before = folder_size(one.study.path)
                _remove_made(one.study.path)
                freed += before - folder_size(one.study.path)
                removed.append(one.study.path)
        if one.study is not None:
            (one.study.path / ".lock").unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # not empty
                one.study.path.rmdir()
            left += sorted(one.study.path.iterdir()) if one.study.path.exists() else []
    return removed, freed, left


def _remove_made(folder: Path) -> None:
    """Remove what netdepth wrote into a study's folder beside its runs; ``study.json`` last, so that it can be tried
    again."""
    for name in reversed(MADE):
        path = folder / name
        with storage(path):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
