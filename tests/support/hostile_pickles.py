"""Pickles that run a command where `pickle.loads` reads them."""

from __future__ import annotations

import os
import pickle
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.cifar_archives import batch_dictionary, batches, python2_pickle

BATCH = batch_dictionary(batches("cifar100")["train"])


class Call:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def hostile_pickles(marker: Path) -> dict[str, bytes]:
    """Pickles that make the file ``marker`` if they are executed."""
    shell = f"touch {marker}"
    python = f"__import__('pathlib').Path({str(marker)!r}).touch()"
    line = shell.encode()
    text = b"U" + bytes([len(line)]) + line
    module = os.system.__module__.encode()
    inside = python2_pickle(BATCH)[:-2]  # without the end of the dictionary
    return {
        "os.system": pickle.dumps(Call(os.system, shell), 2),
        "os.system, as text": b"c" + module + b"\nsystem\n(S'" + line + b"'\ntR.",
        "os.system, protocol 4": pickle.dumps(Call(os.system, shell), 4),
        "builtins.eval": pickle.dumps(Call(eval, python), 2),
        "builtins.exec, Python 2's name": b"c__builtin__\neval\n"
        + b"U"
        + bytes([len(python)])
        + python.encode()
        + b"\x85R.",
        "subprocess": pickle.dumps(Call(subprocess.call, ["touch", str(marker)]), 2),
        "a call within a call": pickle.dumps(Call(list, (Call(map, os.system, [shell]))), 2),
        "a call among the labels": inside + b"U\x01x" + b"c" + module + b"\nsystem\n" + text + b"\x85Ru.",
        "INST": b"(" + text + b"i" + module + b"\nsystem\n.",
        "OBJ": b"(c" + module + b"\nsystem\n" + text + b"o.",
    }
