"""What drills interrupt: small trainings of every kind, how each is begun, and when two of them are equal."""

from __future__ import annotations

import dataclasses
import json
import random
import sys
from pathlib import Path
from typing import Any

from PIL import Image
from support import real_stacks
from support.folders import CLASSES

from faults.kill import Children
from netdepth.cli import main
from netdepth.config import Component, EarlyStopping, RunConfig, TrainConfig, to_json
from netdepth.errors import NetdepthError
from netdepth.report.check import check_report
from netdepth.runs.folder import RunDir
from netdepth.studies.folder import StudyDir

MLP = RunConfig(
    dataset=Component("mnist5k"),
    model=Component("mlp", {"hidden": [16], "dropout": 0.2}),
    optimizer=Component("adam", {"lr": 0.02}),
    train=TrainConfig(budget="40ep", batch_size=64, early_stopping=EarlyStopping(patience=2)),
)
CNN = RunConfig(
    dataset=Component("image-folder", {"path": "PICTURES", "size": 12}),
    model=Component("resnet", {"depth": 8, "width": 4}),
    augmentation=Component("crop-flip", {"pad": 2}),
    optimizer=Component("sgd", {"lr": 0.05, "momentum": 0.9}),
    train=TrainConfig(budget="8ep", batch_size=16),
)
STUDY = """
from netdepth.config import Component, RunConfig, TrainConfig
from netdepth.studyspec import Axis, StudySpec

def drill():
    "Plain nets of two depths, a stack of two seeds of each."
    train = TrainConfig(budget="30it", eval_every="10it", batch_size=64)
    base = RunConfig(Component("mnist5k"), Component("mlp", {"width": 8}), train=train)
    axes = (Axis.of_depths((2, 4)),)
    return StudySpec("drill", "Does it continue?", base, axes, seeds=(0, 1), primary=(), smallest_effect=0.1)
"""


def pictures(root: Path) -> Path:
    """A folder of noisy pictures whose brighter half tells the class."""
    draw = random.Random(0)
    for part, count in (("train", 32), ("val", 8), ("test", 8)):
        for label, name in enumerate(CLASSES):
            for index in range(count):
                path = root / part / name / f"{index:02}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                bright = [
                    draw.randrange(60, 256) if (i < 72) == bool(label) else draw.randrange(196) for i in range(144)
                ]
                picture = Image.new("L", (12, 12))
                picture.putdata(bright)
                picture.save(path)
    return root


def command(root: str, *argv: str) -> int:
    """The command line with its runs in ``root``."""
    return main([*argv, "--runs", root])


def stack(root: str) -> int:
    """Three seeds as one stack, which stop at different epochs."""
    try:
        made = real_stacks.make_stack(Path(root), real_stacks.ENDING, probes=True)
    except NetdepthError as error:
        print(f"netdepth: error: {error}")
        return error.exit_code
    print("\n".join(real_stacks.notes(made)))
    return 0


def save_and_prune(root: str, step: int) -> int:
    """What the engine does with a checkpoint; its content is that of the drill of saves."""
    from faults.test_disk import NEW

    run = RunDir(Path(root))
    with run.lock():
        run.save_checkpoint(step, NEW)
        run.drop_checkpoints({step})
    return 0


@dataclasses.dataclass(frozen=True)
class Subject:
    """A training called ``name``: ``call`` (a function of the root of its runs and ``args``) makes or continues it."""

    name: str
    call: str
    args: tuple[str, ...] = ()

    def job(self, root: Path, out: Path, shims: list[list[Any]]) -> dict[str, Any]:
        """As `faults.child` takes it."""
        args = [str(root), *self.args]
        return {"call": f"faults.subjects:{self.call}", "args": args, "out": str(out), "shims": shims}

    def line(self, root: Path, workers: int = 0) -> list[str]:
        """As a command line of a process of its own; not for a stack, which has no command."""
        assert self.call == "command"
        args = list(self.args)
        if "--workers" in args:
            args[args.index("--workers") + 1] = str(workers)
        return [sys.executable, "-m", "netdepth", *args, "--runs", str(root)]

    def folders(self, root: Path) -> list[RunDir]:
        """Its run folders, by name."""
        return [RunDir(path) for path in sorted(root.glob("*/*-s*")) if path.is_dir()]

    def compare(self, whole: Path, found: Path) -> None:
        """Raise AssertionError unless everything but wall-clock time is equal, bit for bit."""
        expected, made = self.folders(whole), self.folders(found)
        assert [run.path.name for run in expected] == [run.path.name for run in made]
        for a, b in zip(expected, made, strict=True):
            real_stacks.same_folder(a, b)
        for study in whole.glob("*/study.json"):
            other = found / study.relative_to(whole)
            assert other.read_bytes() == study.read_bytes()
            assert (other.parent / "verdict.json").read_bytes() == (study.parent / "verdict.json").read_bytes()
            assert check_report(StudyDir(other.parent)).faults == ()

    def complete(self, children: Children, whole: Path, root: Path) -> None:
        """Let the training in ``root`` end in a process of its own; it must equal the one in ``whole``."""
        out = root.with_suffix(".again.txt")
        trace = children.run(self.job(root, out, []))
        assert trace.status == 0, out.read_text()[-500:]
        self.compare(whole, root)


def subjects(root: Path) -> dict[str, Subject]:
    """Every subject by name; ``root`` takes the files that they need."""
    root.mkdir(parents=True, exist_ok=True)
    cnn = dataclasses.replace(CNN, dataset=Component("image-folder", {**CNN.dataset.args, "path": str(pictures(root))}))
    for name, config in (("mlp", MLP), ("cnn", cnn)):
        (root / f"{name}.json").write_text(json.dumps(to_json(config)))
    (root / "drill.py").write_text(STUDY)
    alone = ("--track", "none", "--threads", "1")
    return {
        "MLP with dropout": Subject("MLP with dropout", "command", ("train", str(root / "mlp.json"), *alone)),
        "CNN with batch norm": Subject("CNN with batch norm", "command", ("train", str(root / "cnn.json"), *alone)),
        "stack": Subject("stack", "stack"),
        "study": Subject("study", "command", ("study", f"{root / 'drill.py'}:drill", "--workers", "0")),
    }


def small(root: Path, hidden: int = 4) -> Subject:
    """The smallest run that saves more than once: three evaluations of five steps."""
    model = Component("mlp", {"hidden": [hidden]})
    train = TrainConfig(budget="15it", eval_every="5it", batch_size=32)
    (root / "small.json").write_text(json.dumps(to_json(RunConfig(Component("mnist5k"), model, train=train))))
    return Subject("small", "command", ("train", str(root / "small.json"), "--track", "none", "--threads", "1"))
