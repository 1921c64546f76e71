"""Every label of a verdict, on tables made for it: what is claimed, what it is consistent with, and what is refused."""

from __future__ import annotations

import json
import math

import pytest
from support.made_studies import (
    CHANCE,
    around,
    cause_of,
    cell,
    contrast,
    judged,
    make_spec,
    make_table,
    said,
    words_of,
)

from netdepth.stats.exact import failures_p, sign_flip_test
from netdepth.stats.intervals import combination_p, equivalence_p
from netdepth.studies.samples import LEVEL
from netdepth.studies.verdict import verdict
from netdepth.studyspec import Axis, Primary

SPEC = make_spec()
NAN, INF = math.nan, math.inf
DEEP, SHALLOW = ("plain", 32), ("plain", 2)


# --- the labels ---


def test_degraded_with_its_numbers_and_words() -> None:
    deep, shallow = around(0.5, sd=0.05), around(0.1)
    found = judged({DEEP: deep, SHALLOW: shallow})
    it, tested = cell(found, *DEEP), contrast(found, "depth", *DEEP)
    assert (it.label, it.harm, cause_of(it)) == ("degraded", "training", "optimisation")
    assert tested.difference.value == pytest.approx(0.4)
    differences = [d - s for d, s in zip(deep, shallow, strict=True)]
    logs = [math.log(d) - math.log(s) for d, s in zip(deep, shallow, strict=True)]
    assert tested.tests.exact_p == sign_flip_test(differences).p == 2 / 1024
    assert tested.tests.t_p == pytest.approx(max(combination_p([differences], [1]), combination_p([logs], [1])))
    assert tested.tests.p == max(tested.tests.exact_p, tested.tests.t_p)
    assert tested.corrected_p == pytest.approx(6 * tested.tests.p / 0.94)  # six comparisons, and a part for equivalence
    assert "plain: trains worse at depth 32 (higher training loss than at depth 2, so not overfitting)" in said(found)
    text = words_of(found, it)
    assert "Mean training loss 0.500 against 0.100 nats, difference +0.400 nats (99.22 % interval [" in text
    assert "] at the level of its test, 95 % interval [+0.36" in text
    assert "10 pairs of runs by seed; corrected p = 0.012 in one family of 6 comparisons (exact sign-flip test" in text
    assert "Student's t test, also of logarithms" in text
    because = "because its training loss itself is higher, and none of its runs failed"
    assert f"Consistent with an optimisation that is harder, {because}." in text


def test_without_validation_images_there_is_no_validation_error() -> None:
    """As `--set dataset.val_size=0` makes it; a diverged run is then no reason to speak of one."""
    table = make_table(SPEC, {DEEP: [*around(0.5, sd=0.05)[:9], NAN]})
    table["val_last_accuracy"] = table["val_last_loss"] = None
    found = verdict(table, SPEC)
    it = cell(found, *DEEP)
    assert (it.label, it.harm) == ("degraded", "training")
    assert [run.val_error for run in it.cell.runs] == [None] * 10
    assert (it.cell.val_error.value, it.cell.val_error.n) == (None, 0)
    assert "validation error" not in words_of(found, it)
    tested = contrast(found, "depth", *DEEP)
    assert (tested.val_means, tested.val_difference.value, tested.overfitting_p) == ((None, None), None, None)
    assert '"val_error": null' in json.dumps(found.as_json())


