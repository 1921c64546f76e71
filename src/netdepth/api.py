"""What ``import netdepth as nd`` offers for training: a run, a study, the rebuilt copy of a tracker.

import netdepth as nd

run = nd.train("baseline-mlp", seed=0)
run.result["test"]["best"]["accuracy"]
run.metrics()                       # a pandas frame, one row per evaluation
nd.list_runs(sort="val_loss")       # a pandas frame, one row per configuration
run.report()                        # path of its page, one HTML file

study = nd.study("depth-mlp5k")
study.table()                       # a pandas frame, one row per run
study.answer()                      # its claims in short
study.verdict().sentences           # the same in full, each with the runs it rests on
study.run("plain he", 32)           # one of its runs
study.report()                      # path of report.html
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netdepth.config import Component, RunConfig, Runtime
from netdepth.errors import BadInput, NetdepthError, RunFailed, choose
from netdepth.overrides import apply_overrides, dataset_overrides, parse_seeds
from netdepth.runs import asked
from netdepth.runs.find import find_run
from netdepth.runs.folder import RunDir, runs_root
from netdepth.runs.naming import Called, keeps_name
from netdepth.studies.ask import ask
from netdepth.studies.folder import ParentRun, StudyDir, study_named
from netdepth.studyspec import StudySpec
from netdepth.text import printable
from netdepth.training.parallel import world_size

if TYPE_CHECKING:
    import pandas

    from netdepth.studies.replay import Replay
    from netdepth.studies.verdict import Verdict
    from netdepth.tools.runs import Run
    from netdepth.training.launch import Outcome

__all__ = ["Study", "Trained", "list_runs", "plan", "prepared", "replay", "study", "sync", "train", "train_runs"]


def plan(
    recipe: str | RunConfig,
    *,
    seed: int | None = None,
    seeds: str | Sequence[int] | None = None,
    dataset: str | Component | None = None,
    overrides: Sequence[str] = (),
) -> tuple[str, list[RunConfig], list[str]]:
    """The runs that a command asks for: (recipe name, one config per seed, notes).

    Without ``seed`` and ``seeds`` the recipe's own seed is kept (0, or that of a ``config.json``).

    Raises:
        BadInput: an unknown recipe, override or seed.
    """
    name, config = _named(recipe)
    texts = [*dataset_overrides(dataset), *overrides]
    config, notes = apply_overrides(config, texts)
    if seeds is not None:
        chosen: Sequence[int] = parse_seeds(seeds) if isinstance(seeds, str) else list(seeds)
    else:
        chosen = (config.seed if seed is None else seed,)
    if not chosen:
        raise BadInput("seeds = [] is not acceptable; it takes at least one seed")
    return name, [dataclasses.replace(config, seed=s) for s in chosen], notes


def _named(recipe: str | RunConfig) -> tuple[str, RunConfig]:
    from netdepth import recipes

    return (recipe.model.name, recipe) if isinstance(recipe, RunConfig) else recipes.resolve(recipe)


def _called(recipe: str | RunConfig, config: RunConfig, name: str | None) -> Called:
    """What the runs of ``config`` are called: the ``name`` they were given, and how they differ from ``recipe``.

    A saved config is held against the recipe that it was made from; where there is none, nobody knows how it differs.
    """
    from netdepth import recipes
    from netdepth.training.changes import changes

    own, base = _named(recipe)
    if isinstance(recipe, RunConfig) or recipe.lower().endswith(".json"):
        made = recipes.RECIPES.entry(own).function() if own in recipes.RECIPES.names() else None
        if not isinstance(made, RunConfig):
            return Called(name)
        base = made
    return Called(name, changes(config, base))


@dataclass(frozen=True)
class Trained:
    """The runs of one call, trained now or before: an outcome per seed, and the learning curves that were drawn."""

    outcomes: list[Outcome]
    figures: dict[int, Path | None]

    @property
    def runs(self) -> dict[int, RunDir]:
        """Run folders by seed."""
        return {outcome.seed: RunDir(outcome.path) for outcome in self.outcomes if outcome.path is not None}

    def picture(self, draw: Callable[[], Path]) -> Path | None:
        """A picture of these runs. If it cannot be drawn, a note of the last outcome says why; the runs are saved."""
        try:
            return draw()
        except NetdepthError as error:
            self.outcomes[-1].notes.append(f"no figure: {error}")
            return None


def train_runs(
    recipe: str | RunConfig,
    runtime: Runtime,
    *,
    run_name: str | None = None,
    progress: bool = True,
    pictures: bool = True,
    **changes: Any,
) -> Trained:
    """What `train` and ``netdepth train`` share: train the runs that are missing, draw the learning curves.

    ``run_name`` is what they shall be called; ``changes`` are those of `plan`. Without ``pictures`` none is drawn.

    Raises:
        BadInput: as `plan`, or a setting that a component refuses.
        Interrupted: a signal came; everything is saved.
    """
    from netdepth.training.launch import Outcome, launch, settle

    called = Called(run_name)  # a bad name is refused first
    name, configs, notes = plan(recipe, **changes)
    keys = asked.keys_of(configs, runtime)
    known = _known(keys, runtime)
    if known is None:
        from netdepth.training.own import unlike_before
        from netdepth.training.resolve import fill_in

        fill_in(configs[0], runtime.device, runtime.runs_root)  # bad input is refused before anything is announced
        notes += unlike_before(configs[0])
        called = _called(recipe, configs[0], run_name)
    _announce(notes)
    if known is None:
        outcomes = launch(name, configs, runtime, progress=progress, called=called)
        _keep(keys, configs, outcomes)
    else:
        pairs = zip(configs, known, strict=True)
        outcomes = [
            Outcome(run.path, one.seed, run.status(), notes=[*keeps_name(run, called), f"already finished: {run.path}"])
            for one, run in pairs
        ]
    made = Trained(outcomes, {})
    if pictures:
        from netdepth.report.learning_curves import current_curves

        for number, run in made.runs.items():
            made.figures[number] = made.picture(functools.partial(current_curves, run))
    settle(outcomes)
    return made


def _known(keys: Sequence[str | None], runtime: Runtime) -> list[RunDir] | None:
    """The folders of runs that are finished without a doubt, if all are. Only while torch is not imported: then
    no component of the user's own is registered, and an import of torch would take seconds."""
    if "torch" in sys.modules or world_size() > 1:
        return None
    known = [run for key in keys if (run := asked.find(key, runtime)) is not None]
    return known if len(known) == len(keys) else None


