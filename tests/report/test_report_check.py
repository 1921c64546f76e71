"""``netdepth report --check`` means sound: each way in which a study's folder was made to say something else is named,
and no honest one is."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.tiny_studies import make, tiny_spec

from netdepth.report import figures
from netdepth.report.check import Checked, check_report
from netdepth.report.data import StudyData
from netdepth.report.page import write_report
from netdepth.runs.folder import RunDir
from netdepth.runs.seal import write_sealed
from netdepth.runs.sound import record_faults
from netdepth.studies.folder import StudyDir
from netdepth.studies.ledger import FINISHED, record_finished

SEEDS = (0, 1, 2)


@pytest.fixture(scope="module", autouse=True)
def quick_figures() -> Iterator[None]:
    """One stand-in for all figures: drawing takes most of the time of a report."""

    def stand_in(data: StudyData, folder: Path) -> list[tuple[str, Path]]:
        folder.mkdir(exist_ok=True)
        (folder / "a.png").write_bytes(b"figure")
        return [("a figure", folder / "a.png")]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "pictures", stand_in)
        patch.setattr(figures, "level_group", lambda data: [])
        patch.setattr(figures, "curve_groups", lambda data: {})
        patch.setattr(figures, "flow_groups", lambda data: {})
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> StudyDir:
    """A real study of two depths, with its report; no test alters it."""
    study = make(tmp_path_factory.mktemp("whole"), tiny_spec(seeds=SEEDS)).study
    write_report(study)
    return study


@pytest.fixture
def study(whole: StudyDir, tmp_path: Path) -> StudyDir:
    """A copy, somewhere else, that a test may alter."""
    return StudyDir(Path(shutil.copytree(whole.path, tmp_path / "anna")))


def test_a_run_that_diverges_right_after_an_evaluation_has_two_records_of_its_step() -> None:
    records: list[Any] = [{"step": 16, "diverged": False}, {"step": 16, "diverged": True}]
    result = {"status": "diverged", "steps": 16, "best_step": None}
    assert list(record_faults(records, result, {}, {})) == []
    again = [records[0], records[0]]
    assert "its steps do not rise" in next(record_faults(again, {**result, "status": "completed"}, {}, {}))


def runs_of(study: StudyDir) -> list[Path]:
    """Those of four layers."""
    return [study.path / str(run.folder) for run in study.runs() if run.level == "4"]


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """As a person edits a JSON file."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content, indent=1))


def unseal(study: StudyDir) -> StudyDir:
    """As an earlier netdepth left it."""
    for path in study.path.glob("*/result.json"):
        edit(path, lambda result: result.pop("seal"))
    (study.path / FINISHED).unlink()
    return study


def found(study: StudyDir, remade: bool = True) -> str:
    """The faults of the check, after the page was made anew if it can be."""
    if remade:
        write_report(study)
    return "\n".join(check_report(study).faults)


# --- sound ---


def test_an_honest_study_is_sound(whole: StudyDir, study: StudyDir) -> None:
    assert check_report(whole) == check_report(study) == Checked((), (), 6, 0, page=True)
    assert check_report(study).words == "sound"


def test_one_of_an_earlier_version_is_sound_and_not_sealed(study: StudyDir) -> None:
    write_report(unseal(study))
    checked = check_report(study)
    assert checked.faults == ()
    assert checked.words == "sound, not sealed"
    assert checked.notes[0].startswith("6 of 6 runs are not sealed")


def test_what_may_be_left_out_or_made_later_is_no_fault(study: StudyDir) -> None:
    for path in study.path.glob("*/checkpoints"):
        shutil.rmtree(path)
    first = runs_of(study)[0]
    (first / "figures").mkdir(exist_ok=True)
    (first / "report.html").write_text("the page of the run")
    RunDir(first).log_test_access("report: the pictures that the run got wrong")
    assert found(study, remade=False) == ""


def test_continued_extended_and_begun_anew_is_sound(tmp_path: Path) -> None:
    study = make(tmp_path, tiny_spec(seeds=(0, 1))).study
    for name in ("result.json", "predictions.npz"):  # as a kill in the final evaluation leaves it
        (runs_of(study)[0] / name).unlink()
    make(tmp_path, tiny_spec(seeds=(0, 1)))
    make(tmp_path, tiny_spec(seeds=(0, 1, 2)))
    write_report(study)
    checked = check_report(study)
    assert checked.faults == ()
    assert [note for note in checked.notes if "was begun again, as after an interruption" in note] == [*checked.notes]
    make(tmp_path, tiny_spec(seeds=(0, 1, 2)), fresh=True)
    write_report(study)
    checked = check_report(study)
    assert checked.faults == ()
    assert checked.notes[0].startswith("the study was begun anew 1 time (--fresh) after 6 runs had ended")
    assert len(checked.notes) == 1


# --- the fifteen and more ---


def lower_loss(result: dict[str, Any]) -> None:
    result["train"]["last"]["loss"] *= 0.5


