"""The lab as a notebook: ``notebooks/lab1.py`` is written by hand, ``notebooks/lab1.ipynb`` is what it says.

    python tools/notebook.py               execute the small version and write notebooks/lab1.ipynb
    python tools/notebook.py full FOLDER   execute the full version and write docs/lab1.md and its pictures

The small one is executed from nothing, in a folder of its own, as a reader would do it. The full one takes an hour
and a half and makes its runs in FOLDER, where a run that is there already is not made again; it needs nbconvert
(pip install nbconvert), which nothing else here does.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "notebooks" / "lab1.py"
REPORT = ROOT / "docs" / "lab1.md"
PICTURES = "figures/lab1"
MAX_BYTES = 1_500_000
MADE = """\
<!-- Made by tools/notebook.py from the executed notebook; not written by hand. -->

*The full version of [notebooks/lab1.ipynb](../notebooks/lab1.ipynb) as it came out once, without its code:
`NETDEPTH_LAB=full`, on MNIST and CIFAR-10 (JPEG).*

"""


def executed(source: Path, folder: Path, lab: str = "small") -> Any:
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
    client.execute(env={**own, "NETDEPTH_LAB": lab, "NETDEPTH_RUNS": "runs"})
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return notebook


def write_notebook(notebook: Any) -> None:
    """Write ``notebooks/lab1.ipynb``.

    Raises:
        SystemExit: it is too large to keep.
    """
    import nbformat

    text = nbformat.writes(notebook) + "\n"
    if len(text) > MAX_BYTES:
        raise SystemExit(f"the notebook has {len(text):,} bytes, more than {MAX_BYTES:,}: make its pictures smaller")
    SOURCE.with_suffix(".ipynb").write_text(text)


def write_report(notebook: Any) -> None:
    """Write ``docs/lab1.md``: text and output of all cells, pictures beside it."""
    from nbconvert import MarkdownExporter

    exporter = MarkdownExporter(exclude_input=True)
    text, resources = exporter.from_notebook_node(notebook, {"output_files_dir": PICTURES})
    text = re.sub(r"<style.*?</style>\n?", "", text, flags=re.DOTALL)  # a page of Markdown shows it as text
    shutil.rmtree(REPORT.parent / PICTURES, ignore_errors=True)
    for name, content in resources["outputs"].items():
        (REPORT.parent / name).parent.mkdir(parents=True, exist_ok=True)
        (REPORT.parent / name).write_bytes(content)
    REPORT.write_text(MADE + re.sub(r"\n{3,}", "\n\n", text).strip() + "\n")


if __name__ == "__main__":
    match sys.argv[1:]:
        case []:
            with tempfile.TemporaryDirectory() as made:
                write_notebook(executed(SOURCE, Path(made)))
        case ["full", folder]:
            Path(folder).mkdir(parents=True, exist_ok=True)
            write_report(executed(SOURCE, Path(folder), "full"))
        case _:
            raise SystemExit(__doc__)
