"""Training images per second of a CIFAR ResNet at batch 128, side by side, on two cores.

    python benchmarks/conv.py --data DIR --json benchmarks/results/conv.json
    python benchmarks/conv.py --quick              # does everything run? tiny, on data that come with netdepth
    python benchmarks/conv.py --render FILE        # the table of a file as Markdown

A turn of a baseline is one epoch over --images training images (padded, cropped and flipped at random), always
from the same initial weights and in the same order. Each baseline is a process of its own that sleeps until
its turn; each round gives everyone one turn, in a shuffled order. Peers are timed without imports, reading
data, compiling and warm-up; they evaluate nothing and write nothing. netdepth's time holds two evaluations, records,
checkpoints and the bar. The benchmark stops if the mean training losses of an epoch differ by more than
ALLOWED_DIFFERENCE: all must train the same network on the same images, but draw their own crops.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import conv_report
import epoch

HERE = Path(__file__).resolve().parent
MODULES = {
    "limit": "conv_limit",
    "convolutions": "conv_limit",
    "convolutions-bf16": "conv_limit",
    "notebook": "conv_notebook",
    "eager": "conv_torch",
    "channels-last": "conv_torch",
    "channels-last-pages": "conv_torch",
    "bf16": "conv_torch",
    "bf16-pages": "conv_torch",
    "compiled-bf16": "conv_torch",
    "jax": "conv_jax",
    "netdepth": "conv_netdepth",
    "netdepth-pages": "conv_netdepth",
    "netdepth-bf16": "conv_netdepth",
    "netdepth-bf16-pages": "conv_netdepth",
    "airbench": "conv_airbench",
}
ON_CUDA = ("notebook", "eager", "channels-last", "bf16", "airbench", "netdepth", "netdepth-bf16")
"""Who can train on a GPU."""
PAGES = "-pages"
"""Ending of the names whose processes ask the C library for large pages, as netdepth's workers do."""
ALLOWED_DIFFERENCE = 0.06
"""Nats between the mean losses of an epoch: other crops move them by less, another rate or network by more."""
QUICK: dict[str, Any] = {"dataset": "mnist5k", "depth": 8, "images": 320, "batch_size": 64, "rounds": 1}
QUICK_WITHOUT = ("compiled-bf16", "channels-last-pages", "bf16-pages", "netdepth-pages", "netdepth-bf16-pages")
"""Baselines that differ from another by a flag alone."""


class Player(epoch.Baseline):
    """A baseline's process. ``startup``: seconds until it is ready."""

    def __init__(self, name: str, folder: Path, given: argparse.Namespace) -> None:
        from netdepth.studies.pool import HUGE_PAGES

        left_out = (*epoch.THREAD_SETTINGS, "GLIBC_TUNABLES")
        environment = {key: value for key, value in os.environ.items() if not key.startswith(left_out)}
        # JAX knows no thread setting but the last two.
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "PJRT_NPROC", "NPROC")
        environment |= dict.fromkeys(names, str(given.threads))
        environment |= {"GLIBC_TUNABLES": HUGE_PAGES} if name.endswith(PAGES) else {}
        options: dict[str, Any] = {"folder": folder, "depth": given.depth, "batch-size": given.batch_size}
        options |= {"threads": given.threads, "dataset": given.dataset}
        options |= {"device": given.device, "loaders": given.loaders}
        options |= {} if given.data is None else {"data": Path(given.data).resolve()}
        command = [sys.executable, "-m", f"baselines.{MODULES[name]}", name]
        command += [text for option, value in options.items() for text in (f"--{option}", str(value))]
        self.begin(name, command, environment)

    def document(self) -> dict[str, Any]:
        """What the results keep of it."""
        return {"startup": self.startup, "turns": self.turns}


def write_work(folder: Path, given: argparse.Namespace) -> None:
    """Images, labels, statistics, order and initial weights, as netdepth has them, for every baseline to read.

    Raises:
        SystemExit: there are fewer images than asked for.
    """
    import numpy as np
    import torch
    from baselines.conv_session import spread

    from netdepth.config import Component, RunConfig
    from netdepth.data import Split, load, train_statistics
    from netdepth.data.augment import epoch_order
    from netdepth.training.resolve import build_model, fill_in

    splits = load(Component(given.dataset), data_dir=None if given.data is None else Path(given.data))
    if len(splits.train) < given.images:
        raise SystemExit(f"--images {given.images} is more than the {len(splits.train)} of {given.dataset}")
    chosen = spread(given.images, len(splits.train))
    inputs, labels = splits.train.inputs[chosen], splits.train.labels[chosen]
    np.save(folder / "images.npy", inputs.numpy())
    np.save(folder / "labels.npy", labels.numpy())
    np.save(folder / "statistics.npy", torch.stack(train_statistics(Split(inputs, labels))).float().numpy())
    np.save(folder / "order.npy", epoch_order(0, 0, given.images).numpy())
    config = RunConfig(Component(given.dataset), Component("resnet", {"depth": given.depth}))
    parameters = list(build_model(fill_in(config), splits).parameters())
    kept = [*(p for p in parameters if p.dim() == 4), *parameters[-2:]]
    np.savez(folder / "weights.npz", **{f"p{i}": p.detach().numpy() for i, p in enumerate(kept)})