def number_on_the_page(study: StudyDir) -> str:
    page = study.path / "report.html"
    text = page.read_text()
    place = text.index('<data value="', text.index("<tbody>")) + len('<data value="')
    page.write_text(text[:place] + "9" + text[place:])
    return "the page says"


def words_on_the_page(study: StudyDir) -> str:
    page = study.path / "report.html"
    page.write_text(page.read_text().replace("does it work?", "it works!"))
    return "report.html is not as the report wrote it"


def result_edited(study: StudyDir) -> str:
    for run in runs_of(study):
        edit(run / "result.json", lower_loss)
    return "result.json is not as the run left it: its seal does not hold (3 runs"


def metrics_edited(study: StudyDir) -> str:
    path = runs_of(study)[0] / "metrics.jsonl"
    lines = path.read_text().splitlines()
    record = json.loads(lines[-1])
    record["val_loss"] *= 0.5
    path.write_text("\n".join([*lines[:-1], json.dumps(record)]) + "\n")
    return "metrics.jsonl is not as the run left it"


def predictions_tampered(study: StudyDir) -> str:
    path = runs_of(study)[1] / "predictions.npz"
    with np.load(path) as held:
        logits, labels = held["logits"], held["labels"]
    logits[np.arange(50), labels[:50]] = 9.0
    np.savez_compressed(path, logits=logits, labels=labels)
    return "predictions.npz gives another confusion matrix than result.json"


def labels_tampered(study: StudyDir) -> str:
    path = runs_of(study)[1] / "predictions.npz"
    with np.load(path) as held:
        logits = held["logits"]
    np.savez_compressed(path, logits=logits, labels=logits.argmax(1))
    return "predictions.npz is about other images"


def opened_twice(study: StudyDir) -> str:
    RunDir(runs_of(study)[2]).log_test_access("a look before the end")
    return "the test part was opened 2 times, also for 'a look before the end'"


def access_log_deleted(study: StudyDir) -> str:
    (runs_of(study)[0] / "test_access.json").unlink()
    return "test_access.json does not say that the test part was opened"


def verdict_edited(study: StudyDir) -> str:
    path = study.path / "verdict.json"
    edit(path, lambda verdict: verdict["cells"][0].update(label="helps"))
    return "verdict.json is not what the runs give"


def seeds_picked(study: StudyDir) -> str:
    """The runs with the highest test loss go, and with them their seeds."""
    document = study.document
    kept = SEEDS[:2]
    plan = dataclasses.replace(
        document.plan, groups=tuple(dataclasses.replace(group, seeds=kept) for group in document.plan.groups)
    )
    runs = tuple(run for run in document.runs if run.seed in kept)
    for run in document.runs:
        if run.seed in kept:
            continue
        shutil.rmtree(study.path / str(run.folder))
    study.write(
        dataclasses.replace(document, spec=dataclasses.replace(document.spec, seeds=kept), plan=plan, runs=runs)
    )
    return "it was trained together with the seeds [0, 1, 2], study.json plans [0, 1] (4 runs"


def run_copied_over_another(study: StudyDir) -> str:
    good, bad = runs_of(study)[:2]
    shutil.rmtree(bad)
    shutil.copytree(good, bad)
    return "config.json says seed 0"


def run_copied_and_renamed(study: StudyDir) -> str:
    good, bad = runs_of(study)[:2]
    shutil.rmtree(bad)
    shutil.copytree(good, bad)
    edit(bad / "config.json", lambda config: config.update(seed=1))
    return "runs of different seeds hold the same weights"


def runs_of_another_study(study: StudyDir) -> str:
    """The plan names runs of two layers as those of four."""
    document = study.document
    theirs = {run.seed: run for run in document.runs if run.level == "2"}
    pairs = [(run, theirs[run.seed]) for run in document.runs]
    runs = tuple(dataclasses.replace(a, folder=b.folder, fingerprint=b.fingerprint) for a, b in pairs)
    study.write(dataclasses.replace(document, runs=runs))
    return "it was made with other settings than study.json asks for: model.depth = 2, not 4"


def rate_edited(study: StudyDir) -> str:
    for run in study.path.glob("*-s*/config.json"):
        edit(run, lambda config: config["optimizer"]["args"].update(lr=0.01))
    return "a setting, the data or the split is another one than was trained"


def rate_edited_everywhere(study: StudyDir) -> str:
    """In the question, too."""
    rate_edited(study)
    edit(study.path / "study.json", lambda it: it["spec"]["base"]["optimizer"]["args"].update(lr=0.01))
    return "a setting, the data or the split is another one than was trained"


def depth_edited(study: StudyDir) -> str:
    edit(runs_of(study)[0] / "result.json", lambda result: result.update(depth=2))
    return "result.json says depth 2, study.json plans 4"


def seed_edited(study: StudyDir) -> str:
    edit(runs_of(study)[0] / "config.json", lambda config: config.update(seed=7))
    return "config.json has the seed 7, study.json plans 0"


