"""``netdepth study --replay``: a random few of somebody's finished runs are trained again, and compared with theirs.

    runs/replays/<name>-<replay seed>/<stack>/<run folder>/     what was trained here; theirs is only read

A run is made from its ``config.json`` alone, with the seeds of its stack, its threads and its device, which decide its
bits. Nothing of their checkpoints is read. A run that it starts or learns from is an input, known by the digest of its
weights: it comes from ``--source`` or from the runs folder here; else it is trained again, too, and used if it has that
digest. What was planned, and whether their files agree with one another, says ``report --check``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from netdepth.config import Duration, RunConfig, Runtime, digest
from netdepth.errors import BadInput, Interrupted, NetdepthError, choose_folder
from netdepth.progress import CountProgress
from netdepth.runs.find import begins_with, find_run, find_runs, run_at
from netdepth.runs.folder import RunDir, list_runs, runs_root, slug
from netdepth.runs.repeat import SEEDS, Finding, Found, Pair, by_bits, by_values, scatter_of, shift, values_of
from netdepth.studies.folder import PlannedRun, list_studies, study_named
from netdepth.studies.run import default_workers, executor_of
from netdepth.studies.worker import Done, Event, Job, Progress, Retry, Waiting
from netdepth.text import count
from netdepth.training.parallel import only_alone

if TYPE_CHECKING:
    from netdepth.training.resolve import ResolvedConfig

__all__ = ["FOLDER", "Replay", "Replayed", "draw_seed", "replay"]

FOLDER = "replays"
"""Below the runs folder, and one level deeper than runs lie, so that no list of runs has what is in it."""
MOST_SEEDS = 100
"""Of a stack that is believed; netdepth makes none of more than ten."""


@dataclass(frozen=True)
class Replayed:
    """What became of somebody's ``run``: the ``finding``, with ``why`` in words, and the ``folder`` it was trained in.

    ``chosen`` is False for what was trained with a chosen run: seeds of its stack, a run that it starts from.
    """

    run: Path
    finding: Finding
    why: str
    folder: Path | None = None
    chosen: bool = True

    def __str__(self) -> str:
        return f"{self.run.name}: {self.finding.upper() if self.finding == 'differs' else self.finding}; {self.why}"


@dataclass(frozen=True)
class Replay:
    """The replay of runs ``of`` a study or folder, ``seed`` having chosen them among ``finished`` ones; ``planned``
    counts those without a result, too. The chosen runs come first."""

    of: Path
    folder: Path
    seed: int
    finished: int
    planned: int
    runs: tuple[Replayed, ...]

    def found(self, finding: Finding) -> list[Replayed]:
        """The runs with this finding."""
        return [run for run in self.runs if run.finding == finding]

    @property
    def code(self) -> int:
        """1 if a run differs or none could be repeated, else 0."""
        return int(bool(self.found("differs")) or len(self.found("not repeated")) == len(self.runs))


def draw_seed() -> int:
    """A replay seed that nobody can know before."""
    return secrets.randbelow(2**32)


def replay(
    of: str | Path,
    number: int = 3,
    runtime: Runtime | None = None,
    *,
    seed: int | None = None,
    source: str | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> Replay:
    """Train ``number`` finished runs again, chosen at random, and compare.

    Args:
        of: a study, a folder of runs, a run, or the beginning of its name.
        number: how many; all if there are fewer.
        runtime: device, folders, imports. A device "auto" is that of each run, where there is one.
        seed: decides which runs; None: nobody can know it before. The same one continues a replay that was interrupted.
        source: the run that theirs start or learn from, where it is not in the runs folder.
        workers: as in `netdepth.studies.run.run_study`.
        progress: whether to show progress, on stderr.

    Raises:
        BadInput: no such study or run, or none that is finished.
        Interrupted: a signal came; the same ``seed`` continues.
    """
    only_alone("a replay")
    runtime, seed = runtime or Runtime(), draw_seed() if seed is None else seed
    root = runs_root(runtime.runs_root)
    where, planned = _runs_of(str(of), root)
    finished = [run for run in planned if (run.path / "result.json").is_file()]
    if not finished:
        raise BadInput(f"{where} has no finished run, so there is nothing to train again")
    order = sorted(finished, key=lambda run: hashlib.sha256(f"{seed} {run.path.name}".encode()).digest())
    folder = root / FOLDER / f"{slug(where.resolve().name)}-{digest(str(where.resolve()))[:6]}-{seed}"
    link = next((path for path in (folder.parent, folder) if path.is_symlink()), None)
    if link is not None or folder.resolve().is_relative_to(where.resolve()):
        raise BadInput(f"{link or folder} is a link, or lies in what is replayed; use another --runs")
    work = _Work(dict(planned), finished, folder, runtime, source, workers, progress)
    try:
        found = work.all_of(order[:number])
    except Interrupted as stop:
        message = f"interrupted; their runs are untouched; --replay-seed {seed} continues"
        raise Interrupted(message, stop.exit_code - 128) from None
    return Replay(where, folder, seed, len(finished), len(planned), tuple(found))


def _runs_of(text: str, root: Path) -> tuple[Path, dict[RunDir, PlannedRun | None]]:
    """The folder that ``text`` names, and its runs with what a plan says of them."""
    study = study_named(text, root)
    if study is not None:
        by_folder = {run.folder: run for run in study.document.all_runs if run.folder is not None}
        return study.path, {RunDir(study.path / name): run for name, run in sorted(by_folder.items())}
    for path in (Path(text), root / text):
        held = [] if (path / "config.json").is_file() else sorted(path.glob("*/config.json"))
        if held:
            return path, {RunDir(config.parent): None for config in held}
    if run_at(text, root) is None and not begins_with(text, list_runs(root)):
        names = [*(one.path.name for one in list_studies(root)), *(run.path.name for run in list_runs(root))]
        choose_folder(text, names, root, "run or study", "runs and studies")  # which refuses
    runs = find_runs(text, root)
    return runs[0].path if len(runs) == 1 else runs[0].path.parent, dict.fromkeys(runs)


class _NotRepeated(Exception):
    """Why a run is not compared, with the finding that this is."""

    def __init__(self, why: str, finding: Finding = "not repeated") -> None:
        super().__init__(why)
        self.finding = finding


@dataclass(frozen=True)
class _Made:
    """Somebody's run, the job that trains it again, and where that has put it."""

    theirs: RunDir
    job: Job
    ours: RunDir


