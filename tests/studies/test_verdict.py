"""Every label of a verdict, on tables made for it."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from support.made_studies import CHANCE, around, cell, contrast, judged, make_spec, make_table, said, words_of

from netdepth.stats.exact import permutation_test, seeds_to_reach
from netdepth.stats.intervals import seeds_needed
from netdepth.studies.verdict import verdict
from netdepth.studyspec import Primary

SPEC = make_spec()
NAN, INF = math.nan, math.inf


# --- the labels ---


def test_degraded_with_its_numbers_and_words() -> None:
    deep, shallow = around(0.5, sd=0.05), around(0.1)
    found = judged({("plain", 32): deep, ("plain", 2): shallow})
    it = cell(found, "plain", 32)
    assert (it.label, it.cause, it.harm) == ("degraded", "optimisation", "training")
    tested = contrast(found, "depth", "plain", 32)
    assert tested.difference.value == pytest.approx(0.4)
    assert tested.p == permutation_test(deep, shallow).p
    assert tested.corrected_p == pytest.approx(4 * tested.p)
    assert tested.ratio.value == pytest.approx(5, rel=0.05)
    assert "plain: trains worse at depth 32 (higher training loss than at depth 2, so not overfitting)" in said(found)
    measured = "difference +0.400 (95 % interval [+0.364, +0.436]), 10 and 10 runs; p < 0.0001"
    assert f"Mean training loss 0.500 against 0.100 nats, {measured}" in words_of(found, it)
    assert "exact permutation test" in words_of(found, it)


def test_without_validation_images_there_is_no_validation_error() -> None:
    """As `--set dataset.val_size=0` makes it; a diverged run is then no reason to speak of one."""
    table = make_table(SPEC, {("plain", 32): [*around(0.5, sd=0.05)[:9], NAN]})
    table["val_last_accuracy"] = None
    found = verdict(table, SPEC)
    it = cell(found, "plain", 32)
    assert (it.label, it.harm) == ("degraded", "training")
    assert [run.val_error for run in it.cell.runs] == [None] * 10
    assert (it.cell.val_error.value, it.cell.val_error.n) == (None, 0)
    assert "validation error" not in words_of(found, it)
    tested = contrast(found, "depth", "plain", 32)
    assert (tested.val_means, tested.val_difference.value, tested.val_p) == ((None, None), None, 1.0)
    assert '"val_error": null' in json.dumps(found.as_json())


DEEP = ("plain", 32)

CASES = {
    "helps": (
        {"losses": around(0.05)},
        "helps", None, None, ["better at depth 32 than at depth 2; no evidence of a difference at depth 8."],
    ),
    "no evidence": ({}, "no_evidence", None, None, ["lies inside ± 0.02 nats"]),
    "exploded in part": (
        {"losses": [NAN, NAN, *around(0.5, 8)]},
        "degraded", "mixed", "training",
        ["2 of 10 exploded", "some runs of plain at depth 32 explode or stay at chance"],
    ),
    "vanished": (
        {"losses": around(2.3, sd=0.001), "ratio": 3e-9},
        "vanished", "vanishing", "training",
        ["the first layer receives 3.00e-09 of the last layer's gradient", "plain: the signal vanishes at depth 32"],
    ),
    # The gradient alone does not make the label: at depth 20 it is 5e-6 and the net trains. Nor does chance alone.
    "a small gradient": ({"losses": around(0.5), "ratio": 5e-6}, "degraded", "optimisation", "training", []),
    "at chance, not measured": (
        {"losses": around(2.3, sd=0.001)}, "degraded", "stuck", "training", ["no vanishing gradient was measured"]
    ),
    "at chance": (
        {"losses": around(2.3, sd=0.001), "ratio": 2e-4},
        "degraded", "stuck", "training", ["no vanishing gradient was measured"],
    ),
    "exploded comes before vanished": (
        {"losses": [NAN] * 5 + [2.3] * 5, "ratio": 1e-9},
        "exploded", "explosion", "training", ["5 of 10 exploded", "In 5 of them the signal vanishes"],
    ),
    "better on validation only": ({"errors": around(0.01)}, "no_evidence", None, None, []),
    "fits better, worse on validation": (
        {"losses": around(0.01), "errors": around(0.08)}, "helps", "overfitting", "validation only", []
    ),
    "worse on both": (
        {"losses": around(0.5), "errors": around(0.08)},
        "degraded", "optimisation", "training", ["not overfitting (validation error 8.00 % against 3.00 %)"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("runs", "label", "cause", "harm", "words"), CASES.values(), ids=CASES)
def test_a_cell_has_its_label_cause_and_words(runs, label, cause, harm, words) -> None:
    by_place = {name: {DEEP: value} for name, value in runs.items()}
    found = judged(by_place.get("losses"), errors=by_place.get("errors"), ratios=by_place.get("ratio"))
    it = cell(found, *DEEP)
    assert (it.label, it.cause, it.harm) == (label, cause, harm)
    for part in words:
        assert part in words_of(found, it) + said(found)


def test_undecided_says_how_many_more_seeds() -> None:
    found = judged({DEEP: around(0.13, sd=0.06)})
    it, tested = cell(found, *DEEP), contrast(found, "depth", *DEEP)
    assert (it.label, it.cause, it.harm) == ("undecided", None, None)
    assert tested.more_seeds is not None
    assert 5 < tested.more_seeds < 100
    assert f"About {tested.more_seeds} more seeds would decide it" in words_of(found, it)


@pytest.mark.slow
def test_the_seeds_asked_for_do_decide() -> None:
    """Fresh runs of the same difference and scatter, that many of them, mostly have the label sought."""
    spec = make_spec(primary=(Primary("shortcut", 32, "residual", "plain"),))
    first = judged({("residual", 32): around(0.07, sd=0.034), ("plain", 32): [0.1] * 10}, spec)
    asked = contrast(first, "shortcut", "residual", 32)
    assert (asked.label, asked.more_seeds) == ("undecided", 8)
    more = spec.extended(range(18))
    generator = np.random.Generator(np.random.PCG64(0))
    labels = []
    for _ in range(50):
        losses = {("residual", 32): generator.normal(0.07, 0.034, 18).clip(0).tolist(), ("plain", 32): [0.1] * 18}
        labels.append(contrast(verdict(make_table(more, losses), more), "shortcut", "residual", 32).label)
    assert 34 <= labels.count("helps") <= 46  # power 0.8 means 40, give or take two standard deviations


def test_more_seeds_are_at_least_what_the_exact_test_can_use() -> None:
    """Three pairs with a huge difference: only the smallest attainable p, with a second look, stands in the way."""
    spec = make_spec(seeds=(0, 1, 2), primary=(Primary("shortcut", 32, "residual", "plain"),))
    tested = contrast(judged({("plain", 32): [2.0, 1.9, 2.1]}, spec), "shortcut", "residual", 32)
    assert (tested.p, tested.label) == (2 / 8, "undecided")
    assert 3 + (tested.more_seeds or 0) == seeds_to_reach(0.025, 1, "paired", looks=2) == 8


def test_more_seeds_may_be_those_that_narrow_the_interval() -> None:
    spec = make_spec(primary=(Primary("shortcut", 32, "residual", "plain"),))
    losses = {("residual", 32): around(0.105, sd=0.05), ("plain", 32): [0.1] * 10}
    tested = contrast(judged(losses, spec), "shortcut", "residual", 32)
    # Finding 0.005 would take over a thousand seeds, showing that it is less than 0.02 only these:
    assert 10 + (tested.more_seeds or 0) == seeds_needed(0.02 - 0.005, [0.05**2]) == 90
    hopeless = {**losses, ("residual", 32): around(0.1199, sd=0.9)}
    tested = contrast(judged(hopeless, spec), "shortcut", "residual", 32)
    assert tested.more_seeds is None


@pytest.mark.parametrize("bad", [NAN, INF, 411.0, 2 * CHANCE + 1e-6])
@pytest.mark.parametrize(("count", "label"), [(5, "exploded"), (10, "exploded"), (4, None)])
def test_exploded_takes_half_of_the_seeds(bad: float, count: int, label: str | None) -> None:
    found = judged({("residual", 32): [*[bad] * count, *around(0.1, 10 - count)] if count < 10 else [bad] * 10})
    it = cell(found, "residual", 32)
    assert len(it.cell.of_kind("exploded")) == count
    assert f"{count} of 10 exploded" in words_of(found, it)
    assert {run.capped for run in it.cell.of_kind("exploded")} == {CHANCE}
    if label == "exploded":
        assert (it.label, it.cause, it.harm) == ("exploded", "explosion", "training")
        share = "all" if count == 10 else f"{count} of 10"
        assert f"residual: explodes at depth 32 ({share} runs)" in said(found)
    else:
        assert it.label == "undecided"
    if bad == 411.0:
        assert "the largest finite one is 411" in words_of(found, it)


def test_a_diverged_run_counts_as_chance_and_as_guessing_whatever_was_last_measured() -> None:
    found = judged({DEEP: [0.05, *[NAN] * 9]}, status={(*DEEP, 0): "diverged"})
    run, *others = cell(found, *DEEP).cell.runs
    assert (run.kind, run.loss, run.capped) == ("exploded", 0.05, CHANCE)
    assert {run.val_error for run in others} == {0.9}


@pytest.mark.parametrize(
    ("loss", "ratio", "kind"),
    [
        (0.97 * CHANCE, 1e-9, "trained"),
        (0.985 * CHANCE, 1e-9, "vanished"),
        (0.985 * CHANCE, 1.1e-4, "at chance"),
        (1.9 * CHANCE, 1e-9, "vanished"),
        (1.9 * CHANCE, None, "at chance"),
        (2.1 * CHANCE, 1e-9, "exploded"),
    ],
)
def test_where_the_kinds_of_runs_begin(loss: float, ratio: float | None, kind: str) -> None:
    ratios = None if ratio is None else {("plain", 32): ratio}
    it = cell(judged({("plain", 32): [loss] * 10}, ratios=ratios), "plain", 32)
    assert {run.kind for run in it.cell.runs} == {kind}
    assert {run.capped for run in it.cell.runs} == {min(loss, CHANCE)}


def test_the_entropy_of_the_labels_is_used_where_it_is_known() -> None:
    place = ("plain", 32)
    table = make_table(SPEC, {place: around(1.5, sd=0.001)}, ratios={place: 1e-9})
    assert cell(verdict(table, SPEC), *place).label == "degraded"
    table["label_entropy"] = 1.5
    assert cell(verdict(table, SPEC), *place).label == "vanished"


def test_the_shallowest_depth_can_explode_too() -> None:
    found = judged({("plain", 2): [INF] * 10})
    assert cell(found, "plain", 2).label == "exploded"
    assert (cell(found, "plain", 8).label, cell(found, "plain", 8).cause) == ("helps", "explosion")
    assert found.answer.startswith("Plain explodes at depth 2. Depth helps plain from depth 8 on.")


def test_harm_on_validation_only_is_overfitting() -> None:
    found = judged(errors={DEEP: around(0.08)})
    it = cell(found, *DEEP)
    assert (it.label, it.cause, it.harm) == ("no_evidence", "overfitting", "validation only")
    assert "Only the validation error is worse, 8.00 % against 3.00 %" in words_of(found, it)
    assert "plain: no evidence of a difference from depth 8 on; overfits at depth 32" in said(found)