def split_edited(study: StudyDir) -> str:
    edit(runs_of(study)[0] / "split.json", lambda split: split["sizes"].update(train=60_000))
    return "split.json is about other images"


def weights_replaced(study: StudyDir) -> str:
    good, bad = (next(run.glob("checkpoints/4/model.safetensors")) for run in runs_of(study)[:2])
    shutil.copy(good, bad)
    return "is not what the result was computed with (weights_sha256)"


def retrained(study: StudyDir) -> str:
    """Runs are removed and made again, here with other bits, until they are good."""
    run = RunDir(runs_of(study)[0])
    result: Any = {k: v for k, v in (run.result() or {}).items() if k not in ("seal", "schema")}
    write_sealed(run, {**result, "weights_sha256": "0" * 64})
    shutil.rmtree(run.path / "checkpoints")
    record_finished(study.path, [run.path.name])
    return "it was made 2 times, with 2 different weights"


def replaced_by_one_made_elsewhere(study: StudyDir) -> str:
    run = RunDir(runs_of(study)[0])
    result: Any = {k: v for k, v in (run.result() or {}).items() if k not in ("seal", "schema")}
    write_sealed(run, {**result, "seconds": 1.0})
    return "result.json is not the one that the study finished it with"


def lines_removed(study: StudyDir) -> str:
    path = study.path / FINISHED
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    return f"{FINISHED}: a line was altered, removed or added"


def ledger_removed(study: StudyDir) -> str:
    (study.path / FINISHED).unlink()
    return f"{FINISHED} is missing"


def ledger_begun_anew(study: StudyDir) -> str:
    """A run is gone with the file, and the study runs again."""
    (study.path / FINISHED).unlink()
    shutil.rmtree(runs_of(study)[0])
    home = study.path.rename(study.path.parent / tiny_spec().name)
    make(home.parent, tiny_spec(seeds=SEEDS))
    home.rename(study.path)
    return f"{FINISHED} was begun after 5 runs had ended: the one before it was removed"


def asked_otherwise(study: StudyDir) -> str:
    """With another smallest effect, once the results are known; the fingerprint fits."""
    document = study.document
    spec = dataclasses.replace(document.spec, smallest_effect=0.5)
    study.write(dataclasses.replace(document, spec=spec, fingerprint=spec.fingerprint()))
    return "study.json asks another question"


def more_analyses_declared(study: StudyDir) -> str:
    document = study.document
    spec = dataclasses.replace(document.spec, max_looks=9)
    study.write(dataclasses.replace(document, spec=spec))
    return "study.json declares max_looks = 9; the runs were made under another number"


def versions_mixed(study: StudyDir) -> str:
    edit(runs_of(study)[0] / "environment.json", lambda made: made.update(torch="1.0.0"))
    return "environment.json names other versions than the runs that were trained with it"


def table_edited(study: StudyDir) -> str:
    path = study.path / "table.csv"
    path.write_text(path.read_text().replace("completed", "diverged", 1))
    return "table.csv is not what the runs give (line 2)"


def figure_edited(study: StudyDir) -> str:
    (study.path / "figures" / "a.png").write_bytes(b"better")
    return "figures/a.png is not as the report wrote it"


def sources_edited(study: StudyDir) -> str:
    edit(study.path / "sources.json", lambda sources: sources["numbers"][0].update(text="Depth helps."))
    return "sources.json is not what the runs give"


BESIDE = (number_on_the_page, words_on_the_page, verdict_edited, table_edited, figure_edited, sources_edited)
"""Of files that the report writes: making it anew mends them."""
IN_RUNS = (
    result_edited, metrics_edited, predictions_tampered, labels_tampered, opened_twice, access_log_deleted,
    seeds_picked, run_copied_over_another, run_copied_and_renamed, runs_of_another_study, rate_edited,
    rate_edited_everywhere, depth_edited, seed_edited, split_edited, weights_replaced, retrained,
    replaced_by_one_made_elsewhere, lines_removed, ledger_removed, ledger_begun_anew, asked_otherwise,
    more_analyses_declared, versions_mixed,
)  # fmt: skip


@pytest.mark.parametrize("cheat", BESIDE)
def test_what_the_report_wrote_is_compared(study: StudyDir, cheat: Callable[[StudyDir], str]) -> None:
    assert cheat(study) in found(study, remade=False)
    assert found(study) == ""


@pytest.mark.parametrize("cheat", IN_RUNS)
def test_a_cheat_in_the_runs_is_named(study: StudyDir, cheat: Callable[[StudyDir], str]) -> None:
    expected = cheat(study)
    assert expected in found(study, remade=False)


@pytest.mark.parametrize("cheat", [result_edited, predictions_tampered, seeds_picked, retrained])
def test_and_so_it_is_when_the_page_was_made_anew(study: StudyDir, cheat: Callable[[StudyDir], str]) -> None:
    assert cheat(study) in found(study)
