"""Pairs, missing runs, what may claim and at which level, how many seeds more, and what a verdict hands on."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
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

from netdepth.config import Component, EarlyStopping, Overfitting, RunConfig, TrainConfig
from netdepth.errors import BadInput
from netdepth.stats.exact import permutation_test, seeds_to_reach, sign_flip_test
from netdepth.stats.intervals import combination_p, seeds_needed
from netdepth.studies.comparison import LABELS, Contrast
from netdepth.studies.reach import more_seeds, out_of_reach
from netdepth.studies.samples import LEVEL
from netdepth.studies.verdict import Verdict, verdict
from netdepth.studyspec import Axis, Nuisance, Primary

SPEC = make_spec()
NAN, INF = math.nan, math.inf


# --- residual against plain ---


def test_the_shortcut_is_tested_pair_by_pair_and_names_the_cause_of_the_worse_one() -> None:
    plain, residual = around(2.3, sd=0.001), around(0.08)
    table = make_table(SPEC, {("plain", 32): plain, ("residual", 32): residual}, ratios={("plain", 32): 1e-9})
    found = verdict(table, SPEC)
    tested = contrast(found, "shortcut", "residual", 32)
    assert (tested.label, tested.design, tested.harm) == ("helps", "paired", None)
    assert tested.tests.p == sign_flip_test([r - p for r, p in zip(residual, plain, strict=True)]).p == 2 / 1024
    assert tested.corrected_p == pytest.approx(6 * 2 / 1024 / 0.94)
    assert "residual against plain: equivalent within ± 0.02 nats at depth 8; trains better at depth 32" in said(found)
    assert cause_of(tested) == cause_of(contrast(found, "depth", "plain", 32)) == "vanishing"
    assert "trains better at depth 32, consistent with a gradient that vanishes in plain" in said(found)
    assert "10 pairs of runs by seed" in said(found)


def test_a_pair_without_its_partner_leaves_the_test_and_is_counted() -> None:
    plain, residual = around(0.5), around(0.1)
    full = make_table(SPEC, {("plain", 32): plain, ("residual", 32): residual})
    gone = (full["condition"] == "plain") & (full["depth"] == "32") & full["seed"].isin([3, 7])
    found = verdict(full[~gone], SPEC)
    tested = contrast(found, "shortcut", "residual", 32)
    kept = [seed for seed in range(10) if seed not in (3, 7)]
    assert tested.left_out == (3, 7)
    assert [[run.seed for run in runs] for runs in tested.runs] == [kept, kept]
    assert tested.tests.exact_p == sign_flip_test([residual[s] - plain[s] for s in kept]).p
    assert "one run of the pair is missing: seeds 3 and 7" in said(found)
    assert "8 pairs of runs by seed" in said(found)
    assert not found.complete
    assert "Preliminary: 2 of 60 planned runs have no result" in said(found)
    assert "seed 3 of plain at depth 32 (no run)" in said(found)
    assert contrast(found, "depth", "plain", 32).left_out == (3, 7)


def test_pairs_are_compared_where_so_many_can_decide_and_the_plan_alone_says_so() -> None:
    """Ten pairs reach the first step of six comparisons, seven do not: then all runs are compared, unpaired."""
    for seeds, design in ((10, "paired"), (7, "unpaired")):
        spec = make_spec(seeds=tuple(range(seeds)))
        table = make_table(spec, {("plain", 32): around(0.5, seeds)})
        few = table[(table["seed"] < 3) | (table["condition"] == "residual")]
        for rows in (table, few):
            assert {c.design for c in verdict(rows, spec).contrasts} == {design}
    spec = make_spec(seeds=tuple(range(7)))
    table = make_table(spec, {("plain", 32): around(0.5, 7)})
    gone = (table["depth"] == "32") & table["seed"].isin([3, 6])
    tested = contrast(verdict(table[~gone], spec), "depth", "plain", 32)
    assert (tuple(map(len, tested.runs)), tested.left_out) == ((5, 7), ())
    one, other = ([run.capped for run in runs] for runs in tested.runs)
    assert tested.tests.exact_p == permutation_test(one, other).p
    assert tested.tests.t_p == pytest.approx(combination_p([one, other], [1, -1], "log"))
    # Other seeds for a condition: nothing to pair between conditions, pairs within them.
    other_seeds = make_spec(seeds_of={"residual": tuple(range(20, 32))})
    found = judged(spec=other_seeds)
    assert {(c.family, c.design) for c in found.contrasts} == {("depth", "paired"), ("shortcut", "unpaired")}
    assert tuple(map(len, contrast(found, "shortcut", "residual", 32).runs)) == (12, 10)
    assert found.complete


@pytest.mark.parametrize("reason", ["failed", "unfinished", "unreadable"])
def test_a_run_without_a_result_is_missing_and_shown(reason: str) -> None:
    table = make_table(SPEC, status={("plain", 32, 4): reason})
    table.loc[table["status"] == reason, "train_last_loss"] = None
    found = verdict(table, SPEC)
    it = cell(found, "plain", 32)
    assert it.cell.counts == {"completed": 9, reason: 1}
    assert "mean of 9 runs of 10 planned" in words_of(found, it)
    assert f"seed 4 of plain at depth 32 ({reason})" in said(found)
    (note,) = found.of_kind("missing")
    assert note.runs == ("runs/made/plain-32-s4",)


def test_an_empty_cell_is_undecided_and_still_counts_in_its_family() -> None:
    table = make_table(SPEC, {("plain", 8): [0.5] * 10})
    without = verdict(table[(table["condition"] != "plain") | (table["depth"] != "32")], SPEC)
    tested, other = (contrast(without, "depth", "plain", depth) for depth in (32, 8))
    assert (tested.label, tested.tests.p, tested.corrected_p, tested.failures.p) == ("undecided", 1.0, 1.0, 1.0)
    assert "there are no runs to compare" in words_of(without, cell(without, "plain", 32))
    assert other.corrected_p == pytest.approx(6 * other.tests.p / 0.94)


def test_a_loss_of_zero_has_no_logarithm_but_a_verdict() -> None:
    found = judged({("plain", 32): [0.0] * 10})
    it, tested = cell(found, "plain", 32), contrast(found, "depth", "plain", 32)
    assert it.label == "helps"
    assert it.cell.loss.method == "Student t"
    assert tested.tests.t == "Student's t test"
    assert contrast(found, "depth", "plain", 8).tests.t == "Student's t test, also of logarithms"


# --- what may claim ---


def test_what_was_not_named_beforehand_claims_nothing() -> None:
    spec = make_spec(primary=(Primary("shortcut", 32, "residual", "plain"),))
    found = judged({("plain", 8): [2.0] * 10, ("plain", 32): [2.0] * 10}, spec)
    assert [(int(c.cell.level), c.label) for c in found.contrasts if c.primary] == [(32, "helps")]
    rest = [c for c in found.contrasts if not c.primary]
    assert {(c.family, c.cell.condition, int(c.cell.level)) for c in rest} == {
        *(("depth", name, depth) for name in ("plain", "residual") for depth in (8, 32)),
        *(("shortcut", "residual", depth) for depth in (2, 8)),
    }
    assert {(c.label, c.corrected_p, cause_of(c), c.harm) for c in rest} == {("exploratory", None, None, None)}
    assert cell(found, "plain", 8).label == "exploratory"
    assert "not named before the runs, so it claims nothing" in words_of(found, cell(found, "plain", 8))
    assert len(found.claims) == 1


def test_a_corrected_p_above_the_level_is_no_claim() -> None:
    """Seven pairs: 2/128 is enough in a family of one, not for the exact test of one of eight; nor are all runs."""
    depths = (2, 4, 6, 8, 10, 12, 14, 16)
    axes = (Axis.of_depths(depths), Axis("condition", {"plain": {}, "residual": {"model.shortcut": "identity"}}))
    for primary, label in ((depths[-1:], "helps"), (depths[1:], "undecided")):
        named = tuple(Primary("shortcut", depth, "residual", "plain") for depth in primary)
        spec = make_spec(seeds=tuple(range(4)), scientific=axes, primary=named)
        losses = {("plain", 16): around(0.5, 4), ("residual", 16): around(0.1, 4)}
        assert contrast(judged(losses, spec), "shortcut", "residual", 16).label == label
        assert bool(out_of_reach(spec)) == (label == "undecided")


def test_the_study_says_beforehand_what_its_seeds_cannot_reach() -> None:
    three = make_spec(seeds=(0, 1, 2), primary=(Primary("shortcut", 32, "residual", "plain"),))
    (line,) = out_of_reach(three)
    smallest = "the smallest corrected p of 3 against 3 runs is 0.1, above 0.05"
    assert line == f"3 seeds cannot decide the comparison: {smallest}; 4 seeds can"
    assert verdict(make_table(three), three).warnings == (line,)
    assert out_of_reach(dataclasses.replace(three, seeds=tuple(range(4)))) == []
    assert len(out_of_reach(dataclasses.replace(three, seeds=tuple(range(4)), max_looks=None))) == 1  # p × 1 × 2
    assert out_of_reach(SPEC) == []
    assert out_of_reach(make_spec(primary=())) == []


# --- one family at 0.05 ---

FINETUNED = ("head only", "last stage", "all layers")


def three_ways() -> tuple[Verdict, Contrast]:
    """Three ways of training against one, seven seeds: two are clearly better, the third is at p = 6/128 = 0.047."""
    names = ("from scratch", *FINETUNED)
    axes = (Axis.of_depths([8]), Axis("condition", {name: {"model.init": name} for name in names}))
    primary = tuple(Primary("condition", 8, name, names[0]) for name in FINETUNED)
    spec = make_spec(scientific=axes, seeds=tuple(range(7)), primary=primary)
    scratch = around(0.1, 7, sd=0.005)
    shift = np.array([-5, -5, -5, -5, -5, -1, 2]) / 1000
    errors = {
        ("from scratch", 8): scratch,
        ("head only", 8): [e - 0.03 - k / 1000 for k, e in enumerate(scratch)],
        ("last stage", 8): (np.array(scratch) + shift).tolist(),
        ("all layers", 8): [e - 0.05 - k / 1000 for k, e in enumerate(scratch)],
    }
    found = judged(spec=spec, errors=errors)
    return found, contrast(found, "condition", "last stage", 8)


def test_the_last_of_three_comparisons_is_claimed_at_0_047() -> None:
    found, third = three_ways()
    assert (third.design, third.tests.p) == ("paired", 6 / 128)
    assert third.tests.t_p < third.tests.exact_p
    assert third.corrected_p == pytest.approx(0.04987, abs=1e-5)
    assert [c.label for c in found.contrasts] == ["helps"] * 3
    assert "last stage has a lower validation error than from scratch: 9.66 % against 10.00 % (corrected p = 0.05" in (
        found.answer[0].lower() + found.answer[1:]
    ).replace("Last", "last")


def test_an_interval_at_the_level_of_its_test_excludes_0_where_the_p_of_the_means_is_below_its_step() -> None:
    generator = np.random.Generator(np.random.PCG64(4))
    spec, sides = make_spec(seeds=tuple(range(7))), set()
    for _ in range(12):
        places = [(name, depth) for name in spec.conditions for depth in (2, 8, 32)]
        losses = {place: (0.1 + generator.normal(0.004 * k, 0.006, 7)).tolist() for k, place in enumerate(places)}
        for tested in judged(losses, spec).contrasts:
            if tested.primary:
                p, share = combination_p(tested.samples.values, [1, -1]), tested.corrected["difference"].share
                held = tested.difference_corrected
                sides.add(excludes := not held.low <= 0 <= held.high)
                assert held.level == pytest.approx(1 - LEVEL * share)
                assert excludes == (p < LEVEL * share)
                assert tested.corrected_p <= LEVEL or tested.tests.p > LEVEL * share * (1 - 1e-9)
    assert sides == {True, False}


# --- analyses ---


@pytest.mark.parametrize(
    ("max_looks", "factors", "words"),
    [
        (None, (2, 6), "this is analysis 2, and no number of analyses was declared (max_looks), so each p-value is "),
        (2, (2, 2), "this is analysis 2 of the 2 declared, so each p-value is "),
        (5, (5, 5), "this is analysis 2 of the 5 declared, so each p-value is "),
    ],
)
def test_analyses_spend_the_level_as_declared(max_looks, factors, words) -> None:
    first = make_spec(seeds=tuple(range(8)), max_looks=max_looks)
    second = first.extended(range(10))
    losses = {("plain", 32): around(0.5)}
    alone = verdict(make_table(SPEC, losses), SPEC)
    for spec, factor in ((dataclasses.replace(first, seeds=SPEC.seeds), factors[0]), (second, factors[1])):
        found = verdict(make_table(spec, losses), spec)
        a, b = (contrast(one, "shortcut", "residual", 32) for one in (alone, found))
        assert b.corrected["difference"].share == pytest.approx(a.corrected["difference"].share / factor)
        assert found.of_kind("interim analysis")
    assert words + f"multiplied by {'2 × 3 = 6' if max_looks is None else factors[1]}" in said(found)[0].lower() + said(
        found
    ).replace("This is", "this is")
    assert not alone.of_kind("interim analysis")
    assert found.as_json()["looks"] == 2


# --- how many seeds more ---


def test_undecided_says_how_many_more_seeds() -> None:
    spec = make_spec(max_looks=3)
    found = judged({("plain", 32): around(0.13, sd=0.06)}, spec)
    it, tested = cell(found, "plain", 32), contrast(found, "depth", "plain", 32)
    assert (it.label, cause_of(it), it.harm) == ("undecided", None, None)
    seeds, again = more_seeds(tested, spec)
    assert again
    assert 5 < seeds < 100
    assert f"About {seeds} more seeds would decide it" in words_of(found, it)
    once = judged({("plain", 32): around(0.13, sd=0.06)})
    fresh, again = more_seeds(contrast(once, "depth", "plain", 32), SPEC)
    assert not again
    assert 10 < fresh < seeds + 10  # one analysis of a new study, instead of the second of three
    assert f"A new study with about {fresh} seeds would decide it" in said(once)


@pytest.mark.slow
def test_the_seeds_asked_for_do_decide() -> None:
    """Fresh runs of the same difference and scatter, that many of them, mostly have the label sought."""
    spec = make_spec(primary=(Primary("shortcut", 32, "residual", "plain"),), max_looks=2)
    first = judged({("residual", 32): around(0.08, sd=0.034), ("plain", 32): around(0.1, sd=0.01)}, spec)
    asked = contrast(first, "shortcut", "residual", 32)
    seeds, _ = more_seeds(asked, spec)
    assert asked.label == "undecided"
    more = spec.extended(range(10 + seeds))
    generator = np.random.Generator(np.random.PCG64(0))
    scatter = np.std([a.capped - b.capped for a, b in zip(*asked.runs, strict=True)], ddof=1)
    labels = []
    for _ in range(50):
        plain = generator.normal(1, 0.01, 10 + seeds)
        residual = plain - 0.02 + generator.normal(0, scatter, 10 + seeds)
        losses = {("residual", 32): residual.tolist(), ("plain", 32): plain.tolist()}
        labels.append(contrast(judged(losses, more), "shortcut", "residual", 32).label)
    assert 34 <= labels.count("helps") <= 46  # power 0.8 means 40, give or take two standard deviations


def test_more_seeds_are_at_least_what_the_exact_test_can_use_at_the_next_analysis() -> None:
    """Three runs with a huge difference: only the smallest attainable p stands in the way."""
    for max_looks, level in ((None, 0.05 / 6), (4, 0.05 / 4)):
        spec = make_spec(seeds=(0, 1, 2), primary=(Primary("shortcut", 32, "residual", "plain"),), max_looks=max_looks)
        tested = contrast(judged({("plain", 32): [2.0, 1.9, 2.1]}, spec), "shortcut", "residual", 32)
        assert (tested.tests.p, tested.label) == (2 / 20, "undecided")
        seeds, _ = more_seeds(tested, spec)
        assert 3 + seeds == seeds_to_reach(level, "unpaired") == 5


def test_more_seeds_may_be_those_that_narrow_the_interval() -> None:
    spec = make_spec(primary=(Primary("shortcut", 32, "residual", "plain"),), max_looks=2)
    losses = {("residual", 32): around(0.105, sd=0.05), ("plain", 32): [0.1] * 10}
    # Finding 0.005 would take over a thousand seeds, showing that it is less than 0.02 only these:
    seeds, _ = more_seeds(contrast(judged(losses, spec), "shortcut", "residual", 32), spec)
    assert 10 + seeds == seeds_needed(0.02 - 0.005, [0.05**2], 0.05)  # two one-sided tests at half the level
    hopeless = {**losses, ("residual", 32): around(0.1199, sd=0.9)}
    assert more_seeds(contrast(judged(hopeless, spec), "shortcut", "residual", 32), spec) == (None, True)
    # Where a run failed, no interval would do.
    failed = {("residual", 32): [NAN, *around(0.1, 9)], ("plain", 32): [*around(0.1, 9), NAN]}
    tested = contrast(judged(failed, spec), "shortcut", "residual", 32)
    assert more_seeds(tested, spec) == (None, True)
    assert "Not even a thousand seeds would decide it" in said(judged(failed, spec))


# --- what is not judged, and what is stated ---


@pytest.mark.parametrize(
    "train",
    [TrainConfig(early_stopping=EarlyStopping()), TrainConfig(overfitting=Overfitting(action="stop"))],
)
def test_a_study_that_stops_early_gets_no_verdict(train: TrainConfig) -> None:
    spec = make_spec(base=RunConfig(Component("mnist"), Component("mlp"), train=train))
    found = judged({("plain", 32): [2.0] * 10}, spec)
    assert not found.judged
    assert {c.label for c in found.cells} == {"not judged"}
    assert found.contrasts == ()
    assert said(found).startswith("No verdict: the runs of this study may stop before their budget")
    assert not make_spec(
        base=RunConfig(Component("mnist"), Component("mlp"), train=TrainConfig(overfitting=Overfitting()))
    ).early_stopping


def test_the_nuisance_settings_are_stated() -> None:
    tuned = Nuisance("optimizer.lr", "tuned", values=(0.1, 0.001), seeds=(100, 101))
    spec = make_spec(nuisance=(Nuisance("train.batch_size"), tuned))
    text = said(judged(spec=spec))
    assert "All networks used batch size 128." in text
    assert "Learning rate was tuned for each network: 0.1 or 0.001, whichever gave the lowest validation loss" in text


# --- what is handed on ---


COMPARISON = {
    "family", "aim", "condition", "depth", "against", "primary", "label", "harm", "design", "left_out", "cause",
    "isolated", "more_seeds", "metric", "means", "difference", "difference_corrected", "p", "corrected_p", "tests",
    "questions", "failures", "equivalence_p", "overfitting_p", "failure_rate_not_excluded", "val_means",
    "val_difference", "n", "words", "runs", "against_runs", "field", "val_field",
}  # fmt: skip


def test_the_json_is_plain_and_every_number_has_its_runs_and_field() -> None:
    table = make_table(SPEC, {("plain", 32): [NAN, *[411.0] * 9]})
    found = verdict(table, SPEC).as_json()
    again = json.loads(json.dumps(found, allow_nan=False))
    assert again == found
    assert found["schema"] == 1
    assert found["nonfinite"] == {"cells[2].runs[0].loss": "nan"}
    deep = found["cells"][2]
    assert (deep["condition"], deep["depth"], deep["label"], deep["cause"]) == ("plain", 32, "exploded", "explosion")
    assert (deep["harm"], deep["n"], deep["planned"], deep["exploded"], deep["at_chance"]) == (
        "training",
        10,
        10,
        10,
        0,
    )
    assert deep["runs"][1]["loss"] == 411
    assert deep["runs"][1]["sources"] == {
        "loss": "runs/made/plain-32-s1/result.json:train.last.loss",
        "val_error": "runs/made/plain-32-s1/result.json:val.last.accuracy",
        "gradient_ratio": "runs/made/plain-32-s1/probes/init.json:gradient_ratio",
    }
    folders = set(table["folder"])
    for item in found["comparisons"]:
        assert item["runs"]
        assert {*item["runs"], *item["against_runs"]} <= folders
        assert item["field"] == "result.json:train.last.loss"
    tested = found["comparisons"][1]
    assert tested["failures"] == {"failed": 10, "runs": 10, "against_failed": 0, "against_runs": 10, "p": 2 / 184756}
    assert (found["level"], found["looks"], found["max_looks"], found["smallest_effect"]) == (0.05, 1, 1, 0.02)
    assert set(tested) == COMPARISON
    assert set(tested["questions"]) == {"difference", "equivalence", "failures"}
    assert all(0 <= q["corrected_p"] <= 1 and q["share"] > 0 for q in tested["questions"].values())
    assert tested["tests"]["t_p"] <= tested["p"] == tested["tests"]["exact_p"]
    assert found["comparisons"][0]["failure_rate_not_excluded"] == pytest.approx(0.2589, abs=1e-4)
    for sentence in found["sentences"]:
        assert set(sentence["runs"]) <= folders
    assert {item["label"] for item in [*found["cells"], *found["comparisons"]]} <= set(LABELS)


def test_from_20_runs_on_there_is_a_bootstrap_interval() -> None:
    for n, there in ((19, False), (20, True)):
        spec = make_spec(seeds=tuple(range(n)))
        assert (judged(spec=spec).cells[0].cell.bootstrap is not None) == there


def test_a_study_of_depth_alone() -> None:
    spec = make_spec(scientific=(Axis.of_depths([2, 32]),), primary=(Primary("depth", 32, ""),))
    found = judged({("", 32): around(0.5)}, spec)
    assert [c.label for c in found.cells] == ["reference", "degraded"]
    assert found.sentences[0].text.startswith("depth: trains worse at depth 32 (higher training loss than at")
    assert found.sentences[1].text.startswith("Depth 32 against depth 2: trains worse.")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.drop(columns="train_last_loss"), "unknown column of the table 'train_last_loss'"),
        (lambda t: t.assign(depth=3), "unknown depth of run plain-2-s0: '3'"),
        (lambda t: t.assign(condition="plan"), "did you mean 'plain'"),
        (lambda t: t.assign(seed=t["seed"] + 1), "unknown seed of run plain-2-s9: '10'"),
        (lambda t: t.assign(depth="2"), "are the same cell and seed"),
        (lambda t: t.assign(classes=range(len(t))), "different classes"),
        (lambda t: t.assign(classes=None), "classes = None is not acceptable"),
        (lambda t: t.iloc[:0], "classes = None is not acceptable"),
    ],
)
def test_a_table_that_does_not_fit_the_plan_is_refused(change, words) -> None:
    with pytest.raises(BadInput, match=words) as error:
        verdict(change(make_table(SPEC)), SPEC)
    assert "\n" not in str(error.value)


def test_a_failure_is_called_what_the_other_cell_lacks() -> None:
    spec = make_spec(seeds=tuple(range(20)), primary=(Primary("depth", 8, "plain"),))
    losses = {("plain", 2): [math.inf] * 6 + around(0.1, 14), ("plain", 8): [math.inf] * 6 + [CHANCE] * 14}
    found = judged(losses, spec)
    assert cell(found, "plain", 8).label == "at chance"  # as many exploded at depth 2
    assert cause_of(cell(found, "plain", 8)) == "stuck"


def test_a_run_that_ended_without_a_result_has_not_failed() -> None:
    for status in ("crashed", "killed", "failed", "unfinished"):
        found = judged({("plain", 8): [math.nan] * 10}, status={("plain", 8, seed): status for seed in range(1, 10)})
        deep = cell(found, "plain", 8)
        assert (len(deep.cell.runs), len(deep.cell.missing), deep.label) == (1, 9, "undecided"), status


def test_not_worse_at_a_depth_is_in_the_answer_and_in_the_condition() -> None:
    spec = make_spec(primary=tuple(Primary("depth", d, "plain", aim="not worse", margin=0.02) for d in (8, 32)))
    found = judged({("plain", 32): around(0.3, stream=4)}, spec)
    assert found.answer == (
        "Not worse by more than 0.02 nats than training at depth 2: plain at depth 8; for the others it is undecided "
        "what depth does."
    )
    assert "plain: not worse by more than 0.02 nats at depth 8; undecided at depth 32." in said(found)


def test_an_interval_without_0_beside_undecided_is_explained() -> None:
    losses = {("plain", 2): around(0.1, sd=0.01), ("plain", 8): around(0.11, sd=0.01, stream=3)}
    assert "The 95 % interval excludes 0, but it is not corrected for 6 comparisons." in said(judged(losses))
    one = make_spec(seeds=tuple(range(3)), primary=(Primary("depth", 8, "plain"),))
    found = judged({("plain", 8): around(0.2, 3)}, one)
    assert "The interval excludes 0, but a difference needs the other tests too, and not all of them agree." in said(
        found
    )


def test_a_p_value_names_the_analyses_that_it_was_multiplied_for() -> None:
    words = {
        (1, 1): "in one family of 6 comparisons (",
        (3, 1): "in one family of 6 comparisons and for 3 analyses (",
        (3, 2): "in one family of 6 comparisons and for 3 analyses (",
        (None, 1): "in one family of 6 comparisons and for analysis 1 of an open number (",
    }
    for (declared, look), expected in words.items():
        assert expected in said(judged(spec=make_spec(max_looks=declared, looks=look)))


def test_one_run_shows_no_scatter_and_promises_none() -> None:
    spec = make_spec(seeds=(0,))
    places = [(cell.condition, cell.level) for cell in spec.cells]
    one = {place: [0.03] for place in places}
    found = judged({place: [0.1] for place in places}, spec, errors=one, gaps=one)
    assert "One run shows no scatter: to decide it takes a new study with 6 seeds or more." in said(found)
    assert "stay as measured" not in said(found)
    assert found.warnings[0].startswith("1 seed cannot decide any of the 6 comparisons")
