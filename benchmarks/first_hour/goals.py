"""The rows of the first hour, and how each side is found to have reached them, from the files its commands left.

A check returns what was reached, in words for the table, or raises `Missed` with how far it came.
"""

from __future__ import annotations

import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ROWS", "SIDES", "Missed", "Row", "Side"]

SIDES = ("netdepth", "lightning")
LEAST_ACCURACY = 0.88
"""Of the 1,000 test digits, after training on 3,000; both sides reach 91 to 94 %."""
SEARCHED = 50
BOARD_SECONDS = 120


class Missed(Exception):
    """The row was not reached; the text says how far the side came."""


@dataclass(frozen=True)
class Side:
    """What a check may look at: the working folder, what this row printed, the port of its board."""

    folder: Path
    printed: str
    port: int

    def one(self, pattern: str) -> Path:
        """The newest file of a pattern.

        Raises:
            Missed: there is none.
        """
        found = sorted(self.folder.glob(pattern), key=lambda path: path.stat().st_mtime_ns)
        if not found:
            raise Missed(f"no {pattern}")
        return found[-1]


@dataclass(frozen=True)
class Row:
    """One line of the table. ``goal`` is what both sides have to reach; ``checks`` are in the order of `SIDES`."""

    name: str
    title: str
    goal: str
    checks: tuple[Callable[[Side], str], Callable[[Side], str]]

    def check(self, side: str) -> Callable[[Side], str]:
        return self.checks[SIDES.index(side)]


# --- what both sides are asked in the same way ---


def _enough(accuracy: float) -> str:
    if not accuracy >= LEAST_ACCURACY:
        raise Missed(f"test accuracy {accuracy:.1%}")
    return f"test accuracy {accuracy:.1%}"


def _search(named: re.Match[str] | None, losses: list[float]) -> str:
    """The validation loss that was named is the lowest of all the runs' best ones."""
    if len(losses) != SEARCHED:
        raise Missed(f"{len(losses)} runs")
    if named is None or abs(float(named[1]) - min(losses)) > 1e-4:
        raise Missed(f"{len(losses)} runs; the best one, {min(losses):.4f}, is not named")
    return f"the best of {len(losses)} named, validation loss {min(losses):.4f}"


def _page(page: Path) -> str:
    text = page.read_text()
    if re.search(r"""<(?:script|img|link)[^>]+(?:src|href)=["']?https?:""", text):
        raise Missed("a page that loads from the network")
    pictures = len(re.findall(r"<(?:img|svg)\b", text))
    if pictures < 3:
        raise Missed(f"a page with {pictures} pictures")
    return f"one file of {page.stat().st_size / 1e3:.0f} kB with {pictures} pictures"


def _picture(path: Path) -> str:
    from PIL import Image

    with Image.open(path) as picture:
        return f"{path.name}, {picture.width} × {picture.height}"


def _board(side: Side, losses: tuple[str, str]) -> str:
    """TensorBoard answers and has both losses of a run."""
    url = f"http://localhost:{side.port}/data/plugin/scalars/tags"
    end, known = time.monotonic() + BOARD_SECONDS, "no answer"
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(url, timeout=5) as reply:
                runs = json.load(reply)
        except (urllib.error.URLError, OSError):
            runs = {}
        for tags in runs.values():
            if all(loss in tags for loss in losses):
                return f"curves of {' and '.join(losses)} in the browser"
            known = f"a page with {', '.join(tags)}"
        time.sleep(0.05)
    raise Missed(known)


def _gone(side: Side) -> str:
    if (side.folder / "search").exists():
        raise Missed("the folder of the search is still there")
    return "the fifty runs are gone, the others stay"


def _installed(side: Side) -> str:
    return "installed in a new environment"


# --- netdepth ---


def _tested(path: Path) -> str:
    return _enough(json.loads(path.read_text())["test"]["best"]["accuracy"])


def _config(side: Side) -> dict[str, dict[str, dict[str, object]]]:
    """The settings of the run that finished last."""
    config: dict[str, dict[str, dict[str, object]]] = json.loads(
        (side.one("runs/single/*/result.json").parent / "config.json").read_text()
    )
    return config


def netdepth_result(side: Side) -> str:
    return _tested(side.one("runs/single/*/result.json"))


def netdepth_picture(side: Side) -> str:
    return _picture(side.one("runs/single/*/figures/learning_curves.png"))


def netdepth_seeds(side: Side) -> str:
    mean = re.search(r"mean.*?([\d.]+ ± [\d.]+ %)", side.printed)
    found = list(side.folder.glob("seeds/single/*/result.json"))
    if mean is None or len(found) != 5:
        raise Missed(f"{len(found)} seeds, no mean with an interval")
    return f"test accuracy {mean[1]}, 5 seeds"


def netdepth_board(side: Side) -> str:
    return _board(side, ("loss/train", "loss/val"))


def netdepth_model(side: Side) -> str:
    if _config(side)["model"]["name"] != "residual":
        raise Missed("another model was trained")
    return netdepth_result(side)


