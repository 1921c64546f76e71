"""A depth study, side by side: plain networks at several depths and seeds on MNIST, in many ways, on two cores.

    python benchmarks/study.py --data DIR --json benchmarks/results/study.json
    python benchmarks/study.py --quick             # does everything run? tiny, on data that come with netdepth
    python tools/publish.py render                 # the tables, from that file

A turn of a baseline is the whole study: every depth and seed trained for --epochs epochs with one
validation pass per epoch. Each baseline is a process of its own that sleeps until its turn; each round
gives everyone one turn, in a shuffled order. "x faster" compares with plain eager PyTorch, one run after
another, two threads, tensors in memory: the faster of its two Adams (foreach, fused). Peers are timed
without imports, reading data, compiling and warm-up; `netdepth study` is timed as a whole command and
without start-up, with records, evaluation, probes, checkpoints and the test part in both. All train from
the same initial weights on the same batches, and the run stops if their training losses (shallowest depth,
first seed) differ by more than 0.01. "remedies" are steps per second of single networks.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import epoch
import study_report

HERE = Path(__file__).resolve().parent
MODULES = {
    "eager-foreach": "study_torch",
    "eager-fused": "study_torch",
    "eager-one-thread": "study_torch",
    "eager-processes": "study_torch",
    "vmap": "study_vmap",
    "baddbmm": "study_baddbmm",
    "jax-scan": "study_jax",
    "jax-vmap": "study_jax",
    "jax-processes": "study_jax",
    "netdepth": "study_netdepth",
    "netdepth-report": "study_netdepth",
    "notebook": "study_notebook",
    "remedies": "study_remedies",
}
ONE_THREAD = ("eager-one-thread", "eager-processes", "jax-processes", "remedies")
"""Threads per process; the others have as many as ``--threads`` says."""
ALLOWED_DIFFERENCE = 1e-2
"""Nats between the training losses of baselines that train the same thing."""
QUICK: dict[str, Any] = {"dataset": "mnist5k", "depths": [2, 4], "seeds": [2], "rounds": 1, "remedies_depth": 4}
QUICK_WITHOUT = ("eager-foreach", "eager-one-thread", "netdepth")
"""Baselines that differ from another by a flag alone."""


class Player(epoch.Baseline):
    """A baseline's process. ``startup``: seconds until it is ready."""

    def __init__(self, name: str, folder: Path, seeds: int, given: argparse.Namespace) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith(epoch.THREAD_SETTINGS)}
        threads = str(1 if name in ONE_THREAD else given.threads)
        if not name.startswith("netdepth"):  # it decides for itself, as it does for a user
            # JAX knows no thread setting but the last two.
            environment |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "PJRT_NPROC", "NPROC"), threads)
        self.seeds = 1 if name == "notebook" else seeds
        depths = [given.remedies_depth] if name == "remedies" else given.depths
        options: dict[str, Any] = {"folder": folder, "seeds": self.seeds, "threads": threads, "dataset": given.dataset}
        options |= {"width": given.width, "epochs": given.epochs, "batch-size": given.batch_size}
        options |= {} if given.data is None else {"data": given.data.resolve()}
        command = [sys.executable, "-m", f"baselines.{MODULES[name]}", name, "--depths", *map(str, depths)]
        command += [text for option, value in options.items() for text in (f"--{option}", str(value))]
        self.begin(name, command, environment)

    def document(self) -> dict[str, Any]:
        """What the results keep of it."""
        return {"startup": self.startup, "seeds_trained": self.seeds, "turns": self.turns}


def write_work(folder: Path, seeds: int, given: argparse.Namespace) -> None:
    """Images, labels, initial weights and orders, as netdepth has them, for every baseline to read."""
    import numpy as np

    from netdepth.config import Component, RunConfig
    from netdepth.data import load
    from netdepth.data.augment import epoch_order
    from netdepth.training.resolve import build_model, fill_in

    splits = load(Component(given.dataset), data_dir=given.data)
    for name, split in (("train", splits.train), ("val", splits.val)):
        np.save(folder / f"{name}_images.npy", split.inputs.squeeze(1).numpy())
        np.save(folder / f"{name}_labels.npy", split.labels.numpy())
    np.save(folder / "statistics.npy", [float(value) for value in splits.statistics])
    for seed in range(seeds):
        orders = [epoch_order(seed, number, len(splits.train)).numpy() for number in range(given.epochs)]
        np.save(folder / f"orders_{seed}.npy", np.stack(orders))
        for depth in given.depths:
            model = Component("mlp", {"width": given.width, "depth": depth, "init": "he"})
            network = build_model(fill_in(RunConfig(Component(given.dataset), model, seed=seed)), splits)
            arrays = {f"p{i}": p.detach().numpy() for i, p in enumerate(network.parameters())}
            np.savez(folder / f"start_{depth}_{seed}.npz", **arrays)


