"""Seconds per MNIST epoch, side by side: 55,000 training images and a validation pass over 5,000.

    python benchmarks/epoch.py --data DIR --rounds 5 --json benchmarks/results/epoch.json
    python benchmarks/epoch.py --render            # docs/benchmarks.md from that file

Every baseline is a process of its own that sleeps until its turn. Each round gives everyone
one turn, in a shuffled order, so that a machine that slows down slows all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

import report

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "epoch.json"
PAGE = HERE.parent / "docs" / "benchmarks.md"
MODULES = {
    "limit": "limit",
    "products": "products",
    "products-onednn": "products",
    "bare": "bare",
    "bare-onednn": "bare",
    "netdepth": "netdepth",
    "jax-scan": "jax_scan",
    "keras-jax": "keras_jax",
    "lightning": "lightning",
    "lightning-default": "lightning",
    "notebook": "notebook",
}
QUIET_LOAD = 0.5
"""Load average above which something else is at work: two threads that wait for each other suffer most."""
THREAD_SETTINGS = ("OMP_", "MKL_", "KMP_", "GOMP_", "OPENBLAS_", "XLA_", "ONEDNN_", "DNNL_", "TORCH_", "KERAS_", "JAX_")


class Baseline:
    """A baseline's process, as the driver sees it."""

    def __init__(self, name: str, batch_size: int, threads: int, arrays: Path, data: Path | None) -> None:
        environment = {key: value for key, value in os.environ.items() if not key.startswith(THREAD_SETTINGS)}
        count = str(threads)
        # JAX knows no thread setting but these two.
        environment |= {"OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count, "PJRT_NPROC": count, "NPROC": count}
        command = [sys.executable, "-m", f"baselines.{MODULES[name]}", name, "--arrays", str(arrays)]
        command += ["--batch-size", str(batch_size), "--threads", count]
        command += ["--data", str(data.resolve())] if data is not None else []
        self.begin(name, command, environment)

    def begin(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        """Start the process; ``startup`` counts from here."""
        self.name = name
        self.turns: list[dict[str, Any]] = []
        self.log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (closed in `close`)
        self.startup = time.perf_counter()
        self.process = subprocess.Popen(
            command,
            cwd=HERE,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            bufsize=1,
        )

    def get_ready(self) -> None:
        """Wait for the word that it is ready, of a baseline that says so; ``startup`` are then its seconds."""
        self.listen()
        self.startup = time.perf_counter() - self.startup
        self.turns.clear()

    def listen(self) -> dict[str, Any]:
        """Wait for the epoch to end.

        Raises:
            SystemExit: the process ended instead; its last lines are shown.
        """
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.log.seek(0)
            tail = self.log.read().decode(errors="replace").splitlines()[-20:]
            raise SystemExit("\n".join([*tail, f"{self.name} ended with status {self.process.wait()}"]))
        reply: dict[str, Any] = json.loads(line)
        self.turns.append(reply)
        return reply

    def turn(self) -> dict[str, Any]:
        """One more epoch."""
        assert self.process.stdin is not None
        self.process.stdin.write("epoch\n")
        return self.listen()

    def close(self) -> None:
        """End the process: at its turn it finds the line closed."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.log.close()


def measure(
    names: list[str], batch_size: int, threads: int, rounds: int, arrays: Path, data: Path | None
) -> dict[str, list[dict[str, Any]]]:
    """All turns of all baselines at one batch size, the warm-up first."""
    baselines: list[Baseline] = []
    shuffler = random.Random(0)
    try:
        for name in names:  # one after another, so that no one warms up in another's way
            baselines.append(Baseline(name, batch_size, threads, arrays, data))
            seconds = baselines[-1].listen()["seconds"]
            print(f"batch {batch_size}: {name} {'is' if name == 'limit' else 'warm-up'} {seconds:.2f} s", flush=True)
        for number in range(1, rounds + 1):
            for baseline in shuffler.sample(baselines, len(baselines)):
                baseline.turn()
            line = ", ".join(f"{c.name} {c.turns[-1]['seconds']:.2f}" for c in baselines)
            print(f"batch {batch_size}: round {number} of {rounds}: {line}", flush=True)
    finally:
        for baseline in baselines:
            baseline.close()
    return {baseline.name: baseline.turns for baseline in baselines}


def write_arrays(folder: Path, data: Path | None) -> None:
    """MNIST, split as netdepth splits it, as arrays that every baseline can read."""
    import numpy as np

    from netdepth.config import Component
    from netdepth.data import load

    splits = load(Component("mnist"), data_dir=data)
    for name, split in (("train", splits.train), ("val", splits.val)):
        np.save(folder / f"{name}_images.npy", split.inputs.squeeze(1).numpy())
        np.save(folder / f"{name}_labels.npy", split.labels.numpy())


def describe_machine() -> dict[str, Any]:
    """The processor and the versions that made the numbers."""
    import torch

    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        fields = dict(line.split(":", 1) for line in info.read_text().split("\n\n")[0].splitlines() if ":" in line)
        values = {key.strip(): value.strip() for key, value in fields.items()}
        cpu = f"{values.get('model name', cpu)}, family {values.get('cpu family')}, model {values.get('model')}"
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "versions": {name: version_of(name) for name in ("netdepth", "torch", "jax", "keras", "lightning", "numpy")},
    }


def version_of(name: str) -> str | None:
    """The installed version, None where it is not installed (netdepth can run from a checkout)."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="turns per baseline after its warm-up")
    parser.add_argument("--batch-size", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", help=f"some of {','.join(MODULES)}; the limit is always measured")
    parser.add_argument("--data", type=Path, default=os.environ.get("NETDEPTH_DATA"), help="as netdepth --data")
    parser.add_argument("--json", type=Path, help="write every measured second here")
    parser.add_argument("--render", action="store_true", help=f"write {PAGE.name} from {RESULTS.name} and stop")
    given = parser.parse_args()
    if given.render:
        print(f"{PAGE} {'written' if report.render(RESULTS, PAGE) else 'is up to date'}")
        return
    names = list(MODULES)
    if given.only:
        wanted = given.only.split(",")
        if unknown := sorted(set(wanted) - set(MODULES)):
            parser.error(f"--only {','.join(unknown)} is unknown; choose from {', '.join(MODULES)}")
        names = ["limit", *(name for name in MODULES if name in wanted and name != "limit")]
    if given.rounds < 1 or given.threads < 1 or min(given.batch_size) < 1:
        parser.error("--rounds, --threads and --batch-size take 1 or more")

    results: dict[str, Any] = {
        "schema": 1,
        "date": date.today().isoformat(),
        "machine": describe_machine(),
        "threads": given.threads,
        "rounds": given.rounds,
        "load_before": round(os.getloadavg()[0], 2),
        "batches": {},
    }
    if results["load_before"] > QUIET_LOAD:
        print(
            f"the machine is not quiet (load {results['load_before']}): ratios may hold, seconds will not", flush=True
        )
    with tempfile.TemporaryDirectory() as folder:
        write_arrays(Path(folder), given.data)
        for batch_size in given.batch_size:
            turns = measure(names, batch_size, given.threads, given.rounds, Path(folder), given.data)
            results["batches"][str(batch_size)] = turns
            if given.json is not None:
                given.json.parent.mkdir(parents=True, exist_ok=True)
                given.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
            report.show(batch_size, turns)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
