"""``netdepth doctor``: what works here, found by looking and trying, nothing left behind."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from netdepth.config import Runtime
from netdepth.errors import NetdepthError
from netdepth.runs.folder import runs_root

__all__ = ["Check", "examine"]

TRACKER_PACKAGES = ("tensorboard", "wandb")


@dataclass(frozen=True)
class Check:
    """One thing looked at: ``ok``, ``missing`` (something works less) or ``bad`` (training cannot work)."""

    what: str
    state: Literal["ok", "missing", "bad"]
    found: str


def examine(runtime: Runtime) -> list[Check]:
    """Versions, device, threads, trackers, data, and whether cache and runs folder can be written."""
    from netdepth.data.fetch import user_cache

    return [
        *_machine(runtime),
        *(_tracker(package) for package in TRACKER_PACKAGES),
        *_data(runtime),
        _writable("runs folder", runs_root(runtime.runs_root)),
        _writable("data cache", user_cache()),
    ]


def _machine(runtime: Runtime) -> list[Check]:
    import torch

    from netdepth import __version__
    from netdepth.training.process import ONE_THREAD_BELOW, configure, environment

    versions = f"netdepth {__version__}, Python {platform.python_version()}, torch {torch.__version__}"
    checks = [Check("versions", "ok", versions)]
    try:
        found = environment(configure(runtime, ONE_THREAD_BELOW), seeds=(0,))
    except NetdepthError as error:
        return [*checks, Check("device", "bad", str(error))]
    name = found["device_name"] or found["cpu"]
    checks.append(Check("device", "ok", f"{found['device']} ({name})"))
    few = "" if runtime.threads else ", 1 for small networks"
    threads = f"{found['threads']} of {found['cores']} cores{few}; matrix products by {found['matmul']}"
    checks.append(Check("threads", "ok", threads))
    checks.append(Check("cost", "ok", f"an epoch of the baseline on MNIST takes about {_baseline_epoch():.1f} s"))
    if found["deterministic"]:
        checks.append(Check("repeatable", "ok", "the same seed on this machine gives the same bits"))
    else:
        checks.append(Check("repeatable", "missing", "the same seed may give other bits on this device"))
    return checks


def _baseline_epoch() -> float:
    """Seconds for 860 steps of the baseline's network at batch 64, from the fastest of three short trials."""
    import torch

    from netdepth import models
    from netdepth.training.gradients import choose_gradients
    from netdepth.training.objectives import CrossEntropy
    from netdepth.training.optim import Adam
    from netdepth.training.stack import Stack

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as a run of this size does
    model = models.build("mlp", (1, 28, 28), 10, hidden=[256, 128])
    stack = Stack([model])
    gradients = choose_gradients(stack, CrossEntropy(0.0))
    optimizer = Adam(stack.flat, 1e-3, (0.9, 0.999), 1e-8, 0.0, decoupled=False)
    images = torch.randint(0, 256, (64, 1, 28, 28), dtype=torch.uint8)
    labels = torch.arange(64) % 10
    trials = []
    for _ in range(3):
        start = time.perf_counter()
        for _ in range(40):
            gradients(images, labels)
            optimizer.step(1e-3)
        trials.append(time.perf_counter() - start)
    torch.set_num_threads(threads)
    return min(trials) / 40 * 860


def _tracker(package: str) -> Check:
    if importlib.util.find_spec(package) is None:
        return Check(package, "missing", f"not installed; training works without it: pip install {package}")
    return Check(package, "ok", f"version {importlib.metadata.version(package)}")


def _data(runtime: Runtime) -> list[Check]:
    from netdepth.data.manage import list_datasets

    checks = []
    for row in list_datasets(runtime.data_dir):
        here = row.where != "not here" and " of " not in row.where
        hint = "" if here else f"; get it with: netdepth data fetch {row.name}"
        checks.append(Check(f"data {row.name}", "ok" if here else "missing", row.where + hint))
    return checks


def _writable(what: str, path: Path) -> Check:
    """Try a file in ``path``, or in the nearest folder above it that exists; it is gone afterwards."""
    folder = path.absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return Check(what, "bad", f"cannot write {folder}: {error.strerror or error}")
    return Check(what, "ok", f"{path} ({'writable' if folder == path.absolute() else 'can be made'})")
