"""What a study costs: run ``netdepth study`` and record time, memory and disk.

    python benchmarks/study_cost.py depth-mlp --runs runs

Everything after the script's own options goes to ``netdepth study``. Memory is the sum of the
proportional set sizes (a page that two processes share counts once) of the command and all its
workers, sampled once a second; disk is what the study's folder holds. The record is written
beside the study as ``cost.json``. Linux only: it reads /proc.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from netdepth.runs.folder import runs_root
from netdepth.studies.folder import StudyDir, list_studies
from netdepth.training.process import available_cores, cpu_model

SAMPLE_SECONDS = 1.0


def tree(root: int) -> list[int]:
    """``root`` and all processes below it."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def memory(pids: list[int]) -> int:
    """Bytes of memory of ``pids`` together."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


def size(study: StudyDir) -> dict[str, int]:
    """Bytes of the study's folder: all of it, and its checkpoints."""
    files = [path for path in study.path.rglob("*") if path.is_file()]
    return {
        "bytes": sum(path.stat().st_size for path in files),
        "checkpoint_bytes": sum(path.stat().st_size for path in files if "checkpoints" in path.parts),
        "files": len(files),
    }


def main(arguments: list[str]) -> int:
    root = runs_root(Path(arguments[arguments.index("--runs") + 1]) if "--runs" in arguments else None)
    before = {study.path for study in list_studies(root)}
    load, start = os.getloadavg()[0], time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "netdepth", "study", *arguments])
    most, processes = 0, 0
    while process.poll() is None:
        pids = tree(process.pid)
        most, processes = max(most, memory(pids)), max(processes, len(pids))
        time.sleep(SAMPLE_SECONDS)
    seconds = time.monotonic() - start
    new = [study for study in list_studies(root) if study.path not in before]
    if process.returncode or len(new) != 1:
        print(f"not recorded: exit status {process.returncode}, {len(new)} new studies under {root}", file=sys.stderr)
        return 1
    record = {
        "schema": 1,
        "command": f"netdepth study {' '.join(word for word in arguments if word not in ('--runs', str(root)))}",
        "seconds": round(seconds, 1),
        "peak_memory_bytes": most,
        "processes": processes,
        **size(new[0]),
        "cores": available_cores(),
        "cpu": cpu_model(),
        "load_before": round(load, 2),
    }
    (new[0].path / "cost.json").write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