CASES = {
    "helps": ({"losses": around(0.05)}, "helps", None, None, ["better at depth 32 than at depth 2"]),
    "equivalent": (
        {},
        "equivalent", None, None,
        [
            "equivalent within ± 0.02 nats from depth 8 on",
            "No run failed; so few runs do not exclude a failure rate of up to 26 %",
            "Two one-sided t tests: corrected p < 0.0001",
        ],
    ),
    "exploded in part": (
        {"losses": [NAN, NAN, *around(0.5, 8)]},
        "degraded", "instability", "training",
        [
            "2 of 10 runs failed against 0 of 10 (Fisher's exact test, corrected p = 1)",
            "Consistent with training that is unstable, because 2 of 10 runs exploded.",
            "The runs that trained reach 0.500 against 0.1",
            "nats alone (p = 0.0078, not planned)",
        ],
    ),
    "vanished": (
        {"losses": around(2.3, sd=0.001), "ratios": 3e-9},
        "vanished", "vanishing", "training",
        [
            "the first layer receives 3.00e-09 of the last layer's gradient",
            "plain: the signal vanishes at depth 32 (all runs)",
            "10 of 10 runs failed against 0 of 10",
        ],
    ),
    # The gradient alone does not make the label: at depth 20 it is 5e-6 and the net trains. Nor does chance alone.
    "a small gradient": ({"losses": around(0.5), "ratios": 5e-6}, "degraded", "optimisation", "training", []),
    "at chance, not measured": (
        {"losses": around(2.3, sd=0.001)}, "at chance", "stuck", "training", ["no vanishing gradient was measured"]
    ),
    "at chance": (
        {"losses": around(2.3, sd=0.001), "ratios": 2e-4},
        "at chance", "stuck", "training", ["no vanishing gradient was measured"],
    ),
    "exploded comes before vanished": (
        {"losses": [NAN] * 5 + [2.3] * 5, "ratios": 1e-9},
        "exploded", "explosion", "training", ["5 of 10 exploded", "In 5 of them the signal vanishes"],
    ),
    "better on validation only": ({"errors": around(0.01)}, "equivalent", None, None, []),
    "worse on both, with a larger gap": (
        {"losses": around(0.5), "errors": around(0.08), "gaps": around(0.4)},
        "degraded", "optimisation", "training", ["so not overfitting"],
    ),
    # Overfitting takes all of it: training no worse, validation error worse, gap to the validation loss larger.
    "fits better, worse on validation, larger gap": (
        {"losses": around(0.01), "errors": around(0.08), "gaps": around(0.4)},
        "helps", "overfitting", "validation only", ["plain: trains better at depth 32 than at depth 2", "overfits"],
    ),
    "worse on validation, the gap is the same": ({"errors": around(0.08)}, "equivalent", None, None, []),
    "a larger gap, the validation error is the same": ({"gaps": around(0.4)}, "equivalent", None, None, []),
}  # fmt: skip


@pytest.mark.parametrize(("runs", "label", "cause", "harm", "words"), CASES.values(), ids=CASES)
def test_a_cell_has_its_label_cause_and_words(runs, label, cause, harm, words) -> None:
    found = judged(**{name: {DEEP: value} for name, value in runs.items()})
    it = cell(found, *DEEP)
    assert (it.label, cause_of(it), it.harm) == (label, cause, harm)
    for part in words:
        assert part in words_of(found, it) + said(found)


def test_overfitting_takes_the_gap_and_a_training_loss_that_is_no_worse() -> None:
    """In a study of one comparison; of six, ten pairs cannot reach the part of the level for equivalences."""
    worse = {"errors": {DEEP: around(0.08)}, "gaps": {DEEP: around(0.4)}}
    found = judged(spec=make_spec(primary=(Primary("depth", 32, "plain"),)), **worse)
    it, tested = cell(found, *DEEP), contrast(found, "depth", *DEEP)
    assert (it.label, cause_of(it), it.harm) == ("equivalent", "overfitting", "validation only")
    assert tested.overfitting_p == tested.p_of("overfitting") == 2 / 1024
    reason = "the validation error is higher (8.00 % against 3.00 %), the gap between validation and training loss is"
    assert f"Consistent with overfitting, because {reason} larger (by 0.350 nats" in words_of(found, it)
    assert "overfits at depth 32" in said(found)
    assert cell(judged(**worse), *DEEP).harm is None


def test_the_one_that_overfits_is_named_and_not_the_one_that_trains_worse() -> None:
    place = {("residual", 32): around(0.01)}
    found = judged(place, errors={("residual", 32): around(0.08)}, gaps={("residual", 32): around(0.4)})
    tested = contrast(found, "shortcut", "residual", 32)
    assert (tested.label, cause_of(tested), tested.explanation.isolated) == ("helps", "overfitting", None)
    assert (tested.worse.condition, tested.explained_cell.condition) == ("plain", "residual")
    assert "trains better at depth 32, consistent with overfitting in residual" in said(found)


# --- failures ---