@dataclass
class _Work:
    planned: Mapping[RunDir, PlannedRun | None]
    finished: Sequence[RunDir]
    folder: Path
    runtime: Runtime
    source: str | None
    workers: int | None
    progress: bool
    parents: list[Replayed] = field(default_factory=list)
    asked: list[Path] = field(default_factory=list)
    """Parent runs that are being trained; a config that leads back to one of them leads nowhere."""

    def all_of(self, chosen: Sequence[RunDir]) -> list[Replayed]:
        """A finding for each of ``chosen``, then for what was trained with them."""
        jobs: dict[str, Job] = {}
        refused: dict[Path, Replayed] = {}
        by_run: dict[Path, Job] = {}
        for run in chosen:
            try:
                key, job = self._job(run)
            except _NotRepeated as error:
                refused[run.path] = Replayed(run.path, error.finding, str(error))
            else:
                by_run[run.path] = jobs.setdefault(key, dataclasses.replace(job, group=len(jobs)))
        errors = self._train(list(jobs.values()))
        made = [made for job in jobs.values() for made in self._pairs(job, chosen, by_run)]
        picked = {run.path for run in chosen}
        found = {one.run: one for one in self._judged(made, errors, picked)}
        return [
            *(refused.get(run.path) or found[run.path] for run in chosen),
            *self.parents,
            *(one for path, one in found.items() if path not in picked),
        ]

    # --- from somebody's folder to a job ---

    def _job(self, run: RunDir) -> tuple[str, Job]:
        """The job that trains ``run`` again, and a key that is equal for the runs of one stack.

        Raises:
            _NotRepeated: it cannot be, or its files are not those of one run.
        """
        from netdepth import recipes
        from netdepth.training.own import find_own

        try:
            name, config = recipes.resolve(str(run.path / "config.json"))
            stored, environment, result = run.read_json("config.json") or {}, run.environment(), run.result() or {}
            mark = f"-s{config.seed}-{stored.get('fingerprint')}"
            plan = self.planned.get(run)
            if not run.path.resolve().name.endswith(mark) or (plan and mark != f"-s{plan.seed}-{plan.fingerprint}"):
                raise _NotRepeated(f"its config.json is that of another run, {mark[1:]}", "differs")
            if environment is None:
                raise _NotRepeated("it has no environment.json, which says how it was made")
            seeds = environment.seeds or (config.seed,)
            if config.seed not in seeds or len({*seeds}) < len(seeds) or len(seeds) > MOST_SEEDS or min(seeds) < 0:
                raise _NotRepeated("its environment.json names a stack that it cannot be of", "differs")
            find_own(run)
            files = tuple(part.file for part in environment.own or () if part.file is not None)
            runtime = dataclasses.replace(
                self.runtime,
                runs_root=self.folder.absolute(),
                device=_device(self.runtime.device, environment.device),
                threads=environment.threads,
                trackers=(),
                imports=tuple(dict.fromkeys((*self.runtime.imports, *files))),
                sealed=result.get("test") is None,
                fresh=False,
            )
            resolved = self._resolved(run, self._with_parent(run, config), runtime, str(stored.get("fingerprint")))
        except NetdepthError as error:
            raise _NotRepeated(" ".join(str(error).split())) from None
        if len(seeds) > 1 and not resolved.stackable:
            said = f"its {len(seeds)} seeds are said to be"
            raise _NotRepeated(f"its network is never trained in a stack, as {said}", "differs")
        mark = resolved.fingerprint
        key = digest([mark, list(seeds), runtime.threads, runtime.device, runtime.sealed])[:8]
        folders = tuple(RunDir.create(self.folder / key, name, seed, mark).path.name for seed in seeds)
        return key, Job(0, name, key, resolved.config, mark, tuple(seeds), folders, runtime)

    def _resolved(self, run: RunDir, config: RunConfig, runtime: Runtime, mark: str) -> ResolvedConfig:
        """``config`` on the data that are here, which must give the fingerprint ``mark`` of ``run``."""
        from netdepth.training.resolve import resolve

        resolved, split = resolve(config, runtime), run.split()
        if resolved.fingerprint == mark:
            return resolved
        here = resolved.splits.spec
        if split is not None and (split.data_digest, split.split_digest) != (here.data_digest, here.split_digest):
            raise _NotRepeated(f"its data are not those that are here (data set {config.dataset.name}, other digests)")
        environment = run.environment()
        import netdepth

        if environment is not None and environment.netdepth != netdepth.__version__:
            raise _NotRepeated(f"netdepth {environment.netdepth} made it, whose components are other ones")
        raise _NotRepeated(f"its config.json has the fingerprint {resolved.fingerprint}, not {mark}", "differs")

    def _with_parent(self, run: RunDir, config: RunConfig) -> RunConfig:
        """``config`` with the place of the run that it starts or learns from; files of weights stay where they are."""
        from netdepth.training.published import SUFFIX

        start, teacher = config.start_from, config.objective.args.get("teacher")
        if start is not None and not start.run.endswith(SUFFIX):
            at = self._parent(run, start.run, start.weights, start.sha256, "starts")
            config = dataclasses.replace(config, start_from=dataclasses.replace(start, run=at))
        if isinstance(teacher, str):
            args = dict(config.objective.args)
            args["teacher"] = self._parent(run, teacher, args.get("weights"), args.get("sha256"), "learns")
            config = dataclasses.replace(config, objective=dataclasses.replace(config.objective, args=args))
        return config

    def _parent(self, run: RunDir, name: str, which: object, sha256: object, how: str) -> str:
        """The absolute path of a run with the weights ``sha256``."""
        from netdepth.training.finished import weights_of

        def fits(parent: RunDir) -> bool:
            with contextlib.suppress(NetdepthError):
                return weights_of(parent, which if isinstance(which, str) else None).sha256 == sha256
            return False

        root = runs_root(self.runtime.runs_root)
        if self.source is not None and fits(given := find_run(self.source, root)):
            return str(given.path.absolute())
        here = root / name
        if here.resolve().is_relative_to(root.resolve()) and fits(RunDir(here)):
            return str(here.absolute())
        theirs = RunDir(run.path.absolute().parent.parent / name)
        remedy = f"name a copy that you trust: --source RUN (weights {str(sha256)[:10]})"
        if not (theirs.path / "result.json").is_file() or theirs.path in self.asked:
            raise _NotRepeated(f"it {how} from {name}, which is not here; {remedy}")
        self.asked.append(theirs.path)
        _, job = self._job(theirs)
        errors = self._train([job])
        made = next(made for made in self._pairs(job, [theirs], {theirs.path: job}) if made.theirs == theirs)
        if not any(one.run == theirs.path for one in self.parents):
            self.parents += [one for one in self._judged([made], errors, set()) if one.run == theirs.path]
        self.asked.remove(theirs.path)
        if not fits(made.ours):
            raise _NotRepeated(f"it {how} from {name}, which was trained again and has other weights here; {remedy}")
        return str(made.ours.path.absolute())

    # --- training ---

    def _train(self, jobs: Sequence[Job]) -> dict[str, str]:
        """Train what is missing of ``jobs``; why a run of them failed, by its folder."""
        if not jobs:
            return {}
        most = max(job.runtime.threads or 1 for job in jobs)
        workers = max(1, default_workers(self.runtime) // most) if self.workers is None else self.workers
        errors: dict[str, str] = {}
        runs = sum(len(job.seeds) for job in jobs)
        title = f"replay: {count(runs, 'run')} in {count(len(jobs), 'group')}"
        steps = {job.group: _steps(job) for job in jobs}
        done = dict.fromkeys(steps, 0)
        with CountProgress(title, sum(steps.values()), shown=self.progress) as shown:

            def on_event(event: Event) -> None:
                note = ""
                match event:
                    case Progress():
                        done[event.group] = steps[event.group] * event.step // max(event.total_steps, 1)
                    case Waiting():
                        note = f"waiting: {event.reason}"
                    case Retry():
                        note = f"started again: {event.error}"
                    case Done():
                        done[event.group] = steps[event.group]
                        errors.update({Path(str(o.path)).name: o.error for o in event.outcomes if o.error is not None})
                shown.advance(sum(done.values()), note)

            executor_of(self.runtime, workers, None)(jobs, on_event, self.folder / "workers")
        return errors

    def _pairs(self, job: Job, chosen: Sequence[RunDir], by_run: Mapping[Path, Job]) -> Iterator[_Made]:
        """The runs of ``job`` that somebody has, each with the one here."""
        for seed, folder in zip(job.seeds, job.folders, strict=True):
            ours = RunDir(self.folder / job.study / folder)
            tail = f"-s{seed}-{job.fingerprint}"
            asked = [run for run in chosen if by_run.get(run.path) is job and run.path.resolve().name.endswith(tail)]
            beside = (run for run in self.finished if run.path.name.endswith(tail) and run not in chosen)
            yield from (_Made(theirs, job, ours) for theirs in asked or [*beside][:1])

    # --- comparing ---

    def _judged(self, made: Sequence[_Made], errors: Mapping[str, str], picked: set[Path]) -> list[Replayed]:
        """A finding for each pair; the values of all of them are one family of comparisons."""
        found: list[Replayed] = []
        values: list[tuple[_Made, str, list[Pair]]] = []
        shifts: dict[tuple[str, str], list[Pair]] = {}
        for one in made:
            if one.ours.result() is None:
                why = errors.get(one.ours.path.name, "it could not be trained here")
                found.append(Replayed(one.theirs.path, "not repeated", why))
                continue
            said = by_bits(one.theirs, one.ours)
            if isinstance(said, Found):
                found.append(Replayed(one.theirs.path, said.finding, said.why, one.ours.path))
                continue
            values.append((one, said, self._pairs_of_values(one)))
            for pair in values[-1][2]:
                shifts.setdefault((one.job.study, pair.name), []).append(pair)
        tests = len(shifts) + sum(len(pairs) for _, _, pairs in values)
        for one, reason, pairs in values:
            lies = [text for pair in pairs if (text := shift(shifts[one.job.study, pair.name], tests)) is not None]
            said = by_values(one.theirs, one.ours, reason, pairs, tests, lies)
            found.append(Replayed(one.theirs.path, said.finding, said.why, one.ours.path))
        return [dataclasses.replace(one, chosen=one.run in picked) for one in found]

    def _pairs_of_values(self, one: _Made) -> list[Pair]:
        """The values of a run there and here, with the scatter over seeds: of those trained here, else of theirs."""
        tail = one.job.fingerprint
        trained = [RunDir(one.ours.path.parent / folder) for folder in one.job.folders]
        if len(trained) < SEEDS:
            trained = [run for run in self.finished if run.path.name.endswith(f"-{tail}")]
        scatter, theirs, ours = scatter_of(trained), values_of(one.theirs), values_of(one.ours)
        found = []
        for name, value in ours.items():
            held = theirs[name]
            if held is not None and value is not None:
                found.append(Pair(name, held, value, scatter.get(name, ())))
        return found


def _device(asked: str, theirs: str) -> str:
    """``asked``, and for "auto" that of the run where this machine has it."""
    from netdepth.training.process import find_device

    if asked != "auto":
        return asked
    with contextlib.suppress(BadInput):
        return str(find_device(theirs))
    return "auto"


def _steps(job: Job) -> int:
    """About how long ``job`` takes, in steps of one run."""
    budget = Duration.parse(job.config.train.budget)
    return budget.steps(100) * len(job.seeds)
