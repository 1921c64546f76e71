"""Many run folders quickly, as a year of somebody's work leaves them: `python tests/support/many_runs.py DIR 2000`."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

from support.made_runs import add_checkpoint, make_run

SEEDS = 5


def make_many(root: Path, count: int) -> None:
    """``count`` finished runs of 40 evaluations below ``root/single``, five seeds of each learning rate."""
    with tempfile.TemporaryDirectory() as folder:
        run = make_run(Path(folder), epochs=40)
        add_checkpoint(run, 200)
        add_checkpoint(run, 4000)
        (run.path / "probes").mkdir()
        for name in ("init", "step-100", "step-4000"):
            (run.path / "probes" / f"{name}.json").write_text("{}")
        config, result = (json.loads((run.path / name).read_text()) for name in ("config.json", "result.json"))
        for number in range(count):
            setting, seed = divmod(number, SEEDS)
            mark, lr = f"{setting:010x}", 1e-4 * (1 + setting)
            path = root / "single" / f"baseline-mlp-mnist-lr-{lr:.4g}-s{seed}-{mark}"
            shutil.copytree(run.path, path)
            config |= {"fingerprint": mark, "seed": seed}
            config["optimizer"]["args"]["lr"] = lr
            config["called"] = {"changes": {"optimizer.lr": lr}}
            result["val"]["best"]["loss"] = 0.05 + ((setting * 7919) % 400) / 4000 + seed / 1e4
            (path / "config.json").write_text(json.dumps(config))
            (path / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    make_many(Path(sys.argv[1]), int(sys.argv[2]))
