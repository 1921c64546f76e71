"""What several data sets say together: where they agree, show nothing, contradict each other."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from support.made_studies import around, make_spec
from support.made_study_folders import make_study

from netdepth.errors import BadInput
from netdepth.report import tables
from netdepth.report.data import read_study
from netdepth.report.numbers import Numbers, shown_text
from netdepth.stats.exact import sign_flip_test
from netdepth.studies.comparison import Contrast
from netdepth.studies.verdict import Verdict, verdict
from netdepth.studyspec import Axis, Cell, Primary, StudySpec

FIVE = {"dataset": {"name": "mnist5k", "args": {"classes": list("01234")}}}
SETS = {"ten": {}, "five": FIVE}
KINDS = {"plain": {"model.shortcut": "none"}, "residual": {"model.shortcut": "identity"}}
PLAIN, RESIDUAL = "all data, plain", "all data, residual"
TOGETHER = (Primary("shortcut", 16, RESIDUAL, PLAIN), Primary("depth", 16, PLAIN))
APART = tuple(Primary("shortcut", 16, f"{name}, residual", f"{name}, plain") for name in SETS)


def of_sets(**changes) -> StudySpec:
    """Plain and residual nets of two depths on two data sets."""
    axes = (Axis.of_depths((2, 16)), Axis("data", SETS), Axis("kind", KINDS))
    given = {"scientific": axes, "combine": "data", "primary": (*APART, *TOGETHER), "max_looks": 1}
    return make_spec(**{**given, **changes})


def found(mean: Callable[[Cell], float], **changes) -> Verdict:
    """The verdict on runs whose losses scatter by 0.02 around ``mean`` of their cell."""
    spec, rows = of_sets(**changes), []
    for number, cell in enumerate(spec.cells):
        seeds = spec.seeds_for(cell.condition)
        for seed, loss in zip(seeds, around(mean(cell), len(seeds), sd=0.02, stream=number), strict=True):
            run = f"{cell.condition}-{cell.level}-s{seed}"
            place = {"run": run, "folder": run, "seed": seed, "status": "completed", **cell.levels}
            classes = 5 if cell.levels["data"] == "five" else 10
            rows.append({**place, "train_last_loss": loss, "val_last_accuracy": 1 - loss, "classes": classes})
    return verdict(pd.DataFrame(rows), spec)


def deep_plain(ten: float, five: float) -> Callable[[Cell], float]:
    """A loss of 0.3, and more of the plain net of depth 16, by data set."""

    def mean(cell: Cell) -> float:
        more = {"ten": ten, "five": five}[cell.levels["data"]]
        return 0.3 + more * (cell.levels["kind"] == "plain" and cell.level == "16")

    return mean


def together(judged: Verdict) -> list[Contrast]:
    return [contrast for contrast in judged.contrasts if contrast.primary and contrast.by_data_set]


def words(judged: Verdict) -> str:
    return " ".join(s.text for s in judged.of_kind("comparison") if s.contrasts[0].by_data_set)


def test_two_data_sets_that_agree() -> None:
    judged = found(deep_plain(0.1, 0.1))
    depth, residual = together(judged)
    assert (depth.label, residual.label) == ("degraded", "helps")
    by_set = [-0.1 / math.log(10), -0.1 / math.log(5)]
    assert [estimate.value for _, estimate in residual.by_data_set] == pytest.approx(by_set)
    assert residual.difference.value == pytest.approx(sum(by_set) / 2)
    assert (residual.agreeing, residual.contradictory, residual.explanation) == (("ten", "five"), False, None)
    tested = [a.capped - b.capped for a, b in zip(*residual.runs, strict=True)]
    assert residual.tests.exact_p == sign_flip_test(tested).p
    said = words(judged)
    assert "Over ten and five together, residual against plain at depth 16: trains better on average. Mean" in said
    assert "of the loss of guessing, difference −5.28 % of the loss of guessing (" in said
    assert "It is the mean of −4.34 on ten and −6.21 on five; in the same direction on both data sets." in said
    assert said.endswith("This is about these data sets; it does not say what happens on others.")
    assert "plain at depth 16 against depth 2: trains worse on average (corrected p = 0.0" in judged.answer
    assert "in 2 of 4 conditions" not in judged.answer  # a mean over data sets is no condition, and was not run
    assert {cell.cell.condition for cell in judged.cells} == set(judged.spec.conditions)
    entry = json.loads(json.dumps(judged.as_json()))["comparisons"][0]
    assert (entry["unit"], entry["same_direction"], entry["contradictory"]) == (
        "loss of guessing",
        ["ten", "five"],
        False,
    )
    assert [part["data_set"] for part in entry["data_sets"]] == ["ten", "five"]
    assert len(entry["runs"]) == 20


def test_the_page_shows_it_in_its_own_unit(tmp_path: Path) -> None:
    data = read_study(make_study(tmp_path, of_sets(seeds=(0, 1)), epochs=1))
    rows = tables.comparison_table(data, Numbers(data), primary=True)
    title = "difference of mean training loss (% of the loss of guessing), 95 % interval"
    shown = {shown_text(row[0]): shown_text(row[rows.header.index(title)]) for row in rows.rows}
    assert len(shown) == 4
    assert [text for name, text in shown.items() if "together" not in name] == ["-", "-"]
    assert all("[" in text for name, text in shown.items() if "together" in name)


def test_where_nothing_is_there_nothing_is_claimed() -> None:
    judged = found(deep_plain(0.0, 0.0))
    assert {contrast.label for contrast in together(judged)} == {"undecided"}
    assert "together, residual against plain at depth 16: undecided (corrected p = 1)." in judged.answer
    assert all(contrast.equivalence_p is None for contrast in together(judged))


def test_data_sets_that_contradict_each_other_are_not_averaged_away() -> None:
    judged = found(deep_plain(0.2, -0.1))
    _, residual = together(judged)
    assert (residual.label, residual.agreeing, residual.contradictory) == ("helps", ("ten",), True)
    assert "on average (corrected p = 0.0" in judged.answer
    assert "in the same direction on 1 of 2 data sets, not on five" in judged.answer
    assert "The data sets contradict each other, so the mean says little: read each on its own." in words(judged)
    sized = found(deep_plain(0.3, 0.1))
    assert "Its size differs: the 95 % intervals of ten and five do not overlap." in words(sized)


@pytest.mark.parametrize(
    ("primary", "metric", "said"),
    [
        (TOGETHER[:1], "val_last_accuracy", "higher validation accuracy on average. Mean validation accuracy 70.00 % "
         "against 60.00 %, difference +10.00 percentage points"),
        (TOGETHER[:1], "train_last_loss", "trains better on average. Mean training loss 15.83 %"),
        ((Primary("interaction", 16, RESIDUAL, PLAIN),), None, "over ten and five together, what depth 16 changes "
         "against depth 2, in residual against plain: the effect on the training loss is smaller on average"),
        ((Primary("trend", None, PLAIN),), None, "plain over all levels of the depth: the training loss rises on av"),
    ],
)  # fmt: skip
def test_any_difference_is_asked_of_all_together(primary, metric: str | None, said: str) -> None:
    assert said.lower() in words(found(deep_plain(0.1, 0.1), primary=primary, metric=metric)).lower()


def test_a_seed_counts_where_every_data_set_has_it() -> None:
    judged = found(deep_plain(0.1, 0.1), seeds_of={"five, plain": (0, 1, 2, 3, 4, 50)})
    assert {tuple(map(len, contrast.runs)) for contrast in together(judged)} == {(5, 5), (10, 5)}
    with pytest.raises(BadInput, match="have no seed in common"):
        of_sets(seeds_of={"five, plain": (50, 51)})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"combine": "kind", "primary": ()}, "its levels are not different data sets"),
        ({"primary": (Primary("shortcut", 16, "ten, plain", PLAIN),)}, "which has it in it"),
        ({"primary": (Primary("shortcut", 16, RESIDUAL, PLAIN, aim="not worse"),)}, "a claim about each data set"),
        ({"metric": "val_last_mae", "better": "lower"}, "have no scale of 'val_last_mae' in common"),
    ],
)
def test_what_cannot_be_combined_is_refused_in_one_line(changes, words: str) -> None:
    with pytest.raises(BadInput, match=words) as error:
        of_sets(**changes)
    assert "\n" not in str(error.value)


def test_what_is_undecided_is_what_was_asked() -> None:
    asked = (
        Primary("shortcut", 16, "ten, residual", "ten, plain", aim="not worse", margin=0.1),
        Primary("interaction", 16, "ten, residual", "ten, plain"),
    )
    judged = found(deep_plain(-0.1, 0), primary=asked, combine=None, seeds_of={"ten, plain": tuple(range(12))})
    assert "ten (residual) is worse than ten (plain) by more than 0.1 nats at depth 16" in judged.answer
    assert "10 and 12 pairs of runs by seed" in " ".join(s.text for s in judged.sentences)


def test_less_of_the_factor_is_not_said_to_help_as_more_of_it() -> None:
    asked = {"primary": (Primary("depth", 2, "ten, plain"),), "reference": "16", "combine": None}
    judged = found(deep_plain(0.1, 0), **asked)
    assert judged.answer == "Ten (plain) at depth 2: training is better than at depth 16."
