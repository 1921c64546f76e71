"""Many commands in one process that watches the network: ``python quiet.py FOLDER`` prints what was asked of it.

The watching is a ``sitecustomize`` that every Python process below inherits, so that workers, trackers and
decoders are watched too. A line of JSON per command: its words and its exit code.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

WATCH = """
import os, sys

OUTWARD = {"socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo",
           "socket.gethostbyname", "socket.gethostbyaddr"}
HERE = ("127.", "::1", "localhost")

def watch(event, arguments):
    if event not in OUTWARD:
        return
    address = arguments if event.startswith("socket.get") else arguments[1]
    host = address[0] if isinstance(address, tuple) and address else address
    if isinstance(address, tuple) and isinstance(host, str) and not host.startswith(HERE):
        with open(os.environ["NETDEPTH_WATCH"], "a") as log:
            log.write(f"{event} {address!r} {sys.argv}\\n")
        raise OSError("the network is not to be used here")

sys.addaudithook(watch)
"""
RECIPE = Path(__file__).parents[1] / "support" / "tiny_studies.py"


def commands(root: Path, store: Path) -> list[list[str]]:
    """Everything that a person does without asking for a download or an upload."""
    small = ["--set", "model.hidden=[4]", "--set", "train.budget=1ep"]
    study = f"{root}/my.py:tiny"
    return [
        ["train", "baseline-mlp", "--dataset", "mnist5k", *small, "--track", "tensorboard,wandb"],
        ["train", "baseline-mlp", "--dataset", "mnist", *small, "--data", str(root)],
        ["study", study, "--workers", "2"],
        ["report", "mine"], ["report", "mine", "--check"], ["verdict", "mine"],
        ["compare", "baseline-mlp"], ["inspect", "baseline-mlp"], ["runs", "list"], ["runs", "gc"],
        ["predict", "baseline-mlp", f"{root}/x.png"],
        ["explain", "baseline-mlp", "--count", "10"],
        ["landscape", "baseline-mlp", "--grid", "3", "--images", "50"],
        ["probe", "baseline-mlp", "--dataset", "mnist5k", "--images", "200"],
        ["sync", "baseline-mlp", "--to", "tensorboard"], ["sync", "baseline-mlp", "--to", "wandb"],
        ["list", "models", "-v"], ["data", "list"], ["data", "verify", "mnist5k"], ["doctor"],
        ["convert", f"{root}/w.pth"],
        ["export", "baseline-mlp", "--to", "safetensors", "--out", f"{root}/out.safetensors"],
    ]  # fmt: skip


def main(folder: str) -> None:
    root = Path(folder)
    from netdepth.cli import main as command

    sys.path.insert(0, str(Path(__file__).parents[1]))
    import torch
    from PIL import Image
    from support.tiny_studies import RECIPE as recipe

    torch.save({"a": torch.ones(2)}, root / "w.pth")
    Image.new("L", (28, 28)).save(root / "x.png")
    (root / "my.py").write_text(recipe)
    store = root / "runs"
    for argv in commands(root, store):
        code = command([*argv, "--runs", str(store)])
        print(json.dumps(["QUIET", argv, code]), flush=True)


if __name__ == "__main__":
    if "NETDEPTH_WATCH" not in os.environ:  # begin again as a process that is watched from its start
        root = Path(sys.argv[1])
        watched = root / "watched"
        watched.mkdir()
        (watched / "sitecustomize.py").write_text(WATCH)
        paths = os.pathsep.join([str(watched), *filter(None, sys.path[1:])])
        environment = {**os.environ, "PYTHONPATH": paths, "NETDEPTH_WATCH": str(root / "asked.txt")}
        os.execve(shutil.which(sys.executable) or sys.executable, [sys.executable, *sys.argv], environment)
    main(sys.argv[1])
