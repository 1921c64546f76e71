"""The lab as a notebook: ``notebooks/lab1.py`` is written by hand, ``notebooks/lab1.ipynb`` is what it says.

    python tools/notebook.py      execute the small version and write notebooks/lab1.ipynb

It is executed from nothing, in a folder of its own, as a reader would do it.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).resolve().parents[1] / "notebooks" / "lab1.py"
MAX_BYTES = 1_500_000


def executed(source: Path, folder: Path) -> Any:
    """The notebook of the percent-format file ``source``, all cells run in ``folder``; a failing cell raises.

    What cells print on the error stream, which is progress, is left out: it differs from run to run.
    """
    import jupytext
    from nbclient import NotebookClient

    notebook = jupytext.read(source)
    for index, cell in enumerate(notebook.cells):
        cell.id = f"cell-{index}"
    own = {key: value for key, value in os.environ.items() if not key.startswith("NETDEPTH_LAB")}
    place = {"metadata": {"path": str(folder)}}
    client = NotebookClient(notebook, timeout=None, kernel_name="python3", record_timing=False, resources=place)
    client.execute(env={**own, "NETDEPTH_RUNS": "runs"})
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return notebook


def main() -> None:
    import nbformat

    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        notebook = executed(SOURCE, Path(folder))
    text = nbformat.writes(notebook) + "\n"
    if len(text) > MAX_BYTES:
        raise SystemExit(f"the notebook has {len(text):,} bytes, more than {MAX_BYTES:,}: make its pictures smaller")
    SOURCE.with_suffix(".ipynb").write_text(text)
    seconds = time.monotonic() - began
    print(f"{SOURCE.with_suffix('.ipynb')}: {len(text):,} bytes, {seconds:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