def _keep(keys: Sequence[str | None], configs: Sequence[RunConfig], outcomes: Sequence[Outcome]) -> None:
    """Keep the finished runs whose components are all netdepth's own, so that asking again needs no torch."""
    import torch

    from netdepth.training.resolve import COMPONENTS

    for key, config, outcome in zip(keys, configs, outcomes, strict=False):
        own = all(part.entry(getattr(config, name).name).source is None for name, part in COMPONENTS.items())
        if own and outcome.finished is not None:
            asked.keep(key, outcome.finished.run, torch.__version__)


def _announce(notes: Sequence[str]) -> None:
    for note in notes:
        print(printable(f"note: {note}"), file=sys.stderr)


def train(
    recipe: str | RunConfig,
    *,
    seed: int | None = None,
    seeds: str | Sequence[int] | None = None,
    dataset: str | Component | None = None,
    overrides: Sequence[str] = (),
    name: str | None = None,
    runtime: Runtime | None = None,
    progress: bool = True,
) -> Run | list[Run]:
    """Train ``recipe`` (a name, ``file.py:function``, a ``config.json`` or a `RunConfig`).

    ``name`` is what the runs shall be called; without it they are called by their recipe and what differs from it.
    The learning curves of a run are drawn when ``run.figure`` or a notebook first asks for them.

    Returns:
        The run; with ``seeds`` (a count or list as text, or a sequence) a list of runs.

    Raises:
        BadInput: the cases in which the command exits with 2.
        RunFailed: a run could not finish; the others did.
    """
    from netdepth.tools.runs import Run

    runtime = with_imports(runtime or Runtime())
    changes = {"seed": seed, "seeds": seeds, "dataset": dataset, "overrides": overrides}
    made = train_runs(recipe, runtime, run_name=name, progress=progress, pictures=False, **changes)
    failed = [f"seed {outcome.seed}: {outcome.error}" for outcome in made.outcomes if outcome.error is not None]
    if failed:
        raise RunFailed("; ".join(failed))
    runs = [Run(run) for run in made.runs.values()]
    return runs[0] if seeds is None else runs


