"""What drills stand on: a store to damage, a command line run in this process, a look at what was touched."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netdepth.cli import main

STORES = Path(__file__).parent / "stores"
STORE = STORES / "0.1.0"
FINISHED, INTERRUPTED = "kept-mnist5k-s7", "kept-mnist5k-s8"
"""Beginnings of the names of two of its runs."""


@dataclass(frozen=True)
class Answer:
    """What a command line answered."""

    code: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The one line of a refusal."""
        assert self.code in (2, 74), f"exit {self.code}: {self.out[-300:]}{self.err[-300:]}"
        assert self.err.count("\n") == 1, self.err
        assert self.err.startswith("netdepth: error: "), self.err
        assert "internal error" not in self.err, self.err
        assert self.err[:-1].isprintable(), self.err
        return self.err.strip()


def answer(*argv: object) -> Answer:
    """Run a command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(word) for word in argv])
    return Answer(code, out.getvalue(), err.getvalue())


def store_at(root: Path, of: Path = STORE) -> Path:
    """A copy of the store at ``root``, with stamps as files that were made here."""
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(of, root, copy_function=shutil.copyfile)
    return root


def run_at(store: Path, begins: str = FINISHED, study: str = "single") -> Path:
    """The folder of one run."""
    (found,) = (store / study).glob(f"{begins}*")
    return found


def alter_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Let ``change`` work on the document in ``path``."""
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def resign(run: Path, name: str, data: bytes) -> None:
    """Put ``data`` in place of a file of the newest checkpoint, with digests that agree everywhere."""
    folder = max((run / "checkpoints").iterdir(), key=lambda path: int(path.name))
    (folder / name).write_bytes(data)
    sha256 = hashlib.sha256(data).hexdigest()
    alter_json(folder / "MANIFEST.json", lambda manifest: manifest["sha256"].update({name: sha256}))
    if name == "model.safetensors" and (run / "result.json").exists():
        alter_json(run / "result.json", lambda result: result.update(weights_sha256=sha256, reported="last"))


def tree(root: Path, without: Sequence[Path] = ()) -> dict[str, str]:
    """Every file and link below ``root`` with what it holds; what lies below ``without`` is left out."""
    found = {}
    for path in sorted(root.rglob("*")):
        if any(path.is_relative_to(part) for part in without):
            continue
        if path.is_symlink():
            found[str(path)] = f"-> {path.readlink()}"
        elif path.is_file():
            found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            found[str(path)] = "folder" if path.is_dir() else "special"
    return found
