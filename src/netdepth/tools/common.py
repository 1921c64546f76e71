"""What the tools share: opening a run, the file that ``--out`` names, answers in a notebook."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping
from pathlib import Path

from netdepth.errors import BadInput
from netdepth.training.finished import Run, load

__all__ = ["html_answer", "open_run", "output_file"]


def open_run(run: Run | Path | str, runs_dir: Path | None = None) -> Run:
    """``run`` itself, or the run at a path, or the one whose folder name begins with it.

    Raises:
        BadInput: none or several match.
    """
    return run if isinstance(run, Run) else load(run, runs_dir)


def output_file(out: Path, suffix: str, *, in_new_folder: bool = False) -> Path:
    """``out``, if it ends in ``suffix`` and lies in a folder that exists (or may be created: ``in_new_folder``).

    Raises:
        BadInput: it does not.
    """
    if out.suffix.lower() != suffix:
        raise BadInput(f"--out {str(out)!r} has to end in {suffix}")
    if not in_new_folder and not out.parent.is_dir():
        raise BadInput(f"the folder of --out {str(out)!r} does not exist")
    return out


def html_answer(words: str, figures: Mapping[str, Path]) -> str:
    """A paragraph and pictures (by what they show) for a notebook."""

    def element(name: str, path: Path) -> str:
        picture = base64.b64encode(path.read_bytes()).decode()
        return f'<img alt="{html.escape(name)}" src="data:image/png;base64,{picture}" style="max-width:100%">'

    return f"<p>{html.escape(words)}</p>" + "".join(element(*item) for item in figures.items())
