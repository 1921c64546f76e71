"""``nd.load``: a run as ``nd.train`` gives it too, with its page."""

from __future__ import annotations

from pathlib import Path

from netdepth.errors import NetdepthError
from netdepth.training import finished

__all__ = ["Run", "load"]


class Run(finished.Run):
    """A run folder as Python sees it."""

    @property
    def figure(self) -> Path | None:
        """The learning curves, drawn now unless they are up to date.

        What was drawn before, or None, where they cannot be: before the first evaluation, while another process trains
        the run, in a folder that is not written to.
        """
        from netdepth.report.learning_curves import current_curves

        try:
            with self.dir.lock():
                return current_curves(self.dir)
        except NetdepthError:
            return super().figure

    def report(self, out: Path | str | None = None, data_dir: Path | None = None) -> Path:
        """Write ``report.html`` about this run into its folder, or into the folder ``out``; returns its path.

        Raises:
            BadInput: a file of the run cannot be read.
            StorageError: the page cannot be written.
        """
        from netdepth.tools.run_page import write_page

        return write_page(self, None if out is None else Path(out), data_dir=data_dir).path


def load(run: str | Path, runs_dir: Path | None = None) -> Run:
    """The run at a path, or the one whose folder name begins with ``run``.

    Raises:
        BadInput: none or several match.
    """
    return Run(finished.load(run, runs_dir).dir)