@pytest.mark.parametrize("bad", [NAN, 411.0, 2 * CHANCE + 1e-6])
@pytest.mark.parametrize("count", [10, 7, 6, 4])
def test_exploded_takes_fishers_test_in_the_family(bad: float, count: int) -> None:
    """Six of ten against none of ten is p = 0.011, 0.069 after the correction for six comparisons."""
    found = judged({("residual", 32): [*[bad] * count, *around(0.3, 10 - count)] if count < 10 else [bad] * 10})
    it, tested = cell(found, "residual", 32), contrast(found, "depth", "residual", 32)
    assert len(it.cell.of_kind("exploded")) == tested.failures.failed == count
    assert f"{count} of 10 exploded" in words_of(found, it)
    assert {run.capped for run in it.cell.of_kind("exploded")} == {CHANCE}
    assert tested.failures.p == failures_p(count, 10, 0, 10)
    corrected = tested.p_of("failures")
    assert corrected is not None
    assert corrected >= tested.corrected_p  # more failures are claimed after a difference alone
    expected = ("exploded", "explosion") if corrected <= LEVEL else ("degraded", "instability")
    assert (it.label, cause_of(it)) == expected
    assert (it.label == "exploded") == (count >= 7)
    if count >= 7:
        share = "all" if count == 10 else f"{count} of 10"
        assert f"residual: explodes at depth 32 ({share} runs)" in said(found)
    else:
        assert f"{count} of 10 runs exploded at depth 32" in said(found), "what became of a cell is told in any case"
    if bad == 411.0:
        assert "the largest finite one is 411" in words_of(found, it)


def lost(count: int, stream: int) -> list[float]:
    """Ten losses of which ``count`` exploded, at seeds that depend on ``stream``."""
    losses = around(0.1, stream=stream)
    for k in range(count):
        losses[(3 * k + stream) % 10] = NAN
    return losses


def test_failures_at_every_depth_say_nothing_about_depth() -> None:
    """25 % lost everywhere, and a rate at which every network explodes, those of two layers too."""
    places = [(name, depth) for name in SPEC.conditions for depth in (2, 8, 32)]
    for count in (3, 10):
        found = judged({place: lost(count, stream) for stream, place in enumerate(places)})
        assert {it.label for it in found.cells} == {"reference", "undecided"}
        assert found.claims == ()
        every = "; every network fails, at depth 2 too" if count == 10 else ""
        assert found.answer.startswith(f"It is undecided what depth does{every}.")
        assert f"{count} of 10 runs exploded at depth 2" in said(found), "the reference is told as the others are"
        assert f"{count} of 10 runs failed against {count} of 10" in said(found)
    assert {tested.tests.p for tested in found.contrasts} == {1.0}


def test_one_finished_run_beside_crashed_ones_says_nothing() -> None:
    """Six of seven crashed, the last exploded; and all that crashed or are missing have not failed."""
    spec = make_spec(seeds=tuple(range(7)))
    for state in ("failed", "unfinished", "unreadable"):
        found = judged({DEEP: [NAN] * 7}, spec, status={(*DEEP, seed): state for seed in range(6)})
        it, tested = cell(found, *DEEP), contrast(found, "depth", *DEEP)
        assert (it.label, it.cell.counts) == ("undecided", {"diverged": 1, state: 6})
        assert (tested.failures.failed, tested.failures.runs) == (1, 1)
        assert (tested.tests.t_p, tested.failures.p) == (1.0, failures_p(1, 1, 0, 7))
        assert found.claims == tuple(c for c in found.claims if c.cell is not it.cell)
        assert "1 of 1 runs exploded" in said(found)
    crashed = judged(spec=spec, status={(*DEEP, seed): "failed" for seed in range(3)})
    assert contrast(crashed, "depth", *DEEP).failures.failed == 0
    assert contrast(crashed, "depth", *DEEP).failures.runs == 4


def test_equivalence_is_refused_where_a_run_failed() -> None:
    """The same failures on both sides leave the difference near 0; it is still not called the same."""
    for one, other in ((1, 1), (1, 0), (0, 1)):
        found = judged({DEEP: lost(one, 0), SHALLOW: lost(other, 0)})
        tested = contrast(found, "depth", *DEEP)
        assert (tested.label, tested.equivalence_p) == ("undecided", 1.0)
        assert "Where runs fail, no equivalence is claimed." in words_of(found, cell(found, *DEEP))
        assert contrast(found, "depth", "residual", 32).label == "equivalent"