def sync(
    run: str | Path, *, to: str, runs_dir: Path | None = None, wandb_online: bool = False, imports: Sequence[str] = ()
) -> Path | list[Path]:
    """Rebuild the ``to`` (``"tensorboard"``, ``"wandb"``) mirror of a run, or of all runs of a study, from the folders.

    ``imports`` are files or modules that register a tracker of your own.

    Returns:
        Where the mirror is (the run folder itself, if it has no folder of its own); of a study, a list.

    Raises:
        BadInput: an unknown tracker; neither a run nor a study; a study of which no run has begun.
        Locked: the run is being trained.
        RunFailed: the tracker failed; for a study: for some of its runs, and the others are mirrored.
    """
    from netdepth.studies.mirrors import begun_runs, labels_of_run, told
    from netdepth.trackers.mirror import mirror_of, rebuild
    from netdepth.trackers.mirror import sync as rebuild_one

    study = study_named(str(run), runs_root(runs_dir))
    if study is None:
        found = find_run(str(run), runs_root(runs_dir))
        return rebuild_one(found, to, labels=labels_of_run(found), wandb_online=wandb_online, imports=imports)
    targets = begun_runs(study)
    if not targets:
        raise BadInput(f"no run of the study {study.path} has begun")
    faults = rebuild(targets, to, wandb_online=wandb_online, imports=imports)
    if faults:
        raise RunFailed("; ".join(told(faults, study.path)))
    return [mirror_of(target.run.path, to) for target in targets]


def list_runs(
    runs_dir: Path | None = None,
    *,
    sort: str | None = None,
    filters: Sequence[str] = (),
    best: int | None = None,
    flat: bool = False,
) -> pandas.DataFrame:
    """What ``netdepth runs list`` shows, as a frame: a row per configuration, or per run if ``flat``.

    Its columns are those of `netdepth.runs.listing.records`: of every metric the mean over the seeds, the ends of its
    95 % interval (``_low``, ``_high``) and ``_n``; and the settings that differ, by their paths. The other parameters
    are those of `netdepth.runs.listing.configurations`.

    Raises:
        BadInput: an unknown name in ``sort`` or ``filters``, or a metric of test data.
    """
    from netdepth.runs.listing import configurations, records
    from netdepth.runs.table import frame

    found = configurations(runs_root(runs_dir), sort=sort, filters=filters, best=best, flat=flat)
    columns, rows = records(found)
    return frame(rows, columns)


# --- studies ---


@dataclass(frozen=True)
class Study:
    """A study's folder as Python sees it."""

    dir: StudyDir

    @property
    def path(self) -> Path:
        return self.dir.path

    @property
    def spec(self) -> StudySpec:
        """The question, the cells, the seeds and the planned comparisons."""
        return self.dir.spec

    @property
    def parent_run(self) -> ParentRun | None:
        """The run that the others start from or learn from; None where the study has none."""
        return self.dir.document.source

    def table(self) -> pandas.DataFrame:
        """One row per planned run, finished or not."""
        from netdepth.studies.table import study_table

        return study_table(self.dir)

    def verdict(self) -> Verdict:
        """The answer of the runs to the question, by the planned tests."""
        from netdepth.studies.verdict import verdict

        return verdict(self.table(), self.spec)

    def answer(self) -> str:
        """The verdict in a few sentences: the first paragraph of the report."""
        return self.verdict().answer

    def run(self, condition: str, depth: float | str = "", seed: int | None = None) -> Run:
        """The run of one cell with one seed (None: the first); ``depth`` is a level of its factor, if not depth.

        Raises:
            BadInput: a condition, level or seed that the study does not have, or a run that has not begun.
        """
        from netdepth.tools.runs import Run

        choose(condition, self.spec.conditions, "condition of the study:")
        level = self.spec.factor_axis.level(depth, f"{self.spec.factor_name or 'level'} of the study:")
        seeds = self.spec.seeds_for(condition)
        wanted = seeds[0] if seed is None else seed
        choose(str(wanted), map(str, seeds), "seed of the study:")
        cell = (condition, level, wanted)
        folder = next(r.folder for r in self.dir.runs() if (r.condition, r.level, r.seed) == cell)
        if folder is None or not (self.path / folder).is_dir():
            where = f"{condition!r} {self.spec.where(level)}".rstrip()
            raise BadInput(f"the run of {where} with seed {wanted} has not begun")
        return Run(RunDir(self.path / folder))

    def report(self) -> Path:
        """Write ``report.html`` and its files; returns its path."""
        from netdepth.report.page import write_report

        return write_report(self.dir)

    def __repr__(self) -> str:
        return f"Study({self.path.name!r}, {len(self.dir.runs())} runs planned)"

    def _repr_html_(self) -> str:
        import base64
        import html

        said = "".join(f"<li>{html.escape(sentence.text)}</li>" for sentence in self.verdict().sentences)
        shown = (
            f"<p><b>{html.escape(self.spec.question)}</b> <code>{html.escape(str(self.path))}</code></p><ul>{said}</ul>"
        )
        for picture in sorted((self.path / "figures").glob("*.png"))[:1]:
            name, data = html.escape(picture.stem.replace("_", " ")), base64.b64encode(picture.read_bytes()).decode()
            shown += f'<img alt="{name}" src="data:image/png;base64,{data}" style="max-width:100%">'
        return shown


