"""The process a run is made in: device, threads, numeric routes, and what is recorded of them.

Each of these changes the bits of a result without changing what is computed, so they stand in
``environment.json`` and a resumed run restores them.
"""

from __future__ import annotations

import functools
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

import netdepth
from netdepth.config import Runtime
from netdepth.errors import BadInput, choose
from netdepth.files.pictures import decoder
from netdepth.runs import Environment
from netdepth.training.parallel import ALONE, Team

__all__ = ["Process", "configure", "environment", "find_device"]

CHECKOUT = Path(__file__).resolve().parents[3]

MAX_DEFAULT_THREADS = 4
"""More than this has not been measured to pay; ``--threads`` overrides."""

ONE_THREAD_BELOW = 2**24
"""Multiply-adds per step below which one thread is the default: two gain under a fifth there, and on a
machine that does anything else they wait for each other (measured: up to ten times slower)."""


@dataclass(frozen=True)
class Process:
    """How this process computes."""

    device: torch.device
    threads: int
    matmul: str
    """"mkl" or "onednn": the library that multiplies float32 matrices on a CPU."""
    memory_format: str
    """"channels_last" or "contiguous": how convolutions and their images lie in memory (`Stack`)."""
    team: Team = ALONE
    """The processes that make the run together with this one."""


def configure(
    runtime: Runtime, multiply_adds: int = 0, recorded: Environment | None = None, team: Team = ALONE
) -> Process:
    """Set threads, device and numeric routes of this process, as ``recorded`` where a run is resumed.

    The default number of threads follows from the ``multiply_adds`` of a training step's forward
    pass, of which each rank of ``team`` has its share, and the cores there are for it, never from a stopwatch.

    Raises:
        BadInput: a device that is not there, a thread count out of range, or a recorded
            environment that cannot be restored here.
    """
    if recorded is not None:
        refuse_changed(runtime, recorded, team)
    device = find_device(team.device(recorded.device if recorded else runtime.device))
    threads = recorded.threads if recorded else runtime.threads
    if threads is None:
        cores = max(1, available_cores() // team.on_this_machine)
        threads = 1 if multiply_adds // team.world < ONE_THREAD_BELOW else min(cores, MAX_DEFAULT_THREADS)
    if not 1 <= threads <= 1024:
        raise BadInput(f"--threads {threads} is out of range; it takes 1 to 1024")
    torch.set_num_threads(threads)
    # Denormals make a fused Adam update three times slower and carry no information.
    torch.set_flush_denormal(True)
    matmul = recorded.matmul if recorded else _matmul_route() if device.type == "cpu" else "mkl"
    torch.set_float32_matmul_precision("medium" if matmul == "onednn" else "highest")
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False  # float32 is float32; less precision is the setting bf16
        torch.backends.cudnn.benchmark = True  # batches have two shapes, the last of an epoch its own
    memory_format = recorded.memory_format if recorded else "channels_last"
    return Process(device, threads, matmul, memory_format, team)


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def refuse_changed(runtime: Runtime, recorded: Environment, team: Team) -> None:
    """Raise BadInput if what is asked for would give a run that was ``recorded`` other bits."""
    then = recorded.world_size
    if then != team.world:
        begun, how = f"{then} processes", f"with torchrun --nproc-per-node {then}"
        if then == 1:
            begun, how = "one process", "without torchrun"
        raise BadInput(
            f"this run was started in {begun}, not {team.world}, which changes its bits; continue it {how}, or "
            f"train it anew in another --runs folder"
        )
    asked = {"device": None if runtime.device == "auto" else runtime.device, "threads": runtime.threads}
    now = {**{key: value for key, value in asked.items() if value is not None}, "torch": torch.__version__}
    for key, value in now.items():
        before = getattr(recorded, key)
        if before != value:
            raise BadInput(
                f"this run was started with {key} = {before}, not {value}, which changes its bits; "
                f"continue it with {key} = {before}, or train it anew in another --runs folder"
            )


def find_device(name: str) -> torch.device:
    """The device that ``--device`` names; raises BadInput with those that are here."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    good = ["auto", "cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if torch.cuda.is_available():
        good.append("cuda")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise BadInput(f"--device {name!r}: PyTorch finds no GPU on this machine; choose from: auto, cpu")
    return torch.device(choose(name, good, "--device"))


def _matmul_route() -> str:
    """oneDNN where it is exact in float32 and the CPU is one that MKL serves with AVX2 only."""
    if "AMD" not in cpu_model() or torch.backends.cpu.get_cpu_capability() != "AVX512":
        return "mkl"
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(256, 256, generator=generator) for _ in range(2))
    torch.set_float32_matmul_precision("medium")
    error = ((a @ b).double() - a.double() @ b.double()).abs().max()
    return "onednn" if float(error) < 1e-3 else "mkl"


def cpu_model() -> str:
    """The processor's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def environment(process: Process, seeds: Sequence[int]) -> Environment:
    """What ``environment.json`` records: an explicit list, never the process's environment."""
    import numpy

    commit, dirty = _code_version()
    return Environment(
        netdepth=netdepth.__version__,
        commit=commit,
        uncommitted_changes=dirty,
        python=platform.python_version(),
        torch=torch.__version__,
        numpy=numpy.__version__,
        pictures=decoder(),
        system=f"{platform.system()} {platform.machine()}",
        cpu=cpu_model(),
        capability=torch.backends.cpu.get_cpu_capability(),
        cores=available_cores(),
        device=str(process.device) if process.team.world == 1 else process.device.type,
        device_name=torch.cuda.get_device_name(process.device) if process.device.type == "cuda" else None,
        threads=process.threads,
        matmul=process.matmul,
        memory_format=process.memory_format,
        world_size=process.team.world,
        backend=process.team.backend(process.device),
        flush_denormal=True,
        deterministic=process.device.type == "cpu",
        made="alone" if len(seeds) == 1 else "cohort",
        stack=len(seeds),
        seeds=tuple(seeds),
    )


@functools.cache
def _code_version(root: Path = CHECKOUT) -> tuple[str | None, bool | None]:
    """Commit of a checkout, that which this package runs from, and whether it was changed; None if it is none.

    Asked once per process: the code that it runs was imported before.
    """
    if not (root / ".git").exists() or sys.platform == "win32":
        return None, None
    # Without a lock: a run that is interrupted here ends git, and a lock that stays closes the checkout to its user.
    git = ["git", "--no-optional-locks", "-C", str(root)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True)
        status = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None, None
    return head.stdout.strip(), bool(status.stdout.strip())