def measure(names: list[str], folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """All turns of ``names``, interleaved.

    Raises:
        SystemExit: a baseline ended, or trains something else than the others.
    """
    players: list[Player] = []
    shuffler = random.Random(0)
    try:
        for name in names:  # one after another, so that no one warms up in another's way
            players.append(Player(name, folder, given))
            players[-1].get_ready()
            print(f"{name} ready after {players[-1].startup:.1f} s", flush=True)
        for number in range(1, given.rounds + 1):
            for player in shuffler.sample(players, len(players)):
                with utilization(given.device) as busy:
                    player.turn()
                player.turns[-1] |= {"gpu_busy": statistics.fmean(busy) / 100} if busy else {}
            rates = (f"{p.name} {p.turns[-1]['images'] / p.turns[-1]['seconds']:.0f}" for p in players)
            print(f"round {number} of {given.rounds}: images per second: {', '.join(rates)}", flush=True)
            refuse_different_work({p.name: p.turns[-1]["train_loss"] for p in players if "train_loss" in p.turns[-1]})
    finally:
        for player in players:
            player.close()
    return {player.name: player.document() for player in players}


@contextlib.contextmanager
def utilization(device: str) -> Iterator[list[int]]:
    """Percentages of time in which the GPU had a kernel, sampled along; complete afterwards, empty on a CPU."""
    samples: list[int] = []
    if device == "cpu":
        yield samples
        return
    command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "50"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watcher:
        yield samples
        watcher.terminate()
        assert watcher.stdout is not None
        samples += [int(line) for line in watcher.stdout.read().split("\n")[:-1] if line.strip().isdecimal()]


def refuse_different_work(losses: dict[str, float]) -> None:
    """Stop unless the training losses say that all baselines train the same thing.

    Raises:
        SystemExit: they differ.
    """
    if not losses:
        return
    print("training loss: " + ", ".join(f"{name} {loss:.3f}" for name, loss in losses.items()), flush=True)
    middle = statistics.median(losses.values())
    # Written so that NaN is refused as well.
    if apart := [name for name, loss in losses.items() if not abs(loss - middle) <= ALLOWED_DIFFERENCE]:
        raise SystemExit(f"{', '.join(apart)} trains something else: training loss over {ALLOWED_DIFFERENCE} away")


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The options, and the names of those who take part."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="baselines: " + "; ".join(f"{name} ({words})" for name, words in conv_report.WORDS.items()),
    )
    parser.add_argument("--rounds", type=int, default=5, help="turns per baseline")
    parser.add_argument("--images", type=int, default=6400, help="training images of a turn")
    parser.add_argument("--depth", type=int, default=20, help="6n + 2")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dataset", default="cifar10-jpeg")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--loaders", type=int, default=0, help="processes of the notebook's DataLoader")
    parser.add_argument("--only", help=f"some of {','.join(MODULES)}")
    parser.add_argument("--data", type=Path, default=os.environ.get("NETDEPTH_DATA"), help="as netdepth --data")
    parser.add_argument("--json", type=Path, help="write every measured second here")
    parser.add_argument("--render", type=Path, metavar="FILE", help="print the table of FILE and measure nothing")
    parser.add_argument("--quick", action="store_true", help="only see that everything runs; its numbers mean nothing")
    if "--quick" in arguments:
        parser.set_defaults(**QUICK)
    given = parser.parse_args(arguments)
    if min(given.rounds, given.images, given.batch_size, given.threads) < 1 or given.depth < 8 or (given.depth - 2) % 6:
        parser.error("--depth takes 6n + 2 from 8, all other numbers 1 or more")
    if given.images < 16 or given.images < given.batch_size:
        parser.error("--images takes at least 16 and a batch")
    able = ON_CUDA if given.device == "cuda" else [name for name in MODULES if name != "airbench"]
    everyone = [name for name in able if not (given.quick and name in QUICK_WITHOUT)]
    wanted = given.only.split(",") if given.only else everyone
    if unknown := sorted(set(wanted) - set(able)):
        parser.error(f"--only {','.join(unknown)} is unknown; choose from {', '.join(able)}")
    return given, [name for name in MODULES if name in wanted]


def main() -> None:
    given, names = parse(sys.argv[1:])
    if given.render is not None:
        print(conv_report.block(given.render))
        return
    results: dict[str, Any] = {
        "schema": 1,
        "date": date.today().isoformat(),
        "machine": epoch.describe_machine(),
        "load_before": round(os.getloadavg()[0], 2),
        "settings": {
            name: getattr(given, name)
            for name in ("dataset", "depth", "images", "batch_size", "rounds", "threads", "device", "loaders")
        },
        "contestants": {},
    }
    print(f"load average before: {results['load_before']}", flush=True)
    if results["load_before"] > epoch.QUIET_LOAD:
        print("the machine is not quiet: ratios may hold, rates will not", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        write_work(Path(folder), given)
        results["contestants"] = measure(names, Path(folder), given)
    if given.json is not None:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    conv_report.show(results)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