def study(
    recipe: str | StudySpec,
    *,
    seeds: int | str | Sequence[int] | None = None,
    depths: str | Sequence[int] | None = None,
    levels: str | Sequence[float | str] | None = None,
    dataset: str | Component | None = None,
    overrides: Sequence[str] = (),
    tune: str | None = None,
    source: str | None = None,
    max_looks: int | str | None = None,
    workers: int | None = None,
    ray: str | None = None,
    runtime: Runtime | None = None,
    progress: bool = True,
) -> Study:
    """Train the runs of ``recipe`` that are missing (a name, ``file.py:function``, a ``study.json`` or a `StudySpec`).

    ``seeds``, ``depths``, ``levels`` and what follows up to ``max_looks`` change the recipe's study (`ask`). With
    ``workers=0`` all runs are trained in this process, one group after another; components that
    were registered in a notebook need this.

    Raises:
        BadInput: the cases in which the command exits with 2.
        Locked: another process runs this study.
        RunFailed: a run could not finish; the others did.
        Interrupted: everything is saved; the same call continues.
    """
    from netdepth.studies.run import run_study

    changes: dict[str, Any] = {"dataset": dataset, "overrides": overrides, "tune": tune, "source": source}
    changes |= {"seeds": seeds, "depths": depths, "levels": levels, "max_looks": max_looks}
    spec, runtime = prepared(recipe, runtime or Runtime(), **changes)
    done = run_study(spec, runtime, workers=workers, ray=ray, progress=progress)
    _announce(done.notes)
    if done.failed:
        first = done.failed[0]
        raise RunFailed(f"{len(done.failed)} of {len(done.outcomes)} runs failed; {first.path}: {first.error}")
    return Study(done.study)


def replay(of: str | Path, number: int = 3, *, runtime: Runtime | None = None, **options: Any) -> Replay:
    """Train some of somebody's finished runs again and compare; ``options`` are those of `netdepth.studies.replay`."""
    from netdepth.studies.replay import replay as replayed

    return replayed(of, number, with_imports(runtime or Runtime()), **options)


def prepared(recipe: str | StudySpec, runtime: Runtime, **changes: Any) -> tuple[StudySpec, Runtime]:
    """The study to run (`ask` with ``changes``; seeds that its folder has already count as an extension) and the
    runtime with the user's files imported. Notes and warnings are printed.

    Raises:
        BadInput: as `ask`.
    """
    from netdepth.studies.reach import out_of_reach
    from netdepth.studies.run import locate_study

    runtime = with_imports(runtime, recipe)
    spec, notes = ask(recipe, **changes)
    if "torch" in sys.modules:  # else no component of the user's own is registered
        from netdepth.training.own import unlike_before

        notes += dict.fromkeys(line for cell in spec.cells for line in unlike_before(cell.config))
    _, document, more = locate_study(spec, runtime)
    _announce([*notes, *more])
    for warning in out_of_reach(document.spec):
        print(printable(f"netdepth: warning: {warning}"), file=sys.stderr)
    return document.spec, runtime


def with_imports(runtime: Runtime, recipe: object = None) -> Runtime:
    """``runtime`` with the user's files imported here and named for the workers, that of ``recipe`` among them."""
    from netdepth import recipes

    files = list(runtime.imports)
    if isinstance(recipe, str):
        file = recipe.rpartition(":")[0] or recipe
        files += [str(Path(file).absolute())] if file.endswith(".py") else []
    for module in files:
        recipes.import_user(module)
    return dataclasses.replace(runtime, imports=tuple(dict.fromkeys(files)))