def netdepth_data(side: Side) -> str:
    if _config(side)["dataset"]["name"] != "arrays":
        raise Missed("other data were used")
    return netdepth_result(side)


def netdepth_rate(side: Side) -> str:
    if _config(side)["optimizer"]["args"]["lr"] != 3e-4:
        raise Missed("another learning rate was used")
    return netdepth_result(side)


def netdepth_resume(side: Side) -> str:
    def weights(pattern: str) -> str:
        return str(json.loads(side.one(pattern).read_text())["weights_sha256"])

    if weights("resumed/single/*/result.json") != weights("seeds/single/*-s3-*/result.json"):
        raise Missed("continued, to other weights than without the interruption")
    return "the same weights as without the interruption, bit for bit"


def netdepth_search(side: Side) -> str:
    results = [json.loads(path.read_text()) for path in side.folder.glob("search/**/result.json")]
    named = re.search(r"val_loss\s+([\d.]+)", side.printed)
    return _search(named, [result["val"]["best"]["loss"] for result in results])


def netdepth_share(side: Side) -> str:
    return _page(side.one("runs/single/*/*.html"))


# --- Lightning ---


def lightning_result(side: Side) -> str:
    found = re.search(r"test_accuracy\W+([\d.]+)", side.printed)
    if found is None:
        raise Missed("no test accuracy")
    return _enough(float(found[1]))


def lightning_picture(side: Side) -> str:
    return _picture(side.one("curves.png"))


def lightning_seeds(side: Side) -> str:
    mean = re.search(r"mean ([\d.]+)% ± ([\d.]+)% \(n = 5\)", side.printed)
    if mean is None:
        raise Missed("no mean with an interval")
    return f"test accuracy {mean[1]} ± {mean[2]} %, 5 seeds"


def lightning_board(side: Side) -> str:
    return _board(side, ("train_loss", "val_loss"))


def lightning_rate(side: Side) -> str:
    hparams = side.one("lightning_logs/version_*/hparams.yaml").read_text()
    if not re.search(r"^lr: 0.0003$", hparams, re.MULTILINE):
        raise Missed("another learning rate was used")
    return lightning_result(side)


def lightning_resume(side: Side) -> str:
    import torch

    def weights(folder: str) -> dict[str, torch.Tensor]:
        last = side.one(f"{folder}/checkpoints/last.ckpt")
        found: dict[str, torch.Tensor] = torch.load(last, weights_only=True)["state_dict"]
        return found

    whole, resumed = weights("seeds/lightning_logs/version_3"), weights("resumed/lightning_logs/version_1")
    if not all(torch.equal(whole[name], resumed[name]) for name in whole):
        raise Missed(f"continued, to other weights than without the interruption; {lightning_result(side)}")
    return "the same weights as without the interruption, bit for bit"


def lightning_search(side: Side) -> str:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    runs = [EventAccumulator(str(path)).Reload() for path in side.folder.glob("search/lightning_logs/*")]
    losses = [min(event.value for event in run.Scalars("val_loss")) for run in runs]
    return _search(re.search(r"best of \d+ \(([\d.]+)", side.printed), losses)


def lightning_share(side: Side) -> str:
    return _page(side.one("run.html"))


ROWS = (
    Row("install", "Install", "both commands work in a new environment", (_installed, _installed)),
    Row(
        "first-result",
        "First result",
        "a network trained on digits until the validation loss stops falling; test accuracy of its best weights",
        (netdepth_result, lightning_result),
    ),
    Row("first-picture", "First picture", "its learning curves as a PNG", (netdepth_picture, lightning_picture)),
    Row(
        "seeds-compared",
        "Seeds compared",
        "five seeds; mean test accuracy with its 95 % t interval",
        (netdepth_seeds, lightning_seeds),
    ),
    Row("live-view", "Live view", "curves of both losses in TensorBoard", (netdepth_board, lightning_board)),
    Row(
        "own-model",
        "Own model",
        "a residual network of one's own, an ordinary nn.Module, trained and tested",
        (netdepth_model, lightning_result),
    ),
    Row(
        "own-data",
        "Own data",
        "the same network on one's own pictures in an .npz, trained and tested",
        (netdepth_data, lightning_result),
    ),
    Row(
        "hyperparameter",
        "Hyperparameter",
        "another learning rate, tested, and kept with the run",
        (netdepth_rate, lightning_rate),
    ),
    Row(
        "resume",
        "Resume",
        "killed after a checkpoint and continued, to the weights it would have had",
        (netdepth_resume, lightning_resume),
    ),
    Row(
        "best-of-50",
        "Best of 50",
        "50 pairs of learning rate and batch size, one epoch each; the one with the lowest validation loss",
        (netdepth_search, lightning_search),
    ),
    Row(
        "share",
        "Share",
        "one file to send: curves, settings, test accuracy, confusion matrix, digits it got wrong",
        (netdepth_share, lightning_share),
    ),
    Row("clean-up", "Clean up", "the fifty runs of the search removed, the others kept", (_gone, _gone)),
)
