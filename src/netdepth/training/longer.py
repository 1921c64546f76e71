"""A run with a larger budget trains on from the finished run that differs from it in the budget alone.

All that is random is a function of seed and step, so where the learning rate does not depend on the budget the longer
run begins with the shorter one, bit for bit: its records, layer statistics and newest checkpoint are copied into the
folder of its own, and it is resumed there as any interrupted run is. A run that stopped early, or diverged, does so
again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping

from netdepth.config import Duration, Runtime, to_json
from netdepth.errors import BadInput, NetdepthError
from netdepth.files.atomic import write_atomic
from netdepth.runs import Origin
from netdepth.runs.folder import RunDir
from netdepth.text import STATUS_WORDS
from netdepth.training.optim import SCHEDULES, WatchingSchedule
from netdepth.training.parallel import Team
from netdepth.training.process import find_device, refuse_changed
from netdepth.training.replica import Replica
from netdepth.training.resolve import ResolvedConfig, fingerprint

__all__ = ["train_on"]


def train_on(
    replica: Replica, resolved: ResolvedConfig, head: Mapping[str, object], runtime: Runtime, team: Team
) -> None:
    """Fill the empty folder of ``replica`` with what it shares with a finished run of a smaller budget.

    ``head`` is its ``config.json``. Its notes say from which run it goes on; or, where there is such a run that cannot
    be gone on from, why it begins anew.
    """
    folder = replica.folder
    if folder.checkpoints():
        return
    refusals = []
    for old in _shorter(replica, resolved):
        name = old.folder.path.name
        try:
            step = _last_shared_step(old, resolved, runtime, team)
        except NetdepthError as error:
            refusals.append(f"this run begins anew, not from {name} with its {old.config.train.budget}: {error}")
            continue
        _copy(old, step, folder, head)
        if old.status != "completed":
            words = STATUS_WORDS.get(old.status, old.status)
            folder.notes.append(f"{name} {words} within its smaller budget, so a larger one changes nothing")
        return
    folder.notes += refusals[:1]


def _shorter(replica: Replica, resolved: ResolvedConfig) -> Iterator[Replica]:
    """Finished runs beside this one that have all in common with it but a larger budget; the longest of them first."""
    config, own = replica.config, replica.folder.path
    per_epoch = _steps_per_epoch(resolved)
    budgets: dict[str, int] = {}
    for path in own.parent.glob(f"*-s{config.seed}-*"):
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError, RecursionError, BadInput):
            text = str(json.loads((path / "config.json").read_bytes())["train"]["budget"])
            budgets[text] = Duration.parse(text).steps(per_epoch)
    budget = Duration.parse(config.train.budget).steps(per_epoch)
    for text in sorted((text for text in budgets if budgets[text] < budget), key=budgets.__getitem__, reverse=True):
        shorter = dataclasses.replace(config, train=dataclasses.replace(config.train, budget=text))
        for path in own.parent.glob(f"*-s{config.seed}-{fingerprint(shorter, resolved.splits.spec)}"):
            with contextlib.suppress(BadInput):
                if (result := RunDir(path).result()) is not None:
                    yield Replica(0, shorter, RunDir(path), result, status=result.get("status", ""))


def _last_shared_step(old: Replica, resolved: ResolvedConfig, runtime: Runtime, team: Team) -> int:
    """The newest step at which ``old`` has a checkpoint and the longer run will have been evaluated.

    Raises:
        BadInput: there is none; the learning rate or the environment is another one.
    """
    longer, per_epoch = resolved.config, _steps_per_epoch(resolved)
    was, will = (Duration.parse(c.train.budget).steps(per_epoch) for c in (old.config, longer))
    before, after = (SCHEDULES.build(longer.schedule, steps, per_epoch) for steps in (was, will))
    name = longer.schedule.name
    if isinstance(before, WatchingSchedule):
        raise BadInput(f"schedule {name} follows the training of one run")
    if any(before(step) != after(step) for step in range(was)):
        raise BadInput(f"with schedule {name} the learning rate of every step depends on the budget")
    recorded = old.folder.environment()
    if recorded is None or recorded.seeds not in (None, (longer.seed,)):
        raise BadInput("it was not trained alone")
    try:
        refuse_changed(runtime, recorded, team)
        find_device(recorded.device)
    except BadInput as error:
        raise BadInput(str(error).partition(";")[0].replace("this run", "that run")) from None
    period = Duration.parse(longer.train.eval_every).steps(per_epoch)
    records = {record["step"] for record in old.folder.read_metrics()}
    for step in sorted({*old.folder.checkpoints()} & records, reverse=True):
        if step % period == 0 and old.saved(step) is not None:
            return step
    if any("optimizer state" in note for note in old.folder.notes):
        raise BadInput("its optimizer state was removed (netdepth runs gc)")
    raise BadInput(f"it has no sound checkpoint at an evaluation that this run makes too (every {period} steps)")


def _steps_per_epoch(resolved: ResolvedConfig) -> int:
    return -(-len(resolved.splits.train) // resolved.config.train.batch_size)


def _copy(old: Replica, step: int, new: RunDir, head: Mapping[str, object]) -> None:
    """Write the state of ``old`` after ``step`` steps into ``new``: the newest checkpoint last, so that a kill leaves a
    folder that is begun again, or one that is continued from an earlier step."""
    saved, environment = old.saved(step), old.folder.environment()
    assert saved is not None
    assert environment is not None
    files, best = saved
    new.write_json("config.json", head)
    origin = Origin(old.folder.path.name, step)
    new.write_json("environment.json", to_json(dataclasses.replace(environment, continued_from=origin)))
    records = [record for record in old.folder.read_metrics() if record["step"] <= step]
    write_atomic(new.path / "metrics.jsonl", "".join(json.dumps(r, allow_nan=False) + "\n" for r in records).encode())
    # layer statistics are made at evaluations 1, 2, 4, 8, ...; that of the end is none of a longer run
    probed = (record["step"] for number, record in enumerate(records, 1) if number & (number - 1) == 0)
    for name in ("probes/init.json", *(f"probes/step-{step}.json" for step in probed)):
        content = old.folder.read_json(name)
        if content is not None:
            content.pop("schema", None)
            new.write_json(name, content)
    if best is not None and best is not files:
        new.save_checkpoint(json.loads(files["state.json"])["best_step"], best)
    new.save_checkpoint(step, files)
