"""Make the store that stands for a release: ``python tests/faults/make_store.py tests/faults/stores/<version>``.

It holds a finished run, one that was interrupted, a diverged one, and a study. Made once for every
release and then kept as it is: `test_old_stores` asks each later version to read all of them.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from netdepth.config import Component, RunConfig, Runtime, TrainConfig
from netdepth.errors import Interrupted
from netdepth.progress import TrainProgress
from netdepth.studies.run import run_study
from netdepth.studyspec import Axis, Primary, StudySpec
from netdepth.training.run import run

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support.folders import make

CONFIG = RunConfig(
    Component("mnist5k"),
    Component("mlp", {"hidden": [2]}),
    optimizer=Component("sgd", {"lr": 0.05}),
    train=TrainConfig(budget="2ep"),
    seed=7,
)


class Interrupting(TrainProgress):
    """Ctrl-C after the first evaluation."""

    def evaluated(self, record: Any) -> None:
        raise KeyboardInterrupt


def single(runtime: Runtime) -> None:
    """A run that completed, one that was interrupted and one that diverged."""
    run(CONFIG, runtime, name="kept", quiet=True)
    try:
        run(CONFIG.with_seed(8), runtime, name="kept", watch=lambda *about: Interrupting(*about, shown=False))
    except Interrupted:
        pass
    else:
        raise SystemExit("the run was not interrupted")
    hot = Component("sgd", {"lr": 1e9})
    lost = RunConfig(CONFIG.dataset, CONFIG.model, optimizer=hot, train=CONFIG.train)
    assert run(lost, runtime, name="lost", quiet=True).result["status"] == "diverged"


def study(runtime: Runtime) -> None:
    """Two depths and two seeds, on pictures of four pixels by four."""
    pictures = make(Path("pictures"), train=6, test=2)
    base = RunConfig(
        Component("image-folder", {"path": str(pictures), "channels": 1}),
        Component("mlp", {"width": 4}),
        train=TrainConfig(budget="3ep", batch_size=4),
    )
    spec = StudySpec(
        name="tiny",
        question="Does a later netdepth still read this?",
        base=base,
        scientific=(Axis.of_depths((2, 4)), Axis("condition", {"plain": {"model.shortcut": "none"}})),
        seeds=(0, 1),
        primary=(Primary("depth", 4, "plain"),),
        smallest_effect=0.02,
    )
    run_study(spec, runtime, workers=0, progress=False)


def main(target: str) -> None:
    """Make the store in a folder of its own, so that no path of this machine stands in it."""
    where = Path(target).absolute()
    if where.exists():
        raise SystemExit(f"{target} is there; a store of a release is made once")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["XDG_CACHE_HOME"] = folder
        runtime = Runtime(device="cpu", threads=1, trackers=(), runs_root=Path("runs"))
        single(runtime)
        study(runtime)
        made_again = shutil.ignore_patterns(".lock", "figures")
        shutil.copytree("runs", where, ignore=made_again)


if __name__ == "__main__":
    main(*sys.argv[1:])