def test_equivalence_is_refused_where_the_interval_excludes_0_and_wherever_a_difference_may_be_claimed() -> None:
    """Five runs with a difference of 0.005 inside ± 0.02: too few seeds for a claim, but 0 is excluded."""
    spec = make_spec(seeds=tuple(range(5)))
    near = {("plain", depth): around(0.105, 5, stream=depth) for depth in (8, 32)}
    found = judged({**near, SHALLOW: around(0.1, 5)}, spec)
    tested = contrast(found, "depth", *DEEP)
    assert tested.design == "unpaired"
    assert tested.samples.equivalence(0.02, relative=False) < 0.0001
    assert 0 < tested.difference.low < tested.difference.high < 0.02
    assert (tested.label, tested.equivalence_p) == ("undecided", 1.0)
    same = contrast(found, "depth", "residual", 32)
    assert same.equivalence_p == pytest.approx(
        equivalence_p(*same.samples.combined(same.samples.values, (1, -1)), 0.02)
    )
    assert same.label == "equivalent"


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


def test_a_reference_that_explodes_makes_the_others_better() -> None:
    """That the shallowest depth explodes is told; the claim is that of the comparison: depth helps."""
    found = judged({SHALLOW: [INF] * 10})
    assert cell(found, *SHALLOW).label == "reference"
    tested = contrast(found, "depth", "plain", 8)
    assert (tested.label, cause_of(tested), tested.worse.level) == ("helps", "explosion", "2")
    assert "10 of 10 runs exploded at depth 2" in said(found)
    assert found.answer.startswith("Depth helps plain from depth 8 on.")


# --- causes ---

TWINS = (Primary("depth", 32, "plain"), Primary("shortcut", 32, "residual", "plain"))


def test_a_cause_is_named_where_two_cells_differ_in_one_setting_and_a_planned_comparison_found_it() -> None:
    deep = {DEEP: around(0.5)}
    found = judged(deep, make_spec(primary=TWINS))
    tested, shortcut = contrast(found, "depth", *DEEP), contrast(found, "shortcut", "residual", 32)
    assert shortcut.label == "helps"
    for it in (tested, shortcut):
        because = it.explanation.isolated
        assert (because.setting, because.value, because.other) == ("shortcut", "identity", "none")
        assert because.p == shortcut.corrected_p
    isolates = "The study isolates a cause: with shortcut identity instead of none and all else equal it is better"
    assert isolates in words_of(found, cell(found, *DEEP))
    # Not planned, not found, or more than one setting apart: a suggestion alone.
    both = {"plain": {"model.shortcut": "none"}, "residual": {"model.shortcut": "identity", "model.init": "default"}}
    two_settings = make_spec(scientific=(SPEC.scientific[0], Axis("condition", both)), primary=TWINS)
    for case in (
        judged(deep, make_spec(primary=TWINS[:1])),
        judged({**deep, ("residual", 32): around(0.5, stream=1)}, make_spec(primary=TWINS)),
        judged(deep, two_settings),
    ):
        explained = contrast(case, "depth", *DEEP).explanation
        assert (explained.cause, explained.isolated) == ("optimisation", None)
        assert "isolates" not in said(case)
        assert "Consistent with an optimisation that is harder" in said(case)


def test_a_smaller_network_is_not_said_to_be_harder_to_train() -> None:
    """Width 16 against 64: it may simply be able to do less."""
    widths = {"wide": {"model.width": 64}, "narrow": {"model.width": 16}}
    primary = (Primary("shortcut", 8, "narrow", "wide"), Primary("cells", 8, "narrow", "wide"))
    spec = make_spec(scientific=(Axis.of_depths([2, 8]), Axis("condition", widths)), primary=primary)
    found = judged({("narrow", 8): around(0.5)}, spec)
    assert [(c.label, cause_of(c)) for c in found.contrasts if c.primary] == [("degraded", None)] * 2


def test_runs_that_trained_are_compared_alone_where_some_failed() -> None:
    """As residual-56 of depth-cnn: it loses a run, and the others are worse by themselves."""
    found = judged({DEEP: [NAN, *around(0.5, 9)]})
    others = contrast(found, "depth", *DEEP).explanation.others
    assert (others.n, others.mean) == (9, pytest.approx(0.5))
    assert others.p == pytest.approx(2 / 2**9)
    alike = judged({DEEP: [*[NAN] * 9, 0.1]})
    assert contrast(alike, "depth", *DEEP).label == "exploded"
    assert contrast(alike, "depth", *DEEP).explanation.others is None