def measure(names: list[str], folder: Path, seeds: int, given: argparse.Namespace) -> dict[str, Any]:
    """All turns of ``names``, interleaved.

    Raises:
        SystemExit: a baseline ended, or trains something else than the others.
    """
    players: list[Player] = []
    shuffler = random.Random(0)
    what = f"{seeds} seeds" if names != ["remedies"] else "remedies"
    try:
        for name in names:  # one after another, so that no one warms up in another's way
            players.append(Player(name, folder, seeds, given))
            if not given.quick:
                players[-1].get_ready()
                print(f"{what}: {name} ready after {players[-1].startup:.1f} s", flush=True)
        for player in players if given.quick else ():
            player.get_ready()
        for number in range(1, given.rounds + 1):
            for player in shuffler.sample(players, len(players)):
                player.turn()
            print(f"{what}: round {number} of {given.rounds}: {', '.join(map(last_turn, players))}", flush=True)
            refuse_different_work({p.name: p.turns[-1]["train_loss"] for p in players if "train_loss" in p.turns[-1]})
    finally:
        for player in players:
            player.close()
    return {player.name: player.document() for player in players}


def last_turn(player: Player) -> str:
    """A baseline's last turn, for the terminal."""
    reply = player.turns[-1]
    if "seconds" not in reply:
        return ", ".join(f"{name} {rate:.0f}/s" for name, rate in reply["steps_per_second"].items())
    return f"{player.name} {reply['seconds']:.1f}" + (f" ({reply['whole']:.1f})" if "whole" in reply else "")


def refuse_different_work(losses: dict[str, float]) -> None:
    """Stop unless the training losses say that all baselines train the same thing.

    Raises:
        SystemExit: they differ.
    """
    if not losses:
        return
    print("training loss: " + ", ".join(f"{name} {loss:.4f}" for name, loss in losses.items()), flush=True)
    middle = statistics.median(losses.values())
    # Written so that NaN is refused as well.
    if apart := [name for name, loss in losses.items() if not abs(loss - middle) <= ALLOWED_DIFFERENCE]:
        raise SystemExit(f"{', '.join(apart)} trains something else: training loss {ALLOWED_DIFFERENCE} or more away")


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The options, and the names of those who take part."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="baselines: " + "; ".join(f"{name} ({words})" for name, words in study_report.WORDS.items()),
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[5, 10], help="a study for each of these numbers")
    parser.add_argument("--depths", type=int, nargs="+", default=[2, 8, 16, 32], help="weight layers, head included")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3, help="turns per baseline")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2, help="of baselines that are one process")
    parser.add_argument("--remedies-depth", type=int, default=16)
    parser.add_argument("--dataset", default="mnist", choices=("mnist", "mnist5k"))
    parser.add_argument("--only", help=f"some of {','.join(MODULES)}")
    parser.add_argument("--data", type=Path, default=os.environ.get("NETDEPTH_DATA"), help="as netdepth --data")
    parser.add_argument("--json", type=Path, help="write every measured second here")
    parser.add_argument("--quick", action="store_true", help="only see that everything runs; its numbers mean nothing")
    if "--quick" in arguments:
        parser.set_defaults(**QUICK)
    given = parser.parse_args(arguments)
    numbers = (*given.seeds, given.epochs, given.rounds, given.width, given.batch_size, given.threads)
    if min(numbers) < 1 or min(*given.depths, given.remedies_depth) < 2:
        parser.error("--depths and --remedies-depth take 2 or more, all other numbers 1 or more")
    everyone = [name for name in MODULES if not (given.quick and name in QUICK_WITHOUT)]
    wanted = given.only.split(",") if given.only else everyone
    if unknown := sorted(set(wanted) - set(MODULES)):
        parser.error(f"--only {','.join(unknown)} is unknown; choose from {', '.join(MODULES)}")
    return given, [name for name in MODULES if name in wanted]


def main() -> None:
    given, names = parse(sys.argv[1:])
    given.depths = sorted(set(given.depths))
    results: dict[str, Any] = {
        "schema": 1,
        "date": date.today().isoformat(),
        "machine": epoch.describe_machine(),
        "load_before": round(os.getloadavg()[0], 2),
        "settings": {
            name: getattr(given, name)
            for name in ("dataset", "depths", "width", "batch_size", "epochs", "rounds", "threads", "remedies_depth")
        },
        "studies": {},
        "remedies": {},
    }
    print(f"load average before: {results['load_before']}", flush=True)
    if results["load_before"] > epoch.QUIET_LOAD:
        print("the machine is not quiet: ratios may hold, seconds will not", flush=True)

    def keep() -> None:
        if given.json is not None:
            given.json.parent.mkdir(parents=True, exist_ok=True)
            given.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")

    with tempfile.TemporaryDirectory() as folder:
        write_work(Path(folder), max(given.seeds), given)
        peers = [name for name in names if name != "remedies"]
        for seeds in given.seeds if peers else ():
            results["studies"][str(seeds)] = measure(peers, Path(folder), seeds, given)
            keep()
        if "remedies" in names:
            results["remedies"] = measure(["remedies"], Path(folder), max(given.seeds), given)["remedies"]
            keep()
    study_report.show(results)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
